"""The proof that a training row is clean: no text of an experience in it, however the model or the world repeats it."""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from functools import lru_cache

from ..parsing import json_text
from ..prompts import Prompts
from ..types import Branch, Example, Turn
from .messages import action_of, said_text, text_of

LEAK_RUN = 6
"""This many consecutive words of an experience in what the model wrote are a leak."""

_CJK = "\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_CJK}]|[^\W_{_CJK}]+")  # scripts without spaces: a character is a word
_ESCAPED = re.compile(r"\\+[nrt]")  # white space, as JSON inside a text has it: of arguments and results


@lru_cache(maxsize=4096)
def words(text: str) -> tuple[str, ...]:
    """The text as the leak check reads it: words only, without case; punctuation and white space part them."""
    return tuple(_WORD.findall(unicodedata.normalize("NFKC", _ESCAPED.sub(" ", text)).casefold()))


def _contains(text: Sequence[str], phrase: Sequence[str]) -> bool:
    """Whether the phrase's words follow each other in the text; glued to others too, if they are several."""
    if len(phrase) == 1:
        return phrase[0] in text
    return " ".join(phrase) in " ".join(text)


def _trained(answer: str, turn: Turn, ids: list[int] | None) -> str:
    """What an answer trains on: its recorded token ids say the thoughts, too."""
    return answer if ids is None else f"{turn['message'].get('thoughts', '')}\n{answer}"


def _asked(turn: Turn) -> list[str]:
    """What the prompt of an agent that makes its own shows, but for what the model wrote."""
    if (request := turn.get("request")) is None:
        return []
    shown = [text_of(message) for message in request["messages"] if message["role"] != "assistant"]
    return [*shown, json_text(request["tools"])]


def _told(tree: Sequence[Branch]) -> set[str]:
    """The experiences that a tree's branches were told; of several in one, a line each, also each by itself."""
    told = {branch["experience"] for branch in tree if branch["experience"]}
    lines = {line for text in told if "\n" in text for line in text.splitlines()}
    if lines:
        said = (reflection["experience"] for branch in tree for reflection in branch["reflections"])
        told |= lines & {" ".join(text.split()) for text in said if text}
    return told


class LeakCheck:
    """Whether a row holds text of any experience of its task's tree.

    1. A whole experience must occur nowhere in the row. Two things are no leak: an experience of one word that is the
       executed action; and an observation or instruction that says what the environment also says in the tree's root
       branches, which no experience can have influenced. An observation that echoes `LEAK_RUN` words of one is a leak.
    2. In what the *model* wrote, no `LEAK_RUN` words of an experience (or of the sentence that carried it into the
       prompt) may follow each other, the executed action not counted: doing what was recommended is following it. Not
       excused is talk in an action's place: what the environment did not take as valid, or what is more than twice as
       long as any valid action that was played without an experience.

    Of an agent that makes its own prompts, what the model wrote are contents and calls, their arguments included; the
    action are all calls of a message, or its text where it has none. All other messages and the tools are shown to it;
    what the root branches' prompts show is what the environment says by itself. An earlier answer that is none of the
    path's turns, as one that was summarised, excuses nothing.
    """

    def __init__(self, tree: Iterable[Branch], prompts: Prompts) -> None:
        """``tree``: all branches of one task. ``prompts``: what the policy was run with."""
        tree = list(tree)
        texts = sorted(_told(tree))
        roots = [branch for branch in tree if branch["parent"] is None and branch["experience"] is None]
        own = {words(turn["observation"]) for branch in roots for turn in branch["turns"]}
        own |= {words(branch["task"]["instruction"]) for branch in roots}
        own |= {words(text) for text in {text for branch in roots for turn in branch["turns"] for text in _asked(turn)}}
        self.whole = [words(text) for text in texts if words(text)]
        self.foreign = [phrase for phrase in self.whole if not any(_contains(text, phrase) for text in own)]
        self.own_runs = {text[i : i + LEAK_RUN] for text in own for i in range(len(text) - LEAK_RUN + 1)}
        self.symbols = ["".join(text.split()) for text in texts if text.strip() and not words(text)]
        told = [words(prompts.experience.format(experience=text)) for text in texts]
        self.runs = {tuple(phrase[i : i + LEAK_RUN]) for phrase in told for i in range(len(phrase) - LEAK_RUN + 1)}
        plain = [action_of(turn) for branch in roots for turn in branch["turns"] if turn["valid"] is not False]
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
        *before, answer = [text_of(message) for message in messages if message["role"] == "assistant"]
        shown = [message["content"] for message in messages if message["role"] != "assistant"]
        shown += [json_text(row["tools"])] if "tools" in row else []
        written: list[tuple[str, Turn | None]] = [(_trained(answer, turns[-1], row["completion_token_ids"]), turns[-1])]
        if "request" in turns[-1]:
            by_text = {said_text(turn): turn for turn in turns}
            written += [(text, by_text.get(text)) for text in before]
        else:
            written += zip(reversed(before), reversed(turns[:-1]), strict=False)
        if rejected is not None:
            written.append((_trained(text_of(row["rejected"][0]), rejected, row["rejected_token_ids"]), rejected))
        return any(map(self.in_shown, shown)) or any(self.in_written(text, turn) for text, turn in written)

    def in_shown(self, text: str) -> bool:
        """Whether an instruction or observation leaks."""
        if text not in self._seen:
            heard = words(text)
            echoed = {heard[i : i + LEAK_RUN] for i in range(len(heard) - LEAK_RUN + 1)} & self.runs - self.own_runs
            self._seen[text] = bool(echoed) or any(_contains(heard, phrase) for phrase in self.foreign)
        return self._seen[text]

    def in_written(self, text: str, turn: Turn | None) -> bool:
        """Whether the model's words at a turn leak; None: at one that is not known."""
        key = (text, action_of(turn), turn["valid"]) if turn else (text, "", False)
        if key not in self._wrote:
            self._wrote[key] = self._copied(*key)
        return self._wrote[key]

    def _copied(self, text: str, acted: str, valid: bool | None) -> bool:
        said_words, action = words(text), words(acted)
        if any(_contains(said_words, phrase) for phrase in self.whole if not (len(phrase) == 1 and phrase == action)):
            return True
        bare, bare_action = "".join(text.split()), "".join(acted.split())
        if any(symbols in bare for symbols in self.symbols if symbols != bare_action):
            return True
        excused: set[int] = set()
        if valid is not False and 0 < len(action) <= self.longest:
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
