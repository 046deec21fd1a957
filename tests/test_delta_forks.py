"""Why the dependency's floor is where it is: older LangGraph versions corrupt forks of append-only channels.

Seen by running delta_forks.py: on 1.2.5, 1.2.6, 1.2.10 and 1.2.12 a fork made by ``update_state`` after the first step
reads ``first 0, first 1`` (the abandoned branch's second step is in it), is then played on to ``first 0, first 1,
second 2``, and drops what the update itself wrote; a replay from that checkpoint returns ``first 0, first 1, first 2``,
but ``first 0, first 1, first 1, first 2`` is read back. Nothing is raised. 1.2.13, 1.2.16, 1.2.19, 1.2.21 and 1.2.22
are right.
"""

import json
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import delta_forks
import pytest
from delta_forks import FIRST, SECOND
from packaging.requirements import Requirement

BROKEN = ["1.2.5", "1.2.6", "1.2.10", "1.2.12"]


def test_forks_of_the_installed_version_are_right() -> None:
    """A fork holds its own path and nothing else, and neither branch changes the other."""
    done = subprocess.run([sys.executable, delta_forks.__file__], check=True, capture_output=True, text=True)
    number, _, seen = done.stdout.partition(" ")
    assert number == version("langgraph")
    assert json.loads(seen) == {
        "the abandoned branch": {"returned": FIRST, "read back": FIRST},
        "the fork, before it goes on": {"read back": ["first 0"]},
        "the fork": {"returned": SECOND, "read back": SECOND},
        "the decision point": {"read back": ["first 0"]},
        "replayed from there": {"returned": FIRST, "read back": FIRST},
        "a fork that writes": {"read back": ["first 0", "noted"]},
    }


@pytest.mark.parametrize("number", BROKEN)
def test_broken_versions_are_refused_by_the_dependencys_floor(number: str) -> None:
    """Pip does not install them beside this package."""
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (langgraph,) = (r for r in map(Requirement, project["dependencies"]) if r.name == "langgraph")
    assert number not in langgraph.specifier
    assert version("langgraph") in langgraph.specifier
