"""Early Experience: what is tried at the states of successes, the rows and losses of that, and the two methods."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
from rows import row, write
from test_losses import answer, config, first, log_probs, model, tokenized, tokenizer
from test_rounds import Phases, phases
from test_rounds import config as rounds_config
from trees import branch, run_folder, turn

from leafe_graph.agent.context import Context
from leafe_graph.budget import no_cost
from leafe_graph.dataset.export import export
from leafe_graph.env.pool import EnvPool
from leafe_graph.errors import ConfigError, RunFolderError
from leafe_graph.exploration.probing import Probed, probe
from leafe_graph.finetune import TrainConfig
from leafe_graph.method_settings import Probing
from leafe_graph.methods import distilled, early_experience
from leafe_graph.phases.config import ExploreConfig, ExportConfig
from leafe_graph.phases.explore import run_explore
from leafe_graph.prompts import Prompts
from leafe_graph.rounds import run
from leafe_graph.settings import Play
from leafe_graph.testing import GridWorld, ScriptedModel, SnapshotGridWorld
from leafe_graph.tree.probes import Probes
from leafe_graph.tree.run_folder import RunFolder
from leafe_graph.types import Branch

__all__ = ["config", "model", "phases", "tokenizer"]  # fixtures

OPTIONS = {"size": 3, "start": [0, 0], "goal": [2, 0], "pits": [[0, 1]]}
WHERE = "; you are at {},{}; the goal is at 2,0"
START, NEXT = "you are at 0,0; the goal is at 2,0", "moved" + WHERE.format(1, 0)
MOVED = {
    "up": "blocked by wall" + WHERE.format(0, 0),
    "down": "fell into a pit" + WHERE.format(0, 1),
    "left": "blocked by wall" + WHERE.format(0, 0),
}
"""What is seen after each other action than right, from the start."""


def success(name: str = "0", *actions: str, task: str = "t") -> Branch:
    """To the goal by these actions: right, right."""
    seen = [START, NEXT, "x"]
    turns = [turn(at, action) for at, action in zip(seen, actions or ("right", "right"), strict=False)]
    won = branch(name, turns, "success", task=task)
    won["task"]["options"] = OPTIONS
    return won


def context(reply: Any = "right", **play: Any) -> Context:
    """Of a policy that says this."""
    scripted = ScriptedModel(reply=reply if callable(reply) else [reply])
    return Context(policy=scripted, reflector=scripted, envs=EnvPool(GridWorld), play=Play(**play))


def probed(folder: Path, make: Callable[[], Any] = SnapshotGridWorld, reply: Any = "right", **settings: Any) -> Probed:
    """The run of one success, probed."""
    run = folder / "run"
    found = RunFolder(run) if run.exists() else run_folder(run, [success()])
    given = Probing(**{"alternatives": 3, **settings})
    return probe(found, make, context(reply), given, run / "probes.jsonl")


def test_all_other_actions_are_tried_at_each_state(tmp_path: Path) -> None:
    """What they lead to is what is seen by hand; three at two states are six steps, and the walk takes two."""
    found = probed(tmp_path)
    first, second = Probes(tmp_path / "run/probes.jsonl")["t"]
    assert {each["action"]: each["observation"] for each in first["others"]} == MOVED
    assert first["taken"] == {"action": "right", "observation": NEXT, "valid": True}
    assert second["taken"]["observation"] == "reached the goal" + WHERE.format(2, 0)
    assert {each["action"]: each["valid"] for each in second["others"]} == {"up": False, "down": True, "left": True}
    assert (found.states, found.trials, found.unlike, found.unbegun) == (2, 6, 0, 0)
    assert found.cost == no_cost() | {"env_steps": 6, "replayed_steps": 2} and found.spared_steps == 3


def test_without_snapshots_the_same_is_found_by_replaying(tmp_path: Path) -> None:
    """At the second state each of the three trials plays the step before it again."""
    probed(tmp_path / "with")
    found = probed(tmp_path / "without", GridWorld)
    with_, without = (Probes(tmp_path / name / "run/probes.jsonl")["t"] for name in ("with", "without"))
    assert with_ == without
    assert found.cost == no_cost() | {"env_steps": 6, "replayed_steps": 2 + 3} and found.spared_steps == 0


class Watched(SnapshotGridWorld):
    """Notes the state in which each step is taken."""

    seen: ClassVar[list[tuple[bytes, str]]] = []

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Step, and say where."""
        self.seen.append((self.snapshot(), action))
        return super().step(action)


class Forgetful(Watched):
    """Does not come back."""

    def restore(self, state: bytes) -> None:
        """Stay."""


def test_trials_leave_the_world_as_it_was(tmp_path: Path) -> None:
    """All trials of a state, and the path's own action after them, are taken in the same state."""
    Watched.seen = []
    probed(tmp_path, Watched)
    states = [state for state, _ in Watched.seen]
    assert states[:4] == [states[0]] * 4 and states[4:] == [states[4]] * 4 and states[0] != states[4]
    assert [action for _, action in Watched.seen][3::4] == ["right", "right"]


def test_a_world_that_does_not_come_back_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Its path is given up where it shows something else than was recorded."""
    found = probed(tmp_path, Forgetful)
    assert found.unlike == 1 and "given up" in caplog.text


def test_a_state_is_probed_once_for_a_task(tmp_path: Path) -> None:
    """Also where two successes go through it."""
    run_folder(tmp_path / "run", [success(), success("1")])
    found = probed(tmp_path)
    assert (found.states, found.cost["env_steps"], found.cost["replayed_steps"]) == (2, 6, 4)


def test_the_policy_may_propose(tmp_path: Path) -> None:
    """What is taken anyway is no other action, and what is not admissible is replaced by a draw."""
    found = probed(tmp_path, reply="right", propose="policy")
    assert found.trials == 0 and found.cost["model_calls"] == 6
    found = probed(tmp_path / "b", reply="fly", propose="policy", alternatives=2)
    others = [each["action"] for each in Probes(tmp_path / "b/run/probes.jsonl")["t"][0]["others"]]
    assert len({*others}) == 2 and {*others} < {"up", "down", "left"} and found.trials == 4


def test_the_budget_admits_whole_paths(tmp_path: Path) -> None:
    """As if each took all that it may: a path of two states and three alternatives wants six steps."""
    run_folder(tmp_path / "run", [success(), success(task="u")])
    found = probed(tmp_path, env_steps=11)
    assert (found.states, found.unbegun, found.cost["env_steps"]) == (2, 1, 6)


def test_a_killed_probing_goes_on(tmp_path: Path) -> None:
    """A torn last line is dropped and its task probed again; other settings are refused, and lines of others' files."""
    run_folder(tmp_path / "run", [success(), success(task="u")])
    whole, file = probed(tmp_path), tmp_path / "run/probes.jsonl"
    text = file.read_bytes()
    file.write_bytes(text[:-40])
    assert len(Probes(file)) == 1
    assert probed(tmp_path) == whole
    assert sorted(file.read_bytes().splitlines()) == sorted(text.splitlines())
    with pytest.raises(ConfigError, match="alternatives: 3 there, 2 now"):
        probed(tmp_path, alternatives=2)
    file.write_text("{}\n")
    with pytest.raises(RunFolderError, match="line 1 is no line of probes"):
        probed(tmp_path)


THOUGHT = "The goal is to my right, and a pit may be below."


def reflecting(messages: list[Any], seed: int | None) -> str:
    """Thoughts where they are asked for; at the second state they speak of an expert."""
    asked = messages[-1].text
    if "It led to" not in asked:
        return "down"
    return "The expert goes right." if asked.startswith("moved") else THOUGHT


def test_rows_are_the_probes_in_the_prompts_of_the_run(tmp_path: Path) -> None:
    """Each action with what is seen after it; and the action taken after thoughts that end in it and name no expert."""
    run_folder(tmp_path / "run", [success()])
    probed(tmp_path, reply=reflecting, reflect=True)
    summary = export(tmp_path / "run", kinds=["rehearsal", "world_model", "self_reflection"], skip_invalid=True)
    assert (summary.rehearsal, summary.world_model, summary.self_reflection, summary.unfit) == (2, 8, 1, 1)
    rows = [json.loads(line) for line in (tmp_path / "run/examples/examples.jsonl").read_text().splitlines()]
    (reflection,) = [row for row in rows if row["kind"] == "self_reflection"]
    system = {"role": "system", "content": "Reach the goal."}
    assert reflection["prompt"] == [system, {"role": "user", "content": START}]
    assert reflection["completion"] == answer(f"{THOUGHT}\n\nAction: right")
    start = [row for row in rows if row["kind"] == "world_model" and row["decision_point"] == 0]
    assert {row["prompt"][-1]["content"]: row["completion"][0]["content"] for row in start} == {
        f"{START}\n\nAction: {action}\n\nWhat is seen next?": seen for action, seen in (MOVED | {"right": NEXT}).items()
    }
    later = next(row for row in rows if row["kind"] == "world_model" and row["decision_point"] == 1)
    assert later["prompt"][:3] == [
        system,
        {"role": "user", "content": START},
        {"role": "assistant", "content": "right"},
    ]
    assert later["prompt"][3]["content"].startswith(NEXT)


def test_rows_of_probes_need_probes(tmp_path: Path) -> None:
    """Which the error names."""
    run_folder(tmp_path / "run", [success()])
    with pytest.raises(ConfigError, match=r"probes.jsonl is not there, which rows of the kind world_model are made of"):
        export(tmp_path / "run", kinds=["world_model"])


@pytest.mark.parametrize(
    ("thought", "fits"),
    [("I go.", True), ("First: Action: up", True), ("a b c d e f g h i j " * 12, False), ("An Expert goes.", False)],
)
def test_thoughts_that_would_teach_wrongly_are_left_out(tmp_path: Path, thought: str, fits: bool) -> None:
    """Those that say themselves twice, and those of an expert; the last announced action counts."""
    run_folder(tmp_path / "run", [success()])
    probed(tmp_path, reply=lambda messages, seed: thought, reflect=True)
    summary = export(tmp_path / "run", kinds=["self_reflection"])
    assert (summary.self_reflection, summary.unfit) == ((2, 0) if fits else (0, 2))


def test_thoughts_from_which_another_action_is_read_are_left_out(tmp_path: Path) -> None:
    """As where the prompts read the first word."""
    run_folder(tmp_path / "run", [success()])
    probed(tmp_path, reply=reflecting, reflect=True)
    first_word = Prompts(action=lambda message: message["content"].split()[0])
    assert export(tmp_path / "run", kinds=["self_reflection"], prompts=first_word).unfit == 2


# ---- losses


def test_both_losses_are_plain_means(config: TrainConfig, model: Any, tokenizer: Any, tmp_path: Path) -> None:
    """Of -log p over the rows that each takes."""
    rows = [
        row("a b", "c d e", kind="world_model"),
        row("f", "up down", kind="self_reflection"),
        row("g h", "left"),
        row("i", "right", kind="world_model", weight=0.5),
    ]
    told = tokenized(tmp_path, tokenizer, rows)
    nll = [-log_probs(model, r.prompt_ids, r.completion_ids).sum().item() for r in told]
    line = first(config, rows, "world_model")
    assert line["loss"] == line["l_iwm"] == pytest.approx((nll[0] + 0.5 * nll[3]) / 2, abs=1e-4)
    line = first(config, rows, "self_reflection")
    assert line["loss"] == pytest.approx((nll[1] + nll[2]) / 2, abs=1e-4)
    assert (line["l_sr"], line["l_il"]) == (pytest.approx(nll[1], abs=1e-4), pytest.approx(nll[2], abs=1e-4))
    write(config.data[0], rows)
    with pytest.raises(ConfigError, match='objective="world_model"'):
        first(config, rows, "leafe")


# ---- methods


BATCHES = {"train.batch_size": 10, "train.epochs": 2}


def method(phases: Phases, monkeypatch: pytest.MonkeyPatch, name: str, **changes: Any) -> list[TrainConfig]:
    """One round of the method; its trainings."""
    found = Probed(states=5, trials=9, unlike=0, unbegun=0, spared_steps=0, cost=no_cost() | {"env_steps": 9})  # type: ignore[arg-type]
    monkeypatch.setattr(early_experience, "run_probe", lambda *given: found)
    plain = phases.export

    def export(config: ExportConfig) -> Any:
        return plain(config).model_copy(update={"world_model": 900})

    monkeypatch.setattr(distilled, "run_export", export)
    phases.rows = [100]
    told = run(rounds_config(out="o", method=name, rounds=1, **BATCHES, **changes))
    assert told["rounds"][1]["spent"]["probe"]["env_steps"] == 9
    return phases.of(TrainConfig)


def test_both_stages_take_the_updates_of_imitation(phases: Phases, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two epochs of a hundred rows in tens are twenty: the model of the world has half, then its weights imitate."""
    world, imitation = method(phases, monkeypatch, "early_experience")
    assert (world.objective, world.max_steps, world.adapter) == ("world_model", 10, Path("warm"))
    assert (imitation.objective, imitation.max_steps, imitation.adapter) == ("rejection", 10, Path("o/round-1/world"))
    (export,) = phases.of(ExportConfig)
    assert export.kinds == ["rehearsal", "world_model"] and export.probes == Path("o/round-1/probes.jsonl")


def test_reflections_are_mixed_in_at_the_same_updates(phases: Phases, monkeypatch: pytest.MonkeyPatch) -> None:
    """One training, on both kinds of rows."""
    (only,) = method(phases, monkeypatch, "self_reflection")
    assert (only.objective, only.max_steps, only.adapter) == ("self_reflection", 20, Path("warm"))


def test_probing_is_set_aside_from_exploring(phases: Phases, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of an env_steps for all; which has to be said, and to leave something."""
    method(phases, monkeypatch, "early_experience", env_steps=100, **{"probe.env_steps": 40})
    (explored,) = phases.of(ExploreConfig)
    assert explored.total_env_steps == 60
    with pytest.raises(ConfigError, match=r"say probe\.env_steps"):
        rounds_config(out="p", method="early_experience", env_steps=100)
    with pytest.raises(ConfigError, match="leaves too few"):
        rounds_config(out="p", method="early_experience", env_steps=100, **{"probe.env_steps": 100})


def test_what_was_probed_is_spent(phases: Phases, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nine steps of a hundred: with forty set aside again, a second round has too few left for a task of sixty."""
    settings = {"env_steps": 100, "probe.env_steps": 40, "explore.env_steps": 60}
    method(phases, monkeypatch, "early_experience", **settings)
    told = run(rounds_config(out="o", method="early_experience", rounds=3, **BATCHES, **settings))
    assert told["stopped"] == "The budget of 100 environment steps is spent but for 91"


def test_an_experts_play_is_a_run(tmp_path: Path) -> None:
    """Of which rows are made; the same call finds it, and a budget of steps ends it before a plan that does not fit."""
    given = {"model": "local:smollm2-135m", "expert": True, "tasks": 3, "out": tmp_path / "run"}
    played = run_explore(ExploreConfig(**given))
    assert played.solved == {*played.trees} and len(played.outlines) == 3
    assert len(run_explore(ExploreConfig(**given)).outlines) == 3
    assert export(tmp_path / "run", kinds=["rehearsal"]).rehearsal == played.cost["env_steps"]
    steps = played.cost["env_steps"] - 1
    less = run_explore(ExploreConfig(**given | {"out": tmp_path / "less", "total_env_steps": steps}))
    assert len(less.outlines) == 2 and less.settings.strategy == "expert"
