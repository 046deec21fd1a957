"""What the core's tests share: a walk that is lost once and then won, and models that write their prompts down."""

import random
import re
from collections.abc import Callable, Sequence
from typing import Any

from langchain_core.messages import BaseMessage, convert_to_messages

from leafe_graph.testing import GridWorld, ScriptedModel, SnapshotGridWorld
from leafe_graph.types import Branch, Task

WORLDS = [GridWorld, SnapshotGridWorld]
PIT: Task = {
    "id": "pit",
    "instruction": "Walk to the goal.",
    "options": {"size": 3, "start": [0, 0], "goal": [2, 0], "pits": [[1, 0]]},
}
"""From (1, 1), where `pit_reply` goes up into the pit the first time, the way is right, then up."""
LESSON = "Above you is a hole; walk right first."
TOLD = "Experience from an earlier attempt: "
REFLECTION = f'{{"step": 2, "experience": "{LESSON}"}}'

REFLECTIONS = ('{{"step": {n}, "experience": "not {word}"}}', "Step {n} was the mistake: {word}!", "Who knows?")

Reply = Callable[[list[BaseMessage], int | None], str]


class Killed(BaseException):
    """Stands for the end of the process: nothing may catch it."""


class Restless(GridWorld):
    """Not deterministic: each reset shows the world another number of clouds, after the first step."""

    resets = 0

    def __init_subclass__(cls) -> None:
        cls.resets = 0  # each class begins under a clear sky, whatever was played before

    def reset(self, **kwargs: Any) -> Any:
        """Count."""
        type(self).resets += 1
        self.clouds = type(self).resets
        return super().reset(**kwargs)

    def step(self, action: str) -> Any:
        """Look up."""
        observation, *rest = super().step(action)
        return f"{observation}; clouds: {self.clouds}", *rest


class ScriptedLimited(ScriptedModel):
    """A scripted model that takes the call argument ``max_tokens``, as real ones do."""

    max_tokens: int | None = None


def is_reflection(messages: list[BaseMessage]) -> bool:
    """Whether a prompt asks for a reflection."""
    return "Which step was the mistake" in messages[-1].text


def pit_reply(messages: list[BaseMessage], seed: int | None = None) -> str:
    """Walks down, right, up into the pit; blames step 2; with any experience walks on to the goal."""
    text = messages[-1].text
    if is_reflection(messages):
        return REFLECTION
    at = re.findall(r"you are at (\d+,\d+)", text)[-1]
    blind = {"0,0": "down", "0,1": "right", "1,1": "up", "2,1": "up"}
    return "right" if at == "1,1" and TOLD in text else blind[at]


def wandering_reply(messages: list[BaseMessage], seed: int | None = None) -> str:
    """Walks about at random and reflects at random, also badly; the same for the same prompt and seed."""
    draw = random.Random(f"{seed} {messages[-1].text}")
    word = draw.choice(["up", "down", "left", "right"])
    if not is_reflection(messages):
        return word
    steps = len(re.findall(r"^\d+\. ", messages[-1].text, re.MULTILINE))
    return draw.choice(REFLECTIONS).format(n=draw.randrange(steps + 1), word=word)


class Recorder:
    """A reply function that writes every prompt down, as (type, text) pairs; it may be killed at its n-th call."""

    def __init__(self, reply: Reply = pit_reply, *, killed_at: int | None = None) -> None:
        self.reply, self.killed_at = reply, killed_at
        self.prompts: list[list[tuple[str, str]]] = []
        self.calls = 0

    def __call__(self, messages: list[BaseMessage], seed: int | None = None) -> str:
        """Write down, then answer."""
        self.prompts.append([(message.type, message.text) for message in messages])
        return self.reply(messages, seed)

    @property
    def model(self) -> ScriptedModel:
        """The model that answers like this."""
        return MortalModel(reply=self)

    def may_die(self, prompt: Any) -> None:
        """Die, if this call is the one."""
        self.calls += 1
        if self.calls == self.killed_at:
            self(convert_to_messages(prompt))
            raise Killed


class MortalModel(ScriptedModel):
    """A scripted model in whose call the process may end; inside, LangChain would take that for an answer."""

    def invoke(self, prompt: Any, *args: Any, **kwargs: Any) -> Any:
        """Answer or die."""
        self.reply.may_die(prompt)  # type: ignore[union-attr]
        return super().invoke(prompt, *args, **kwargs)

    async def ainvoke(self, prompt: Any, *args: Any, **kwargs: Any) -> Any:
        """Answer or die."""
        self.reply.may_die(prompt)  # type: ignore[union-attr]
        return await super().ainvoke(prompt, *args, **kwargs)


def actions(record: Any) -> list[str]:
    """The actions of a state or a branch."""
    return [turn["action"] for turn in record["turns"]]


def lasting(value: Any, *also: str) -> Any:
    """A record without what differs between equal runs: ids of threads and checkpoints, moments, seconds; and these."""
    if isinstance(value, dict):
        gone = ("checkpoint_id", "decision_checkpoint", "thread_id", "seconds", "time", *also)
        return {key: lasting(item, *also) for key, item in value.items() if key not in gone}
    return [lasting(item, *also) for item in value] if isinstance(value, list) else value


def forest(branches: Sequence[Branch]) -> list[Any]:
    """The branches of a run, by task and number, in a form that equal runs share."""
    return sorted(map(lasting, branches), key=lambda branch: (branch["task"]["id"], int(branch["id"])))
