"""Settings of single methods: what is tried beside what was done, and how a playbook is written."""

from typing import Literal

from pydantic import Field

from .settings import Settings


class Probing(Settings):
    """What is tried at the states of successful paths (Early Experience, arXiv 2510.08558)."""

    alternatives: int = Field(default=8, ge=1)
    """K: other actions tried at each state, for one step each. The paper's are 8 for ALFWorld's world model, 3 for
    ScienceWorld's, and 2 to 4 for reflections."""
    propose: Literal["admissible", "policy"] = "admissible"
    """Where they come from: drawn evenly from the "admissible" ones, as in the paper's ALFWorld, or what the "policy"
    says there, an inadmissible one replaced by a draw. Each stands in for the other where that has nothing to give."""
    reflect: bool = False
    """Ask the policy for the thoughts that lead to the action taken, knowing what each action led to."""
    reflect_max_tokens: int | None = Field(default=None, ge=1)
    """New tokens of these thoughts, for models that take it."""
    env_steps: int | None = Field(default=None, ge=0)
    """Environment steps for all of a round: paths are begun in order while all that they may take fits. With an
    ``env_steps`` of all rounds together they are a part of that, set aside from exploring."""
    seed: int = 0
    """Decides what is drawn."""
    predict: str = "{observation}\n\nAction: {action}\n\nWhat is seen next?"
    """How a model of the world is asked. Fields: observation, action."""
    compare: str = (
        "{observation}\n\nThe choice here: {action}\nIt led to: {outcome}\n\nOther possibilities, and what they led "
        "to:\n{others}\n\nWrite the thoughts, in the first person, by which someone who stands here and has done none "
        "of this arrives at that choice: what the situation asks for, what else could be done, and why this is better. "
        "What each led to is for your judgement alone: speak of it as expected, never as seen. Give the possibilities "
        "no numbers, and call none of them given, right or an expert's. Do not write the line of the action itself."
    )
    """How the thoughts are asked for. Fields: observation, action, outcome, others."""
    other: str = "- {action}: {outcome}"
    """A line of ``others``."""
    thought: str = "{reflection}\n\nAction: {action}"
    """What is learned from them. Fields: reflection, action. The prompts must read the action from it."""


class Curating(Settings):
    """How a playbook is written from what was played (ACE, arXiv 2510.04618)."""

    max_tokens: int = Field(default=2000, ge=64)
    """The playbook never has more tokens of the policy's: what helped least goes first. A token a byte where the policy
    does not count. The paper's are 80,000, for a model of hundreds of billions of parameters."""
    similarity: float = Field(default=0.9, gt=0, le=1)
    """From this likeness on, by their characters, a new bullet is one that is there. 0.9 is that of the authors' code,
    by embeddings."""
    answer_tokens: int = Field(default=1024, ge=1)
    """New tokens of the reflector and of the curator, for models that take it."""
    reflect: str = (
        "An agent worked on a task with this playbook:\n\n{playbook}\n\nThe task:\n{task}\n\nWhat it did:\n{trace}\n\n"
        "It {outcome}. Say what there is to learn from this for other tasks of the kind: which step decided it, why, "
        "and what to do or keep doing. Say also which bullets of the playbook helped or misled the agent. Answer with "
        'JSON: {{"insight": "a few sentences", "bullets": {{"b1": "helpful", "b2": "harmful"}}}}; name only bullets '
        "that mattered."
    )
    """What the reflector is asked. Fields: playbook, task, trace, outcome."""
    curate: str = (
        "This playbook helps an agent with tasks of one kind:\n\n{playbook}\n\nAn insight from its latest work:\n"
        "{insight}\n\nWhich short, general and practical rules does this add that the playbook does not have? Answer "
        'with JSON: {{"add": [{{"section": "name of a section", "text": "the rule in a sentence"}}]}}, or '
        '{{"add": []}} if it adds nothing.'
    )
    """What the curator is asked. Fields: playbook, insight."""
