"""The attempts of an agent that goes back in place, as the branches of a run folder: one task a user's turn."""

import itertools
import json
import logging
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..budget import add_costs, no_cost
from ..clock import since
from ..files import make_folder, path_of
from ..models.episode import Decision
from ..models.identity import described, digests
from ..parsing import json_line
from ..redaction import redactor
from ..tree import RunFolder
from ..tree.run_settings import RunSettings
from ..types import FORMAT_VERSION, Branch, Cost, EndReason, Reflection, Task, Turn
from .points import Progress, shown
from .records import decided_turn, safe_turn

log = logging.getLogger(__name__)


class _Log:
    """A run folder that this process writes to, shared by its recorders: servers make an agent anew for every run."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.lock = RunFolder(folder), threading.Lock()
        self._saved: dict[str, Any] | None = None
        weakref.finalize(self, self.folder.close)

    def begin(self, saved: dict[str, Any]) -> None:
        """Open the folder for these settings."""
        if self._saved != saved or not (self.folder.folder / "config.json").exists():
            self._saved = None
            self.folder.close()
            self.folder.open(saved)
            self._saved = saved


_LOGS: weakref.WeakValueDictionary[Path, _Log] = weakref.WeakValueDictionary()
_GUARD = threading.Lock()


def _log_of(folder: str | Path) -> _Log:
    place = path_of(folder).resolve()
    with _GUARD:
        if (found := _LOGS.get(place)) is None:
            found = _LOGS[place] = _Log(place)
        return found


class Recorder:
    """Writes a branch when its attempt has ended; until then its decisions are in a file of that user's turn.

    So whoever goes on with the turn has them, with another agent or in another process. An attempt of which some are
    not there is not recorded, nor are the later ones of the turn.

    Args:
        folder: a run folder; it is this process's alone while it writes.
        settings: what the agent reflects by, see `leafe_graph.tree.run_settings.RunSettings`.
        redact: as `leafe_graph.redaction.redactor` has it.
    """

    def __init__(
        self, folder: str | Path, settings: dict[str, Any], redact: bool | Callable[[str], str] = True
    ) -> None:
        self._log, self._settings, self._redacted = _log_of(folder), settings, redactor(redact)
        self._saved: dict[str, Any] | None = None

    def decided(self, progress: Progress, decisions: list[Decision]) -> None:
        """Note a decision that was made; of several answers to one the agent went on with the last."""
        if decisions:
            turn, cost = safe_turn(decided_turn(decisions[-1]), self._redacted), _cost(decisions)
            self._note(progress["run"], {"t": progress["next"] - 1, "turn": turn, "cost": cost})

    def gone_back(self, progress: Progress, t: int) -> None:
        """Decisions from this one on are made anew: an attempt that comes to none of them has none."""
        self._note(progress["run"], {"gone_back": t})

    def forget(self, run: str) -> None:
        """Let go of the decisions of a turn that is over, or that nobody goes on with."""
        self._open_turn(run).unlink(missing_ok=True)

    def _open_turn(self, run: str) -> Path:
        """The file of a turn that is not over."""
        return self._log.folder.folder / "open_turns" / f"{run}.jsonl"

    def _note(self, run: str, what: dict[str, Any]) -> None:
        file = self._open_turn(run)
        make_folder(file.parent)
        with file.open("a", encoding="utf-8", newline="\n") as opened:
            opened.write("\n" + json_line(what))  # behind a line that a process died in

    def _made(self, run: str) -> dict[int, tuple[Turn, Cost]]:
        """The decisions of a turn, by their numbers."""
        file, made = self._open_turn(run), dict[int, tuple[Turn, Cost]]()
        for line in file.read_bytes().splitlines() if file.exists() else ():
            try:
                what = json.loads(line)
            except ValueError:  # empty, or torn, perhaps within a character: its decision is made again
                continue
            if (t := what.get("gone_back")) is None:
                made[what["t"]] = what["turn"], what["cost"]
            else:
                made = {place: each for place, each in made.items() if place < t}
        return made

    def ended(
        self,
        progress: Progress,
        model: Any,
        *,
        instruction: str,
        success: bool | None,
        reflected: list[Reflection],
        rewinds: bool,
        feedback: str,
        over: bool,
    ) -> None:
        """Log the attempt that has come to its end, or was left in its middle.

        Raises:
            RunFolderError: it cannot be written, or another process writes there.
            ConfigError: the folder holds a run of another agent.
        """
        run, begun = progress["run"], range(progress["since"], progress["next"])
        turns = self._made(run)
        whole = all(t in turns for t in begun)
        with self._log.lock:
            if self._saved is None:
                policy = {"model": described(model), "weights": {"model": digests(model)}}
                self._saved = RunSettings(**{**self._settings, **policy}).saved()
            self._log.begin(self._saved)
            name, known = str(progress["rewinds"]), self._log.folder.trees.outlines.get(run, {})
            parent = str(progress["rewinds"] - 1) if progress["rewinds"] else None
            if whole and begun and (parent is None or parent in known):
                own, spent = zip(*(turns[t] for t in begun), strict=True)
                last = own[-1]
                end: EndReason = "success" if success else "failure" if success is False else "truncated"
                end = "rewound" if rewinds and success is None else end
                told, asked = progress["experience"], len(reflected)
                used = [each["usage"] for each in reflected if "usage" in each]
                reflections = Cost(
                    **no_cost()
                    | {
                        "reflections": asked,
                        "model_calls": asked,
                        "prompt_tokens": sum(each["input_tokens"] for each in used),
                        "completion_tokens": sum(each["output_tokens"] for each in used),
                    }
                )
                branch = Branch(
                    version=FORMAT_VERSION,
                    id=name,
                    task=Task(id=run, instruction=instruction),
                    parent=parent,
                    depth=progress["rewinds"],
                    decision_point=progress["since"],
                    experience=None if told is None else shown(told),
                    turns=[
                        *(turn | {"feedback": after["observation"]} for turn, after in itertools.pairwise(own)),
                        last
                        | {"feedback": feedback, "reward": float(bool(success)), "terminated": success is not None},
                    ],
                    reflection=reflected[-1] if reflected else None,
                    reflections=reflected,
                    end=end,
                    error=None,
                    return_=float(bool(success)),
                    cost=add_costs(*spent, reflections),
                    thread_id=None,
                )
                if "time" in own[0]["message"]:
                    branch["time"] = since(own[0]["message"]["time"]["started"])
                words = ("task", "experience", "turns", "reflection", "reflections")
                safe = {name: self._redacted(branch[name]) for name in words}  # type: ignore[literal-required]
                self._log.folder.append({**branch, **safe})  # type: ignore[typeddict-item]
            else:
                log.warning(
                    "an attempt is not recorded: it made no decision, or some of its decisions, or the attempt before "
                    "it, are not there"
                )
        if over:
            self.forget(run)


def _cost(decisions: list[Decision]) -> Cost:
    cost = no_cost()
    for decision in decisions:
        usage: Any = decision.answer.usage_metadata or {}
        cost["model_calls"] += 1
        cost["prompt_tokens"] += usage.get("input_tokens", 0)
        cost["completion_tokens"] += usage.get("output_tokens", 0)
    cost["env_steps"] += 1
    return cost
