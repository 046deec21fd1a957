"""Each setting stands once: flags, files, config.json and keywords follow; what a run kept is what is used later."""

import inspect
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import Field
from trees import branch, run_folder, turn

from leafe_graph import Budget, Limits, aexplore, create_leafe_agent, create_leafe_graph, explore, export
from leafe_graph.cli import main
from leafe_graph.cli.phases import Explore
from leafe_graph.errors import ConfigError, RunFolderError
from leafe_graph.phases import EvalConfig, ExploreConfig
from leafe_graph.prompts import Prompts
from leafe_graph.rounds import RunConfig
from leafe_graph.settings import Acting, Live, Pace, Play, Settings, marked, takes
from leafe_graph.testing import GridWorld, ScriptedModel, grid_tasks
from leafe_graph.tree import RunFolder, RunSettings
from leafe_graph.types import Message, Task


@dataclass(frozen=True, kw_only=True)
class Polite(Prompts):
    """Says something more in every prompt."""

    hint: str = "Thank you."

    def act_messages(self, task: Task, turns: Any, observation: str, **how: Any) -> list[Message]:
        """The hint follows the observation."""
        return super().act_messages(task, turns, f"{observation} {self.hint}", **how)


NOW = Polite(hint="Now.")
SENTENCE = "Somebody who was here before you has left this note: {experience}"


# ---- one definition


def test_every_setting_of_play_is_a_flag_a_key_and_a_keyword() -> None:
    """What is added to `Play` is everywhere at once, with its default."""
    for model in (Explore, ExploreConfig, RunSettings):
        assert Play.model_fields.keys() <= model.model_fields.keys()
    assert Acting.model_fields.keys() <= RunConfig.model_fields.keys() & EvalConfig.model_fields.keys()
    for function in (explore, aexplore, create_leafe_graph, create_leafe_agent):
        parameters = inspect.signature(function).parameters
        for name, field in Play.model_fields.items():
            if name != "seed":  # an agent draws afresh, a run does not
                assert parameters[name].default == field.default, name
    assert {f"total_{name}" for name in Budget.model_fields} <= ExploreConfig.model_fields.keys()


def test_flags_bounds_and_meaning_are_the_fields() -> None:
    """Of a field that another model inherits nothing is said again."""
    for name, field in (Play.model_fields | Limits.model_fields).items():
        told = ExploreConfig.model_fields[name]
        assert field.description and (told.description, told.metadata) == (field.description, field.metadata), name


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"max_turns": 0}, "max_turns=0; expected 1 or more"),
        ({"timeout": 0}, "timeout=0; expected more than 0"),
        ({"history": -1}, "history=-1; expected 0 or more"),
        ({"on_divergence": "ignore"}, "on_divergence='ignore'; expected one of 'end', 'raise' or 'accept'"),
        ({"concurrency": 0}, "concurrency=0; expected 1 or more"),
    ],
)
def test_a_wrong_value_is_told_in_one_line(wrong: dict[str, Any], says: str, tmp_path: Path) -> None:
    """What was seen and what was expected; nothing is made."""
    with pytest.raises(ConfigError) as caught:
        explore(ScriptedModel(reply=["up"]), GridWorld, grid_tasks(1), out=tmp_path / "run", **wrong)
    assert str(caught.value) == says
    assert not (tmp_path / "run").exists()
    with pytest.raises(ConfigError, match="max_branches=0; expected 1 or more"):
        Limits(max_branches=0)


class Painting(Settings):
    """What `paint` is called with."""

    wall: Live[list[str]] = Field(kw_only=False)
    """Gets the colours."""
    coats: Annotated[int, Pace] = Field(default=1, ge=1)
    """How many."""


@takes(Painting)
def paint(given: Painting) -> list[str]:
    """Paint a wall."""
    given.wall.append(str(given.coats))
    return given.wall


def test_a_function_of_settings_has_their_signature() -> None:
    """Python's own words for a call that does not fit it; live arguments are handed on as they are."""
    wall: list[str] = []
    assert paint(wall, coats=2) is wall and paint(wall=wall) == ["2", "1"]
    assert str(inspect.signature(paint)) == "(wall: list[str], *, coats: int = 1) -> list[str]"
    assert inspect.getdoc(paint) == "Paint a wall.\n\nArgs:\n    wall: Gets the colours.\n    coats: How many."
    calls: list[Any] = [
        (lambda: paint(wall, coat=2), "got an unexpected keyword argument 'coat'"),  # type: ignore[call-arg]
        (lambda: paint(), "missing a required argument: 'wall'"),  # type: ignore[call-arg]
        (lambda: paint(wall, 2), "too many positional arguments"),  # type: ignore[call-arg,misc]
        (lambda: paint(wall, wall=wall), "multiple values for argument 'wall'"),  # type: ignore[misc]
    ]
    for call, says in calls:
        with pytest.raises(TypeError, match=says):
            call()
    with pytest.raises(ConfigError, match="coats=0; expected 1 or more"):
        paint(wall, coats=0)
    assert marked(Painting, Pace) == {"coats"}


# ---- what a run keeps


def test_a_run_keeps_its_settings_and_may_go_on_at_another_pace(tmp_path: Path) -> None:
    """Everything that decides branches is compared; what decides speed is not even written."""

    def run(**how: Any) -> RunFolder:
        model = ScriptedModel(reply=["up"])
        return explore(model, GridWorld, grid_tasks(1), out=tmp_path, strategy="independent", max_turns=2, **how)

    kept = run(tries=2, concurrency=3).settings
    assert (kept.max_turns, kept.strategy, kept.limits, kept.tasks) == (2, "independent", Limits(), ["grid-000000"])
    assert not marked(RunSettings, Pace) & json.loads((tmp_path / "config.json").read_text())["settings"].keys()
    run(timeout=5.0, tries=1, concurrency=1)
    with pytest.raises(ConfigError, match="history: None there, 3 now"):
        run(history=3)


def test_settings_that_are_not_understood_are_refused(tmp_path: Path) -> None:
    """With the field, and what to do."""
    run = run_folder(tmp_path, [], limits={"max_branches": "many"})
    with pytest.raises(RunFolderError, match=r"limits\.max_branches.*use the release that wrote them"):
        _ = run.settings
    assert run_folder(tmp_path, [], max_turns=7).settings.max_turns == 7


def test_rows_are_rendered_and_checked_with_the_texts_that_were_played(tmp_path: Path) -> None:
    """The sentence that carried an experience is a leak, also where the caller of `export` does not know it."""
    said = "somebody who was here before you has left: down"
    lost = branch("0", [turn("start", "right")], "failure")
    won = branch("1", [turn("start", said)], "success", parent="0", experience="Not right.")
    kept = Prompts(experience=SENTENCE).texts
    assert export(run_folder(tmp_path / "kept", [lost, won], texts=kept)).leaked == 2
    assert export(run_folder(tmp_path / "old", [lost, won])).leaked == 0  # a release that kept no texts


def test_other_texts_than_were_played_are_refused(tmp_path: Path) -> None:
    """Unless they are meant; and then leaks are still looked for in what was played."""
    lost = branch("0", [turn("start", "right")], "failure")
    won = branch(
        "1",
        [turn("start", "here before you has left this note", prompt_token_ids=[1], token_ids=[2])],
        "success",
        parent="0",
        experience="Not right.",
    )
    run = run_folder(tmp_path, [lost, won], texts=Prompts(experience=SENTENCE).texts)
    assert export(run, prompts=Prompts(experience=SENTENCE)).leaked == 2
    with pytest.raises(ConfigError, match=r"played with other texts \(experience\)"):
        export(run, prompts=Prompts())
    assert export(run, prompts=Prompts(), other_texts=True).leaked == 2


def test_a_prompts_class_of_ones_own_is_exported_with_its_texts(tmp_path: Path) -> None:
    """Its further texts are kept too; they are asked for where the caller of `export` has no such class."""
    won = [branch("0", [turn("start", "up")], "success")]
    run = run_folder(tmp_path, won, texts=Polite(hint="Please.").texts)
    assert export(run, prompts=Polite(hint="Please.")).rehearsal == 1
    said = json.loads((tmp_path / "examples" / "examples.jsonl").read_text())["prompt"][-1]["content"]
    assert said == "start Please."
    with pytest.raises(ConfigError, match=r"played with other texts \(hint\)"):
        export(run, prompts=Polite())
    with pytest.raises(ConfigError, match=r"texts that Prompts does not have \(hint\)"):
        export(run)
    assert export(run, prompts=Prompts(), other_texts=True).rehearsal == 1  # it was told to


def test_prompts_that_were_edited_since_are_rendered_as_they_were(tmp_path: Path) -> None:
    """The command line finds them by their name, and takes the texts that the run kept."""
    won = [branch("0", [turn("start", "up")], "success")]
    run_folder(tmp_path, won, texts=Polite(hint="Then.").texts, prompts="test_settings:NOW")
    assert main(["export", str(tmp_path)]) == 0
    assert "start Then." in (tmp_path / "examples" / "examples.jsonl").read_text()
    run_folder(tmp_path / "moved", won, texts=Prompts().texts, prompts="test_settings:GONE")
    assert main(["export", str(tmp_path / "moved")]) == 0


def test_what_was_added_since_had_its_default_then(tmp_path: Path) -> None:
    """A folder of an earlier release goes on, as long as the new setting is not used."""
    out = run_folder(tmp_path, []).folder
    old = RunSettings(tasks=["grid-000000"], max_turns=2, strategy="independent").saved()
    del old["settings"]["on_divergence"], old["settings"]["limits"]["max_roots"]

    def run(**how: Any) -> RunFolder:
        (out / "config.json").write_text(json.dumps(old))
        told = {"model": None, "reflector": None, "texts": {}} | old["settings"]
        with RunFolder(out).open({"kind": "explore", "settings": RunSettings(**told | how).saved()["settings"]}) as run:
            return run

    run()
    with pytest.raises(ConfigError, match=r"settings\.on_divergence: 'end' there, 'accept' now"):
        run(on_divergence="accept")


def test_settings_of_the_callers_own_are_none_of_the_runs(tmp_path: Path) -> None:
    """They are written down, and decide nothing."""
    run = explore(
        ScriptedModel(reply=["up"]), GridWorld, grid_tasks(1), out=tmp_path, max_turns=1, config={"team": "blue"}
    )
    assert run.config["settings"]["team"] == "blue"
    with pytest.raises(ConfigError, match="limits: …}: these are the run's own settings"):
        explore(ScriptedModel(reply=["up"]), GridWorld, grid_tasks(1), out=tmp_path, config={"limits": {}})
