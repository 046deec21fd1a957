"""The YAML file of ``leafe run``: what is shared, a section for each phase, and what makes the rounds.

A section holds the flags of the command of its name. What the run decides itself (folders, adapters, which rows) is put
in, so that every phase is an ordinary command; what stands above the sections goes to each that has such a flag, unless
it says otherwise.
"""

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, FilePath, field_validator, model_validator

from ..envs.catalog import ENVS
from ..finetune.config import TrainConfig
from ..phases.config import Eval, Explore, Export
from ..serve.config import Serving
from ..settings import Command

_DECIDED: dict[str, dict[str, Any]] = {
    "explore": {"out": ".", "adapter": None},
    "export": {"run": ".", "out": None},
    "train": {"config": None, "out": "adapter", "adapter": None, "data": ["examples"], "resume": True},
    "eval": {"out": "eval", "adapter": None, "name": None},
}
"""What a section may not say, and what stands there until a round is played: places in the round's folder."""
_PLAYED = ("model", "env", "env_options", "prompts", "max_turns", "history", "max_tokens", "seed")
_SHARED = {"explore": _PLAYED, "export": (), "train": ("model", "seed"), "eval": _PLAYED}


class Estimate(Command):
    """What ``--dry-run`` assumes. Guesses of yours: they change the plan's figures and nothing else."""

    device: Literal["cpu", "gpu"] = "gpu"
    """Where it will run: decides the number formats, float32 or bfloat16."""
    instruction_tokens: int = Field(default=300, ge=0)
    """Of the system prompt and the first observation."""
    turn_tokens: int = Field(default=60, ge=0)
    """Of an action and the observation that answers it, as they stand in the history."""
    action_tokens: int = Field(default=16, ge=1)
    """New tokens of an action."""
    reflection_tokens: int = Field(default=100, ge=1)
    """New tokens of a reflection."""
    turns: float | None = Field(default=None, gt=0)
    """Mean turns of a path; the longest path unless given."""
    success: float = Field(default=0.3, ge=0, le=1)
    """Share of the explored tasks that end in success, each with one successful path."""
    corrected: float = Field(default=0.5, ge=0, le=1)
    """Share of those successes that came from a rewind and a revised action."""
    cached: float = Field(default=0.0, ge=0, lt=1)
    """Share of the prompt tokens that a prefix cache spares."""
    prompt_tokens_per_second: float | None = Field(default=None, gt=0)
    """Speed of reading prompts, all devices together; no time is estimated unless given."""
    completion_tokens_per_second: float | None = Field(default=None, gt=0)
    """Speed of generating at the run's concurrency, all devices together."""
    train_tokens_per_second: float | None = Field(default=None, gt=0)
    """Speed of training, all devices together."""


class RunConfig(Command):
    """All settings of a run of rounds."""

    out: Path
    """Folder for everything; runs/NAME-OF-THE-FILE unless given."""
    rounds: int = Field(default=1, ge=1)
    """Most rounds that are played."""

    model: str
    """The policy to start from: any Hugging Face folder as "local:FOLDER", one that was trained with GRPO included, or
    "local:smollm2-135m" (embedded); where it is served also a hub name."""
    adapter: str | None = None
    """LoRA adapter to start from: a folder, or MODULE:ATTRIBUTE of a path, such as
    "leafe_graph.envs.sokoban.warm_start:WARM_START"."""
    seed: int = 0
    """Root of all random numbers. Round n explores with seed + n."""

    serve: Serving | None = None
    """Serve the policy with vLLM: `serve: {}` with all defaults. In this process unless given."""

    accelerate: FilePath | None = None
    """Train in several processes, as this file of accelerate's says (`accelerate config` writes one); in one unless
    given."""

    env: str = "sokoban"
    """The environment: a name that `leafe envs` lists, or "MODULE:ATTRIBUTE"."""
    env_options: dict[str, Any] = Field(default_factory=dict)
    """Its options."""
    prompts: str | None = None
    """The texts, as MODULE:ATTRIBUTE of a Prompts object."""
    max_turns: int | None = Field(default=None, ge=1)
    """Longest path, in decisions; the environment's HORIZON unless given."""
    history: int | None = Field(default=None, ge=0)
    """Earlier turns shown in a prompt; all unless given."""
    max_tokens: int | None = Field(default=None, ge=1)
    """New tokens of an action."""

    explore: Explore
    """Flags of `leafe explore`. ``tasks`` is how many each round plays."""
    export: Export
    """Flags of `leafe export`."""
    train: TrainConfig
    """Flags of `leafe train`."""
    eval: Eval
    """Flags of `leafe eval`: which held-out tasks, and how many samples of each. Every round is judged on the same."""

    fresh_tasks: bool = True
    """Each round explores the tasks that follow those of the round before; off: the same ones again. Our choice: what
    was solved already has little to teach."""
    keep_rows: Literal["all"] | int = "all"
    """Earlier rounds whose rows are trained on beside the new ones: "all", or the last so many; 0 is none. Our choice:
    with few successes a round, all of them are needed."""
    train_from: Literal["start", "last"] = "start"
    """"start": every round trains anew from the model and adapter that the run started from, so that what one round
    learned wrongly does not last (STaR, Zelikman et al. 2022, does so too). "last": it goes on with the last round's
    adapter."""

    k: int = Field(default=1, ge=1)
    """Which Pass@k decides whether a round helped; 1 is the usual headline."""
    min_gain: float = 0.0
    """A round helped if its Pass@k is higher by more than this (0.01 is one point) than that of the best round so far,
    task by task. Our choice."""
    patience: int | None = Field(default=1, ge=1)
    """Stop after so many rounds in a row that did not help; None: play all. Our choice."""

    estimate: Estimate = Estimate()
    """What --dry-run assumes."""

    @model_validator(mode="before")
    @classmethod
    def _whole_commands(cls, data: Any) -> Any:
        """Give each section what is shared and what is decided for it."""
        if not isinstance(data, dict):
            return data
        whole = dict(data)
        for name, decided in _DECIDED.items():
            section = {} if data.get(name) is None else data[name]  # `export:` with nothing below it
            if isinstance(section, dict):
                shared = {key: data[key] for key in _SHARED[name] if key in data}
                whole[name] = shared | section | decided
        return whole

    @field_validator("env")
    @classmethod
    def _known(cls, env: str) -> str:
        if env not in ENVS and ":" not in env:
            raise ValueError(f"expected one of {', '.join(ENVS)}, or MODULE:ATTRIBUTE")
        return env

    @field_validator("keep_rows")
    @classmethod
    def _rounds(cls, keep: Literal["all"] | int) -> Literal["all"] | int:
        if keep != "all" and keep < 0:
            raise ValueError('expected "all" or a number of rounds, 0 or more')
        return keep

    @model_validator(mode="after")
    def _enough_samples(self) -> "RunConfig":
        if self.k > self.eval.samples:
            raise ValueError(
                f"k is {self.k}, but eval.samples is {self.eval.samples}: take more samples or a smaller k"
            )
        return self

    @model_validator(mode="after")
    def _can_be_reached(self) -> "RunConfig":
        if self.serve is None and not self.model.startswith("local:"):
            raise ValueError(f'model {self.model!r}: write "local:FOLDER", or a serve section to have vLLM serve it')
        return self

    @property
    def tasks(self) -> int:
        """Tasks that a round explores at most."""
        return self.explore.tasks or 50

    def start(self, number: int) -> int:
        """Where in the split round ``number`` (the first is 1) begins."""
        return self.explore.start + (number - 1) * self.tasks * self.fresh_tasks

    def kept(self, number: int) -> range:
        """The rounds whose rows round ``number`` trains on, its own included."""
        return range(1 if self.keep_rows == "all" else max(1, number - self.keep_rows), number + 1)
