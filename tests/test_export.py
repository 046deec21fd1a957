"""Rows exactly as the method defines them, and no experience in any of them."""

import itertools
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st
from trees import branch, run_folder, turn

from leafe_graph.cli.main import main
from leafe_graph.dataset import row_files
from leafe_graph.dataset.examples import examples
from leafe_graph.dataset.export import export, write_parquet
from leafe_graph.dataset.leaks import LEAK_RUN
from leafe_graph.errors import ConfigError, install
from leafe_graph.exploration.explore import explore
from leafe_graph.finetune.rows import read_examples
from leafe_graph.rounds import read_config
from leafe_graph.settings import Limits
from leafe_graph.testing import GridWorld, ScriptedModel, grid_tasks
from leafe_graph.tree.run_folder import RunFolder
from leafe_graph.types import Branch, Example

TOLD = "The pit is right of the start, so walk down twice and only then to the right."


def lost_and_recovered(says: str = "down", *, experience: str = TOLD, **first: Any) -> list[Branch]:
    """Down, right, right into the pit; rewound to decision point 1, where the model now says ``says``, then right."""
    start = turn("at start", "down", prompt_token_ids=[1, 2], token_ids=[10, 0])
    return [
        branch("0", [start, turn("below", "right"), turn("edge", "right")], "failure"),
        branch(
            "1",
            [
                turn("below", says, **{"prompt_token_ids": [1, 2, 9, 9], "token_ids": [10, 0], **first}),
                turn("far below", "right"),
            ],
            "success",
            parent="0",
            at=1,
            experience=experience,
        ),
    ]


def text(row: Example) -> str:
    """Everything a row holds, one message a line."""
    return "\n".join(message["content"] for message in [*row["prompt"], *row["completion"]])


def kinds(rows: list[Example]) -> list[tuple[str, str, int]]:
    """What identifies the rows."""
    return [(row["kind"], row["branch_id"], row["decision_point"]) for row in rows]


def test_rows_are_the_revised_action_and_all_actions_of_the_successful_path() -> None:
    """One counterfactual row for the branching event, rehearsal rows from the start to the success."""
    rows, summary = examples(lost_and_recovered())
    system = {"role": "system", "content": "Reach the goal."}
    start = [system, {"role": "user", "content": "at start"}]
    below = [*start, {"role": "assistant", "content": "down"}, {"role": "user", "content": "below"}]
    far = [*below, {"role": "assistant", "content": "down"}, {"role": "user", "content": "far below"}]
    common = {"version": 1, "task_id": "t", "branch_id": "1", "weight": 1.0}

    def row(kind: str, t: int, prompt: Any, says: str, prompt_ids: Any, ids: Any) -> dict[str, Any]:
        completion = [{"role": "assistant", "content": says}]
        own = {"kind": kind, "decision_point": t, "prompt": prompt, "completion": completion}
        return common | own | {"prompt_token_ids": prompt_ids, "completion_token_ids": ids}

    assert rows == [
        row("counterfactual", 1, below, "down", None, [10, 0]),
        row("rehearsal", 0, start, "down", [1, 2], [10, 0]),
        row("rehearsal", 1, below, "down", None, [10, 0]),
        row("rehearsal", 2, far, "right", None, None),
    ]
    assert (summary.counterfactual, summary.rehearsal, summary.tasks_covered, summary.leaked) == (1, 3, 1, 0)


def test_prompt_ids_of_prompts_that_held_an_experience_are_left_out() -> None:
    """Recorded prompt ids would smuggle the experience in: a branch's own turns have none, its parent's keep theirs."""
    rows, _ = examples(lost_and_recovered())
    assert [row["prompt_token_ids"] for row in rows] == [None, [1, 2], None, None]
    rows, _ = examples(lost_and_recovered(), prompt_ids=False)
    assert [row["prompt_token_ids"] for row in rows] == [None] * 4


def test_failed_branches_give_no_rows() -> None:
    """A branch that failed again neither counts nor is rehearsed."""
    tree = lost_and_recovered()
    tree[1]["end"] = "failure"
    assert examples(tree)[0] == []


def test_improved_keeps_branches_with_a_higher_return_than_their_parent() -> None:
    """Partial reward makes a branching event count, but not a successful trajectory."""
    tree = lost_and_recovered()
    tree[1].update(end="failure", return_=0.5)
    rows, _ = examples(tree, keep="improved")
    assert kinds(rows) == [("counterfactual", "1", 1)]
    tree[0]["return_"] = 0.5
    assert examples(tree, keep="improved")[0] == []


def test_unfinished_branches_are_counted_and_ignored() -> None:
    """What a budget or an error cut off is no evidence, whatever its return."""
    tree = lost_and_recovered()
    tree[1].update(end="budget", return_=5.0)
    rows, summary = examples(tree, keep="improved")
    assert (rows, summary.unfinished) == ([], 1)


def test_a_restart_with_the_reflection_is_a_branching_event_at_the_start() -> None:
    """Iterative refinement tells the experience from decision point 0 on; its first action is the revised one."""
    tree = lost_and_recovered()
    again = [turn("at start", "right", prompt_token_ids=[7]), turn("beside", "down")]
    tree[1] = branch("1", again, "success", parent="0", experience=TOLD)
    rows, _ = examples(tree)
    assert kinds(rows) == [("counterfactual", "1", 0), ("rehearsal", "1", 0), ("rehearsal", "1", 1)]
    assert all(row["prompt_token_ids"] is None for row in rows)


def test_nested_branches_take_each_turn_from_the_branch_that_played_it() -> None:
    """A rewind on a branch, further back than where it forked, leaves that branch's turns out."""
    tree = lost_and_recovered()
    tree[1]["end"] = "rewound"
    tree.append(branch("2", [turn("at start", "right")], "success", parent="1", at=0, experience="Go right at once!"))
    tree.append(branch("3", [turn("far below", "up")], "success", parent="1", at=2, experience="Not to the right."))
    rows, _ = examples(tree)
    assert kinds(rows)[:2] == [("counterfactual", "2", 0), ("counterfactual", "3", 2)]
    last = rows[-1]
    assert (last["branch_id"], last["decision_point"], last["completion"][0]["content"]) == ("3", 2, "up")
    assert [m["content"] for m in last["prompt"] if m["role"] == "assistant"] == ["down", "down"]


def test_shared_prefixes_are_written_once() -> None:
    """Two successes with the same beginning give its rows once; the copies are counted."""
    tree = lost_and_recovered()
    tree.append(branch("2", [turn("edge", "down")], "success", parent="0", at=2, experience="Go down at the edge."))
    rows, summary = examples(tree)
    prompts = [(row["kind"], json.dumps([row["prompt"], row["completion"]])) for row in rows]
    assert len(prompts) == len(set(prompts))
    assert summary.duplicates == 1


def test_rows_do_not_depend_on_the_order_in_which_branches_ended() -> None:
    """A resumed run logs its branches in another order; the export is the same."""
    tree = [*lost_and_recovered(), *({**b, "task": {"id": "u", "instruction": "Go."}} for b in lost_and_recovered())]
    rows = {json.dumps(examples(order)[0]) for order in itertools.permutations(tree)}  # type: ignore[arg-type]
    assert len(rows) == 1


def test_rows_of_invalid_actions_are_left_out_on_request() -> None:
    """Of both kinds; the method itself keeps them. What the environment did not judge is no invalid action."""
    tree = lost_and_recovered(valid=False)
    rows, summary = examples(tree)
    assert len(rows) == 4 and summary.invalid == 0
    rows, summary = examples(tree, skip_invalid=True)
    assert kinds(rows) == [("rehearsal", "1", 0), ("rehearsal", "1", 2)] and summary.invalid == 2
    assert "rows of invalid actions removed  2" in str(summary)


def test_history_shortens_every_prompt() -> None:
    """A policy that saw only the last turn is trained on prompts with only the last turn."""
    rows, _ = examples(lost_and_recovered(), history=1)
    assert [m["content"] for m in rows[-1]["prompt"]] == ["Reach the goal.", "below", "down", "far below"]
    rows, _ = examples(lost_and_recovered(), history=0)
    assert [m["content"] for m in rows[-1]["prompt"]] == ["Reach the goal.", "far below"]


def test_an_empty_answer_is_no_target() -> None:
    """A row whose model said nothing is counted, not written."""
    _, summary = examples(lost_and_recovered(" \n"))
    assert (summary.counterfactual, summary.empty) == (0, 2)


@pytest.mark.parametrize("wrong", [{"keep": "all"}, {"history": -1}])
def test_wrong_arguments_are_refused(wrong: dict[str, Any]) -> None:
    """Misuse raises at once."""
    with pytest.raises(ConfigError):
        examples([], **wrong)


# --- leaks ------------------------------------------------------------------------------------------------------------

PARROTS = {
    "as it is": TOLD,
    "loud": TOLD.upper(),
    "over lines": TOLD.replace(" ", "\n"),
    "with other punctuation": TOLD.replace(",", " --").replace(".", "!!"),
    "inside a sentence": f'I was told: "{TOLD}" So I go down.',
    "in bold": "**" + TOLD.replace(" ", "** _") + "_",
    "full width": TOLD.replace("pit", "\uff50\uff49\uff54"),
    "cut off by the token limit": " ".join(TOLD.split()[:9]),
    "its middle": " ".join(TOLD.split()[4:12]),
    "with its introduction": "Experience from an earlier attempt: The pit, ...",
}


@pytest.mark.parametrize("valid", [True, False, None])
@pytest.mark.parametrize("parrot", PARROTS.values(), ids=PARROTS)
def test_a_parroted_experience_drops_its_row_and_all_rows_that_show_it(parrot: str, valid: bool | None) -> None:
    """The revised action repeats the experience: only the row before it stays."""
    rows, summary = examples(lost_and_recovered(parrot, valid=valid))
    assert kinds(rows) == [("rehearsal", "1", 0)]
    assert summary.leaked == 3


def test_thinking_aloud_about_the_experience_leaks_though_the_action_is_short() -> None:
    """Taking the executed action out of the message does not cut a copied sentence into harmless pieces."""
    rows, _ = examples(lost_and_recovered("So walk down twice and only then\nAction: down", action="down"))
    assert kinds(rows) == [("rehearsal", "1", 0)]


def test_doing_what_was_recommended_is_no_leak() -> None:
    """A long command that the experience names may be executed; so may one word that is the whole experience."""
    command = "put the clean apple 1 in/on the fridge 1"
    tree = lost_and_recovered(command, experience=f"The apple was dirty. Now {command} and you are done.")
    tree[0]["turns"][0] = turn("at start", "take the dirty apple 1 from shelf 2")
    rows, summary = examples(tree)
    assert (len(rows), summary.leaked) == (4, 0)
    assert len(examples(lost_and_recovered("down", experience="Down!"))[0]) == 4


def test_what_the_environment_says_anyway_is_no_leak() -> None:
    """An experience that quotes the instruction or an observation does not make these a leak; a parrot still is one."""
    for quoted in ("Reach the goal", "below"):
        assert examples(lost_and_recovered(experience=quoted))[1].leaked == 0
    assert examples(lost_and_recovered("I will reach the goal", experience="Reach the goal"))[1].leaked == 3


def test_an_environment_that_echoes_the_parrot_leaks() -> None:
    """With a short history the parrot itself is out of sight, but not the observation that repeats it."""
    tree = lost_and_recovered("down")
    tree[1]["turns"][1]["observation"] = f"I do not understand '{TOLD.lower()}'."
    rows, _ = examples(tree, history=0)
    assert [(kind, t) for kind, _, t in kinds(rows)] == [("counterfactual", 1), ("rehearsal", 0), ("rehearsal", 1)]


def test_an_environment_that_echoes_a_part_of_the_parrot_leaks() -> None:
    """Six words of an experience are enough, where the environment does not say them by itself."""
    tree = lost_and_recovered("down")
    tree[1]["turns"][1]["observation"] = f"unknown action '{TOLD[:40]}'"
    rows, _ = examples(tree, history=0)
    assert [(kind, t) for kind, _, t in kinds(rows)] == [("counterfactual", 1), ("rehearsal", 0), ("rehearsal", 1)]


def test_experiences_of_other_branches_of_the_task_count_too() -> None:
    """A lucky root that says what another branch was told is dropped, for the tree could have told it."""
    tree = [*lost_and_recovered(), branch("2", [turn("at start", TOLD)], "success")]
    assert ("rehearsal", "2", 0) not in kinds(examples(tree)[0])


def test_each_of_several_experiences_counts_by_itself() -> None:
    """Where a branch was told the last three reflections; the lines of a single one do not count alone."""
    told = "Mind the pit\nGo round it"
    lost = branch("0", [turn("start", "right")], "failure")
    won = branch("1", [turn("start", "Mind the pit: down", action="down")], "success", parent="0", experience=told)
    assert examples([lost, won])[1].leaked == 0
    lost["reflections"] = [
        {"turn": 1, "verdict": "rewind", "decision_point": 0, "experience": "Mind  the pit", "raw": ""}
    ]
    assert examples([lost, won])[1].leaked == 2  # the revised action, and its rehearsal


def test_a_script_without_spaces_is_read_by_characters() -> None:
    """Six characters in a row of a Chinese experience are a leak."""
    rows, summary = examples(lost_and_recovered("好的,把箱子推到角落吧", experience="不要把箱子推到角落里,先往下走"))
    assert (len(rows), summary.leaked) == (1, 3)


def plain(text: str) -> str:
    """Words without case and punctuation, found in another way than the exporter does."""
    return " " + re.sub(r"[\W_]+", " ", text.casefold()).strip() + " "


WORDS = st.sampled_from(["box", "Corner", "up", "down", "goal", "7", "the", "below", "said", "é", "do"])
SPACES = st.sampled_from([" ", "\n", ", ", " -- ", "\t", "! "])
EXPERIENCES = st.lists(st.tuples(WORDS, SPACES), min_size=2, max_size=12).map(lambda p: "".join(w + s for w, s in p))


@given(
    experience=EXPERIENCES,
    before=st.sampled_from(["", "I was told: ", "Action: ", "xx"]),
    after=st.sampled_from(["", ".\nAction: up", " Now up", "yy"]),
    change=st.sampled_from([str, str.upper, str.title, lambda s: s.replace(" ", "\n"), lambda s: " ".join(s.split())]),
    at=st.integers(0, 3),
    echo=st.booleans(),
    valid=st.sampled_from([True, False, None]),
    history=st.sampled_from([None, 0, 1, 2]),
)
@example("box box", "xx", "yy", str, 0, True, None, 0)
def test_no_exported_row_holds_the_experience(
    experience: str, before: str, after: str, change: Any, at: int, echo: bool, valid: bool | None, history: int | None
) -> None:
    """Whatever the experience, wherever and however the model parrots it, whether or not the world echoes it."""
    parrot = before + change(experience) + after
    says = ["hop", "skip", "jump", "rest"]
    says[at] = parrot
    seen = ["first", *(f"you said {said}" if echo else "next" for said in says)]
    own = [turn(o, s, valid=valid, prompt_token_ids=[1], token_ids=[2]) for o, s in zip(seen, says, strict=False)]
    tree = [
        branch("0", [turn("begin", "left"), turn("first", "left")], "failure", instruction="Play."),
        branch("1", own, "success", parent="0", at=1, experience=experience, instruction="Play."),
        branch("2", [turn("next", "rest")], "success", parent="1", at=3, experience="Rest now.", instruction="Play."),
    ]
    rows, summary = examples(tree, history=history)
    for row in rows:
        for message in [*row["prompt"], *row["completion"]]:
            assert plain(experience).strip() not in plain(message["content"])
    assert summary.leaked > 0
    assert len(rows) >= 1, "the row before the fork is clean"


@given(experience=st.text(min_size=1).filter(str.strip), around=st.sampled_from(["{}", " {}\n", "ok {} ok"]))
def test_any_text_parroted_verbatim_is_dropped(experience: str, around: str) -> None:
    """Letters of any script, symbols alone, control characters: no row with the parrot is ever written."""
    rows, _ = examples(lost_and_recovered(around.replace("{}", experience), action="north-east", experience=experience))
    assert set(kinds(rows)) <= {("rehearsal", "1", 0)}


@given(st.integers(0, 10), st.integers(0, 14))
def test_runs_of_the_constants_length_leak_and_shorter_ones_do_not(start: int, length: int) -> None:
    """The limit is exactly `LEAK_RUN` words."""
    words = [f"w{i}" for i in range(24)]
    part = words[start : start + length]
    tree = lost_and_recovered(" ".join(["so", *part, "so"]), action="up", experience=" ".join(words))
    assert (examples(tree)[1].leaked > 0) == (len(part) >= LEAK_RUN)


# --- files ------------------------------------------------------------------------------------------------------------


def test_an_export_loads_as_a_hugging_face_dataset(tmp_path: Path) -> None:
    """The folder, the Parquet file and the JSONL file all load, with the same rows; a table has every column."""
    datasets = pytest.importorskip("datasets", reason='pip install ".[train]"')
    run = run_folder(tmp_path / "run", lost_and_recovered())
    summary = export(run)
    out = tmp_path / "run" / "examples"
    rows = [dict(row) for row in examples(run.branches)[0]]
    table = [dict.fromkeys(Example.__annotations__) | row for row in rows]
    cache = str(tmp_path / "cache")
    for kind, where, expected in [
        (str(out), {}, table),
        ("parquet", {"data_files": str(out / "examples.parquet")}, table),
        ("json", {"data_files": str(out / "examples.jsonl")}, rows),
    ]:
        loaded = datasets.load_dataset(kind, split="train", cache_dir=cache, **where)
        assert loaded.to_list() == expected
    assert summary.files == ["examples.jsonl", "examples.parquet", "README.md"]
    assert sorted(file.name for file in out.iterdir()) == ["README.md", "examples.jsonl", "examples.parquet"]


def test_columns_are_the_same_without_token_ids(tmp_path: Path) -> None:
    """The schema is fixed, so exports of different runs can be concatenated."""
    parquet = pytest.importorskip("pyarrow.parquet", reason='pip install ".[train]"')
    export(run_folder(tmp_path / "a", lost_and_recovered()))
    export(run_folder(tmp_path / "b", [branch("0", [turn("at start", "down")], "success")]))
    schemas = [parquet.read_schema(tmp_path / run / "examples" / "examples.parquet") for run in "ab"]
    assert schemas[0].equals(schemas[1])
    assert schemas[0].names == list(Example.__annotations__)


def test_export_of_no_rows_makes_no_parquet_file(tmp_path: Path) -> None:
    """`load_dataset` reads none without rows; an earlier export's goes, and the summary says so."""
    (tmp_path / "examples").mkdir()
    (tmp_path / "examples" / "examples.parquet").write_text("old")
    summary = export(run_folder(tmp_path, []))
    assert summary.files == ["examples.jsonl", "README.md"] and "there are no rows" in str(summary)
    assert sorted(file.name for file in (tmp_path / "examples").iterdir()) == ["README.md", "examples.jsonl"]


def test_jsonl_loads_where_token_ids_come_late(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The card tells the columns' types, which `datasets` would guess from a file's first 10 MB."""
    datasets = pytest.importorskip("datasets", reason='pip install ".[train]"')
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)  # this package's; datasets has imported its own
    long = "x" * 200_000
    plain = [turn(f"{long} {n}", "down") for n in range(60)]
    ended = [branch(str(n), [each], "success", task=f"t{n:03d}") for n, each in enumerate(plain)]
    ended += [branch("0", [turn("short", "up", prompt_token_ids=[1], token_ids=[2])], "success", task="u")]
    export(run_folder(tmp_path / "run", ended))
    assert not (tmp_path / "run" / "examples" / "examples.parquet").exists()
    rows = datasets.load_dataset(str(tmp_path / "run" / "examples"), cache_dir=str(tmp_path / "cache"))["train"]
    assert rows.column_names == list(Example.__annotations__) and len(rows) == 61
    assert (rows[0]["completion_token_ids"], rows[60]["completion_token_ids"]) == (None, [2])
    assert rows[60]["completion"] == [{"role": "assistant", "content": "up"}]


def test_card_and_parquet_tell_the_same_columns(tmp_path: Path) -> None:
    """Names and types."""
    datasets = pytest.importorskip("datasets", reason='pip install ".[train]"')
    parquet = pytest.importorskip("pyarrow.parquet", reason='pip install ".[train]"')
    export(run_folder(tmp_path, lost_and_recovered()))
    schema = parquet.read_schema(tmp_path / "examples" / "examples.parquet")
    header = (tmp_path / "examples" / "README.md").read_text().split("---")[1]
    told = datasets.Features._from_yaml_list(yaml.safe_load(header)["dataset_info"]["features"])
    assert told == datasets.Features.from_arrow_schema(schema)


@pytest.mark.skipif(
    os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") < 12 << 30, reason="needs a machine with 12 GiB of memory"
)
def test_a_column_may_hold_more_than_two_gigabytes(tmp_path: Path) -> None:
    """Where offsets of 32 bits end: every row comes back whole."""
    parquet = pytest.importorskip("pyarrow.parquet", reason='pyarrow is not installed: pip install ".[train]"')
    text = "x" * 100_000_000
    row: Any = {name: None for name in Example.__annotations__} | {
        "kind": "rehearsal",
        "prompt": [{"role": "user", "content": text}],
        "completion": [{"role": "assistant", "content": "up"}],
    }
    write_parquet([row] * 22, tmp_path / "rows.parquet")
    with parquet.ParquetFile(tmp_path / "rows.parquet") as file:
        batches = file.iter_batches(batch_size=1, columns=["prompt"])
        assert [len(batch["prompt"][0].as_py()[0]["content"]) for batch in batches] == [len(text)] * 22


def test_texts_with_line_separators_are_one_line_each(tmp_path: Path) -> None:
    """For whatever reads the file; they come back as they were."""
    ended = [branch("0", [turn("a\u2028b\x85c\u2029d", "up")], "success")]
    export(run_folder(tmp_path, ended))
    (line,) = (tmp_path / "examples" / "examples.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(line)["prompt"][-1]["content"] == "a\u2028b\x85c\u2029d"


@pytest.mark.parametrize(
    ("task", "settings", "refused"),
    [
        ("t", {"split": "test"}, True),
        ("t", {"split": "train"}, False),
        ("sokoban-test-6x6-000001", {}, True),
        ("sokoban-train-6x6-000001", {}, False),
        ("latest", {}, False),
    ],
)
def test_rows_of_test_tasks_are_made_only_if_asked_for(
    task: str, settings: dict[str, Any], refused: bool, tmp_path: Path
) -> None:
    """They are to judge by; settings of a command line tell the split, else the tasks' names."""
    run = run_folder(tmp_path, [branch("0", [turn("start", "up")], "success", task=task)], **settings)
    if refused:
        told = "setting split" if settings else f"task '{task}'"
        with pytest.raises(ConfigError, match=rf"tasks of the test split, as its {told} says.*--test-tasks"):
            export(run)
        assert not (tmp_path / "examples").exists()
    assert export(run, test_tasks=True).rehearsal == 1
    assert refused or export(run).rehearsal == 1


def test_test_tasks_are_refused_before_anything_is_played(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By demonstrations and by a file of rounds."""
    assert main(["demonstrate", "--split", "test", "--tasks", "1", "--out", str(tmp_path / "rows.jsonl")]) == 2
    assert "--test-tasks if that is meant" in capsys.readouterr().err
    (tmp_path / "f.yaml").write_text("model: local:smollm2-135m\nexplore:\n  split: test\n")
    with pytest.raises(ConfigError, match=r"explore\.split is test"):
        read_config(tmp_path / "f.yaml")
    assert read_config(tmp_path / "f.yaml", {"export.test_tasks": True}).explore.split == "test"


def test_without_pyarrow_the_jsonl_is_written_and_the_extra_named(tmp_path: Path, monkeypatch: Any) -> None:
    """The earlier Parquet file goes, since it would contradict the new rows, and the card points to the JSONL."""
    run = run_folder(tmp_path, lost_and_recovered())
    (tmp_path / "examples").mkdir()
    (tmp_path / "examples" / "examples.parquet").write_text("old")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    summary = export(run)
    assert install("train") in str(summary)
    assert not (tmp_path / "examples" / "examples.parquet").exists()
    assert "path: examples.jsonl" in (tmp_path / "examples" / "README.md").read_text()
    assert len((tmp_path / "examples" / "examples.jsonl").read_text().splitlines()) == 4


def test_the_runs_own_history_is_used_and_another_one_drops_the_prompt_ids(tmp_path: Path) -> None:
    """Recorded prompt ids belong to the prompts that the policy saw, not to shorter ones."""
    run = run_folder(tmp_path, lost_and_recovered(), history=1)
    assert export(run).history == 1
    rows = [json.loads(line) for line in (tmp_path / "examples" / "examples.jsonl").read_text().splitlines()]
    assert rows[1]["prompt_token_ids"] == [1, 2]
    export(run, history=None)
    rows = [json.loads(line) for line in (tmp_path / "examples" / "examples.jsonl").read_text().splitlines()]
    assert {str(row["prompt_token_ids"]) for row in rows} == {"None"}


def test_the_summary_says_how_tokens_were_counted(tmp_path: Path) -> None:
    """Token ids where every row has them, words elsewhere; card and text show the same numbers."""
    summary = export(run_folder(tmp_path, lost_and_recovered(), env="grid"))
    assert (summary.completion_tokens, summary.completion_tokens_are) == (4, "words")
    card = (tmp_path / "examples" / "README.md").read_text()
    assert "| counterfactual rows | 1 |" in card and '"env": "grid"' in card
    assert "counterfactual rows" in str(summary)
    tree = lost_and_recovered()
    tree[1]["turns"][1]["message"]["token_ids"] = [5, 6, 0]
    summary = examples(tree)[1]
    assert (summary.completion_tokens, summary.completion_tokens_are) == (9, "token ids")


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    """A mistyped path must not become an empty data set."""
    with pytest.raises(ConfigError, match="not a run folder"):
        export(tmp_path / "typo")


def test_a_parroting_policy_explored_for_real_leaves_no_trace(tmp_path: Path) -> None:
    """Explore, reflect, rewind and export with a policy that repeats what it was told in its action."""
    secret = "Zebra walking beats quietly humming tune numbers."

    def reply(messages: list[Any], seed: int | None) -> str:
        last = messages[-1].text
        if "JSON" in last:
            return json.dumps({"step": 0, "experience": secret})
        move = ("up", "down", "left", "right")[(seed or 0) % 4]
        parrots = secret in last and (seed or 0) % 3
        return f"Remember: {last.rpartition('attempt: ')[2]}\nAction: {move}" if parrots else move

    run = explore(
        ScriptedModel(reply=reply),
        lambda: GridWorld(size=3, pits=1, max_steps=10),
        grid_tasks(5),
        out=tmp_path,
        limits=Limits(max_branches=8, stop_on_success=False),
        max_turns=10,
    )
    assert isinstance(run, RunFolder)
    summary = export(run)
    told = [t for b in run.branches if b["experience"] and b["end"] == "success" for t in b["turns"]]
    assert any(secret in t["message"]["content"] for t in told), "the policy did parrot"
    assert summary.leaked > 0 and summary.counterfactual > 0
    assert "zebra" not in (tmp_path / "examples" / "examples.jsonl").read_text().lower()


def test_large_exports_are_in_several_files(tmp_path: Path) -> None:
    """The same rows in the same order as in one pair of files, for whatever reads the folder; no part is left over."""
    datasets = pytest.importorskip("datasets", reason='pip install ".[train]"')
    other: Any = {"task": {"id": "u", "instruction": "Go on."}}
    run = run_folder(tmp_path / "run", [*lost_and_recovered(), *(each | other for each in lost_and_recovered())])
    out = tmp_path / "run" / "examples"
    export(run, balance="tasks")
    (row, *_) = whole = [each.example for each in read_examples([out])]
    several = export(run, balance="tasks", shard_bytes=2 * len(json.dumps(row)))
    assert [name for name in several.files if "00001-of" in name] == [
        f"examples-00001-of-0000{(len(several.files) - 1) // 2}.{kind}" for kind in ("jsonl", "parquet")
    ]
    assert sorted(several.files) == sorted(file.name for file in out.iterdir())
    assert [each.example for each in read_examples([out])] == whole
    cache = str(tmp_path / "cache")
    table = [dict.fromkeys(Example.__annotations__) | dict(row) for row in whole]
    assert datasets.load_dataset(str(out), split="train", cache_dir=cache).to_list() == table
    assert list(datasets.load_dataset(str(out), split="train", streaming=True)) == table
    (out / several.files[0]).unlink()
    with pytest.raises(ConfigError, match=r"examples-00000-of-\d+\.jsonl is missing: an export was killed"):
        read_examples([out])
    assert export(run).files == ["examples.jsonl", "examples.parquet", "README.md"]
    assert sorted(file.name for file in out.iterdir()) == ["README.md", "examples.jsonl", "examples.parquet"]


def test_an_export_that_is_killed_is_read_by_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where some of its files are in their places, no reader of the folder takes them for all; the next mends it."""
    datasets = pytest.importorskip("datasets", reason='pip install ".[train]"')
    run, out = run_folder(tmp_path / "run", lost_and_recovered()), tmp_path / "run" / "examples"
    export(run)
    places, placed = row_files.replace_file, []

    def killed(file: Path, write: Any) -> None:
        if len(placed) == 6:
            raise KeyboardInterrupt
        placed.append(places(file, write))  # type: ignore[func-returns-value]

    monkeypatch.setattr(row_files, "replace_file", killed)
    with pytest.raises(KeyboardInterrupt):
        export(run, shard_bytes=1)
    monkeypatch.undo()
    assert len([*out.glob("examples-*.parquet")]) == 2
    for how in ({}, {"streaming": True}):
        with pytest.raises(FileNotFoundError):
            datasets.load_dataset(str(out), split="train", cache_dir=str(tmp_path / "cache"), **how)
    assert export(run, shard_bytes=1).rehearsal == 3
    assert len(datasets.load_dataset(str(out), split="train", cache_dir=str(tmp_path / "cache"))) == 4


def test_what_killed_exports_left_is_removed(tmp_path: Path) -> None:
    """By the next one; what a process that lives is about to write stays."""
    run, out = run_folder(tmp_path / "run", lost_and_recovered()), tmp_path / "run" / "examples"
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    for owner in (dead.pid, os.getppid()):
        (out / f".rows-{owner}-abc").mkdir(parents=True)
        (out / f".rows-{owner}-abc" / "0.jsonl").write_text("{}")
        (out / f".examples.jsonl.{owner}.tmp").write_text("{}")
    left = {file.name for file in out.iterdir() if str(os.getppid()) in file.name}
    summary = export(run)
    assert {file.name for file in out.iterdir()} == {*summary.files, *left} and len(left) == 2


def test_an_export_that_fails_leaves_the_one_before(tmp_path: Path) -> None:
    """As where its rows are refused when most of them are made."""
    run = run_folder(tmp_path, lost_and_recovered())
    export(run)
    before = {file.name: file.read_bytes() for file in (tmp_path / "examples").iterdir()}
    with pytest.raises(ConfigError, match="no decision is 'model''s"):
        export(run, nodes=["model"])
    assert {file.name: file.read_bytes() for file in (tmp_path / "examples").iterdir()} == before


def test_the_size_of_a_file_of_rows_is_in_bytes(tmp_path: Path) -> None:
    """Also of texts whose letters take three each."""
    long: Any = {"task": {"id": "t", "instruction": "雪" * 10_000}}
    export(run_folder(tmp_path / "run", [each | long for each in lost_and_recovered()]), shard_bytes=20_000)
    files = sorted((tmp_path / "run" / "examples").glob("*.jsonl"))
    assert len(files) > 1 and all(len(file.read_text().splitlines()) == 1 for file in files)


def test_a_first_export_that_fails_leaves_nothing(tmp_path: Path) -> None:
    """So the run is still one that has not been exported."""
    run = run_folder(tmp_path, lost_and_recovered())
    with pytest.raises(ConfigError, match="no decision is 'model''s"):
        export(run, nodes=["model"])
    with pytest.raises(ConfigError, match="is a run without example rows: leafe export"):
        read_examples([tmp_path])
