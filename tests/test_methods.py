"""A method is an object with two verbs, and a run of rounds plays whichever it is told to."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from test_rounds import Phases, config, phases

from leafe_graph.errors import ConfigError
from leafe_graph.methods import METHODS, Method, Policy, Round, Tasks
from leafe_graph.phases import ExploreConfig
from leafe_graph.rounds import run

__all__ = ["phases"]  # a fixture


class Practice(Method):
    """Learns by heart how often it has played; forgets that after the second round."""

    phases = ("play",)

    def collect(self, policy: Policy, tasks: Tasks, *, out: Path) -> Path:
        """Count the tasks."""
        self.tools.once(out, "play", lambda: {"played": tasks.n, "from": tasks.start, "cost": {"env_steps": tasks.n}})
        return out

    def learn(self, policy: Policy, rounds: Sequence[Round]) -> Policy | None:
        """A playbook of as many lines as rounds."""
        if len(rounds) > 2:
            return None
        playbook = rounds[-1].folder / "playbook.txt"
        playbook.write_text("again\n" * len(rounds))
        return replace(policy, playbook=playbook)


def test_the_first_method_is_leafe() -> None:
    """By its name; what is no method is refused."""
    assert next(iter(METHODS)) == "leafe" and METHODS.class_of("leafe").phases == ("explore", "export", "train")
    with pytest.raises(ConfigError, match=r"method 'ppo'; expected one of leafe, .*, or MODULE:ATTRIBUTE"):
        METHODS.class_of("ppo")


def test_a_method_of_ones_own_is_played_round_after_round(phases: Phases) -> None:
    """It neither explores nor trains as LEAFE does; it is judged all the same, and its phases are in the summary."""
    told = run(config(out="o", method="test_methods:Practice"))
    assert phases.of(ExploreConfig) == []
    assert told["stopped"].startswith("Round 3 found nothing to learn from")
    assert [list(entry["seconds"]) for entry in told["rounds"]] == [["eval"], ["play", "eval"], ["play", "eval"]]
    assert [entry["play"]["from"] for entry in told["rounds"][1:]] == [0, 10]
    assert Path("o/round-2/playbook.txt").read_text() == "again\nagain\n"
    assert json.loads(Path("o/run.json").read_text())["method"] == "test_methods:Practice"
    with pytest.raises(ConfigError, match="method: 'test_methods:Practice' there, 'leafe' now"):
        run(config(out="o"))


def test_a_folder_of_a_release_without_methods_goes_on(phases: Phases) -> None:
    """What run.json does not say had its default then."""
    run(config(out="o", rounds=1))
    file = Path("o/run.json")
    kept = json.loads(file.read_text())
    del kept["method"]
    file.write_text(json.dumps(kept))
    assert run(config(out="o", rounds=1))["rounds"][1]["round"] == 1
