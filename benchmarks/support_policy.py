"""Make from scratch a weak language policy that serves the customers of `examples/support_agent.py`.

A Llama architecture with a token a word. Conversations with customers of its own, made by a teacher, teach it three
skills, each in an amount that can be chosen:

- *act*: a clerk's whole conversations. The clerk slips: takes the wrong tool, order, colour or city, forgets a wish, or
  does what the rules forbid; so the policy does;
- *follow*: what to do where an experience says what not to do. Behind that decision the clerk slips as ever: to be told
  something makes nobody careful;
- *reflect*: which step of a failed attempt was the mistake, in words, from what the customer complains about.

It knows the customers' sentences, the tools' answers and the texts of `support_clerk.PROMPTS`; of the system prompt it
knows nothing: it learned the rules as far as the clerk keeps them.

    python -m benchmarks.support_policy --out runs/support-policy
"""

import argparse
import random
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from langchain_core.messages import AnyMessage
from rich.progress import track
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from benchmarks.support_clerk import Skill, lessons
from examples import support_agent
from leafe_graph.models.local.prompts import chat_of
from leafe_graph.terminal.console import errors

Row = tuple[list[int], list[bool]]
"""Token ids, and which of them are learned."""

TEMPLATE = """
{%- for tool in tools or [] %}{{ tool.function.name + ' ' }}{% endfor %}
{%- for message in messages if message.role != 'system' %}
    {{- '<' + message.role + '> ' + message.content }}
    {%- for call in message.tool_calls or [] %}
        {{- '<tool_call>{"name": "' + call.function.name + '", ' }}
        {{- '"arguments": ' + call.function.arguments | tojson + '}</tool_call>' }}
    {%- endfor %}
    {{- ' <end> ' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<assistant>' }}{% endif %}"""
SPECIAL = ["<pad>", "<end>", "<unk>", "<user>"]
ARGUMENTS = {
    "find_orders": "customer",
    "look_at_order": "order",
    "cancel_order": "order",
    "return_order": "order",
    "exchange_order": "order",
    "redirect_order": "order",
    "send_mail": "customer",
}
PHRASES = [
    *(f'<tool_call>{{"name": "{tool}", "arguments": {{"{first}":' for tool, first in ARGUMENTS.items()),
    *(f', "{argument}":' for argument in ("colour", "city", "text")),
    "}}</tool_call>",
    '{"step":',
    ', "experience": "Do not',
    '"}',
    '{"step": null}',
]
"""What stands around the words of an answer: a token each; with spaces between, they are still JSON."""
PIECES = "|".join([*map(re.escape, sorted(PHRASES, key=len, reverse=True)), r"<\w+>", r'"\w+"', r"\w+"])
"""What becomes a token; what stands between, such as spaces and full stops, is left out."""


def tokenizer_of(words: Iterable[str]) -> PreTrainedTokenizerFast:
    """A token for each of these words."""
    vocabulary = {word: i for i, word in enumerate(dict.fromkeys([*SPECIAL, *words]))}
    wordy = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    wordy.pre_tokenizer = pre_tokenizers.Split(Regex(PIECES), behavior="removed", invert=True)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=wordy, pad_token="<pad>", eos_token="<end>", bos_token="<user>", unk_token="<unk>"
    )
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def new_model(tokenizer: PreTrainedTokenizerFast, width: int, layers: int) -> LlamaForCausalLM:
    """An untaught one."""
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=width,
            intermediate_size=width * 8 // 3,
            num_hidden_layers=layers,
            num_attention_heads=4,
            initializer_range=width**-0.5,
            max_position_embeddings=768,
            tie_word_embeddings=True,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def rendered(
    tokenizer: PreTrainedTokenizerFast, found: Iterable[tuple[Skill, list[AnyMessage]]]
) -> list[tuple[Skill, str]]:
    """Lessons as texts; a reflection is asked for without tools."""
    tools = [{"type": "function", "function": {"name": tool}} for tool in ARGUMENTS]
    return [
        (
            skill,
            tokenizer.apply_chat_template(chat_of(said), tools=None if skill == "reflect" else tools, tokenize=False),
        )
        for skill, said in found
    ]


def rows_of(tokenizer: PreTrainedTokenizerFast, texts: Sequence[tuple[Skill, str]]) -> dict[Skill, list[Row]]:
    """Token ids, and which are taught: the answers of a conversation, else the last."""
    opens, ends = tokenizer.convert_tokens_to_ids(["<assistant>", "<end>"])
    rows: dict[Skill, list[Row]] = {"act": [], "follow": [], "reflect": []}
    for (skill, _), ids in zip(texts, tokenizer([text for _, text in texts]).input_ids, strict=True):
        inside, learned = False, []
        for token in ids:
            learned.append(inside)
            inside = token == opens or (inside and token != ends)
        if skill != "act":
            last = len(ids) - 1 - ids[::-1].index(opens)
            learned = [place > last for place in range(len(ids))]
        rows[skill].append((ids, learned))
    return rows


def teach(
    model: LlamaForCausalLM,
    rows: dict[Skill, list[Row]],
    amounts: dict[Skill, int],
    *,
    steps: int,
    rate: float,
    rng: random.Random,
) -> None:
    """So many batches of so many rows of each skill; each skill's mean loss over answers counts by its rows."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.01)
    for step in track(range(steps), "teaching it", console=errors):
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1, (step + 1) / 50) * max(0.02, 1 - step / steps)
        for skill, amount in amounts.items():
            batch = sorted(rng.choices(rows[skill], k=amount), key=lambda row: len(row[0]))
            for at in range(0, amount, 8):  # rows of about one length: little padding
                part = batch[at : at + 8]
                loss, _ = answered(model, part)
                (loss * len(part) / sum(amounts.values())).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()


def answered(model: LlamaForCausalLM, rows: Sequence[Row]) -> tuple[torch.Tensor, list[bool]]:
    """The mean loss over the taught tokens, and for each row whether all of them are the likeliest."""
    longest = max(len(ids) for ids, _ in rows)
    ids = torch.tensor([row + [0] * (longest - len(row)) for row, _ in rows])
    counted = torch.tensor([learned + [False] * (longest - len(learned)) for _, learned in rows])[:, 1:]
    hidden = model.model(ids).last_hidden_state[:, :-1]
    logits = model.lm_head(hidden[counted])  # the others' are not needed
    targets = ids[:, 1:][counted]
    right = torch.ones_like(counted)
    right[counted] = logits.argmax(-1) == targets
    return torch.nn.functional.cross_entropy(logits, targets), right.all(1).tolist()


def main(arguments: list[str] | None = None) -> None:
    """Make, teach, save, and say how well it does each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder to save the model in")
    parser.add_argument("--customers", type=int, default=2000, help="whom the clerk serves")
    parser.add_argument("--slip", type=float, default=0.05, help="how often the clerk gets a wish wrong")
    parser.add_argument("--steps", type=int, default=6000, help="how long to teach it, in batches")
    parser.add_argument("--act", type=int, default=8, help="conversations in a batch")
    parser.add_argument("--follow", type=int, default=4, help="rows of following an experience in a batch")
    parser.add_argument("--reflect", type=int, default=6, help="rows of reflecting in a batch")
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--rate", type=float, default=3e-3, help="highest learning rate")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--start", type=Path, help="a policy made before, to be taught further")
    given = parser.parse_args(arguments)
    torch.manual_seed(given.seed)
    torch.set_num_threads(1)  # more slow so small a model down
    rng = random.Random(given.seed)
    tasks = support_agent.tasks("train", given.customers)
    texts = rendered(tokenizer_of(()), lessons(tasks, rng, given.slip))
    unseen = rendered(tokenizer_of(()), lessons(support_agent.tasks("validation", 100), rng, given.slip))
    words = sorted({word for _, text in texts for word in re.findall(PIECES, text)})
    if given.start is None:
        tokenizer = tokenizer_of([*words, *map(str, range(100))])
        model = new_model(tokenizer, given.width, given.layers)
    else:
        tokenizer = PreTrainedTokenizerFast.from_pretrained(given.start)
        model = LlamaForCausalLM.from_pretrained(given.start)
    amounts: dict[Skill, int] = {"act": given.act, "follow": given.follow, "reflect": given.reflect}
    teach(model, rows_of(tokenizer, texts), amounts, steps=given.steps, rate=given.rate, rng=rng)
    model.save_pretrained(given.out)
    tokenizer.save_pretrained(given.out)
    right = ", ".join(f"{skill} {share(model, rows):.0%}" for skill, rows in rows_of(tokenizer, unseen).items())
    parameters = sum(weight.numel() for weight in model.parameters())
    print(f"{parameters:,} parameters; answers as taught for customers that it has not seen: {right}")


@torch.no_grad()
def share(model: LlamaForCausalLM, rows: Sequence[Row]) -> float:
    """The share of rows all of whose answers are the likeliest."""
    right = [each for at in range(0, len(rows), 8) for each in answered(model, rows[at : at + 8])[1]]
    return sum(right) / max(1, len(right))


if __name__ == "__main__":
    main()
