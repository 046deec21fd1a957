"""The log of a run, written once for all branches that end while it is being written: one sync of the disk for them."""

import asyncio

from ..tree.log import Entry
from ..tree.outline import Outline
from ..tree.run_folder import RunFolder
from ..types import Branch


class Commits:
    """Appends branches to a run's log, in the order in which they are given."""

    def __init__(self, run: RunFolder) -> None:
        self._run = run
        self._waiting: list[tuple[Branch | Entry, asyncio.Future[Outline]]] = []
        self._writing: asyncio.Task[None] | None = None

    async def append(self, branch: Branch | Entry) -> Outline:
        """The outline of the branch, when that is on the disk.

        Raises:
            RunFolderError: as `RunFolder.append`.
        """
        done: asyncio.Future[Outline] = asyncio.get_running_loop().create_future()
        self._waiting.append((branch, done))
        if self._writing is None:
            self._writing = asyncio.create_task(self._write())
        return await done

    async def close(self) -> None:
        """Wait for what is being written."""
        if self._writing is not None:
            await self._writing

    async def _write(self) -> None:
        try:
            while self._waiting:
                now, self._waiting = self._waiting, []
                error: Exception | None = None
                written: list[Outline] = []
                try:
                    written = await asyncio.to_thread(self._run.write, [branch for branch, _ in now])
                except Exception as raised:  # a full disk, which each of their writers is told
                    error = raised
                for outline in written:
                    self._run.add(outline)
                for at, (_, done) in enumerate(now):
                    if not done.done():  # its writer was cancelled
                        done.set_exception(error) if error is not None else done.set_result(written[at])
        finally:
            self._writing = None
