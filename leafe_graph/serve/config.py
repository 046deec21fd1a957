"""How vLLM serves a policy on this machine."""

from pathlib import Path

from pydantic import Field

from ..settings import Settings


class Serving(Settings):
    """How vLLM serves the policy on this machine; `leafe serve` has the same settings."""

    python: Path | None = None
    """Interpreter of the environment with vLLM; this one if it has vllm, else LEAFE_VLLM_PYTHON."""
    port: int = Field(default=8000, ge=1, le=65535)
    """Where it listens on 127.0.0.1. 8000 is vLLM's default. A phase that was stopped goes on at the same port only."""
    merge: bool | None = None
    """Merge each adapter into the weights and start anew, instead of loading it beside them; on a CPU only, unless
    given: there LoRA requests cost most of the speed."""
    max_lora_rank: int = Field(default=32, ge=1, le=512)
    """Highest rank of an adapter."""
    max_loras: int = Field(default=1, ge=1)
    """Adapters that vLLM computes side by side: the rounds ask for one at a time."""
    arguments: list[str] = Field(default_factory=list)
    """More of vLLM's own arguments, such as ["--tensor-parallel-size", "4"]."""
    start_timeout: float = Field(default=600.0, gt=0)
    """Seconds until it must be healthy."""
    drain_timeout: float = Field(default=60.0, ge=0)
    """Seconds that requests in flight are given at the end."""
    while_training: bool = False
    """Leave it running during a training, where memory suffices for both; else it is stopped, and started after."""
