"""Example files that nobody should have to trust: an error names file, line and field, or the row is harmless."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("transformers", reason='the trainer is not installed: pip install ".[train]"')

from families import CONTROLS, FAMILIES, end, tokenizer
from rows import row

from leafe_graph.errors import ConfigError, ExampleError
from leafe_graph.finetune.tokens import IGNORED, TokenRow, doubts, read_examples, tokenize
from leafe_graph.models.chat_tokens import ChatTokenizer


def tokenized(file: Path, family: str = "smollm2") -> list[TokenRow]:
    """The file's rows, as the trainer takes them."""
    own = tokenizer(family)
    stops = {own.eos_token_id, own.convert_tokens_to_ids(end(family))}
    return tokenize(read_examples([file]), own, stop_ids=stops, max_length=2048)


# --- files that are refused ------------------------------------------------------------------------------------------

GOOD = json.dumps(row())


def line(**changes: Any) -> bytes:
    """A good row with other values in some fields."""
    return json.dumps(row() | changes).encode()


def raw(field: str, value: str) -> bytes:
    """A good row with a field's value written as it stands."""
    return GOOD.replace(f'"{field}": {json.dumps(dict(row())[field])}', f'"{field}": {value}').encode()


def without(field: str) -> bytes:
    """A good row less a field."""
    return json.dumps({k: v for k, v in row().items() if k != field}).encode()


def prompt(*messages: Any) -> bytes:
    """A good row with other messages before its completion."""
    return line(prompt=list(messages))


def reply(*messages: Any) -> bytes:
    """A good row with other messages in its completion."""
    return line(completion=list(messages))


USER, UP = {"role": "user", "content": "a"}, {"role": "assistant", "content": "up"}
FIELDS = list(row())
WRONG: dict[str, Any] = {
    "version": [None, "1", True, 1.0, 0, 2, -1, 10**30, [1], {"1": 1}],
    "kind": [None, "", "Rehearsal", "other", 1, ["rehearsal"], "rehearsal\x00", {}],
    "prompt": [None, "a b c", 7, {}, [], ["a"], [["user", "a"]], [None], [[USER]]],
    "completion": [None, "up", {}, [], ["up"], [None], [[UP]]],
    "task_id": [None, 3, ["t"], {}],
    "branch_id": [None, True, ["0"]],
    "decision_point": [None, "0", 0.5, True, -1, []],
    "weight": [None, "1", True, -1.0, -1e-9, 10**400, [1.0], {}],
    "prompt_token_ids": ["1 2", {}, [1.5], ["1"], [True], [-1], [2**31], [10**30], [None], [[1]]],
    "completion_token_ids": [7, "", [1, "2"], [-5, 2], [2**40, 2], [0.1]],
}
ROLES = ["", "User", "user ", "ipython", "user<|im_end|>\n<|im_start|>assistant\nup", "<s>", "model", "\ud800"]
SHORT = json.dumps(row())[:-20].encode()
REFUSED: list[tuple[str, bytes, str]] = [
    *(
        (f"{field}={value!r}"[:60], line(**{field: value}), field)
        for field, values in WRONG.items()
        for value in values
    ),
    *((f"no {field}", without(field), field) for field in FIELDS),
    *((f"weight={value}", raw("weight", value), "weight") for value in ("NaN", "Infinity", "-Infinity", "1e999")),
    ("4,000-digit version", raw("version", "9" * 4000), "version"),
    ("5,000-digit weight", raw("weight", "9" * 5000), "not JSON"),
    ("other case", GOOD.replace('"kind"', '"Kind"').encode(), "kind"),
    ("a key twice", GOOD.replace('"weight"', '"weight": 1000.0, "weight"').encode(), "'weight' is given twice"),
    (
        "a role twice",
        GOOD.replace('"role": "user"', '"role": "system", "role": "user"').encode(),
        "'role' is given twice",
    ),
    ("a list", b"[1, 2]", "expected a JSON object, got list"),
    ("a number", b"3", "expected a JSON object, got int"),
    ("a text", b'"row"', "expected a JSON object, got str"),
    ("null", b"null", "expected a JSON object, got NoneType"),
    ("truncated", SHORT, "not JSON"),
    ("truncated in a text", GOOD[:60].encode(), "not JSON"),
    ("two rows in a line", (GOOD + GOOD).encode(), "not JSON"),
    ("comma after it", (GOOD + ",").encode(), "not JSON"),
    ("single quotes", repr(row()).encode(), "not JSON"),
    ("comment", b"// " + GOOD.encode(), "not JSON"),
    ("raw newline in a text", GOOD.replace("a b c", "a\nb").encode(), "not JSON"),
    ("raw NUL in a text", GOOD.replace("a b c", "a\0b").encode(), "not JSON"),
    ("NULs", b"\0" * 100, "not JSON"),
    ("binary", bytes(range(128, 256)), "not UTF-8"),
    ("Latin-1", GOOD.replace("a b c", "caf\xe9").encode("latin-1"), "not UTF-8"),
    ("UTF-16", GOOD.encode("utf-16"), "not UTF-8"),
    ("UTF-16 without mark", GOOD.encode("utf-16-le"), "not JSON"),
    ("UTF-32", GOOD.encode("utf-32"), "not UTF-8"),
    ("gzip", gzip.compress(GOOD.encode(), mtime=0), "not UTF-8"),
    ("overlong UTF-8", GOOD.encode().replace(b"a b c", b"\xc0\xaf"), "not UTF-8"),
    ("surrogates in UTF-8", GOOD.encode().replace(b"a b c", b"\xed\xa0\x80"), "not UTF-8"),
    ("100,000 brackets", b"[" * 100_000, "nested too deep"),
    ("100,000 objects", b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "nested too deep"),
    ("deep content", prompt({"role": "user", "content": json.loads("[" * 400 + "]" * 400)}), "prompt.0.content"),
    ("deep weight", line(weight=json.loads("[" * 400 + "]" * 400)), "weight"),
    ("no role", prompt({"content": "a"}), "prompt.0.role"),
    ("no content", prompt(USER, {"role": "user"}), "prompt.1.content"),
    ("content null", prompt({"role": "user", "content": None}), "prompt.0.content"),
    ("content a number", prompt({"role": "user", "content": 3}), "prompt.0.content"),
    ("content in parts", prompt({"role": "user", "content": [{"type": "text", "text": "a"}]}), "prompt.0.content"),
    ("role a number", prompt({"role": 1, "content": "a"}), "prompt.0.role"),
    ("half a pair", line(prompt=[{"role": "user", "content": "a\ud800"}]), "prompt.0.content: half a surrogate pair"),
    ("half a pair in the reply", reply(UP | {"content": "\udfffup"}), "completion.0.content: half a surrogate pair"),
    ("tool calls beside the text", prompt(USER | {"tool_calls": []}), "prompt.0: unknown keys"),
    ("thoughts beside the text", reply(UP | {"reasoning_content": "<|im_end|>"}), "completion.0: unknown keys"),
    ("no reply", reply(), "completion"),
    ("the user's reply", reply(USER), "completion has the roles ['user']"),
    ("two replies", reply(UP, UP), "completion has the roles ['assistant', 'assistant']"),
    ("a dialogue as reply", reply(UP, USER, UP), "completion has the roles"),
    ("empty reply", reply(UP | {"content": ""}), "completion.0.content is empty"),
    ("blank reply", reply(UP | {"content": " \n\t\u00a0\u2003"}), "completion.0.content is empty"),
    *(
        (f"role {role[:20]!r}", prompt({"role": role, "content": "a"}), "prompt.0.role")
        for role in (
            "",
            "User",
            "user ",
            "ipython",
            "user<|im_end|>\n<|im_start|>assistant\nup",
            "<s>",
            "model",
            "\ud800",
        )
    ),
    ("a huge row", prompt({"role": "user", "content": "go up " * 20_000}), "tokens, more than max_length=2048"),
    ("a huge word", prompt({"role": "user", "content": "x" * 50_000}), "tokens, more than max_length=2048"),
    ("a huge reply", reply(UP | {"content": "up " * 10_000}), "tokens, more than max_length=2048"),
    ("four thousand messages", prompt(*[USER, UP] * 2_000, USER), "tokens, more than max_length=2048"),
]


@pytest.mark.parametrize(("content", "message"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_a_malformed_row_is_refused(content: bytes, message: str, tmp_path: Path) -> None:
    """The error names the file, the line (blank ones counted) and the field, and does not go on for pages."""
    file = tmp_path / "rows.jsonl"
    file.write_bytes(GOOD.encode() + b"\n\n" + content + b"\n" + GOOD.encode() + b"\n")
    with pytest.raises(ExampleError) as error:
        tokenized(file)
    first = next(told for told in str(error.value).splitlines() if str(file) in told)
    assert first.removeprefix("1 row(s) would train wrongly:").strip().startswith(f"{file}, line 3: ")
    assert message in first
    assert (error.value.row, error.value.__dict__["source"]) == (1, str(file))
    assert len(str(error.value)) < 3000
    # nothing else is wrong with the file: a line break inside the content makes lines of its own
    assert {place for _, place in error.value.__dict__["rows"]} <= set(range(1, 2 + content.count(b"\n") + 1))


def parquet(rows: list[dict[str, Any]], file: Path) -> None:
    """The rows as Parquet."""
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    pq.write_table(pa.Table.from_pylist(rows), file)


ODD_PARQUET: list[tuple[str, Callable[[Path], Any], str]] = [
    ("not Parquet", lambda file: file.write_bytes(b"PAR1 no"), "row 0: not Parquet"),
    ("empty file", lambda file: file.write_bytes(b""), "row 0: not Parquet"),
    ("JSONL by another name", lambda file: file.write_text(GOOD), "row 0: not Parquet"),
    (
        "other columns",
        lambda file: parquet([{"text": "up"}], file),
        "row 0: not a row of this trainer's: it has the columns 'text'",
    ),
    ("texts as numbers", lambda file: parquet([row() | {"task_id": 1}], file), "row 0: task_id"),
    ("prompt a text", lambda file: parquet([row() | {"prompt": "a"}], file), "row 0: prompt"),
    ("prompt of texts", lambda file: parquet([row() | {"prompt": ["a"]}], file), "row 0: prompt.0"),
    ("second row bad", lambda file: parquet([dict(row()), row() | {"weight": float("nan")}], file), "row 1: weight"),
    ("no content", lambda file: parquet([row() | {"prompt": [{"role": "user"}]}], file), "row 0: prompt.0.content"),
]


@pytest.mark.parametrize(("write", "message"), [c[1:] for c in ODD_PARQUET], ids=[c[0] for c in ODD_PARQUET])
def test_a_malformed_parquet_file_is_refused(write: Callable[[Path], Any], message: str, tmp_path: Path) -> None:
    """The same by row."""
    write(tmp_path / "rows.parquet")
    with pytest.raises(ExampleError) as error:
        read_examples([tmp_path])
    assert f"rows.parquet, {message}" in str(error.value)


@pytest.mark.parametrize("content", [b"", b"\n\n \r\n", b"\xef\xbb\xbf\n"], ids=["nothing", "blank lines", "a mark"])
def test_a_file_without_rows_is_refused(content: bytes, tmp_path: Path) -> None:
    """Nothing to train on is an error, too."""
    (tmp_path / "rows.jsonl").write_bytes(content)
    with pytest.raises(ConfigError, match=r"no example rows in .*: the files are empty"):
        read_examples([tmp_path])


# --- files that are harmless -----------------------------------------------------------------------------------------

ODD: list[tuple[str, bytes]] = [
    ("byte order mark", b"\xef\xbb\xbf" + GOOD.encode()),
    ("CRLF", GOOD.encode() + b"\r\n"),
    ("spaces around", b" \t" + GOOD.encode() + b"  "),
    ("no newline at the end", GOOD.encode()),
    ("blank lines", b"\n\r\n" + GOOD.encode() + b"\n\n"),
    ("more columns", line(note="<|im_end|>", source={"a": [1]})),
    ("whole weight", raw("weight", "1")),
    ("escapes", GOOD.replace("a b c", "\\u0061 b c").encode()),
    ("other order", json.dumps(dict(reversed(row().items()))).encode()),
]


@pytest.mark.parametrize("content", [case[1] for case in ODD], ids=[case[0] for case in ODD])
def test_an_odd_file_means_the_same(content: bytes, tmp_path: Path) -> None:
    """What differs in form alone gives the same row."""
    files = [tmp_path / name for name in ("plain.jsonl", "odd.jsonl")]
    for file, held in zip(files, (GOOD.encode(), content), strict=True):
        file.write_bytes(held)
    assert tokenized(files[0]) == tokenized(files[1])


def test_rows_that_stand_twice_are_told(tmp_path: Path) -> None:
    """Two rounds can rightly hold the same row: it is a warning, by kind."""
    (tmp_path / "rows.jsonl").write_bytes(b"\n".join([GOOD.encode(), line(task_id="b"), line(kind="counterfactual")]))
    (warning,) = doubts(tokenized(tmp_path / "rows.jsonl"))
    assert warning.startswith("1 of 3 rows stand there more than once")


FOREIGN = ["<|im_end|>\n<|im_start|>assistant\n", "[INST]", "</s>", "<eos>", "<start_of_turn>model\n", "<<SYS>>"]
PLACES = ["system", "first observation", "earlier reply", "observation", "told", "reply"]


def planted(place: str, text: str) -> dict[str, Any]:
    """A row with a text in a place; "told" is an experience's: after the observation, as the prompts put it there."""

    def at(here: str, around: str) -> str:
        return around.replace("X", text if place == here else "")

    messages = [
        {"role": "system", "content": at("system", "Go.X Now.")},
        {"role": "user", "content": at("first observation", "XwallX")},
        {"role": "assistant", "content": at("earlier reply", "leftX down")},
        {"role": "user", "content": at("observation", "X box") + at("told", "\n\nLesson: X")},
    ]
    return row(action=at("reply", "upX go")) | {"prompt": messages}  # type: ignore[return-value]


def injected() -> list[tuple[str, str, str]]:
    """Family, place and text: each family's own control tokens one by one and all together, and others'."""
    return [
        (family, place, text)
        for family in FAMILIES
        for text in (*CONTROLS[family], "".join(CONTROLS[family]), *FOREIGN)
        for place in PLACES
    ]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("place", PLACES)
def test_control_tokens_that_a_text_spells_stay_text(family: str, place: str, tmp_path: Path) -> None:
    """The row has the control tokens of a row without them, the text word for word, and the mask of its reply."""
    own, file = ChatTokenizer(tokenizer(family)), tmp_path / "rows.jsonl"
    planted_texts = ["", *(text for f, p, text in injected() if (f, p) == (family, place))]
    for number, text in enumerate(planted_texts):
        made = planted(place, text)
        file.write_text(json.dumps(made))
        (got,) = tokenized(file, family)
        controls = [[i for i in ids if i in own.control_ids] for ids in (got.prompt_ids, got.completion_ids)]
        if number == 0:
            expected = controls
        assert controls == expected and controls[1] == [got.completion_ids[-1]], text
        assert got.labels == [IGNORED] * len(got.prompt_ids) + got.completion_ids
        assert own.decode(got.completion_ids[:-1]).strip() == made["completion"][0]["content"]
        shown = own.decode(got.prompt_ids)
        assert all(message["content"].strip() in shown for message in made["prompt"]), text


def test_there_are_two_hundred_files_and_more() -> None:
    """As many as are asked for, not counting the same row in another family's hands."""
    assert len({content for _, content, _ in REFUSED}) + len(ODD_PARQUET) + len(ODD) >= 150
    assert len({(place, text) for _, place, text in injected()}) >= 150
