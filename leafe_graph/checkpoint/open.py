"""Where decision points are kept: a checkpoint saver that is open already, or what opens one in a run's event loop."""

import asyncio
from contextlib import AbstractAsyncContextManager, AbstractContextManager, AsyncExitStack
from pathlib import Path

from langgraph.checkpoint.base import BaseCheckpointSaver

from ..errors import ConfigError, MissingDependency
from .points import DecisionPoints, Saved, Saver, Unsaved
from .postgres import PostgresTreeSaver, not_opened
from .sqlite import TreeSaver

Checkpoints = Saver | AbstractAsyncContextManager[Saver] | str
"""A saver; an asynchronous context manager that opens one, such as ``AsyncSqliteSaver.from_conn_string(file)``; or the
address of a PostgreSQL database, ``postgresql://USER@HOST/DATABASE`` for a `PostgresTreeSaver`,
``postgresql+langgraph://USER@HOST/DATABASE`` for LangGraph's own saver."""
LANGGRAPHS = "+langgraph"
"""What is added to a scheme for LangGraph's own saver."""


def open_points(
    saver: Saver | None, stack: AsyncExitStack, *, file: Path | None, interval: float = 1.0
) -> DecisionPoints:
    """Where decision points are kept, open until ``stack`` is closed.

    Args:
        saver: what the user named, open already, see `open_saver`; None is ``file``.
        stack: closes what is opened here.
        file: SQLite in a `TreeSaver`, made if it does not exist; None is nowhere.
        interval: seconds that a put to ``file`` may wait for others to share its transaction.

    Raises:
        RunFolderError: ``file`` holds something else.
    """
    if saver is not None:
        return Saved(saver)
    return Unsaved() if file is None else Saved(stack.enter_context(TreeSaver(file, interval=interval)))


async def open_saver(checkpoints: Checkpoints, stack: AsyncExitStack, *, interval: float = 1.0) -> Saver:
    """The saver, open until ``stack`` is closed. A database's tables are made if missing.

    ``interval`` is as in `open_points`.

    Raises:
        ConfigError: it is none, nor what opens one, or the database cannot be reached.
        MissingDependency: the extra that it needs is not installed.
    """
    if isinstance(checkpoints, str):
        return await _postgres(checkpoints, stack, interval)
    if isinstance(checkpoints, BaseCheckpointSaver):
        return checkpoints
    if isinstance(checkpoints, AbstractAsyncContextManager):
        return await stack.enter_async_context(checkpoints)
    raise ConfigError(
        f"checkpointer is {type(checkpoints).__name__!r}; expected a checkpoint saver, an asynchronous context manager "
        "that opens one, or the address of a database as postgresql://USER@HOST/DATABASE"
    )


def opened(address: str) -> AbstractContextManager[Saver]:
    """The saver in the database of an address, for sync code; open while the context is.

    Raises:
        ConfigError: it is no address of a PostgreSQL database, or that cannot be opened.
        MissingDependency: the extra that it needs is not installed.
    """
    plain, langgraphs = _address(address)
    if not langgraphs:
        return PostgresTreeSaver(plain)
    try:
        from langgraph.checkpoint.postgres import PostgresSaver
    except ImportError as error:
        raise MissingDependency(extra="postgres", needed_for="checkpoints in PostgreSQL") from error
    return PostgresSaver.from_conn_string(plain)


async def _postgres(address: str, stack: AsyncExitStack, interval: float) -> Saver:
    plain, langgraphs = _address(address)
    if not langgraphs:
        return stack.enter_context(await asyncio.to_thread(PostgresTreeSaver, plain, interval=interval))
    try:
        from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
        from psycopg import Error
    except ImportError as error:
        raise MissingDependency(extra="postgres", needed_for="checkpoints in PostgreSQL") from error
    try:
        saver = await stack.enter_async_context(AsyncPostgresSaver.from_conn_string(plain))
        await saver.setup()
    except Error as error:
        raise not_opened(plain, error) from None
    return saver


def _address(checkpoints: str) -> tuple[str, bool]:
    """The database's address, and whether LangGraph's saver is asked for."""
    scheme, separator, rest = checkpoints.partition("://")
    plain = scheme.removesuffix(LANGGRAPHS)
    if not separator or plain not in ("postgresql", "postgres"):  # the rest of it may hold a password
        raise ConfigError(
            f"checkpointer is a text that begins with {scheme[:20]!r}; expected postgresql://HOST/DATABASE, or while "
            'exploring "memory" or "sqlite"'
        )
    return f"{plain}{separator}{rest}", plain != scheme
