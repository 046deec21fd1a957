"""A vLLM server of one's own: started, fed with adapters while it runs, drained and stopped.

vLLM lives in a Python environment that may be another one, since its pins are; it is a process on this machine that is
spoken to by HTTP. On a GPU adapters are LoRA requests beside the base; on a CPU, where those cost most of the speed, an
adapter that is there at the start is merged into the weights. The server ends with the process that started it,
however that ends (`leafe_graph.processes.guard`).
"""

import json
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError, ModelError
from ..files import make_folder
from ..models.identity import adapter_files
from ..processes.apart import guarded
from ..settings import takes_too
from .adapters import copied, fits, merged, refuse_unserved, served_name
from .config import ServerArguments
from .vllm_build import find_build

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel


class VllmServer:
    """vLLM's OpenAI-compatible server on 127.0.0.1, as a context manager.

    ::

        with VllmServer("local:smollm2-135m") as server:
            name = server.load_adapter("run/adapter", name="round-1")
            explore(server.model(name, temperature=1.0), ...)

    ``VLLM_…`` variables of the environment are kept, where they are set: so ``VLLM_CPU_KVCACHE_SPACE``, in GiB.

    Raises:
        MissingDependency: there is no vLLM in that interpreter.
        ConfigError: what is no model or no adapter folder, or an interpreter that does not run.
    """

    url: str
    """The address for OpenAI clients: ``http://127.0.0.1:PORT/v1``."""
    name: str
    """What a request calls the policy: the start's adapter if there is one, else the base."""
    base: str | None
    """What a request calls the base model, a folder by its name and a digest of what is in it: other weights have
    another name. None where the adapter was merged into it."""
    cpu: bool
    """Whether it is vLLM's CPU build."""
    log: Path
    """What the server writes."""

    @takes_too(ServerArguments)
    def __init__(self, given: ServerArguments) -> None:
        """What is to be served, and how; `start` starts it."""
        from ..models.folders import model_folder

        self._given = given
        self._adapter = None if given.adapter is None else _folder(given.adapter)
        self._build = find_build(given.python)
        self.cpu = self._build.cpu
        self._model = model_folder(given.model)
        self._merge = self._adapter is not None and (self.cpu if given.merge is None else given.merge)
        if self._adapter is not None:
            self._refuse(self._adapter)
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self._guard: subprocess.Popen[bytes] | None = None

    def start(self) -> "VllmServer":
        """Start it and wait until it is healthy.

        Raises:
            ModelError: it ended, or was not healthy in time; the message has the last lines of its log.
        """
        if self._guard is not None:
            raise ConfigError(f"the server at {self.url} was started already")
        if self._given.folder is None:
            self._temporary = tempfile.TemporaryDirectory(prefix="leafe-serve-")
        work = make_folder(Path(self._temporary.name if self._temporary else self._given.folder or ""))
        self._work, self.log = work.resolve(), work.resolve() / "vllm.log"
        port = self._given.port or _free_port()
        self.url = f"http://127.0.0.1:{port}/v1"
        self.name = self.base = served_name(self._model)
        self._loaded: set[str] = set()
        try:
            served = self._model
            if self._merge and self._adapter is not None:
                self.base, (self.name, copy) = (
                    None,
                    copied(self._adapter, "adapter", self._work / "adapters", base=self._model),
                )
                served = str(merged(copy, self._model))
            command = [self._build.python, "-m", "vllm.entrypoints.openai.api_server", *self._flags(served, port)]
            with self.log.open("ab") as log:
                self._guard = subprocess.Popen(
                    guarded(command),
                    stdin=subprocess.PIPE,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=self._build.environment(local=Path(served).is_dir(), start_timeout=self._given.start_timeout),
                    start_new_session=True,  # Ctrl-C in a terminal is ours alone
                )
            self._until_healthy()
            if self._adapter is not None and not self._merge:
                self.name = self.load_adapter(self._adapter)
        except BaseException:
            self.stop(drain=False)
            raise
        return self

    def load_adapter(self, path: str | Path, *, name: str = "adapter") -> str:
        """Load a LoRA adapter while the server runs; what requests call it: ``name`` and a digest of its weights.

        So other weights always have another name, under which no stale prefix cache can be found, and the same weights
        have the same one on every server. Loading them twice is loading them once. The files are copied: the folder
        can be written anew.

        Raises:
            ConfigError: not an adapter's folder, the server refuses it, or it serves merged weights, to which the
                adapter would be added.
        """
        if self.base is None:
            raise ConfigError(
                f"the server serves {self.name}, merged into the weights; an adapter would come on top of it: start "
                "the server without adapter=, or with merge=False"
            )
        self._refuse(folder := _folder(path))
        called, copy = copied(folder, name, self._work / "adapters")
        if called not in self._loaded:
            self._post("load_lora_adapter", {"lora_name": called, "lora_path": str(copy)}, path)
            self._loaded.add(called)
        return called

    def unload_adapter(self, name: str) -> None:
        """Forget an adapter that `load_adapter` loaded.

        Raises:
            ConfigError: there is none of that name.
        """
        self._post("unload_lora_adapter", {"lora_name": name}, name)
        self._loaded.discard(name)
        shutil.rmtree(self._work / "adapters" / name, ignore_errors=True)

    def models(self) -> list[str]:
        """The names that requests can ask for."""
        return [model["id"] for model in json.loads(_request(f"{self.url}/models"))["data"]]

    def spec(self, name: str | None = None) -> str:
        """What `leafe_graph.load_model` and ``--model`` take for the policy, or for the model called ``name``."""
        return f"vllm:{name or self.name}@{self.url}"

    def model(self, name: str | None = None, **settings: Any) -> "BaseChatModel":
        """A chat model for the policy, or for the model called ``name``; settings as for `load_model`."""
        from ..models.load import load_model

        return load_model(self.spec(name), **settings)

    def wait(self) -> None:
        """Wait while it runs.

        Raises:
            ModelError: it ended by itself.
        """
        if self._guard is not None:
            self._guard.wait()
            raise self._died()

    def stop(self, *, drain: bool = True) -> None:
        """End it once the requests in flight are answered, or ``drain_timeout`` is over; it takes no new ones.

        A Ctrl-C meanwhile, or ``drain=False``, ends it at once. Nothing of it is left when this returns.
        """
        guard, self._guard = self._guard, None
        try:
            if guard is not None and guard.stdin is not None:
                try:
                    if drain and guard.poll() is None:
                        guard.stdin.write(b".")
                        guard.stdin.flush()
                        guard.wait(self._given.drain_timeout + 30)  # vLLM's own teardown comes on top
                except (subprocess.TimeoutExpired, BrokenPipeError):
                    pass
                finally:
                    guard.stdin.close()
                    guard.wait()
        finally:
            if self._temporary is not None:
                self._temporary.cleanup()
                self._temporary = None

    def __enter__(self) -> "VllmServer":
        return self.start()

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    # ---- how it is started

    def _flags(self, served: str, port: int) -> list[str]:
        plain = [Path(self._model).name] if self.base not in (None, self._model) else []  # as people call it
        names = list(dict.fromkeys([self.name, *plain]))
        flags = ["--model", served, "--served-model-name", *names, "--host", "127.0.0.1", "--port", str(port)]
        flags += ["--enable-prefix-caching", "--shutdown-timeout", str(round(self._given.drain_timeout))]
        if self.base is not None:
            flags += [
                "--enable-lora",
                "--max-lora-rank",
                str(self._given.rank),
                "--max-loras",
                str(self._given.max_loras),
            ]
        return [*flags, *self._build.flags, *self._given.arguments]

    def _until_healthy(self) -> None:
        deadline = time.monotonic() + self._given.start_timeout
        while self._guard is not None and self._guard.poll() is None:
            try:
                _request(f"{self.url.removesuffix('/v1')}/health")
            except OSError:
                if time.monotonic() > deadline:
                    raise ModelError(
                        f"the vLLM server was not healthy after {self._given.start_timeout:g} s; give it more by "
                        f"start_timeout=. The end of {self.log}:\n{_tail(self.log)}"
                    ) from None
                time.sleep(0.2)
            else:
                return
        raise self._died()

    def _died(self) -> ModelError:
        code = None if self._guard is None else self._guard.returncode
        return ModelError(
            f"the vLLM server ended by itself (exit code {code}). The end of {self.log}:\n{_tail(self.log)}"
        )

    # ---- adapters

    def _refuse(self, adapter: Path) -> None:
        """Say what cannot be served before vLLM is asked, which takes a start."""
        if not self._merge:
            refuse_unserved(adapter, self._given.rank)
        fits(adapter, self._model)

    def _post(self, route: str, body: dict[str, str], what: object) -> None:
        try:
            _request(f"{self.url}/{route}", body)
        except urllib.error.HTTPError as error:
            said = error.read().decode(errors="replace")
            raise ConfigError(f"the vLLM server refused {what} ({route}, {error.code}): {said}") from error
        except OSError as error:
            raise ModelError(f"the vLLM server at {self.url} does not answer: {error}") from error


def _folder(adapter: str | Path) -> Path:
    """The absolute path of an adapter's folder: the server runs elsewhere."""
    return adapter_files(adapter)[0].parent.resolve()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _request(url: str, body: dict[str, str] | None = None) -> bytes:
    """GET, or POST with a body; never through a proxy."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=300) as answer:
        return bytes(answer.read())


def _tail(file: Path, lines: int = 30) -> str:
    return "\n".join(file.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:]) if file.is_file() else ""
