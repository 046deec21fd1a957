"""Example rows as token ids, with a mask that covers the reply and its stop token and nothing else.

Invariant: a row is the prompt as the model sees it when it generates (generation prompt included), then the reply's
tokens, then one stop token. A row for which this cannot be had is an error that names it, never a row that trains
silently wrong. The reply's tokens are, in this order of preference:

1. those that were sampled, where the row carries them and they say what the row says;
2. what the chat template writes after the prompt, where that is the reply and nothing else: the template knows about
   a space before the reply;
3. the reply's text by itself: for templates that write a past reply otherwise than it was generated (Qwen 3 puts empty
   thoughts in front of it; others end the generation prompt in the middle of one).
"""

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from leafe_graph.errors import ModelError, PromptError

from .replies import RowTokenizer, recorded_reply, refuse_left_out, reply, says_the_same
from .rows import Problem, SourceRow, example_files, raise_problems, read_examples

__all__ = [
    "IGNORED",
    "SourceRow",
    "TokenRow",
    "doubts",
    "example_files",
    "read_examples",
    "token_id_counts",
    "tokenize",
]

IGNORED = -100
"""Label of a token without loss, as in transformers."""


@dataclass(frozen=True, slots=True)
class TokenRow:
    """One row as token ids: ``prompt_ids + completion_ids``, the stop token last."""

    kind: str
    prompt_ids: list[int]
    completion_ids: list[int]
    weight: float
    origin: frozenset[str] = field(default=frozenset(), compare=False)
    """What became of recorded token ids, see `token_id_counts`."""
    rejected_ids: list[int] | None = None
    """Of a preference: the worse completion of the same prompt."""
    teacher_ids: list[int] | None = None
    """The prompt that a teacher is asked in place of ``prompt_ids``."""
    advantage: float | None = None
    """Of a rollout."""
    logprobs: list[float] | None = None
    """Of a rollout: of each of ``completion_ids`` when it was sampled; None where other ids or another prompt had to be
    taken."""
    reference: Any = field(default=None, compare=False)
    """What the starting weights said of it, as `leafe_graph.finetune.objectives.Objective.kept` keeps it."""

    def __len__(self) -> int:
        return len(self.prompt_ids) + len(self.completion_ids)

    @property
    def runs(self) -> tuple[tuple[int, ...], ...]:
        """What a model runs for its completion, and for the rejected one: the last token of each predicts nothing."""
        answers = (answer for answer in (self.completion_ids, self.rejected_ids) if answer is not None)
        return tuple((*self.prompt_ids, *answer[:-1]) for answer in answers)

    @property
    def labels(self) -> list[int]:
        """`IGNORED` for the prompt, the ids of the completion."""
        return [IGNORED] * len(self.prompt_ids) + self.completion_ids


def tokenize(
    rows: Iterable[SourceRow],
    tokenizer: Any,
    *,
    stop_ids: Collection[int],
    max_length: int,
    use_token_ids: bool = True,
    refused: list[Problem] | None = None,
) -> list[TokenRow]:
    """Turn rows into token ids with the tokenizer's chat template, checking each.

    ``stop_ids``: ids that end a message (the tokenizer's eos and the generation config's). Token ids that were recorded
    when the row was sampled are used as they are, unless ``use_token_ids`` is off, if they say in this tokenizer what
    the row says; else the row's text is tokenised, as it is without them, and `token_id_counts` tells. ``refused``:
    takes the rows that the chat template refuses for what is said in them, such as an empty answer in the history, and
    they are left out; None: they are an error like the others. Raises `ExampleError`.
    """
    rows = list(rows)
    chat = RowTokenizer(tokenizer)
    problems: list[Problem] = []
    texts: list[tuple[SourceRow, list[str]]] = []
    for row in rows:
        example = row.example
        try:
            prompt, tools = example["prompt"], example.get("tools", [])
            written = [chat.render(prompt, generation_prompt=True, tools=tools)]
            for answer in (example["completion"], example.get("rejected")):
                if answer:
                    written.append(chat.render([*prompt, *answer], generation_prompt=False, tools=tools))
                    refuse_left_out(chat, [*prompt, *answer], tools)
            if asked := example.get("teacher_prompt"):
                written.append(chat.render(asked, generation_prompt=True, tools=tools))
            texts.append((row, written))
        except PromptError as error:
            (problems if refused is None else refused).append(_problem(row, f"prompt: {error}"))
        except ValueError as error:
            problems.append(_problem(row, f"prompt: {error}"))
    raise_problems(problems)
    out: list[TokenRow] = []
    for row, ids in _encoded(chat, texts, problems):
        try:
            out.append(_row(row, ids, chat, stop_ids, max_length, use_token_ids))
        except (ValueError, PromptError) as error:
            problems.append(_problem(row, str(error)))
    raise_problems(sorted(problems, key=lambda p: (p.source, p.row)))
    return out


def token_id_counts(rows: Iterable[TokenRow]) -> dict[str, int]:
    """How many rows' recorded token ids were used, and how many were not; empty where no row has any.

    "recorded": rows trained on as they were sampled. "differ": of these, rows whose text this tokenizer would cut into
    other tokens, or whose prompt had another date or began the reply. "prompt_from_text": of these, rows whose recorded
    prompt says something else than the row's, so that its text was taken. "from_text": rows whose recorded reply does
    not say the row's text and a stop token in this tokenizer (another model made it, or it was cut at a stop text or at
    the most tokens allowed), so that all is taken from text.
    """
    return dict(sorted(Counter(name for row in rows for name in row.origin).items()))


def doubts(rows: Sequence[TokenRow]) -> list[str]:
    """What is worth a warning about rows that are valid each by itself."""
    counts, found = token_id_counts(rows), []
    if n := counts.get("from_text"):
        found.append(
            f"{n} of {len(rows)} rows have recorded token ids that do not say their text and a stop token in this "
            "model's tokenizer (another model's, or cut at a stop text or at max_tokens): they are trained on by their "
            "text, and a stop token after it"
        )
    if n := counts.get("prompt_from_text"):
        found.append(
            f"{n} of {len(rows)} rows were sampled after a prompt that was rendered otherwise than this model's chat "
            "template renders theirs: their prompts are taken from the text"
        )
    single = [row for row in rows if row.kind != "rollout"]  # attempts at a task begin alike
    seen = {
        hash(
            (row.kind, *map(tuple, (row.prompt_ids, row.completion_ids, row.rejected_ids or (), row.teacher_ids or ())))
        )
        for row in single
    }
    if n := len(single) - len(seen):
        found.append(f"{n} of {len(rows)} rows stand there more than once within their kind: each counts every time")
    return found


def _problem(row: SourceRow, text: str) -> Problem:
    return Problem(row.source, row.row, row.place, text)


def _encoded(
    chat: RowTokenizer, texts: Sequence[tuple[SourceRow, list[str]]], problems: list[Problem]
) -> Iterable[tuple[SourceRow, list[list[int]]]]:
    """Rows with the ids of each of their texts: in one call for all, row by row where that fails."""
    different = list(dict.fromkeys(text for _, written in texts for text in written))
    try:
        ids = dict(zip(different, chat.encode(different), strict=True))
        yield from ((row, [ids[text] for text in written]) for row, written in texts)
    except ModelError:
        for row, written in texts:
            try:
                yield row, chat.encode(written)
            except ModelError as error:
                problems.append(_problem(row, f"prompt or completion: {error}"))


def _row(
    row: SourceRow,
    ids: list[list[int]],
    chat: RowTokenizer,
    stop_ids: Collection[int],
    max_length: int,
    use_token_ids: bool,
) -> TokenRow:
    example, (prompt, whole, *others), tools = row.example, ids, row.example.get("tools", [])
    completion, origin = reply(example["completion"][0], prompt, whole, chat, stop_ids, tools), set[str]()
    rejected = logprobs = None
    if "rejected" in example:
        rejected = reply(example["rejected"][0], prompt, others.pop(0), chat, stop_ids, tools)
        if use_token_ids and (recorded := example.get("rejected_token_ids")) is not None:
            rejected = recorded_reply(recorded, example["rejected"][0], rejected, chat, stop_ids) or rejected
    sampled = example["completion_token_ids"] if use_token_ids else None
    if sampled is not None:
        kept = recorded_reply(sampled, example["completion"][0], completion, chat, stop_ids)
        if kept is None:
            origin.add("from_text")
        else:
            origin.add("recorded")
            before, told = example["prompt_token_ids"], example.get("logprobs")
            if before is not None and not says_the_same(before, prompt, chat):
                origin.add("prompt_from_text")
                before = told = None  # it was sampled with other probabilities than it has after this prompt
            if kept != completion or before not in (None, prompt):
                origin.add("differ")
            prompt, completion = before or prompt, kept
            logprobs = None if told is None else told[: len(kept)]
    teacher = others.pop(0) if "teacher_prompt" in example else None
    asked = max(len(prompt), len(teacher or ()))
    answer = max(len(completion), len(rejected or ()))
    if asked + answer > max_length:
        raise ValueError(
            f"{asked} prompt + {answer} completion tokens, more than max_length={max_length}; "
            "cutting would lose the target: raise max_length or export with a shorter history"
        )
    return TokenRow(
        example["kind"],
        prompt,
        completion,
        float(example["weight"]),
        frozenset(origin),
        rejected_ids=rejected,
        teacher_ids=teacher,
        advantage=example.get("advantage"),
        logprobs=logprobs,
    )
