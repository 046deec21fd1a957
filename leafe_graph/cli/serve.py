"""``leafe serve``."""

import shlex
import signal
from contextlib import suppress

from pydantic import Field

from ..serve.config import ServerArguments


class Serve(ServerArguments):
    """Serve a model, and adapters on it, by a vLLM server on this machine until Ctrl-C.

    Example: leafe serve --model local:smollm2-135m --adapter runs/first/adapter --port 8000
    """

    arguments: str = Field(default="", validation_alias="vllm_args")
    """More of vLLM's own arguments: --vllm-args='--tensor-parallel-size 4'."""

    def cli_cmd(self) -> None:
        """``leafe serve``: until Ctrl-C or SIGTERM, which end it in the same way."""
        from ..phases.console import console
        from ..serve.server import VllmServer

        signal.signal(signal.SIGTERM, signal.default_int_handler)
        server = VllmServer(**self.model_dump() | {"arguments": shlex.split(self.arguments)})
        console.print("starting vLLM: half a minute for a small model")
        with suppress(KeyboardInterrupt), server:
            for name in server.models():
                console.print(f"serving {server.spec(name)}", highlight=False, soft_wrap=True)
            console.print(f"as in: leafe explore --model {shlex.quote(server.spec())} …", soft_wrap=True)
            console.print(f"log: {server.log}; Ctrl-C ends it", highlight=False, soft_wrap=True)
            server.wait()
