"""A method's rounds, each played and learned once, and not judged."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from ..methods import METHODS, Access, Method, Policy, Round, Tasks, Tools
from .access import LocalAccess, ServedAccess
from .config import RunConfig
from .folder import done, mark, once, round_folder

Place = Callable[[int, Policy, Tasks], Path | None]
"""Which folder a round's play goes to; None: the round's own."""


def make_method(config: RunConfig) -> Method:
    """The method, with what it works with; whoever asks for it closes its access."""
    access: Access = LocalAccess()
    if config.serve is not None:
        access = ServedAccess(config.serve, config.out / "serve")
    tools = Tools(
        explore=config.explore,
        export=config.export,
        train=config.train,
        probe=config.probe,
        playbook=config.playbook,
        access=access,
        accelerate=config.accelerate,
        once=once,
    )
    return METHODS.class_of(config.method)(tools)


@dataclass
class Learning:
    """The policies so far: what the run starts from, and what each round made. A round is numbered from 1."""

    config: RunConfig
    method: Method
    policies: list[Policy]
    place: Place = field(default=lambda number, policy, tasks: None)
    _played: dict[int, Path] = field(default_factory=dict, init=False)

    @property
    def number(self) -> int:
        """Of the round that comes next."""
        return len(self.policies)

    def stopped(self) -> str | None:
        """Why there cannot be another round; None to go on."""
        left = self._left(self.number)
        if left is None or left >= (self.config.explore.budget.env_steps or 1):
            return None
        left += self.method.reserved
        return f"The budget of {self.config.env_steps:,} environment steps is spent but for {left:,}"

    def play(self) -> str | None:
        """Play and learn the next round; why nothing was learned, else None."""
        number, config = self.number, self.config
        self.collect()
        learner = self.policies[-1 if config.train_from == "last" else 0]
        rounds = [Round(played=self.played(n), folder=round_folder(config, n)) for n in config.kept(number)]
        learned = self.method.learn(learner, rounds)
        if learned is None:
            return f"Round {number} found nothing to learn from: no path that it explored ended in success"
        self.policies.append(learned)
        return None

    def collect(self) -> None:
        """Play the next round, and learn nothing yet."""
        self.method.collect(self.policies[-1], self._tasks(self.number), out=self.played(self.number))

    def played(self, number: int) -> Path:
        """The run folder of a round; what decides it is settled when the round before it is."""
        if number not in self._played:  # it asks for those of all rounds before
            own = round_folder(self.config, number)
            self._played[number] = self.place(number, self.policies[number - 1], self._tasks(number)) or own
        return self._played[number]

    def _tasks(self, number: int) -> Tasks:
        config, left = self.config, self._left(number)
        own = config.explore.total_budget.env_steps
        limits = [limit for limit in (left, own) if limit is not None]
        return Tasks(
            start=config.start(number),
            n=config.tasks,
            seed=config.explore_seed(number),
            env_steps=min(limits, default=None),
        )

    def _left(self, number: int) -> int | None:
        """Environment steps for collecting in this round and for all after it."""
        if self.config.env_steps is None:
            return None
        playing, *phases = self.method.phases
        marks = [(self.played(n), playing) for n in range(1, number)]
        marks += [(round_folder(self.config, n), phase) for n in range(1, number) for phase in phases]
        told = [done(*each) for each in marks if mark(*each).exists()]
        spent = sum(int(each.get("cost", {}).get("env_steps", 0)) for each in told)
        return self.config.env_steps - spent - self.method.reserved
