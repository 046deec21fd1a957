"""Rows of agents that make their own prompts: tools, calls and results in TRL's form, and no experience in any."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from tool_trees import BOOK, LOOK, SYSTEM, TOLD, TOOLS, USER, decided, flight, followed, ids
from trees import branch, run_folder, turn

from leafe_graph.dataset.examples import examples
from leafe_graph.dataset.export import export
from leafe_graph.errors import ConfigError
from leafe_graph.types import Branch, Example


def call(number: int, name: str, **arguments: Any) -> dict[str, Any]:
    """A call as a row has it."""
    return {"type": "function", "id": f"call{number:05d}", "function": {"name": name, "arguments": arguments}}


def test_a_decision_is_one_row_with_all_its_calls_and_the_tools_of_its_request() -> None:
    """Prompt and tools are the request's, arguments objects; what had no tools has none."""
    rows, summary = examples(flight())
    assert [(row["kind"], row["decision_point"], row["node"]) for row in rows] == [
        ("counterfactual", 0, "model"),
        ("rehearsal", 0, "model"),
        ("rehearsal", 1, "model"),
        ("rehearsal", 2, "writer"),
    ]
    revised, _, book, last = rows
    both = {
        "role": "assistant",
        "content": "",
        "tool_calls": [call(0, "look", day="3 May"), call(1, "look", day="4 May")],
    }
    assert revised["prompt"] == [SYSTEM, USER] and revised["completion"] == [both]
    assert revised["tools"] == TOOLS and revised["completion_token_ids"] == [7, 8]
    assert book["prompt"] == [
        SYSTEM,
        USER,
        both,
        {"role": "tool", "content": "free", "name": "look", "tool_call_id": "call00000"},
        {"role": "tool", "content": "free", "name": "look", "tool_call_id": "call00001"},
    ]
    assert book["completion"] == [
        {"role": "assistant", "content": "", "tool_calls": [call(2, "book", day=3, seats=["1A", "1B"])]}
    ]
    assert "tools" not in last and last["completion"] == [{"role": "assistant", "content": "It is booked."}]
    assert (summary.leaked, summary.unreadable) == (0, 0)


def test_equal_decisions_under_other_ids_are_one_row() -> None:
    """Ids are random; other arguments and other tools make another decision."""
    tree = flight()
    again = flight()[1] | {"id": "2"}
    rows, summary = examples([*tree, again])
    assert len(rows) == 4 and summary.duplicates == 4
    assert ids([*rows[2]["prompt"], *rows[2]["completion"]]) == [f"call0000{n}" for n in (0, 1, 0, 1, 2)]
    other = flight("5 May")[1] | {"id": "2"}
    fewer: Any = flight()[1] | {"id": "3", "turns": [decided([SYSTEM, USER], ("look", {"day": "4 May"}), tools=[LOOK])]}
    assert examples([*tree, other, fewer])[1].duplicates == 0


def test_a_result_whose_call_is_in_the_prompt_no_more_has_a_number_of_its_own() -> None:
    """A history that was cut short."""
    whole = followed([SYSTEM, USER], ("look", {"day": "1 May"}), ("book", {"day": 1}), results=["free", "booked"])
    cut = [whole[1], *whole[3:]]
    (row,), _ = examples([branch("0", [decided(cut, ("book", {"day": 2}))], "success")])
    assert ids([*row["prompt"], *row["completion"]]) == ["call00000", "call00001", "call00002"]


def test_a_pair_shares_its_prompt_and_both_answers_go_on_with_its_numbers() -> None:
    """The worse answer is the parent's, with its own calls."""
    (row,), _ = examples(flight(), kinds=["preference"])
    assert row["rejected"] == [{"role": "assistant", "content": "", "tool_calls": [call(0, "look", day="2 May")]}]
    assert ids(row["completion"]) == ["call00000", "call00001"] and row["prompt"] == [SYSTEM, USER]


def test_a_teachers_prompt_ends_with_the_experience() -> None:
    """In the last message of the request, whatever its role."""
    revised = examples(flight(), teacher=True)[0][0]
    *before, last = revised["teacher_prompt"]
    assert before == [SYSTEM]
    assert last == USER | {"content": f"{USER['content']}\n\nExperience from an earlier attempt: {TOLD}"}


@pytest.mark.parametrize(
    "leaking",
    [
        {"day": TOLD},
        {"day": f"3 May\n{TOLD}"},
        {"content": f"I was told: {TOLD}"},
        {"result": f'{{"note": "as you say:\\n{TOLD}"}}'},
    ],
)
def test_no_row_holds_the_experience(leaking: dict[str, str]) -> None:
    """Not in what was said, in an argument, in a result that echoes it, or in any later prompt that shows them."""
    rows, summary = examples(flight(**leaking))
    assert "sold out, so look" not in json.dumps(rows)
    assert summary.leaked == (2 if "result" in leaking else 4)


def test_calling_what_was_recommended_is_no_leak_and_talk_of_it_is() -> None:
    """The call that was carried out is excused; its reasons, and an earlier answer that nobody gave, are not."""
    told = "Look for 3 May 4 May 5 May 6 May 7 May at once."
    days = "3 May 4 May 5 May 6 May 7 May"
    plain = branch("2", [decided([SYSTEM, USER], ("look", {"day": "a b c d e f g h i j"}))], "failure")
    assert examples([*flight(days, experience=told), plain])[1].leaked == 0
    assert examples([*flight(days, experience=told, content=f"Told of {days}."), plain])[1].leaked == 4
    foreign = followed([SYSTEM, USER], ("look", {"day": days}), results=["free"])
    last = branch("1", [decided(foreign, ("book", {"day": 3}))], "success", parent="0", experience=told)
    assert examples([flight()[0], last, plain])[1].leaked == 2


def test_what_root_prompts_show_is_no_leak() -> None:
    """An experience that repeats a tool's answer of before it was written."""
    tree = flight(experience="sold out")
    tree[1]["turns"][0]["request"]["messages"].append({"role": "user", "content": "It was sold out."})  # type: ignore[typeddict-item]
    assert examples(tree)[1].leaked == 0


def test_only_the_decisions_of_chosen_nodes_become_rows() -> None:
    """By path or pattern; one that is nobody's is an error that names those there are."""
    rows, summary = examples(flight(), nodes=["wri*"])
    assert [row["node"] for row in rows] == ["writer"] and summary.other_nodes == 3
    assert "rows of other nodes removed" in str(summary)
    with pytest.raises(ConfigError, match=r"no decision is 'writ''s: those of these records are model, writer"):
        examples(flight(), nodes=["model", "writ"])
    with pytest.raises(ConfigError, match="these records name none"):
        examples([branch("0", [turn("a", "up")], "success")], nodes=["model"])


@pytest.mark.parametrize(
    "wrong",
    [
        decided([SYSTEM, USER], ("look", '{"day": 3')),
        decided(followed([SYSTEM, USER], ("look", "3"), results=["no JSON"]), content="Sorry."),
        decided([SYSTEM, {"role": "user", "content": [{"type": "image_url"}]}], content="A cat."),  # type: ignore[typeddict-item]
    ],
)
def test_what_no_row_can_hold_is_left_out_and_counted(wrong: Any) -> None:
    """Arguments that are no JSON, said or shown, and pictures."""
    rows, summary = examples([branch("0", [wrong], "success")])
    assert (rows, summary.unreadable) == ([], 1) and "no JSON, or of more than text, removed" in str(summary)


def test_blocks_of_text_are_one_text() -> None:
    """As providers of content in blocks are asked."""
    blocks: Any = {"role": "user", "content": [{"type": "text", "text": "To "}, "Rome."]}
    (row,), _ = examples([branch("0", [decided([blocks], content="Yes.")], "success")])
    assert row["prompt"] == [{"role": "user", "content": "To Rome."}]


def test_an_answer_of_nothing_is_no_target() -> None:
    """Neither text nor call."""
    assert examples([branch("0", [decided([USER], content=" ")], "success")])[1].empty == 1


# ---- files


def exported(tmp_path: Path, tree: list[Branch]) -> Path:
    """The folder of rows."""
    export(run_folder(tmp_path / "run", tree))
    return tmp_path / "run" / "examples"


def test_files_load_with_objects_from_json_lines_and_json_text_from_parquet(tmp_path: Path) -> None:
    """Arguments of other types and tools of other schemas come back as they are; the card says how."""
    datasets = pytest.importorskip("datasets", reason='pip install ".[train]"')
    folder = exported(tmp_path, flight())
    rows = [dict(row) for row in examples(flight())[0]]
    lines = [json.loads(line) for line in (folder / "examples.jsonl").read_text().splitlines()]
    assert lines == rows
    table = datasets.load_dataset(str(folder), split="train", cache_dir=str(tmp_path / "cache"))
    assert table.column_names == list(Example.__annotations__)
    said = table[2]["completion"][0]
    assert said["tool_calls"][0]["function"] == {"name": "book", "arguments": '{"day": 3, "seats": ["1A", "1B"]}'}
    assert json.loads(table[0]["tools"]) == TOOLS and table[3]["tools"] is None
    header, text = (folder / "README.md").read_text().split("---", 2)[1:]
    schema = datasets.Features.from_arrow_schema(table.data.schema)
    assert datasets.Features._from_yaml_list(yaml.safe_load(header)["dataset_info"]["features"]) == schema
    snippet = text.split("```python\n")[1].split("```")[0]
    names: dict[str, Any] = {}
    exec(snippet.replace("examples.jsonl", str(folder / "examples.jsonl")), names)
    parts = ("prompt", "completion", "tools")
    assert names["data"].to_list() == [{name: row.get(name) for name in parts} for row in rows]


def test_rows_of_texts_alone_have_no_columns_of_calls(tmp_path: Path) -> None:
    """A null is a call to some chat templates."""
    datasets = pytest.importorskip("datasets", reason='pip install ".[train]"')
    folder = exported(tmp_path, [branch("0", [turn("at start", "down")], "success")])
    table = datasets.load_dataset(str(folder), split="train", cache_dir=str(tmp_path / "cache"))
    assert table[0]["completion"] == [{"role": "assistant", "content": "down"}]
    assert "tool_calls" not in (folder / "README.md").read_text()


def test_json_lines_alone_load_as_objects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without pyarrow in the exporting environment the card points there."""
    datasets = pytest.importorskip("datasets", reason='pip install ".[train]"')
    if not hasattr(datasets, "Json"):
        pytest.skip('this datasets has no objects in columns: pip install "datasets>=4.7"')
    monkeypatch.setitem(__import__("sys").modules, "pyarrow.parquet", None)
    folder = exported(tmp_path, flight())
    loaded = datasets.load_dataset(str(folder), split="train", cache_dir=str(tmp_path / "cache"))
    assert loaded[2]["completion"][0]["tool_calls"] == [call(2, "book", day=3, seats=["1A", "1B"])]
    assert loaded[0]["tools"] == [LOOK, BOOK] and loaded[3]["tools"] is None


def test_half_characters_in_calls_and_tools_are_written_as_question_marks(tmp_path: Path) -> None:
    """Whoever wrote the log."""
    strange: Any = [{"type": "function", "function": {"name": "look", "description": "\ud800"}}]
    last = decided([SYSTEM, USER], ("look", {"day\ud800": ["\ud800"]}), tools=strange)
    folder = exported(tmp_path, [branch("0", [last], "success")])
    (line,) = (folder / "examples.jsonl").read_text().splitlines()
    row = json.loads(line)
    assert row["completion"][0]["tool_calls"][0]["function"]["arguments"] == {"day?": ["?"]}
    assert row["tools"][0]["function"]["description"] == "?"
