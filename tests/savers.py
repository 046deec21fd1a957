"""The five ways of keeping checkpoints that the tests run over."""

import asyncio
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from langgraph.checkpoint.memory import InMemorySaver

MEMORY, SQLITE, ASYNC_SQLITE = "InMemorySaver", "SqliteSaver", "AsyncSqliteSaver"
POSTGRES, ASYNC_POSTGRES = "PostgresSaver", "AsyncPostgresSaver"
SAVERS = [MEMORY, SQLITE, ASYNC_SQLITE, POSTGRES, ASYNC_POSTGRES]


def opener(kind: str, where: Path | str) -> Callable[[], Any]:
    """What opens a saver of this kind on a file, or on the database of an address, again and again."""
    if kind == MEMORY:
        memory = InMemorySaver()
        return lambda: nullcontext(memory)
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
