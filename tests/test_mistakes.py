"""Typical mistakes at the command line: each is answered in one line that says what was seen and what to do."""

import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_cli import LEVELS, WANDERER

from leafe_graph.cli.main import main
from leafe_graph.errors import install

pytest.importorskip("peft", reason='the trainer is not installed: pip install ".[train]"')

EXPLORE = ["explore", "--model", WANDERER, "--out", "new"]
PLAYED = ["--levels", "levels.txt", "--env-options", "max_steps=3"]
TREES = [*PLAYED, "--max-branches", "2", "--max-turns", "3"]
TRAIN = ["train", "--model", "local:tiny", "--out", "new"]


def explore(model: str) -> list[str]:
    """An exploration with another model."""
    return ["explore", "--model", model, "--out", "new"]


MISTAKES: dict[str, tuple[list[str], str, str]] = {
    # what was typed, what the answer says was seen, what it says to do
    "a command misspelt": (["exlore"], "no command 'exlore'", "did you mean 'explore'?"),
    "a flag misspelt": ([*EXPLORE, "--max-branchs", "3"], "no flag --max-branchs", "did you mean '--max-branches'?"),
    "a choice misspelt": (["export", "run", "--keep", "succes"], "'succes'", "did you mean 'success'?"),
    "a split misspelt": ([*EXPLORE, "--split", "tets"], "'tets'", "did you mean 'test'?"),
    "a strategy misspelt": ([*EXPLORE, "--strategy", "refin"], "'refin'", "leafe, independent, lats, refine"),
    "an environment misspelt": (
        [*EXPLORE, "--env", "sokobn"], "unknown environment 'sokobn'", "did you mean 'sokoban'?",
    ),
    "an option of the environment misspelt": ([*EXPLORE, "--env-options", "sise=6"], "['sise']", "'size'"),
    "a required flag left out": (["explore", "--out", "new"], "--model", "required"),
    "a required argument left out": (["export"], "RUN", "required"),
    "compare with one result": (["compare", "four"], "compare four with", "expected two results or more"),
    "a flag without its value": ([*EXPLORE, "--tasks"], "--tasks", "expected one argument"),
    "a word for a number": ([*EXPLORE, "--max-branches", "many"], "'many'", "valid integer"),
    "half a turn": ([*EXPLORE, "--max-turns", "2.5"], "'2.5'", "valid integer"),
    "a size that is none": ([*EXPLORE, "--env-options", "size=big"], "size='big'", "should be a valid integer"),
    "an option without a value": ([*EXPLORE, "--env-options", "size"], "'size'", "expected KEY=VALUE"),
    "a negative budget": ([*EXPLORE, "--env-steps", "-5"], "'-5'", "greater than or equal to 0"),
    "no tasks": ([*EXPLORE, "--tasks", "0"], "'0'", "--tasks: Input should be greater than or equal to 1"),
    "a start past the end": ([*EXPLORE, *PLAYED, "--start", "9"], "no task is left of levels.txt", "after the first 9"),
    "levels that are not there": (
        [*EXPLORE, "--levels", "nix.txt"], "'nix.txt'", "--levels: there is no such file",
    ),
    "levels that are none": (
        [*EXPLORE, "--levels", "notes.txt"], "notes.txt: no level found", "expected rows of # @",
    ),
    "prompts that are not there": (
        [*EXPLORE, "--prompts", "mine:PROMPTS"], "'mine:PROMPTS'", "expected MODULE:ATTRIBUTE",
    ),
    "a model's folder that is not there": (
        explore("local:nowhere"), "nowhere is not a Hugging Face", "it does not exist",
    ),
    "a model's folder without a model": (
        explore("local:empty"), "empty is not a Hugging Face", "it has no config.json",
    ),
    "a file for a model's folder": (explore("local:notes.txt"), "notes.txt is not a Hugging Face", "it is a file"),
    "vllm without an address": (explore("vllm:name"), '"vllm:name" has no address', 'write "vllm:name@http://'),
    "an address without http": (explore("vllm:name@127.0.0.1:9"), "'127.0.0.1:9'", "expected http://HOST:PORT/v1"),
    "an address at which nothing listens": (
        explore("vllm:name@http://127.0.0.1:9/v1"), "http://127.0.0.1:9/v1", "cannot be reached",
    ),
    "no key for OpenAI": (explore("openai:name"), "'openai:name' has no key", "set OPENAI_API_KEY"),
    "an adapter that is not there": (
        [*explore("local:tiny"), "--adapter", "nowhere"], "nowhere is not a PEFT adapter folder", "it does not exist",
    ),
    "an adapter without its settings": (
        [*explore("local:tiny"), "--adapter", "weights"],
        "weights is not a PEFT adapter folder", "no adapter_config.json",
    ),
    "an adapter without weights": (
        ["eval", "--model", "local:tiny", "--out", "new", "--adapter", "torn"],
        "torn is not a PEFT adapter folder", "it has no adapter_model.safetensors",
    ),
    "an adapter to train on without weights": (
        [*TRAIN, "--data", "rows", "--adapter", "torn"],
        "torn is not a PEFT adapter folder", "it has no adapter_model.safetensors",
    ),
    "an adapter whose settings are torn": (
        [*explore("local:tiny"), "--adapter", "half"], "adapter_config.json is not JSON", "half",
    ),
    "an adapter of another model": (
        [*explore("local:tiny"), "--adapter", "larger"], "layers.0.self_attn.q_proj", "trained on",
    ),
    "an adapter on a server's model": (
        [*explore("vllm:name@http://127.0.0.1:9/v1"), "--adapter", "weights"], "adapter='weights'", "leafe serve",
    ),
    "other settings for a run that is there": (
        ["explore", "--model", WANDERER, "--out", "run", *TREES, "--seed", "7"],
        "seed: 0 there, 7 now", "choose another folder",
    ),
    "an evaluation into a run's folder": (
        ["eval", "--model", WANDERER, "--out", "run", *PLAYED], "'leafe' there, 'independent' now", "another folder",
    ),
    "a file for the run's folder": ([*EXPLORE[:-1], "notes.txt"], "there is a file", "expected a folder"),
    "a folder below a file": (
        [*EXPLORE[:-1], "notes.txt/run"], "notes.txt/run cannot be written", "choose another place",
    ),
    "export of a folder that is no run": (
        ["export", "empty"], "empty is not a run folder", "give one that explore made",
    ),
    "export of a run that is not there": (
        ["export", "nowhere"], "nowhere is not a run folder", "give one that explore",
    ),
    "report on a folder that is no run": (
        ["report", "empty"], "empty is not a run folder", "give one that explore made",
    ),
    "show of a folder that is no run": (["show", "empty"], "empty has no branches to show", "give a run folder"),
    "show of a task that was not played": (["show", "run", "--task", "x"], "no task 'x'", "it has levels-000"),
    "prune of a folder that is no run": (["prune", "empty"], "empty is no run folder", "explore made"),
    "compare of a folder that is no evaluation": (
        ["compare", "run", "four"], "run.json does not exist", "what leafe eval wrote",
    ),
    "compare on different tasks": (
        ["compare", "four", "one"], "has levels-000001", "evaluate all on one list of tasks",
    ),
    "a larger k than samples": (
        ["compare", "four", "four", "-k", "8"], "Pass@8 of 4 samples", "take more samples, or a smaller k",
    ),
    "a file of rounds that is not there": (["run", "nix.yaml"], "nix.yaml", "there is no such file"),
    "a file of rounds that is not YAML": (
        ["run", "torn.yaml"], "torn.yaml:2", "not YAML: while parsing a flow sequence",
    ),
    "a field of rounds misspelt": (["run", "field.yaml"], "field.yaml:2: rouds", "did you mean 'rounds'?"),
    "a field of a section misspelt": (["run", "section.yaml"], "section.yaml:3: explore.tsks", "did you mean 'tasks'?"),
    "a setting of a training's file misspelt": (
        ["train", "--config", "train.yaml", "--data", "rows", "--out", "new"],
        "'learning_rat'", "did you mean 'learning_rate'?",
    ),
    "a training's file with a key twice": (["train", "--config", "keys.yaml"], "keys.yaml:3: beta", "given twice"),
    "a field of rounds given twice": (["run", "twice.yaml"], "twice.yaml:3: rounds", "given twice"),
    "training on nothing": (
        [*TRAIN, "--data", "empty"], "no example rows at empty", "expected a .jsonl or .parquet file",
    ),
    "training on rows of another format": (
        [*TRAIN, "--data", "other"],
        "line 1: not a row of this trainer's: it has the columns 'question'", "expected version, kind",
    ),
    "training on a run before its export": (
        [*TRAIN, "--data", "run"], "run is a run without example rows", "leafe export run",
    ),
    "training a model that is not there": (
        ["train", "--model", "local:nix", "--data", "rows", "--out", "new"],
        "no model folder at nix", "expected a Hugging Face folder",
    ),
    "layers that the model does not have": (
        [*TRAIN, "--data", "rows", "--target-modules", '["q_prj"]'], "['q_prj']", "this model has down_proj, ",
    ),
    "a size of the demo that there is not": (["demo", "--size", "tiny"], "'tiny'", "'small' or 'full'"),
}  # fmt: skip


@pytest.fixture(scope="module")
def desk(tiny_model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder to stand in: a run, two evaluations, rows, a model, and files that are not what they are taken for."""
    from rows import row, write

    folder = tmp_path_factory.mktemp("desk")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("LEAFE_DEBUG", raising=False)
        Path("levels.txt").write_text(LEVELS)
        for args in (
            ["explore", "--model", WANDERER, "--out", "run", *TREES],
            ["eval", "--model", WANDERER, "--out", "four", *PLAYED, "-n", "4"],
            ["eval", "--model", WANDERER, "--out", "one", *PLAYED, "-n", "4", "--tasks", "1"],
        ):
            assert main(args) == 0
        Path("notes.txt").write_text("hello")
        Path("torn.yaml").write_text("model: [a\n")
        Path("field.yaml").write_text("model: local:tiny\nrouds: 3\n")
        Path("section.yaml").write_text("model: local:tiny\nexplore:\n  tsks: 3\n")
        Path("train.yaml").write_text("model: local:tiny\nlearning_rat: 1\n")
        Path("keys.yaml").write_text("model: local:tiny\nbeta: 1\nbeta: 2\n")
        Path("twice.yaml").write_text("model: local:tiny\nrounds: 3\nrounds: 4\n")
        for name in ("empty", "weights", "rows", "other"):
            Path(name).mkdir()
        Path("weights", "adapter_model.safetensors").write_bytes(b"")
        write(Path("rows", "rows.jsonl"), [row()])
        write(Path("other", "rows.jsonl"), [{"question": "a"}])
        shutil.copytree(tiny_model_path, "tiny")
        adapter_of_another(Path("tiny"), Path("larger"))
        shutil.copytree("larger", "half")
        Path("half", "adapter_config.json").write_text("{")
        shutil.copytree("larger", "torn")  # as a kill in the middle of saving leaves it
        Path("torn", "adapter_model.safetensors").rename("torn/adapter_model.tmp")
        yield folder


def adapter_of_another(base: Path, out: Path) -> None:
    """An adapter of a model that is twice as wide."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(base)
    config.hidden_size *= 2
    model = AutoModelForCausalLM.from_config(config)
    get_peft_model(model, LoraConfig(target_modules=["q_proj"], task_type="CAUSAL_LM")).save_pretrained(out)


NOT_TOLD = re.compile(r"^usage: .*\n(?: .*\n)*|^\r.*\n", re.MULTILINE)
"""Argparse's usage, and the bar with which transformers loads weights."""


def files(folder: Path) -> dict[str, bytes | None]:
    """All that is in a folder."""
    return {str(path): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


@pytest.mark.parametrize(("args", "seen", "do"), MISTAKES.values(), ids=MISTAKES)
def test_mistake_is_answered_in_a_line(
    args: list[str], seen: str, do: str, desk: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not an exit code of 0, no traceback, no file left behind: one line, below argparse's usage at most."""
    if "openai:" in " ".join(args) or "vllm:" in " ".join(args):
        pytest.importorskip("langchain_openai", reason='pip install ".[openai]"')
    for name in ("OPENAI_API_KEY", "OPENAI_ADMIN_KEY"):
        monkeypatch.delenv(name, raising=False)
    before = files(desk)
    try:
        code = main(args)
    except SystemExit as exit:
        code = int(exit.code or 0)
    line = NOT_TOLD.sub("", capsys.readouterr().err)
    assert code != 0 and line.count("\n") == 1 and line.startswith("leafe")
    assert seen in line and do in line
    assert files(desk) == before


@pytest.mark.parametrize(
    ("args", "package", "extra"),
    [
        (explore("vllm:name@http://127.0.0.1:9/v1"), "langchain_openai", "openai"),
        (explore("local:tiny"), "transformers", "hf"),
        ([*TRAIN, "--data", "rows"], "peft", "train"),
        ([*EXPLORE, "--env", "gymnasium:Taxi-v3"], "gymnasium", "gymnasium"),
    ],
)
def test_missing_package_is_answered_with_the_command_that_installs_it(
    args: list[str],
    package: str,
    extra: str,
    desk: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In a line, before anything is played or trained."""
    for name in [*sys.modules]:
        if name.partition(".")[0] == package:
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    before = files(desk)
    assert main(args) == 2
    line = NOT_TOLD.sub("", capsys.readouterr().err)
    assert line.count("\n") == 1 and install(extra) in line
    assert files(desk) == before
