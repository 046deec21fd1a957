"""The settings of each phase: flags of the command line, and sections of a YAML file.

What is known in Python too (`leafe_graph.settings`, `leafe_graph.budget`) is not said again: these models inherit it.
"""

import json
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, AliasChoices, BeforeValidator, Field, create_model, field_validator
from pydantic_settings import CliPositionalArg, NoDecode

from ..budget import Budget
from ..dataset.formats import RowFormat
from ..env.common import Split
from ..errors import ConfigError
from ..files import UserFile, UserPath
from ..models.hub import Repo
from ..parsing import key_values
from ..settings import Acting, Limits, Pace, Play, Rows, Settings, Shown, Workers
from ..strategies import STRATEGIES
from ..types import Durability


class Recorded:
    """Mark of a setting that exploring cannot know by itself: it goes into ``config.json`` as it was named."""


class Environment(Settings):
    """Which environment."""

    env: Annotated[str, Recorded] = "sokoban"
    """The environment: a name that `leafe envs` lists, "MODULE:ATTRIBUTE" (a class of yours; its module has
    tasks(split, n, start=…)), or "gymnasium:ID" (an environment of text that is registered there)."""
    env_options: Annotated[dict[str, Any], NoDecode, BeforeValidator(key_values), Recorded] = Field(
        default_factory=dict
    )
    """The environment's options, as JSON or as KEY=VALUE: size=6,boxes=1,min_moves=3,max_moves=10."""

    @field_validator("env_options")
    @classmethod
    def _json_values(cls, options: dict[str, Any]) -> dict[str, Any]:
        """KEY=VALUE arrives as text: what reads as JSON becomes its value."""

        def value(text: Any) -> Any:
            try:
                return json.loads(text) if isinstance(text, str) else text
            except ValueError:
                return text

        return {key: value(text) for key, text in options.items()}


class Choosing(Environment):
    """Which tasks of which environment."""

    split: Annotated[Split, Recorded] = "train"
    """Which tasks; the splits share none."""
    tasks: int | None = Field(default=None, ge=1)
    """How many of them; 50 unless given, or all of --levels."""
    start: Annotated[int, Recorded] = Field(default=0, ge=0)
    """Where in the split, or in --levels, to begin: 0 is at the start. Starts far apart give other tasks."""
    levels: Annotated[UserFile | None, Recorded] = None
    """Play the levels of this file instead of generated ones."""


class Texts(Shown):
    """What the policy is told, and in which words."""

    prompts: Annotated[str | None, Recorded] = None
    """The texts, as MODULE:ATTRIBUTE of a Prompts object; those of the warm start are
    "leafe_graph.envs.sokoban.warm_start:PROMPTS"."""


class Spread(Settings):
    """Where a policy plays."""

    workers: Annotated[int | None, Pace] = Field(default=None, ge=1)
    """Play in so many actors on Ray, which make models and environments of their own; in this process unless given. The
    branches are the same."""
    ray: Annotated[str | None, Pace] = None
    """The Ray cluster of the workers: "auto", if this machine belongs to it, or HOST:PORT. Unless given, Ray is started
    on this machine, and listens on 127.0.0.1 alone."""
    batch_invariant: Annotated[bool, Pace] = False
    """Compute each answer of a local: model by itself, so that it is the same to the last bit however many tasks are
    played at once, by however many workers; many times as slow where prompts are new. Else answers that are computed
    together differ in rounding, which now and then decides a token."""


class Traced(Settings):
    """Where it is told."""

    trace_to: Annotated[str | None, Pace] = None
    """Send each task's tree, once it is finished, as a trace to this OpenTelemetry collector: http://HOST:PORT. Headers
    are OTEL_EXPORTER_OTLP_HEADERS; docs/tracing.md tells more. Needs the extra "otel"."""


class Played(Environment, Texts, Acting, Spread, Traced):
    """What a policy plays, how and where: the settings that a run's sections share."""

    model: Annotated[str, Recorded]
    """The policy: "local:smollm2-135m" (embedded), "local:FOLDER", "vllm:NAME@http://HOST:PORT/v1" (several servers of
    the same model: URL,URL), "openai:NAME", whatever LangChain's init_chat_model knows, or "python:MODULE:ATTRIBUTE" (a
    chat model or what makes one); to eval also "random", which draws evenly from the possible actions."""


def _flags(name: str, prefix: str, whose: str) -> type[Settings]:
    """The limits of `Budget` as settings beside others."""
    fields: dict[str, Any] = {
        f"{prefix}{limit}": (
            field.rebuild_annotation(),
            Field(
                default=field.default,
                description=f"Budget {whose}: {(field.description or '')[0].lower()}{(field.description or '')[1:]}",
            ),
        )
        for limit, field in Budget.model_fields.items()
    }
    return create_model(name, __base__=Settings, **fields)


if TYPE_CHECKING:

    class TaskBudget(Settings): ...  # noqa: D101

    class TotalBudget(Settings): ...  # noqa: D101

else:
    TaskBudget = _flags("TaskBudget", "", "of each task")
    TotalBudget = _flags(
        "TotalBudget",
        "total_",
        "of the whole run; tasks are begun in order while one fits whole, if the limit of each is set too",
    )


class PlayConfig(Played, Choosing, TaskBudget, TotalBudget):
    """Which tasks a policy plays, how, and what it may spend; shared by explore and eval."""

    out: UserPath
    """The run folder. Giving the same command again resumes it."""
    adapter: Annotated[UserPath | None, Recorded] = None
    """LoRA adapter on a local model."""
    playbook: UserFile | None = None
    """A text that follows each task's instruction, such as the method ace writes; its tokens are in every prompt."""
    temperature: Annotated[float | None, Recorded] = None
    """Sampling temperature of the policy; the model's own default unless given."""
    top_p: Annotated[float | None, Recorded] = None
    """Sample from the most probable tokens that make up this much."""
    logprobs: bool = False
    """Record the token ids and log-probabilities of what is sampled, which GRPO's rows need."""
    env_timeout: Annotated[float | None, Pace] = Field(default=None, gt=0)
    """Play each environment in a process of its own, and end it if a call takes longer than so many seconds."""
    concurrency: Annotated[int, Pace] = Field(default=32, ge=1)
    """Tasks played at once, by all workers together."""
    checkpointer: str | None = None
    """Where decision points are kept. "memory", unless given: fastest, but LangGraph has no checkpoint or event of a
    single turn. "sqlite" (OUT/checkpoints.sqlite) and a PostgreSQL database, postgresql://USER@HOST/DATABASE
    (postgresql+langgraph:// for LangGraph's own tables there), keep a checkpoint of each turn. The branches are the
    same, also after a kill. A run with an OUT/checkpoints.sqlite goes on in it."""
    durability: Annotated[Durability, Pace] = "async"
    """When decision points are written there: after each turn ("async"), or when the branch ends ("exit"), which is
    nearly as fast as "memory"; LangGraph then has no state or event of a single turn."""

    @property
    def many(self) -> Workers | None:
        """The workers.

        Raises:
            ConfigError: there is a cluster and nobody to work there.
        """
        if self.workers is None:
            if self.ray is not None:
                raise ConfigError(f"ray={self.ray!r} and no workers: say how many, workers=N (--workers N)")
            return None
        return Workers(self.workers, address=self.ray)

    @property
    def budget(self) -> Budget:
        """What each task may cost."""
        return Budget(**{name: getattr(self, name) for name in Budget.model_fields})

    @property
    def total_budget(self) -> Budget:
        """What the whole run may cost."""
        return Budget(**{name: getattr(self, f"total_{name}") for name in Budget.model_fields})


class ExploreConfig(PlayConfig, Play, Limits):
    """How experience trees are grown."""

    strategy: Annotated[str, AfterValidator(STRATEGIES.known)] = Field(
        default="leafe", description=f"{STRATEGIES.told()} Or MODULE:ATTRIBUTE of a Strategy."
    )
    expert: bool = False
    """Have the environment's expert play each task once, in place of the policy: demonstrations as a run."""
    reflector: str | None = None
    """Another model for the reflections; the policy itself unless given."""
    prune: bool = False
    """Drop a tree's checkpoints when it is finished, where they are kept."""


class Taught(Settings):
    """From which tasks there may be training rows."""

    test_tasks: bool = False
    """Also make rows of tasks of the test split. They are to judge by: a policy that has learned from them is judged on
    what it has seen."""


class DemonstrateConfig(Choosing, Texts, Taught):
    """How an expert's play becomes training rows."""

    out: UserPath
    """The JSONL file to write."""
    mistakes: int = Field(default=1, ge=0)
    """Attempts with a mistake a task: each gives a reflection, and a turn that follows it."""
    seed: int = 0
    """Decides the mistakes."""


class ExportConfig(Taught, Rows):
    """How a run's trees become training rows."""

    run: CliPositionalArg[UserPath]
    """A run folder."""
    probes: UserPath | None = None
    """File of probes that rows of the kinds world_model and self_reflection are made of; RUN/probes.jsonl unless
    given."""
    other_prompts: str | None = None
    """Render the rows with other texts than those that were played, as MODULE:ATTRIBUTE of a Prompts object."""
    out: UserPath | None = None
    """Folder to write to; RUN/examples unless given."""
    formats: list[RowFormat] = Field(default=[], validation_alias=AliasChoices("format", "formats"))
    """Forms that others read, beside the rows: sharegpt, llama-factory (the same and a dataset_info.json), trl-dpo; and
    the trees as verifiers reads them."""
    push_to_hub: Repo | None = None
    """Upload it all to this dataset, "user/name", of the Hugging Face hub: made where it is not there, private then."""


class EvalConfig(PlayConfig):
    """How a policy is judged."""

    split: Annotated[Split, Recorded] = "test"
    """Which tasks; the splits share none."""
    samples: int = Field(default=8, ge=1, validation_alias=AliasChoices("n", "samples"))
    """Samples a task."""
    name: str | None = None
    """What tables and plots call the policy; the adapter's folder or the model unless given."""
    keep_samples: bool = True
    """Keep every episode in --out. Off: keep what came of each task and no more, which is many times as fast for a
    local model in an environment whose calls are instant; what is interrupted is played anew."""
