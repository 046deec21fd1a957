"""`leafe run` killed with SIGKILL at ten random moments ends with the adapters of an undisturbed run."""

import json
import random
import re
import signal
import sys
from pathlib import Path
from typing import Any

import killed_rounds
import pytest
from lives import Lives

pytest.importorskip("peft", reason='the trainer is not installed: pip install ".[train]"')

KILLS = 10


class Calls:
    """Calls ``leafe run`` again and again, and notes which phases each call began."""

    def __init__(self, folder: Path, model: Path) -> None:
        self.config, self.phases = folder / "two.yaml", folder / "phases.log"
        self.config.write_text(killed_rounds.CONFIG.format(model=model))
        command = [sys.executable, killed_rounds.__file__, "run", str(self.config), str(self.phases)]
        self.lives = Lives(command)

    def __enter__(self) -> "Calls":
        return self

    def __exit__(self, *exc: object) -> None:
        self.lives.__exit__(*exc)

    def call(self, out: Path, moment: int = 0, delay: float = 0.0) -> tuple[int, list[str]]:
        """How the call ended, and the phases that it began."""
        seen = len(self._lines())
        self.lives.start(f"{out} {moment} {delay}")
        ended = self.lives.end()
        return ended, [line for line in self._lines()[seen:] if re.fullmatch(r"round-\d+: \w+", line)]

    def _lines(self) -> list[str]:
        return self.phases.read_text().splitlines() if self.phases.exists() else []


def marks(out: Path) -> dict[str, int]:
    """The finished phases, as the log calls them, and when each was marked."""
    return {f"{file.parent.parent.name}: {file.stem}": file.stat().st_mtime_ns for file in out.glob("round-*/done/*")}


def came_to(out: Path) -> list[dict[str, Any]]:
    """What a run made and measured, without the clock's part."""
    told = json.loads((out / "rounds.json").read_text())
    for entry in told["rounds"]:
        del entry["seconds"]
        for cost in entry["spent"].values():
            del cost["seconds"]
    rounds: list[dict[str, Any]] = told["rounds"]
    return rounds


def test_killed_rounds_end_as_the_undisturbed_ones(tiny_model_path: Path, tmp_path: Path) -> None:
    """No finished phase is played again; adapters, rows, costs and Pass@k are the same."""
    whole, draw, kills, killed_in = tmp_path / "whole", random.Random("moments"), 0, []
    with Calls(tmp_path, tiny_model_path) as calls:
        code, phases = calls.call(whole)
        every = [f"round-{n}: {phase}" for n in (1, 2) for phase in ("explore", "export", "train", "eval")]
        assert (code, phases) == (0, ["round-0: eval", *every])
        moments = int((whole / "moments").read_text())
        assert all(entry["export"]["rehearsal"] for entry in came_to(whole)[1:]), "nothing was learned from"
        for run in range(KILLS):
            out, done, code = tmp_path / f"killed-{run}", {}, -signal.SIGKILL
            while code:
                last = kills >= KILLS  # then it may come to its end
                moment = 0 if last else draw.randint(1, moments // 5)
                code, phases = calls.call(out, moment, draw.choice([0, draw.uniform(0, 0.05)]))
                assert code in (0, -signal.SIGKILL)
                assert not done.keys() & phases, "a finished phase was played again"
                assert done.items() <= marks(out).items(), "a finished phase was marked again"
                done = marks(out)
                if code:
                    kills += 1
                    killed_in.append(phases[-1] if phases else "between phases")
            assert came_to(out) == came_to(whole)
            if kills >= KILLS:
                break
        print(moments, "moments; killed in", killed_in)
        assert kills >= KILLS
        assert calls.call(out) == (0, [])
