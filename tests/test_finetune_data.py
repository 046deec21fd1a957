"""Rows that would train wrongly are errors that name them; the others carry loss on the action alone."""

import json
from pathlib import Path
from typing import Any

import pytest
from rows import row, write

from leafe_graph.dataset.export import write_parquet
from leafe_graph.errors import ConfigError, ExampleError
from leafe_graph.finetune.tokens import (
    IGNORED,
    TokenRow,
    doubts,
    example_files,
    read_examples,
    token_id_counts,
    tokenize,
)
from leafe_graph.types import Example

pytest.importorskip("transformers", reason='the trainer is not installed: pip install ".[train]"')


@pytest.fixture(scope="module")
def tokenizer(tiny_model_path: Path) -> Any:
    """The tiny model's tokenizer: one token a word."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny_model_path)


def tokenized(tmp_path: Path, tokenizer: Any, *rows: Any, **options: Any) -> list[TokenRow]:
    """Rows through a file and the tokenizer."""
    options = {"stop_ids": {tokenizer.eos_token_id}, "max_length": 64} | options
    return tokenize(read_examples([write(tmp_path / "rows.jsonl", list(rows))]), tokenizer, **options)


def test_only_the_action_and_its_stop_token_carry_loss(tmp_path: Path, tokenizer: Any) -> None:
    """Prompt labels are masked, the completion ends right after the first stop token."""
    (got,) = tokenized(tmp_path, tokenizer, row("a b", "up left", kind="counterfactual", weight=0.5))
    assert tokenizer.decode(got.prompt_ids) == "<s> user a b </s> <s> assistant"
    assert tokenizer.decode(got.completion_ids) == "up left </s>"
    assert got.labels == [IGNORED] * len(got.prompt_ids) + got.completion_ids
    assert (got.kind, got.weight, len(got)) == ("counterfactual", 0.5, 10)


def test_what_follows_the_stop_token_is_dropped(tmp_path: Path, tokenizer: Any, monkeypatch: Any) -> None:
    """A template that writes padding or a newline after the end of a message does not lengthen the target."""
    monkeypatch.setattr(tokenizer, "chat_template", tokenizer.chat_template.replace("</s> ", "</s> <pad> "))
    (got,) = tokenized(tmp_path, tokenizer, row())
    assert got.completion_ids == [tokenizer.convert_tokens_to_ids("up"), tokenizer.eos_token_id]


def test_recorded_token_ids_are_used_as_they_are(tmp_path: Path, tokenizer: Any) -> None:
    """Sampled ids need not be what the text tokenises to: that is counted, and nothing else."""
    (plain,) = tokenized(tmp_path, tokenizer, row())
    same = row(prompt_token_ids=plain.prompt_ids, completion_token_ids=plain.completion_ids)
    odd = [tokenizer.unk_token_id, *plain.completion_ids]
    other = row(prompt_token_ids=plain.prompt_ids, completion_token_ids=odd)
    got = tokenized(tmp_path, tokenizer, same, other, row("b"))
    assert [r.completion_ids for r in got[:2]] == [plain.completion_ids, odd]
    assert token_id_counts(got) == {"recorded": 2, "differ": 1} and doubts(got) == []
    (got_anew,) = tokenized(tmp_path, tokenizer, other, use_token_ids=False)
    assert got_anew == plain and token_id_counts([got_anew]) == {}


@pytest.mark.parametrize(
    "ids",
    [[], [4488, 2], [9, 2], [1, 8, 2], [8, 9], [8]],
    ids=["none", "beyond the vocabulary", "other words", "a control token inside", "cut at a stop text", "cut short"],
)
def test_recorded_ids_that_do_not_say_the_reply_are_not_used(tmp_path: Path, tokenizer: Any, ids: list[int]) -> None:
    """Another model's ids, or without a stop token: the row is as it is without them, and it is counted and told."""
    (plain,) = tokenized(tmp_path, tokenizer, row())
    (got,) = tokenized(tmp_path, tokenizer, row(prompt_token_ids=ids, completion_token_ids=ids))
    assert got == plain and token_id_counts([got]) == {"from_text": 1}
    assert "1 of 1 rows have recorded token ids that do not say their text" in doubts([got])[0]


def test_ids_of_another_prompt_are_not_used(tmp_path: Path, tokenizer: Any) -> None:
    """Such as of one that held an experience, or in which an observation's control token was one: text stands in."""
    (good,) = tokenized(tmp_path, tokenizer, row("a </s> b"))
    told = [*good.prompt_ids[:-3], tokenizer.convert_tokens_to_ids("z"), *good.prompt_ids[-3:]]
    taken = [tokenizer.eos_token_id if i == tokenizer.unk_token_id else i for i in good.prompt_ids]
    beyond = [*good.prompt_ids[:-1], 4488]
    sampled = [tokenizer.unk_token_id, *good.completion_ids]
    rows = [row("a </s> b", prompt_token_ids=ids, completion_token_ids=sampled) for ids in (told, taken, beyond)]
    got = tokenized(tmp_path, tokenizer, *rows)
    assert [(r.prompt_ids, r.completion_ids) for r in got] == [(good.prompt_ids, sampled)] * 3
    assert token_id_counts(got) == {"recorded": 3, "differ": 3, "prompt_from_text": 3}
    assert "rendered otherwise" in doubts(got)[0] and "more than once" in doubts(got)[1]


def test_probabilities_after_another_prompt_are_not_used(tmp_path: Path, tokenizer: Any) -> None:
    """They are no probabilities of the row: the starting weights are asked instead."""
    (good,) = tokenized(tmp_path, tokenizer, row("a b"))
    other = [*good.prompt_ids[:-3], tokenizer.convert_tokens_to_ids("z"), *good.prompt_ids[-3:]]
    sampled: Any = {"advantage": 1.0, "logprobs": [-0.7, -0.1]}
    rows = [
        row("a b", kind="rollout", prompt_token_ids=ids, completion_token_ids=good.completion_ids) | sampled
        for ids in (good.prompt_ids, None, other)
    ]
    got = tokenized(tmp_path, tokenizer, *rows)
    assert [each.logprobs for each in got] == [[-0.7, -0.1], [-0.7, -0.1], None]
    assert [each.prompt_ids for each in got] == [good.prompt_ids] * 3


def test_what_some_kinds_have_alone_is_null_in_a_table(tmp_path: Path) -> None:
    """Rows come back from Parquet, and from lines that another reader of tables wrote, as they were exported."""
    pytest.importorskip("pyarrow", reason='pip install ".[train]"')
    pair = {"rejected": [{"role": "assistant", "content": "down"}], "rejected_token_ids": [3, 0]}
    sampled = {"advantage": -0.1, "logprobs": [-0.7, -1e-9], "completion_token_ids": [3, 0]}
    taught = {"teacher_prompt": [{"role": "user", "content": "a. Not down!"}]}
    rows: list[Any] = [
        row(),
        row(kind="preference") | pair,
        row(kind="rollout") | sampled,
        row(kind="counterfactual") | taught,
    ]
    write_parquet(rows, tmp_path / "rows.parquet")
    write(tmp_path / "rows.jsonl", [dict.fromkeys(Example.__annotations__) | each for each in rows])
    for name in ("rows.parquet", "rows.jsonl"):
        assert [each.example for each in read_examples([tmp_path / name])] == rows


ANSWER = [{"role": "assistant", "content": "up"}]
ROLLOUT = {"kind": "rollout", "advantage": 1.0, "completion_token_ids": [8, 2]}


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"version": True}, "version is True, this trainer reads 1"),
        ({"version": 2}, "version is 2, this trainer reads 1"),
        ({"kind": "other"}, "kind: Input should be"),
        ({"prompt": [{"role": "user"}]}, r"prompt.0.content: Field required"),
        ({"prompt": []}, "prompt is empty"),
        ({"completion": [{"role": "user", "content": "up"}]}, "expected exactly one assistant message"),
        ({"completion": []}, "expected exactly one assistant message"),
        ({"weight": -1.0}, "weight is -1.0"),
        ({"weight": float("nan")}, "weight is nan"),
        ({"kind": "preference"}, "rejected is missing: a row of the kind preference needs it"),
        ({"kind": "rollout"}, "advantage is missing"),
        (
            {"advantage": 1.0},
            "advantage in a row of the kind rehearsal: expected it in those of the kind rollout alone",
        ),
        ({"kind": "preference", "rejected": ANSWER}, "rejected says what completion says"),
        ({"kind": "preference", "rejected": []}, "rejected has the roles.*exactly one assistant message"),
        ({"kind": "preference", "rejected": [ANSWER[0] | {"content": " "}]}, "rejected.0.content is empty"),
        ({"kind": "counterfactual", "teacher_prompt": []}, "teacher_prompt is empty"),
        (
            {"teacher_prompt": [{"role": "user", "content": "a"}]},
            "expected it in counterfactual and on_policy rows alone",
        ),
        ({"kind": "rollout", "advantage": float("nan")}, "advantage is nan: expected a finite number"),
        ({"kind": "rollout", "advantage": 1.0, "logprobs": [-1.0]}, "logprobs has 1 numbers, .* null"),
        (ROLLOUT | {"logprobs": [-1.0]}, "logprobs has 1 numbers, completion_token_ids 2"),
        (ROLLOUT | {"logprobs": [-1.0, 0.1]}, "logprobs holds 0.1: expected finite numbers that are not above 0"),
    ],
)
def test_a_malformed_row_is_named(tmp_path: Path, bad: dict[str, Any], message: str) -> None:
    """The error says file, row and field."""
    path = write(tmp_path / "rows.jsonl", [row(), row() | bad])
    with pytest.raises(ExampleError, match=message) as error:
        read_examples([path])
    assert error.value.row == 1 and "rows.jsonl, line 2:" in str(error.value)


def test_rows_of_another_format_are_told_the_columns_that_are_expected(tmp_path: Path) -> None:
    """With the page that tells them, whose example is such a row."""
    (tmp_path / "chat.jsonl").write_text('{"messages": [{"role": "user", "content": "hi"}], "source": "web"}\n')
    with pytest.raises(ExampleError) as caught:
        read_examples([tmp_path / "chat.jsonl"])
    said = str(caught.value)
    assert "line 1: not a row of this trainer's: it has the columns 'messages, source'; expected version, kind" in said
    assert "docs/training_rows.md" in said and "export the run anew" not in said
    page = (Path(__file__).parents[1] / "docs" / "training_rows.md").read_text(encoding="utf-8")
    assert all(f"`{name}`" in page for name in Example.__annotations__)
    (tmp_path / "page.jsonl").write_text(page.split("```json\n")[1].split("```")[0])
    assert read_examples([tmp_path / "page.jsonl"])[0].example["task_id"] == "sum-1"


def test_branch_that_became_a_number_is_its_text_again(tmp_path: Path) -> None:
    """As where pandas has read and written the rows. A task's number might have been another text: it is refused."""
    path = write(tmp_path / "rows.jsonl", [row() | {"branch_id": 12}])
    assert read_examples([path])[0].example["branch_id"] == "12"
    for bad in ({"branch_id": 1.5}, {"branch_id": True}, {"task_id": 7}):
        with pytest.raises(ExampleError, match=f"{next(iter(bad))}: Input should be a valid string"):
            read_examples([write(tmp_path / "bad.jsonl", [row() | bad])])


def test_a_missing_field_and_a_torn_line_are_named(tmp_path: Path) -> None:
    """All bad rows are collected before anything is raised."""
    short = {k: v for k, v in row().items() if k != "task_id"}
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join([json.dumps(row()), json.dumps(short), "[1]", '{"version": 1, "ki']))
    with pytest.raises(ExampleError, match="3 row") as error:
        read_examples([path])
    for text in ("line 2: task_id: Field required", "line 3: expected a JSON object", "line 4: not JSON"):
        assert text in str(error.value)


def test_a_row_that_would_lose_its_target_is_an_error(tmp_path: Path, tokenizer: Any) -> None:
    """Nothing is truncated silently."""
    with pytest.raises(ExampleError, match=r"line 2: 25 prompt . 2 completion tokens, more than max_length=20"):
        tokenized(tmp_path, tokenizer, row(), row("a " * 20), max_length=20)


@pytest.mark.parametrize("action", ["", "  "])
def test_an_all_masked_row_is_an_error(tmp_path: Path, tokenizer: Any, action: str) -> None:
    """An empty action leaves nothing to learn."""
    with pytest.raises(ExampleError, match=r"completion.0.content is empty, so all labels are masked"):
        tokenized(tmp_path, tokenizer, row(action=action, completion_token_ids=[8, 2]))


def test_a_missing_stop_token_is_an_error(tmp_path: Path, tokenizer: Any, monkeypatch: Any) -> None:
    """The policy would not learn to stop."""
    monkeypatch.setattr(tokenizer, "chat_template", tokenizer.chat_template.replace("</s>", "."))
    with pytest.raises(ExampleError, match=r"completion: the chat template writes no stop token .*\[2\]"):
        tokenized(tmp_path, tokenizer, row())


def test_a_stop_token_of_an_earlier_message_does_not_count(tmp_path: Path, tokenizer: Any, monkeypatch: Any) -> None:
    """A template that ends all messages but the last gives no target to stop at."""
    open_ended = tokenizer.chat_template.replace("' </s> '", "('' if loop.last else ' </s> ')")
    monkeypatch.setattr(tokenizer, "chat_template", open_ended)
    with pytest.raises(ExampleError, match=r"line 1: completion: the chat template writes no stop token"):
        tokenized(tmp_path, tokenizer, row())


def test_an_action_that_spells_the_stop_token_does_not_stop(tmp_path: Path, tokenizer: Any) -> None:
    """The characters are text: here a word that the tokenizer does not know."""
    (got,) = tokenized(tmp_path, tokenizer, row(action="up </s> down"))
    assert tokenizer.decode(got.completion_ids) == "up <unk> down </s>"


def test_at_most_ten_bad_rows_are_shown(tmp_path: Path, tokenizer: Any) -> None:
    """The rest is counted, and all are kept in the error's data."""
    with pytest.raises(ExampleError, match=r"(?s)13 row.*\.\.\. and 3 more") as error:
        tokenized(tmp_path, tokenizer, row(), *[row(action="")] * 13)
    assert [position for _, position in error.value.__dict__["rows"]] == list(range(1, 14))


def test_folders_and_parquet(tmp_path: Path) -> None:
    """A folder's two formats are the same rows; a run folder's are in examples/; Parquet reads like JSONL."""
    parquet = pytest.importorskip("pyarrow.parquet")
    import pyarrow

    folder = tmp_path / "run" / "examples"
    folder.mkdir(parents=True)
    rows = [row(), row("d", "left", kind="counterfactual", completion_token_ids=[4, 2])]
    parquet.write_table(pyarrow.Table.from_pylist([dict(r) for r in rows]), folder / "examples.parquet")
    assert [r.example for r in read_examples([folder])] == rows
    write(folder / "examples.jsonl", rows)
    assert example_files(folder) == example_files(tmp_path / "run") == [folder / "examples.jsonl"]
    with pytest.raises(ConfigError, match="no example rows at"):
        read_examples([tmp_path])
    with pytest.raises(ConfigError, match="the files are empty"):
        read_examples([write(tmp_path / "rows.jsonl", [])])
