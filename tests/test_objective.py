"""The trainer's loss is L_cf + beta * L_reh, computed here by hand from log-probabilities."""

import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rows import row, unequal, write

from leafe_graph.errors import ConfigError
from leafe_graph.finetune import TrainConfig
from leafe_graph.finetune.batches import epoch_steps, micro_batches
from leafe_graph.finetune.loss import objective_value
from leafe_graph.finetune.metrics import read_metrics
from leafe_graph.finetune.objectives.demonstrations import Demonstrations
from leafe_graph.finetune.objectives.leafe import Leafe
from leafe_graph.finetune.said import ask
from leafe_graph.finetune.tokens import TokenRow, read_examples, tokenize
from leafe_graph.finetune.train import train

torch = pytest.importorskip("torch", reason='the trainer is not installed: pip install ".[train]"')
pytest.importorskip("peft", reason='the trainer is not installed: pip install ".[train]"')

KINDS = st.lists(st.sampled_from(["counterfactual", "rehearsal"]), min_size=1, max_size=60)


@pytest.fixture(scope="module")
def rows(tiny_model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> list[TokenRow]:
    """Two counterfactual and five rehearsal rows, tokenised."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_model_path)
    path = write(tmp_path_factory.mktemp("rows") / "rows.jsonl", unequal())
    return tokenize(read_examples([path]), tokenizer, stop_ids={tokenizer.eos_token_id}, max_length=64)


@pytest.fixture(scope="module")
def by_hand(tiny_model_path: Path, rows: list[TokenRow]) -> list[float]:
    """-log pi of each row's action in float64: one row at a time, no padding, all logits, one token after another."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_model_path, dtype=torch.float64)
    values = []
    for r in rows:
        ids = r.prompt_ids + r.completion_ids
        with torch.no_grad():
            logprobs = torch.log_softmax(model(torch.tensor([ids])).logits[0], dim=-1)
        values.append(-sum(logprobs[t - 1, ids[t]].item() for t in range(len(r.prompt_ids), len(ids))))
    return values


def of(kind: str, n: int) -> list[TokenRow]:
    """So many rows of a kind."""
    return [TokenRow(kind, [4], [5], 1.0)] * n


def alone(kinds: list[str], batch_size: int, *, seed: int, epoch: int) -> list[list[int]]:
    """The steps of an epoch of rows that share nothing."""
    steps = epoch_steps([[i] for i in range(len(kinds))], kinds, batch_size, seed=seed, epoch=epoch)
    return [[i for chain in step for i in chain] for step in steps]


def whole(rows: list[TokenRow], nll: list[float], beta: float) -> float:
    """L as the method writes it: two means, then their sum."""
    cf = [r.weight * x for r, x in zip(rows, nll, strict=True) if r.kind == "counterfactual"]
    reh = [r.weight * x for r, x in zip(rows, nll, strict=True) if r.kind == "rehearsal"]
    assert (len(cf), len(reh)) == (2, 5)
    return sum(cf) / len(cf) + beta * sum(reh) / len(reh)


@pytest.mark.parametrize("beta", [0.25, 3.0])
@pytest.mark.parametrize("micro_batch_size", [1, 3, 7])
def test_the_trainers_loss_is_the_objective(
    tiny_model_path: Path,
    tmp_path: Path,
    rows: list[TokenRow],
    by_hand: list[float],
    beta: float,
    micro_batch_size: int,
) -> None:
    """A full-batch step's logged loss equals L by hand to 1e-4, padded and accumulated in any way."""
    config = TrainConfig(
        model=str(tiny_model_path),
        data=[write(tmp_path / "rows.jsonl", unequal())],
        out=tmp_path / "out",
        beta=beta,
        batch_size=7,
        micro_batch_size=micro_batch_size,
        max_steps=1,
        backend="peft",
    )
    train(config)
    (first,) = read_metrics(tmp_path / "out" / "metrics.jsonl")
    expected = whole(rows, by_hand, beta)  # a fresh LoRA adapter changes nothing
    assert first["loss"] == pytest.approx(expected, abs=1e-4)
    assert first["l_cf"] + beta * first["l_reh"] == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("beta", [0.25, 3.0])
def test_the_steps_of_an_epoch_average_to_the_objective(
    rows: list[TokenRow], by_hand: list[float], beta: float
) -> None:
    """Also where steps are of unequal size: 7 rows in steps of at most 3."""
    kinds = [r.kind for r in rows]
    c, _ = Leafe(beta=beta).coefficients(rows)
    steps = alone(kinds, 3, seed=0, epoch=0)
    assert sorted(map(len, steps)) == [2, 2, 3]
    losses = [sum(len(steps) / len(rows) * c[i] * rows[i].weight * by_hand[i] for i in step) for step in steps]
    assert sum(losses) / len(losses) == pytest.approx(whole(rows, by_hand, beta), abs=1e-9)


def test_gradients_do_not_depend_on_padding_or_accumulation(tiny_model_path: Path, rows: list[TokenRow]) -> None:
    """One padded batch gives the gradient of seven single rows."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_model_path, dtype=torch.float32)
    weight = model.model.layers[0].self_attn.q_proj.weight
    c, _ = Leafe(beta=0.5).coefficients(rows)

    def gradient(size: int) -> Any:
        model.zero_grad()
        for batch in micro_batches(rows, [[i] for i in range(len(rows))], size):
            members = [i for chain in batch for i in chain]
            (torch.tensor([c[i] for i in members]) * ask(model, [[rows[i]] for i in members]).nll_N).sum().backward()
        return weight.grad.clone()

    one, seven = gradient(7), gradient(1)
    assert one.abs().max() > 0.01
    assert torch.allclose(one, seven, rtol=1e-4, atol=1e-4)


def test_logits_are_computed_where_a_target_is_predicted(tiny_model_path: Path, rows: list[TokenRow]) -> None:
    """Nowhere else, with the loss and gradient that all logits give."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_model_path, dtype=torch.float32)
    weight = model.model.layers[0].self_attn.q_proj.weight
    seen: list[int] = []
    watch = model.lm_head.register_forward_hook(lambda head, hidden, logits: seen.append(logits[..., 0].numel()))
    nll = ask(model, [[r] for r in rows]).nll_N
    nll.sum().backward()
    watch.remove()
    assert seen == [sum(len(r.completion_ids) for r in rows)]
    few = weight.grad.clone()
    model.zero_grad()
    full = []
    for r in rows:
        ids, labels = torch.tensor([r.prompt_ids + r.completion_ids]), torch.tensor(r.labels)
        full.append(torch.nn.functional.cross_entropy(model(ids).logits[0, :-1], labels[1:], reduction="sum"))
    sum(full).backward()
    assert torch.allclose(nll, torch.stack(full), atol=1e-4)
    assert few.abs().max() > 0.01 and torch.allclose(few, weight.grad, rtol=1e-4, atol=1e-4)


def test_the_held_out_value_is_the_objective(tiny_model_path: Path, rows: list[TokenRow], by_hand: list[float]) -> None:
    """And that of demonstrations is the plain mean over all rows."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_model_path, dtype=torch.float32)
    value = objective_value(model, rows, Leafe(beta=2.0), micro_batch_size=3)
    assert value == pytest.approx(whole(rows, by_hand, 2.0), abs=1e-4)
    plain = sum(r.weight * x for r, x in zip(rows, by_hand, strict=True)) / len(rows)
    assert objective_value(model, rows, Demonstrations()) == pytest.approx(plain, abs=1e-4)


def test_an_empty_set_leaves_the_other_term() -> None:
    """With a warning; the term keeps its factor."""
    c, (warning,) = Leafe(beta=0.5).coefficients(of("rehearsal", 3))
    assert c == [0.5] * 3 and "no counterfactual rows" in warning
    c, (warning,) = Leafe(beta=0.5).coefficients(of("counterfactual", 3))
    assert c == [1.0] * 3 and "no rehearsal rows" in warning
    assert Leafe(beta=0.0).coefficients(of("counterfactual", 3))[1] == []


def test_a_tiny_set_is_warned_of() -> None:
    """By its number or its share, where beta does not even it out."""
    few = of("counterfactual", 40) + of("rehearsal", 400)
    assert "only 40 of 440 rows are counterfactual" in Leafe(beta=1).coefficients(few)[1][0]
    small_share = of("counterfactual", 100) + of("rehearsal", 4000)
    assert "weighs 40 times a rehearsal row" in Leafe(beta=1).coefficients(small_share)[1][0]
    assert Leafe(beta=10).coefficients(few)[1] == []
    assert "weighs inf times" in Leafe(beta=0).coefficients(few)[1][0]
    enough = of("counterfactual", 100) + of("rehearsal", 400)
    assert Leafe(beta=1).coefficients(enough)[1] == []
    assert Demonstrations().coefficients(few) == ([1.0] * 440, [])


def test_an_unknown_objective_is_told_which_there_are() -> None:
    """The names come from the table of objectives."""
    with pytest.raises(ValueError, match=r"Input should be 'leafe', 'demonstrations', .* or 'grpo'"):
        TrainConfig.model_validate({"model": "m", "data": ["d"], "out": "o", "objective": "ppo"})


def test_demonstrations_have_no_place_in_the_leafe_objective() -> None:
    """A third kind of row is refused, not guessed at."""
    with pytest.raises(ConfigError, match=r"also has \['demonstration'\]"):
        Leafe(beta=1).coefficients(of("counterfactual", 1) + of("demonstration", 1))


@given(kinds=KINDS, batch_size=st.integers(1, 20), epoch=st.integers(0, 3))
@settings(max_examples=60)
def test_an_epoch_has_every_row_once_and_the_kinds_spread(kinds: list[str], batch_size: int, epoch: int) -> None:
    """Steps differ by one row in size, and hold each kind in proportion to within about one row."""
    steps = alone(kinds, batch_size, seed=1, epoch=epoch)
    assert sorted(i for step in steps for i in step) == list(range(len(kinds)))
    assert len(steps) == math.ceil(len(kinds) / batch_size)
    assert max(map(len, steps)) <= batch_size and max(map(len, steps)) - min(map(len, steps)) <= 1
    for kind, n in Counter(kinds).items():
        for step in steps:
            assert abs(sum(kinds[i] == kind for i in step) - n * len(step) / len(kinds)) <= 2
    assert steps == alone(kinds, batch_size, seed=1, epoch=epoch)


def test_epochs_are_in_different_orders() -> None:
    """The order depends on seed and epoch."""
    kinds = ["rehearsal"] * 40
    orders = {str(alone(kinds, 4, seed=s, epoch=e)) for s in (0, 1) for e in (0, 1)}
    assert len(orders) == 4


def test_weights_multiply_within_the_mean(rows: list[TokenRow]) -> None:
    """A weight of one half counts half; the number of rows is not changed by it."""
    c, _ = Leafe(beta=1).coefficients(rows)
    assert row(weight=0.5)["weight"] == rows[1].weight == 0.5
    assert c == [7 / 5, 7 / 2, 7 / 5, 7 / 5, 7 / 2, 7 / 5, 7 / 5]
