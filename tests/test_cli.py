"""The command line: the loop from explore to report, resuming, and errors that say what to do."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import BaseMessage
from viewed import viewed
from worlds import forest

from leafe_graph import ConfigError, RunFolder, RunFolderError
from leafe_graph.cli.flags import flags, model_of
from leafe_graph.cli.main import Leafe, main
from leafe_graph.envs.sokoban import tasks
from leafe_graph.errors import install
from leafe_graph.testing import ScriptedModel, random_reply

HERE = Path(__file__).parent
LEVELS = """; turn right at once: it is stuck
#####
#@  #
# $.#
#   #
#####

; one push
######
#@$. #
######
"""


def wanderer() -> ScriptedModel:
    """A random policy; asked to reflect, it always doubts its first step."""
    walk = random_reply(["up", "down", "left", "right"])

    def reply(messages: list[BaseMessage], seed: int | None) -> str:
        asked = "Answer with JSON" in messages[-1].text
        return '{"step": 0, "experience": "it went wrong here"}' if asked else walk(messages, seed)

    return ScriptedModel(reply=reply)


def sleepy() -> ScriptedModel:
    """The same one, slow enough to be interrupted."""
    return wanderer().model_copy(update={"delay": 0.3})


WANDERER = "python:test_cli:wanderer"
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def leafe(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Runs a command line in an empty folder; exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LEAFE_DEBUG", raising=False)
    monkeypatch.delenv("LEAFE_DEMO", raising=False)
    Path("levels.txt").write_text(LEVELS)

    def run(*args: str) -> tuple[int, str, str]:
        try:
            code = main(args)
        except SystemExit as exit:
            code = int(exit.code or 0)
        out, err = capsys.readouterr()
        return code, out, err

    return run


def explore(out: str = "run", *more: str, model: str = WANDERER) -> list[str]:
    """A small exploration."""
    options = ["--env-options", "max_steps=6", "--max-branches", "3", "--no-stop-on-success", *more]
    return ["explore", "--model", model, "--out", out, "--levels", "levels.txt", *options]


def evaluate(out: str, *more: str) -> list[str]:
    """A small evaluation."""
    options = ["--env-options", "max_steps=6", "--levels", "levels.txt", "-n", "4", *more]
    return ["eval", "--model", WANDERER, "--out", out, *options]


def test_from_exploring_to_the_report(leafe: Run) -> None:
    """Every command reads what the one before it wrote."""
    code, out, err = leafe(*explore("run", "--reflections", "2"))
    assert (code, err) == (0, "")
    assert "solved" in out and "env_steps" in out and "ended by" in out
    run = RunFolder("run")
    assert len(run.branches) == 2 * 3
    settings = run.config["settings"]
    assert settings["model"] == WANDERER
    assert settings["env_options"] == {"max_steps": 6}
    assert settings["budget"]["reflections"] == 2
    assert settings["limits"]["max_branches"] == 3

    code, out, _ = leafe("export", "run", "--keep", "improved")
    assert code == 0 and "counterfactual rows" in out
    assert Path("run/examples/examples.jsonl").exists()

    for name, seed in (("base", "0"), ("adapted", "1")):
        code, out, err = leafe(*evaluate(f"run/eval/{name}", "--seed", seed, "--name", name))
        assert (code, err) == (0, "")
        assert name in out
        saved = json.loads(Path(f"run/eval/{name}.json").read_text())
        assert (saved["policy"], saved["n"], len(saved["tasks"])) == (name, 4, 2)
        assert len(RunFolder(f"run/eval/{name}").branches) == 8
        assert not any(branch["reflections"] for branch in RunFolder(f"run/eval/{name}").branches)

    code, out, _ = leafe("compare", "run/eval/base", "run/eval/adapted.json", "-k", "1,4", "--out", "paired.json")
    assert code == 0 and "adapted against base" in out
    assert [difference["k"] for difference in json.loads(Path("paired.json").read_text())["differences"]] == [1, 4]

    code, out, _ = leafe("prune", "run")
    assert code == 0 and "finished" in out

    code, out, _ = leafe("report", "run")
    assert code == 0 and "run/report.html" in out
    assert "adapted" in json.dumps(viewed(Path("run/report.html"))[0])


def test_the_same_command_again_plays_nothing_twice(leafe: Run) -> None:
    """A finished run is left as it is."""
    leafe(*explore())
    log = Path("run/branches.jsonl").read_bytes()
    assert leafe(*explore())[0] == 0
    assert Path("run/branches.jsonl").read_bytes() == log


def test_generated_levels_take_the_options_that_tasks_names(leafe: Run) -> None:
    """One set of options: each goes to the environment, to its tasks, or to both."""
    options = '{"size": 5, "boxes": 1, "min_moves": 1, "max_moves": 3, "max_steps": 2}'
    code, _, err = leafe(
        *["explore", "--model", WANDERER, "--out", "run", "--tasks", "2", "--start", "1", "--env-options", options],
        *["--strategy", "independent", "--max-branches", "1", "--split", "validation"],
    )
    assert (code, err) == (0, "")
    expected = tasks("validation", 2, start=1, size=5, boxes=1, min_moves=1, max_moves=3)
    assert {branch["task"]["id"] for branch in RunFolder("run").branches} == {task["id"] for task in expected}
    assert all(len(branch["turns"]) <= 2 for branch in RunFolder("run").branches)


def test_ctrl_c_says_how_to_go_on_and_the_run_resumes(leafe: Run, tmp_path: Path) -> None:
    """Interrupted runs end with code 130 when what was in flight has ended; the same command completes them."""
    args = explore(model="python:test_cli:sleepy")
    where = {"cwd": tmp_path, "env": os.environ | {"PYTHONPATH": str(HERE)}}
    popen: Any = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen([sys.executable, "-m", "leafe_graph", *args], **where, **popen)
    deadline = time.monotonic() + 300
    while not RunFolder("run").branches and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 130, err
    assert [line for line in err.splitlines() if line] == [
        "Finishing the branches that are being played; Ctrl-C again stops at once.",
        "interrupted; to go on where it was: leafe " + " ".join(args),
    ]
    before = RunFolder("run").branches
    assert 0 < len(before) < 6
    assert leafe(*args)[0] == 0
    after = RunFolder("run").branches
    assert after[: len(before)] == before and len(after) == 6


def test_environments_in_processes_play_the_same(leafe: Run) -> None:
    """With a limit on each of their calls; that setting, retries and timeouts change no branch."""
    args = ["--strategy", "independent", "--max-branches", "1"]
    assert leafe(*explore("here", *args))[0] == 0
    code, _, err = leafe(*explore("there", *args, "--env-timeout", "60", "--tries", "2", "--timeout", "30"))
    assert (code, err) == (0, "")
    played = [forest(RunFolder(name).branches) for name in ("here", "there")]
    assert played[0] == played[1] and len(played[0]) == 2


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["explore", "--model", "nonsense", "--out", "run"], "model 'nonsense'"),
        (["explore", "--model", "python:no_such:thing", "--out", "run"], "model 'no_such:thing' cannot be found"),
        (["explore", "--model", WANDERER, "--out", "run", "--env", "chess"], "unknown environment 'chess'"),
        (["explore", "--model", WANDERER, "--out", "r", "--env", "json:loads"], "no function tasks(split, n, start=…)"),
        (["explore", "--model", WANDERER, "--out", "run", "--env-options", "depth=1"], "has no options ['depth']"),
        (["explore", "--model", WANDERER, "--out", "run", "--max-turns", "0"], "--max-turns: Input should be greater"),
        (
            ["explore", "--model", WANDERER, "--out", "run", "--levels", "nix"],
            "--levels: there is no such file, got 'nix'",
        ),
        ([*explore(), "--start", "2"], "no task is left of levels.txt after the first 2"),
        ([*explore(), "--temperature", "0.5"], "no settings ['temperature']"),
        (["export", "nowhere"], "nowhere is not a run folder"),
        (["report", "nowhere"], "nowhere is not a run folder"),
        (["prune", "nowhere"], "nowhere is no run folder that explore made"),
        (["compare", "a.json", "b.json"], "a.json does not exist"),
        (["train", "--model", "m", "--data", "d", "--out", "o", "--patience", "1"], "patience needs eval_data"),
        (["demo", "--size", "tiny"], "--size: Input should be 'small' or 'full', got 'tiny'"),
    ],
)
def test_errors_are_one_line(leafe: Run, args: list[str], says: str) -> None:
    """What the user can put right ends with code 2 and one clear line."""
    code, _, err = leafe(*args)
    assert (code, err.count("\n")) == (2, 1)
    assert err.startswith("leafe: ") and says in err


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["play"], "there is no command 'play'; leafe --help lists all"),
        (["exlore", "--out", "run"], "there is no command 'exlore'; did you mean 'explore'?; leafe --help lists all"),
        (["--colour"], "unrecognized arguments: --colour; leafe --help lists all flags and commands"),
        (["explore", "--out", "run"], "--model: it is required; leafe explore --help lists all"),
        (["explore", "--colour=red", "--out", "r"], "explore has no flag --colour; leafe explore --help lists all"),
        (
            ["explore", "--modle", "m", "--out", "r"],
            "explore has no flag --modle; did you mean '--model'?; leafe explore --help lists all",
        ),
        (
            ["explore", "--no-stop-on-sucess"],
            "explore has no flag --no-stop-on-sucess; did you mean '--no-stop-on-success'?; leafe explore --help lists "
            "all",
        ),
        (
            ["eval", "--sample", "3"],
            "eval has no flag --sample; did you mean '--samples'?; leafe eval --help lists all",
        ),
        (["explore", "--out"], "--out: expected one argument; leafe explore --help lists all"),
        (["compare"], "the following arguments are required: RESULTS; leafe compare --help lists all"),
        (["run", "nix.yaml"], "nix.yaml: there is no such file"),
        (
            ["eval", "--model", "m", "--out", "o", "-n", "0"],
            "-n: Input should be greater than or equal to 1, got '0'",
        ),
        (["show", "run", "again"], "show does not know what to do with 'again'; leafe show --help lists all"),
        (
            ["export", "run", "--keep", "sucess"],
            "--keep: Input should be 'success', 'improved' or 'every', got 'sucess'; did you mean 'success'?",
        ),
    ],
)
def test_command_lines_that_are_not_understood(leafe: Run, args: list[str], says: str) -> None:
    """A line: what was seen, what was probably meant, and where all flags or commands are listed."""
    assert leafe(*args) == (2, "", f"leafe: {says}\n")


def test_the_version_is_told(leafe: Run) -> None:
    """That of the installed package, on the command line and in Python."""
    import leafe_graph

    assert leafe("--version") == (0, f"leafe {leafe_graph.__version__}\n", "")
    assert leafe_graph.__version__ == metadata.version("leafe-graph")


def test_other_settings_in_the_same_folder_are_refused(leafe: Run) -> None:
    """A resumed run has the settings it began with."""
    leafe(*explore())
    code, _, err = leafe(*explore("run", "--max-turns", "5"))
    assert code == 2 and "max_turns" in err and "choose another folder" in err


def test_errors_of_concurrent_tasks_are_told_one_by_one(leafe: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once each; an error that nobody foresaw keeps its traceback."""
    raised: list[Exception] = [ConfigError("first"), RunFolderError("second"), ConfigError("first")]

    def fail(config: object) -> None:
        raise ExceptionGroup("tasks", raised)

    monkeypatch.setattr("leafe_graph.cli.phases.Export.cli_cmd", fail)
    assert leafe("export", "run") == (2, "", "leafe: first\nleafe: second\n")
    raised.append(ZeroDivisionError())
    with pytest.raises(ExceptionGroup):
        leafe("export", "run")


def test_debugging_shows_the_traceback(leafe: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """LEAFE_DEBUG raises what would have been a line."""
    monkeypatch.setenv("LEAFE_DEBUG", "1")
    with pytest.raises(ConfigError):
        leafe("export", "nowhere")


@pytest.mark.parametrize(
    ("command", "flags"),
    [
        ("explore", ["--env-options", "--total-env-steps", "--reflect-every", "--no-stop-on-success", "--strategy"]),
        ("export", ["RUN", "--keep {success,improved,every}"]),
        ("train", ["--beta", "--objective {leafe,", "--lora-r"]),
        ("eval", ["-n N", "--split", "--adapter", "OUT.json"]),
        ("compare", ["RESULTS", "-k N,N", "--baseline TEXT"]),
        ("report", ["--trees"]),
        ("prune", ["RUN", "--checkpoints"]),
        ("run", ["CONFIG", "--rounds", "--set", "--dry-run"]),
        ("demo", ["--size {small,full}", "--seed"]),
    ],
)
def test_help_tells_every_flag(leafe: Run, command: str, flags: list[str]) -> None:
    """The fields of the command's model are its flags."""
    code, out, _ = leafe(command, "--help")
    told = " ".join(out.split())
    assert code == 0 and all(flag in told for flag in flags)


@pytest.mark.parametrize("command", Leafe.model_fields)
def test_help_is_for_people(leafe: Run, command: str) -> None:
    """An example, groups where there are many flags, and no names of Python's types."""
    code, out, _ = leafe(command, "--help")
    assert code == 0 and f"\nExample: leafe {command}" in out
    assert not re.search(r"\[str|list\[|default factory|default: (None|False)?\)| (int|str|float|Path)\b *$", out, re.M)
    assert out.count("\n  -") < 15 or out.count(":\n  -") > 5
    assert out.splitlines()[0].startswith(f"usage: leafe {command} ") and out.splitlines()[1] == ""


def test_help_shows_what_is_required_before_the_rest(leafe: Run) -> None:
    """Every flag is shown once, in the group of the settings that it is one of."""
    out = leafe("explore", "--help")[1]
    heads = [line for line in out.splitlines() if re.fullmatch(r"[a-z' ]+:", line)]
    assert heads[:3] == ["options:", "required:", "what is played:"] and heads[-1] == "more:"
    assert len(heads) == len(set(heads))
    for flag in flags(model_of(Leafe, "explore")):
        assert len(re.findall(rf"^  (?:--[a-z-]+, )?{flag}\b(?!-)", out, re.M)) == 1, flag
    whole_run = out[out.index("budget of the whole run:") :]
    assert "--total-env-steps" in whole_run and "--max-branches" not in whole_run


def test_nothing_but_the_name_gives_help(leafe: Run) -> None:
    """All commands with a line on each."""
    code, out, _ = leafe()
    assert code == 0 and "Grow an experience tree for every task." in out


def test_help_loads_nothing_heavy() -> None:
    """That is why it answers at once."""
    code = (
        "import sys; from leafe_graph.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "print([m for m in ('torch', 'transformers', 'langgraph', 'langchain_core', 'rich') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    commands = "explore,demonstrate,export,train,eval,compare,show,serve,report,view,trace,prune,compact,envs,run"
    assert f"{{{commands},bench,demo}}" in done.stdout
    assert done.stdout.endswith("[]\n")


def test_train_hands_its_flags_to_the_trainer(leafe: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """``leafe train`` is the trainer with its own configuration."""
    from leafe_graph.finetune import TrainConfig, TrainResult

    seen: list[TrainConfig] = []

    def train(config: TrainConfig) -> TrainResult:
        seen.append(config)
        return TrainResult(
            adapter=config.out, merged=None, backend="peft", steps=3, resumed_from=0, rows={"rehearsal": 2}, loss=0.5,
            eval_loss=None, kept_step=3, tokens=10, seconds=1.0,
        )  # fmt: skip

    monkeypatch.setattr("leafe_graph.finetune.train.train", train)
    code, out, _ = leafe(*["train", "--model", "m", "--data", "a", "--data", "b", "--out", "o", "--beta", "0.5"])
    assert code == 0 and "rehearsal" in out
    assert (seen[0].data, seen[0].beta, seen[0].merge) == ([Path("a"), Path("b")], 0.5, False)


def test_environment_variables_are_not_flags(leafe: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Variables that happen to be called like a command or a field change nothing."""
    for name in ("demo", "EXPLORE", "run", "KEEP"):
        monkeypatch.setenv(name, '{"out": "elsewhere"}')
    assert leafe("export", "nowhere")[2].startswith("leafe: nowhere is not a run folder")


def test_envs_names_what_is_missing_and_the_command(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one piece, however narrow the terminal."""
    from leafe_graph.envs.catalog import EnvInfo

    monkeypatch.setattr(EnvInfo, "missing", lambda world: ["java"] if world.name == "scienceworld" else [])
    assert main(["envs"]) == 0
    out = capsys.readouterr().out
    command = f"apt-get install openjdk-17-jre-headless && {install('scienceworld')}"
    assert out.splitlines()[-1] == f"scienceworld: {command}"
    assert "sokoban" in out and "ready" in out
