"""What ``config.json`` says a run was started with: typed, and read by whoever goes on from the run."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, Field, ValidationError

from ..budget import Budget
from ..errors import RunFolderError
from ..settings import Limits, Pace, Play, marked
from ..types import FORMAT_VERSION


class RunSettings(Play):
    """The settings of a run that `leafe_graph.explore` made.

    What the caller added for its own use stands beside them, see ``model_extra``: on the command line which environment
    was played, with which options. What decides speed alone is not kept.
    """

    model_config = ConfigDict(extra="allow")

    model: Any = None
    """The policy: its spec from a command line, else what tells its class and settings."""
    reflector: Any = None
    """Another model for the reflections."""
    weights: dict[str, list[dict[str, Any]]] | None = None
    """Digests of what ``model`` and ``reflector`` are made of, see `leafe_graph.models.identity`; a list is empty where
    no weights are known, as of a model behind an address. None in folders of releases that kept none."""
    texts: dict[str, str] = Field(default_factory=dict)
    """The prompts' texts that were played, by name; empty in folders of releases that kept none."""
    strategy: str = "leafe"
    limits: Limits = Limits()
    budget: Budget = Budget()
    """Limits of each task."""
    total_budget: Budget = Budget()
    """Limits of the whole run."""
    tasks: list[str] = Field(default_factory=list)
    """Ids of the tasks that were to be played."""

    def saved(self) -> dict[str, Any]:
        """The contents of ``config.json``."""
        settings = self.model_dump(mode="json", exclude=marked(RunSettings, Pace))
        return {"version": FORMAT_VERSION, "kind": "explore", "settings": settings}


def read_config(file: Path) -> dict[str, Any]:
    """The contents of a ``config.json``; empty where there is none.

    Raises:
        RunFolderError: it cannot be read, or is of another format version.
    """
    if not file.exists():
        return {}
    try:
        config: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise RunFolderError(f"{file} is not JSON: {error}; restore it, or choose another folder") from error
    if config.get("version") != FORMAT_VERSION:
        raise RunFolderError(
            f"{file} has format version {config.get('version')!r}; this release reads version {FORMAT_VERSION}"
        )
    return config


def same_policy(known: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The settings of a folder and those of now, without what does not decide whether they play the same policy.

    Weights that are known decide, not where they lie. A folder of a release that kept none is compared by what it says.
    """
    theirs, ours = dict(known), dict(now)
    if theirs.get("weights") is None:
        theirs.pop("weights", None)
        digests = ours.pop("weights", None) or {}
        for role in ("model", "reflector"):
            if isinstance(a := theirs.get(role), dict) and isinstance(b := ours.get(role), dict):
                adapters = [adapter["weights"] for each in digests.get(role, []) for adapter in each["adapters"]]
                ours[role] = {name: value for name, value in (b | {"weights": adapters}).items() if name in a}
        return theirs, ours
    for role in ("model", "reflector"):
        if all((settings.get("weights") or {}).get(role) for settings in (theirs, ours)):
            for settings in (theirs, ours):
                settings[role] = _without_places(settings.get(role))
                if role == "model":
                    settings.pop("adapter", None)
    return theirs, ours


def _without_places(model: Any) -> Any:
    """What a model is called or described as, without folders: its weights say more."""
    if isinstance(model, str):
        return "weights" if model.startswith("local:") else model
    if isinstance(model, list):
        return [_without_places(each) for each in model]
    if not isinstance(model, dict):
        return model
    places = ("path", "adapter") if "path" in model else ()
    return {name: _without_places(value) for name, value in model.items() if name not in places}


def run_settings(config: Mapping[str, Any], file: Path) -> RunSettings:
    """The settings in the contents of a ``config.json``.

    Raises:
        RunFolderError: they are none that this release understands.
    """
    try:
        return RunSettings.model_validate(config.get("settings", {}))
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise RunFolderError(
            f"{file} holds settings that this release does not understand ({wrong}): use the release that wrote them, "
            "or choose another folder"
        ) from error
