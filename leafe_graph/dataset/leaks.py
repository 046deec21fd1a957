"""The proof that a training row is clean: no text of an experience in it, however the model or the world repeats it."""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from functools import lru_cache

from ..prompts import Prompts
from ..types import Branch, Example, Turn

LEAK_RUN = 6
"""This many consecutive words of an experience in what the model wrote are a leak."""

_CJK = "\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_CJK}]|[^\W_{_CJK}]+")  # scripts without spaces: a character is a word


@lru_cache(maxsize=4096)
def words(text: str) -> tuple[str, ...]:
    """The text as the leak check reads it: words only, without case; punctuation and white space part them."""
    return tuple(_WORD.findall(unicodedata.normalize("NFKC", text).casefold()))


def _contains(text: Sequence[str], phrase: Sequence[str]) -> bool:
    """Whether the phrase's words follow each other in the text; glued to others too, if they are several."""
    if len(phrase) == 1:
        return phrase[0] in text
    return " ".join(phrase) in " ".join(text)


def _trained(answer: str, turn: Turn, ids: list[int] | None) -> str:
    """What an answer trains on: its recorded token ids say the thoughts, too."""
    return answer if ids is None else f"{turn['message'].get('thoughts', '')}\n{answer}"


class LeakCheck:
    """Whether a row holds text of any experience of its task's tree.

    1. A whole experience must occur nowhere in the row. Two things are no leak: an experience of one word that is the
       executed action; and an observation or instruction that says what the environment also says in the tree's root
       branches, which no experience can have influenced. An observation that echoes `LEAK_RUN` words of one is a leak.
    2. In what the *model* wrote, no `LEAK_RUN` words of an experience (or of the sentence that carried it into the
       prompt) may follow each other, the executed action not counted: doing what was recommended is following it. Not
       excused is talk in an action's place: what the environment did not take as valid, or what is more than twice as
       long as any valid action that was played without an experience.
    """

    def __init__(self, tree: Iterable[Branch], prompts: Prompts) -> None:
        """``tree``: all branches of one task. ``prompts``: what the policy was run with."""
        tree = list(tree)
        texts = sorted({branch["experience"] for branch in tree if branch["experience"]})
        roots = [branch for branch in tree if branch["parent"] is None and branch["experience"] is None]
        own = {words(turn["observation"]) for branch in roots for turn in branch["turns"]}
        own |= {words(branch["task"]["instruction"]) for branch in roots}
        self.whole = [words(text) for text in texts if words(text)]
        self.foreign = [phrase for phrase in self.whole if not any(_contains(text, phrase) for text in own)]
        self.own_runs = {text[i : i + LEAK_RUN] for text in own for i in range(len(text) - LEAK_RUN + 1)}
        self.symbols = ["".join(text.split()) for text in texts if text.strip() and not words(text)]
        told = [words(prompts.experience.format(experience=text)) for text in texts]
        self.runs = {tuple(phrase[i : i + LEAK_RUN]) for phrase in told for i in range(len(phrase) - LEAK_RUN + 1)}
        plain = [turn["action"] for branch in roots for turn in branch["turns"] if turn["valid"] is not False]
        self.longest = 2 * max((len(words(action)) for action in plain), default=0)
        self._seen: dict[str, bool] = {}
        self._wrote: dict[tuple[str, str, bool | None], bool] = {}

    def __call__(self, row: Example, turns: Sequence[Turn], rejected: Turn | None = None) -> bool:
        """Whether the row holds an experience; its ``teacher_prompt`` does so on purpose, and is not looked at.

        Args:
            row: the row.
            turns: the path up to and with its own turn.
            rejected: the turn of its rejected answer.
        """
        if not (self.whole or self.symbols):
            return False
        messages = [*row["prompt"], *row["completion"]]
        written = [message["content"] for message in messages if message["role"] == "assistant"]
        written[-1] = _trained(written[-1], turns[-1], row["completion_token_ids"])
        shown = [message["content"] for message in messages if message["role"] != "assistant"]
        if rejected is not None:
            answer = row["rejected"][0]["content"]
            written, turns = [*written, _trained(answer, rejected, row["rejected_token_ids"])], [*turns, rejected]
        return any(map(self.in_shown, shown)) or any(
            self.in_written(text, turn) for text, turn in zip(reversed(written), reversed(turns), strict=False)
        )

    def in_shown(self, text: str) -> bool:
        """Whether an instruction or observation leaks."""
        if text not in self._seen:
            heard = words(text)
            echoed = {heard[i : i + LEAK_RUN] for i in range(len(heard) - LEAK_RUN + 1)} & self.runs - self.own_runs
            self._seen[text] = bool(echoed) or any(_contains(heard, phrase) for phrase in self.foreign)
        return self._seen[text]

    def in_written(self, text: str, turn: Turn) -> bool:
        """Whether the model's words at a turn leak."""
        key = (text, turn["action"], turn["valid"])
        if key not in self._wrote:
            self._wrote[key] = self._copied(text, turn)
        return self._wrote[key]

    def _copied(self, text: str, turn: Turn) -> bool:
        said_words, action = words(text), words(turn["action"])
        if any(_contains(said_words, phrase) for phrase in self.whole if not (len(phrase) == 1 and phrase == action)):
            return True
        bare, bare_action = "".join(text.split()), "".join(turn["action"].split())
        if any(symbols in bare for symbols in self.symbols if symbols != bare_action):
            return True
        excused: set[int] = set()
        if turn["valid"] is not False and 0 < len(action) <= self.longest:
            size = len(action)
            starts = (i for i in range(len(said_words) - size, -1, -1) if said_words[i : i + size] == action)
            start = next(starts, None)  # the last place: what is thought aloud comes before the action
            excused = set() if start is None else set(range(start, start + size))
        run: list[int] = []
        for i in range(len(said_words) - LEAK_RUN + 1):
            if said_words[i : i + LEAK_RUN] in self.runs:
                begin = run[0] if run and run[-1] >= i else i  # goes on with a run, or opens the next
                run = list(range(begin, i + LEAK_RUN))
                if sum(position not in excused for position in run) >= LEAK_RUN:
                    return True
        return False
