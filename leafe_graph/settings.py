"""Settings, each defined once: name, type, default, bounds and meaning stand at the field and nowhere else.

Flags of the command line, sections of a YAML file, ``config.json`` and the arguments of the public functions are all
made of these models, so a setting that is added here is a flag, a field of a file and a keyword at once.
"""

import functools
import inspect
import textwrap
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Concatenate, Literal, ParamSpec, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic.fields import FieldInfo
from pydantic_core import to_jsonable_python

from .errors import ConfigError
from .types import OnDivergence

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

P = ParamSpec("P")
A = TypeVar("A")
R = TypeVar("R")
S = TypeVar("S", bound="Settings")
T = TypeVar("T")

if TYPE_CHECKING:
    Live = Annotated[T, "live"]
    """Type of an argument that is handed on as it is: a model, a function, a list that stays the caller's."""
else:

    class Live:  # noqa: D101
        def __class_getitem__(cls, kind: Any) -> Any:
            return Annotated[Any, cls(kind)]

        def __init__(self, kind: Any) -> None:
            self.kind = kind


class Pace:
    """Mark of a setting that decides speed and memory, and nothing that is found: a resumed run may have another."""


class Output:
    """Mark of a setting that decides what else is made of a result: a later call may ask for more."""


class Place:
    """Mark of a setting that says where something lies, not what it holds."""


def marked(model: type[BaseModel], *marks: type) -> set[str]:
    """The fields of a model that bear any of these marks: ``concurrency: Annotated[int, Pace]``."""
    return {name for name, field in model.model_fields.items() if any(mark in field.metadata for mark in marks)}


if TYPE_CHECKING:
    _Told = type
else:

    class _Told(type(BaseModel)):
        """Says in a ConfigError what pydantic says where a model is called from Python."""

        def __call__(cls, *args: Any, **kwargs: Any) -> Any:
            try:
                return super().__call__(*args, **kwargs)
            except ValidationError as error:
                raise ConfigError(mistakes(error)) from None


class Settings(BaseModel, metaclass=_Told):
    """What all settings share: help texts are the fields' docstrings, and nothing is changed once it was checked.

    A wrong value is a `ConfigError` where Python code gives it; pydantic's own error where a file or a command line
    does, which says it in words of theirs.
    """

    model_config = ConfigDict(use_attribute_docstrings=True, extra="forbid", frozen=True, arbitrary_types_allowed=True)


MAX_TURNS = 30
"""Longest path, in decisions, where neither a setting nor an environment's horizon says it."""
TASKS = 50
"""How many are played where no number is given."""


class Shown(Settings):
    """What a prompt shows."""

    history: int | None = Field(default=None, ge=0)
    """Earlier turns shown in a prompt; all unless given, 0 is none."""


class Acting(Shown):
    """How a policy acts: what exploring, judging and the agent have in common."""

    max_turns: int | None = Field(default=None, ge=1)
    """Longest path, in decisions. Unless given, it is 30, or on the command line and in files the horizon of the
    environment, which is the literature's."""
    max_tokens: int | None = Field(default=None, ge=1)
    """New tokens of an action, for models that take it."""
    timeout: Annotated[float | None, Pace] = Field(default=600.0, gt=0)
    """Seconds that a model call may take before it is tried again. 600 is what OpenAI's client waits."""
    tries: Annotated[int, Pace] = Field(default=7, ge=1)
    """How often a call that meets a rate limit, a failing server or no answer is tried, each try counted: seven tries
    take a minute or somewhat more, time for a server to be started anew."""
    seed: int | None = 0
    """Root of all sampling seeds, for models that take one; None lets every call be drawn afresh."""

    @property
    def horizon(self) -> int:
        """The longest path, in decisions."""
        return MAX_TURNS if self.max_turns is None else self.max_turns


class Play(Acting):
    """How a policy acts, reflects, and goes on after a rewind."""

    reflect_every: int | None = Field(default=None, ge=1)
    """K: reflect after every so many turns of a branch as well as on failure; on failure only unless given."""
    experience_turns: int | None = Field(default=None, ge=0)
    """Turns of a branch whose prompts show its experience; all unless given, 0 is none."""
    reflect_max_tokens: int | None = Field(default=None, ge=1)
    """New tokens of a reflection, for models that take it."""
    anchors: bool = False
    """Note with each turn a digest of the environment's state, where that tells one, by which the method gigpo finds
    equal states."""
    on_divergence: OnDivergence = "end"
    """When a replay shows something else than was recorded: "end" the branch, "raise" and stop the run, or "accept": go
    on and mark the branch, which export then leaves out unless asked."""


class Limits(Settings):
    """What bounds one task's tree, beside the budget."""

    max_branches: int = Field(default=16, ge=1)
    """Branches a task, roots included."""
    max_depth: int = Field(default=4, ge=0)
    """Rewinds between a root and a leaf."""
    branches_per_reflection: int = Field(default=1, ge=1)
    """Branches forked from one decision point for one reflection; by the strategy "vine", for its value."""
    fork_every: int = Field(default=1, ge=1)
    """The strategy "vine" forks at every so many decision points of a rollout."""
    max_roots: int | None = Field(default=None, ge=1)
    """Rollouts from the start; unless given, a new one whenever no request waits."""
    stop_on_success: bool = True
    """End a task's tree with its first success."""
    max_successes: int | None = Field(default=None, ge=1)
    """Without ``stop_on_success``: end a task's tree with so many, which leaves more of a run's budget for others."""


class Workers(Settings):
    """Ray actors that grow a run's trees, on this machine or on a cluster; needs the extra ``ray``.

    They decide speed alone: the branches are those of a run without, and any number of workers resumes any run.
    """

    def __init__(self, number: int, **settings: Any) -> None:
        super().__init__(**{"number": number, **settings})

    number: int = Field(ge=1)
    """How many actors. A tree is grown by one of them at a time, so no more than there are tasks are of use."""
    address: str | None = None
    """Of a Ray cluster: HOST:PORT, or "auto" for the one that this machine belongs to. Unless given, Ray is started on
    this machine for the call, and listens on 127.0.0.1 alone."""
    cpus: float = Field(default=1.0, gt=0)
    """CPUs that each actor reserves; a fraction lets several share one."""
    resources: dict[str, float] | None = None
    """What else each reserves, such as ``{"GPU": 1}``: without it an actor sees no GPU."""
    runtime_env: dict[str, Any] | None = None
    """Ray's ``runtime_env`` of the actors: code, packages and variables that they need."""
    timeout: float = Field(default=300.0, gt=0)
    """Seconds without any worker, at the start or later, after which the run gives up; it can be resumed."""

    @field_validator("address")
    @classmethod
    def _is_no_client(cls, address: str | None) -> str | None:
        if address is not None and ("://" in address or (address != "auto" and ":" not in address)):
            raise ValueError('expected "auto" or HOST:PORT, the address that `ray status` and `ray start` tell')
        return address


RowKind = Literal["counterfactual", "preference", "rehearsal", "rollout", "world_model", "self_reflection", "on_policy"]
"""What can be made of trees. Demonstrations are an expert's."""


class Rows(Settings):
    """Which training rows are made of trees."""

    kinds: list[RowKind] = Field(default=["counterfactual", "rehearsal"], min_length=1)
    """What is made. "counterfactual": the revised action of each branching that counts. "preference": that action over
    the one that its parent took there, where it ended better. "rehearsal": all actions of successes. "rollout": all
    actions of independent attempts, each with its advantage over those at the same task; they need logprobs.
    "world_model" and "self_reflection": what actions led to at probed states, and the action taken there with the
    thoughts that lead to it; they need probes. "on_policy": what was done at the decision point of each branching that
    counts before it was revised, for a teacher who is told the branch's experience."""
    keep: Literal["success", "improved", "every"] = "success"
    """Which branchings count: those whose branch succeeded, those with a higher return than their parent, or every one.
    The paper's formula sums over every one; a branch that a budget or an error ended never counts."""
    skip_invalid: bool = False
    """Imitate no action that the environment said was not understood or had no effect. A policy that sees no history
    learns from them to repeat what did nothing. Rollouts keep them: they count against the policy."""
    nodes: list[str] | None = Field(default=None, min_length=1)
    """Whose decisions, where several agents decided: paths of their nodes, as records have them, or patterns of such
    (``researcher*``). Everyone's unless given."""
    skip_same: bool = False
    """Make no counterfactual row of a revised action that is the one that the parent took there."""
    diverged: bool = False
    """Also make rows of branches that were played on after a replay that showed something else than was recorded, and
    of those forked from them."""
    rehearsal_share: float = Field(default=1.0, ge=0, le=1)
    """Share of the successful attempts that are rehearsed, drawn at random for each by its name; the paper's is 0.2."""
    rehearse: Literal["all", "recoveries"] = "all"
    """Which successes are rehearsed: "all", or "recoveries" alone: those of branches, from where they left their
    parent."""
    siblings: bool = False
    """Preferences also of the best over each worse of the branches that leave one decision point, told the same."""
    counterfactual_per_task: int | None = Field(default=None, ge=1)
    """Most counterfactual rows of a task, drawn at random; all unless given. The paper takes 3."""
    balance: Literal["rows", "root", "tasks"] = "rows"
    """How much a task weighs, for each kind: as many "rows" as it has, the square "root" of that, or as all other
    "tasks". Weights have the mean 1. Rollouts always weigh 1."""
    teacher: bool = False
    """Counterfactual rows also hold the prompt with the experience as it was played, for a teacher to be asked."""
    advantage_std: bool = False
    """Divide an advantage by the standard deviation of its group's returns, as GRPO was published; else not, as Dr.
    GRPO does."""
    credit: Literal["episode", "steps", "values", "pivot"] = "episode"
    """What a rollout's advantages are: its "episode"'s return over that of others at the task, as in GRPO; in "steps"
    (GiGPO) also an action's discounted return over that of others in the same state; the difference that an action made
    to the state's "values" (VinePPO), as branches of the strategy "vine" tell them; or as "episode" with branches as
    attempts, from where they part ways with their parents on (R3L's "pivot")."""
    step_weight: float = Field(default=1.0, ge=0)
    """Weight of the state's part in "steps". 1 is GiGPO's."""
    amplify: float = Field(default=3.0, ge=0)
    """What advantages that are not negative are multiplied by in "pivot". 3 is R3L's."""
    discount: float = Field(default=0.95, gt=0, le=1)
    """Of later rewards in "steps". 0.95 is GiGPO's."""
    seed: int = 0
    """Decides what is drawn."""


def defaults(model: type[BaseModel]) -> dict[str, Any]:
    """What a model's settings are where nothing is said, as JSON; settings within settings too."""
    found: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        if not field.is_required():
            found[name] = to_jsonable_python(field.get_default(call_default_factory=True))
        elif isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            found[name] = defaults(field.annotation)
    return found


def part(settings: BaseModel, kind: type[S]) -> S:
    """The fields of ``kind`` as larger settings, which hold them too, have them."""
    return kind.model_construct(**{name: getattr(settings, name) for name in kind.model_fields})


def takes(arguments: Callable[P, A]) -> Callable[[Callable[[A], R]], Callable[P, R]]:
    """A function of one settings object as a function of that object's fields.

    Its signature and the description of its arguments are those of the class: fields with ``kw_only=False`` are
    positional. So a function that is called with settings lists none of them. A call that does not fit is a TypeError.
    """

    def decorate(function: Callable[[A], R]) -> Callable[P, R]:
        signature = _signature(arguments, function)

        def call(*args: Any, **kwargs: Any) -> Any:
            return function(arguments(**signature.bind(*args, **kwargs).arguments))  # type: ignore[call-arg]

        async def acall(*args: Any, **kwargs: Any) -> Any:
            waiting: Any = call(*args, **kwargs)
            return await waiting

        twin = acall if inspect.iscoroutinefunction(function) else call
        dressed: Callable[P, R] = _dressed(twin, function, arguments, signature)
        return dressed

    return decorate


def takes_too(arguments: Callable[P, A]) -> Callable[[Callable[[Any, A], R]], Callable[Concatenate[Any, P], R]]:
    """`takes` for a method, which takes ``self`` too."""

    def decorate(method: Callable[[Any, A], R]) -> Callable[Concatenate[Any, P], R]:
        signature = _signature(arguments, method)

        def call(self: Any, /, *args: Any, **kwargs: Any) -> R:
            return method(self, arguments(**signature.bind(*args, **kwargs).arguments))  # type: ignore[call-arg]

        own = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
        whole = signature.replace(parameters=[own, *signature.parameters.values()])
        dressed: Callable[Concatenate[Any, P], R] = _dressed(call, method, arguments, whole)
        return dressed

    return decorate


def _signature(model: Any, function: Callable[..., Any]) -> inspect.Signature:
    """That of a function that takes a model's fields."""
    parameters = []
    for name, field in model.model_fields.items():
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD if field.kw_only is False else inspect.Parameter.KEYWORD_ONLY
        default = inspect.Parameter.empty if field.is_required() else field.get_default(call_default_factory=True)
        parameters.append(inspect.Parameter(name, kind, default=default, annotation=_type(field)))
    parameters.sort(key=lambda each: (each.kind, each.default is not inspect.Parameter.empty))
    return inspect.Signature(parameters, return_annotation=inspect.signature(function).return_annotation)


def _dressed(call: Any, function: Callable[..., Any], model: Any, signature: inspect.Signature) -> Any:
    """The call with the function's name, and with the signature and description of what it takes."""
    functools.update_wrapper(call, function)
    del call.__wrapped__  # it is called otherwise
    call.__signature__ = signature
    call.__annotations__ = {each.name: each.annotation for each in signature.parameters.values()}
    fields = {name: " ".join((field.description or "").split()) for name, field in model.model_fields.items()}
    call.__doc__ = f"{inspect.cleandoc(function.__doc__ or '')}\n\nArgs:\n" + "\n".join(
        textwrap.fill(f"{name}: {fields[name]}", 110, initial_indent="    ", subsequent_indent="        ")
        for name in signature.parameters
        if name in fields
    )
    return call


def _type(field: FieldInfo) -> Any:
    """A field's type as a signature shows it."""
    return next((mark.kind for mark in field.metadata if isinstance(mark, Live)), field.annotation)  # type: ignore[misc]


SHOWN = 200
"""Characters of what was seen that a message shows at most."""


def mistakes(error: ValidationError) -> str:
    """All of pydantic's errors in one line."""
    return "; ".join(_told(each) for each in error.errors())


def _told(error: "ErrorDetails") -> str:
    """One of pydantic's errors in this package's words: what was seen, and what was expected."""
    name, seen, bounds = ".".join(map(str, error["loc"])), repr(error["input"]), error.get("ctx", {})
    if len(seen) > SHOWN:
        seen = f"{seen[:SHOWN]}…"
    if error["type"] == "missing":
        return f"{name} is missing"
    if error["type"] == "greater_than_equal":
        return f"{name}={seen}; expected {bounds['ge']} or more"
    if error["type"] == "greater_than":
        return f"{name}={seen}; expected more than {bounds['gt']:g}"
    if error["type"] == "literal_error":
        return f"{name}={seen}; expected one of {bounds['expected']}"
    said = error["msg"].removeprefix("Value error, ")
    return f"{name}={seen}; {said}" if name else said
