"""Demonstrations: training rows for a warm start, made from what an expert does.

A policy that cannot act in a world at all has nothing to learn from there. Three kinds of rows teach it the start:

- *act*: the history, and the expert's action;
- *reflect*: an attempt with a mistake put into it, and a reflection that names its step and what to do instead;
- *follow*: the history at that step with that experience, and the expert's action.

All are made with the prompts that the policy will be run with. They are of the kind "demonstration", which
``leafe train --objective demonstrations`` takes.
"""

import json
import logging
import random
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress

from ..env.answers import start_of, step_of
from ..env.protocol import TextEnv
from ..env.tasks import as_tasks
from ..errors import ConfigError, EnvError, MissingDependency
from ..prompts import Prompts
from ..tree.branches import told_causes
from ..types import FORMAT_VERSION, Example, Message, ModelMessage, Task, Turn

log = logging.getLogger(__name__)

ADVICE = "{action} -> {feedback} Do this instead: {better}"
"""An experience that blames ``action``. Fields: action, feedback, better."""
FEEDBACK = 80
"""Characters of the feedback that an experience quotes."""


def demonstrate(
    env: Callable[[], TextEnv],
    tasks: Sequence[Task],
    expert: Callable[[Task], Sequence[str]],
    *,
    prompts: Prompts | None = None,
    history: int | None = None,
    mistakes: int = 1,
    stray: int = 4,
    advice: str = ADVICE,
    seed: int = 0,
    progress: bool = False,
) -> list[Example]:
    """The rows of every task that its expert wins, in the tasks' order; the log names the others, and what was raised.

    Args:
        env: makes the environment.
        tasks: what is demonstrated.
        expert: the actions that win a task from its start.
        prompts: the texts of the policy's prompts; the defaults unless given.
        history: how many earlier turns a prompt shows; None is all.
        mistakes: attempts with a mistake a task, each at a step drawn at random. The wrong action is one that is
            admissible there, where the environment tells, or one of another expert's.
        stray: most actions that an attempt goes on with after its mistake, of the same kind.
        advice: the experience; `ADVICE` names the fields.
        seed: decides the mistakes.
        progress: show a bar on standard error, if that is a terminal.

    Raises:
        ConfigError: one is no task.
        EnvError: no task is won by its expert; the message says what was raised, and on how many.
    """
    from ..terminal.bar import track

    prompts, rng = prompts or Prompts(), random.Random(int(seed))
    tasks = as_tasks(tasks)
    world = env()
    rows: list[Example] = []
    raised: Counter[str] = Counter()

    def left_out(what: str, error: Exception) -> TextEnv:
        """Tell what an environment or an expert that raised costs; a new environment."""
        if isinstance(error, ConfigError | MissingDependency):
            raise error
        log.warning("%s is left out: %r", what, error, exc_info=None if raised else error)
        raised[f"{type(error).__name__}: {error}"] += 1
        with suppress(Exception):  # what is broken often cannot be closed either
            world.close()
        return env()

    try:
        won: list[tuple[Task, list[Turn]]] = []
        for task in track(tasks, "the experts' play", shown=progress):
            try:
                played = Episode(world, task)
                played.play(expert(task))
            except Exception as error:
                world = left_out(task["id"], error)
                continue
            if played.success:
                won.append((task, played.turns))
            else:
                log.warning("%s is left out: its expert does not win it, but sees %r", task["id"], played.observation)
        if not won:
            raise EnvError(
                f"none of the {len(tasks)} tasks is won by its expert: nothing to demonstrate"
                f"{told_causes(dict(raised.most_common()))}"
            )
        pool = sorted({turn["action"] for _, turns in won for turn in turns})
        for task, turns in track(won, "with mistakes", shown=progress):
            plan = [turn["action"] for turn in turns]
            for t, turn in enumerate(turns):
                prompt = prompts.act_messages(task, turns[:t], turn["observation"], history=history)
                rows.append(demonstration(task, prompt, turn["action"], t))
            for _ in range(mistakes):
                at = rng.randrange(len(plan))
                try:
                    attempt = Episode(world, task)
                    attempt.play(plan[:at])
                    for _ in range(rng.randint(1, 1 + stray)):
                        choices = attempt.admissible if attempt.admissible and rng.random() < 0.5 else pool
                        attempt.play([rng.choice([action for action in choices if action != plan[at]] or choices)])
                except Exception as error:
                    world = left_out(f"an attempt at {task['id']}", error)
                    continue
                wrong = attempt.turns[at]
                if attempt.success or wrong["action"] == plan[at]:
                    continue
                feedback = " ".join(wrong["feedback"].split())[:FEEDBACK]
                told = advice.format(action=wrong["action"], feedback=feedback, better=plan[at])
                prompt = prompts.reflect_messages(task, attempt.turns, attempt.observation, "max_turns")
                rows.append(
                    demonstration(task, prompt, json.dumps({"experience": told, "step": at}, ensure_ascii=False), at)
                )
                before = attempt.turns[:at]
                prompt = prompts.act_messages(task, before, wrong["observation"], experience=told, history=history)
                rows.append(demonstration(task, prompt, plan[at], at))
    finally:
        world.close()
    return rows


def demonstration(task: Task, prompt: list[Message], answer: str, decision_point: int = 0) -> Example:
    """A row in which ``answer`` is what an expert says to ``prompt``."""
    return Example(
        version=FORMAT_VERSION,
        kind="demonstration",
        prompt=prompt,
        completion=[Message(role="assistant", content=answer)],
        task_id=task["id"],
        branch_id="expert",
        decision_point=decision_point,
        weight=1.0,
        prompt_token_ids=None,
        completion_token_ids=None,
    )


class Episode:
    """An episode that is played from outside, by an expert and not by a model: its turns, and where it stands."""

    turns: list[Turn]
    """What was played, each action said as it is; without checkpoints and snapshots."""
    observation: str
    """What is seen now."""
    admissible: list[str]
    """The actions that are possible now; empty where the environment does not tell."""
    ended: bool
    success: bool

    def __init__(self, env: TextEnv, task: Task) -> None:
        self.env = env
        self.observation, info = start_of(env.reset(seed=task.get("seed"), options=task.get("options")))
        self.admissible = info.get("admissible", [])
        self.turns = []
        self.ended = self.success = False

    def play(self, actions: Sequence[str]) -> None:
        """Play actions until the episode ends, and write the turns down."""
        for action in actions:
            if not self.ended:
                self._step(action)

    def _step(self, action: str) -> None:
        answer = step_of(self.env.step(action))
        self.turns.append(
            Turn(
                observation=self.observation,
                action=action,
                message=ModelMessage(content=action),
                feedback=answer.feedback,
                reward=answer.reward,
                terminated=answer.terminated,
                truncated=answer.truncated,
                valid=answer.valid,
                checkpoint_id=None,
                env_state=None,
            )
        )
        self.observation, self.admissible = answer.observation, answer.info.get("admissible", [])
        self.ended, self.success = answer.terminated or answer.truncated, answer.success
