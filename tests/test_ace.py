"""ACE: a playbook that never has more tokens than it may, how it is written from a run, and who is shown it."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_rounds import Phases, phases
from test_rounds import config as rounds_config
from trees import branch, run_folder, turn

from leafe_graph.agent.context import Context
from leafe_graph.budget import no_cost
from leafe_graph.env.pool import EnvPool
from leafe_graph.errors import RunFolderError
from leafe_graph.exploration.curating import Curated, counter, curate
from leafe_graph.exploration.playbook import Playbook, with_playbook, without_playbook
from leafe_graph.method_settings import Curating
from leafe_graph.methods import ace
from leafe_graph.phases.config import EvalConfig, ExploreConfig
from leafe_graph.phases.resolve import resolve
from leafe_graph.rounds import run
from leafe_graph.testing import GridWorld, ScriptedModel

__all__ = ["phases"]  # a fixture


def words(text: str) -> int:
    """A token a word."""
    return len(text.split())


def playbook(text: str = "", max_tokens: int = 100) -> Playbook:
    """Whose tokens are words."""
    return Playbook(text, count=words, max_tokens=max_tokens)


@given(
    moves=st.lists(
        st.tuples(st.text("abc \n", max_size=60), st.integers(1, 12), st.booleans())
        | st.tuples(st.none(), st.integers(1, 12), st.booleans()),
        max_size=25,
    ),
    most=st.integers(0, 60),
)
def test_no_playbook_outgrows_its_cap(moves: list[Any], most: int) -> None:
    """Whatever is added and tagged in whatever order; nor one that is read where less is allowed."""
    book = Playbook("", count=len, max_tokens=2 * most)
    for text, number, helpful in moves:
        book.tag(f"b{number}", helpful=helpful) if text is None else book.add("rules", text)
        assert book.tokens == len(str(book)) <= 2 * most
    assert Playbook(str(book), count=len, max_tokens=most).tokens <= most


def test_a_playbook_is_its_text() -> None:
    """Read again it is the same, and goes on numbering."""
    book = playbook()
    assert str(book) == "" and book.tokens == 0
    book.add("Pits", "Look down\nbefore you  walk.")
    book.add("Walls", "A wall blocks.")
    book.add("Pits", "Pits end it all.")
    book.tag("b1", helpful=True), book.tag("b1", helpful=False), book.tag("b3", helpful=True)
    assert str(book).splitlines()[1:] == [
        "## Pits",
        "[b1] (helpful 1, harmful 1) Look down before you walk.",
        "[b3] (helpful 1, harmful 0) Pits end it all.",
        "## Walls",
        "[b2] (helpful 0, harmful 0) A wall blocks.",
    ]
    again = playbook(str(book))
    assert str(again) == str(book) and again.add("Walls", "Go round it, by the left.") == "added"
    assert again.bullets[-1].id == "b4" and not again.tag("b9", helpful=True)


def test_what_is_there_is_not_added_and_what_helped_least_goes_first() -> None:
    """Of equals the oldest. A bullet that is too long by itself pushes nothing out."""
    book = playbook(max_tokens=33)  # seven of its head, two of a section, five and two of a bullet
    for text in ("walk up", "dig in", "run far"):
        assert book.add("rules", text) == "added"
    assert book.add("other", "Walk  UP") == "known" and book.tokens == 7 + 2 + 3 * 7
    book.tag("b1", helpful=True), book.tag("b2", helpful=False)
    assert book.add("rules", "sit still") == "added"
    assert [bullet.id for bullet in book.bullets] == ["b1", "b3", "b4"]
    assert book.add("rules", "leap over") == "added"
    assert [bullet.id for bullet in book.bullets] == ["b1", "b4", "b5"]
    assert book.add("rules", "many " * 30) == "too long" and len(book.bullets) == 3
    assert book.add("rules", " ") == "too long"


def test_tasks_are_told_a_playbook_behind_their_instruction() -> None:
    """And can be told apart from it again; an empty one is none."""
    task: Any = {"id": "t", "instruction": "Walk."}
    told = with_playbook(task, "The playbook")
    assert (
        told == {"id": "t", "instruction": "Walk.\n\nThe playbook"}
        and without_playbook(told, "The playbook") == "Walk."
    )
    assert with_playbook(task, " \n") == task and with_playbook({**task, "instruction": ""}, "P")["instruction"] == "P"


# ---- how it is written

BEFORE = "Playbook\n## Pits\n[b1] (helpful 0, harmful 0) Walk right."


def reply(messages: list[Any], seed: int | None) -> str:
    """A reflector and a curator in one."""
    text = messages[-1].text
    if 'Answer with JSON: {"insight"' in text:
        if "task u" in text:
            return "I do not know."
        return 'So: {"insight": "Right was wrong.", "bullets": {"b1": "harmful", "b7": "helpful", "b2": 3}}'
    new = {"add": [{"section": "Pits", "text": "walk RIGHT."}, {"text": "Walk down first."}, {"section": "x"}, 3]}
    return f"```json\n{json.dumps(new)}\n```"


def context(model: ScriptedModel) -> Context:
    """Whose policy reflects and curates."""
    return Context(policy=model, reflector=model, envs=EnvPool(GridWorld))


def two_tasks(folder: Path) -> Path:
    """One that failed and then succeeded, told a playbook, and one that failed."""
    lost = branch("0", [turn("start", "right")], "failure", instruction=f"Reach it.\n\n{BEFORE}")
    won = branch("1", [turn("start", "down")], "success", parent="0", instruction=f"Reach it.\n\n{BEFORE}")
    other = branch("0", [turn("s", "up")], "max_turns", task="u", instruction="task u")
    broken = branch("0", [], "env_error", task="v")
    run_folder(folder, [lost, won, other, broken], tasks=["u", "t", "v", "w"])
    return folder


def test_a_playbook_is_written_task_by_task(tmp_path: Path) -> None:
    """By hand: one bullet is known, one new; one tag names a bullet that is there; one answer of three is no JSON."""
    asked: list[str] = []

    def noted(messages: list[Any], seed: int | None) -> str:
        asked.append(messages[-1].text)
        return reply(messages, seed)

    out = tmp_path / "round-1" / "playbook.txt"  # a bench plays a first round elsewhere: nobody made its folder
    given: Any = (two_tasks(tmp_path / "run"), BEFORE, context(ScriptedModel(reply=noted)), Curating())
    found = curate(*given, out)
    assert out.read_text().splitlines()[1:] == [
        "## Pits",
        "[b1] (helpful 0, harmful 1) Walk right.",
        "## General",
        "[b2] (helpful 0, harmful 0) Walk down first.",
    ]
    told = {name: value for name, value in vars(found).items() if name != "cost"}
    tokens = len(out.read_bytes())  # the scripted model does not count: a token a byte
    assert told == {
        "tasks": 2, "added": 1, "known": 1, "too_long": 0, "tags": 1, "unparsed": 1, "bullets": 2, "tokens": tokens
    }  # fmt: skip
    assert (found.cost["model_calls"], found.cost["reflections"], found.cost["env_steps"]) == (3, 2, 0)
    second = asked[1]
    assert "The task:\nReach it.\n" in second and "It succeeded." in second and BEFORE in second
    trace = ["Attempt 1, which failed:", "0. right -> moved", "", "Attempt 2, which succeeded:", "0. down -> moved"]
    assert "\n".join(trace) in second
    assert "An insight from its latest work:\nRight was wrong." in asked[2]

    written, log, lines = out.read_text(), out.with_suffix(".jsonl"), out.with_suffix(".jsonl").read_bytes()
    out.unlink()
    assert curate(*given, out) == found and len(asked) == 3  # as after a kill: nobody is asked again
    log.write_bytes(lines[:-9])
    assert curate(*given, out).cost["model_calls"] == 3 and len(asked) == 5
    assert out.read_text() == written and [json.loads(line)["task"] for line in log.read_text().splitlines()] == [
        "u",
        "t",
    ]
    log.write_text("[]\n")
    with pytest.raises(RunFolderError, match="none of a curation"):
        curate(*given, out)


def test_a_cap_holds_from_the_first_task_on(tmp_path: Path) -> None:
    """A playbook that is too long for it is cut before anything is added."""
    out = tmp_path / "playbook.txt"
    found = curate(
        two_tasks(tmp_path / "run"), BEFORE, context(ScriptedModel(reply=reply)), Curating(max_tokens=110), out
    )
    assert found.tokens == len(out.read_bytes()) <= 110 and found.bullets == 1


def test_tokens_are_counted_as_the_policy_does() -> None:
    """Where it can."""

    class Counting(ScriptedModel):
        def count_prompt_tokens(self, messages: list[Any]) -> int:
            return 7 + sum(words(message.text) for message in messages)

    assert counter(Counting(reply=["a"]))("one two") == 9 and counter(ScriptedModel(reply=["a"]))("one é") == 6


# ---- who is shown it


def test_the_policy_is_shown_its_playbook(tmp_path: Path) -> None:
    """Behind each task's instruction, wherever it plays."""
    file = tmp_path / "playbook.txt"
    file.write_text(BEFORE)
    plain: Any = {"model": "local:smollm2-135m", "tasks": 2, "out": tmp_path / "run"}
    for kind in (ExploreConfig, EvalConfig):
        told = resolve(kind(**plain, playbook=file)).tasks
        untold = resolve(kind(**plain)).tasks
        assert [task["instruction"] for task in told] == [f"{task['instruction']}\n\n{BEFORE}" for task in untold]


def test_each_round_plays_and_is_judged_with_the_playbook_so_far(
    phases: Phases, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which the round after goes on from; the weights stay as they are."""
    told: list[Path | None] = []

    def curated(config: ExploreConfig, run: Path, settings: Curating, out: Path) -> Curated:
        told.append(config.playbook)
        out.write_text(f"{len(told)}")
        return Curated(tasks=3, cost=no_cost() | {"model_calls": 6})  # type: ignore[arg-type]

    monkeypatch.setattr(ace, "run_curate", curated)
    end = run(rounds_config(out="o", method="ace", rounds=2))
    first, second = (Path(f"o/round-{n}/playbook.txt") for n in (1, 2))
    explored, judged = phases.of(ExploreConfig), phases.of(EvalConfig)
    assert [each.playbook for each in explored] == [None, first] == told
    assert [each.playbook for each in judged] == [None, first, second]
    assert {each.adapter for each in (*explored, *judged)} == {Path("warm")}
    assert {(each.strategy, each.max_branches) for each in explored} == {("refine", 3)}  # the file says 3
    assert end["playbook"] == str(second) and end["rounds"][1]["spent"]["curate"]["model_calls"] == 6
