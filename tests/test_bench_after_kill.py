"""`leafe bench` killed with SIGKILL at ten random moments ends with the table of an undisturbed one."""

import json
import random
import signal
import sys
from pathlib import Path
from typing import Any

import killed_rounds
import pytest
from lives import Lives

pytest.importorskip("peft", reason='the trainer is not installed: pip install ".[train]"')

KILLS = 10


def came_to(out: Path) -> dict[str, Any]:
    """The table, without the clock's part."""

    def timeless(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: timeless(each) for name, each in value.items() if name != "seconds"}
        return [timeless(each) for each in value] if isinstance(value, list) else value

    told: dict[str, Any] = timeless(json.loads((out / "table.json").read_text()))
    return told


def test_a_killed_bench_ends_with_the_same_table(tiny_model_path: Path, tmp_path: Path) -> None:
    """Wherever it is killed: playing, exporting, training, judging, choosing a setting."""
    config = tmp_path / "b.yaml"
    config.write_text(killed_rounds.BENCH.replace("{model}", str(tiny_model_path)))
    command = [sys.executable, killed_rounds.__file__, "bench", str(config), str(tmp_path / "phases.log")]
    whole, draw, kills, number = tmp_path / "whole", random.Random("moments"), 0, 0
    with Lives(command) as lives:

        def call(out: Path, moment: int = 0, delay: float = 0.0) -> int:
            lives.start(f"{out} {moment} {delay}")
            return lives.end()

        assert call(whole) == 0, (tmp_path / "phases.out").read_text()[-3000:]
        moments = int((whole / "moments").read_text())
        while kills < KILLS:
            out, code, number = tmp_path / f"killed-{number}", -signal.SIGKILL, number + 1
            while code:
                moment = 0 if kills >= KILLS else draw.randint(1, moments // 3)
                code = call(out, moment, draw.choice([0, draw.uniform(0, 0.05)]))
                assert code in (0, -signal.SIGKILL), (tmp_path / "phases.out").read_text()[-3000:]
                kills += code != 0
            assert came_to(out) == came_to(whole)
