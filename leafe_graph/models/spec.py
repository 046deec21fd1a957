"""What a model is called: the one text that playing, serving, training and planning all take apart here."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..files import path_of

EMBEDDED = "smollm2-135m"
"""The name, after "local:", of the embedded model."""


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """A model's name in its parts."""

    text: str
    """As it was written."""
    kind: str | None
    """"local", "vllm", "openai", another provider, or "python"; None where nothing stands before a colon: a folder or a
    name on the hub, which trainer and server take."""
    name: str
    """What stands after the kind, without an address."""
    url: str = ""
    """Where vLLM answers, several addresses after commas; empty where none is said."""

    @classmethod
    def parse(cls, text: str) -> "ModelSpec":
        """Take "local:NAME", "vllm:NAME@URL", "PROVIDER:NAME", a folder or a hub name apart; nothing is looked up."""
        kind, colon, name = text.partition(":")
        if not colon:
            return cls(text=text, kind=None, name=text)
        name, _, url = name.partition("@") if kind == "vllm" else (name, "", "")
        return cls(text=text, kind=kind, name=name, url=url)

    @property
    def embedded(self) -> bool:
        """Whether it is the embedded model, unless a folder has its name."""
        return self.kind == "local" and self.name == EMBEDDED

    @property
    def weights(self) -> str:
        """Where the weights come from: a folder's path or a name on the hub, without "local:"."""
        return self.name if self.kind == "local" else self.text

    @property
    def folder(self) -> Path | None:
        """The folder that it names; None where there is none."""
        path = path_of(self.weights)
        return path if path.is_dir() else None


def called(model: Any) -> tuple[str, str]:
    """What others are told of a run's model: who has it, and its name, without folders and servers.

    ``model``: its text, or what `leafe_graph.models.identity.described` tells of a live one.
    """
    if isinstance(model, str):
        spec = ModelSpec.parse(model)
        kind, name = spec.kind or "unknown", spec.name
    else:
        held = model if isinstance(model, dict) else {}
        kind = str(held.get("class") or "unknown")
        name = str(held.get("model_name") or held.get("model") or held.get("path") or kind)
    folder = kind == "local" or name.startswith(("/", "~", "."))
    return kind, name.rstrip("/").rsplit("/")[-1] if folder else name
