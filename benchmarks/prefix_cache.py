"""A branch and the server's prefix cache: how many prompt tokens a real vLLM server computes for a tree's branches.

python benchmarks/prefix_cache.py --vllm-python VENV/bin/python

Starts the server on 127.0.0.1 (with prefix caching, then without), has a model behind it play one task whose
observations are long and all shown, and reads the server's own counters after each call. The policy is the real model;
the reflections are scripted, so that every run leaves its path at the same decision points with the same experience.
"""

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from langchain_core.callbacks import BaseCallbackHandler

from leafe_graph import Limits, Prompts, explore, load_model
from leafe_graph.models.embedded import embedded_model_path
from leafe_graph.serve.server import VllmServer
from leafe_graph.testing import ScriptedModel
from leafe_graph.types import Message, Task, Turn

TURNS = 8
REFLECTIONS = {
    6: "The drawer was empty and it cost a turn. Take what lies in the open first, then look into what is closed.",
    4: "Going back to a room that was searched already found nothing. Go on to the next room and look at the shelf.",
    2: "The bell woke the guard, who took the key away. Leave the bell where it is and carry the key in the box.",
    5: "There was no light, so the floor was not searched. Light the lamp first, then look under what lies there.",
}
"""Where each branch leaves the path of the one before, and what it is told."""
BLOCK = 32
"""Tokens of a cache block: only whole blocks are shared. On a CPU vLLM would take 128, on a GPU 16."""
COUNTERS = {"asked": "vllm:prompt_tokens_total", "cached": "vllm:prefix_cache_hits_total"}
PATIENCE = 3000
"""Seconds that the server may take to start, and for a call: a busy machine is slow, not broken."""


class Rooms:
    """A house without an end; each room is described at length, and which one comes depends on all that was said."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        """Into the first room."""
        self.said: list[str] = []
        return self._look(), {}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Into the next room."""
        self.said.append(action)
        return self._look(), 0.0, False, False, {}

    def _look(self) -> str:
        draw = random.Random(repr(self.said))
        things = draw.sample(["lamp", "box", "book", "key", "cup", "coin", "rope", "map", "bell", "knife"], 8)
        colours = ["red", "blue", "green", "brown", "white"]
        return f"You are in room {len(self.said) + 1}. You see " + ", ".join(
            f"a {draw.choice(colours)} {thing} on the {draw.choice(['table', 'shelf', 'floor'])}" for thing in things
        )

    def close(self) -> None:
        """Nothing is held."""


class ExperienceFirst(Prompts):
    """For comparison: the experience in the system message, where it parts a branch from everything before."""

    def act_messages(
        self,
        task: Task,
        turns: Sequence[Turn],
        observation: str,
        *,
        experience: str | None = None,
        history: int | None = None,
    ) -> list[Message]:
        """The policy's prompt."""
        if experience is not None:
            task = {**task, "instruction": f"{task['instruction']} {self.experience.format(experience=experience)}"}
        return super().act_messages(task, turns, observation, history=history)


def vllm_server(python: str, model: Path, *, prefix_caching: bool) -> VllmServer:
    """A vLLM server with this model."""
    flags = ["--max-model-len", "2048", "--block-size", str(BLOCK)]
    flags += ["--enable-prefix-caching" if prefix_caching else "--no-enable-prefix-caching"]
    return VllmServer(str(model), python=python, arguments=flags, start_timeout=PATIENCE)


def _get(url: str) -> str:
    return str(urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=60).read().decode())


class Meter(BaseCallbackHandler):
    """Reads the server's counters after each call; the calls come one after the other."""

    raise_error = True

    def __init__(self, url: str) -> None:
        self.url = url
        self.calls: list[dict[str, float]] = []
        self._last = self._read()

    def _read(self) -> dict[str, float]:
        lines = [line.rpartition(" ") for line in _get(f"{self.url}/metrics").splitlines()]
        return {
            name: sum(float(value) for series, _, value in lines if series.partition("{")[0] == counter)
            for name, counter in COUNTERS.items()
        }

    def on_llm_end(self, *args: Any, **kwargs: Any) -> None:
        """One more call."""
        now = self._read()
        self.calls.append({name: now[name] - self._last[name] for name in COUNTERS})
        self._last = now


@dataclass(frozen=True)
class Measured:
    """What one branch's prompts cost."""

    decision_point: int
    asked: int
    """Prompt tokens of all its calls."""
    computed: int
    """Those that the server did not find in its cache."""
    first_asked: int
    """The same for its first call alone."""
    first_computed: int
    counted: int
    """Prompt tokens by the branch's own account, for a check."""


def measure(url: str, model: str, *, name: str, prompts: Prompts | None = None) -> list[Measured]:
    """Play the tree and say what each branch cost, the root first; ``name`` keeps runs on one server apart."""
    meter = Meter(url)
    policy = load_model(
        model,
        base_url=f"{url}/v1",
        api_key="none",
        temperature=1,
        callbacks=[meter],
    )
    reflections = iter(json.dumps({"step": step, "experience": told}) for step, told in REFLECTIONS.items())
    with tempfile.TemporaryDirectory() as folder:
        run = explore(
            policy,
            Rooms,
            [Task(id="rooms", instruction=f"({name}) Find the golden ring. Say in a few words what you do next.")],
            out=folder,
            reflector=ScriptedModel(reply=lambda messages, seed: next(reflections)),
            limits=Limits(max_branches=1 + len(REFLECTIONS), max_depth=len(REFLECTIONS)),
            prompts=prompts,
            max_turns=TURNS,
            max_tokens=8,
            timeout=PATIENCE,
            retry=None,  # what is asked twice would be counted twice
        )
    calls = iter(meter.calls)
    measured = []
    for branch in run.branches:
        if branch["error"]:
            raise RuntimeError(f"branch {branch['id']} ended by {branch['end']}: {branch['error']}")
        own = [next(calls) for _ in branch["turns"]]
        computed = [call["asked"] - call["cached"] for call in own]
        measured.append(
            Measured(
                decision_point=branch["decision_point"],
                asked=int(sum(call["asked"] for call in own)),
                computed=int(sum(computed)),
                first_asked=int(own[0]["asked"]),
                first_computed=int(computed[0]),
                counted=branch["cost"]["prompt_tokens"],
            )
        )
    return measured


def measure_all(python: str, model: Path) -> Iterator[tuple[str, list[Measured]]]:
    """The three ways, as they are measured: as it is, with the experience in front, and without prefix caching."""
    spec = f"vllm:{model.name}"
    with vllm_server(python, model, prefix_caching=True) as server:
        url = server.url.removesuffix("/v1")
        yield "prefix cache", measure(url, spec, name="one")
        yield "prefix cache, experience first", measure(url, spec, name="two", prompts=ExperienceFirst())
    with vllm_server(python, model, prefix_caching=False) as server:
        yield "no prefix cache", measure(server.url.removesuffix("/v1"), f"openai:{model.name}", name="one")


def main() -> None:
    """Print two Markdown tables."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the server is stopped too
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--vllm-python", default=os.environ.get("LEAFE_VLLM_PYTHON"), help="python of an environment with vLLM"
    )
    parser.add_argument("--model", type=Path, help="a Hugging Face folder; default: the embedded model")
    arguments = parser.parse_args()
    if arguments.vllm_python is None:
        print("skipped: needs vLLM; name its environment's python by --vllm-python or LEAFE_VLLM_PYTHON")
        return
    measured = {}
    print("| | prompt tokens asked | computed | first prompts asked | computed |\n|---|" + "---:|" * 4)
    for way, (_, *branches) in measure_all(arguments.vllm_python, arguments.model or embedded_model_path()):
        measured[way] = branches
        sums = [sum(getattr(b, n) for b in branches) for n in ("asked", "computed", "first_asked", "first_computed")]
        print(f"| {way} |", *(f"{n:,} |" for n in sums), flush=True)
    print("\n| first prompt of the branch at τ |", " | ".join(measured), "|\n|---:|" + "---:|" * len(measured))
    for row in zip(*measured.values(), strict=True):
        print(f"| {row[0].decision_point} |", *(f"{b.first_computed} of {b.first_asked} |" for b in row))


if __name__ == "__main__":
    main()
