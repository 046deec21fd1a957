"""A reflector that blames a random step: the control for what a reflection is worth that finds the right one.

    leafe explore … --reflector python:examples.random_reflector:plain

It reads the prompt that the policy's own reflector gets, finds the steps of the attempt in it, and says of one of them,
drawn by the call's seed, the words of a template. `random_reflector` makes one for other texts than those at the end.
"""

import json
import random
import re
from string import Formatter

from langchain_core.messages import BaseMessage

from leafe_graph import ConfigError, Prompts
from leafe_graph.prompts import BRIEF
from leafe_graph.testing import ScriptedModel

EXPERIENCE = "{action} -> {feedback} Do something else at step {number}."


def random_reflector(prompts: Prompts, experience: str = EXPERIENCE) -> ScriptedModel:
    """A chat model that answers as a reflector does, of a random step.

    Args:
        prompts: the texts that are played; a line of ``steps`` is found by ``prompts.step``, which names the number.
        experience: what it says. Fields: number, action, feedback.
    """
    line = re.compile(_pattern(prompts.step), re.MULTILINE)

    def reply(messages: list[BaseMessage], seed: int | None) -> str:
        steps = {int(step["number"]): step.groupdict("") for step in line.finditer(messages[-1].text)}
        if not steps:
            raise ConfigError(f"no step like {prompts.step!r} in the reflector's prompt: give the prompts played")
        # By its number: the words in which a prompt tells an attempt do not decide what is drawn.
        number = random.Random(seed).randrange(max(steps) + 1)
        step = {"action": "", "feedback": ""} | steps.get(number, {}) | {"number": str(number)}
        return json.dumps({"experience": experience.format(**step).strip(), "step": number}, ensure_ascii=False)

    return ScriptedModel(reply=reply)


_FIELDS = {"number": r"\d+", "action": ".*?", "feedback": r"[\s\S]*?"}


def _pattern(step: str) -> str:
    """A format string as a regular expression with its fields as groups."""
    parts = []
    for text, field, _, _ in Formatter().parse(step):
        parts.append(re.escape(text))
        if field:
            parts.append(f"(?P<{field}>{_FIELDS[field]})")
    return f"^{''.join(parts)}$"


def plain() -> ScriptedModel:
    """For the prompts that are played unless others are given."""
    return random_reflector(Prompts())


def brief() -> ScriptedModel:
    """For `leafe_graph.prompts.BRIEF`."""
    return random_reflector(BRIEF)


def sokoban() -> ScriptedModel:
    """For the texts of Sokoban's warm start."""
    from leafe_graph.envs.sokoban.warm_start import PROMPTS

    return random_reflector(PROMPTS)


def coordinates() -> ScriptedModel:
    """For the texts and the advice that `examples/tiny_policy.py` teaches."""
    from leafe_graph.envs.sokoban.coordinates import PROMPTS

    return random_reflector(PROMPTS, "Do not go {action}")
