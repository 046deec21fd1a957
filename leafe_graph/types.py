"""What is saved: plain JSON records, described as TypedDicts.

Everything here crosses a file, a checkpoint or a process boundary, so it holds only JSON values (and bytes in
`Turn.env_state`, which never leaves the checkpoint). Decision points and turns are 0-based: decision point ``t`` is the
moment before turn ``t``, with ``turns[:t]`` behind it.
"""

from typing import Any, Literal, NotRequired

from typing_extensions import TypedDict

FORMAT_VERSION = 1
"""Version of the saved records; a reader refuses what it does not know."""

EndReason = Literal[
    "success",
    "failure",
    "truncated",
    "max_turns",
    "rewound",
    "budget",
    "env_error",
    "model_error",
    "replay_divergence",
]
"""Why a branch ended.

``success``/``failure``: the environment terminated with or without success. ``truncated``: the environment's own
horizon. ``max_turns``: ours. ``rewound``: a reflection in the middle of the branch asked for an earlier decision point.
``budget``: a limit would have been exceeded. ``env_error``, ``model_error``: the call raised. ``replay_divergence``: a
replay did not bring back the recorded observations.
"""

OnDivergence = Literal["end", "raise", "accept"]
"""What a replay that shows something else than was recorded does.

``end``: it ends the branch as ``replay_divergence``. ``raise``: it stops the run with `ReplayDivergence`. ``accept``:
the branch goes on from where the environment stands now, marked by its ``divergence``.
"""

Durability = Literal["async", "exit"]
"""When a saver is given a branch's states, as LangGraph calls it: after each turn, written behind, or when it ends."""

Verdict = Literal["on_track", "rewind", "unparsed", "out_of_range"]
"""How a reflection was understood; only ``rewind`` has consequences."""

ExampleKind = Literal[
    "counterfactual",
    "rehearsal",
    "demonstration",
    "preference",
    "rollout",
    "world_model",
    "self_reflection",
    "on_policy",
]
"""What a row is to teach: a revised action, one of a success, an expert's, the better of two, a sampled one by its
advantage, what an action brings about, an action with the thoughts that lead to it, or a sampled one that a teacher
corrects."""


class Task(TypedDict):
    """One problem of an environment."""

    id: str
    """Unique within a run."""
    instruction: str
    """What the agent is told to do; may be empty where the observation says it all."""
    seed: NotRequired[int | None]
    """Given to ``env.reset(seed=…)``."""
    options: NotRequired[dict[str, Any] | None]
    """Given to ``env.reset(options=…)``; JSON."""


class CalledFunction(TypedDict):
    """What a tool call calls."""

    name: str
    arguments: dict[str, Any] | str
    """An object, never its JSON, which chat templates would encode again. A text is what the model wrote where that is
    no JSON; no row holds one."""


class ToolCall(TypedDict):
    """A tool call in the form that Hugging Face chat templates and TRL read."""

    type: Literal["function"]
    function: CalledFunction
    id: NotRequired[str]
    """What the tool's message answers to. Rows number theirs, ``call00000`` and so on: random ones would make equal
    decisions differ, and some templates ask for nine letters or digits."""


class Message(TypedDict):
    """A chat message in the form that Hugging Face chat templates read."""

    role: str
    content: str
    """Text; empty where there are only calls."""
    tool_calls: NotRequired[list[ToolCall]]
    """Of an assistant's: all its calls, in order."""
    name: NotRequired[str]
    """Of a tool's: which one answers. Of others: who speaks."""
    tool_call_id: NotRequired[str]
    """Of a tool's: the call that it answers."""


class Request(TypedDict):
    """What a provider was asked for a decision, without the experience that was appended to it."""

    messages: list[Message]
    tools: list[dict[str, Any]]
    """The schemas of that very call, in OpenAI's form: ``{"type": "function", "function": {"name": …}}``. Empty where
    it had none."""


class Time(TypedDict):
    """From when to when something took, in seconds since 1970 by the clock of the machine that did it.

    Nothing that is found depends on it: runs are the same if they are but for this. Releases before 0.2.0 kept none.
    """

    started: float
    ended: float


class Usage(TypedDict):
    """Tokens of one answer, where the model counts them."""

    input_tokens: int
    output_tokens: int


class ModelMessage(TypedDict):
    """What the model said, as it came."""

    content: str
    tool_calls: NotRequired[list[dict[str, Any]]]
    """``name`` and ``args`` of the one call that is the action or, of a turn with a ``request``, of all calls. ``args``
    are a text where they are no JSON."""
    refused_tool_calls: NotRequired[list[dict[str, Any]]]
    """Further calls of the same message, where a turn is one action: they are not carried out, and no prompt or row
    shows them."""
    thoughts: NotRequired[str]
    """What it thought aloud, where a server took that out of ``content``: in no prompt, but said by ``token_ids``."""
    prompt_token_ids: NotRequired[list[int]]
    """Token ids of the prompt, where the model gave them."""
    token_ids: NotRequired[list[int]]
    """Sampled token ids, thoughts and the stop token included, where the model gave them."""
    logprobs: NotRequired[list[float]]
    """Natural-log probability of each of ``token_ids``."""
    usage: NotRequired[Usage]
    """Of the call that was answered; what tries before it cost is in the branch's `Cost` alone."""
    time: NotRequired[Time]
    """Of the call, with tries that failed and the waits between."""


class Reply(TypedDict):
    """What a person, or who stands for one, answered to an agent's ``interrupt()``."""

    asked: Any
    """The interrupt's value; JSON."""
    answer: Any
    """JSON."""


class Turn(TypedDict):
    """One decision and the environment's answer."""

    observation: str
    """What was seen *before* the action."""
    action: str
    """The text at the environment's door."""
    message: ModelMessage
    feedback: str
    """The environment's short answer to the action: ``info["feedback"]``, else the next observation."""
    reward: float
    terminated: bool
    truncated: bool
    valid: bool | None
    """False where the environment did not understand the action or it had no effect; None where it cannot tell."""
    checkpoint_id: str | None
    """The checkpoint of this turn's decision point: where a fork starts. None without a checkpointer."""
    env_state: bytes | None
    """The environment's snapshot at this decision point; None where it has no snapshots. Not written to run folders."""
    anchor: NotRequired[str]
    """On request, a digest of the state at this decision point, see `leafe_graph.env.protocol.anchor`."""
    request: NotRequired[Request]
    """Of an agent that makes its own prompts: this decision's. Without it the prompt is the history of turns."""
    node: NotRequired[str]
    """Of an agent that makes its own prompts: which of its agents decided, by the path of its node."""
    answer: NotRequired[dict[str, Any]]
    """Of an agent that was played as a whole: the ``message`` as it got it, in LangChain's `message_to_dict`, for a
    replay to give back."""
    replies: NotRequired[list[Reply]]
    """Of such an agent: what it had asked a person since the turn before."""
    time: NotRequired[Time]
    """Of the environment's step, with what was replayed for it; the model's part is its message's."""


class Outcome(TypedDict):
    """What an action led to."""

    action: str
    observation: str
    """What is seen after it."""
    valid: bool | None
    """As of a `Turn`."""


class Probe(TypedDict):
    """A decision point of a path: what the action taken there led to, and what others would have."""

    branch: str
    """Id of the branch whose path it is on."""
    decision_point: int
    taken: Outcome
    others: list[Outcome]
    """Of actions that were tried there for one step, from the same state."""
    reflection: str | None
    """Thoughts that lead to the action taken; None where nobody was asked for them."""


class Divergence(TypedDict):
    """Where a replay showed something else than was recorded."""

    turn: int
    """The decision point whose observation differs."""
    expected: str
    actual: str


class Reflection(TypedDict):
    """What the reflector answered and how it was understood."""

    turn: int
    """Number of turns behind it when it was asked."""
    verdict: Verdict
    decision_point: int | None
    experience: str | None
    raw: str
    """The model's words."""
    usage: NotRequired[Usage]
    """Of the call that was answered."""
    time: NotRequired[Time]
    """Of the call, with tries that failed and the waits between."""


class Cost(TypedDict):
    """What was spent; the fields of `leafe_graph.budget.Budget` plus wall time."""

    env_steps: int
    replayed_steps: int
    model_calls: int
    prompt_tokens: int
    completion_tokens: int
    reflections: int
    seconds: float


class Branch(TypedDict):
    """A node of the experience tree: the part of a root-to-leaf path that this branch played itself."""

    version: int
    id: str
    """Unique within the task: "0", "1", … in the order in which branches were started."""
    task: Task
    parent: str | None
    """None for a root."""
    depth: int
    """Number of rewinds between the root and this branch."""
    decision_point: int
    """Where it leaves its parent; 0 for a root. ``turns[0]`` is decision ``decision_point``."""
    experience: str | None
    """What its prompts were told; None for a root."""
    turns: list[Turn]
    """Its own turns only; `leafe_graph.tree.branches.path` puts the parents' in front."""
    reflection: Reflection | None
    """The reflection that ended it, if one did or if its end was reflected upon."""
    reflections: list[Reflection]
    """Every reflection made on this branch, in order."""
    end: EndReason
    error: str | None
    """What was raised, for the error ends."""
    divergence: NotRequired[Divergence | None]
    """The first replay that did not bring back what was recorded: the branch ended by it or, where that was accepted,
    was played on from a state that its history does not tell."""
    return_: float
    """Sum of rewards from the task's start, parents' turns included."""
    time: NotRequired[Time]
    """From its start or fork to its end."""
    cost: Cost
    thread_id: str | None
    """The LangGraph thread that holds its checkpoints."""


class Example(TypedDict):
    """One training row, in TRL's conversational prompt-completion format. It never holds an experience."""

    version: int
    kind: ExampleKind
    prompt: list[Message]
    completion: list[Message]
    """Exactly one assistant message, with all its tool calls; only its tokens (and the stop token) carry loss."""
    task_id: str
    branch_id: str
    decision_point: int
    weight: float
    """Multiplies this row's negative log-likelihood within its kind's expectation; 1 unless changed by hand."""
    prompt_token_ids: list[int] | None
    completion_token_ids: list[int] | None
    rejected: NotRequired[list[Message]]
    """Of a preference: the worse answer to the same prompt, one assistant message."""
    rejected_token_ids: NotRequired[list[int] | None]
    teacher_prompt: NotRequired[list[Message]]
    """Of a counterfactual row, on request, and of an on-policy one: the prompt as it was played, *with* the
    experience. Only a teacher is asked it, for the probabilities that the student learns to have without."""
    advantage: NotRequired[float]
    """Of a rollout: how much better than its group this action's episode ended."""
    logprobs: NotRequired[list[float] | None]
    """Of a rollout: natural-log probability of each of ``completion_token_ids`` when it was sampled."""
    tools: NotRequired[list[dict[str, Any]]]
    """The tools that this decision's request had, in OpenAI's form; absent where it had none."""
    node: NotRequired[str]
    """Which agent decided, as `Turn.node` says it."""


MESSAGES = ("prompt", "completion", "rejected", "teacher_prompt")
"""Columns of an `Example` that hold messages."""
