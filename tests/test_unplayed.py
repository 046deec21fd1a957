"""Nothing played is no score: runs and results in which all failed, those in which much did, and what is not known."""

import json
import logging
import random
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
from faulty import Faulty
from rich.console import Console
from test_evaluate import result
from trees import branch, run_folder, turn
from viewed import viewed
from worlds import PIT, pit_reply, wandering_reply

from leafe_graph.agent.graph import create_leafe_agent
from leafe_graph.budget import Budget
from leafe_graph.cli.main import main
from leafe_graph.cli.runs import show_rounds
from leafe_graph.dataset.demonstrate import demonstrate
from leafe_graph.dataset.export import export
from leafe_graph.env.subprocess_env import SubprocessEnv
from leafe_graph.errors import ConfigError, EnvError, NothingPlayed
from leafe_graph.evaluation.compare import compare
from leafe_graph.evaluation.model_card import add_result
from leafe_graph.evaluation.plots import plot, table
from leafe_graph.evaluation.results import MANY, Result, TaskResult, result_from_branches, result_from_run
from leafe_graph.exploration.explore import explore
from leafe_graph.report.page import write_report
from leafe_graph.settings import Limits
from leafe_graph.testing import GridWorld, ScriptedModel, grid_tasks
from leafe_graph.tree.run_folder import RunFolder

STEP = [turn("o", "up")]


def raising(messages: Any, seed: Any = None) -> str:
    """Stands for a model with a mistake in it."""
    raise KeyError("no such head")


def broken() -> ScriptedModel:
    """`raising`, as ``--model python:test_unplayed:broken`` finds it."""
    return ScriptedModel(reply=raising)


class Broken(GridWorld):
    """A world with a mistake in it."""

    def step(self, action: str) -> Any:
        """Not this time."""
        raise OSError("the floor is gone")


def text(*shown: Any, width: int = 100) -> str:
    """What the terminal prints, as one line."""
    console = Console(width=width, record=True, quiet=False, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(*shown)
    console.file.close()
    return " ".join(console.export_text().split())


def samples(*ends: str, task: str = "a") -> list[Any]:
    """Independent samples with these ends; those that failed tell why."""
    made = [branch(str(i), STEP, end, task=task) for i, end in enumerate(ends)]  # type: ignore[arg-type]
    return [b | {"error": "KeyError: gone"} if "error" in b["end"] else b for b in made]


# ---- runs


@pytest.mark.parametrize(
    ("model", "world", "cause"),
    [(raising, GridWorld, "KeyError: 'no such head'"), (wandering_reply, Broken, "OSError: the floor is gone")],
)
def test_run_in_which_every_branch_failed_is_told_with_its_cause(
    model: Any, world: Any, cause: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """However few they are; they stay in the folder, and the first traceback is shown once."""
    play = partial(
        explore, ScriptedModel(reply=model), world, grid_tasks(2), out=tmp_path, limits=Limits(max_branches=3)
    )
    with pytest.raises(NothingPlayed, match=f"all 6 branches of {tmp_path} failed: 6 times {cause}") as told:
        play()
    assert told.value.causes == {cause: 6}
    assert len(RunFolder(tmp_path).branches) == 6
    (traced,) = [record for record in caplog.records if record.exc_info]
    assert cause.partition(": ")[2] in str(traced.exc_info[1]) if traced.exc_info else False
    with pytest.raises(NothingPlayed, match="all 6 branches"):
        play()
    with pytest.raises(NothingPlayed, match="all 6 branches"):
        export(tmp_path)


def test_traceback_of_a_world_in_another_process_is_shown(caplog: pytest.LogCaptureFixture) -> None:
    """That of the process, where the mistake is; by an agent too."""
    agent = create_leafe_agent(ScriptedModel(reply=lambda *_: "raise"), env=partial(SubprocessEnv, Faulty))
    assert agent.invoke({"task": "t"})["error"] == "KeyError: 'the floor is gone'"
    assert "faulty.py" in caplog.text and 'raise KeyError("the floor is gone")' in caplog.text


def test_branches_that_all_fail_now_are_warned_of_in_a_run_that_has_others(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Such a run has something to judge; but going on brought nothing."""
    healthy = True

    def reply(messages: Any, seed: Any) -> str:
        if not healthy or messages[0].text.startswith("Bad"):
            raise KeyError("gone")
        return pit_reply(messages, seed)

    tasks: Any = [PIT, {**PIT, "id": "bad", "instruction": "Bad."}]
    play = partial(explore, ScriptedModel(reply=reply), GridWorld, tasks, out=tmp_path, limits=Limits(max_branches=2))
    assert {b["end"] for b in play().branches} == {"failure", "success", "model_error"}
    assert "played now failed" not in caplog.text
    healthy = False
    play()
    assert "all 2 branches that were played now failed: 2 times KeyError: 'gone'" in caplog.text


@pytest.mark.parametrize("command", ["explore", "eval"])
def test_command_in_which_all_failed_ends_with_the_cause(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit code 2, no table, no result; the same where it is tried again."""
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        assert main([command, "--model", "python:test_unplayed:broken", "--tasks", "2", "--out", "run"]) == 2
        out, err = capsys.readouterr()
        assert "branches of run failed" in err and "times KeyError: 'no such head'" in err
        assert "Pass@k" not in out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]


def test_summary_says_what_its_seconds_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Branches run side by side: their sum is not what the clock says, which stands beside it."""
    monkeypatch.chdir(tmp_path)
    shared = ["--model", "python:test_cli:wanderer", "--tasks", "2", "--max-turns", "3"]
    assert main(["explore", *shared, "--max-branches", "1", "--out", "run"]) == 0
    out = capsys.readouterr().out
    assert "seconds, summed over branches" in out and "seconds of this call, by the clock" in out
    assert main(["eval", *shared, "-n", "1", "--out", "judged"]) == 0
    assert "by the clock; " in (out := capsys.readouterr().out) and "summed over samples" in out
    assert "Seconds are summed over branches" in write_report(Path("run")).read_text(encoding="utf-8")


# ---- results


def test_samples_that_all_failed_are_no_result() -> None:
    """Nor are those that were never started; one that was played to its end, or to its budget, is."""
    for branches in (samples("model_error", "env_error"), samples("replay_divergence"), []):
        with pytest.raises(NothingPlayed, match="so there is no Pass@k"):
            result_from_branches(branches, policy="p", n=2, tasks=["a"])
    for end in ("failure", "budget"):
        judged = result_from_branches(samples("model_error", end), policy="p")
        assert (judged.failed, judged.causes, judged.pass_at(1).mean) == (1, {"KeyError: gone": 1}, 0.0)


def test_samples_that_the_tasks_budget_leaves_out_have_not_failed(tmp_path: Path) -> None:
    """The budget is part of what is asked: no warning. What failures have spent, or what a kill left out, is one."""
    judge = partial(result_from_branches, policy="p", n=4, budget={"env_steps": 2})
    assert [judge(samples(*ends)).failed for ends in (["failure"] * 2, ["failure"], ["failure", "env_error"])] == [
        0,
        3,
        3,
    ]
    with pytest.raises(NothingPlayed):
        judge(samples("env_error", "env_error"))
    how: Any = {"limits": Limits(max_branches=4, stop_on_success=False), "budget": Budget(env_steps=2)}
    run = explore(
        ScriptedModel(reply=pit_reply), GridWorld, [PIT], out=tmp_path, strategy="independent", max_turns=2, **how
    )
    judged = result_from_run(run, policy="p", n=4)
    assert (len(run.branches), judged.errors, judged.failed, judged.warning) == (1, 3, 0, None)


@pytest.mark.parametrize("settings", [{"total_budget": 4}, {"total_budget": None}, {}])
def test_settings_of_a_result_may_be_anything(settings: dict[str, Any]) -> None:
    """Also what is called as a setting of ours."""
    assert Result(policy="p", n=1, tasks=[TaskResult(task_id="a", n=1, c=0)], settings=settings).failed == 0


def unplayed(folder: Path, **changes: Any) -> Path:
    """A result of an earlier release, of which every sample had failed."""
    tasks = [{"task_id": f"t{i}", "n": 2, "c": 0, "errors": 2, "turns": 0.0} for i in range(2)]
    file = folder / "old.json"
    file.write_text(json.dumps({"version": 1, "policy": "gone", "n": 2, "tasks": tasks} | changes))
    return file


@pytest.mark.parametrize(
    "use",
    [
        lambda r, p: r.curve(),
        lambda r, p: r.save(p / "new.json"),
        lambda r, p: compare(r, result("b", 2, [1, 1])),
        lambda r, p: compare(result("b", 2, [1, 1]), r),
        lambda r, p: table([result("b", 2, [1, 1]), r]),
        lambda r, p: plot([result("b", 2, [1, 1]), r], p / "a.png"),
        lambda r, p: add_result(p, r, [1], env="e", split="test"),
    ],
)
def test_saved_result_of_failed_samples_is_refused_by_every_use(
    use: Callable[[Result, Path], Any], tmp_path: Path
) -> None:
    """It can be read, and says nothing."""
    pytest.importorskip("matplotlib")
    pytest.importorskip("huggingface_hub")
    (tmp_path / "README.md").write_text("---\nlicense: mit\n---\n# Adapter\n")
    read = Result.load(unplayed(tmp_path))
    with pytest.raises(NothingPlayed, match="gone: all 4 samples failed, so there is no Pass@k"):
        use(read, tmp_path)
    assert "Pass@" not in (tmp_path / "README.md").read_text()


def test_command_refuses_to_compare_with_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In a line, with the reason."""
    good = result("b", 2, [1, 1]).save(tmp_path / "good.json")
    assert main(["compare", str(unplayed(tmp_path)), str(good)]) == 2
    assert "gone: all 4 samples failed, so there is no Pass@k" in capsys.readouterr().err


def test_report_says_that_nothing_was_played(tmp_path: Path) -> None:
    """Instead of a curve at 0; the others are shown."""
    run_folder(tmp_path, samples("model_error", "failure"))
    (tmp_path / "eval").mkdir()
    unplayed(tmp_path / "eval")
    (tmp_path / "eval" / "twice.json").write_text('{"policy": "p", "n": 0, "tasks": [], "pass_at_k": []}')
    (tmp_path / "eval" / "comparison.json").write_text('{"first": "p"}')
    result("well", 2, [1, 0]).save(tmp_path / "eval" / "well.json")
    told, _ = viewed(write_report(tmp_path))
    notes = "\n".join(told["notes"])
    assert "gone: all 4 samples failed" in notes and [curve["name"] for curve in told["curves"]] == ["well"]
    assert "twice.json is not a saved evaluation: n=0" in notes and "comparison.json" not in notes
    assert told["errors"] == ["once KeyError: gone"]


def test_older_result_under_a_budget_is_still_a_result(tmp_path: Path) -> None:
    """Releases that did not tell failed samples apart counted what a budget ended among them."""
    spent = [{"task_id": "t", "n": 2, "c": 0, "errors": 2, "turns": 3.5}]
    for limited in ({"budget": {"env_steps": 9}}, {"settings": {"total_budget": {"model_calls": 9}}}):
        assert Result.load(unplayed(tmp_path, tasks=spent, **limited)).pass_at(1).mean == 0
    with pytest.raises(NothingPlayed):
        Result.load(unplayed(tmp_path, tasks=spent, budget={"env_steps": None})).pass_at(1)


def test_share_of_failed_samples_is_told_wherever_figures_are(tmp_path: Path) -> None:
    """Above 5%: in tables, comparisons, the file, the card and the rounds; at most that many are not worth a word."""
    pytest.importorskip("huggingface_hub")
    tasks = [samples(*["failure"] * (20 - bad), *["model_error"] * bad, task=f"t{bad}") for bad in (0, 2)]
    few = result_from_branches([*tasks[0], *tasks[1]], policy="few")
    many = result_from_branches([*tasks[1]], policy="many")
    assert (few.failed / few.samples, few.warning) == (MANY, None)
    says = "many: 2 of 20 samples (10%) were failed by the model or the environment"
    assert says in str(many.warning) and "up to 10 points too low: 2 times KeyError: gone" in str(many.warning)
    assert says in text(table([many])) and says not in text(table([few]))
    other = result("other", 20, [3]).model_copy(update={"tasks": [TaskResult(task_id="t2", n=20, c=3)]})
    for compared in (compare(other, many), compare(many, other)):
        assert compared.warnings == [many.warning] and says in text(compared.table())
    assert json.loads(many.save(tmp_path / "many.json").read_text())["warning"] == many.warning
    (tmp_path / "README.md").write_text("---\nlicense: mit\n---\n# Adapter\n")
    add_result(tmp_path, many, [1], env="e", split="test")
    assert says in (tmp_path / "README.md").read_text()
    (tmp_path / "eval").mkdir()
    many.save(tmp_path / "eval" / "many.json")
    assert says in "".join(viewed(write_report(run_folder(tmp_path, tasks[1])))[0]["notes"])


def test_tables_say_names_and_causes_as_they_are_on_any_console() -> None:
    """What a model or a world raised may look like rich's markup, and a notebook's console takes markup."""
    branches = [b | {"error": "ValueError: no [/INST]"} for b in samples("failure", "model_error")]
    judged = result_from_branches(branches, policy="[red]a[/b]")
    for shown in (table([judged]), compare(judged, judged).table()):
        assert "[red]a[/b]" in (said := text(shown)) and "once ValueError: no [/INST]" in said


def test_rounds_tell_it_too(capsys: pytest.CaptureFixture[str]) -> None:
    """Below their table; entries of earlier releases have no such word."""
    curve = [{"k": 1, "mean": 0.0, "low": 0.0, "high": 0.1}]
    old = {"round": 0, "pass_at_k": curve, "gain": None, "seconds": {}, "spent": {}}
    new = old | {"warning": "much of it failed", "pass_at_k": [curve[0] | {"alike": True}]}
    show_rounds({"rounds": [old, new], "stopped": "Over", "best": 0, "adapter": None}, "m")
    out = capsys.readouterr().out
    assert "much of it failed" in out and "0.0 [0.0, 10.0]*" in out and "all tasks alike" in out


# ---- what is not known


def test_tasks_that_are_all_alike_leave_an_interval() -> None:
    """0 of 20 tasks is Wilson's [0, 16.1]; all of them its mirror; a single task says next to nothing."""
    none, all_, one = result("p", 4, [0] * 20), result("p", 4, [4] * 20), result("p", 4, [2])
    assert str(none.pass_at(1)) == "0.0 [0.0, 16.1]*" and str(all_.pass_at(1)) == "100.0 [83.9, 100.0]*"
    assert str(one.pass_at(1)) == "50.0 [10.3, 89.7]*"
    assert not result("p", 4, [0, 1]).pass_at(1).alike
    shown = text(table([none]))
    assert "0.0 [0.0, 16.1]*" in shown and "Wilson" in shown and "Wilson" not in text(table([result("p", 4, [0, 1])]))
    (difference,) = compare(none, all_, [4]).differences
    assert (difference.difference, difference.high, difference.alike) == (1.0, 1.0, True)
    assert difference.low == pytest.approx(0.678, abs=1e-3)
    assert "+100.0 [+67.8, +100.0]*" in text(compare(none, all_, [4]).table()) and "Wilson" in text(
        compare(none, all_, [4]).table()
    )


def test_card_explains_its_interval(tmp_path: Path) -> None:
    """With the star's meaning below the table."""
    pytest.importorskip("huggingface_hub")
    (tmp_path / "README.md").write_text("---\nlicense: mit\n---\n# Adapter\n")
    add_result(tmp_path, result("p", 2, [0] * 20), [1], env="e", split="test")
    assert "| Pass@1 | 0.0 [0.0, 16.1]* |" in (card := (tmp_path / "README.md").read_text()) and "\\* all tasks" in card


def test_intervals_hold_the_truth_where_most_evaluations_solve_nothing() -> None:
    """200 evaluations of 20 tasks at a true 2%: two of three see no success, and would swear that there is none."""
    rng = random.Random(5)
    estimates = [result("p", 1, [rng.random() < 0.02 for _ in range(20)]).pass_at(1, resamples=200) for _ in range(200)]
    assert sum(estimate.mean == 0 for estimate in estimates) > 100
    assert fmean(estimate.low <= 0.02 <= estimate.high for estimate in estimates) > 0.95


TASK = {"task_id": "a", "n": 4, "c": 1}
WRONG: list[tuple[dict[str, Any], str]] = [
    ({"tasks": [TASK, TASK | {"c": 4}]}, "more than one task is called a"),
    ({"n": 0}, "n=0; expected 1 or more"),
    ({"settings": [1]}, "settings"),
    ({"tasks": [TASK | {"n": 0, "c": 0}]}, "tasks.0.n=0; expected 1 or more"),
    ({"tasks": [TASK | {"c": -1}]}, "tasks.0.c=-1; expected 0 or more"),
    ({"tasks": [TASK | {"c": 5}]}, "task 'a' has 4 samples, 5 solved"),
    ({"tasks": [TASK | {"c": 2, "errors": 3}]}, "2 solved, 3 errors"),
    ({"tasks": [TASK | {"errors": 1, "failed": 2}]}, "1 errors, 2 of them failed"),
    ({"tasks": [TASK | {"turns": float("nan")}]}, "tasks.0.turns"),
    ({"tasks": [TASK | {"seconds": float("inf")}]}, "tasks.0.seconds"),
    ({"tasks": [TASK | {"c": float("nan")}]}, "tasks.0.c"),
]


@pytest.mark.parametrize(("changed", "says"), WRONG)
def test_result_that_cannot_be_is_refused(changed: dict[str, Any], says: str, tmp_path: Path) -> None:
    """In one line with the place, from a file and from Python."""
    data = {"policy": "p", "n": 4, "tasks": [TASK]} | changed
    with pytest.raises(ConfigError, match=says):
        Result(**data)
    file = tmp_path / "result.json"
    file.write_text(json.dumps(data))
    with pytest.raises(ConfigError, match=f"is not a saved evaluation: .*{says}") as told:
        Result.load(file)
    assert "\n" not in str(told.value)


def test_nothing_asked_is_no_error() -> None:
    """No k gives no figures; no resamples are refused."""
    judged = result("p", 2, [0, 1])
    assert judged.curve([]) == [] and compare(judged, judged, []).differences == []
    with pytest.raises(ConfigError, match="resamples=0"):
        judged.curve(resamples=0)


def test_tables_show_whole_names() -> None:
    """Many policies are called alike but for their ends."""
    names = [f"smollm2-135m-sokoban-round-{n}" for n in (1, 2)]
    first, second = (result(name, 2, [0, 1]) for name in names)
    for shown in (table([first, second]), compare(first, second).table()):
        joined = text(shown, width=60).replace(" ", "").replace("│", "").replace("┃", "")
        assert "…" not in joined


# ---- demonstrations


def test_world_that_raises_costs_its_demonstration_alone(caplog: pytest.LogCaptureFixture) -> None:
    """The others are written; where none is left, the error says what was raised."""

    class Sometimes(Faulty):
        def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
            if seed == 1:
                raise OSError("no such floor")
            return super().reset(seed=seed, options=options)

    tasks: Any = [{"id": f"t{seed}", "instruction": "Win.", "seed": seed} for seed in range(3)]
    rows = demonstrate(Sometimes, tasks, lambda task: ["up", "win"], mistakes=0)
    assert {row["task_id"] for row in rows} == {"t0", "t2"}
    assert "t1 is left out: OSError('no such floor')" in caplog.text and "Traceback" in caplog.text
    with pytest.raises(EnvError, match=r"nothing to demonstrate: 3 times KeyError: 'the floor is gone'"):
        demonstrate(Faulty, tasks, lambda task: ["raise"])


def test_mistake_that_the_world_cannot_bear_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    """What was won stays a demonstration."""

    class Touchy(Faulty):
        def step(self, action: str) -> Any:
            if action not in ("up", "win"):
                raise OSError("not that")
            return super().step(action)

    caplog.set_level(logging.WARNING)
    task: Any = {"id": "t", "instruction": "Win.", "seed": 0}
    assert len(demonstrate(Touchy, [task], lambda task: ["up", "win"], mistakes=3, seed=1)) >= 2
    assert "an attempt at t is left out" in caplog.text
