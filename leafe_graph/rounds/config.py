"""The YAML file of ``leafe run``: what is shared, a section for each phase, and what makes the rounds.

A section holds the flags of the command of its name. What the run decides itself (folders, adapters, which rows) is put
in, so that every phase is an ordinary command; what stands above the sections goes to each that has such a flag, unless
it says otherwise.
"""

import json
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, Field, field_validator, model_validator

from ..envs.catalog import ENVS
from ..errors import ConfigError
from ..files import UserFile, UserPath, path_of
from ..finetune.config import TrainConfig
from ..method_settings import Curating, Probing
from ..methods import METHODS
from ..models.spec import ModelSpec
from ..phases.config import EvalConfig, ExploreConfig, ExportConfig, Played
from ..serve.adapters import lora_rank
from ..serve.config import ServeSection
from ..settings import TASKS, Output, Pace, Settings, marked

DECIDED: dict[str, dict[str, Any]] = {
    "explore": {"out": ".", "adapter": None, "playbook": None},
    "export": {"run": ".", "out": None},
    "train": {"config": None, "out": "adapter", "adapter": None, "data": ["examples"], "resume": True},
    "eval": {"out": "eval", "adapter": None, "playbook": None, "name": None},
}
"""What a section may not say, and what stands there until a round is played: places in the round's folder."""


class MayChange:
    """Mark of a setting that the next call on the same folder may have otherwise.

    It says how many rounds there are, how the policy is reached, where the best adapter goes.
    """


def _methods_own(method: object) -> dict[str, Any]:
    """What a method says where the file does not; nothing for one that cannot be found, which is told elsewhere."""
    try:
        return dict(METHODS.class_of(method).settings) if isinstance(method, str) else {}
    except ConfigError:
        return {}


class Estimate(Settings):
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
    prompt_price: float | None = Field(default=None, ge=0)
    """Price of a million prompt tokens, in your currency; no price is told unless both are given."""
    completion_price: float | None = Field(default=None, ge=0)
    """Price of a million new tokens."""
    cached_price: float | None = Field(default=None, ge=0)
    """Price of a million prompt tokens that the cache spares; as the others unless given."""


class RunConfig(Played):
    """All settings of a run of rounds."""

    out: Annotated[UserPath, MayChange]
    """Folder for everything; runs/NAME-OF-THE-FILE unless given."""
    rounds: Annotated[int, MayChange] = Field(default=1, ge=1)
    """Most rounds that are played."""
    method: Annotated[str, AfterValidator(METHODS.known)] = "leafe"
    """How the policy learns: a name that docs/bench.md lists, such as "leafe", "rejection" or "grpo", or
    MODULE:ATTRIBUTE of a Method."""
    env_steps: int | None = Field(default=None, ge=1)
    """Environment steps that the exploring of all rounds may take together: a round gets what those before it left, or
    its own ``explore.total_env_steps`` if that is less. No such limit unless given."""

    model: str
    """The policy to start from: any Hugging Face folder as "local:FOLDER", one that was trained with GRPO included, or
    "local:smollm2-135m" (embedded); where it is served also a hub name."""
    adapter: str | None = None
    """LoRA adapter to start from: a folder, or MODULE:ATTRIBUTE of a path, such as
    "leafe_graph.envs.sokoban.warm_start:WARM_START"."""
    seed: int | None = 0
    """Root of all random numbers. Round n explores with seed + n."""

    serve: Annotated[ServeSection | None, MayChange] = None
    """Serve the policy with vLLM: `serve: {}` with all defaults. In this process unless given."""

    accelerate: Annotated[UserFile | None, MayChange] = None
    """Train in several processes, as this file of accelerate's says (`accelerate config` writes one); in one unless
    given."""

    explore: ExploreConfig
    """Flags of `leafe explore`. ``tasks`` is how many each round plays."""
    probe: Probing = Probing()
    """What the methods early_experience and self_reflection try beside what was done."""
    playbook: Curating = Curating()
    """How the method ace writes its playbook."""
    export: ExportConfig
    """Flags of `leafe export`."""
    train: TrainConfig
    """Flags of `leafe train`."""
    eval: EvalConfig
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
    adapter, or model."""

    k: Annotated[int, MayChange] = Field(default=1, ge=1)
    """Which Pass@k decides whether a round helped; 1 is the usual headline."""
    min_gain: Annotated[float, MayChange] = 0.0
    """A round helped if its Pass@k is higher by more than this (0.01 is one point) than that of the best round so far,
    task by task. Our choice."""
    patience: Annotated[int | None, MayChange] = Field(default=1, ge=1)
    """Stop after so many rounds in a row that did not help; None: play all. Our choice."""

    estimate: Annotated[Estimate, MayChange] = Estimate()
    """What --dry-run assumes."""

    @model_validator(mode="before")
    @classmethod
    def _whole_commands(cls, data: Any) -> Any:
        """Give each section what is shared and what is decided for it."""
        if not isinstance(data, dict):
            return data
        whole = _methods_own(data.get("method")) | data
        for name, decided in DECIDED.items():
            section = {} if data.get(name) is None else data[name]  # `export:` with nothing below it
            if isinstance(section, dict):
                model: Any = cls.model_fields[name].annotation
                shared = {key: data[key] for key in Played.model_fields if key in data and key in model.model_fields}
                own = _methods_own(data.get("method")).get(name, {})
                whole[name] = own | shared | section | decided
        for name in ("probe", "playbook"):
            if isinstance(section := data.get(name) or {}, dict):
                whole[name] = _methods_own(data.get("method")).get(name, {}) | section
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
    def _learns_from_no_test(self) -> "RunConfig":
        if self.explore.split == "test" and not self.export.test_tasks:
            raise ValueError(
                "explore.split is test, whose tasks are to judge by: explore another, or set export.test_tasks"
            )
        return self

    @model_validator(mode="after")
    def _some_task_can_begin(self) -> "RunConfig":
        each = self.explore.budget.env_steps
        if self.env_steps is not None and each is not None and self.env_steps < each:
            raise ValueError(
                f"env_steps is {self.env_steps}, but explore.env_steps is {each}, which one task may take: no task "
                "could be begun; raise the first or lower the second"
            )
        return self

    @model_validator(mode="after")
    def _probing_is_paid_for(self) -> "RunConfig":
        probes = self.method in METHODS and "probe" in METHODS.class_of(self.method).phases
        if not probes or self.env_steps is None:
            return self
        if self.probe.env_steps is None:
            raise ValueError(
                f"env_steps is {self.env_steps} for all that {self.method} plays: say probe.env_steps, how many of "
                "them are set aside for probing"
            )
        if self.env_steps - self.probe.env_steps < (self.explore.budget.env_steps or 1):
            raise ValueError(
                f"probe.env_steps is {self.probe.env_steps} of the {self.env_steps} env_steps, and leaves too few to "
                "explore a task: lower it"
            )
        return self

    @model_validator(mode="after")
    def _can_be_reached(self) -> "RunConfig":
        if self.serve is None and ModelSpec.parse(self.model).kind != "local":
            raise ValueError(f'model {self.model!r}: write "local:FOLDER", or a serve section to have vLLM serve it')
        return self

    @model_validator(mode="after")
    def _rank_is_served(self) -> "RunConfig":
        if self.serve is None or self.serve.merge or (self.adapter is None and self.train.tune == "full"):
            return self
        rank, what = self.train.lora_r, "train.lora_r"
        if self.adapter is not None:  # it keeps its own
            file = path_of(self.adapter) / "adapter_config.json"
            if not file.is_file():
                return self
            rank, what = lora_rank(json.loads(file.read_text(encoding="utf-8"))), f"the rank of {self.adapter}"
        if rank > self.serve.rank:
            raise ValueError(
                f"{what} is {rank}, but the server takes adapters up to rank {self.serve.rank}: write "
                f"serve.max_lora_rank: {rank}, or serve.merge: true"
            )
        return self

    def kept_settings(self) -> dict[str, Any]:
        """What ``run.json`` says: everything that the next call on the same folder must have alike."""
        may_change: dict[str, Any] = dict.fromkeys(marked(RunConfig, MayChange, Pace), True)
        for name, section in RunConfig.model_fields.items():
            if isinstance(section.annotation, type) and issubclass(section.annotation, BaseModel):
                may_change.setdefault(name, marked(section.annotation, Pace, Output))
        return self.model_dump(mode="json", exclude=may_change)

    @property
    def tasks(self) -> int:
        """Tasks that a round explores at most."""
        return self.explore.tasks or TASKS

    def start(self, number: int) -> int:
        """Where in the split round ``number`` (the first is 1) begins."""
        return self.explore.start + (number - 1) * self.tasks * self.fresh_tasks

    def explore_seed(self, number: int) -> int | None:
        """The seed with which round ``number`` explores."""
        return None if self.explore.seed is None else self.explore.seed + number

    def kept(self, number: int) -> range:
        """The rounds whose rows round ``number`` trains on, its own included."""
        return range(1 if self.keep_rows == "all" else max(1, number - self.keep_rows), number + 1)


def without_names(settings: dict[str, Any]) -> dict[str, Any]:
    """What ``run.json`` says, without the names of what the rounds start from, at the top and in each section."""
    return {
        name: {key: each for key, each in value.items() if key != "model"} if name in DECIDED else value
        for name, value in settings.items()
        if name not in ("model", "adapter")
    }
