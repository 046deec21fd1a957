"""A sandbox elsewhere as a world, by what its maker's library can do."""

from collections.abc import Callable

from ...errors import WorldError


class Sandbox:
    """A sandbox of any maker: one call keeps its state, another one starts from it.

    ``box`` is what the tools have, and ask for the sandbox of the moment. With Modal 1.6 (kept for 30 days)::

        def fork(ref: str) -> None:
            box.sandbox = modal.Sandbox.create(image=modal.Image.from_id(ref), app=app)

        Sandbox(lambda: box.sandbox.snapshot_filesystem().object_id, fork)

    With Daytona 0.226::

        def keep() -> str:
            box.sandbox.create_snapshot(name := uuid.uuid4().hex)
            return name

        def fork(ref: str) -> None:
            box.sandbox = daytona.create(CreateSandboxFromSnapshotParams(snapshot=ref))

        Sandbox(keep, fork, forget=daytona.snapshot.delete)

    Args:
        snapshot: keeps the state of the sandbox that the tools use; its id.
        fork: starts a sandbox from that state and has the tools use it from now on. It may end the other one, whose
            state is lost then; where the id is not known any more, it raises `WorldLost`.
        forget: deletes what was kept; None: it stays, until whoever keeps it deletes it.
        durable: whether an id outlives this process.
    """

    def __init__(
        self,
        snapshot: Callable[[], str],
        fork: Callable[[str], object],
        *,
        forget: Callable[[str], object] | None = None,
        durable: bool = True,
    ) -> None:
        self.durable = durable
        self._snapshot, self._fork, self._forget = snapshot, fork, forget

    def snapshot(self) -> str:
        """The id of what was kept.

        Raises:
            WorldError: ``snapshot`` raised, or gave no id.
        """
        ref = _called("snapshot", self._snapshot)
        if not isinstance(ref, str) or not ref:
            raise WorldError(f"snapshot() of a Sandbox gave {ref!r}; expected an id, a str that is not empty")
        return ref

    def restore(self, ref: str) -> None:
        """Start from what was kept.

        Raises:
            WorldError: ``fork`` raised.
        """
        _called("fork", self._fork, ref)

    def forget(self, ref: str) -> None:
        """Delete what was kept.

        Raises:
            WorldError: ``forget`` raised.
        """
        if self._forget is not None:
            _called("forget", self._forget, ref)


def _called(what: str, call: Callable[..., object], *args: str) -> object:
    try:
        return call(*args)
    except WorldError:
        raise
    except Exception as error:
        named = f"{what}({', '.join(map(repr, args))})"
        raise WorldError(f"{named} of a Sandbox raised {type(error).__name__}: {error}") from error
