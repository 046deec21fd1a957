"""Samples of a local model in a world whose calls are instant, in lockstep: as many episodes at once as are wanted.

What LangGraph, LangChain and asyncio cost a turn is many times what a small model and its world do. Nothing of an
episode that is only counted is owed to them, so here all episodes take their turns together: equal prompts are computed
once, and no record is kept. Seeds, prompts and the reading of an action are the agent's, so the same seed gives the
same samples.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from ..budget import no_cost
from ..env.answers import start_of, step_of
from ..env.protocol import TextEnv
from ..errors import ConfigError, MissingDependency, PromptError
from ..models.local.chat_model import LocalChatModel
from ..prompts import Prompts
from ..seeds import call_seed
from ..settings import Acting
from ..text import utf8
from ..types import ModelMessage, Task, Turn
from .results import Result, TaskResult

AT_ONCE = 4096
"""Episodes that are played together: memory, and little else."""


@dataclass
class _Episode:
    """One sample, where it stands."""

    task: Task
    number: int
    """Of the sample; it is called so where it is recorded."""
    env: TextEnv
    observation: str
    turns: list[Turn] = field(default_factory=list)


def can(model: object, env: TextEnv) -> bool:
    """Whether `lockstep` plays this: a local model as it is, and a world that says that its calls are instant."""
    return type(model) is LocalChatModel and bool(vars(type(env)).get("instant"))


def lockstep(
    model: LocalChatModel,
    make: Callable[[], TextEnv],
    tasks: Iterable[Task],
    *,
    policy: str,
    n: int,
    play: Acting,
    prompts: Prompts | None = None,
    settings: dict[str, Any] | None = None,
    at_once: int = AT_ONCE,
    done: Callable[[int], None] = lambda episodes: None,
) -> Result:
    """Count what ``n`` independent samples of each task come to, as exploring with ``independent`` would.

    Args:
        model: the policy.
        make: makes an environment.
        tasks: with unique ids.
        policy: a name for tables and plots.
        n: samples a task.
        play: how the policy acts.
        prompts: the texts.
        settings: what the samples depend on, for `Result.settings`.
        at_once: episodes that are played together.
        done: told how many episodes have ended, whenever some have.

    Raises:
        ConfigError: a world breaks its contract.
        NothingPlayed: every sample failed.
    """
    prompts, causes, spent = prompts or Prompts(), Counter[str](), no_cost()
    waiting = [(task, number) for task in tasks for number in range(n)]
    counts = {task["id"]: Counter[str]() for task, _ in waiting}
    actions: dict[str, str] = {}
    spare: list[TextEnv] = []
    playing: list[_Episode] = []
    began = time.perf_counter()

    def failed(task: Task, env: TextEnv | None, error: BaseException) -> None:
        if not isinstance(error, Exception) or isinstance(error, ConfigError | MissingDependency):
            raise error
        counts[task["id"]]["failed"] += 1
        causes[f"{type(error).__name__}: {error}"] += 1
        if env is not None:
            env.close()

    def turn(episode: _Episode, text: str) -> bool:
        """Act; whether the episode goes on."""
        count, message = counts[episode.task["id"]], ModelMessage(content=text)
        if (action := actions.get(text)) is None:
            action = actions[text] = utf8(prompts.action(message))
        spent["env_steps"] += 1  # also one that fails
        answer = step_of(episode.env.step(action))
        episode.turns.append(answer.turn(episode.observation, action, message))
        count["turns"] += 1
        if answer.terminated or answer.truncated or len(episode.turns) >= play.horizon:
            count["success"] += answer.success
            spare.append(episode.env)
            return False
        episode.observation = answer.observation
        return True

    waiting.reverse()
    while waiting or playing:
        while waiting and len(playing) < at_once:
            task, number = waiting.pop()
            env = None
            try:
                env = spare.pop() if spare else make()
                observation, _ = start_of(env.reset(seed=task.get("seed"), options=task.get("options")))
                playing.append(_Episode(task, number, env, observation))
            except BaseException as error:
                failed(task, env, error)
        chats: list[Any] = [
            prompts.act_messages(each.task, each.turns, each.observation, history=play.history) for each in playing
        ]
        seeds = [
            None if play.seed is None else call_seed(play.seed, each.task["id"], each.number, len(each.turns), "act")
            for each in playing
        ]
        answers = model.sample(chats, seeds, max_tokens=play.max_tokens)
        going: list[_Episode] = []
        for episode, answer in zip(playing, answers, strict=True):
            spent["model_calls"] += 1
            try:
                if isinstance(answer, PromptError):
                    raise answer
                asked, said = answer
                spent["prompt_tokens"] += asked
                spent["completion_tokens"] += len(said.tokens)
                if turn(episode, utf8(said.text)):
                    going.append(episode)
            except BaseException as error:
                failed(episode.task, episode.env, error)
        done(len(playing) - len(going))
        playing = going
    for env in spare:
        env.close()
    spent["seconds"] = time.perf_counter() - began
    result = Result(
        policy=policy,
        settings=settings or {},
        n=n,
        tasks=[
            TaskResult(
                task_id=name, n=n, c=count["success"], errors=count["failed"], failed=count["failed"],
                turns=count["turns"] / n,
            )
            for name, count in sorted(counts.items())
        ],
        causes=dict(causes.most_common()),
        cost=spent,
    )  # fmt: skip
    result.per_task(1)  # refuses where every sample failed
    return result
