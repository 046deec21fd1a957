"""Training rows in the words of the tiny model's tokenizer, for the trainer's tests."""

import json
from pathlib import Path
from typing import Any

from leafe_graph.types import FORMAT_VERSION, Example, ExampleKind


def row(
    user: str = "a b c",
    action: str = "up",
    *,
    kind: ExampleKind = "rehearsal",
    weight: float = 1.0,
    task_id: str = "task",
    prompt_token_ids: list[int] | None = None,
    completion_token_ids: list[int] | None = None,
) -> Example:
    """One example with a single user message."""
    return Example(
        version=FORMAT_VERSION,
        kind=kind,
        prompt=[{"role": "user", "content": user}],
        completion=[{"role": "assistant", "content": action}],
        task_id=task_id,
        branch_id="0",
        decision_point=0,
        weight=weight,
        prompt_token_ids=prompt_token_ids,
        completion_token_ids=completion_token_ids,
    )


def unequal() -> list[Example]:
    """Two counterfactual and five rehearsal rows of different lengths, weights and actions."""
    users = ["a b c", "d", "e f g h i j", "k l", "m n o p", "q", "r s t u v w x y z"]
    actions = ["up", "left left down", "right", "down", "up up", "left", "right down"]
    return [
        row(user, action, kind="counterfactual" if i in (1, 4) else "rehearsal", weight=0.5 if i in (1, 2) else 1.0)
        for i, (user, action) in enumerate(zip(users, actions, strict=True))
    ]


def write(path: Path, rows: list[Any]) -> Path:
    """The rows as JSONL."""
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    return path
