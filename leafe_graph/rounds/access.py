"""How a run of rounds reaches its policy: in this process, or by a vLLM server of its own."""

from dataclasses import dataclass
from pathlib import Path

from ..methods import Policy, Reached
from ..serve import ServeSection, VllmServer


@dataclass(frozen=True)
class LocalAccess:
    """In this process, adapters merged into its weights, which are held while something plays."""

    def reach(self, policy: Policy) -> Reached:
        """As it is: `leafe_graph.models.local` loads it at the first call."""
        return {"model": policy.model, "adapter": policy.adapter, "playbook": policy.playbook}

    def pause(self) -> None:
        """Nothing is held between phases."""

    def close(self) -> None:
        """Nothing is held between phases."""


class ServedAccess:
    """By a vLLM server on this machine, which is started when it is needed first.

    Adapters are loaded while it runs, each under a name of its own. Where they are merged into the weights, as on a
    CPU, and for another model, the server is started anew.
    """

    def __init__(self, how: ServeSection, folder: Path) -> None:
        self._how, self._folder = how, folder
        self._server: VllmServer | None = None
        self._model = ""
        self._adapter: Path | None = None

    def reach(self, policy: Policy) -> Reached:
        """The server's address, with the name of the adapter there."""
        adapter = policy.adapter
        if self._server is not None:
            another = adapter != self._adapter and self._merges(self._server)
            if another or policy.model != self._model:
                self.close()
        server = self._server or self._start(policy)
        if adapter == self._adapter:
            name: str | None = server.name
        else:
            name = server.base if adapter is None else server.load_adapter(adapter)
        return {"model": server.spec(name), "adapter": None, "playbook": policy.playbook}

    def pause(self) -> None:
        """Stop the server, unless there is room for it beside a training."""
        if not self._how.while_training:
            self.close()

    def close(self) -> None:
        """Stop the server, once it has answered what it was asked."""
        server, self._server = self._server, None
        if server is not None:
            server.stop()

    def _start(self, policy: Policy) -> VllmServer:
        settings = self._how.model_dump(exclude={"while_training"})
        self._model, self._adapter = policy.model, policy.adapter
        self._server = VllmServer(policy.model, adapter=policy.adapter, folder=self._folder, **settings).start()
        return self._server

    def _merges(self, server: VllmServer) -> bool:
        return server.cpu if self._how.merge is None else self._how.merge
