"""``leafe serve``."""

import shlex
import signal
from contextlib import suppress
from pathlib import Path

from pydantic import Field

from ..settings import Settings


class Serve(Settings):
    """Serve a model, and adapters on it, by a vLLM server on this machine until Ctrl-C."""

    model: str
    """The base model: "local:smollm2-135m" (embedded), "local:FOLDER", a Hugging Face folder, or a hub name."""
    adapter: Path | None = None
    """LoRA adapter to serve: on a GPU beside the base, on a CPU merged into it."""
    port: int | None = Field(default=None, ge=1, le=65535)
    """Where to listen on 127.0.0.1; a free port unless given. A run can be resumed with the same address only."""
    python: Path | None = None
    """Interpreter of the environment with vLLM; this one if it has vllm, else LEAFE_VLLM_PYTHON."""
    merge: bool | None = None
    """Merge the adapter into the weights; on a CPU only, unless given."""
    max_lora_rank: int = Field(default=32, ge=1, le=512)
    """Highest rank of an adapter."""
    folder: Path | None = None
    """Where the server's log and merged weights go; a temporary folder unless given."""
    start_timeout: float = Field(default=600.0, gt=0)
    """Seconds until it must be healthy."""
    drain_timeout: float = Field(default=60.0, ge=0)
    """Seconds that requests in flight are given at the end."""
    vllm_args: str = ""
    """More of vLLM's own arguments: --vllm-args='--tensor-parallel-size 4'."""

    def cli_cmd(self) -> None:
        """``leafe serve``: until Ctrl-C or SIGTERM, which end it in the same way."""
        from ..phases.console import console
        from ..serve.server import VllmServer

        signal.signal(signal.SIGTERM, signal.default_int_handler)
        server = VllmServer(
            self.model,
            adapter=self.adapter,
            python=self.python,
            port=self.port,
            merge=self.merge,
            max_lora_rank=self.max_lora_rank,
            arguments=shlex.split(self.vllm_args),
            folder=self.folder,
            start_timeout=self.start_timeout,
            drain_timeout=self.drain_timeout,
        )
        console.print("starting vLLM: half a minute for a small model", markup=False)
        with suppress(KeyboardInterrupt), server:
            for name in server.models():
                console.print(f"serving {server.spec(name)}", markup=False, highlight=False, soft_wrap=True)
            console.print(f"as in: leafe explore --model {shlex.quote(server.spec())} …", markup=False, soft_wrap=True)
            console.print(f"log: {server.log}; Ctrl-C ends it", markup=False, highlight=False, soft_wrap=True)
            server.wait()
