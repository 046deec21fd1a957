"""The agent: a task in, the final state out; streamed, nested, interrupted, rewound in place."""

import asyncio
import json
import operator
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import pytest
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableLambda
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.config import get_stream_writer
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, interrupt
from typing_extensions import TypedDict
from worlds import LESSON, PIT, REFLECTION, TOLD, WORLDS, Killed, Recorder, actions, is_reflection, lasting, pit_reply

from leafe_graph.agent.graph import create_leafe_agent, create_leafe_graph
from leafe_graph.budget import Budget
from leafe_graph.env import EnvPool
from leafe_graph.errors import ConfigError
from leafe_graph.exploration.explore import explore
from leafe_graph.prompts import Prompts
from leafe_graph.testing import GridWorld, ScriptedModel, SnapshotGridWorld

WON = ["down", "right", "right", "up"]
LOST = ["down", "right", "up"]
THREAD: Any = {"configurable": {"thread_id": "1"}}


class PitWorld(GridWorld):
    """A world that needs no options: always the one of `PIT`."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        """Start at the pit, and tell whoever listens."""
        get_stream_writer()("world made")
        return super().reset(seed=seed, options=PIT["options"])


def agent_with(reply: Any = pit_reply, env: Any = SnapshotGridWorld, **settings: Any) -> Any:
    """An agent whose model answers by a function."""
    model = reply.model if isinstance(reply, Recorder) else ScriptedModel(reply=reply)
    return create_leafe_agent(model, env=env, **settings)


def stubborn_reply(messages: Any, seed: Any = None) -> str:
    """Goes the lost way whatever it was told."""
    return REFLECTION if is_reflection(messages) else LOST[sum(message.type == "ai" for message in messages)]


def play(agent: Any, given: Any, config: Any = None, *, way: str = "sync") -> Any:
    """Invoke one way or the other."""
    return asyncio.run(agent.ainvoke(given, config)) if way == "async" else agent.invoke(given, config)


# ---- in and out


@pytest.mark.parametrize("way", ["sync", "async"])
@pytest.mark.parametrize("task", [PIT, "Walk to the goal."])
def test_agent_takes_a_task_and_returns_the_final_state(task: Any, way: str) -> None:
    """A record or a plain instruction goes in; the way to the goal, found at the second try, comes out."""
    final = play(agent_with(env=PitWorld), {"task": task}, way=way)
    assert final["end"] == "success"
    assert actions(final) == WON
    assert final["task"]["instruction"] == "Walk to the goal."
    assert final["experience"] == LESSON
    assert final["branch"] == {"id": "1", "parent": "0", "decision_point": 2, "depth": 1}
    assert [turn["valid"] for turn in final["turns"]] == [True] * 4
    assert sum(turn["reward"] for turn in final["turns"]) == 1.0


@pytest.mark.parametrize("bad", [{"instruction": "no id"}, {"id": "no instruction"}])
def test_incomplete_task_is_refused(bad: Any) -> None:
    """A task record without id or instruction is the caller's mistake, and raises."""
    with pytest.raises(ConfigError, match="needs id and instruction"):
        agent_with().invoke({"task": bad})


@pytest.mark.parametrize(
    "settings", [{"max_turns": 0}, {"reflect_every": 0}, {"max_rewinds": -1}, {"history": -1}], ids=str
)
def test_impossible_settings_are_refused(settings: Any) -> None:
    """A setting that would fail in the middle of an episode is refused when the agent is made."""
    with pytest.raises(ConfigError, match=next(iter(settings))):
        agent_with(**settings)


def test_instance_instead_of_a_factory_is_refused() -> None:
    """Rewinding needs several instances, so an environment object is refused with what to write instead."""
    with pytest.raises(ConfigError, match="an instance; expected something that makes one"):
        agent_with(env=GridWorld())


def test_model_named_by_a_string_is_loaded() -> None:
    """A string goes to load_model, which names what it knows when it does not know this one."""
    with pytest.raises(ConfigError, match="model 'nonsense'"):
        create_leafe_agent("nonsense", env=GridWorld)


# ---- streaming


STORY = [*["reset"], *["act", "step"] * 3, "reflect", "rewind", *["act", "step"] * 2]


def streamed(agent: Any, mode: str, way: str, config: Any = None) -> list[Any]:
    """All chunks of a stream."""

    async def collect() -> list[Any]:
        return [chunk async for chunk in agent.astream({"task": PIT}, config, stream_mode=mode)]

    return asyncio.run(collect()) if way == "async" else list(agent.stream({"task": PIT}, config, stream_mode=mode))


@pytest.mark.parametrize("way", ["sync", "async"])
def test_agent_streams_in_every_mode(way: str) -> None:
    """Updates name the nodes, values show the state, messages the model's words, custom what a world writes."""
    agent = agent_with(env=PitWorld, checkpointer=InMemorySaver())
    assert [name for chunk in streamed(agent, "updates", way, THREAD) for name in chunk] == STORY
    values = streamed(agent, "values", way, THREAD)
    assert values[-1]["end"] == "success"
    assert [len(value["turns"]) for value in values[-3:]] == [3, 3, 4]
    messages = streamed(agent, "messages", way, THREAD)
    assert [(message.text, where["langgraph_node"]) for message, where in messages] == [
        *((action, "act") for action in LOST),
        (REFLECTION, "reflect"),
        *((action, "act") for action in WON[2:]),
    ]
    assert streamed(agent, "custom", way, THREAD) == ["world made"] * 2  # the rewind reset an instance for its replay
    checkpoints = streamed(agent, "checkpoints", way, THREAD)
    assert [chunk["next"] for chunk in checkpoints[-2:]] == [["step"], []]


# ---- inside other graphs


class Match(TypedDict):
    """The state of a bigger graph that has an agent as one of its nodes."""

    task: Any
    end: str | None
    turns: list[Any]
    log: Annotated[list[str], operator.add]


def bigger_graph(reply: Any, env: Any, checkpointer: Any = None) -> Any:
    """A referee before and after the agent."""
    graph = StateGraph(Match)
    graph.add_node("before", lambda state: {"log": ["asked"]})
    graph.add_node("player", agent_with(reply, env))
    graph.add_node("after", lambda state: {"log": [f"it was a {state['end']} in {len(state['turns'])} turns"]})
    for here, there in ((START, "before"), ("before", "player"), ("player", "after"), ("after", END)):
        graph.add_edge(here, there)
    return graph.compile(checkpointer=checkpointer)


@pytest.mark.parametrize("saver", [None, InMemorySaver])
@pytest.mark.parametrize("way", ["sync", "async"])
@pytest.mark.parametrize("env", WORLDS)
def test_agent_is_a_node_of_a_bigger_graph(env: Any, way: str, saver: Any) -> None:
    """Shared keys go in and out, with and without a checkpointer on the parent, and rewinding works inside."""
    graph = bigger_graph(pit_reply, env, saver and saver())
    final = play(graph, {"task": PIT, "log": []}, THREAD, way=way)
    assert final["log"] == ["asked", "it was a success in 4 turns"]


@pytest.mark.parametrize("way", ["sync", "async"])
@pytest.mark.parametrize("env", WORLDS)
def test_bigger_graph_resumes_inside_the_agent(env: Any, way: str) -> None:
    """Killed in the middle of the agent's episode, the parent goes on from there in new objects."""
    saver, first, second = InMemorySaver(), Recorder(killed_at=3), Recorder()
    with pytest.raises(Killed):
        play(bigger_graph(first, env, saver), {"task": PIT, "log": []}, THREAD, way=way)
    final = play(bigger_graph(second, env, saver), None, THREAD, way=way)
    assert final["log"] == ["asked", "it was a success in 4 turns"]
    assert second.prompts[0] == first.prompts[2]


@pytest.mark.parametrize("way", ["sync", "async"])
def test_agent_is_called_from_another_graphs_node(way: str) -> None:
    """The same agent runs where a node calls it as a function, with long episodes of its own."""
    agent = agent_with(lambda messages, seed: "left", max_turns=40, max_rewinds=0)
    graph = StateGraph(Match)
    if way == "async":

        async def aplayer(state: Match) -> Any:
            return {"end": (await agent.ainvoke({"task": state["task"]}))["end"]}

        graph.add_node("player", aplayer)
    else:
        graph.add_node("player", lambda state: {"end": agent.invoke({"task": state["task"]})["end"]})
    graph.add_edge(START, "player")
    assert play(graph.compile(), {"task": PIT}, {"recursion_limit": 5}, way=way)["end"] == "max_turns"


# ---- checkpointers


def saved_run(kind: str, file: Path) -> tuple[Any, Any]:
    """The final state and what the saver gives back for the thread."""
    if kind == "AsyncSqliteSaver":

        async def run() -> tuple[Any, Any]:
            async with AsyncSqliteSaver.from_conn_string(str(file)) as saver:
                agent = agent_with(checkpointer=saver)
                return await agent.ainvoke({"task": PIT}, THREAD), (await agent.aget_state(THREAD)).values

        return asyncio.run(run())
    if kind == "SqliteSaver":
        with SqliteSaver.from_conn_string(str(file)) as saver:
            agent = agent_with(checkpointer=saver)
            return agent.invoke({"task": PIT}, THREAD), agent.get_state(THREAD).values
    agent = agent_with(checkpointer=InMemorySaver())
    return agent.invoke({"task": PIT}, THREAD), agent.get_state(THREAD).values


@pytest.mark.parametrize("kind", ["InMemorySaver", "SqliteSaver", "AsyncSqliteSaver"])
def test_every_saver_gives_the_final_state_back(kind: str, tmp_path: Path) -> None:
    """What was returned is what is saved, and each turn knows the checkpoint of its decision point."""
    final, saved = saved_run(kind, tmp_path / "checkpoints.sqlite")
    assert saved == final
    assert actions(saved) == WON
    assert len({turn["checkpoint_id"] for turn in saved["turns"]} - {None}) == 4


def test_decision_checkpoint_is_the_moment_before_the_turn() -> None:
    """The checkpoint that a turn remembers stands before `act`, with the turns before it and nothing after."""
    agent = agent_with(checkpointer=InMemorySaver())
    final = agent.invoke({"task": PIT}, THREAD)
    for t, turn in enumerate(final["turns"]):
        at = agent.get_state({"configurable": {"thread_id": "1", "checkpoint_id": turn["checkpoint_id"]}})
        assert at.next == ("act",)
        assert actions(at.values) == WON[:t]
        assert at.values["observation"] == turn["observation"]
        assert at.values["env_state"] == turn["env_state"]


STRICT = """
import sys, warnings
warnings.simplefilter("error")
from langgraph.checkpoint.sqlite import SqliteSaver
from leafe_graph.agent.graph import create_leafe_agent
from leafe_graph.testing import ScriptedModel
from worlds import PIT, WORLDS, Killed, Recorder, actions
for env in WORLDS:
    config = {"configurable": {"thread_id": env.__name__}}
    for killed_at, given in ((5, {"task": PIT}), (None, None)):
        with SqliteSaver.from_conn_string(sys.argv[1]) as saver:
            agent = create_leafe_agent(Recorder(killed_at=killed_at).model, env=env, checkpointer=saver)
            try:
                final = agent.invoke(given, config)
            except Killed:
                assert len(agent.get_state(config).values["abandoned"]) == 1
    print(final["end"], *actions(final))
"""


def test_state_survives_strict_msgpack(tmp_path: Path) -> None:
    """With LANGGRAPH_STRICT_MSGPACK=true a rewound run is still read back and goes on: only plain JSON and bytes."""
    done = subprocess.run(
        [sys.executable, "-c", STRICT, str(tmp_path / "checkpoints.sqlite")],
        env={**os.environ, "LANGGRAPH_STRICT_MSGPACK": "true", "PYTHONPATH": str(Path(__file__).parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.splitlines() == ["success down right right up"] * 2, done.stderr
    assert done.stderr == ""


def test_second_task_on_the_same_thread_starts_clean() -> None:
    """Nothing of an earlier task is left: no turns, experience, reflections, costs or abandoned paths."""
    agent = agent_with(checkpointer=InMemorySaver())
    fresh = agent.invoke({"task": PIT | {"id": "other"}}, {"configurable": {"thread_id": "2"}})
    agent.invoke({"task": PIT}, THREAD)
    again = agent.invoke({"task": PIT | {"id": "other"}}, THREAD)
    assert lasting(again) == lasting(fresh)


@pytest.mark.parametrize("way", ["sync", "async"])
@pytest.mark.parametrize("env", WORLDS)
@pytest.mark.parametrize(("killed_at", "again"), [(1, 0), (2, 1), (3, 2), (4, 0), (5, 0), (6, 3)])
def test_killed_run_resumes_in_a_new_agent(killed_at: int, again: int, env: Any, way: str, tmp_path: Path) -> None:
    """Killed at any model call, `invoke(None)` on a new agent ends as if nothing had happened, but for the replay."""
    undisturbed = agent_with(env=env).invoke({"task": PIT})
    first, second = Recorder(killed_at=killed_at), Recorder()

    async def alife(recorder: Recorder, given: Any) -> Any:
        async with AsyncSqliteSaver.from_conn_string(str(tmp_path / "c.sqlite")) as saver:
            return await agent_with(recorder, env, checkpointer=saver).ainvoke(given, THREAD)

    def life(recorder: Recorder, given: Any) -> Any:
        if way == "async":
            return asyncio.run(alife(recorder, given))
        with SqliteSaver.from_conn_string(str(tmp_path / "c.sqlite")) as saver:
            return agent_with(recorder, env, checkpointer=saver).invoke(given, THREAD)

    with pytest.raises(Killed):
        life(first, {"task": PIT})
    final = life(second, None)
    assert second.prompts[0] == first.prompts[-1]
    # the rewind to step 2 replays two steps anyway; a new process replays what lies before the turn that was cut off
    assert final["cost"]["replayed_steps"] == (2 + again if env is GridWorld else 0)
    assert without_replays(final) == without_replays(undisturbed)


def without_replays(final: Any) -> Any:
    """A final state without the counts that a resumed run may have more of."""
    final = lasting(final)
    for record in (final, *final["abandoned"]):
        del record["cost"]["replayed_steps"]
    return final


class Mortal(SnapshotGridWorld):
    """A world in which the process dies at a chosen step."""

    dies_at: int | None = None
    steps = 0

    def step(self, action: str) -> Any:
        """Walk, or die."""
        type(self).steps += 1
        if self.steps == self.dies_at:
            raise Killed
        return super().step(action)


def test_run_killed_inside_the_environment_repeats_that_step_only() -> None:
    """The action was saved before the step: after a kill inside it, the policy is not asked again."""
    saver, first, second = InMemorySaver(), Recorder(), Recorder()
    Mortal.steps, Mortal.dies_at = 0, 2
    with pytest.raises(Killed):
        agent_with(first, Mortal, checkpointer=saver).invoke({"task": PIT}, THREAD)
    final = agent_with(second, Mortal, checkpointer=saver).invoke(None, THREAD)
    assert actions(final) == WON
    assert len(first.prompts) + len(second.prompts) == 6


def test_interrupt_before_a_node_waits_for_approval() -> None:
    """The uncompiled graph takes LangGraph's own breakpoints: each action can be looked at before it is played."""
    graph = create_leafe_graph(ScriptedModel(reply=pit_reply), env=GridWorld)
    agent = graph.compile(checkpointer=InMemorySaver(), interrupt_before=["step"])
    state = agent.invoke({"task": PIT}, THREAD)
    assert state["message"]["content"] == "down"
    assert state["turns"] == []
    assert actions(agent.invoke(None, THREAD)) == ["down"]


def test_interrupt_inside_the_model_is_not_a_failure() -> None:
    """A human may be the policy: LangGraph's `interrupt` passes through, and the answer is the action."""
    human = RunnableLambda(lambda messages: AIMessage(interrupt("your move?")))
    agent = create_leafe_agent(human, env=GridWorld, checkpointer=InMemorySaver(), max_rewinds=0)
    state = agent.invoke({"task": PIT}, THREAD)
    assert state["__interrupt__"][0].value == "your move?"
    for action in WON:
        state = agent.invoke(Command(resume=action), THREAD)
    assert (state["end"], actions(state)) == ("success", WON)


# ---- rewinding in place


@pytest.mark.parametrize("env", WORLDS)
def test_rewind_brings_back_the_state_at_the_decision_point(env: Any) -> None:
    """After the rewind node the state is that of the decision point, but for the branch and what was learned."""
    agent = agent_with(env=env, checkpointer=InMemorySaver())
    agent.invoke({"task": PIT}, THREAD)
    states = [state.values for state in reversed(list(agent.get_state_history(THREAD))) if "turns" in state.values]
    at = next(state for state in states if len(state["turns"]) == 2)
    after = next(state for state in states if state["abandoned"])
    for key in ("task", "turns", "observation", "env_state", "message", "end", "error"):
        assert after[key] == at[key], key
    assert (at["env_state"] is None) == (env is GridWorld)
    assert (after["experience"], after["branch"]["decision_point"]) == (LESSON, 2)


def test_abandoned_holds_the_path_left_behind() -> None:
    """The lost path is kept as a branch record with its end, its reflection, and its own share of the cost."""
    final = agent_with().invoke({"task": PIT})
    (lost,) = final["abandoned"]
    assert actions(lost) == LOST
    assert (lost["id"], lost["end"], lost["return_"], lost["error"]) == ("0", "failure", 0.0, None)
    assert lost["reflection"]["experience"] == LESSON
    assert lost["cost"]["model_calls"] == 4
    assert final["cost"]["model_calls"] == 6
    assert all(turn["env_state"] is None for turn in lost["turns"])
    json.dumps(final["abandoned"])


def test_abandoned_branches_have_their_own_costs_and_reflections() -> None:
    """With several rewinds each record holds what that branch spent and thought, so the records add up."""
    final = agent_with(stubborn_reply, max_rewinds=3).invoke({"task": PIT})
    assert [branch["id"] for branch in final["abandoned"]] == ["0", "1", "2"]
    assert [len(branch["reflections"]) for branch in final["abandoned"]] == [1, 1, 1]
    assert [branch["cost"]["env_steps"] for branch in final["abandoned"]] == [3, 1, 1]
    assert [branch["cost"]["model_calls"] for branch in final["abandoned"]] == [4, 2, 2]
    assert (final["cost"]["env_steps"], final["cost"]["model_calls"]) == (6, 9)
    assert len(final["reflections"]) == 3


@pytest.mark.parametrize("rewinds", [0, 1, 3])
def test_agent_goes_back_at_most_max_rewinds_times(rewinds: int) -> None:
    """An agent that always fails stops after its last allowed rewind, with no reflection that nobody could use."""
    final = agent_with(stubborn_reply, max_rewinds=rewinds).invoke({"task": PIT})
    assert len(final["abandoned"]) == rewinds
    assert final["cost"]["reflections"] == rewinds
    assert final["end"] == "failure"


@pytest.mark.parametrize(("every", "asked_at"), [(None, [6]), (1, [1, 2, 3, 4, 5, 6]), (2, [2, 4, 6]), (4, [4, 6])])
def test_reflect_every_k_turns_and_on_failure(every: int | None, asked_at: list[int]) -> None:
    """K counts the turns of a branch; the end is reflected upon once, whether or not K falls on it."""
    reply = lambda m, s: '{"step": null}' if is_reflection(m) else "left"  # noqa: E731
    final = agent_with(reply, reflect_every=every, max_turns=6).invoke({"task": PIT})
    assert [reflection["turn"] for reflection in final["reflections"]] == asked_at
    assert {reflection["verdict"] for reflection in final["reflections"]} == {"on_track"}
    assert final["end"] == "max_turns"


def test_k_counts_from_where_the_branch_began() -> None:
    """After a rewind to step 1, K=2 asks again when the new branch has two turns of its own."""
    answers = iter(['{"step": 1, "experience": "no"}', '{"step": null}'])
    reply = lambda m, s: next(answers) if is_reflection(m) else "left"  # noqa: E731
    final = agent_with(reply, reflect_every=2, max_turns=4, max_rewinds=2, budget=Budget(reflections=2)).invoke(
        {"task": PIT}
    )
    assert [reflection["turn"] for reflection in final["reflections"]] == [2, 3]
    assert final["abandoned"][0]["end"] == "rewound"


@pytest.mark.parametrize(
    ("words", "verdict"),
    [
        ("I have no idea, really.", "unparsed"),
        ("", "unparsed"),
        ('{"step": "the third", "experience": "go right"}', "unparsed"),
        ('{"step": 2}', "unparsed"),
        ('{"step": 3, "experience": "go right"}', "out_of_range"),
        ('{"step": -1, "experience": "go right"}', "out_of_range"),
        ('{"step": 100000000000000000000000000000000000000000000000, "experience": "go right"}', "out_of_range"),
        ('{"step": null}', "on_track"),
    ],
)
@pytest.mark.parametrize("way", ["sync", "async"])
def test_reflection_that_cannot_be_used_is_recorded_and_the_run_goes_on(words: str, verdict: str, way: str) -> None:
    """Neither a crash nor a made-up decision point: the words are kept, and nothing is rewound."""
    agent = create_leafe_agent(
        ScriptedModel(reply=stubborn_reply),
        reflector=ScriptedModel(reply=[words]),
        env=GridWorld,
        checkpointer=InMemorySaver(),
        reflect_every=2,
    )
    final = play(agent, {"task": PIT}, THREAD, way=way)
    assert [(r["turn"], r["verdict"], r["raw"]) for r in final["reflections"]] == [
        (2, verdict, words),
        (3, verdict, words),
    ]
    assert (final["end"], actions(final), final["abandoned"]) == ("failure", LOST, [])
    assert final["experience"] is None


def test_experience_is_in_its_branchs_prompts_only_and_last() -> None:
    """Before the rewind no prompt knows it; after it each does, behind the history; what is saved never does."""
    recorder = Recorder()
    final = agent_with(recorder, checkpointer=InMemorySaver()).invoke({"task": PIT}, THREAD)
    before, (reflecting, *after) = recorder.prompts[:3], recorder.prompts[3:]
    assert LESSON not in str(before) + str(reflecting)
    for prompt in after:
        *history, (kind, last) = prompt
        assert kind == "human"
        assert last.endswith(f"\n\n{TOLD}{LESSON}")
        assert LESSON not in str(history)
    assert LESSON not in json.dumps(lasting(final["turns"]), default=str)
    assert LESSON not in json.dumps(lasting(final["abandoned"][0]["turns"]), default=str)
    assert after[0][:-1] == before[2][:-1]
    assert after[0][-1][1] == before[2][-1][1] + f"\n\n{TOLD}{LESSON}"


def test_next_rewind_replaces_the_experience() -> None:
    """Two lessons are never mixed: the second branch is told the second one alone."""
    lessons = iter(["first lesson", "second lesson"])

    def reply(messages: Any, seed: Any) -> str:
        told = is_reflection(messages) and {"step": 1, "experience": next(lessons)}
        return json.dumps(told) if told else stubborn_reply(messages)

    recorder = Recorder(reply)
    final = agent_with(recorder, max_rewinds=2).invoke({"task": PIT})
    told = [re.findall("(first|second) lesson", str(prompt)) for prompt in recorder.prompts]
    assert told == [[], [], [], [], ["first"], ["first"], [], ["second"], ["second"]]
    assert [branch["experience"] for branch in final["abandoned"]] == [None, "first lesson"]
    assert final["experience"] == "second lesson"


@pytest.mark.parametrize(("shown", "told"), [(None, 3), (0, 0), (1, 1), (2, 2)])
def test_experience_turns_bounds_how_long_it_is_told(shown: int | None, told: int) -> None:
    """An experience fades after the given number of the branch's turns."""
    recorder = Recorder(lambda m, s: '{"step": 1, "experience": "think"}' if is_reflection(m) else "left")
    agent_with(recorder, experience_turns=shown, max_rewinds=1, max_turns=4).invoke({"task": PIT})
    assert [TOLD in prompt[-1][1] for prompt in recorder.prompts[5:]] == [turn < told for turn in range(3)]


@pytest.mark.parametrize("history", [None, 0, 1, 2])
def test_history_bounds_the_turns_in_a_prompt(history: int | None) -> None:
    """The latest turns are shown, never a half one, and the instruction always."""
    recorder = Recorder(lambda m, s: ["down", "right", "left", "left"][len(recorder.prompts) - 1])
    agent_with(recorder, history=history, max_turns=4, max_rewinds=0).invoke({"task": PIT})
    for t, prompt in enumerate(recorder.prompts):
        shown = t if history is None else min(t, history)
        assert [kind for kind, _ in prompt] == ["system", *["human", "ai"] * shown, "human"]
        assert [text for kind, text in prompt if kind == "ai"] == ["down", "right", "left"][t - shown : t]


def test_reflector_may_be_a_different_model() -> None:
    """The policy is then never asked to reflect, and the reflector never to act."""
    policy, reflector = Recorder(), Recorder()
    final = create_leafe_agent(policy.model, env=GridWorld, reflector=reflector.model).invoke({"task": PIT})
    assert final["end"] == "success"
    assert len(policy.prompts) == 5
    assert len(reflector.prompts) == 1
    assert "2. up -> fell into a pit" in reflector.prompts[0][-1][1]
    assert "The task failed." in reflector.prompts[0][-1][1]


# ---- failures are data


class Broken(SnapshotGridWorld):
    """A world that raises in a chosen method."""

    where = ""

    def fail(self, method: str) -> None:
        """Raise, if this is the method that is broken."""
        if self.where == method:
            raise OSError(f"the simulator died in {method}")

    def reset(self, **kwargs: Any) -> Any:
        """As ever."""
        self.fail("reset")
        return super().reset(**kwargs)

    def step(self, action: str) -> Any:
        """As ever."""
        self.fail("step")
        return super().step(action)

    def snapshot(self) -> bytes:
        """As ever."""
        self.fail("snapshot")
        return super().snapshot()

    def close(self) -> None:
        """A dead simulator cannot be closed either."""
        raise OSError("already dead")


@pytest.mark.parametrize("method", ["reset", "step", "snapshot"])
@pytest.mark.parametrize("way", ["sync", "async"])
def test_environment_that_raises_ends_the_episode(method: str, way: str) -> None:
    """The run is not lost: its end is env_error and says what was raised; the instance is thrown away."""
    world = type("World", (Broken,), {"where": method})
    pool = EnvPool(world, size=1)
    agent = agent_with(env=pool)
    for _ in range(2):  # a second run gets a new instance, and does not wait for the broken one
        final = play(agent, {"task": PIT}, way=way)
        assert final["end"] == "env_error"
        assert final["error"] == f"OSError: the simulator died in {method}"


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (("text", None, False, False, {}), "the reward is None; expected a number"),
        (("text", float("nan"), False, False, {}), "the reward is nan; expected a number"),
        (("text", "1", False, False, {}), "the reward is '1'; expected a number"),
        ((1, 0.0, False, False, {}), "the observation is int; expected str"),
        (("text", 0.0, "False", False, {}), "terminated is 'False'; expected True or False"),
        (("text", 1.0, True, False, {"success": "False"}), "info['success'] is 'False'; expected True or False"),
        (("text", 1.0, False, False, None), "info is NoneType; expected dict"),
    ],
)
def test_environment_that_breaks_its_contract_ends_the_episode(answer: Any, said: str) -> None:
    """What cannot be an answer is an env_error, not a crash; a text is no bool."""
    world = type("World", (GridWorld,), {"step": lambda self, action: answer})
    final = agent_with(env=world).invoke({"task": PIT})
    assert (final["end"], final["turns"]) == ("env_error", [])
    assert final["error"] == f"EnvError: {said}"


@pytest.mark.parametrize("way", ["sync", "async"])
def test_model_that_raises_ends_the_episode(way: str) -> None:
    """The call that failed is counted, the episode ends as model_error, and nobody reflects upon it."""

    def reply(messages: Any, seed: Any) -> str:
        if len(messages) > 3:
            raise ValueError("no answer")
        return pit_reply(messages)

    final = play(agent_with(reply), {"task": PIT}, way=way)
    assert (final["end"], final["error"]) == ("model_error", "ValueError: no answer")
    assert (actions(final), final["cost"]["model_calls"], final["reflections"]) == (["down"], 2, [])


def test_reflector_that_raises_leaves_the_end_as_it_was() -> None:
    """A failure stays a failure when nobody could reflect upon it."""

    def reply(messages: Any, seed: Any) -> str:
        if is_reflection(messages):
            raise ValueError("no answer")
        return pit_reply(messages)

    final = agent_with(reply).invoke({"task": PIT})
    assert (final["end"], final["reflection"], final["cost"]["reflections"]) == ("failure", None, 1)
    assert "no answer" in final["error"]


def test_action_that_cannot_be_read_ends_the_episode() -> None:
    """A parser of actions that raises is a failure of what the model said, not of the run."""
    prompts = Prompts(action=lambda message: {"down": "down"}[message["content"]])
    final = agent_with(prompts=prompts).invoke({"task": PIT})
    assert (final["end"], final["error"], actions(final)) == ("model_error", "KeyError: 'right'", ["down"])


def test_text_that_utf8_cannot_say_is_replaced_at_the_door(tmp_path: Path) -> None:
    """Half a surrogate pair, from a model or a world, neither crashes a saver nor a log, nor differs after reading."""
    half = "\ud83d"

    class Odd(GridWorld):
        def reset(self, **kwargs: Any) -> Any:
            observation, info = super().reset(**kwargs)
            return observation + half, info

        def step(self, action: str) -> Any:
            observation, *rest, info = super().step(action)
            return observation + half, *rest, info | {"feedback": half}

    reply = lambda m, s: '{"step": 0, "experience": "\\ud83d!"}' if is_reflection(m) else half  # noqa: E731
    saver = InMemorySaver()
    agent = agent_with(reply, Odd, checkpointer=saver, max_turns=3, max_rewinds=1)
    final = agent.invoke({"task": PIT}, THREAD)
    assert (final["end"], final["experience"], actions(final)) == ("max_turns", "?!", ["?"] * 3)
    assert agent.get_state(THREAD).values == final
    run = explore(ScriptedModel(reply=reply), Odd, [PIT], out=tmp_path / "run", max_turns=3)
    assert {branch["end"] for branch in run.branches} == {"max_turns"}


@pytest.mark.parametrize(
    ("budget", "end", "spent"),
    [
        (Budget(env_steps=2), "budget", {"env_steps": 2, "model_calls": 2}),
        (Budget(model_calls=3), "failure", {"env_steps": 3, "model_calls": 3, "reflections": 0}),
        (Budget(model_calls=5), "budget", {"env_steps": 4, "model_calls": 5, "reflections": 1}),
        (Budget(reflections=0), "failure", {"env_steps": 3, "model_calls": 3, "reflections": 0}),
        (Budget(replayed_steps=1), "budget", {"env_steps": 3, "replayed_steps": 0}),
        (Budget(env_steps=0), "budget", {"env_steps": 0, "model_calls": 0}),
    ],
    ids=str,
)
def test_agents_budget_is_never_exceeded(budget: Budget, end: str, spent: dict[str, int]) -> None:
    """The step that would exceed a limit is not taken; a reflection that cannot be paid leaves the end as it was."""
    final = agent_with(env=GridWorld, budget=budget).invoke({"task": PIT})
    assert final["end"] == end
    assert {field: final["cost"][field] for field in spent} == spent


def test_budget_of_reflections_does_not_end_an_episode() -> None:
    """Without reflections left, an episode that is not over goes on without them."""
    reply = lambda m, s: '{"step": null}' if is_reflection(m) else "left"  # noqa: E731
    final = agent_with(reply, reflect_every=1, max_turns=6, budget=Budget(reflections=2)).invoke({"task": PIT})
    assert (final["end"], len(final["turns"]), final["cost"]["reflections"]) == ("max_turns", 6, 2)


def test_finished_episode_leaves_its_world_to_the_next() -> None:
    """One episode after another needs one instance, rewinds included: a heavy simulator is not started again."""
    made: list[Any] = []
    pool = EnvPool(lambda: made.append(SnapshotGridWorld()) or made[-1])  # type: ignore[func-returns-value]
    agent = agent_with(env=pool)
    for _ in range(3):
        assert agent.invoke({"task": PIT})["end"] == "success"
    assert len(made) == 1


def test_many_runs_share_one_agent() -> None:
    """Forty runs of one agent at once, on the same task and a pool of three worlds, do not disturb each other."""
    agent = agent_with(env=EnvPool(GridWorld, size=3))

    async def all_at_once() -> list[Any]:
        return await asyncio.gather(*(agent.ainvoke({"task": PIT}) for _ in range(40)))

    finals = asyncio.run(all_at_once())
    assert {(final["end"], *actions(final)) for final in finals} == {("success", *WON)}


def test_snapshot_brings_back_a_task_without_a_seed() -> None:
    """An environment that starts differently each time is rewound by its snapshot alone."""

    class Anywhere(SnapshotGridWorld):
        starts = iter(range(100))

        def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
            seen, info = super().reset(seed=seed, options=options)
            return f"{seen} (visit {next(self.starts)})", info

    final = agent_with(env=Anywhere).invoke({"task": PIT})
    assert (final["end"], len(final["abandoned"])) == ("success", 1)


def test_token_ids_of_an_experience_are_not_in_the_history() -> None:
    """A model that gives its prompt's token ids: those that spell the experience are not kept."""

    class Counting(ScriptedModel):
        def _generate(self, *args: Any, **kwargs: Any) -> Any:
            result = super()._generate(*args, **kwargs)
            result.generations[0].message.response_metadata["prompt_token_ids"] = [1, 2, 3]
            return result

    model = Counting(reply=pit_reply)
    final = create_leafe_agent(model, env=SnapshotGridWorld, experience_turns=1).invoke({"task": PIT})
    assert final["end"] == "success"
    assert ["prompt_token_ids" in turn["message"] for turn in final["turns"]] == [True, True, False, True]
