"""Rows that share their history are run once, with the loss and gradient of rows run one by one."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rows import write

from leafe_graph.finetune import TrainConfig
from leafe_graph.finetune.batches import ALIKE, chains, epoch_steps, micro_batches
from leafe_graph.finetune.metrics import read_metrics
from leafe_graph.finetune.said import ask
from leafe_graph.finetune.tokens import TokenRow
from leafe_graph.finetune.train import train
from leafe_graph.types import FORMAT_VERSION, Example, ExampleKind, Message

TOKENS = st.lists(st.integers(4, 9), min_size=1, max_size=4)


def token_row(prompt: list[int], completion: list[int], kind: str = "rehearsal") -> TokenRow:
    """A row of these ids."""
    return TokenRow(kind, prompt, completion, 1.0)


def episode(turns: list[tuple[list[int], list[int]]]) -> list[TokenRow]:
    """The rows of an episode: each prompt is everything before it."""
    seen: list[int] = []
    rows = []
    for observation, action in turns:
        rows.append(token_row(seen + observation, action))
        seen = seen + observation + action
    return rows


def test_the_rows_of_an_episode_are_one_chain() -> None:
    """With a branch's correction, which equals one of them; what two rows extend is in the chain of one."""
    path = episode([([4, 5], [6]), ([7], [8, 9]), ([4], [4])])
    correction = token_row(path[1].prompt_ids, path[1].completion_ids, "counterfactual")
    other = token_row(path[1].prompt_ids, [5])
    assert chains([path[2], other, path[0], correction, path[1]], longest=9) == [[2, 1], [3, 4, 0]]
    assert sorted(map(len, chains(path, longest=2))) == [1, 2]


def test_equal_rows_that_nothing_extends_stand_alone() -> None:
    """Fifty samples of one state are not to meet in one step."""
    rows = [token_row([4, 5], [6]) for _ in range(3)]
    assert chains(rows, longest=9) == [[0], [1], [2]]


@given(
    episodes=st.lists(st.lists(st.tuples(TOKENS, TOKENS), min_size=1, max_size=5), min_size=1, max_size=8),
    batch_size=st.integers(1, 12),
    seed=st.integers(0, 3),
)
@settings(max_examples=100)
def test_an_epoch_of_chains_has_every_row_once(
    episodes: list[list[tuple[list[int], list[int]]]], batch_size: int, seed: int
) -> None:
    """No step is empty, and each row is a prefix of its chain's last one."""
    rows = [row for turns in episodes for row in episode(turns)]
    n_steps = -(-len(rows) // batch_size)
    found = chains(rows, longest=len(rows) // n_steps)
    for chain in found:
        ids = rows[chain[-1]].prompt_ids + rows[chain[-1]].completion_ids
        assert all((rows[i].prompt_ids + rows[i].completion_ids) == ids[: len(rows[i])] for i in chain)
    steps = epoch_steps(found, ["rehearsal"] * len(rows), batch_size, seed=seed, epoch=0)
    assert len(steps) == n_steps and all(steps)
    assert sorted(i for step in steps for chain in step for i in chain) == list(range(len(rows)))


def test_a_chain_has_the_loss_and_gradient_of_its_rows(tiny_model_path: Path) -> None:
    """Two episodes of unequal length in one padded batch, against their rows run one by one."""
    torch = pytest.importorskip("torch")
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_model_path, dtype=torch.float32)
    weight = model.model.layers[0].self_attn.q_proj.weight
    units = [episode([([4, 5], [6]), ([7], [8, 9]), ([4], [4])]), episode([([9, 9, 9], [5, 6]), ([4], [7])])]
    together = ask(model, units).nll_N
    together.sum().backward()
    gradient = weight.grad.clone()
    model.zero_grad()
    alone = torch.cat([ask(model, [[row]]).nll_N for unit in units for row in unit])
    alone.sum().backward()
    assert together.shape == (5,) and len(set(together.tolist())) == 5
    assert torch.allclose(together, alone, atol=1e-5)
    assert gradient.abs().max() > 0.01 and torch.allclose(gradient, weight.grad, rtol=1e-4, atol=1e-5)


def test_samples_that_meet_in_a_state_run_it_once(tiny_model_path: Path) -> None:
    """Rows of equal sequences, but for the last token, have the loss and gradient of rows run one by one."""
    torch = pytest.importorskip("torch")
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_model_path, dtype=torch.float32)
    ran: list[list[int]] = []
    model.register_forward_pre_hook(
        lambda _, args, given: ran.append([*given["input_ids"].shape]) and None, with_kwargs=True
    )
    weight = model.model.layers[0].self_attn.q_proj.weight
    rows = [token_row([4, 5, 6], [7, 8]), token_row([4, 5], [6]), token_row([4, 5, 6], [7, 9]), token_row([4, 5], [6])]
    rows.append(TokenRow("preference", [4, 5], [9], 1.0, rejected_ids=[7]))
    said = ask(model, [[row] for row in rows])
    together = torch.cat([said.nll_N, said.sums(said.nll_M, rejected=True)[-1:]])
    together.sum().backward()
    assert ran == [[2, 4]]
    gradient = weight.grad.clone()
    model.zero_grad()
    alone = torch.cat([ask(model, [[row]]).nll_N for row in [*rows, token_row([4, 5], [7])]])
    alone.sum().backward()
    assert len(set(together.tolist())) == 5
    assert torch.allclose(together, alone, atol=1e-5)
    assert gradient.abs().max() > 0.01 and torch.allclose(gradient, weight.grad, rtol=1e-4, atol=1e-5)


def test_equal_sequences_share_a_forward_pass_and_count_once() -> None:
    """A pass has at most so many different ones, and a bounded number of rows for each."""
    rows = [token_row([4 + i % 3, 5], [6 + i // 3]) for i in range(60)]
    batches = micro_batches(rows, [[i] for i in range(60)], 2)
    assert sorted(i for batch in batches for [i] in batch) == list(range(60))
    assert [len(batch) for batch in batches] == [2 * ALIKE, 2 * ALIKE, 2 * ALIKE, 12]
    assert [len({rows[i].runs for [i] in batch}) for batch in batches] == [1, 2, 2, 1]
    rows = [token_row([4], [6])] * 2 * ALIKE + [token_row([5], [6])] * 50
    batches = micro_batches(rows, [[i] for i in range(len(rows))], 2)  # a pass is full where another sequence begins
    assert max(map(len, batches)) == 2 * ALIKE


def test_training_on_whole_histories_runs_them_once(tiny_model_path: Path, tmp_path: Path) -> None:
    """The trainer's loss is that of the rows, at the tokens of the longest one."""
    pytest.importorskip("peft", reason='the trainer is not installed: pip install ".[train]"')
    turns = [("a b", "up"), ("c d", "left"), ("e", "down down"), ("f g h", "right")]
    history: list[Message] = []
    rows = []
    for t, (observation, action) in enumerate(turns):
        history = [*history, {"role": "user", "content": observation}]
        kinds: list[ExampleKind] = ["rehearsal", "counterfactual"] if t == 2 else ["rehearsal"]
        rows += [_row(kind, history, action, t) for kind in kinds]
        history = [*history, {"role": "assistant", "content": action}]
    out = tmp_path / "out"
    data = [write(tmp_path / "rows.jsonl", rows)]
    settings = {"model": str(tiny_model_path), "data": data, "max_steps": 1, "backend": "peft", "batch_size": 5}
    together = train(TrainConfig(out=out, **settings))
    (first,) = read_metrics(out / "metrics.jsonl")
    apart = []
    for i, one in enumerate(rows):
        alone = settings | {"data": [write(tmp_path / f"{i}.jsonl", [one])]}
        apart.append(train(TrainConfig(out=tmp_path / str(i), **alone)))
    reh = [result.loss for result, one in zip(apart, rows, strict=True) if one["kind"] == "rehearsal"]
    cf = [result.loss for result, one in zip(apart, rows, strict=True) if one["kind"] == "counterfactual"]
    assert first["loss"] == pytest.approx(sum(reh) / 4 + cf[0], abs=1e-4)
    assert together.tokens == apart[-1].tokens < sum(result.tokens for result in apart) / 2
    assert together.target_tokens == sum(result.target_tokens for result in apart)


def _row(kind: ExampleKind, prompt: list[Message], action: str, turn: int) -> Example:
    return Example(
        version=FORMAT_VERSION,
        kind=kind,
        prompt=prompt,
        completion=[{"role": "assistant", "content": action}],
        task_id="task",
        branch_id="0",
        decision_point=turn,
        weight=1.0,
        prompt_token_ids=None,
        completion_token_ids=None,
    )
