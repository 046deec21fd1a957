"""The recipes are valid, say where each value is from, and can be planned without a model, torch or an environment."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from leafe_graph.bench import read_bench
from leafe_graph.bench.config import Cell
from leafe_graph.errors import ConfigError
from leafe_graph.models.shapes import SHAPES, shape
from leafe_graph.rounds.dry_run import plan
from leafe_graph.rounds.yaml_file import read_config

FILES = sorted((Path(__file__).parents[1] / "examples" / "recipes").glob("*.yaml"))
BENCHES = [file for file in FILES if file.name.startswith("bench-")]
RECIPES = [file for file in FILES if file not in BENCHES]
PAPER = [file for file in RECIPES if file.name.startswith("paper-")]


def test_the_recipes_are_these() -> None:
    """Two models on four worlds, the big one on programming, one GPU, and a CPU."""
    names = {f"paper-{m}-{w}" for m in ("qwen2.5-7b", "llama-3.1-8b") for w in ("alfworld", "scienceworld", "webshop")}
    names |= {"paper-qwen2.5-7b-sokoban", "paper-llama-3.1-8b-sokoban", "paper-qwen2.5-72b-codecontests"}
    assert {file.stem for file in RECIPES} == names | {"one-24gb-gpu", "cpu-sokoban"}


@pytest.mark.parametrize("file", BENCHES, ids=lambda file: file.stem)
def test_the_benches_tune_all_methods_with_the_same_effort(file: Path) -> None:
    """At most four settings each, on tasks that are not those of the table; the same budget for all that learn.

    An ablation has one setting, and the first of two methods one after the other a part of the budget.
    """
    config = read_bench(file)
    assert config.tune is not None and config.tune.split != "test"
    first = {entry.start for entry in config.entries.values()}
    for name, entry in config.entries.items():
        alone = not entry.learns or entry.choice is not None or (entry.method != name and len(config.grid(name)) == 1)
        assert alone or len(config.grid(name)) == len(config.tune.grid) <= 4, name
        told = config.rounds(Cell(name, 0, config.seeds_of(name)[0]))
        spent = [told.env_steps or 0]
        while entry.start is not None:
            name = entry.start
            entry = config.entries[name]
            spent.append(config.rounds(Cell(name, 0, config.seeds_of(name)[0])).env_steps or 0)
        assert sum(spent) == config.shared["env_steps"] or name in first, name
        assert (told.eval.split, told.eval.start, told.eval.tasks) == ("test", 0, config.shared["eval"]["tasks"]), name


def test_dry_runs_print_the_plan_and_load_no_model() -> None:
    """All of them: rows, tokens, memory and time; nobody needs torch or an environment for that."""
    code = (
        "import sys; from leafe_graph.cli import main\n"
        "for file in sys.argv[1:]:\n"
        "    print('==', file); assert main(['run', file, '--dry-run']) == 0\n"
        "print([name for name in ('torch', 'transformers', 'yaml') if name in sys.modules])"
    )
    command, wide = [sys.executable, "-c", code, *map(str, RECIPES)], os.environ | {"COLUMNS": "120"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=wide)
    plans = done.stdout.split("== ")[1:]
    assert len(plans) == len(RECIPES) and done.stdout.splitlines()[-1] == "['yaml']"
    for text in plans:
        assert re.search(r"1 explore .* 1 train .* \+ .* 1 eval .* all ", " ".join(text.split()))
        assert re.search(r"training, in all \(not at the same time\) +│ +\d", text)
        assert "?" not in text, "a size or a speed is missing"
        assert "Warning" not in text


@pytest.mark.parametrize("file", PAPER, ids=lambda file: file.stem)
def test_each_value_says_whether_it_is_the_papers_or_ours(file: Path) -> None:
    """Line by line."""
    settings, _, _ = file.read_text().partition("\nestimate:")
    lines = [line for line in settings.splitlines() if re.match(r" *\w+: *[^ #]", line)]
    assert len(lines) > 25
    assert [line for line in lines if not re.search(r"# .*(paper|ours)", line)] == []


def test_the_24_gb_recipe_fits() -> None:
    """By its own estimate, with a margin for what that leaves out."""
    config = read_config(next(file for file in RECIPES if file.name == "one-24gb-gpu.yaml"))
    memory = list(plan(config))[1]
    assert not isinstance(memory, str)
    needed = dict(zip(*(list(column.cells) for column in memory.columns), strict=True))
    assert float(str(needed["policy, in all"])) < 24 * 0.92
    assert float(str(needed["training, in all (not at the same time)"])) < 24 * 0.8


def test_a_row_that_would_be_too_long_is_warned_of() -> None:
    """Before a night is lost to it."""
    config = read_config(PAPER[0], {"train.max_length": 512})
    assert [said for said in plan(config) if str(said).startswith("Warning: the longest row has about")]


@pytest.mark.parametrize(
    ("model", "published"),
    [
        ("smollm2-135m", 134.5e6),
        ("Qwen/Qwen2.5-7B-Instruct", 7.62e9),
        ("Qwen/Qwen2.5-72B-Instruct", 72.7e9),
        ("meta-llama/Llama-3.1-8B-Instruct", 8.03e9),
    ],
)
def test_sizes_give_the_published_numbers_of_parameters(model: str, published: float) -> None:
    """What the models' cards say."""
    size = SHAPES[model]
    assert size.linear + size.embeddings == pytest.approx(published, rel=2e-3)


def test_sizes_of_a_folder_are_those_of_its_weights(tiny_model_path: Path, tmp_path: Path) -> None:
    """The base's but for the norms, and the adapter's as PEFT makes it."""
    peft = pytest.importorskip("peft", reason='pip install ".[train]"')
    from transformers import AutoModelForCausalLM

    size = shape(f"local:{tiny_model_path}")
    assert size is not None
    model = AutoModelForCausalLM.from_pretrained(tiny_model_path)
    weights = [p.numel() for name, p in model.named_parameters() if "norm" not in name]
    assert size.linear + size.embeddings == sum(weights)
    lora = peft.get_peft_model(model, peft.LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"))
    assert size.lora(4) == sum(p.numel() for p in lora.parameters() if p.requires_grad)
    (tmp_path / "config.json").write_text('{"hidden_size": 3}')
    with pytest.raises(ConfigError, match="does not tell the model's sizes: KeyError"):
        shape(str(tmp_path))
    assert shape("unknown/model") is None
