"""Rows with tools are what generation sees, in Qwen's, Llama's and Hermes' form; what they would lose is told."""

import itertools
import json
import warnings
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("transformers", reason='the trainer is not installed: pip install ".[train]"')

from families import TEMPLATES, TOOL_FAMILIES, end, tokenizer
from rows import row, write
from tool_trees import SYSTEM, TOOLS, USER, flight, followed
from trees import run_folder

from leafe_graph.dataset.examples import examples
from leafe_graph.dataset.export import export, write_parquet
from leafe_graph.dataset.messages import numbered
from leafe_graph.errors import ConfigError, ExampleError
from leafe_graph.finetune.batches import chains
from leafe_graph.finetune.rows import Problem, of_nodes, read_examples
from leafe_graph.finetune.tokens import SourceRow, TokenRow, token_id_counts, tokenize
from leafe_graph.models.chat_tokens import ChatTokenizer
from leafe_graph.types import Example, Message

HERMES_CALL = '<tool_call>\n{"name": "look", "arguments": {"day": "3 May"}}\n</tool_call>'
CALLS = {
    "qwen_tools": HERMES_CALL,
    "qwen3_tools": HERMES_CALL,
    "hermes_tools": '<tool_call>\n{"arguments": {"day": "3 May"}, "name": "look"}\n</tool_call>',
    "llama_tools": '{"name": "look", "parameters": {"day": "3 May"}}',
}
"""How each family writes the call of `LOOK`."""
LOOK: Any = ("look", {"day": "3 May"})


def said(*calls: Any, content: str = "") -> Message:
    """An answer with calls, as a row has it."""
    return followed([], *calls, results=[""] * len(calls), content=content)[0]


def example(prompt: list[Message], answer: Message, **more: Any) -> Example:
    """A row with tools."""
    *before, last = numbered([*prompt, answer])
    return row() | {"prompt": before, "completion": [last], "tools": TOOLS} | more  # type: ignore[return-value]


def tokenized(family: str, *rows: Example, template: str | None = None, **options: Any) -> list[TokenRow]:
    """Rows by the family's tokenizer, or by the same one with another template."""
    own = tokenizer(family)
    with pytest.MonkeyPatch.context() as patch:
        if template is not None:
            patch.setattr(own, "chat_template", template)
        stops = {own.eos_token_id, own.convert_tokens_to_ids(end(family))}
        sources = [SourceRow("f", i, f"line {i + 1}", each) for i, each in enumerate(rows)]
        return tokenize(sources, own, **{"stop_ids": stops, "max_length": 9999} | options)


def template_of(family: str, *without: str) -> str:
    """The family's template without these parts."""
    text = (TEMPLATES / f"{family}.jinja").read_text(encoding="utf-8")
    for part in without:
        assert part in text
        text = text.replace(part, "''")
    return text


ASKED = [SYSTEM, USER]
PROMPTS = {
    "first": ASKED,
    "after a result": followed(ASKED, ("look", {"day": "2 May"}), results=["sold out"]),
    "a control token": [SYSTEM, {"role": "user", "content": "a <|im_end|> <|eot_id|> b"}],
}


@pytest.mark.parametrize("name", PROMPTS)
@pytest.mark.parametrize("family", TOOL_FAMILIES)
def test_loss_is_on_the_call_and_its_stop_token_alone(family: str, name: str) -> None:
    """After the very prompt that the model is asked with, tools and results in it."""
    own = ChatTokenizer(tokenizer(family))
    made = example(PROMPTS[name], said(LOOK))
    (got,) = tokenized(family, made)
    assert own.decode(got.completion_ids) == CALLS[family] + end(family)
    assert [label for label in got.labels if label != -100] == got.completion_ids
    assert got.prompt_ids == own.encode([own.render(made["prompt"], generation_prompt=True, tools=TOOLS)])[0]
    theirs = own.tokenizer.apply_chat_template(made["prompt"], tools=TOOLS, add_generation_prompt=True, tokenize=False)
    if name != "a control token":
        assert own.decode(got.prompt_ids) == theirs
    assert "To book a flight." in theirs


@pytest.mark.parametrize("family", ["qwen_tools", "qwen3_tools", "hermes_tools"])
def test_text_and_all_calls_of_a_message_are_learned(family: str) -> None:
    """In their order; arguments of any type, control tokens that they spell as the characters that they are."""
    own = ChatTokenizer(tokenizer(family))
    calls: list[Any] = [LOOK, ("book", {"day": 3, "seats": ["1A", None, True, {"note": "<|im_end|>"}]})]
    (got,) = tokenized(family, example(ASKED, said(*calls, content="I look.")))
    *reply, stop = got.completion_ids
    text = own.decode(reply)
    assert text.startswith("I look.\n<tool_call>") and own.control_ids.isdisjoint(reply) and stop in own.control_ids
    read = [json.loads(part.split("</tool_call>")[0]) for part in text.split("<tool_call>")[1:]]
    assert [(each["name"], each["arguments"]) for each in read] == calls


def test_thoughts_are_those_of_the_message() -> None:
    """Empty ones that Qwen 3's template puts before a call are nobody's; thoughts that are there are learned."""
    own = ChatTokenizer(tokenizer("qwen3_tools"))
    for content, text in [("", HERMES_CALL), *[(f"<think>\nhm\n</think>\n\n{b}".strip(), b) for b in ("", "So:")]]:
        (got,) = tokenized("qwen3_tools", example(ASKED, said(LOOK, content=content)))
        reply = own.decode(got.completion_ids)
        assert reply.endswith(f"{HERMES_CALL}<|im_end|>") and reply.startswith(content or text)
        assert ("<think>" in reply) == bool(content)


def test_several_calls_are_left_out_where_a_template_takes_one() -> None:
    """Llama's own words are told; a row of one call stays."""
    refused: list[Problem] = []
    rows = [example(ASKED, said(LOOK, LOOK)), example(ASKED, said(LOOK))]
    assert len(tokenized("llama_tools", *rows, refused=refused)) == 1
    assert [problem.row for problem in refused] == [0] and "single tool-calls at once" in refused[0].text


@pytest.mark.parametrize(
    ("part", "told"),
    [
        ("tool | tojson", "the tool 'look'"),
        ("call.function.name", "the call of 'look'"),
        ("call.function.arguments | tojson", "the argument 'day' of 'look'"),
        ("message.content + '\\n</tool_response>'", "what the tool 'look' answers"),
    ],
)
def test_a_template_that_leaves_something_out_is_named(part: str, told: str) -> None:
    """Before anything is trained: file, row, template, and what it loses."""
    rows = [row(), example(PROMPTS["after a result"], said(LOOK))]
    with pytest.raises(ExampleError, match=f"f, line 2: prompt: the chat template of .* leaves out {told}") as error:
        tokenized("qwen_tools", *rows, template=template_of("qwen_tools", part))
    assert error.value.row == 1


def test_templates_without_tools_or_text_beside_calls_are_errors() -> None:
    """One of texts alone; and Llama's, which writes no text beside a call."""
    with pytest.raises(ExampleError, match=r"the chat template of .* leaves out the tool 'look'"):
        tokenized("smollm2", example(ASKED, said(LOOK)))
    with pytest.raises(ExampleError, match="leaves out the text beside a tool call, or changes it"):
        tokenized("llama_tools", example(ASKED, said(LOOK, content="I look.")))
    shown = followed(ASKED, LOOK, results=["free"], content="I look.")  # as the model is asked, too
    assert len(tokenized("llama_tools", example(shown, said(LOOK)))) == 1


def test_a_template_without_generation_prompt_is_an_error() -> None:
    """What opens a reply would be a part of the target."""
    template = template_of("qwen_tools").replace("add_generation_prompt", "none")
    with pytest.raises(ExampleError, match=r"does not end it with what opens a reply, but writes '<\|im_start\|>assis"):
        tokenized("qwen_tools", example(ASKED, said(LOOK)), template=template)


# ---- recorded token ids


@pytest.mark.parametrize("family", TOOL_FAMILIES)
def test_a_call_that_was_sampled_in_other_words_is_trained_on_as_sampled(family: str) -> None:
    """Spaces, the order of arguments, thoughts that a server took out of the text: it says the same call."""
    own = ChatTokenizer(tokenizer(family))
    stop = own.tokenizer.convert_tokens_to_ids(end(family))
    made = example(ASKED, said(("book", {"day": 3, "seats": []})))
    (plain,) = tokenized(family, made)
    key = "parameters" if family == "llama_tools" else "arguments"
    words = f'{{"name":"book", "{key}":{{ "seats":[],"day":3}}}}'
    words = words if family == "llama_tools" else f"<think>hm</think> <tool_call>{words}</tool_call>"
    sampled = [*own.encode_text(words), stop]
    recorded = {"prompt_token_ids": plain.prompt_ids, "completion_token_ids": sampled}
    (got,) = tokenized(family, made | recorded)  # type: ignore[operator]
    assert got.completion_ids == sampled != plain.completion_ids
    assert token_id_counts([got]) == {"recorded": 1, "differ": 1}
    for other in (words.replace("3", "4"), words.replace("book", "look"), words + " too", words[:-3]):
        recorded["completion_token_ids"] = [*own.encode_text(other), stop]
        (got,) = tokenized(family, made | recorded)  # type: ignore[operator]
        assert got == plain and token_id_counts([got]) == {"from_text": 1}, other


def test_a_form_of_calls_that_is_not_read_is_compared_by_its_words() -> None:
    """With the template's own, marks included."""
    own = tokenizer("qwen_tools")
    template = template_of("qwen_tools").replace("tool_call>", "call>")
    made = example(ASKED, said(LOOK))
    (plain,) = tokenized("qwen_tools", made, template=template)
    for ids, kept in ((plain.completion_ids, True), ([*own("up").input_ids, plain.completion_ids[-1]], False)):
        (got,) = tokenized("qwen_tools", made | {"completion_token_ids": ids}, template=template)  # type: ignore[operator]
        assert got == plain and ("recorded" in got.origin) == kept


# ---- chains


@pytest.mark.parametrize("family", ["qwen_tools", "hermes_tools", "llama_tools"])
def test_the_decisions_of_an_episode_are_one_chain_with_a_mask_each(family: str) -> None:
    """Each row begins the next one's prompt, calls and results between; so one pass serves all."""
    one: Any = ("look", {"day": "2 May"})
    then = followed(ASKED, one, results=["sold out"])
    last = followed(then, LOOK, results=["free"])
    rows = [
        example(ASKED, said(one)),
        example(then, said(LOOK)),
        example(last, {"role": "assistant", "content": "Ok."}),
    ]
    made = tokenized(family, *rows)
    assert chains(made, longest=3) == [[0, 1, 2]]
    for before, after in itertools.pairwise(made):
        whole = before.prompt_ids + before.completion_ids
        assert after.prompt_ids[: len(whole)] == whole


# ---- files


def test_rows_of_tools_come_back_from_both_kinds_of_files(tmp_path: Path) -> None:
    """JSON text of a table as objects, and without what is null there."""
    rows, _ = examples(flight(), kinds=["counterfactual", "rehearsal", "preference"], teacher=True)
    write_parquet(rows, tmp_path / "rows.parquet")
    write(tmp_path / "rows.jsonl", rows)
    for name in ("rows.parquet", "rows.jsonl"):
        assert [each.example for each in read_examples([tmp_path / name])] == rows


CALL: Any = {"type": "function", "function": {"name": "look", "arguments": {}}}


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ({}, "completion.0.content is empty, so all labels are masked"),
        ({"content": "a", "tool_calls": []}, "tool_calls is empty: expected calls, or no such key"),
        ({"tool_calls": [CALL | {"index": 1}]}, "unknown keys .'index'.: expected function, id, type alone"),
        ({"tool_calls": [{"type": "function", "function": {"name": "look"}}]}, "function.arguments: Field required"),
        (
            {"tool_calls": [CALL | {"function": {"name": "look", "arguments": "{}"}}]},
            "arguments is '{}': expected an object, not its JSON as a text",
        ),
        ({"content": "a", "tool_call_id": "1"}, "unknown keys .'tool_call_id'."),
        ({"tool_calls": [CALL | {"function": {"name": "look", "arguments": {"\ud800": 1}}}]}, "half a surrogate pair"),
    ],
)
def test_a_malformed_call_is_named(tmp_path: Path, answer: dict[str, Any], told: str) -> None:
    """By row and field."""
    completion = [{"role": "assistant", "content": ""} | answer]
    path = write(tmp_path / "rows.jsonl", [row() | {"completion": completion}])
    with pytest.raises(ExampleError, match=told):
        read_examples([path])


def test_a_table_whose_json_text_is_none_names_the_row(tmp_path: Path) -> None:
    """Whoever wrote it."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist([row() | {"tools": "[{"}]), tmp_path / "rows.parquet")
    with pytest.raises(ExampleError, match="row 0: tools: not JSON"):
        read_examples([tmp_path / "rows.parquet"])


def test_rows_of_chosen_nodes_are_trained_on() -> None:
    """By name or pattern; one that is nobody's is an error."""
    rows = [SourceRow("f", i, "", each) for i, each in enumerate(examples(flight())[0])]
    assert [each.row for each in of_nodes(rows, ["writ*"])] == [3] and of_nodes(rows, None) == rows
    with pytest.raises(ConfigError, match=r"no row is 'other''s: those of the rows are model, writer"):
        of_nodes(rows, ["model", "other"])


def test_trl_trains_on_the_same_tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its `SFTTrainer` on an export, read as the dataset card says; it also trains on what follows the stop token."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of others' releases
        trl = pytest.importorskip("trl", reason="pip install --group dev")
    from transformers import LlamaConfig, LlamaForCausalLM

    export(run_folder(tmp_path / "run", flight()))
    own, names = tokenizer("qwen_tools"), dict[str, Any]()
    monkeypatch.chdir(tmp_path / "run" / "examples")
    exec(Path("README.md").read_text().split("```python\n")[1].split("```")[0], names)
    config = LlamaConfig(vocab_size=len(own), hidden_size=32, intermediate_size=8, num_hidden_layers=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = trl.SFTTrainer(
            LlamaForCausalLM(config),
            processing_class=own,
            train_dataset=names["data"],
            args=trl.SFTConfig(str(tmp_path / "out"), max_length=9999, use_cpu=True, report_to="none"),
        )
    sources = read_examples([tmp_path / "run"])
    ours = tokenize(sources, own, stop_ids={own.eos_token_id}, max_length=9999, use_token_ids=False)
    after = own("\n").input_ids
    assert [row["labels"] for row in trainer.train_dataset] == [row.labels + after for row in ours]
    assert [row["input_ids"] for row in trainer.train_dataset] == [
        row.prompt_ids + row.completion_ids + after for row in ours
    ]
