"""The settings of each phase: flags of the command line, sections of a YAML file."""

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import AliasChoices, Field, FilePath, field_validator
from pydantic_settings import (
    CliPositionalArg,
)

from ..exploration.strategies import StrategyName
from ..settings import Command, Limits
from ..types import OnDivergence


class Choosing(Command):
    """Which tasks of which environment."""

    env: str = "sokoban"
    """The environment: a name that `leafe envs` lists, "MODULE:ATTRIBUTE" (a class of yours; its module has
    tasks(split, n, start=…)), or "gymnasium:ID" (an environment of text that is registered there)."""
    env_options: dict[str, Any] = Field(default_factory=dict)
    """The environment's options, as JSON or as KEY=VALUE: size=6,boxes=1,min_moves=3,max_moves=10."""
    split: Literal["train", "validation", "test"] = "train"
    """Which tasks; the splits share none."""
    tasks: int | None = Field(default=None, ge=1)
    """How many of them; 50 unless given, or all of --levels."""
    start: int = Field(default=0, ge=0)
    """Where in the split, or in --levels, to begin: 0 is at the start. Starts far apart give other tasks."""
    levels: FilePath | None = None
    """Play the levels of this file instead of generated ones."""

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


class Playing(Choosing):
    """Which tasks a policy plays, how, and what it may spend; shared by explore and eval."""

    model: str
    """The policy: "local:smollm2-135m" (embedded), "local:FOLDER", "vllm:NAME@http://HOST:PORT/v1" (several servers of
    the same model: URL,URL), "openai:NAME", whatever LangChain's init_chat_model knows, or "python:MODULE:ATTRIBUTE" (a
    chat model or what makes one)."""
    out: Path
    """The run folder. Giving the same command again resumes it."""

    adapter: Path | None = None
    """LoRA adapter on a local model."""
    temperature: float | None = None
    """Sampling temperature of the policy; the model's own default unless given."""
    top_p: float | None = None
    """Sample from the most probable tokens that make up this much."""
    max_turns: int | None = Field(default=None, ge=1)
    """Longest path, in decisions; unless given, the environment's HORIZON, which is the literature's."""
    history: int | None = Field(default=None, ge=0)
    """Earlier turns shown in a prompt; all unless given, 0 is none."""
    max_tokens: int | None = Field(default=None, ge=1)
    """New tokens of an action."""
    prompts: str | None = None
    """The texts, as MODULE:ATTRIBUTE of a Prompts object; those of the warm start are
    "leafe_graph.envs.sokoban.warm_start:PROMPTS"."""
    timeout: float | None = Field(default=None, gt=0)
    """Seconds that a model call may take before it is tried again; 600 unless given."""
    tries: int | None = Field(default=None, ge=1)
    """How often a call that meets a rate limit, a failing server or no answer is tried; 7 unless given."""
    env_timeout: float | None = Field(default=None, gt=0)
    """Play each environment in a process of its own, and end it if a call takes longer than so many seconds."""
    concurrency: int = Field(default=32, ge=1)
    """Tasks played at once."""
    checkpointer: str | None = None
    """PostgreSQL database for the decision points, postgresql://USER@HOST/DATABASE; unless given, SQLite in --out."""
    seed: int = 0
    """Root of all sampling seeds."""

    env_steps: int | None = Field(default=None, ge=0)
    """Budget of each task: environment steps."""
    replayed_steps: int | None = Field(default=None, ge=0)
    """Budget of each task: steps replayed to rewind an environment without snapshots."""
    model_calls: int | None = Field(default=None, ge=0)
    """Budget of each task: model calls, the reflector's too."""
    prompt_tokens: int | None = Field(default=None, ge=0)
    """Budget of each task: prompt tokens."""
    completion_tokens: int | None = Field(default=None, ge=0)
    """Budget of each task: new tokens."""
    reflections: int | None = Field(default=None, ge=0)
    """Budget of each task: reflections."""
    total_env_steps: int | None = Field(default=None, ge=0)
    """Budget of the whole run: environment steps. Which task meets a run's limit first depends on timing."""
    total_replayed_steps: int | None = Field(default=None, ge=0)
    """Budget of the whole run: replayed steps."""
    total_model_calls: int | None = Field(default=None, ge=0)
    """Budget of the whole run: model calls."""
    total_prompt_tokens: int | None = Field(default=None, ge=0)
    """Budget of the whole run: prompt tokens."""
    total_completion_tokens: int | None = Field(default=None, ge=0)
    """Budget of the whole run: new tokens."""
    total_reflections: int | None = Field(default=None, ge=0)
    """Budget of the whole run: reflections."""


class Explore(Playing):
    """Play tasks, reflect, rewind, branch: grow an experience tree for every task."""

    strategy: StrategyName = "leafe"
    """"leafe": rewind and branch. "independent": fresh samples. "refine": restart with the reflection in the prompt."""
    reflector: str | None = None
    """Another model for the reflections; the policy itself unless given."""
    reflect_every: int | None = Field(default=None, ge=1)
    """Reflect after every so many turns as well as on failure."""
    experience_turns: int | None = Field(default=None, ge=1)
    """Turns of a branch whose prompts show its experience; all unless given."""
    reflect_max_tokens: int | None = Field(default=None, ge=1)
    """New tokens of a reflection."""
    on_divergence: OnDivergence = "end"
    """When a replay shows something else than was recorded: "end" the branch, "raise" and stop the run, or "accept": go
    on and mark the branch, which export then leaves out unless asked."""
    max_branches: int = Field(default=Limits.max_branches, ge=1)
    """Branches a task, roots included."""
    max_depth: int = Field(default=Limits.max_depth, ge=0)
    """Rewinds between a root and a leaf."""
    branches_per_reflection: int = Field(default=Limits.branches_per_reflection, ge=1)
    """Branches forked from one decision point for one reflection."""
    max_roots: int | None = Field(default=Limits.max_roots, ge=1)
    """Rollouts from the start; as many as the other limits allow unless given."""
    stop_on_success: bool = Limits.stop_on_success
    """End a task's tree with its first success."""
    prune: bool = False
    """Drop a tree's checkpoints when it is finished."""


class Demonstrate(Choosing):
    """Let an environment's expert play, and write what it does as training rows for a warm start."""

    out: Path
    """The JSONL file to write."""
    history: int | None = Field(default=None, ge=0)
    """Earlier turns shown in a prompt; all unless given, 0 is none."""
    prompts: str | None = None
    """The texts, as MODULE:ATTRIBUTE of a Prompts object: those that the policy will be run with."""
    mistakes: int = Field(default=1, ge=0)
    """Attempts with a mistake a task: each gives a reflection, and a turn that follows it."""
    seed: int = 0
    """Decides the mistakes."""


class Export(Command):
    """Turn a run's trees into training rows: JSONL, Parquet and a dataset card."""

    run: CliPositionalArg[Path]
    """A run folder."""
    keep: Literal["success", "improved"] = "success"
    """Which branchings count: those whose branch succeeded, or those with a higher return than their parent."""
    skip_invalid: bool = False
    """Make no row of an action that the environment said was not understood or had no effect."""
    diverged: bool = False
    """Also make rows of branches that were played on after a replay that showed something else than was recorded."""
    out: Path | None = None
    """Folder to write to; RUN/examples unless given."""


class Eval(Playing):
    """Judge a policy: fresh samples without reflection or rewind; Pass@k with intervals to OUT.json and OUT.png."""

    split: Literal["train", "validation", "test"] = "test"
    """Which tasks; the splits share none."""
    samples: int = Field(default=8, ge=1, validation_alias=AliasChoices("n", "samples"))
    """Samples a task."""
    name: str | None = None
    """What tables and plots call the policy; the adapter's folder or the model unless given."""
