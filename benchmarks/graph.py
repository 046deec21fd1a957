"""Steps a second and bytes written: ``explore`` beside a two-node LangGraph graph as its users write it.

Every decision point can be rewound to in both. Model and environment answer at once, so what is measured is the graph
and its checkpoints. The arms take turns, since the machine may be doing other things; the medians are printed.

python benchmarks/graph.py [--growth docs/growth.svg]
"""

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from langchain_core.messages import BaseMessage, HumanMessage
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from typing_extensions import TypedDict

from leafe_graph import Limits, PostgresTreeSaver, TreeSaver, aexplore, create_leafe_agent
from leafe_graph.testing import ScriptedModel, SnapshotGridWorld, grid_tasks
from leafe_graph.types import Durability

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from postgres import programs, server
from worlds import wandering_reply

MODEL = ScriptedModel(reply=lambda messages, seed: "go to the next room")
ROOM = "You are in a room with a door to the north and a door to the east. There is a table. "
Open = Callable[[Path], Any]
"""What opens a saver in a folder."""


class Instant:
    """Answers at once with ``length`` characters that differ from step to step; has snapshots."""

    length = 200

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        """Begin."""
        self.at = 0
        return self._look(), {}

    def _look(self) -> str:
        return f"{self.at}. {ROOM * (self.length // len(ROOM) + 1)}"[: self.length]

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Go on."""
        self.at += 1
        return self._look(), 0.0, False, False, {"feedback": "moved"}

    def snapshot(self) -> bytes:
        """Where it is."""
        return b"%d" % self.at

    def restore(self, state: bytes) -> None:
        """Be there."""
        self.at = int(state)

    def close(self) -> None:
        """Nothing is held."""


class Chat(TypedDict):
    """The plain graph's state."""

    messages: Annotated[list[BaseMessage], add_messages]
    turns: int


async def plain(folder: Path, episodes: int, turns: int, open_saver: Open | None) -> int:
    """Two nodes, a list of messages, one thread an episode, LangGraph's defaults; the model sees the last message."""
    worlds = [Instant() for _ in range(episodes)]

    async def model(state: Chat) -> dict[str, Any]:
        return {"messages": [await MODEL.ainvoke(state["messages"][-1:])]}

    async def environment(state: Chat, config: RunnableConfig) -> dict[str, Any]:
        world = worlds[int(config["configurable"]["thread_id"])]
        return {"messages": [HumanMessage(world.step(state["messages"][-1].text)[0])], "turns": state["turns"] + 1}

    graph = StateGraph(Chat)
    graph.add_node("model", model)
    graph.add_node("environment", environment)
    graph.add_edge(START, "model")
    graph.add_edge("model", "environment")
    graph.add_conditional_edges("environment", lambda state: END if state["turns"] == turns else "model")
    async with open_saver(folder) if open_saver else nullcontext() as saver:
        agent = graph.compile(checkpointer=saver)

        async def play(number: int) -> None:
            start = {"messages": [HumanMessage(worlds[number].reset()[0])], "turns": 0}
            await agent.ainvoke(start, {"configurable": {"thread_id": str(number)}, "recursion_limit": 3 * turns})

        await asyncio.gather(*map(play, range(episodes)))
    return episodes * turns


async def ours(
    folder: Path, episodes: int, turns: int, open_saver: Open | None, durability: Durability = "async"
) -> int:
    """The whole of `explore`, its log of branches included; one branch a task."""
    async with open_saver(folder) if open_saver else nullcontext() as saver:
        run = await aexplore(
            MODEL,
            Instant,
            [{"id": str(number), "instruction": ""} for number in range(episodes)],
            out=folder / "run",
            limits=Limits(max_branches=1),
            max_turns=turns,
            history=0,
            concurrency=episodes,
            checkpointer=saver,
            durability=durability,
        )
    return run.cost["env_steps"]


async def trees(folder: Path, tasks: int, turns: int, saver: str | None, durability: Durability = "async") -> int:
    """Short branches with reflections and forks, as ``explore`` grows them; gives the steps that were played."""
    run = await aexplore(
        ScriptedModel(reply=wandering_reply),
        SnapshotGridWorld,
        grid_tasks(tasks),
        out=folder / "run",
        limits=Limits(max_branches=6, max_depth=3, stop_on_success=False),
        max_turns=turns,
        checkpointer=saver,
        durability=durability,
    )
    return run.cost["env_steps"]


def sqlite(folder: Path) -> Any:
    """LangGraph's saver on a new file."""
    return AsyncSqliteSaver.from_conn_string(str(folder / "langgraph.sqlite"))


def tree(folder: Path) -> Any:
    """Ours, in the run folder."""
    return nullcontext("sqlite")


def postgres(address: str) -> Open:
    """LangGraph's saver on emptied tables."""
    from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver

    @asynccontextmanager
    async def open_saver(folder: Path) -> AsyncIterator[Any]:
        async with AsyncPostgresSaver.from_conn_string(address) as saver:
            await saver.setup()
            await saver.conn.execute("TRUNCATE checkpoints, checkpoint_blobs, checkpoint_writes")
            yield saver

    return open_saver


class Nowhere(BaseCheckpointSaver[int]):
    """Keeps nothing and costs nothing: what no saver can be faster than while a turn is a superstep."""

    async def aget_tuple(self, config: RunnableConfig) -> None:
        """Nothing is there."""

    async def aput(self, config: RunnableConfig, checkpoint: Any, metadata: Any, new_versions: Any) -> RunnableConfig:
        """Only say what it would be called."""
        return {"configurable": {**config["configurable"], "checkpoint_id": checkpoint["id"]}}

    async def aput_writes(self, config: RunnableConfig, writes: Any, task_id: str, task_path: str = "") -> None:
        """Forget it."""


def postgres_tree(address: str) -> Open:
    """Ours, by the address, on an emptied table."""
    import psycopg

    def open_saver(folder: Path) -> Any:
        with PostgresTreeSaver(address):
            pass  # the table is there
        with psycopg.connect(address) as connection:
            connection.execute("TRUNCATE leafe_segments")
        return nullcontext(address)

    return open_saver


def database_cpu(address: str | None) -> float:
    """Seconds of processor time that the server and its processes have taken, also those that have ended."""
    if address is None:
        return 0.0
    import psycopg

    def stat(pid: Any) -> list[str]:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()

    with psycopg.connect(address) as connection:
        server = stat(connection.info.backend_pid)[1]
        ticks = sum(map(int, stat(server)[11:15]))  # its own, and those of its children that have ended
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                ticks += sum(map(int, found[11:13])) if (found := stat(folder.name))[1] == server else 0
    return ticks / os.sysconf("SC_CLK_TCK")


def written(address: str | None) -> int:
    """Bytes that this process has written to files, or that the server has written to its log."""
    if address is None:
        return int(Path("/proc/self/io").read_text().split("wchar:")[1].split()[0])
    import psycopg

    with psycopg.connect(address) as connection:
        row = connection.execute("SELECT pg_current_wal_lsn() - '0/0'").fetchone()
    return int(row[0]) if row else 0


def measure(arm: Any, episodes: int, turns: int, open_saver: Any, address: str | None = None) -> dict[str, float]:
    """One run: steps a second by the clock and by the processor's time, bytes a step, written and left on the disk."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bytes_, served, clock, cpu = written(address), database_cpu(address), time.perf_counter(), time.process_time()
        steps = asyncio.run(arm(folder, episodes, turns, open_saver))
        clock, cpu = time.perf_counter() - clock, time.process_time() - cpu
        served = database_cpu(address) - served
        kept = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        return {
            "steps/s": steps / clock,
            "steps/CPU s": steps / cpu,
            "with the database's": steps / (cpu + served),
            "bytes written/step": (written(address) - bytes_) / steps,
            "bytes kept/step": float("nan") if address else kept / steps,
            "ms/step": 1000 * clock / steps,
            "CPU ms/step": 1000 * cpu / steps,
        }


def table(episodes: int, turns: int, rounds: int, address: str | None) -> None:
    """Print the comparison as Markdown."""
    arms: list[tuple[str, Any, Any, str | None]] = [
        ("LangGraph, AsyncSqliteSaver", plain, sqlite, None),
        ("explore, TreeSaver", ours, tree, None),
        ("explore, TreeSaver, a superstep a branch", partial(ours, durability="exit"), tree, None),
        ("LangGraph, no saver", plain, None, None),
        ("explore, a saver that keeps nothing", ours, lambda folder: nullcontext(Nowhere()), None),
    ]
    if address is not None:
        saver = postgres(address)
        arms += [
            ("LangGraph, AsyncPostgresSaver", plain, saver, address),
            ("explore, AsyncPostgresSaver", ours, saver, address),
            ("explore, PostgresTreeSaver", ours, postgres_tree(address), address),
            (
                "explore, PostgresTreeSaver, a superstep a branch",
                partial(ours, durability="exit"),
                postgres_tree(address),
                address,
            ),
        ]
    show(arms, rounds, f"{episodes} episodes at once, {turns} turns", episodes, turns)


def table_of_trees(tasks: int, turns: int, rounds: int) -> None:
    """Print what growing trees of short branches costs, as Markdown."""
    arms = [
        ("decision points in SQLite", trees, "sqlite", None),
        ("in SQLite, a superstep a branch", partial(trees, durability="exit"), "sqlite", None),
        ("in memory", trees, "memory", None),
    ]
    show(arms, rounds, f"trees of {tasks} tasks, at most {turns} turns a branch", tasks, turns)


def show(arms: list[tuple[str, Any, Any, str | None]], rounds: int, what: str, episodes: int, turns: int) -> None:
    """Run the arms in turns, and print the medians as Markdown."""
    found: dict[str, list[dict[str, float]]] = {name: [] for name, *_ in arms}
    for number in range(rounds):
        for name, arm, saver, where in arms:
            found[name].append(measure(arm, episodes, turns, saver, where))
            shown = ", ".join(f"{key} {value:,.0f}" for key, value in found[name][-1].items() if "ms" not in key)
            print(f"round {number + 1}: {name}: {shown}", flush=True)
    columns = ("steps/s", "steps/CPU s", "with the database's", "bytes written/step", "bytes kept/step")
    print(f"\n{what}, medians of {rounds}:\n")
    print("| |", *(f"{column} |" for column in columns))
    print("|---|" + "---:|" * len(columns))
    for name, runs in found.items():
        medians = (statistics.median(run[column] for run in runs) for column in columns)
        print(f"| {name} |", *("– |" if value != value else f"{value:,.0f} |" for value in medians))


async def rewinds(folder: Path, turns: int) -> None:
    """Print how long it takes to go back in one long episode: fork, and fork with the first step from there."""
    Instant.length = 50
    with TreeSaver(folder / "checkpoints.sqlite") as saver:
        agent = create_leafe_agent(MODEL, env=Instant, checkpointer=saver, max_turns=turns, max_rewinds=0, history=0)
        final = await agent.ainvoke({"task": {"id": "t", "instruction": ""}}, {"configurable": {"thread_id": "1"}})
        print(f"\n| rewind {turns:,} turns to | fork, ms | first step from there, ms |\n|---|---:|---:|")
        for tau in sorted({1, turns // 10, turns // 2, turns - 1}):
            place: RunnableConfig = {
                "configurable": {
                    "thread_id": "1",
                    "checkpoint_ns": "",
                    "checkpoint_id": final["turns"][tau]["checkpoint_id"],
                }
            }
            times = []
            for _ in range(5):
                start = time.perf_counter()
                fork = await agent.aupdate_state(place, {"experience": "Another way."}, as_node="rewind")
                forked = time.perf_counter()
                await agent.ainvoke(None, fork, interrupt_after=["step"])
                times.append((1000 * (forked - start), 1000 * (time.perf_counter() - forked)))
            print(f"| {tau:,} |", *(f"{statistics.median(column):,.0f} |" for column in zip(*times, strict=True)))


def growth(file: Path, lengths: list[int]) -> None:
    """Bytes and milliseconds a step of one episode, by its length: printed and drawn."""
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    Instant.length = 50
    arms = {"LangGraph, AsyncSqliteSaver": (plain, sqlite), "explore, TreeSaver": (ours, tree)}
    found = {name: [measure(arm, 1, turns, saver) for turns in lengths] for name, (arm, saver) in arms.items()}
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
    print("\n| one episode of | " + " | ".join(f"{turns:,} turns" for turns in lengths) + " |")
    print("|---|" + "---:|" * len(lengths))
    for axis, column in zip(axes, ("bytes written/step", "CPU ms/step"), strict=True):
        for name, runs in found.items():
            values = [run[column] for run in runs]
            print(f"| {name}: {column} |", *(f"{value:,.1f} |" for value in values))
            axis.plot(lengths, values, marker="o", label=name)
        axis.set(xscale="log", yscale="log", xlabel="turns of the episode", title=column)
        axis.set_xticks(lengths, [f"{turns:,}" for turns in lengths])
        axis.grid(alpha=0.3)
    for name, runs in found.items():
        print(f"| {name}: ms/step by the clock |", *(f"{run['ms/step']:,.1f} |" for run in runs))
    axes[0].legend()
    figure.savefig(file)


def main() -> None:
    """Measure, and print Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--episodes", type=int, default=64)
    parser.add_argument("--turns", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--growth", type=Path, help="also draw how bytes and time grow to this file")
    parser.add_argument(
        "--lengths", type=int, nargs="+", default=[10, 100, 1000], help="turns of the growth's episodes"
    )
    arguments = parser.parse_args()
    binaries = programs()
    if binaries is None:
        print("no PostgreSQL server is installed: left out")
    with server(binaries, settings="") if binaries else nullcontext() as database:
        if arguments.rounds:
            table(arguments.episodes, arguments.turns, arguments.rounds, database and database.address())
            table_of_trees(150, 8, arguments.rounds)
    if arguments.growth:
        growth(arguments.growth, arguments.lengths)
        with tempfile.TemporaryDirectory() as folder:
            asyncio.run(rewinds(Path(folder), arguments.lengths[-1]))


if __name__ == "__main__":
    main()
