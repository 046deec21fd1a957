"""Rows as other trainers read them: ShareGPT's chats, LLaMA-Factory's datasets, TRL's preferences; verifiers' traces.

Each is a file beside ``examples.jsonl`` with the same rows in the same order. What a format has no place for is not in
it: weights, recorded token ids, a teacher's prompt. Rollouts go into none: their advantages have no place.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, Literal

from ..errors import ConfigError
from ..files import replace_file, save_json
from ..parsing import json_line, json_text
from ..types import Message
from .rollouts import FILE as TRACES

RowFormat = Literal["sharegpt", "llama-factory", "trl-dpo", "verifiers"]
"""A form of rows, or of the trees that they are from, that others read."""

_ROLES = {"system": "system", "user": "human", "assistant": "gpt", "tool": "observation"}
_CALLS = "function_call"
_BETWEEN = "\n</tool_response>\n<tool_response>\n"
"""Between results of one answer's calls: LLaMA-Factory puts this there where it reads messages of OpenAI's form."""
_TAGS = {
    "role_tag": "from",
    "content_tag": "value",
    "user_tag": "human",
    "assistant_tag": "gpt",
    "observation_tag": "observation",
    "function_tag": _CALLS,
    "system_tag": "system",
}
_INFO = "dataset_info.json"
FILES = ("sharegpt.jsonl", "sharegpt_preferences.jsonl", "trl_dpo.jsonl", _INFO, TRACES)
"""All files of these forms."""
_CHATS = ("sharegpt.jsonl", "sharegpt_preferences.jsonl")


def refuse_formats(formats: Sequence[RowFormat], kinds: Sequence[str]) -> None:
    """Refuse a form that no row of these kinds has.

    Raises:
        ConfigError: the form takes rows of another kind.
    """
    if "trl-dpo" in formats and "preference" not in kinds:
        raise ConfigError(
            f"format trl-dpo takes rows of the kind preference, and {', '.join(kinds)} are asked for: "
            'kinds=["preference"] (--kinds preference)'
        )


def write_formats(
    folder: Path,
    read: Callable[[], Iterable[Mapping[str, Any]]],
    formats: Sequence[RowFormat],
    *,
    tools: bool,
    traces: Iterable[Mapping[str, Any]],
) -> list[str]:
    """Write the rows in these forms too, and remove what an earlier export left of others.

    What ``dataset_info.json`` tells of other datasets stays there.

    Args:
        folder: where the rows are.
        read: the rows, read once for each file.
        formats: which forms.
        tools: whether any row has tools.
        traces: the trees as verifiers reads them; read only where they are asked for.

    Returns:
        The files' names; of rows that a form cannot hold there is none.

    Raises:
        RunFolderError: a file cannot be written.
    """
    chats, made = {"sharegpt", "llama-factory"} & set(formats), []
    asked = "llama-factory" in formats
    known = _known(folder / _INFO, asked)
    others = {name: each for name, each in known.items() if each.get("file_name") not in _CHATS}
    for name, convert, wanted in (
        ("sharegpt.jsonl", _chat, chats),
        ("sharegpt_preferences.jsonl", _pair, chats),
        ("trl_dpo.jsonl", _preference, "trl-dpo" in formats),
    ):
        held = (found for row in read() if (found := convert(row, tools)) is not None)
        first = next(held, None) if wanted else None
        if first is None:
            (folder / name).unlink(missing_ok=True)
            continue
        replace_file(folder / name, partial(_write, chain([first], held)))
        made.append(name)
    if "verifiers" in formats:
        replace_file(folder / TRACES, partial(_write, traces))
        made.append(TRACES)
    else:
        (folder / TRACES).unlink(missing_ok=True)
    ours = {Path(name).stem: _told(name, tools) for name in made if asked and name in _CHATS}
    if asked or known != others:
        save_json(folder / _INFO, others | ours)
    if asked:
        made.append(_INFO)
    elif known and not others:
        (folder / _INFO).unlink()
    return made


def _known(file: Path, asked: bool) -> dict[str, dict[str, Any]]:
    """What is told of datasets in the folder; nothing where it is not ours to read.

    Raises:
        ConfigError: it is asked for more than that.
    """
    try:
        known = json.loads(file.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError):
        known = None
    if isinstance(known, dict) and all(isinstance(each, dict) for each in known.values()):
        return known
    if asked:
        raise ConfigError(
            f"{file} is no JSON object of datasets, as LLaMA-Factory reads them: mend it, or move it away"
        )
    return {}


def _write(rows: Iterable[Mapping[str, Any]], file: Path) -> None:
    with open(file, "w", encoding="utf-8", errors="replace", newline="\n") as out:
        out.writelines(map(json_line, rows))


def _chat(row: Mapping[str, Any], tools: bool) -> dict[str, Any] | None:
    if row["kind"] in ("preference", "rollout"):
        return None
    return {"conversations": [*_said([*row["prompt"], *row["completion"]])], **_tools(row, tools)}


def _pair(row: Mapping[str, Any], tools: bool) -> dict[str, Any] | None:
    if row["kind"] != "preference":
        return None
    (chosen,), (rejected,) = _said(row["completion"]), _said(row["rejected"])
    return {"conversations": [*_said(row["prompt"])], "chosen": chosen, "rejected": rejected, **_tools(row, tools)}


def _preference(row: Mapping[str, Any], tools: bool) -> dict[str, Any] | None:
    if row["kind"] != "preference":
        return None
    own = {"tools": row.get("tools") or []} if tools else {}
    return {"prompt": row["prompt"], "chosen": row["completion"], "rejected": row["rejected"], **own}


def _tools(row: Mapping[str, Any], tools: bool) -> dict[str, str]:
    """Those of a row as JSON text: a column is there in each row or in none."""
    return {"tools": json_text(row["tools"]) if row.get("tools") else ""} if tools else {}


def _said(messages: Iterable[Message]) -> Iterator[dict[str, str]]:
    """Who said what; results that follow each other are one, and calls are JSON without the text beside them."""
    results: list[str] = []
    for message in [*messages, None]:
        if message is not None and message["role"] == "tool":
            results.append(message["content"])
            continue
        if results:
            yield {"from": _ROLES["tool"], "value": _BETWEEN.join(results)}
            results = []
        if message is None:
            return
        if calls := message.get("tool_calls"):
            yield {"from": _CALLS, "value": json.dumps([call["function"] for call in calls], ensure_ascii=False)}
        else:
            yield {"from": _ROLES[message["role"]], "value": message["content"]}


def _told(name: str, tools: bool) -> dict[str, Any]:
    """What LLaMA-Factory is told of a file."""
    columns = {"messages": "conversations"} | ({"tools": "tools"} if tools else {})
    if name != "sharegpt_preferences.jsonl":
        return {"file_name": name, "formatting": "sharegpt", "columns": columns, "tags": _TAGS}
    columns |= {"chosen": "chosen", "rejected": "rejected"}
    return {"file_name": name, "formatting": "sharegpt", "ranking": True, "columns": columns, "tags": _TAGS}
