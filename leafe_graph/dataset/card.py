"""The dataset card."""

import json
from collections.abc import Sequence
from typing import Any, get_args

from ..settings import RowKind
from ..types import MESSAGES, Example
from .summary import Summary

_MESSAGES = "\n    list:\n    - name: role\n      dtype: string\n    - name: content\n      dtype: string"
_TEXT = "\n    dtype: string"
_CALLS = """
    - name: tool_calls
      list:
      - name: type
        dtype: string
      - name: function
        struct:
        - name: name
          dtype: string
        - name: arguments
          dtype: string
      - name: id
        dtype: string
    - name: name
      dtype: string
    - name: tool_call_id
      dtype: string"""
_OBJECTS = "\n    list: json"


def features(*, tools: bool, text: bool = True) -> str:
    """The columns, as a card's ``dataset_info`` has them.

    Types that are no plain text are told, since `datasets` guesses a JSONL file's from its first 10 MB, and fails where
    token ids come later than that. ``tools``: messages have calls. ``text``: as JSON text, not as objects.
    """
    message = _OBJECTS if tools and not text else _MESSAGES + _CALLS * tools
    columns = dict.fromkeys(MESSAGES, message) | {
        "version": "\n    dtype: int32",
        "decision_point": "\n    dtype: int32",
        "weight": "\n    dtype: float64",
        "prompt_token_ids": "\n    list: int32",
        "completion_token_ids": "\n    list: int32",
        "rejected_token_ids": "\n    list: int32",
        "advantage": "\n    dtype: float64",
        "logprobs": "\n    list: float64",
        "tools": _OBJECTS if tools and not text else _TEXT,
    }
    return "\n".join(f"  - name: {name}{columns.get(name, _TEXT)}" for name in Example.__annotations__)


def card(summary: Summary, settings: dict[str, Any], *, data: Sequence[str], license: str, tools: bool = False) -> str:
    """The dataset card: a README.md whose header tells ``load_dataset`` which files to read, so that none is missed.

    ``tools``: rows have tools, or messages with calls.
    """
    rows = sum(getattr(summary, kind) for kind in get_args(RowKind))
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
    path: {data[0] if len(data) == 1 else "".join(f"{chr(10)}    - {name}" for name in data)}
dataset_info:
  features:
{features(tools=tools, text=data[0].endswith(".parquet"))}
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
  successful trajectories; `rollout`, every action of independent attempts; `world_model`, what is seen after an
  action at a state of a success, tried there or taken; `self_reflection`, the action taken there after thoughts that
  lead to it; `on_policy`, what was done at a decision point before it was revised.
- `prompt`: chat messages: the instruction, {shown} (observation and action) and the current observation. The
  experience under which a revised action was sampled is left out, and no row holds its text outside `teacher_prompt`.
- `completion`: one assistant message: what the model said.
- `task_id`, `branch_id`, `decision_point` (0-based): where in the exploration the row comes from.
- `weight`: multiplies the row's loss within its kind.
- `prompt_token_ids`, `completion_token_ids`: as sampled, where the model gave them; null elsewhere.
- `version`: of this format.
- `rejected`, `rejected_token_ids`: of a `preference`, what was done there before.
- `teacher_prompt`: of a `counterfactual` row, if asked for, and of an `on_policy` one: the prompt with the
  experience, for a teacher.
- `advantage`, `logprobs`: of a `rollout`, how much better than other attempts at the task its own ended, and the
  natural-log probability of each sampled token.
- `tools`: of a decision whose request had tools, their schemas in OpenAI's form.
- `node`: which of several agents decided.
{_TOOLS if tools else ""}
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
_TOOLS = """
## Tools and calls

Messages are in TRL's form: an assistant's `tool_calls` are `{"type": "function", "function": {"name", "arguments"},
"id"}`, a tool's message has `name` and `tool_call_id`. In `examples.jsonl` arguments and tools are objects. In
`examples.parquet` both are JSON text, since a column of it has one type for all tools, and what a message does not have
is null. Chat templates want the objects, without nulls, as TRL's `SFTTrainer` gets them from this (`datasets` 4.7 or
newer):

```python
import json
from datasets import Dataset, Features, Json, List

columns = Features(dict.fromkeys(["prompt", "completion", "tools"], List(Json())))
with open("examples.jsonl", encoding="utf-8") as lines:
    rows = [{name: row.get(name) for name in columns} for row in map(json.loads, lines)]
data = Dataset.from_list(rows, features=columns)
```
"""
