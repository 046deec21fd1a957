"""How vLLM serves a policy on this machine: what a server is told, the one definition for Python, flags and files."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import Field, field_validator

from ..files import UserPath
from ..settings import Settings

if TYPE_CHECKING:
    AnyPath = str | Path
else:
    AnyPath = UserPath  # a text becomes one

PORT = Field(ge=1, le=65535)
SOME = Field(ge=1)


class ServeConfig(Settings):
    """How vLLM serves a policy on this machine."""

    python: AnyPath | None = None
    """Interpreter of the environment with vLLM; this one if it has vllm, else LEAFE_VLLM_PYTHON."""
    port: Annotated[int | None, PORT] = None
    """Where to listen on 127.0.0.1; a free port unless given. A run can be resumed with the same address only."""
    merge: bool | None = None
    """Merge an adapter into the weights and serve nothing beside it, instead of loading it beside them; on a CPU only,
    unless given: there LoRA requests cost most of the speed."""
    max_lora_rank: int = Field(default=32, ge=1)
    """Highest rank of an adapter."""
    max_loras: Annotated[int, SOME] = 2
    """Adapters whose requests are computed in one batch."""
    arguments: Sequence[str] = ()
    """More of vLLM's own arguments, such as ["--tensor-parallel-size", "4"]; they come last and win."""
    start_timeout: float = Field(default=600.0, gt=0)
    """Seconds until it must be healthy."""
    drain_timeout: float = Field(default=60.0, ge=0)
    """Seconds that requests in flight are given when it is stopped; vLLM's --shutdown-timeout."""

    def argument(self, name: str) -> int | None:
        """The number that ``arguments`` give one of vLLM's own; None where they do not."""
        said = " ".join(self.arguments).replace("=", " ").split()
        given = [value for word, value in pairwise(said) if word == name and value.isdecimal()]
        return int(given[-1]) if given else None

    @property
    def rank(self) -> int:
        """Highest rank that the server will take: the next that vLLM knows, or what ``arguments`` say."""
        from ..models.folders import RANKS

        if (own := self.argument("--max-lora-rank")) is not None:
            return own
        return next(rank for rank in RANKS if rank >= self.max_lora_rank)

    @field_validator("max_lora_rank")
    @classmethod
    def _known_rank(cls, rank: int) -> int:
        from ..models.folders import RANKS

        if rank > RANKS[-1]:
            raise ValueError(f"vLLM takes up to {RANKS[-1]}")
        return rank


class ServeSection(ServeConfig):
    """The same in a file of rounds, between which the policy is trained."""

    port: Annotated[int, PORT] = 8000
    """Where to listen on 127.0.0.1. 8000 is vLLM's default. A phase that was stopped goes on at the same port only."""
    max_loras: Annotated[int, SOME] = 1
    """Adapters whose requests are computed in one batch: the rounds ask for one at a time."""
    while_training: bool = False
    """Leave it running during a training, where memory suffices for both; else it is stopped, and started after."""


class ServerArguments(ServeConfig):
    """What one server is told: what it serves, and how."""

    model: str = Field(kw_only=False)
    """The base model: "local:smollm2-135m" (embedded), "local:FOLDER", a Hugging Face folder, or a hub name."""
    adapter: AnyPath | None = None
    """LoRA adapter that the policy starts with, as PEFT's folder: on a GPU beside the base, on a CPU merged into it."""
    folder: AnyPath | None = None
    """Where the log, merged weights and copies of adapters go; a temporary folder unless given."""
