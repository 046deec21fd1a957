"""What is killed: ``leafe run`` and ``leafe bench`` with a tiny model, in a world that a random policy often wins.

``python killed_rounds.py run CONFIG LOG`` (or ``bench``) calls it anew, in a process of its own, for every line that it
reads (`lives.serve`): OUT, the moment at which to kill it, and seconds to wait then.
"""

import itertools
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lives

from leafe_graph.rounds.loop import run
from leafe_graph.rounds.yaml_file import read_config
from leafe_graph.testing import GridWorld, ScriptedModel, grid_tasks
from leafe_graph.types import Task

CONFIG = """
model: local:{model}
env: killed_rounds:World
max_turns: 4
max_tokens: 1
history: 0
rounds: 2
patience: null
explore:
  tasks: 6
  max_branches: 3
  reflector: python:killed_rounds:doubter
train:
  backend: peft
  epochs: 2
  batch_size: 8
  learning_rate: 1e-2
  lora_r: 4
  lora_dropout: 0.1
  save_steps: 1
eval:
  tasks: 4
  samples: 2
"""


class World(GridWorld):
    """Any word is a step, so that a random policy walks."""

    def __init__(self) -> None:
        super().__init__(size=2, pits=0)

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        return super().step(["up", "down", "left", "right"][sum(map(ord, action)) % 4])


def tasks(split: str, n: int, *, start: int = 0) -> list[Task]:
    """Other seeds for each split."""
    return grid_tasks(n, start=start + 1000 * ["train", "validation", "test"].index(split))


def doubter() -> ScriptedModel:
    """It always doubts the first step."""
    return ScriptedModel(reply=['{"step": 0, "experience": "Go another way."}'])


def kill_at(moment: int, delay: float) -> "itertools.count[int]":
    """Kill this process so many seconds after its moment, the first of which is 1; the counter of moments.

    A moment is what makes something last: a branch, a checkpoint of the training, or a file that is moved into place.
    """
    moments = itertools.count(1)

    def counted(call: Callable[..., Any]) -> Callable[..., Any]:
        def made_to_last(*args: Any, **kwargs: Any) -> Any:
            if next(moments) == moment:
                threading.Timer(delay, os.kill, (os.getpid(), signal.SIGKILL)).start()
            return call(*args, **kwargs)

        return made_to_last

    os.fsync, os.replace = counted(os.fsync), counted(os.replace)
    return moments


BENCH = (
    CONFIG.replace("patience: null", "env_steps: 60").replace("rounds: 2", "rounds: 1")
    + """
seeds: [0, 1]
tune: {tasks: 2, samples: 2, k: 1, grid: [{train.learning_rate: 1e-2}, {train.learning_rate: 1e-3}]}
methods:
  base: {method: none}
  rejection: {explore: {reflector: null}}
  leafe: {grid: [{train.beta: 1}, {train.beta: 3}]}
  ace: {seeds: [0], grid: [{playbook.max_tokens: 64}, {playbook.max_tokens: 128}], playbook: {answer_tokens: 8}}
"""
)
"""The same world for methods side by side."""


def play_bench(config: Path, out: str) -> None:
    """A bench with its jobs in this process, one after the other."""
    import test_bench

    from leafe_graph.bench import loop, read_bench

    loop.side_by_side = test_bench.serial
    loop.bench(read_bench(config, {"out": out}))


CALLS: dict[str, Callable[[Path, str], object]] = {
    "run": lambda config, out: run(read_config(config, {"out": out})),
    "bench": play_bench,
}


def serve(what: str, config: Path, phases: Path) -> None:
    """One call after another; each is a process that knows only what is on disk."""
    import peft  # noqa: F401  imported once for all
    import torch
    import transformers  # noqa: F401

    torch.set_num_threads(1)
    sys.modules["matplotlib"] = None  # type: ignore[assignment]  pictures take time and decide nothing

    def live(line: str) -> None:
        out, moment, delay = line.split()
        os.dup2(os.open(phases.with_suffix(".out"), os.O_WRONLY | os.O_CREAT | os.O_APPEND), 1)
        logging.getLogger("leafe_graph.rounds.folder").addHandler(logging.FileHandler(phases))
        logging.getLogger("leafe_graph.rounds.folder").setLevel(logging.INFO)
        moments = kill_at(int(moment), float(delay))
        CALLS[what](config, out)
        Path(out, "moments").write_text(str(next(moments) - 1))

    lives.serve(live)


if __name__ == "__main__":
    serve(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
