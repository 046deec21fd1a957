"""Chat templates that refuse what a model said: an empty answer costs a branch or a row, never the run or the file."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from families import tokenizer  # noqa: E402
from rows import row, write  # noqa: E402
from worlds import PIT  # noqa: E402

from leafe_graph import Budget, Limits, explore  # noqa: E402
from leafe_graph.agent.graph import create_leafe_agent  # noqa: E402
from leafe_graph.errors import ConfigError, ExampleError, PromptError  # noqa: E402
from leafe_graph.finetune.config import TrainConfig  # noqa: E402
from leafe_graph.finetune.prepare import prepare  # noqa: E402
from leafe_graph.models.chat_tokens import ChatTokenizer  # noqa: E402
from leafe_graph.models.local.chat_model import LocalChatModel  # noqa: E402
from leafe_graph.testing import GridWorld, grid_tasks  # noqa: E402
from leafe_graph.tree.run_folder import RunFolder  # noqa: E402

STRICT = "{% if m.role == 'assistant' and not m.content.strip() %}{{ raise_exception('no content') }}{% endif %}"
"""Refuses an assistant message that says nothing."""
SILENT = [{"role": "user", "content": "a"}, {"role": "assistant", "content": ""}, {"role": "user", "content": "b"}]
WORDY: list[Any] = [message | {"content": message["content"] or "up"} for message in SILENT]


def with_template(model: Path, out: Path, head: str) -> Path:
    """The tiny model with a check in front of its chat template, and with the same chance for each token."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    weights, own = AutoModelForCausalLM.from_pretrained(model), AutoTokenizer.from_pretrained(model)
    with torch.no_grad():
        weights.get_input_embeddings().weight.zero_()  # tied: all logits are 0
    own.chat_template = f"{{% for m in messages %}}{head}{{% endfor %}}{own.chat_template}"
    weights.save_pretrained(out)
    own.save_pretrained(out)
    return out


@pytest.fixture(scope="module")
def strict_path(tiny_model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that says nothing in four answers of about eighty, and cannot be asked any more after that."""
    return with_template(tiny_model_path, tmp_path_factory.mktemp("strict"), STRICT)


def play(path: Path, out: Path, **settings: Any) -> RunFolder:
    """Samples of a few tasks, by a model that says one word a turn."""
    how: Any = {"strategy": "independent", "limits": Limits(max_branches=4), "max_turns": 8, "seed": 0, **settings}
    return explore(LocalChatModel(path=str(path), max_tokens=1), GridWorld, grid_tasks(4), out=out, **how)


@pytest.mark.parametrize("budget", [None, Budget(prompt_tokens=100_000, completion_tokens=100_000)])
def test_empty_answer_that_the_template_refuses_costs_one_branch(
    strict_path: Path, tmp_path: Path, budget: Budget | None
) -> None:
    """Also where the prompt's tokens are counted first. The model is well, so that not even many are an outage."""
    run = play(strict_path, tmp_path, budget=budget, max_failed_calls=1)
    ends = [branch["end"] for branch in run.branches]
    assert len(ends) == 16 and 0 < ends.count("model_error") < 16
    for branch in run.branches:
        silent = [not turn["action"] for turn in branch["turns"]]
        assert (branch["end"] == "model_error") == any(silent[:7])
        if branch["end"] == "model_error":
            assert branch["error"] == "PromptError: the chat template refuses these messages: no content"
            assert silent.index(True) == len(silent) - 1


def test_agent_in_place_ends_by_name(strict_path: Path) -> None:
    """Without a run folder too."""
    model = LocalChatModel(path=str(strict_path), max_tokens=1)
    agent = create_leafe_agent(model, env=GridWorld, max_turns=100, history=4, seed=0, max_rewinds=0)
    final = agent.invoke({"task": {**PIT, "options": {**PIT["options"], "pits": []}}})
    assert final["end"] == "model_error" and "no content" in final["error"]


def test_template_that_refuses_the_roles_stops_the_run_at_once(tiny_model_path: Path, tmp_path: Path) -> None:
    """Nothing that a model says would help: the caller is told before a turn is played."""
    refuses = "{% if m.role == 'user' %}{{ raise_exception('no users') }}{% endif %}"
    path = with_template(tiny_model_path, tmp_path / "model", refuses)
    with pytest.raises(ConfigError, match="the chat template refuses these messages: no users"):
        play(path, tmp_path / "run")
    assert RunFolder(tmp_path / "run").branches == []


REFUSALS: list[tuple[str, list[Any], type[Exception]]] = [
    (STRICT, SILENT, PromptError),
    ("{% if 'b' in m.content %}{{ raise_exception('no b') }}{% endif %}", WORDY, PromptError),
    ("{{ (m.content | list)[0] + '' }}{{ 1 // (m.content | length) }}", SILENT, PromptError),
    ("{{ m.content.undefined.name }}", WORDY, ConfigError),
    ("{{ m.content + 1 }}", WORDY, ConfigError),
    ("{% if m.role != 'user' %}{{ raise_exception('no') }}{% endif %}", WORDY, ConfigError),
]


@pytest.mark.parametrize(("head", "chat", "error"), REFUSALS, ids=range(6))
def test_what_is_said_and_how_a_template_is_written_are_told_apart(
    head: str, chat: list[Any], error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A template that takes the same roles with other words refuses the words; whatever it raises."""
    own = tokenizer("smollm2")
    monkeypatch.setattr(own, "chat_template", f"{{% for m in messages %}}{head}{{% endfor %}}")
    with pytest.raises(error, match="the chat template refuses these messages: ") as raised:
        ChatTokenizer(own).render(chat, generation_prompt=True)
    assert type(raised.value) is error


@pytest.fixture
def train(strict_path: Path, tmp_path: Path) -> Callable[..., Any]:
    """What a training on rows starts from."""

    def prepared(*rows: Any) -> Any:
        file = write(tmp_path / "rows.jsonl", list(rows))
        return prepare(TrainConfig(model=f"local:{strict_path}", data=[file], out=tmp_path / "out"))

    return prepared


def test_row_that_the_template_refuses_is_left_out_and_counted(train: Callable[..., Any]) -> None:
    """The others are trained on; the warning has file, line and reason, and stands in the result."""
    start = train(row(), row() | {"prompt": SILENT}, row("d") | {"prompt": WORDY})
    assert len(start.rows) == 2
    (warning,) = (warning for warning in start.warnings if "left out" in warning)
    assert warning.startswith("1 of 3 rows to train on are left out") and "rows.jsonl, line 2: prompt: " in warning
    assert warning.endswith("the chat template refuses these messages: no content")


def test_rows_that_are_all_refused_are_an_error(train: Callable[..., Any]) -> None:
    """Nothing would be trained on."""
    with pytest.raises(ExampleError, match=r"(?s)2 row.*line 1: prompt: .*no content"):
        train(row() | {"prompt": SILENT}, row("d") | {"prompt": SILENT})


@pytest.mark.parametrize("field", ["task_id", "branch_id"])
def test_names_of_rows_are_texts(train: Callable[..., Any], field: str) -> None:
    """Half a surrogate pair is told with its field, before tasks are told apart by their names."""
    with pytest.raises(ExampleError, match=rf"line 1: {field}: half a surrogate pair at character 1"):
        train(row() | {field: "t\ud83d"})
