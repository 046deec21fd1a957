"""Trees of branches: the same for every timing, within the budget to the last step, resumed as if nothing happened."""

import asyncio
import importlib
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessage
from langgraph.checkpoint.memory import InMemorySaver
from worlds import (
    LESSON,
    PIT,
    WORLDS,
    Recorder,
    Restless,
    ScriptedLimited,
    actions,
    forest,
    is_reflection,
    pit_reply,
    wandering_reply,
)

from leafe_graph.agent.graph import create_leafe_graph
from leafe_graph.budget import Budget, Ledger
from leafe_graph.checkpoint.sqlite import TreeSaver
from leafe_graph.errors import ConfigError, MissingDependency, RunFolderError
from leafe_graph.exploration.explore import aexplore, explore
from leafe_graph.prompts import Prompts
from leafe_graph.settings import Limits
from leafe_graph.testing import GridWorld, ScriptedModel, SnapshotGridWorld, grid_tasks
from leafe_graph.tree.branches import path
from leafe_graph.tree.run_folder import RunFolder

WANDERER = ScriptedModel(reply=wandering_reply)
SMALL = Limits(max_branches=6, max_depth=2, branches_per_reflection=2)
MIXED = [*(("leafe", world) for world in WORLDS), ("refine", GridWorld), ("independent", SnapshotGridWorld)]
FIELDS = ["env_steps", "replayed_steps", "model_calls", "prompt_tokens", "completion_tokens", "reflections"]


def wander(out: Path, world: Any = GridWorld, *, tasks: int = 8, model: Any = WANDERER, **settings: Any) -> RunFolder:
    """A small run of a policy that wanders about."""
    return explore(model, world, grid_tasks(tasks), out=out, **{"limits": SMALL, "max_turns": 7, **settings})


# ---- what a tree holds


@pytest.mark.parametrize("world", WORLDS)
def test_lost_rollout_is_forked_and_won(world: Any, tmp_path: Path) -> None:
    """The tree holds parent, decision point, experience, own turns, outcome and cost of each branch."""
    run = explore(ScriptedModel(reply=pit_reply), world, [PIT], out=tmp_path, checkpointer="sqlite")
    root, child = run.branches
    assert (root["parent"], root["depth"], root["experience"], root["end"]) == (None, 0, None, "failure")
    assert actions(root) == ["down", "right", "up"]
    assert root["reflection"] == root["reflections"][0]
    assert (child["parent"], child["depth"], child["decision_point"]) == ("0", 1, 2)
    assert (child["experience"], child["end"], child["return_"]) == (LESSON, "success", 1.0)
    assert actions(child) == ["right", "up"]
    assert [turn["action"] for turn in path(run.trees["pit"], "1")] == ["down", "right", "right", "up"]
    assert child["reflections"] == []
    assert child["thread_id"] == root["thread_id"] is not None
    spent = {field: (root["cost"][field], child["cost"][field]) for field in FIELDS}  # type: ignore[literal-required]
    assert spent["env_steps"] == (3, 2)
    assert spent["replayed_steps"] == (0, 2 if world is GridWorld else 0)
    assert spent["model_calls"] == (4, 2)
    assert spent["reflections"] == (1, 0)
    assert all(turn["env_state"] is None for branch in run.branches for turn in branch["turns"])


def test_reflection_in_the_middle_ends_the_branch_as_rewound(tmp_path: Path) -> None:
    """With K=2 the first request comes before the failure, and its fork begins where it asked."""
    blame = ScriptedModel(reply=['{"step": 1, "experience": "go left"}'])
    run = explore(
        ScriptedModel(reply=pit_reply), GridWorld, [PIT], out=tmp_path, reflector=blame, reflect_every=2, max_turns=4
    )
    assert [(b["end"], b["decision_point"], len(b["turns"])) for b in run.branches[:2]] == [
        ("rewound", 0, 2),
        ("rewound", 1, 2),
    ]


def test_fork_starts_with_its_own_account(tmp_path: Path) -> None:
    """What was thought and spent before the decision point is the parent's: a fork begins with none of it."""

    def think(messages: Any, seed: Any) -> str:
        return pit_reply(messages) if "The task failed" in messages[-1].text else '{"step": null}'

    reflector = ScriptedModel(reply=think)
    run = explore(ScriptedModel(reply=pit_reply), GridWorld, [PIT], out=tmp_path, reflector=reflector, reflect_every=1)
    root, child = run.branches
    assert [reflection["verdict"] for reflection in root["reflections"]] == ["on_track", "on_track", "rewind"]
    assert [reflection["turn"] for reflection in child["reflections"]] == [3]
    assert (root["cost"]["reflections"], child["cost"]["reflections"]) == (3, 1)


@pytest.mark.parametrize("world", WORLDS)
def test_every_decision_point_can_be_forked_again(world: Any, tmp_path: Path) -> None:
    """After a whole search each turn's checkpoint still holds exactly the path that led there."""
    blame = ScriptedModel(reply=['{"step": 1, "experience": "think"}'])
    how: Any = {
        "limits": Limits(max_branches=6, max_depth=5, max_roots=1),
        "reflector": blame,
        "checkpointer": "sqlite",
    }
    run = wander(tmp_path, world, tasks=3, **how)
    assert max(branch["depth"] for branch in run.branches) >= 3
    with TreeSaver(tmp_path / "checkpoints.sqlite") as saver:
        agent = create_leafe_graph(WANDERER, env=world).compile(checkpointer=saver)
        for tree in run.trees.values():
            for branch in tree.values():
                whole = path(tree, branch["id"])
                for t, turn in enumerate(branch["turns"], branch["decision_point"]):
                    place = {"thread_id": branch["thread_id"], "checkpoint_id": turn["checkpoint_id"]}
                    state = agent.get_state({"configurable": place})
                    assert state.next == ("act",)
                    assert [x | {"env_state": None} for x in state.values["turns"]] == whole[:t]
                    assert state.values["observation"] == turn["observation"]
                    assert state.values["branch"]["id"] == branch["id"]
                    assert (state.values["env_state"] is None) == (world is GridWorld)


def test_experience_stays_in_its_branch(tmp_path: Path) -> None:
    """Of all prompts only those of the branch are told, each its own lesson; no turn that is saved holds it."""
    recorder = Recorder(wandering_reply)
    run = wander(tmp_path, model=recorder.model, tasks=4, concurrency=1)
    expected: list[str | None] = []
    for branch in run.branches:
        ended_in_reflection = len(branch["reflections"])
        expected += [branch["experience"]] * len(branch["turns"]) + [None] * ended_in_reflection
    assert len(expected) == len(recorder.prompts)
    for prompt, experience in zip(recorder.prompts, expected, strict=True):
        told = "Experience from an earlier attempt: "
        assert [told in text for _, text in prompt[:-1]] == [False] * (len(prompt) - 1)
        assert prompt[-1][1].partition(told)[2] == (experience or "")
    for branch in run.branches:
        assert "Experience from" not in str(branch["turns"])


def test_refinement_restarts_and_independent_sampling_knows_nothing(tmp_path: Path) -> None:
    """The other two strategies behind the same interface: no rewind in either, no reflection in one."""
    refined = wander(tmp_path / "refine", strategy="refine", tasks=3)
    assert {branch["decision_point"] for branch in refined.branches} == {0}
    assert any(branch["experience"] for branch in refined.branches)
    sampled = wander(tmp_path / "independent", strategy="independent", tasks=3)
    assert all(branch["parent"] is branch["experience"] is branch["reflection"] is None for branch in sampled.branches)
    assert sampled.cost["reflections"] == sampled.cost["replayed_steps"] == 0
    assert len({str(actions(branch)) for branch in sampled.branches}) > 3


def test_leafes_controls_lack_the_rewind_or_the_experience(tmp_path: Path) -> None:
    """A restart is told the experience for the branch's first turns, a rewind nothing; else they grow as LEAFE does."""
    recorder = Recorder(wandering_reply)
    restarted = wander(tmp_path / "restart", model=recorder.model, strategy="restart", tasks=3, experience_turns=1)
    forks = [branch for branch in restarted.branches if branch["parent"] is not None]
    assert {branch["decision_point"] for branch in forks} == {0} and all(branch["experience"] for branch in forks)
    assert any(reflection["decision_point"] for branch in forks if (reflection := branch["reflection"]))
    told = [prompt for prompt in recorder.prompts if "Experience from" in prompt[-1][1]]
    assert len(told) == len(forks) and {len(prompt) for prompt in told} == {min(map(len, told))}  # all first turns
    rewound = wander(tmp_path / "rewind", strategy="rewind", tasks=3)
    forks = [branch for branch in rewound.branches if branch["parent"] is not None]
    assert forks and all(branch["experience"] is None for branch in rewound.branches)
    assert any(branch["decision_point"] for branch in forks) and {branch["depth"] for branch in forks} == {1, 2}


# ---- whatever the timing


@pytest.mark.parametrize(("strategy", "world"), MIXED)
def test_branches_do_not_depend_on_concurrency(strategy: str, world: Any, tmp_path: Path) -> None:
    """One at a time or sixteen at once, with a model that answers out of order: the same branches at the same cost."""

    class Slow(ScriptedModel):
        """Takes a moment that depends on the prompt."""

        async def _agenerate(self, messages: Any, *args: Any, **kwargs: Any) -> Any:
            await asyncio.sleep(len(messages[-1].text) % 7 / 1000)
            return await super()._agenerate(messages, *args, **kwargs)

    settings: Any = {"strategy": strategy, "tasks": 10, "reflect_every": 3, "checkpointer": InMemorySaver()}
    alone = wander(tmp_path / "1", world, concurrency=1, **settings)
    together = wander(tmp_path / "16", world, concurrency=16, model=Slow(reply=wandering_reply), **settings)
    assert forest(alone.branches) == forest(together.branches)
    assert len(alone.branches) > 20


def test_another_seed_gives_other_branches(tmp_path: Path) -> None:
    """The seed is the root of all draws."""
    one, two = (wander(tmp_path / str(seed), tasks=2, seed=seed) for seed in (0, 1))
    assert forest(one.branches) != forest(two.branches)


def test_explore_inside_an_event_loop_says_what_to_call(tmp_path: Path) -> None:
    """`explore` is for callers without a loop; `aexplore` is the one to await."""

    async def wrong() -> None:
        explore(WANDERER, GridWorld, grid_tasks(1), out=tmp_path)

    with pytest.raises(ConfigError, match="await aexplore"):
        asyncio.run(wrong())
    run = asyncio.run(aexplore(WANDERER, GridWorld, grid_tasks(1), out=tmp_path, limits=SMALL, max_turns=3))
    assert run.branches


# ---- the budget


class Metered:
    """Counts what really happens, beside the ledger."""

    def __init__(self) -> None:
        self.lock, self.counts = threading.Lock(), Counter[str]()
        meter = self

        class World(GridWorld):
            """A world that counts its steps."""

            def step(self, action: str) -> Any:
                """Count and walk."""
                meter.count("steps")
                return super().step(action)

        def reply(messages: Any, seed: int | None) -> str:
            meter.count("reflections" if is_reflection(messages) else "actions")
            return wandering_reply(messages, seed)

        self.world, self.model = World, ScriptedLimited(reply=reply, max_tokens=6, delay=0.001)

    def count(self, what: str) -> None:
        """One more."""
        with self.lock:
            self.counts[what] += 1


@pytest.fixture
def ledgers(monkeypatch: pytest.MonkeyPatch) -> list[Ledger]:
    """All ledgers that explore makes; each fails at once if any limit is ever exceeded."""
    made: list[Ledger] = []

    class Watched(Ledger):
        """A ledger that checks itself."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            made.append(self)

        def record(self, **amounts: float) -> None:
            """Count, then look."""
            super().record(**amounts)
            for field in FIELDS:
                limit = getattr(self.budget, field)
                assert limit is None or self.spent[field] <= limit, field  # type: ignore[literal-required]

    monkeypatch.setattr(importlib.import_module("leafe_graph.exploration.growing"), "Ledger", Watched)
    return made


LIMITS = [
    {"env_steps": 9},
    {"env_steps": 1},
    {"env_steps": 0},
    {"model_calls": 10},
    {"model_calls": 1},
    {"reflections": 1},
    {"reflections": 0},
    {"replayed_steps": 3},
    {"replayed_steps": 0},
    {"prompt_tokens": 2000},
    {"completion_tokens": 12},
    {"env_steps": 11, "model_calls": 12, "reflections": 2, "prompt_tokens": 3000, "completion_tokens": 40},
]


@pytest.mark.parametrize(("concurrency", "place"), [(1, "saver"), (16, "memory")])
@pytest.mark.parametrize("of", ["budget", "total_budget"])
@pytest.mark.parametrize("limits", LIMITS, ids=str)
def test_no_limit_is_exceeded_by_one(
    limits: dict[str, int], of: str, concurrency: int, place: str, tmp_path: Path, ledgers: list[Ledger]
) -> None:
    """Of a task or of the whole run: what happened, what the ledger says and what the branches say is the same."""
    meter = Metered()
    scale = 3 if of == "total_budget" else 1
    budget = Budget(**{field: limit * scale for field, limit in limits.items()})
    run = wander(
        tmp_path,
        meter.world,
        model=meter.model,
        tasks=5,
        limits=Limits(max_branches=4, max_depth=2, branches_per_reflection=2),
        concurrency=concurrency,
        reflect_every=3,
        checkpointer=InMemorySaver() if place == "saver" else place,
        **{of: budget},
    )
    total, *per_task = ledgers
    for field, limit in limits.items():
        if of == "total_budget":
            assert run.cost[field] <= limit * scale  # type: ignore[literal-required]
        for tree in run.trees.values():
            assert of == "total_budget" or sum(b["cost"][field] for b in tree.values()) <= limit  # type: ignore[literal-required]
    assert [total.spent[field] for field in FIELDS] == [run.cost[field] for field in FIELDS]  # type: ignore[literal-required]
    assert total.spent["seconds"] == pytest.approx(run.cost["seconds"])
    assert len(per_task) == 5
    cost = run.cost
    assert meter.counts["steps"] == cost["env_steps"] + cost["replayed_steps"]
    assert meter.counts["actions"] + meter.counts["reflections"] == cost["model_calls"]
    assert meter.counts["reflections"] == cost["reflections"]
    assert sum(len(branch["turns"]) for branch in run.branches) == cost["env_steps"]


@pytest.mark.parametrize("place", ["saver", "memory"])
@pytest.mark.parametrize("field", ["env_steps", "model_calls", "reflections"])
def test_budget_is_used_to_the_last_unit(field: str, place: str, tmp_path: Path) -> None:
    """With work enough for all, a run at full concurrency stops at its limit, not below it."""
    how: Any = {"limits": Limits(max_branches=12, stop_on_success=False), "total_budget": Budget(**{field: 23})}
    run = wander(tmp_path, concurrency=16, checkpointer=InMemorySaver() if place == "saver" else place, **how)
    assert run.cost[field] == 23  # type: ignore[literal-required]


def test_tokens_that_a_model_does_not_count_are_taken_at_their_bound(tmp_path: Path) -> None:
    """A model that reports no usage cannot be proven to have used less than was reserved."""

    class Silent(ScriptedLimited):
        """Reports no usage."""

        def _answer(self, *args: Any) -> Any:
            result = super()._answer(*args)
            result.generations[0].message = AIMessage(result.generations[0].text)
            return result

    run = wander(
        tmp_path, model=Silent(reply=wandering_reply, max_tokens=5), tasks=1, budget=Budget(completion_tokens=20)
    )
    assert run.cost["completion_tokens"] == 20
    assert run.cost["model_calls"] == 4


def test_token_budget_needs_a_bounded_answer(tmp_path: Path) -> None:
    """A model without max_tokens could answer at any length: refused with what to set, as an ordinary ConfigError."""
    with pytest.raises(ConfigError, match="set max_tokens on the model or on the agent"):
        wander(tmp_path / "1", model=ScriptedModel(reply=["up"]).with_retry(), budget=Budget(completion_tokens=5))
    bound = ScriptedLimited(reply=["up"]).bind(max_tokens=1)
    run = wander(tmp_path / "2", model=bound, tasks=1, budget=Budget(completion_tokens=5))
    assert run.cost["completion_tokens"] == 5


# ---- resuming


def test_finished_run_is_left_as_it_is(tmp_path: Path) -> None:
    """The same command again asks no model and steps no environment."""
    first = wander(tmp_path, tasks=3)
    again = wander(tmp_path, tasks=3, world=lambda: pytest.fail("an environment was made"))
    assert again.branches == first.branches


def test_torn_last_line_is_dropped_and_redone(tmp_path: Path) -> None:
    """A branch that was half written is played again, from the same fork, to the same end."""
    first = [*wander(tmp_path, tasks=1).branches]  # the last one's line is another one below
    log = tmp_path / "branches.jsonl"
    log.write_bytes(log.read_bytes()[:-100])
    again = wander(tmp_path, tasks=1)
    assert forest(again.branches) == forest(first)
    assert len(log.read_bytes().splitlines()) == len(first)


def test_corrupt_line_is_refused_before_anything_is_played(tmp_path: Path) -> None:
    """A damaged line in the middle is named, not skipped; also one that is nested too deep to be read."""
    wander(tmp_path, tasks=1)
    log = tmp_path / "branches.jsonl"
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join([lines[0], lines[1][:50] + b"\n", *lines[2:]]))
    with pytest.raises(RunFolderError, match=r"branches\.jsonl:2 is not a branch record"):
        wander(tmp_path, tasks=1)
    log.write_bytes(lines[0] + b"[" * 100_000 + b"\n")
    with pytest.raises(RunFolderError, match=r"branches\.jsonl:2 is not a branch record"):
        wander(tmp_path, tasks=1)


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("settings.seed: 0 there, 1 now", {"seed": 1}),
        ("settings.strategy", {"strategy": "refine"}),
        ("settings.max_turns", {"max_turns": 8}),
        ("settings.limits.max_depth", {"limits": Limits(max_branches=6, max_depth=3, branches_per_reflection=2)}),
        ("settings.budget.env_steps", {"budget": Budget(env_steps=5)}),
        ("settings.model", {"model": ScriptedLimited(reply=wandering_reply)}),
        ("settings.reflector", {"reflector": ScriptedModel(reply=["x"])}),
        ("settings.tasks", {"tasks": 3}),
        ("settings.mine", {"config": {"mine": 1}}),
    ],
)
def test_other_settings_are_refused_by_name(name: str, changed: Any, tmp_path: Path) -> None:
    """A folder goes on with the settings it was started with, or not at all."""
    before = wander(tmp_path, tasks=2)
    with pytest.raises(ConfigError, match=name):
        wander(tmp_path, **{"tasks": 2, **changed})
    assert RunFolder(tmp_path).branches == before.branches


def test_settings_that_change_no_branch_may_differ(tmp_path: Path) -> None:
    """Concurrency, the bar and its name are not part of what a run is."""
    wander(tmp_path, tasks=2)
    wander(tmp_path, tasks=2, concurrency=1, label="again", progress=True)


def test_other_task_under_the_same_id_is_refused(tmp_path: Path) -> None:
    """A tree never holds branches of two problems."""
    explore(WANDERER, GridWorld, grid_tasks(1), out=tmp_path, limits=SMALL, max_turns=3)
    other: Any = [grid_tasks(1)[0] | {"seed": 99}]
    with pytest.raises(ConfigError, match=r"task 'grid-000000' is .*'seed': 0.*'seed': 99"):
        explore(WANDERER, GridWorld, other, out=tmp_path, limits=SMALL, max_turns=3)


def test_lost_checkpoints_are_named(tmp_path: Path) -> None:
    """A run whose checkpoints were kept in memory cannot be forked by the next process, which says so."""
    blame = ScriptedModel(reply=["Step 1 was the mistake."])
    settings: Any = {"tasks": 1, "max_turns": 4, "reflector": blame}
    model = Recorder(lambda messages, seed: "jump", killed_at=6).model
    with pytest.raises(BaseExceptionGroup):
        wander(tmp_path, model=model, checkpointer=InMemorySaver(), **settings)
    assert len(RunFolder(tmp_path).branches) == 1
    with pytest.raises(RunFolderError, match=r"checkpoint of branch 0's decision point 1 is gone"):
        wander(tmp_path, model=model, checkpointer=InMemorySaver(), **settings)


def test_two_tasks_of_one_id_are_refused(tmp_path: Path) -> None:
    """By name, before anything is written."""
    with pytest.raises(ConfigError, match="more than one task is called grid-000001"):
        explore(WANDERER, GridWorld, [*grid_tasks(3), *grid_tasks(1, start=1)], out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_concurrency_of_nothing_is_refused(tmp_path: Path) -> None:
    """It would wait for ever."""
    with pytest.raises(ConfigError, match="concurrency=0"):
        wander(tmp_path, concurrency=0)


def test_folder_in_use_is_refused(tmp_path: Path) -> None:
    """Two runs in one folder would do every branch twice."""
    with RunFolder(tmp_path).open({}), pytest.raises(RunFolderError, match="is being written by process"):
        wander(tmp_path)


# ---- failures are data


class Fragile(GridWorld):
    """A world whose tasks may ask it to break."""

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        """As ever, unless told otherwise."""
        self.breaks = (options or {}).get("breaks")
        if self.breaks == "reset":
            raise OSError("no such world")
        return super().reset(seed=seed, options=PIT["options"])

    def step(self, action: str) -> Any:
        """As ever, unless told otherwise."""
        if self.breaks == "step" and action == "right":
            raise OSError("the floor is gone")
        return super().step(action)


def fragile_reply(messages: Any, seed: Any) -> str:
    """Plays well, but for one task on which it has a bad line."""
    if messages[0].text == "model":
        raise ValueError("no answer")
    return pit_reply(messages, seed)


def test_failures_end_their_branches_and_the_run_goes_on(tmp_path: Path) -> None:
    """Worlds that raise in reset or step and a model that raises cost their own tasks only, within their limits."""
    tasks: Any = [
        {"id": kind, "instruction": kind, "options": {"breaks": kind}} for kind in ("reset", "step", "model", "well")
    ]
    run = explore(
        ScriptedModel(reply=fragile_reply), Fragile, tasks, out=tmp_path, limits=Limits(max_branches=3), concurrency=2
    )
    ends = {task: [branch["end"] for branch in tree.values()] for task, tree in run.trees.items()}
    assert ends == {
        "reset": ["env_error"] * 3,
        "step": ["env_error"] * 3,
        "model": ["model_error"] * 3,
        "well": ["failure", "success"],
    }
    errors = {task: tree["0"]["error"] for task, tree in run.trees.items()}
    assert errors["reset"] == "OSError: no such world"
    assert errors["step"] == "OSError: the floor is gone"
    assert errors["model"] == "ValueError: no answer"
    assert run.trees["model"]["0"]["cost"]["model_calls"] == 1


def test_branch_that_cannot_be_replayed_is_not_played(tmp_path: Path) -> None:
    """Its end is replay_divergence, with both texts; it has no turns of a world that is not the parent's."""
    run = explore(ScriptedModel(reply=pit_reply), Restless, [PIT], out=tmp_path, limits=Limits(max_branches=4))
    assert [branch["end"] for branch in run.branches] == ["failure", "replay_divergence"] * 2
    diverged = run.branches[1]
    assert (diverged["turns"], diverged["decision_point"]) == ([], 2)
    assert diverged["error"].startswith("ReplayDivergence: task 'pit': at decision point 1 the replay shows 'moved;")


def test_same_world_with_snapshots_is_brought_back(tmp_path: Path) -> None:
    """What a replay cannot do a snapshot can: the same restless world is rewound once it can be saved."""

    class Saved(Restless, SnapshotGridWorld):
        """Keeps the number of clouds in its snapshot."""

        def snapshot(self) -> bytes:
            return b"%d " % self.clouds + super().snapshot()

        def restore(self, state: bytes) -> None:
            clouds, _, rest = state.partition(b" ")
            self.clouds = int(clouds)
            super().restore(rest)

    run = explore(ScriptedModel(reply=pit_reply), Saved, [PIT], out=tmp_path)
    assert [branch["end"] for branch in run.branches] == ["failure", "success"]
    first, second = run.branches
    assert second["turns"][0]["observation"] == first["turns"][2]["observation"]


@pytest.mark.parametrize("concurrency", [1, 3])
def test_instances_are_bounded_and_closed(concurrency: int, tmp_path: Path) -> None:
    """However many branches, however they end: a world for each task at once, used again and closed in the end."""
    worlds: list[Any] = []

    class Kept(GridWorld):
        """Counts itself."""

        closed = 0

        def __init__(self) -> None:
            super().__init__()
            worlds.append(self)

        def close(self) -> None:
            self.closed += 1

    run = wander(tmp_path, Kept, concurrency=concurrency, reflect_every=3, checkpointer=InMemorySaver())
    assert {branch["end"] for branch in run.branches} >= {"rewound", "max_turns"}
    assert 0 < len(worlds) <= concurrency
    assert {world.closed for world in worlds} == {1}


# ---- misuse is raised, and nothing is paid for that cannot be used


def test_misuse_raises_instead_of_filling_the_run_with_failures(tmp_path: Path) -> None:
    """A model that lacks a package stops the run at once; the same command works when it is installed."""

    def lacking(messages: Any, seed: Any = None) -> str:
        raise MissingDependency(extra="hf", needed_for="local models")

    with pytest.raises(MissingDependency, match=r"not installed: pip install .*\[hf\]"):
        explore(ScriptedModel(reply=lacking), GridWorld, [PIT], out=tmp_path, budget=Budget(model_calls=9))
    run = explore(ScriptedModel(reply=pit_reply), GridWorld, [PIT], out=tmp_path, budget=Budget(model_calls=9))
    assert [branch["end"] for branch in run.branches] == ["failure", "success"]


def test_resuming_with_another_policy_is_refused(tmp_path: Path) -> None:
    """A model with other settings, or other texts, is another run."""
    first = ScriptedLimited(reply=pit_reply, max_tokens=5)
    explore(Named(reply=pit_reply, name_of_weights="first"), GridWorld, [PIT], out=tmp_path / "model")
    with pytest.raises(ConfigError, match="model"):
        explore(Named(reply=pit_reply, name_of_weights="second"), GridWorld, [PIT], out=tmp_path / "model")
    explore(first, GridWorld, [PIT], out=tmp_path / "texts")
    with pytest.raises(ConfigError, match="texts"):
        explore(first, GridWorld, [PIT], out=tmp_path / "texts", prompts=Prompts(failed="Lost."))


class Named(ScriptedModel):
    """A model that tells its weights apart."""

    name_of_weights: str

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {"weights": self.name_of_weights}


@pytest.mark.parametrize("limits", [Limits(max_branches=1), Limits(max_depth=0, max_roots=1)])
def test_no_reflection_is_paid_for_where_no_branch_can_follow(limits: Limits, tmp_path: Path) -> None:
    """On the last branch and at the greatest depth a reflection could not be used."""
    run = explore(ScriptedModel(reply=pit_reply), GridWorld, [PIT], out=tmp_path, limits=limits)
    assert [branch["end"] for branch in run.branches] == ["failure"]
    assert run.cost["reflections"] == 0


def test_no_reflection_is_paid_for_when_the_steps_are_spent(tmp_path: Path) -> None:
    """The pit is reached with the last step of the budget: nobody could walk on."""
    run = explore(ScriptedModel(reply=pit_reply), GridWorld, [PIT], out=tmp_path, budget=Budget(env_steps=3))
    assert (run.branches[0]["end"], run.cost["reflections"]) == ("failure", 0)


def test_as_many_environments_step_at_once_as_tasks_are_played(tmp_path: Path) -> None:
    """Environments step in threads; slow ones do not wait for each other."""
    together = threading.Barrier(12)

    class Meeting(GridWorld):
        def step(self, action: str) -> Any:
            together.wait(timeout=30)
            return super().step(action)

    run = explore(
        ScriptedModel(reply=pit_reply),
        Meeting,
        [{**PIT, "id": f"pit {i}"} for i in range(12)],
        out=tmp_path,
        strategy="independent",
        limits=Limits(max_branches=1),
        concurrency=12,
        max_turns=1,
    )
    assert [branch["end"] for branch in run.branches] == ["max_turns"] * 12


# ---- long ones


class Corridor:
    """It goes on and on; twice it has much to say."""

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[str, dict[str, Any]]:
        self.at = 0
        return "A corridor.", {}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        self.at += 1
        end = self.at == 300
        return "x" * 5_000_000 if self.at in (1, 200) else f"Door {self.at}.", 0.0, end, False, {"success": end}

    def close(self) -> None: ...


def test_long_episodes_with_large_observations_are_played_and_kept(tmp_path: Path) -> None:
    """300 turns, two of them with 5 MB of text: nothing is cut."""
    run = explore(
        ScriptedModel(reply=lambda messages, seed: "on"),
        Corridor,
        ["walk"],
        out=tmp_path,
        strategy="independent",
        max_turns=300,
        history=2,
    )
    (branch,) = RunFolder(run.folder).branches
    assert (branch["end"], len(branch["turns"])) == ("success", 300)
    assert [n for n, turn in enumerate(branch["turns"]) if len(turn["feedback"]) == 5_000_000] == [0, 199]
