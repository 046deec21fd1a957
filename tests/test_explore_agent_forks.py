"""`explore_agent(fork=True)`: the same trees as by replays, and tools before a decision are not run again."""

import json
from pathlib import Path
from threading import Event
from typing import Annotated, Any

import pytest
from agents import calls
from langchain.agents import create_agent
from langchain_core.messages import AIMessage
from langgraph.channels import UntrackedValue
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.store.memory import InMemoryStore
from test_agent_kinds import KINDS, alone, beside, grown, inside
from test_explore_agent import (
    House,
    asking,
    explored,
    functional,
    own_graph,
    parallel,
    ready_made,
    says,
    supervised,
    tools_of,
)
from worlds import forest

from leafe_graph import Budget, Limits, Verdict
from leafe_graph.testing import ScriptedModel

STEPS = 6


def trees(branches: Any) -> Any:
    """The branches, in a form that equal runs share: the ids of some packages' calls are random."""

    def without(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: without(held) for name, held in value.items() if name not in ("id", "tool_call_id")}
        return [without(each) for each in value] if isinstance(value, list) else value

    return without(forest(branches))


class Counted(House):
    """Counts what it is asked, and knows which of its snapshots are still kept."""

    snapshots = 0

    def snapshot(self) -> str:
        self.snapshots += 1
        return super().snapshot()


class Climber:
    """An agent that takes so many steps, and a reflector that blames an earlier one each time."""

    def __init__(self, *blamed: int) -> None:
        self.ran: list[int] = []
        self.blamed = list(blamed)
        self.limits = Limits(max_branches=len(blamed) + 1, max_depth=9, branches_per_reflection=1)
        self.world = Counted()

    def build(self, model: Any, world: Any) -> Any:
        def step(n: int) -> str:
            """Take a step."""
            self.ran.append(n)
            world.data["taken"].append(n)
            return f"{len(world.data['taken'])} steps"

        return create_agent(model, [step])

    def says(self, messages: list[Any], seed: int | None) -> str | AIMessage:
        made = sum(message.type == "ai" for message in messages)
        return "I am there." if made == STEPS else calls(("step", {"n": made}))

    def reflects(self, messages: list[Any], seed: int | None) -> str:
        step = self.blamed.pop(0) if self.blamed else None
        return json.dumps({"step": step, "experience": f"not {step}"})

    def judge(self, result: Any, world: Any, task: Any) -> Verdict:
        return Verdict(False, f"{world.data['taken']}")

    def explored(self, out: Path, **more: Any) -> Any:
        given: Any = {"world": lambda task: self.world, "judge": self.judge, "model": ScriptedModel(reply=self.says)}
        given |= {"reflector": ScriptedModel(reply=self.reflects)}
        return explored(out, self.build, **given | {"limits": self.limits} | more)


@pytest.mark.parametrize("where", [alone, inside])
@pytest.mark.parametrize("kind", list(KINDS))
def test_trees_of_forks_are_those_of_replays(kind: str, where: Any, tmp_path: Path) -> None:
    """In every field but seconds and ids of checkpoints, whatever the agent."""
    by_replay, by_fork = (grown(kind, tmp_path / str(fork), where, fork=fork).branches for fork in (False, True))
    assert trees(by_fork) == trees(by_replay)
    assert [branch["end"] for branch in by_fork] == ["failure", "success"]


@pytest.mark.parametrize("build", [supervised, functional])
def test_so_it_is_where_a_step_holds_more_than_one_decision(build: Any, tmp_path: Path) -> None:
    """What was asked in that step before the decision is given back."""
    by_replay, by_fork = (explored(tmp_path / str(fork), build, fork=fork).branches for fork in (False, True))
    assert trees(by_fork) == trees(by_replay)


@pytest.mark.parametrize("build", [parallel, *(beside(build) for build in (ready_made, own_graph))])
def test_beside_others_it_forks_their_common_step(build: Any, tmp_path: Path) -> None:
    """Whichever of them was first: its decision is taken anew, and what had ended before is given back."""
    lost, won = explored(tmp_path / "run", build, fork=True).branches
    assert (lost["end"], won["end"]) == ("failure", "success")
    assert won["turns"][0]["request"] == lost["turns"][won["decision_point"]]["request"]
    assert won["cost"]["replayed_steps"] >= 1


@pytest.mark.parametrize("fork", [False, True])
def test_the_decision_that_is_taken_anew_is_a_branchs_first(fork: bool, tmp_path: Path) -> None:
    """Also where an agent beside it, which was slower in the attempt before, asks first now."""
    attempts, order = iter(range(9)), [Event(), Event()]

    def build(model: Any, world: Any) -> Any:
        first = next(attempts) == 0
        graph = StateGraph(MessagesState)

        def other(state: Any) -> Any:
            assert not first or order[0].wait(20)
            model.invoke("You have a cellar.")
            order[1].set()
            return {"messages": []}

        def mine(state: Any) -> Any:
            able, tools = model.bind_tools([*tools_of(world).values()]), tools_of(world)
            said = [*state["messages"], able.invoke(state["messages"])]
            said.append(tools["look"].invoke({**said[-1].tool_calls[0], "type": "tool_call"}))
            assert first or order[1].wait(20)
            said.append(able.invoke(said))
            order[0].set()
            said.append(tools["take"].invoke({**said[-1].tool_calls[0], "type": "tool_call"}))
            return {"messages": [able.invoke(said)]}

        for name, node in (("mine", mine), ("other", other)):
            graph.add_node(name, node)
            graph.add_edge(START, name)
        return graph.compile()

    lost, won = explored(tmp_path / "run", build, fork=fork, limits=Limits(max_branches=2)).branches
    assert (lost["end"], won["end"], won["decision_point"]) == ("failure", "success", 1)
    assert won["turns"][0]["request"] == lost["turns"][1]["request"]


@pytest.mark.parametrize("fork", [False, True])
def test_what_lies_before_the_decision_is_not_run_again(fork: bool, tmp_path: Path) -> None:
    """Neither in a branch of a branch, nor in one that begins where its parent began; the world is of that moment."""
    climber = Climber(4, 4, 2, 3)
    run = climber.explored(tmp_path / "run", fork=fork)
    assert [branch["decision_point"] for branch in run.branches] == [0, 4, 4, 2, 3]
    ran = [range(STEPS), *(range(t if fork else 0, STEPS) for t in (4, 4, 2, 3))]
    assert climber.ran == [n for each in ran for n in each]
    assert all(branch["turns"][-1]["feedback"] == f"{[*range(STEPS)]}" for branch in run.branches)
    assert [branch["cost"]["replayed_steps"] for branch in run.branches] == [0, 4, 4, 2, 3]
    assert climber.world._kept == {} and climber.world.data == {"taken": []}
    assert climber.world.snapshots == 1 if not fork else climber.world.snapshots > STEPS


def test_a_step_that_is_gone_is_come_to_by_a_replay(tmp_path: Path) -> None:
    """After a kill; and from there on it forks again."""
    whole = [*Climber(4, 3, 5).explored(tmp_path / "run", fork=True).branches]  # they are cut off below
    log = tmp_path / "run" / "branches.jsonl"
    log.write_text("".join(log.read_text().splitlines(keepends=True)[:2]))
    climber = Climber(5)
    climber.limits = Climber(4, 3, 5).limits
    again = climber.explored(tmp_path / "run", fork=True)
    assert forest(again.branches) == forest(whole)
    assert climber.ran == [*range(STEPS), *range(5, STEPS)]


def test_a_budget_of_replayed_steps_allows_the_same(tmp_path: Path) -> None:
    """Whether they are replayed or not."""
    few = Budget(replayed_steps=6)
    runs = [Climber(4, 3, 2).explored(tmp_path / str(fork), fork=fork, budget=few).branches for fork in (False, True)]
    assert trees(runs[0]) == trees(runs[1])
    assert runs[0][-1]["end"] == "budget"


def test_what_differs_every_time_is_no_divergence_where_it_is_not_asked_again(tmp_path: Path) -> None:
    """A clock, or a search of the web, before the decision."""
    times = iter(range(100))

    class Clocked(House):
        def seen(self) -> str:
            return f"{super().seen()[:-1]} at {next(times)}."

    two = Limits(max_branches=2)
    for fork, end in ((False, "replay_divergence"), (True, "success")):
        run = explored(tmp_path / str(fork), ready_made, world=lambda task: Clocked(), fork=fork, limits=two)
        assert [branch["end"] for branch in run.branches] == ["failure", end]


def test_an_agents_own_limit_of_steps_holds(tmp_path: Path) -> None:
    """Those before the step are counted."""

    def build(model: Any, world: Any) -> Any:
        return ready_made(model, world).with_config(recursion_limit=5)

    def looks_on(messages: list[Any], seed: int | None) -> str | AIMessage:
        told = any("not the vase" in message.text for message in messages)
        return calls(("look", {"place": "attic"})) if told else says(messages, seed)

    runs = [
        explored(
            tmp_path / str(fork), build, fork=fork, model=ScriptedModel(reply=looks_on), limits=Limits(max_branches=2)
        ).branches
        for fork in (False, True)
    ]
    assert trees(runs[0]) == trees(runs[1])
    assert runs[0][1]["end"] == "truncated"


def saver(model: Any, world: Any) -> Any:
    """Has a saver of its own."""
    return create_agent(model, [*tools_of(world).values()], checkpointer=InMemorySaver())


def store(model: Any, world: Any) -> Any:
    """Has a store."""
    return create_agent(model, [*tools_of(world).values()], store=InMemoryStore())


def remembering(model: Any, world: Any) -> Any:
    """Has a part that remembers from call to call."""
    graph = StateGraph(MessagesState)
    graph.add_node("agent", create_agent(model, [*tools_of(world).values()], checkpointer=True))
    graph.add_edge(START, "agent")
    graph.add_edge("agent", END)
    return graph.compile()


def untracked(model: Any, world: Any) -> Any:
    """Has a channel that no checkpoint keeps."""

    class State(MessagesState):
        n: Annotated[int, UntrackedValue]

    graph = StateGraph(State)
    graph.add_node("agent", ready_made(model, world))
    graph.add_edge(START, "agent")
    graph.add_edge("agent", END)
    return graph.compile()


@pytest.mark.parametrize("build", [saver, store, untracked, remembering, asking])
def test_an_agent_whose_state_is_not_all_in_its_checkpoints_is_replayed(build: Any, tmp_path: Path) -> None:
    """As ever; and so is a decision before which a person was asked."""
    world = Counted()
    run = explored(tmp_path / "run", build, fork=True, world=lambda task: world, answer=lambda asked: "yes")
    assert [branch["end"] for branch in run.branches] == ["failure", "success"]
    assert build is asking or world.snapshots == 1
