"""Example rows: read, checked, tokenised, masked.

Invariants: every row keeps its whole completion up to and including the stop token, and nothing else of it carries
loss; the prompt's tokens are an exact prefix of prompt + completion, so that training sees what generation sees. A row
for which this cannot be had is an error that names it, never a row that trains silently wrong.
"""

import json
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from leafe_graph.errors import ConfigError, ExampleError, MissingDependency
from leafe_graph.types import FORMAT_VERSION, Example, Message

IGNORED = -100
"""Label of a token without loss, as in transformers."""

_EXAMPLE: TypeAdapter[Example] = TypeAdapter(Example)
_SHOWN = 10  # bad rows in an error message


@dataclass(frozen=True, slots=True)
class TokenRow:
    """One row as token ids: ``prompt_ids + completion_ids``, the stop token last."""

    kind: str
    prompt_ids: list[int]
    completion_ids: list[int]
    weight: float

    def __len__(self) -> int:
        return len(self.prompt_ids) + len(self.completion_ids)

    @property
    def labels(self) -> list[int]:
        """`IGNORED` for the prompt, the ids of the completion."""
        return [IGNORED] * len(self.prompt_ids) + self.completion_ids


@dataclass(frozen=True, slots=True)
class SourceRow:
    """A checked example and where it stands: ``source`` is the file, ``row`` its 0-based position there."""

    source: str
    row: int
    example: Example


def example_files(path: Path) -> list[Path]:
    """The JSONL or Parquet files behind a path: itself, a folder's, or a run folder's ``examples/``.

    A folder that holds both formats holds the same rows twice: its JSONL files are read.
    """
    if path.is_file():
        return [path]
    folder = path / "examples" if (path / "examples").is_dir() else path
    for pattern in ("*.jsonl", "*.parquet"):
        if files := sorted(folder.glob(pattern)):
            return files
    raise ConfigError(f"no example rows at {path}: expected a .jsonl or .parquet file, or a folder that holds some")


def read_examples(paths: Sequence[Path]) -> list[SourceRow]:
    """Read and check the rows of all files; raises `ExampleError` with every bad row (the first ten are shown)."""
    rows: list[SourceRow] = []
    problems: list[tuple[str, int, str]] = []
    for file in (f for path in paths for f in example_files(Path(path))):
        for position, raw in enumerate(_records(file)):
            try:
                rows.append(SourceRow(str(file), position, _check(raw)))
            except ValueError as error:
                problems.append((str(file), position, str(error)))
    _raise(problems)
    if not rows:
        raise ConfigError(f"no example rows in {', '.join(map(str, paths))}: the files are empty")
    return rows


def tokenize(
    rows: Iterable[SourceRow],
    tokenizer: Any,
    *,
    stop_ids: Collection[int],
    max_length: int,
    use_token_ids: bool = True,
) -> list[TokenRow]:
    """Turn rows into token ids with the tokenizer's chat template, checking each.

    ``stop_ids``: ids that end a message (the tokenizer's eos and the generation config's). Where a row carries token
    ids from the serving model they are used as they are, unless ``use_token_ids`` is off; prompt ids must then equal
    this tokenizer's, else the row was made by another model or with another prompt. Raises `ExampleError`.
    """
    rows = list(rows)
    if not rows:
        return []
    # What apply_chat_template(tokenize=True) does, but the tokenizer is called once for all rows: many times faster.
    prompts = [_text(tokenizer, r.example["prompt"], True) for r in rows]
    wholes = [_text(tokenizer, [*r.example["prompt"], *r.example["completion"]], False) for r in rows]
    prompt_ids, whole_ids = (tokenizer(texts, add_special_tokens=False)["input_ids"] for texts in (prompts, wholes))
    out: list[TokenRow] = []
    problems: list[tuple[str, int, str]] = []
    for row, prompt, whole in zip(rows, prompt_ids, whole_ids, strict=True):
        try:
            completion = _completion(row.example, prompt, whole, tokenizer, stop_ids, use_token_ids)
            if len(prompt) + len(completion) > max_length:
                raise ValueError(
                    f"{len(prompt)} prompt + {len(completion)} completion tokens, more than max_length={max_length}; "
                    "cutting would lose the target: raise max_length or export with a shorter history"
                )
            weight = float(row.example["weight"])
            out.append(TokenRow(row.example["kind"], prompt, completion, weight))
        except ValueError as error:
            problems.append((row.source, row.row, str(error)))
    _raise(problems)
    return out


def _records(file: Path) -> Iterator[Any]:
    if file.suffix == ".parquet":
        try:
            import pyarrow.parquet as pq
        except ImportError as error:
            raise MissingDependency(extra="train", needed_for=f"reading {file}") from error
        # Parquet gives every message every key that any message has: an absent one comes back as None.
        for record in pq.read_table(file).to_pylist():
            for part in ("prompt", "completion"):
                if isinstance(record.get(part), list):
                    record[part] = [{k: v for k, v in m.items() if v is not None} for m in record[part]]
            yield record
        return
    with file.open(encoding="utf-8") as lines:
        for line in lines:
            if line.strip():
                try:
                    yield json.loads(line)
                except ValueError as error:
                    yield error


def _check(raw: Any) -> Example:
    if isinstance(raw, ValueError):
        raise ValueError(f"not JSON: {raw}")
    if not isinstance(raw, dict):
        raise ValueError(f"expected a JSON object, got {type(raw).__name__}")
    if raw.get("version") != FORMAT_VERSION:
        raise ValueError(f"version is {raw.get('version')!r}, this trainer reads {FORMAT_VERSION}: export the run anew")
    try:
        _EXAMPLE.validate_python(raw)
    except ValidationError as error:
        raise ValueError(
            "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']} (got {_short(e['input'])})" for e in error.errors())
        ) from None
    example: Example = raw  # type: ignore[assignment]  # the row itself: validation drops keys it does not know
    if not example["prompt"]:
        raise ValueError("prompt is empty: expected at least one message")
    roles = [m["role"] for m in example["completion"]]
    if roles != ["assistant"]:
        raise ValueError(f"completion has the roles {roles}: expected exactly one assistant message")
    if not example["weight"] >= 0 or example["weight"] == float("inf"):
        raise ValueError(f"weight is {example['weight']}: expected a finite number that is not negative")
    return example


def _text(tokenizer: Any, messages: list[Message], add_generation_prompt: bool) -> Any:
    return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=add_generation_prompt)


def _completion(
    example: Example,
    prompt: list[int],
    whole: list[int],
    tokenizer: Any,
    stop_ids: Collection[int],
    use_token_ids: bool,
) -> list[int]:
    given = example["completion_token_ids"] if use_token_ids else None
    if given is not None:
        expected = example["prompt_token_ids"]
        if expected is not None and list(expected) != prompt:
            raise ValueError(
                "prompt_token_ids are not this prompt in this model's chat template "
                f"({_difference(expected, prompt, tokenizer)}): the row was "
                "made by another model or with another prompt; use_token_ids=False tokenises the text anew"
            )
        completion = list(given)
        if completion and not 0 <= min(completion) <= max(completion) < len(tokenizer):
            raise ValueError(
                f"completion_token_ids go up to {max(completion)}, this tokenizer's to {len(tokenizer) - 1}"
            )
    else:
        if whole[: len(prompt)] != prompt:
            raise ValueError(
                "the prompt's tokens are not a prefix of prompt + completion "
                f"({_difference(prompt, whole, tokenizer)}): the chat template rewrites earlier messages, or the "
                "completion's first characters merge with the prompt's last token"
            )
        completion = whole[len(prompt) :]
    if not completion:
        raise ValueError("no completion token is left, so all labels are masked: expected a non-empty action")
    end = next((i for i, token in enumerate(completion) if token in stop_ids), None)
    if end is None:
        raise ValueError(
            f"the completion has no stop token (any of {sorted(stop_ids)}), it ends in "
            f"{_short(tokenizer.decode(completion[-8:]))}: the policy would not learn to stop; "
            + (
                "the reply was cut short; use_token_ids=False tokenises its text anew, with a stop token"
                if given is not None
                else "the chat template must end a message with one of these tokens"
            )
        )
    if end == 0:
        raise ValueError(
            "the completion is only a stop token, the action itself is masked: expected a non-empty action"
        )
    if rest := tokenizer.decode(completion[end + 1 :]).strip():
        raise ValueError(f"text follows the completion's first stop token and would be lost: {_short(rest)}")
    return completion[: end + 1]


def _difference(a: Sequence[int], b: Sequence[int], tokenizer: Any) -> str:
    at = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    left, right = (_short(tokenizer.decode(list(ids[at : at + 8]))) for ids in (a, b))
    return f"at token {at}: {left} against {right}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _raise(problems: list[tuple[str, int, str]]) -> None:
    if not problems:
        return
    lines = [f"  {source}, row {row}: {text}" for source, row, text in problems[:_SHOWN]]
    if len(problems) > _SHOWN:
        lines.append(f"  ... and {len(problems) - _SHOWN} more")
    raise ExampleError(
        f"{len(problems)} row(s) would train wrongly:\n" + "\n".join(lines),
        row=problems[0][1],
        source=problems[0][0],
        rows=[(source, row) for source, row, _ in problems],
    )
