"""Small experience trees for tests, written by hand."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from leafe_graph.budget import no_cost
from leafe_graph.tree.run_folder import RunFolder
from leafe_graph.types import FORMAT_VERSION, Branch, EndReason, ModelMessage, Task, Turn


def turn(observation: str, says: str, *, action: str | None = None, valid: bool | None = True, **ids: Any) -> Turn:
    """A turn; ``ids`` go into the model's message."""
    return Turn(
        observation=observation,
        action=says if action is None else action,
        message=ModelMessage(content=says, **ids),
        feedback="moved",
        reward=0.0,
        terminated=False,
        truncated=False,
        valid=valid,
        checkpoint_id=None,
        env_state=None,
    )


def branch(
    name: str,
    turns: Sequence[Turn],
    end: EndReason,
    *,
    parent: str | None = None,
    at: int = 0,
    experience: str | None = None,
    task: str = "t",
    instruction: str = "Reach the goal.",
    return_: float | None = None,
    seconds: float = 0.0,
) -> Branch:
    """A branch that leaves ``parent`` at decision point ``at``."""
    return Branch(
        version=FORMAT_VERSION,
        id=name,
        task=Task(id=task, instruction=instruction),
        parent=parent,
        depth=0 if parent is None else 1,
        decision_point=at,
        experience=experience,
        turns=list(turns),
        reflection=None,
        reflections=[],
        end=end,
        error=None,
        return_=float(end == "success") if return_ is None else return_,
        cost={**no_cost(), "env_steps": len(turns), "seconds": seconds},  # type: ignore[typeddict-item]
        thread_id=None,
    )


def run_folder(folder: Path, branches: Sequence[Branch], **settings: Any) -> RunFolder:
    """A finished run on disk."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {"version": FORMAT_VERSION, "kind": "explore", "settings": {"history": None, **settings}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "branches.jsonl").write_text("".join(json.dumps(branch) + "\n" for branch in branches))
    return RunFolder(folder)
