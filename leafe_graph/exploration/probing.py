"""What else could have been done at the states of successful paths, and what it would have led to: one step each.

The early experience of arXiv 2510.08558. A path is walked once more; at each state other actions are tried, and the
state is brought back from its snapshot after each: K alternatives at T states take K * T steps and the T of the walk.
In a world without snapshots each trial begins at the task's start, on another instance: T * K * T / 2 steps more.
Either way the walk must show what was recorded.
"""

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from ..agent.asking import ask
from ..agent.context import Context
from ..budget import add_costs, no_cost
from ..env.answers import Answer, start_of, step_of
from ..env.protocol import TextEnv, has_snapshots, snapshot
from ..errors import ConfigError, MissingDependency
from ..method_settings import Probing
from ..parsing import json_text
from ..seeds import call_seed
from ..text import utf8, without_thoughts
from ..tree.branches import path
from ..tree.probes import Probes
from ..tree.run_folder import RunFolder
from ..types import Branch, Cost, Message, ModelMessage, Outcome, Probe, Task, Turn

R = TypeVar("R")

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Probed:
    """What a run's probes come to."""

    states: int
    trials: int
    """Actions that were tried there beside the one taken."""
    unlike: int
    """Paths that did not show what was recorded when they were walked again, or that raised; they end there."""
    unbegun: int
    """Paths that the budget had no room for."""
    spared_steps: int
    """Steps that snapshots spared: a world without them would have replayed these, too."""
    cost: Cost


def probe(
    run: RunFolder | str | Path,
    make: Callable[[], TextEnv],
    context: Context,
    settings: Probing,
    out: str | Path,
    *,
    concurrency: int = 32,
) -> Probed:
    """Probe the states of a run's successful paths, each state of a task once; the same call goes on after a kill.

    Args:
        run: a run folder.
        make: makes the run's environment.
        context: the policy that is asked for actions and thoughts; its ``play`` and ``prompts`` are the run's.
        settings: what is tried.
        out: the file to write, see `leafe_graph.tree.probes`.
        concurrency: tasks that are probed at once.

    Raises:
        ConfigError: probes with other settings are there, or the world breaks its contract.
        RunFolderError: the file cannot be written.
    """
    folder = run if isinstance(run, RunFolder) else RunFolder(run)
    probes = Probes(Path(out))
    probes.open(settings)
    return asyncio.run(_probe(folder, make, context, settings, probes, concurrency))


async def _probe(
    run: RunFolder,
    make: Callable[[], TextEnv],
    context: Context,
    settings: Probing,
    probes: Probes,
    concurrency: int,
) -> Probed:
    admitted, unbegun = _admitted(run, settings)
    places, unlike = asyncio.Semaphore(concurrency), 0

    async def task_of(task: str, names: list[str]) -> None:
        nonlocal unlike
        async with places:
            walk = Walk(make, context, settings)
            try:
                tree = run.trees[task]
                for name in names:
                    unlike += not await walk.along(tree, name)
            finally:
                walk.close()
            probes.add(task, walk.probes, walk.cost, walk.spared_steps)

    try:
        async with asyncio.TaskGroup() as group:
            for task, names in admitted.items():
                if task not in probes:
                    group.create_task(task_of(task, names))
    except ExceptionGroup as errors:  # the first one cancelled the others
        raise errors.exceptions[0] from None
    if unlike:
        log.warning("%d paths were given up when they were walked again: see to the environment", unlike)
    tried = [len(each["others"]) for task in probes for each in probes[task]]
    return Probed(
        states=len(tried),
        trials=sum(tried),
        unlike=unlike,
        unbegun=unbegun,
        spared_steps=sum(probes.spared.values()),
        cost=add_costs(*probes.costs.values()),
    )


def _admitted(run: RunFolder, settings: Probing) -> tuple[dict[str, list[str]], int]:
    """The successful paths that there is room for, and of how many there is none.

    Each is taken to need all that it may, so that neither timing nor a kill decides.
    """
    room, unbegun, admitted = settings.env_steps, 0, dict[str, list[str]]()
    for task in sorted(run.trees.outlines):
        for name, outline in run.trees.outlines[task].items():
            if outline.end != "success":
                continue
            most = (outline.decision_point + outline.turns) * settings.alternatives
            if room is not None and most > room:
                unbegun += 1
                continue
            room = None if room is None else room - most
            admitted.setdefault(task, []).append(name)
    return admitted, unbegun


class Walk:
    """The paths of one task, walked one after the other; a state that was come to before is not probed again."""

    def __init__(self, make: Callable[[], TextEnv], context: Context, settings: Probing) -> None:
        self._make, self._context, self._settings = make, context, settings
        self._envs: dict[str, TextEnv] = {}
        self._known: set[bytes | str] = set()
        self.probes: list[Probe] = []
        self.cost: Cost = no_cost()
        self.spared_steps = 0

    def close(self) -> None:
        """Give the instances back."""
        for env in self._envs.values():
            with contextlib.suppress(Exception):  # what is broken often cannot be closed either
                env.close()
        self._envs.clear()

    async def along(self, tree: Mapping[str, Branch], name: str) -> bool:
        """Probe the states of a path; whether it showed what was recorded, to its end."""
        branch, turns = tree[name], path(tree, name)
        try:
            seen, info = await self._do(lambda: self._start("walk", branch["task"]))
            admissible, answer = info.get("admissible", []), None
            for t, turn in enumerate(turns):
                if seen != turn["observation"]:
                    log.warning(
                        "task %r, branch %s: other than recorded at %d: %.80r", branch["task"]["id"], name, t, seen
                    )
                    return False
                answer = await self._at(branch, turns[: t + 1], admissible)
                self.cost["replayed_steps"] += 1
                seen, admissible = answer.observation, answer.info.get("admissible", [])
            return answer is not None and answer.success
        except (ConfigError, MissingDependency):
            raise
        except Exception as error:
            log.warning("task %r, branch %s is given up: %r", branch["task"]["id"], name, error)
            self.close()
            return False

    async def _at(self, branch: Branch, turns: Sequence[Turn], admissible: Sequence[str]) -> Answer:
        """Probe the state before the last of these turns unless that was done, and take that turn; the answer to it."""
        env, turn, t = self._envs["walk"], turns[-1], len(turns) - 1
        state = await self._do(lambda: snapshot(env))
        place = json_text([each["action"] for each in turns[:-1]]) if state is None else state
        new = place not in self._known
        others: list[Outcome] = []
        if new:
            self._known.add(place)
            for action in await self._alternatives(branch, turns, admissible):
                others.append(await self._do(partial(self._trial, branch["task"], turns[:-1], state, action)))
        answer = await self._do(lambda: step_of(env.step(turn["action"])))
        if new:
            probe = Probe(
                branch=branch["id"],
                decision_point=t,
                taken=_outcome(turn["action"], answer),
                others=others,
                reflection=None,
            )
            if self._settings.reflect:
                probe["reflection"] = await self._reflection(branch, turns, probe)
            self.probes.append(probe)
        return answer

    def _start(self, role: str, task: Task) -> tuple[str, dict[str, Any]]:
        """The instance of this role at the task's start; what it shows."""
        env = self._envs.setdefault(role, self._envs.get(role) or self._make())
        return start_of(env.reset(seed=task.get("seed"), options=task.get("options")))

    def _trial(self, task: Task, turns: Sequence[Turn], state: bytes | None, action: str) -> Outcome:
        """What an action leads to behind these turns; the walk's instance stands where it stood."""
        env = self._envs["walk"]
        if state is None:
            self._start("trials", task)
            env = self._envs["trials"]
            for turn in turns:
                env.step(turn["action"])
            self.cost["replayed_steps"] += len(turns)
        else:
            self.spared_steps += len(turns)
        self.cost["env_steps"] += 1
        outcome = _outcome(action, step_of(env.step(action)))
        if state is not None and has_snapshots(env):
            env.restore(state)
        return outcome

    async def _alternatives(self, branch: Branch, turns: Sequence[Turn], admissible: Sequence[str]) -> list[str]:
        """Other actions than the last of these turns, each once."""
        settings, taken, t = self._settings, turns[-1]["action"], len(turns) - 1
        rng = random.Random(json_text([settings.seed, branch["task"]["id"], branch["id"], t]))
        rest = [action for action in dict.fromkeys(admissible) if action != taken]
        drawn = rng.sample(rest, len(rest))
        if settings.propose == "admissible" and drawn:
            return drawn[: settings.alternatives]
        found: list[str] = []
        for number in range(settings.alternatives):
            prompt = self._prompt(branch["task"], turns)
            message = await self._ask(prompt, (branch, t, number), self._context.play.max_tokens)
            action = None if message is None else utf8(self._context.prompts.action(message))
            if rest and action is not None and action not in (taken, *rest):
                action = next((each for each in drawn if each not in found), None)
            if action is not None and action != taken and action not in found:
                found.append(action)
        return found

    async def _reflection(self, branch: Branch, turns: Sequence[Turn], probe: Probe) -> str | None:
        """The thoughts that lead to the action taken, by the policy, which is told what each action led to."""
        if not probe["others"]:
            return None
        told = "\n".join(
            self._settings.other.format(action=each["action"], outcome=each["observation"]) for each in probe["others"]
        )
        taken, prompt = probe["taken"], self._prompt(branch["task"], turns)
        prompt[-1]["content"] = self._settings.compare.format(
            observation=prompt[-1]["content"], action=taken["action"], outcome=taken["observation"], others=told
        )
        limit = self._settings.reflect_max_tokens
        message = await self._ask(prompt, (branch, len(turns) - 1, "reflect"), limit, reflections=1)
        return None if message is None else without_thoughts(message["content"]).strip() or None

    def _prompt(self, task: Task, turns: Sequence[Turn]) -> list[Message]:
        """As the policy was asked before the last of these turns, told nothing."""
        history = self._context.play.history
        return self._context.prompts.act_messages(task, turns[:-1], turns[-1]["observation"], history=history)

    async def _ask(
        self,
        messages: Sequence[Message],
        where: tuple[Branch, int, int | str],
        max_tokens: int | None,
        *,
        reflections: int = 0,
    ) -> ModelMessage | None:
        """What the policy says; None where the call failed."""
        branch, t, what = where
        root = self._context.play.seed
        seed = None if root is None else call_seed(root, branch["task"]["id"], branch["id"], t, "probe", what)
        model = self._context.reflector if reflections else self._context.policy
        how: Any = {"max_tokens": max_tokens, "seed": seed, "reflections": reflections}
        message, cost = await ask(model, messages, self._context, **how)
        self.cost = add_costs(self.cost, cost)
        return message

    async def _do(self, call: Callable[[], R]) -> R:
        """Call something of an environment: in a thread, unless it says that it never waits."""
        if all(vars(type(env)).get("instant") for env in self._envs.values()) and self._envs:
            return call()
        return await asyncio.to_thread(call)


def _outcome(action: str, answer: Answer) -> Outcome:
    return Outcome(action=action, observation=answer.observation, valid=answer.valid)
