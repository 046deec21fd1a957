"""The end-to-end test: the small demo with the real embedded model."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from leafe_graph.tree.run_folder import RunFolder


def test_make_demo_runs_where_the_package_is(tmp_path: Path) -> None:
    """In the active environment, if it has the package; else in one of its own, which it installs."""

    def commands(active: Path) -> list[str]:
        apart = {"CONDA_PREFIX", "MAKEFLAGS", "MAKELEVEL", "MFLAGS"}  # what a `make test` around it hands on, too
        environment = {name: value for name, value in os.environ.items() if name not in apart}
        make = ["make", "--dry-run", "demo", "ARGS=--seed 1", f"VENV={tmp_path / 'own'}"]
        where: Any = {"cwd": Path(__file__).parents[1], "env": environment | {"VIRTUAL_ENV": str(active)}}
        return subprocess.run(make, check=True, capture_output=True, text=True, **where).stdout.splitlines()

    active = tmp_path / "active"
    (active / "bin").mkdir(parents=True)
    assert commands(active)[-1] == f"{tmp_path}/own/bin/leafe demo --seed 1"
    assert any("pip install" in line for line in commands(active))
    (active / "bin" / "leafe").touch()
    assert commands(active) == [f"{active}/bin/leafe demo --seed 1"]


@pytest.mark.embedded
def test_small_demo_closes_the_loop(tmp_path: Path) -> None:
    """Explore, export, train, evaluate and compare with SmolLM2-135M; the adapter it leaves loads with plain PEFT."""
    environment = {**os.environ, "LEAFE_DEMO": "small"}
    command = [sys.executable, "-m", "leafe_graph", "demo", "--out", str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Pass@" in done.stdout
    assert "seconds in all" in done.stdout
    assert "12 levels cannot tell" in done.stdout

    run = RunFolder(tmp_path / "run")
    assert any(branch["end"] == "success" for branch in run.branches), "the warm-started policy won nothing"
    assert any(branch["reflections"] for branch in run.branches), "no failure was reflected upon"
    rows = [json.loads(line) for line in (run.folder / "examples" / "examples.jsonl").read_text().splitlines()]
    experiences = [branch["experience"] for branch in run.branches if branch["experience"]]
    corrected = [row for row in rows if row["kind"] == "counterfactual"]
    assert corrected, "no mistake was corrected"
    told = " ".join(done.stdout.split())
    assert f"there are {len(corrected)} such rows" in told and f"--task {corrected[0]['task_id']}" in told
    assert not any(text in json.dumps(row, ensure_ascii=False) for row in rows for text in experiences)
    report = json.loads((tmp_path / "demo.json").read_text())
    assert {d["k"] for d in report["comparison"]["differences"]} == {1, 2}

    load = (
        "import sys\n"
        "from peft import PeftModel\n"
        "from transformers import AutoModelForCausalLM\n"
        "model = AutoModelForCausalLM.from_pretrained(sys.argv[1])\n"
        "PeftModel.from_pretrained(model, sys.argv[2])\n"
        "assert 'leafe_graph' not in sys.modules\n"
    )
    from leafe_graph.models.embedded import embedded_model_path

    adapter = run.folder / "adapter"
    subprocess.run([sys.executable, "-c", load, str(embedded_model_path()), str(adapter)], check=True, timeout=300)
