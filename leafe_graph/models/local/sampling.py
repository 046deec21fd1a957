"""One answer on its way: how it is drawn, what was drawn so far, and when it ends."""

import random
import secrets
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field

from ...errors import ConfigError
from .memo import Ids, Row


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How one answer is drawn."""

    temperature: float = 1.0
    """0 takes the most probable token."""
    top_p: float = 1.0
    """Draw from the smallest set of most probable tokens whose probability reaches this."""
    max_tokens: int = 64
    """Most new tokens, the stop token included."""
    stop: tuple[str, ...] = ()
    """The answer ends before the first of these texts."""
    seed: int | None = None
    """Same seed and prompt, same answer, whoever shares the batch (up to rounding of the logits). None draws afresh."""

    def __post_init__(self) -> None:
        if self.temperature < 0 or not 0 < self.top_p <= 1 or self.max_tokens < 1:
            raise ConfigError(f"got {self}; expected temperature >= 0, 0 < top_p <= 1 and max_tokens >= 1")


@dataclass(frozen=True)
class Answer:
    """A finished request. ``tokens`` includes the stop token; ``text`` does not."""

    text: str
    tokens: list[int]
    logprobs: list[float]
    """Natural-log probability of each token under the model's own distribution: temperature 1, nothing filtered."""
    finish_reason: str
    """"stop": a stop token or text; "length": ``max_tokens``."""


@dataclass(eq=False)
class Request:
    """A prompt and what was sampled after it."""

    prompt: Ids
    sampling: Sampling
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    future: "Future[Answer] | None" = None
    """Where the answer is waited for; None while its caller draws by itself."""

    def __post_init__(self) -> None:
        self._seed = secrets.randbits(64) if self.sampling.seed is None else self.sampling.seed
        self._random = random.Random(self._seed)

    def restart(self) -> None:
        """As it was before anything was drawn: what is drawn again is the same, or what is known would be favoured."""
        self.tokens, self.logprobs, self._random = [], [], random.Random(self._seed)

    @property
    def sequence(self) -> Ids:
        """Prompt and sampled tokens."""
        return self.prompt + tuple(self.tokens)

    @property
    def cancelled(self) -> bool:
        """Whether nobody waits for the answer any more."""
        return self.future is not None and self.future.cancelled()

    def draw(self, row: Row) -> None:
        """Sample a token, by one uniform number whatever the settings."""
        token = row.draw(self._random.random(), self.sampling.temperature, self.sampling.top_p)
        self.logprobs.append(row.logprob(token))
        self.tokens.append(token)

    def finished(self, decode: Callable[[Ids], str], stops: set[int]) -> Answer | None:
        """The answer if the last token ended it: a token of ``stops``, a stop text, or the last that was allowed."""
        stopped = self.tokens[-1] in stops
        full = len(self.tokens) >= self.sampling.max_tokens
        if not (stopped or full or self.sampling.stop):
            return None
        text = decode(tuple(self.tokens[:-1] if stopped else self.tokens))
        if cuts := [at for stop in self.sampling.stop if (at := text.find(stop)) >= 0]:
            text, stopped = text[: min(cuts)], True
        if not (stopped or full):
            return None
        return Answer(text, self.tokens, self.logprobs, "stop" if stopped else "length")

    def resolve(self, outcome: Answer | Exception) -> None:
        """Hand the outcome over; a caller that went away, or has one already, is left alone."""
        if self.future is None:
            return
        try:
            if isinstance(outcome, Exception):
                self.future.set_exception(outcome)
            else:
                self.future.set_result(outcome)
        except InvalidStateError:
            pass
