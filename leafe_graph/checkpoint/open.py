"""Where decision points are kept: a checkpoint saver that is open already, or what opens one in a run's event loop."""

from contextlib import AbstractAsyncContextManager, AsyncExitStack
from pathlib import Path

from langgraph.checkpoint.base import BaseCheckpointSaver

from ..errors import ConfigError, MissingDependency
from .points import DecisionPoints, Saved, Saver, Unsaved
from .sqlite import TreeSaver

Checkpoints = Saver | AbstractAsyncContextManager[Saver] | str
"""A saver; an asynchronous context manager that opens one, such as ``AsyncSqliteSaver.from_conn_string(file)``; or the
address of a PostgreSQL database, ``postgresql://USER@HOST/DATABASE``."""


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


async def open_saver(checkpoints: Checkpoints, stack: AsyncExitStack) -> Saver:
    """The saver, open until ``stack`` is closed. A database's tables are made if missing.

    Raises:
        ConfigError: it is none, nor what opens one, or the database cannot be reached.
        MissingDependency: the extra that it needs is not installed.
    """
    if isinstance(checkpoints, str):
        return await _postgres(checkpoints, stack)
    if isinstance(checkpoints, BaseCheckpointSaver):
        return checkpoints
    if isinstance(checkpoints, AbstractAsyncContextManager):
        return await stack.enter_async_context(checkpoints)
    raise ConfigError(
        f"checkpointer is {type(checkpoints).__name__!r}; expected a checkpoint saver, an asynchronous context manager "
        "that opens one, or the address of a database as postgresql://USER@HOST/DATABASE"
    )


async def _postgres(address: str, stack: AsyncExitStack) -> Saver:
    scheme = address.partition("://")[0]
    if scheme not in ("postgresql", "postgres"):  # the rest of it may hold a password
        raise ConfigError(
            f"checkpointer is a text that begins with {scheme[:20]!r}; expected postgresql://HOST/DATABASE"
        )
    try:
        from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
        from psycopg import OperationalError
    except ImportError as error:
        raise MissingDependency(extra="postgres", needed_for="checkpoints in PostgreSQL") from error
    try:
        saver = await stack.enter_async_context(AsyncPostgresSaver.from_conn_string(address))
        await saver.setup()
    except OperationalError as error:
        raise ConfigError(f"the database for checkpoints cannot be opened: {error}") from error
    return saver
