"""Everything this package raises on purpose.

::

    LeafeError
    ├── ConfigError (ValueError)           wrong arguments, an unreadable config, a run folder made by other settings
    ├── MissingDependency (ImportError)    an extra is not installed
    ├── EnvError (RuntimeError)            an environment raised or broke its contract
    │   ├── ReplayDivergence               a replay did not bring back what was recorded
    │   ├── EnvLost                        an environment's process hung or died
    │   └── WorldError                     what an agent's tools change cannot be kept or brought back
    │       ├── WorldBusy                  another episode, process or transaction has it
    │       └── WorldLost                  a snapshot is gone
    ├── ModelError (RuntimeError)          a model call failed, or nothing answers
    │   └── PromptError                    a model does not take one prompt for its words; it takes others
    ├── NothingPlayed (RuntimeError)       every branch or sample failed: there is nothing to judge or to learn from
    ├── BudgetExceeded (RuntimeError)      the next step would go over a limit
    ├── CheckpointError (RuntimeError)     a checkpoint saver did not give back what was saved
    ├── WorkersLost (RuntimeError)         no worker of a cluster has been there for a while; the run can be resumed
    ├── RunFolderError (OSError)           a run folder is locked, or holds what cannot be read
    └── ExampleError (ValueError)          a training row that would train wrongly

Every child also inherits the standard type it stands for, keeps its data as attributes, and can be pickled.
"""

from typing import Any


def install(extra: str) -> str:
    """The command that adds an extra, from where this package was installed: a clone, a Git address, a file, an index.

    Installers write that down in ``direct_url.json`` (PEP 610), and nothing where it came from an index.
    """
    import json
    from importlib.metadata import PackageNotFoundError, distribution
    from urllib.request import url2pathname

    try:
        written = json.loads(distribution("leafe-graph").read_text("direct_url.json") or "{}")
    except PackageNotFoundError:  # its folder was put on the path
        return f'pip install ".[{extra}]"  # in the clone'
    url, folder = written.get("url", ""), written.get("dir_info")
    if folder is not None:
        editable = "-e " if folder.get("editable") else ""
        return f'pip install {editable}"{url2pathname(url.removeprefix("file://"))}[{extra}]"'
    if version := written.get("vcs_info"):
        url = f"{version['vcs']}+{url}@{version['commit_id']}"
    return f'pip install "leafe-graph[{extra}]{url and " @ " + url}"'


class LeafeError(Exception):
    """Root of all errors of this package; keyword arguments become attributes and survive pickling."""

    def __init__(self, message: str, **data: Any) -> None:
        super().__init__(message)
        self.__dict__.update(data)

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), str(self.args[0]), dict(self.__dict__))


def _rebuild(cls: type[LeafeError], message: str, data: dict[str, Any]) -> LeafeError:
    return cls(message, **data)


class ConfigError(LeafeError, ValueError):
    """The caller asked for something that cannot be."""


class MissingDependency(LeafeError, ImportError):
    """An optional package is needed; ``extra`` names what to install."""

    def __init__(self, message: str = "", *, extra: str = "", needed_for: str = "", **data: Any) -> None:
        text = message or f"{needed_for} needs packages that are not installed: {install(extra)}"
        super().__init__(text, extra=extra, needed_for=needed_for, **data)


class EnvError(LeafeError, RuntimeError):
    """An environment raised, or did not keep its contract."""


class ReplayDivergence(EnvError):
    """Replaying recorded actions gave another observation: the environment is not deterministic.

    ``turn``: 0-based decision point whose observation differs. ``expected``/``actual``: the two texts.
    """

    turn: int
    expected: str
    actual: str


class EnvLost(EnvError):
    """An environment's process hung, and was ended, or died.

    ``exitcode``: as `multiprocessing.Process.exitcode` has it: minus the signal's number; None if it hung.
    """

    exitcode: int | None


class WorldError(EnvError):
    """What an agent's tools change cannot be kept or brought back."""


class WorldBusy(WorldError):
    """A world is in use: by another episode or process, or by a transaction that is open."""


class WorldLost(WorldError):
    """A snapshot of a world is gone: it was forgotten, is damaged, or died with its process."""


class ModelError(LeafeError, RuntimeError):
    """A model call failed or gave nothing that can be used."""


class PromptError(ModelError):
    """A model does not take a prompt for what was said in it; it is well, and takes others."""


class NothingPlayed(LeafeError, RuntimeError):
    """Every branch was failed by its model or its environment, so nothing is known of the policy.

    ``causes``: what was raised, with how many branches it ended, the most frequent first.
    """

    causes: dict[str, int]


class BudgetExceeded(LeafeError, RuntimeError):
    """Raised before the step that would exceed it. ``limit``: the field's name."""

    limit: str


class CheckpointError(LeafeError, RuntimeError):
    """A checkpoint saver did not give back what was saved.

    ``property``: what does not hold; ``expected``/``actual``: the values, absent where the saver raised.
    """


class WorkersLost(LeafeError, RuntimeError):
    """No worker of a cluster has been there for a while. What was logged is safe, and the run can be resumed."""


class RunFolderError(LeafeError, OSError):
    """A run folder is in use by another process, or its files cannot be read."""


class ExampleError(LeafeError, ValueError):
    """A training row that would train wrongly. ``row``: its 0-based position."""

    row: int
