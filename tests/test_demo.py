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


def demo(out: Path, policy: str) -> str:
    """What the small demo says, with one process at a time."""
    command = [sys.executable, "-m", "leafe_graph", "demo", "--policy", policy, "--out", str(out), "--jobs", "1"]
    environment = os.environ | {"LEAFE_DEMO": "small"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "seconds in all" in done.stdout and "levels cannot tell" in done.stdout
    return " ".join(done.stdout.split())


def learned(out: Path, told: str) -> int:
    """What the demo left: trees with reflections and wins, clean rows, a table; and how many corrections it tells."""
    runs = [RunFolder(folder) for folder in (out / "played").iterdir()]
    (run,) = [run for run in runs if run.settings.strategy == "leafe"]
    assert any(branch["end"] == "success" for branch in run.branches), "the policy won nothing"
    assert any(branch["reflections"] for branch in run.branches), "no failure was reflected upon"
    (file,) = out.glob("cells/leafe/*/*/round-1/examples/examples.jsonl")
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    experiences = {branch["experience"] for branch in run.branches if branch["experience"]}
    corrected = [row for row in rows if row["kind"] == "counterfactual"]
    if corrected:
        assert f"there are {len(corrected)} such rows" in told and f"--task {corrected[0]['task_id']}" in told
    else:
        assert "None: all rows are of the policy's own wins" in told
    assert not any(text in json.dumps(row, ensure_ascii=False) for row in rows for text in experiences)
    panel = json.loads((out / "table.json").read_text())["panel"]
    assert {row["method"] for row in panel["rows"]} == {"base", "rejection", "leafe"}
    assert "LEAFE beside base, Pass@1: " in told and "LEAFE beside rejection, Pass@1: " in told
    return len(corrected)


def test_small_demo_with_the_tiny_policy(tmp_path: Path) -> None:
    """It comes with the package, all its weights are trained, and what is learned is an ordinary model."""
    assert learned(tmp_path, demo(tmp_path, "tiny")), "no mistake was corrected"
    (model,) = tmp_path.glob("cells/leafe/*/*/round-1/model")
    from transformers import AutoModelForCausalLM

    assert AutoModelForCausalLM.from_pretrained(model).num_parameters() < 1_000_000


@pytest.mark.embedded
def test_small_demo_closes_the_loop(tmp_path: Path) -> None:
    """Explore, export, train, evaluate and compare with SmolLM2-135M; the adapter it leaves loads with plain PEFT."""
    learned(tmp_path, demo(tmp_path, "smollm2-135m"))
    load = (
        "import sys\n"
        "from peft import PeftModel\n"
        "from transformers import AutoModelForCausalLM\n"
        "model = AutoModelForCausalLM.from_pretrained(sys.argv[1])\n"
        "PeftModel.from_pretrained(model, sys.argv[2])\n"
        "assert 'leafe_graph' not in sys.modules\n"
    )
    from leafe_graph.models.embedded import embedded_model_path

    (adapter,) = tmp_path.glob("cells/leafe/*/*/round-1/adapter")
    subprocess.run([sys.executable, "-c", load, str(embedded_model_path()), str(adapter)], check=True, timeout=300)
