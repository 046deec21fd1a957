"""What a method is: ``collect(policy, tasks) -> run`` and ``learn(policy, rounds) -> policy``."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

from typing_extensions import TypedDict

from ..finetune.config import TrainConfig
from ..method_settings import Curating, Probing
from ..phases.config import ExploreConfig, ExportConfig


@dataclass(frozen=True, kw_only=True)
class Policy:
    """What a method starts from and what it gives: all that it takes to play it, and to go on learning."""

    model: str
    """The model's spec: the base of an adapter, or the folder that full fine-tuning made."""
    adapter: Path | None = None
    """LoRA adapter on it."""
    playbook: Path | None = None
    """A text of the method's own that its prompts show; for methods that train nothing."""
    trained: Path | None = None
    """The folder that the last training made: the adapter's or the model's; None for what it all starts from."""
    state: Path | None = None
    """What the training goes on with: the folder of the one before, whose optimiser it takes over."""


@dataclass(frozen=True, kw_only=True)
class Tasks:
    """Which tasks are played."""

    start: int
    """Where in the split they begin, 0-based."""
    n: int
    """How many."""
    seed: int | None
    """Root of the sampling seeds."""
    env_steps: int | None = None
    """Environment steps that all of them may take together; None: what the settings of exploring say."""


@dataclass(frozen=True, kw_only=True)
class Round:
    """Where a round lies."""

    played: Path
    """The run folder that ``collect`` made; several methods may learn from one."""
    folder: Path
    """What ``learn`` makes of it, and the marks of that; the run folder itself unless that is shared."""


class Reached(TypedDict):
    """The settings with which explore and eval play a policy."""

    model: str
    adapter: Path | None
    playbook: Path | None


class Access(Protocol):
    """How a policy is reached."""

    def reach(self, policy: Policy) -> Reached:
        """How the policy is played; starts what that needs."""
        ...

    def pause(self) -> None:
        """Give memory back for a training; `reach` starts it again."""
        ...

    def close(self) -> None:
        """Give everything back."""
        ...


@dataclass(frozen=True, kw_only=True)
class Tools:
    """What a method works with: settings for its phases, and the means to play them."""

    explore: ExploreConfig
    export: ExportConfig
    train: TrainConfig
    access: Access
    probe: Probing
    playbook: Curating
    accelerate: Path | None
    """Train in several processes, as this file of accelerate's says."""
    once: Callable[[Path, str, Callable[[], dict[str, Any]]], dict[str, Any]]
    """``once(folder, phase, work)``: what a phase came to; it is played unless the folder has its mark."""


class Method(ABC):
    """One way to learn from play. Its docstring says which paper it follows, and what it leaves out."""

    phases: ClassVar[tuple[str, ...]]
    """What it does in a round, in order, by the names that it gives ``once``."""
    settings: ClassVar[Mapping[str, Any]] = {}
    """What the file of a run says unless it says otherwise: sections, and fields beside them."""

    def __init__(self, tools: Tools) -> None:
        self.tools = tools

    @property
    def reserved(self) -> int:
        """Environment steps of a round that `learn` may take: not for `collect`, where all together are limited."""
        return 0

    @abstractmethod
    def collect(self, policy: Policy, tasks: Tasks, *, out: Path) -> Path:
        """Have the policy play; the run folder, which is ``out``."""

    @abstractmethod
    def learn(self, policy: Policy, rounds: Sequence[Round]) -> Policy | None:
        """What the policy becomes by these rounds, the newest last; None if they hold nothing to learn from.

        The newest round's folder gets what is learned.
        """
