"""Rows in the forms of other trainers: what is in them, and what those trainers make of it."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from test_export import lost_and_recovered
from tool_trees import TOOLS, flight
from trees import branch, run_folder, turn

from leafe_graph.cli.main import main
from leafe_graph.dataset.export import export
from leafe_graph.errors import ConfigError
from leafe_graph.types import Branch, Example

KINDS: Any = ["counterfactual", "preference", "rehearsal"]


def read(file: Path) -> list[dict[str, Any]]:
    """A file's rows."""
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def exported(out: Path, tree: list[Branch], **settings: Any) -> tuple[list[Example], Path]:
    """The rows of a tree, and the folder that they are in."""
    made = export(run_folder(out / "run", tree), **{"kinds": KINDS, **settings})
    assert all((out / "run/examples" / name).is_file() for name in made.files)
    return read(out / "run/examples/examples.jsonl"), out / "run/examples"  # type: ignore[return-value]


def test_chats_are_what_trl_makes_the_rows_of(tmp_path: Path) -> None:
    """Its own reader of ShareGPT's form gives back prompt and completion, row by row."""
    convert = pytest.importorskip("trl.data_utils").maybe_convert_to_chatml
    rows, folder = exported(tmp_path, lost_and_recovered(), formats=["sharegpt"])
    learned = [row for row in rows if row["kind"] != "preference"]
    chats = read(folder / "sharegpt.jsonl")
    assert [set(chat) for chat in chats] == [{"conversations"}] * len(learned) and len(learned) > 2
    roles = {"human": "user", "gpt": "assistant", "system": "system"}
    for row, chat in zip(learned, chats, strict=True):
        named = [{"from": roles[each["from"]], "value": each["value"]} for each in chat["conversations"]]
        assert convert({"conversations": named})["messages"] == [*row["prompt"], *row["completion"]]


def test_pairs_are_preferences_to_trl(tmp_path: Path) -> None:
    """Loaded by `datasets`, a row is a conversation with a prompt of its own, which TRL leaves as it is."""
    utils, datasets = pytest.importorskip("trl.data_utils"), pytest.importorskip("datasets")
    rows, folder = exported(tmp_path, lost_and_recovered(), kinds=["preference"], formats=["trl-dpo"])
    loaded = datasets.load_dataset("json", data_files=str(folder / "trl_dpo.jsonl"), split="train", cache_dir=tmp_path)
    assert len(loaded) == len(rows) > 0
    for row, pair in zip(rows, loaded, strict=True):
        assert utils.is_conversational(pair) and utils.maybe_extract_prompt(dict(pair)) == pair
        assert pair == {"prompt": row["prompt"], "chosen": row["completion"], "rejected": row["rejected"]}
    assert not (folder / "sharegpt.jsonl").exists()


def test_calls_and_results_alternate_as_llama_factory_asks(tmp_path: Path) -> None:
    """Answers of one turn's two calls are one observation; calls are JSON; each row has its tools, or an empty text."""
    rows, folder = exported(tmp_path, flight(), formats=["llama-factory"])
    chats = read(folder / "sharegpt.jsonl")
    for chat in chats:
        said = [each["from"] for each in chat["conversations"][1:]]
        assert chat["conversations"][0]["from"] == "system"
        assert set(said[::2]) <= {"human", "observation"} and set(said[1::2]) <= {"function_call", "gpt"}
    assert {chat["tools"] for chat in chats} == {json.dumps(TOOLS), ""}
    longest = max((chat["conversations"] for chat in chats), key=len)
    calls = [json.loads(each["value"]) for each in longest if each["from"] == "function_call"]
    assert calls[0] == [{"name": "look", "arguments": {"day": f"{day} May"}} for day in (3, 4)]
    assert next(each["value"] for each in longest if each["from"] == "observation") == (
        "free\n</tool_response>\n<tool_response>\nfree"
    )
    (pair,) = read(folder / "sharegpt_preferences.jsonl")
    assert [pair[name]["from"] for name in ("chosen", "rejected")] == ["function_call"] * 2
    told = json.loads((folder / "dataset_info.json").read_text())
    assert {name: each["file_name"] for name, each in told.items()} == {
        "sharegpt": "sharegpt.jsonl",
        "sharegpt_preferences": "sharegpt_preferences.jsonl",
    }
    for each in told.values():
        columns = set(read(folder / each["file_name"])[0])
        assert columns == set(each["columns"].values())
    assert len(rows) == len(chats) + 1


def test_another_export_leaves_no_file_of_the_forms_before(tmp_path: Path) -> None:
    """They would contradict its rows."""
    _, folder = exported(tmp_path, lost_and_recovered(), formats=["llama-factory", "trl-dpo"])
    plain = {"examples.jsonl", "examples.parquet", "README.md"}
    others = {"sharegpt.jsonl", "sharegpt_preferences.jsonl", "trl_dpo.jsonl", "dataset_info.json"}
    assert {file.name for file in folder.iterdir()} == plain | others
    export(tmp_path / "run")
    assert {file.name for file in folder.iterdir()} == plain


def test_other_datasets_of_the_folder_stay_known(tmp_path: Path) -> None:
    """LLaMA-Factory's own folder of data may be written to: with its form and without, nothing of others is lost."""
    info, others = tmp_path / "data" / "dataset_info.json", {"mine": {"file_name": "mine.json"}}
    info.parent.mkdir()
    info.write_text(json.dumps(others))
    run = run_folder(tmp_path / "run", lost_and_recovered())
    export(run, out=info.parent)
    assert json.loads(info.read_text()) == others
    export(run, out=info.parent, formats=["llama-factory"])
    told = json.loads(info.read_text())
    assert told.pop("mine") == others["mine"] and {*told} == {"sharegpt"}
    export(run, out=info.parent)
    assert json.loads(info.read_text()) == others
    info.write_text("[1")
    export(run, out=info.parent)
    with pytest.raises(ConfigError, match=r"dataset_info\.json is no JSON object of datasets"):
        export(run, out=info.parent, formats=["llama-factory"])
    assert info.read_text() == "[1"


def test_what_has_no_such_form_is_said(tmp_path: Path) -> None:
    """Beforehand where the kinds tell; afterwards where none of the rows is of the kind."""
    run = run_folder(tmp_path / "run", [branch("0", [turn("here", "right")], "success")])
    with pytest.raises(ConfigError, match="trl-dpo takes rows of the kind preference, and rehearsal are asked for"):
        export(run, kinds=["rehearsal"], formats=["trl-dpo"])
    assert not (tmp_path / "run/examples").exists()
    made = export(run, kinds=["preference", "rehearsal"], formats=["trl-dpo"])
    assert "no file of trl-dpo: these rows have no such form" in made.notes


def test_the_command_line_takes_several(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`--format` once for each."""
    run_folder(tmp_path / "run", lost_and_recovered())
    given = ["--kinds", "preference", "--format", "sharegpt", "--format", "trl-dpo"]
    monkeypatch.setattr(sys, "argv", ["leafe", "export", str(tmp_path / "run"), *given])
    main()
    made = {file.name for file in (tmp_path / "run/examples").iterdir()}
    assert {"sharegpt_preferences.jsonl", "trl_dpo.jsonl"} <= made and "sharegpt.jsonl" not in made
