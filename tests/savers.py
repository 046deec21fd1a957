"""The ways of keeping checkpoints that the tests run over: LangGraph's five and our two, used sync and async."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path
from typing import Any

from langgraph.checkpoint.memory import InMemorySaver

from leafe_graph import PostgresTreeSaver, TreeSaver

MEMORY, SQLITE, ASYNC_SQLITE = "InMemorySaver", "SqliteSaver", "AsyncSqliteSaver"
POSTGRES, ASYNC_POSTGRES = "PostgresSaver", "AsyncPostgresSaver"
TREE, ASYNC_TREE = "TreeSaver", "TreeSaver-async"
POSTGRES_TREE, ASYNC_POSTGRES_TREE = "PostgresTreeSaver", "PostgresTreeSaver-async"
SAVERS = [MEMORY, SQLITE, ASYNC_SQLITE, POSTGRES, ASYNC_POSTGRES, TREE, ASYNC_TREE, POSTGRES_TREE, ASYNC_POSTGRES_TREE]


def opener(kind: str, where: Path | str) -> Callable[[], Any]:
    """What opens a saver of this kind on a file, or on the database of an address, again and again."""
    if kind == MEMORY:
        memory = InMemorySaver()
        return lambda: nullcontext(memory)
    ours: Any = {TREE: TreeSaver, POSTGRES_TREE: PostgresTreeSaver}.get(kind.removesuffix("-async"))
    if ours and kind.endswith("-async"):

        @asynccontextmanager
        async def opened() -> AsyncIterator[Any]:
            with ours(where) as saver:
                yield saver

        return opened
    if ours:
        return lambda: ours(where)
    if kind == SQLITE:
        from langgraph.checkpoint.sqlite import SqliteSaver

        return lambda: SqliteSaver.from_conn_string(str(where))
    if kind == ASYNC_SQLITE:
        from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

        return lambda: AsyncSqliteSaver.from_conn_string(str(where))
    from langgraph.checkpoint.postgres import PostgresSaver
    from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver

    if kind == POSTGRES:
        with PostgresSaver.from_conn_string(str(where)) as saver:
            saver.setup()
        return lambda: PostgresSaver.from_conn_string(str(where))

    async def set_up() -> None:
        async with AsyncPostgresSaver.from_conn_string(str(where)) as saver:
            await saver.setup()

    asyncio.run(set_up())
    return lambda: AsyncPostgresSaver.from_conn_string(str(where))
