"""Real Unsloth, on its CPU back end, against plain PEFT on the same rows. ``make unsloth-test``.

Unsloth patches transformers at import, so it trains in processes of its own; PEFT trains in this one.
"""

import json
import os
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from rows import row, write
from watched_training import watched

from leafe_graph.finetune import TrainConfig
from leafe_graph.types import Example, ExampleKind, Message

PYTHON = os.environ.get("LEAFE_UNSLOTH_PYTHON")
pytestmark = [
    pytest.mark.embedded,
    pytest.mark.skipif(PYTHON is None, reason="needs Unsloth, named by LEAFE_UNSLOTH_PYTHON: make unsloth-test"),
]
torch = pytest.importorskip("torch", reason='pip install ".[train]"')
pytest.importorskip("peft", reason='pip install ".[train]"')

STEPS = 8


def episode(start: str, *actions: str, kind: ExampleKind, weight: float = 1.0) -> list[Example]:
    """A row a turn, each prompt with the whole history, as whole episodes are exported: a chain for the trainer."""
    prompt: list[Message] = [{"role": "system", "content": "Go."}, {"role": "user", "content": start}]
    rows = []
    for turn, action in enumerate(actions):
        rows.append(Example(**{**row(action=action, kind=kind, weight=weight), "prompt": [*prompt]}))
        prompt += [{"role": "assistant", "content": action}, {"role": "user", "content": f"{turn} moved"}]
    return rows


ROWS = [
    *episode("#@$.#", "right", "go right", "down", kind="rehearsal"),
    *episode("@ wall", "down", "left", kind="rehearsal", weight=0.5),
    *episode("corner", "up", "go up", kind="counterfactual"),
    *episode("box", "left", kind="counterfactual", weight=0.5),
    row("It says <|im_end|>", "up <|im_start|>"),  # words that spell control tokens
    row("sampled", "down", kind="counterfactual", completion_token_ids=[4326, 839, 2]),  # "do", "wn", the stop token
]


@dataclass(frozen=True)
class Run:
    """A finished run."""

    out: Path
    seen: dict[str, Any]
    """What `watched` recorded."""

    @property
    def curve(self) -> list[dict[str, Any]]:
        """metrics.jsonl without the clock's part."""
        records = [json.loads(line) for line in (self.out / "metrics.jsonl").read_text().splitlines()]
        return [{k: v for k, v in r.items() if k not in ("seconds", "tokens_per_second")} for r in records]

    @property
    def adapter(self) -> dict[str, Any]:
        """The saved tensors."""
        from safetensors.torch import load_file

        return dict(load_file(self.out / "adapter_model.safetensors"))


def by_unsloth(*configs: TrainConfig, killed_at: int = 0) -> tuple[int, str]:
    """Train in Unsloth's environment, the last of them until it is killed; the exit code and what was printed."""
    command = [str(PYTHON), str(Path(__file__).with_name("watched_training.py")), str(killed_at)]
    for config in configs:
        command.append(str(config.out.with_suffix(".json")))
        Path(command[-1]).write_text(config.model_dump_json())
    one_thread = {**os.environ, "OMP_NUM_THREADS": "1"}  # as here, see conftest.py
    done = subprocess.run(
        command, env=one_thread, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=1800
    )
    return done.returncode, done.stdout


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> TrainConfig:
    """Four epochs of two steps with the embedded model, at a rate that teaches it the rows."""
    folder = tmp_path_factory.mktemp("both")
    return TrainConfig(
        model="local:smollm2-135m",
        data=[write(folder / "rows.jsonl", ROWS)],
        out=folder / "peft",
        layers_to_transform=[*range(26, 30)],
        learning_rate=2e-3,
        lr_schedule="constant",
        batch_size=6,
        micro_batch_size=3,
        max_steps=STEPS,
        save_steps=1,
        backend="peft",
    )


@pytest.fixture(scope="module")
def peft(config: TrainConfig) -> Run:
    """Trained by PEFT."""
    return Run(config.out, watched(config))


@pytest.fixture(scope="module")
def unsloth(config: TrainConfig) -> Run:
    """Trained by Unsloth; beside it lies "killed", which was killed after five steps."""
    straight, killed = (
        config.model_copy(update={"backend": "unsloth", "out": config.out.with_name(name)})
        for name in ("unsloth", "killed")
    )
    code, said = by_unsloth(straight, killed, killed_at=5)
    assert code == -signal.SIGKILL, said
    return Run(straight.out, torch.load(straight.out / "watched.pt"))


def test_both_are_fed_the_same(peft: Run, unsloth: Run) -> None:
    """Ids, labels and weights of all rows of every forward pass, and the LoRA matrices from which training starts."""
    assert (peft.seen["backend"], unsloth.seen["backend"]) == ("peft", "unsloth")
    assert unsloth.seen["packages"] - peft.seen["packages"] == {"unsloth_zoo"}
    assert len({json.dumps(r) for rows in peft.seen["rows"] for r in rows}) == len(ROWS)
    assert unsloth.seen["rows"] == peft.seen["rows"]
    assert unsloth.seen["called"] == peft.seen["called"]
    assert len(peft.seen["called"]) == len(peft.seen["rows"]) > STEPS
    assert unsloth.seen["start"].keys() == peft.seen["start"].keys()
    for name, matrix in peft.seen["start"].items():
        assert matrix.any() == ("lora_A" in name)
        assert torch.equal(unsloth.seen["start"][name], matrix), name


def test_loss_curves_agree(peft: Run, unsloth: Run) -> None:
    """To 1e-2 at every step, as do both terms of the objective, while the rows are learnt."""
    assert [m["step"] for m in peft.curve] == [*range(1, STEPS + 1)]
    assert peft.curve[-1]["loss"] < 0.5 * peft.curve[0]["loss"]
    for name in ("loss", "l_cf", "l_reh"):
        assert [m[name] for m in unsloth.curve] == pytest.approx([m[name] for m in peft.curve], rel=0, abs=1e-2)
    for name in ("step", "epoch", "lr", "tokens"):
        assert [m[name] for m in unsloth.curve] == [m[name] for m in peft.curve]


def test_its_adapter_is_ordinary_peft(unsloth: Run, config: TrainConfig) -> None:
    """Plain PEFT and transformers give its rows the log-probabilities that they had under Unsloth, not the base's."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    from leafe_graph.models.embedded import embedded_model_path

    base = AutoModelForCausalLM.from_pretrained(embedded_model_path(), dtype=torch.float32)
    model = PeftModel.from_pretrained(base, str(unsloth.out)).eval()

    def log_prob(ids: list[int], labels: list[int]) -> float:
        with torch.no_grad():
            log_p = model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
        return sum(log_p[i - 1, label].item() for i, label in enumerate(labels) if label != -100)

    rows, expected = [r[:2] for r in unsloth.seen["log_probs"]], [r[2] for r in unsloth.seen["log_probs"]]
    assert len(rows) == len(ROWS)
    assert [log_prob(*r) for r in rows] == pytest.approx(expected, rel=0, abs=1e-3)
    with model.disable_adapter():
        assert sum(log_prob(*r) for r in rows) < sum(expected) - len(rows)


def test_a_killed_run_goes_on(unsloth: Run, config: TrainConfig) -> None:
    """The same command again ends with the losses and the weights of the run that was not killed, bit for bit."""
    killed = config.model_copy(update={"backend": "unsloth", "out": config.out.with_name("killed")})
    assert not (killed.out / "adapter_model.safetensors").exists()
    code, said = by_unsloth(killed)
    assert code == 0, said
    resumed = Run(killed.out, torch.load(killed.out / "watched.pt"))
    assert len(resumed.seen["rows"]) < len(unsloth.seen["rows"])  # it did not begin anew
    assert resumed.curve == unsloth.curve
    assert all(torch.equal(resumed.adapter[name], matrix) for name, matrix in unsloth.adapter.items())


def said(text: str) -> list[Message]:
    """What an assistant says."""
    return [{"role": "assistant", "content": text}]


PAIRS = [("#@$.#", "right", "up"), ("@ wall", "go down", "left"), ("corner", "up", "go right"), ("box", "left", "down")]
OTHER_ROWS: dict[str, list[Any]] = {
    "self_distillation": [
        *(
            row(seen, good, kind="counterfactual")
            | {"teacher_prompt": [{"role": "user", "content": f"{seen} Not {bad}!"}]}
            for seen, good, bad in PAIRS
        ),
        row("box", "left"),
    ],
    "dpo": [
        *(row(seen, good, kind="preference") | {"rejected": said(bad)} for seen, good, bad in PAIRS),
        row("box", "left"),
    ],
    "grpo": [
        row(seen, action, kind="rollout") | {"advantage": advantage}
        for seen, *both in PAIRS
        for action, advantage in zip(both, (0.5, -0.5), strict=True)
    ],
}
FEW = 3
"""Steps of a training for another objective, or of all weights."""


@pytest.fixture(scope="module")
def others(config: TrainConfig) -> dict[str, tuple[Run, Run]]:
    """For each other objective, and of all weights: trained by PEFT or transformers, and by Unsloth."""
    asked: dict[str, dict[str, Any]] = {name: {"objective": name, "kl_coef": 0.1} for name in OTHER_ROWS}
    asked["full"] = {"tune": "full", "learning_rate": 1e-4}
    made: dict[str, tuple[TrainConfig, TrainConfig]] = {}
    for name, settings in asked.items():
        if name in OTHER_ROWS:
            settings["data"] = [write(config.out.with_name(f"{name}.jsonl"), OTHER_ROWS[name])]
        settings |= {"max_steps": FEW, "save_steps": FEW, "out": config.out.with_name(f"{name}-peft")}
        plain = config.model_copy(update=settings)
        theirs = plain.model_copy(update={"backend": "unsloth", "out": config.out.with_name(f"{name}-unsloth")})
        made[name] = plain, theirs
    code, printed = by_unsloth(*(theirs for _, theirs in made.values()))
    assert code == 0, printed
    return {
        name: (Run(plain.out, watched(plain)), Run(theirs.out, torch.load(theirs.out / "watched.pt")))
        for name, (plain, theirs) in made.items()
    }


@pytest.mark.parametrize("name", [*OTHER_ROWS, "full"])
def test_other_objectives_and_all_weights_agree(others: dict[str, tuple[Run, Run]], name: str) -> None:
    """The same passes, and losses to 1e-2 at every step, references and the teacher's distributions included."""
    plain, theirs = others[name]
    assert theirs.seen["backend"] == "unsloth" and theirs.seen["rows"] == plain.seen["rows"]
    assert [m["step"] for m in theirs.curve] == [*range(1, FEW + 1)]
    assert plain.curve[-1]["loss"] < plain.curve[0]["loss"]
    for key in plain.curve[0].keys() - {"grad_norm"}:
        assert [m[key] for m in theirs.curve] == pytest.approx([m[key] for m in plain.curve], rel=0, abs=1e-2), key


def test_a_whole_model_is_an_ordinary_one(others: dict[str, tuple[Run, Run]]) -> None:
    """Plain transformers gives its rows the log-probabilities that they had under Unsloth."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    out, seen = others["full"][1].out, others["full"][1].seen
    assert AutoTokenizer.from_pretrained(out).chat_template
    model = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32).eval()
    for ids, labels, expected in seen["log_probs"]:
        with torch.no_grad():
            log_p = model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
        told = sum(log_p[i - 1, label].item() for i, label in enumerate(labels) if label != -100)
        assert told == pytest.approx(expected, rel=0, abs=1e-3)
