"""Each objective's loss is TRL's on the same rows, or computed by hand, and its trainings resume to the bit."""

import math
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from rows import row, write
from test_full import weights
from test_train import killed_after, lines, same

from leafe_graph.errors import ConfigError
from leafe_graph.finetune import TrainConfig
from leafe_graph.finetune.loss import objective_value, references, remembering
from leafe_graph.finetune.objectives.grpo import Grpo
from leafe_graph.finetune.objectives.self_distillation import divergence
from leafe_graph.finetune.prepare import prepare
from leafe_graph.finetune.said import Said
from leafe_graph.finetune.tokens import TokenRow, read_examples, tokenize
from leafe_graph.finetune.train import train
from leafe_graph.types import Example

torch = pytest.importorskip("torch", reason='the trainer is not installed: pip install ".[train]"')
pytest.importorskip("peft", reason='the trainer is not installed: pip install ".[train]"')

USERS = ["a b c", "d", "e f g h i j", "k l", "m n o p"]
ACTIONS = ["up", "left left down", "right", "down", "up up"]
OTHERS = ["down", "right", "up up left", "left", "right"]


def answer(text: str) -> list[Any]:
    """What an assistant says."""
    return [{"role": "assistant", "content": text}]


def preferences() -> list[Any]:
    """Five pairs of answers, of unequal lengths."""
    three = zip(USERS, ACTIONS, OTHERS, strict=True)
    return [row(user, good, kind="preference") | {"rejected": answer(bad)} for user, good, bad in three]


def taught() -> list[Example]:
    """Three rows whose teacher is told more, and two of rehearsal."""
    rows = [row(user, action, kind="counterfactual") for user, action in zip(USERS[:3], ACTIONS[:3], strict=True)]
    for one in rows:
        one["teacher_prompt"] = [{"role": "user", "content": one["prompt"][0]["content"] + " not z"}]
    return [*rows, *(row(user, action) for user, action in zip(USERS[3:], ACTIONS[3:], strict=True))]


@pytest.fixture(scope="module")
def tokenizer(tiny_model_path: Path) -> Any:
    """The tiny model's."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny_model_path)


@pytest.fixture
def model(tiny_model_path: Path) -> Any:
    """The tiny model, in float32."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(tiny_model_path, dtype=torch.float32).eval()


@pytest.fixture
def other(model: Any) -> Any:
    """The same a little further on."""
    from copy import deepcopy

    moved = deepcopy(model)
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in moved.parameters():
            parameter += 0.02 * torch.randn_like(parameter)
    return moved


def logits(model: Any, prompt: list[int], completion: list[int]) -> Any:
    """At each of the completion's tokens, of one sequence without padding."""
    with torch.no_grad():
        return model(torch.tensor([prompt + completion])).logits[0, len(prompt) - 1 : -1]


def log_probs(model: Any, prompt: list[int], completion: list[int]) -> Any:
    """Of each of the completion's tokens."""
    return logits(model, prompt, completion).log_softmax(-1).gather(-1, torch.tensor(completion)[:, None])[:, 0]


def tokenized(folder: Path, tokenizer: Any, rows: list[Any]) -> list[TokenRow]:
    """Rows as the trainer has them."""
    read = read_examples([write(folder / "tokenized.jsonl", rows)])
    return tokenize(read, tokenizer, stop_ids={tokenizer.eos_token_id}, max_length=64)


def rollouts(folder: Path, tokenizer: Any, model: Any) -> list[Any]:
    """Six sampled actions with their advantages, and the probabilities that ``model`` gave them."""
    rows: list[Any] = [row(user, action, kind="rollout") for user, action in zip(USERS, ACTIONS, strict=True)]
    rows.append(row("a b c", "down", kind="rollout"))
    for one, advantage in zip(rows, [1.0, -0.5, 0.25, -1.5, 0.0, -1.0], strict=True):
        one["advantage"] = advantage
    for one, told in zip(rows, tokenized(folder, tokenizer, rows), strict=True):
        one["prompt_token_ids"], one["completion_token_ids"] = told.prompt_ids, told.completion_ids
        one["logprobs"] = log_probs(model, told.prompt_ids, told.completion_ids).tolist()
    return rows


@pytest.fixture
def config(tiny_model_path: Path, tmp_path: Path) -> TrainConfig:
    """All rows in every step, two forward passes each."""
    return TrainConfig(
        model=str(tiny_model_path),
        data=[tmp_path / "rows.jsonl"],
        out=tmp_path / "out",
        tune="full",
        learning_rate=1e-3,
        batch_size=6,
        micro_batch_size=3,
        max_steps=1,
        save_steps=1,
        backend="peft",
    )


def first(config: TrainConfig, rows: list[Any], objective: str, **settings: Any) -> dict[str, Any]:
    """The first line of metrics.jsonl."""
    write(config.data[0], rows)
    train(config.model_copy(update={"objective": objective, "resume": False, **settings}))
    return lines(config.out)[0]


def test_rejection_is_the_mean_over_successes(config: TrainConfig, model: Any, tokenizer: Any, tmp_path: Path) -> None:
    """Other rows count nothing."""
    rows = taught()
    told = tokenized(tmp_path, tokenizer, rows[3:])
    by_hand = [-log_probs(model, r.prompt_ids, r.completion_ids).sum().item() for r in told]
    line = first(config, rows, "rejection")
    assert line["loss"] == line["l_reh"] == pytest.approx(sum(by_hand) / 2, abs=1e-4)


def test_data_of_which_all_is_left_out_is_told(config: TrainConfig) -> None:
    """By kinds, and whose choice that is."""
    write(config.data[0], taught()[:3])
    with pytest.raises(ConfigError, match=r"of 3 counterfactual rows none .* rejection objective leaves out counterf"):
        train(config.model_copy(update={"objective": "rejection"}))


def outcomes(p: Any, q: Any, k: int) -> Iterator[tuple[float, float]]:
    """At each position the probabilities by ``p`` and ``q`` of p's k likeliest tokens, and of the rest as one."""
    for p_V, q_V in zip(p, q, strict=True):
        top = p_V.topk(min(k, len(p_V))).indices.tolist()
        yield from ((p_V[i].item(), q_V[i].item()) for i in top)
        if len(top) < len(p_V):
            rest = [i for i in range(len(p_V)) if i not in top]
            yield p_V[rest].sum().item(), q_V[rest].sum().item()


@pytest.mark.parametrize("k", [3, 1000])
@pytest.mark.parametrize("tune", ["lora", "full"])
def test_soft_labels_are_the_divergence_from_the_teacher_that_is_told_more(
    config: TrainConfig, model: Any, tokenizer: Any, tmp_path: Path, k: int, tune: str
) -> None:
    """Over its k likeliest tokens and the rest as one, summed over the revised action's tokens."""
    rows, total = taught(), 0.0
    told = tokenized(tmp_path, tokenizer, rows)
    for r in told[:3]:
        assert r.teacher_ids and len(r.teacher_ids) == len(r.prompt_ids) + 2
        p, q = (logits(model, ids, r.completion_ids).double().softmax(-1) for ids in (r.teacher_ids, r.prompt_ids))
        total += sum(a * math.log(a / b) for a, b in outcomes(p, q, k))
    reh = sum(-log_probs(model, r.prompt_ids, r.completion_ids).sum().item() for r in told[3:]) / 2
    line = first(config, rows, "self_distillation", teacher_top_k=k, beta=0.5, tune=tune)
    assert total > 0.1
    assert line["l_kl"] == pytest.approx(total / 3, abs=1e-4)
    assert line["loss"] == pytest.approx(total / 3 + 0.5 * reh, abs=1e-4)


def test_a_student_like_its_teacher_has_nothing_to_learn() -> None:
    """The divergence is 0, and so is its gradient."""
    logits = torch.randn(4, 9, requires_grad=True)
    logp, ids = logits.detach().log_softmax(-1).topk(3)
    kl = divergence(logits, ids, logp)
    kl.sum().backward()
    assert kl.detach().abs().max() < 1e-6 and logits.grad.abs().max() < 1e-6


@pytest.mark.parametrize("gate", [None, 5.0])
@pytest.mark.parametrize("k", [3, 1000])
def test_on_policy_the_student_is_measured_by_its_own_probabilities(
    config: TrainConfig, model: Any, other: Any, tokenizer: Any, tmp_path: Path, k: int, gate: float | None
) -> None:
    """The divergence of weights that have moved from the teacher, over its k likeliest tokens and the rest as one.

    With a gate, token by token, by what both say of the token itself.
    """
    rows, total = taught(), 0.0
    for one in rows[:3]:
        one["kind"] = "on_policy"
    told = tokenized(tmp_path, tokenizer, rows)
    for r in told[:3]:
        assert r.teacher_ids
        p = logits(model, r.teacher_ids, r.completion_ids).double().softmax(-1)
        q = logits(other, r.prompt_ids, r.completion_ids).double().softmax(-1)
        for said, (p_V, q_V) in zip(r.completion_ids, zip(p, q, strict=True), strict=True):
            kl = sum(b * math.log(b / a) for a, b in outcomes(p_V[None], q_V[None], k))
            total += kl / (1 + (q_V[said].item() / p_V[said].item()) ** gate) if gate else kl
    reh = sum(-log_probs(other, r.prompt_ids, r.completion_ids).sum().item() for r in told[3:]) / 2
    value = ours(config, model, other, rows, "on_policy_distillation", teacher_top_k=k, beta=0.5, gate=gate)
    assert total > 0.05 and value == pytest.approx(total / 3 + 0.5 * reh, abs=1e-4)


def test_a_row_that_lacks_the_teachers_prompt_is_told(config: TrainConfig) -> None:
    """With what to do."""
    with pytest.raises(ConfigError, match=r"1 of 4 counterfactual rows have no teacher_prompt.*anew with --teacher"):
        first(config, [*taught(), row(kind="counterfactual")], "self_distillation")


def test_kinds_that_have_no_term_are_refused(config: TrainConfig) -> None:
    """By name, with the objective that takes them."""
    with pytest.raises(ConfigError, match=r"over rollout rows, the data also has \['rehearsal'\]: leave them out"):
        first(config, [row()], "grpo")
    with pytest.raises(ConfigError, match=r'also has \[.preference.\]: train on those with objective="dpo" first'):
        first(config, preferences(), "leafe")


def ours(config: TrainConfig, start: Any, now: Any, rows: list[Any], objective: str, **settings: Any) -> float:
    """The objective of rows by the weights of ``now``, where training started from ``start``."""
    write(config.data[0], rows)
    prepared = prepare(config.model_copy(update={"objective": objective, **settings}))
    known = remembering(prepared.rows, references(start, prepared.rows, prepared.objective, micro_batch_size=2))
    return objective_value(now, known, prepared.objective, micro_batch_size=4)


@pytest.fixture
def trl() -> Any:
    """TRL, of which some options of its own dependencies are older."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("trl", reason="pip install trl==1.14.2")


def test_dpo_is_trls(config: TrainConfig, model: Any, other: Any, tokenizer: Any, tmp_path: Path, trl: Any) -> None:
    """Against the starting weights, at weights that have moved; the NLL term and rehearsal rows come on top."""
    from datasets import Dataset

    rows = preferences()
    trainer = trl.DPOTrainer(
        other,
        model,
        args=trl.DPOConfig(str(tmp_path / "trl"), beta=0.3, use_cpu=True, report_to="none"),
        train_dataset=Dataset.from_list(
            [{"prompt": r["prompt"], "chosen": r["completion"], "rejected": r["rejected"]} for r in rows]
        ),
        processing_class=tokenizer,
    )
    told = tokenized(tmp_path, tokenizer, rows)
    batch = trainer.data_collator(
        [{"prompt_ids": r.prompt_ids, "chosen_ids": r.completion_ids, "rejected_ids": r.rejected_ids} for r in told]
    )
    other.eval()
    with torch.no_grad():
        theirs = trainer.compute_loss(other, batch).item()
    assert abs(theirs - math.log(2)) > 0.01
    chosen = sum(-log_probs(other, r.prompt_ids, r.completion_ids).sum().item() for r in told) / 5
    assert ours(config, model, other, rows, "dpo", dpo_beta=0.3, dpo_nll=0.0) == pytest.approx(theirs, abs=1e-4)
    (reh,) = tokenized(tmp_path, tokenizer, [row("z", "left")])
    more = -log_probs(other, reh.prompt_ids, reh.completion_ids).sum().item()
    both = [*rows, row("z", "left"), row("z", "up", kind="counterfactual")]
    mixed = ours(config, model, other, both, "dpo", dpo_beta=0.3, dpo_nll=0.5, beta=2.0)
    assert mixed == pytest.approx(theirs + 0.5 * chosen + 2 * more, abs=1e-4)


@pytest.mark.parametrize(
    ("normalise_by", "loss_type", "kl"), [("tokens", "dapo", 0.0), ("rows", "grpo", 0.2), (7, "dr_grpo", 0.2)]
)
def test_grpo_is_trls(
    config: TrainConfig,
    model: Any,
    other: Any,
    tokenizer: Any,
    tmp_path: Path,
    trl: Any,
    normalise_by: str | int,
    loss_type: str,
    kl: float,
) -> None:
    """Sampled by the starting weights, at weights that have moved: some ratios are clipped, on both sides."""
    from datasets import Dataset
    from torch.nn.utils.rnn import pad_sequence

    rows = rollouts(tmp_path, tokenizer, model)
    told = tokenized(tmp_path, tokenizer, rows)
    trainer = trl.GRPOTrainer(
        other,
        lambda **given: [0.0],
        args=trl.GRPOConfig(
            str(tmp_path / "trl"),
            loss_type=loss_type,
            beta=kl,
            use_bias_correction_kl=False,
            epsilon=0.05,
            epsilon_high=0.1,
            max_completion_length=7,
            use_cpu=True,
            report_to="none",
        ),
        train_dataset=Dataset.from_list([{"prompt": r["prompt"]} for r in rows]),
        processing_class=tokenizer,
    )

    def padded(lists: list[Any], side: str) -> Any:
        return pad_sequence([torch.tensor(each) for each in lists], batch_first=True, padding_side=side)

    old = padded([r.logprobs for r in told], "right")
    other.eval()
    with torch.no_grad():
        theirs = trainer.compute_loss(
            other,
            {
                "prompt_ids": padded([r.prompt_ids for r in told], "left"),
                "prompt_mask": padded([[1] * len(r.prompt_ids) for r in told], "left"),
                "completion_ids": padded([r.completion_ids for r in told], "right"),
                "completion_mask": padded([[1] * len(r.completion_ids) for r in told], "right"),
                "advantages": torch.tensor([r.advantage for r in told]),
                "old_per_token_logps": old,
                "ref_per_token_logps": old,
                "num_items_in_batch": torch.tensor(sum(len(r.completion_ids) for r in told)),
            },
        ).item()
    settings = {"clip_low": 0.05, "clip_high": 0.1, "kl_coef": kl, "normalise_by": normalise_by}
    value = ours(config, model, other, rows, "grpo", **settings)
    assert value == pytest.approx(theirs, abs=1e-4) and abs(value) > 1e-3
    untold = [{name: held for name, held in r.items() if name != "logprobs"} for r in rows]
    assert ours(config, model, other, untold, "grpo", **settings) == pytest.approx(theirs, abs=1e-4)


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "moves"),
    [
        (1.2, 1.0, -1.2, True),  # within
        (1.5, 1.0, -1.28, False),  # up far enough
        (0.5, 1.0, -0.5, True),  # what was good has become less likely: it is pulled back without a bound
        (0.7, -1.0, 0.8, False),  # down far enough
        (1.5, -1.0, 1.5, True),
        (1.0, 0.0, 0.0, False),
    ],
)
def test_ratios_are_clipped(ratio: float, advantage: float, loss: float, moves: bool) -> None:
    """Where a step would go on in the direction that the advantage asked for, past the bounds; nowhere else."""
    logits_MV = torch.zeros(1, 4, requires_grad=True)
    said = Said(logits_MV, torch.tensor([2]), torch.tensor([0]), [1])
    one = TokenRow("rollout", [4], [2], 1.0, advantage=advantage, logprobs=[math.log(0.25 / ratio)])
    losses_N, told = Grpo().losses(said, [one])
    losses_N.sum().backward()
    assert losses_N.item() == pytest.approx(loss, abs=1e-5)
    assert bool(logits_MV.grad.any()) == moves
    assert told["clipped"].item() == (advantage != 0 and not moves)


SOME = {"self_distillation": taught, "dpo": preferences, "rejection": taught}


@pytest.mark.parametrize("tune", ["lora", "full"])
@pytest.mark.parametrize("objective", ["rejection", "self_distillation", "dpo", "grpo"])
def test_a_killed_training_ends_as_one_that_was_not(
    config: TrainConfig,
    model: Any,
    tokenizer: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    objective: str,
    tune: str,
) -> None:
    """Its references are those of the weights from which it started, not of the checkpoint's."""
    rows = SOME[objective]() if objective in SOME else rollouts(tmp_path, tokenizer, model)
    write(config.data[0], rows)
    asked = {"objective": objective, "tune": tune, "max_steps": 3, "batch_size": 3, "learning_rate": 1e-2}
    asked["kl_coef"] = 0.1
    straight = config.model_copy(update={**asked, "out": tmp_path / "straight"})
    result = train(straight)
    killed = config.model_copy(update=asked)
    killed_after(2, killed, monkeypatch)
    assert train(killed).resumed_from == 2
    assert lines(killed.out) == lines(straight.out)
    name = "model.safetensors" if result.model else "adapter_model.safetensors"
    assert (killed.out / name).read_bytes() == (straight.out / name).read_bytes()
    for name in trainer_terms(objective):
        assert name in lines(straight.out)[0]


def trainer_terms(objective: str) -> list[str]:
    """Names that metrics.jsonl has beside those of every training."""
    return {
        "rejection": ["l_reh"],
        "self_distillation": ["l_kl"],
        "dpo": ["l_dpo", "reward_margin", "reward_accuracy"],
        "grpo": ["l_grpo", "clipped", "kl_old", "kl_start"],
    }[objective]


@pytest.mark.parametrize("objective", ["dpo", "grpo", "self_distillation"])
def test_training_does_what_the_objective_is_for(
    config: TrainConfig, model: Any, tokenizer: Any, tmp_path: Path, objective: str
) -> None:
    """Better answers, and actions with an advantage, become likelier than the others; the student like its teacher."""
    rows = SOME[objective]() if objective in SOME else rollouts(tmp_path, tokenizer, model)
    write(config.data[0], rows)
    train(config.model_copy(update={"objective": objective, "max_steps": 30, "learning_rate": 3e-3}))
    records = lines(config.out)
    if objective == "dpo":
        assert records[0]["reward_margin"] == pytest.approx(0, abs=1e-5)
        assert records[-1]["reward_margin"] > 0.5 and records[-1]["reward_accuracy"] == 1
    elif objective == "grpo":
        assert records[0]["kl_old"] == pytest.approx(0, abs=1e-5) and records[-1]["kl_old"] > 0
        assert records[0]["clipped"] == 0 < records[-1]["clipped"]
        assert records[-1]["loss"] < records[0]["loss"]
    else:
        assert records[-1]["l_kl"] < 0.2 * records[0]["l_kl"]


def test_moments_go_on_from_an_earlier_training(config: TrainConfig, tmp_path: Path) -> None:
    """Two steps and two more are the four of one training; an optimiser of other weights is refused."""
    write(config.data[0], taught())
    plain = {"lr_schedule": "constant", "warmup_ratio": 0, "batch_size": 5}
    whole = config.model_copy(update={**plain, "max_steps": 4, "out": tmp_path / "whole"})
    train(whole)
    half = config.model_copy(update={**plain, "max_steps": 2, "out": tmp_path / "half"})
    train(half)
    on = half.model_copy(update={"model": str(half.out), "out": tmp_path / "on", "optimizer": half.out})
    anew = half.model_copy(update={"model": str(half.out), "out": tmp_path / "anew"})
    train(on), train(anew)
    assert same(weights(on.out), weights(whole.out)) and not same(weights(anew.out), weights(whole.out))
    assert train(on).resumed_from == 2
    with pytest.raises(ConfigError, match=r"other settings or rows \(optimizer\)"):
        train(on.model_copy(update={"optimizer": whole.out}))
    with pytest.raises(ConfigError, match=r"optimizer=.* is of a training of other weights: .* is absent there and"):
        train(on.model_copy(update={"tune": "lora", "out": tmp_path / "lora"}))
    with pytest.raises(ConfigError, match=r"has no checkpoints/step-N\.pt"):
        train(on.model_copy(update={"optimizer": tmp_path, "out": tmp_path / "none"}))
    with pytest.raises(ValidationError, match="optimizer is out itself"):
        TrainConfig.model_validate(on.model_dump() | {"optimizer": on.out, "resume": False})
