"""The dataset card."""

import json
from typing import Any

from ..types import Example
from .summary import Summary

_MESSAGES = "\n    list:\n    - name: role\n      dtype: string\n    - name: content\n      dtype: string"
_COLUMNS = {
    "version": "\n    dtype: int32",
    "prompt": _MESSAGES,
    "completion": _MESSAGES,
    "decision_point": "\n    dtype: int32",
    "weight": "\n    dtype: float64",
    "prompt_token_ids": "\n    list: int32",
    "completion_token_ids": "\n    list: int32",
    "rejected": _MESSAGES,
    "rejected_token_ids": "\n    list: int32",
    "teacher_prompt": _MESSAGES,
    "advantage": "\n    dtype: float64",
    "logprobs": "\n    list: float64",
}
"""Types that are no plain text. `datasets` guesses a JSONL file's from its first 10 MB unless the card tells them, and
fails where token ids come later than that."""
_TEXT = "\n    dtype: string"
FEATURES = "\n".join(f"  - name: {name}{_COLUMNS.get(name, _TEXT)}" for name in Example.__annotations__)
"""The columns, as a card's ``dataset_info`` has them."""


def card(summary: Summary, settings: dict[str, Any], *, data: str, license: str) -> str:
    """The dataset card: a README.md whose header tells ``load_dataset`` which file to read."""
    rows = summary.counterfactual + summary.preference + summary.rehearsal + summary.rollout
    size = next((name for limit, name in _SIZES if rows < limit), "n>1M")
    table = "\n".join(f"| {label} | {value} |" for label, value in summary.rows())
    counts = {
        "success": "its branch ended in success",
        "improved": "its branch had a higher return than its parent",
        "every": "every one whose branch was played to an end",
    }[summary.asked.keep]
    shown = "all earlier turns" if summary.history is None else f"the latest {summary.history} turns"
    return f"""---
license: {license}
task_categories:
- text-generation
tags:
- agents
- leafe
size_categories:
- {size}
configs:
- config_name: default
  data_files:
  - split: train
    path: {data}
dataset_info:
  features:
{FEATURES}
---

# Experience examples

Training rows made by leafe-graph from trees of *failure, rewind, revised action, success*
(LEAFE, [arXiv 2603.16843](https://arxiv.org/abs/2603.16843)).

| | |
|---|---|
{table}

## Columns

- `kind`: `counterfactual`, the revised action at a decision point that was rewound to, for each branching event that
  counts ({counts}); `preference`, the same with what was done there before; `rehearsal`, every action of the
  successful trajectories; `rollout`, every action of independent attempts.
- `prompt`: chat messages: the instruction, {shown} (observation and action) and the current observation. The
  experience under which a revised action was sampled is left out, and no row holds its text outside `teacher_prompt`.
- `completion`: one assistant message: what the model said.
- `task_id`, `branch_id`, `decision_point` (0-based): where in the exploration the row comes from.
- `weight`: multiplies the row's loss within its kind.
- `prompt_token_ids`, `completion_token_ids`: as sampled, where the model gave them; null elsewhere.
- `version`: of this format.
- `rejected`, `rejected_token_ids`: of a `preference`, what was done there before.
- `teacher_prompt`: of a `counterfactual` row, if asked for: the prompt with the experience, for a teacher.
- `advantage`, `logprobs`: of a `rollout`, how much better than other attempts at the task its own ended, and the
  natural-log probability of each sampled token.

## Settings of the export

```json
{summary.asked.model_dump_json(indent=2)}
```

## Settings of the run

```json
{json.dumps(settings, indent=2, ensure_ascii=False, default=str)}
```
"""


_SIZES = [(1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M")]
