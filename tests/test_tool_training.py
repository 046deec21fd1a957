"""From an agent's failures to a policy that calls otherwise: branches with tools, rows, a training, calls."""

from pathlib import Path
from typing import Any

import pytest
from tiny_models import tiny_llama
from tool_trees import TOLD, decided
from trees import branch, run_folder

from leafe_graph.dataset.export import export
from leafe_graph.finetune import TrainConfig
from leafe_graph.finetune.rows import read_examples
from leafe_graph.finetune.tokens import tokenize
from leafe_graph.finetune.train import train
from leafe_graph.models.local.chat_model import LocalChatModel
from leafe_graph.types import Branch, Message

torch = pytest.importorskip("torch", reason='the trainer is not installed: pip install ".[train]"')
pytest.importorskip("peft", reason='the trainer is not installed: pip install ".[train]"')

TOOL: dict[str, Any] = {"type": "function", "function": {"name": "look", "description": "It looks.", "parameters": {}}}
WORDS = """{"name": "look", "arguments": {"day": 2}} 3}} <tool_call> </tool_call> system user assistant tool To Rome.
Oslo. Bonn. Lima. Bern. Kiel. Graz. Nice. Pisa. Genf."""
"""All that the tiny model has a token for."""
TEMPLATE = """
{%- for tool in tools or [] %}{{ '<s> system ' + tool | tojson + ' </s> ' }}{% endfor %}
{%- for message in messages %}
    {{- '<s> ' + message.role + ' ' + message.content }}
    {%- for call in message.tool_calls or [] %}
        {{- '<tool_call> {"name": "' + call.function.name + '", ' }}
        {{- '"arguments": ' + call.function.arguments | tojson + '} </tool_call>' }}
    {%- endfor %}
    {{- ' </s> ' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<s> assistant' }}{% endif %}"""
CITIES = ["Rome", "Oslo", "Bonn", "Lima", "Bern", "Kiel", "Graz", "Nice"]
OTHERS = ["Pisa", "Genf"]
"""Cities that nothing is trained on."""


def asked(city: str) -> list[Message]:
    """What a customer says."""
    return [{"role": "user", "content": f"To {city}."}]


def tree(city: str) -> list[Branch]:
    """Looks for a flight of the second of May; rewound, it looks for one of the third and succeeds."""
    first, revised = (decided(asked(city), ("look", {"day": day}), tools=[TOOL]) for day in (2, 3))
    return [
        branch("0", [first], "failure", task=city),
        branch("1", [revised], "success", parent="0", experience=TOLD, task=city),
    ]


def trained(model: Path, data: Path, out: Path) -> Path:
    """All weights, twenty steps."""
    train(
        TrainConfig(
            model=str(model),
            data=[data],
            out=out,
            tune="full",
            learning_rate=1e-2,
            batch_size=8,
            max_steps=20,
            backend="peft",
        )
    )
    return out


def losses(model: Path, rows: Path) -> tuple[float, float]:
    """Mean -log pi of the tokens that the rows train on, and of those of their prompts."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    own = AutoTokenizer.from_pretrained(model)
    (row, *_) = tokenize(read_examples([rows]), own, stop_ids={own.eos_token_id}, max_length=512)
    ids = torch.tensor([row.prompt_ids + row.completion_ids])
    with torch.no_grad():
        logits = AutoModelForCausalLM.from_pretrained(model)(ids).logits[0, :-1]
    each = torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="none")
    start = len(row.prompt_ids) - 1
    return float(each[start:].mean()), float(each[:start].mean())


def calls(model: Path) -> list[Any]:
    """What the policy calls for cities that it was not trained on."""
    with LocalChatModel(path=str(model), temperature=0, max_tokens=12) as policy:
        answers = [policy.bind_tools([TOOL]).invoke(asked(city)) for city in OTHERS]
    return [[(call["name"], call["args"]) for call in answer.tool_calls] for answer in answers]


def test_a_policy_revises_its_call_on_tasks_that_it_was_not_trained_on(tmp_path: Path) -> None:
    """It calls as it was first taught; trained on the revised calls of some tasks it calls so in others, too.

    The loss falls on the call's tokens alone: those of the prompt, tools and all, stay what they were to it.
    """
    branches = [each for city in CITIES for each in tree(city)]
    for each in branches:
        each["end"] = "success"
    export(run_folder(tmp_path / "first", [each for each in branches if each["parent"] is None]), kinds=["rehearsal"])
    export(run_folder(tmp_path / "run", branches), kinds=["counterfactual"])
    base = tiny_llama(tmp_path / "base", WORDS.split(), TEMPLATE)
    policy = trained(base, tmp_path / "first", tmp_path / "policy")
    assert calls(policy) == [[("look", {"day": 2})]] * len(OTHERS)
    better = trained(policy, tmp_path / "run", tmp_path / "better")
    assert calls(better) == [[("look", {"day": 3})]] * len(OTHERS)
    (_, untold), (before, _), (after, told) = (losses(each, tmp_path / "run") for each in (base, policy, better))
    assert before > 1 > 0.3 > after and told >= untold
