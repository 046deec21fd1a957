"""ALFWorld: the unmodified engine's answers, exact rewinding anywhere, several at a time, official games."""

import gc
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import needs
import pytest

from leafe_graph.env import EnvPool, Place
from leafe_graph.envs import alfworld
from leafe_graph.envs.alfworld import AlfworldEnv, expert, tasks
from leafe_graph.envs.alfworld import fast_downward as alfworld_downward
from leafe_graph.envs.alfworld import games as alfworld_games
from leafe_graph.errors import ConfigError, EnvError
from leafe_graph.testing import check_env
from leafe_graph.types import Task

pytestmark = needs.world("alfworld")

KITCHEN = {
    "CounterTop": ("Apple", "Knife", "Mug"),
    "Cabinet": ("Plate",),
    "Fridge": ("Egg",),
    "Microwave": (),
    "SinkBasin": (),
}
PLAYED_IN_KITCHEN = """
look; help; inventory; go to countertop 1; examine countertop 1; take knife 1 from countertop 1;
slice apple 1 with knife 1; examine knife 1; inventory; go to sinkbasin 1;
clean knife 1 with sinkbasin 1; examine knife 1; move knife 1 to sinkbasin 1; take the knife; go to fridge 1;
open fridge 1; take egg 1 from fridge 1; cool egg 1 with fridge 1; examine egg 1; close fridge 1; look;
go to microwave 1; heat egg 1 with microwave 1; examine egg 1; open microwave 1; move egg 1 to microwave 1;
close microwave 1; go to countertop 1; take apple 1 from countertop 1; go to microwave 1; heat apple 1 with microwave 1;
go to countertop 1; move apple 1 to countertop 1
"""
BEDROOM = {"Bed": ("Book",), "Desk": ("DeskLamp", "Mug"), "Drawer": ()}
PLAYED_IN_BEDROOM = """
go to desk 1; use desklamp 1; use desklamp 1; look; go to bed 1; take book 1 from bed 1; examine book 1; go to drawer 1;
open drawer 1; examine drawer 1; take the knife; inventory; go to desk 1
"""


@pytest.fixture(autouse=True, scope="module")
def _folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache of this module's own, and no official games."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("alfworld")
        patch.setenv("LEAFE_CACHE", str(folder / "cache"))
        patch.setenv("ALFWORLD_DATA", str(folder / "official"))
        yield folder


def write(folder: Path, game: dict[str, Any], **trajectory: Any) -> Path:
    """A game's files in ALFWorld's form."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "traj_data.json").write_text(json.dumps(trajectory))
    (folder / "game.tw-pddl").write_text(json.dumps(game | {"solvable": True}))
    return folder / "game.tw-pddl"


def places_of(kinds: Iterable[str]) -> dict[str, alfworld_games.Place]:
    """One receptacle of each kind."""
    ids = {kind: f"{kind}_bar_0" for kind in kinds} | {"SinkBasin": "Sink_bar_0_bar_SinkBasin"}  # as THOR has it
    return {kind: alfworld_games.Place(ids[kind], kind, f"loc_bar_{i}") for i, kind in enumerate(kinds)}


def small_game(folder: Path, task_type: str, seed: int = 0) -> Path:
    """A game in a small room, where it is translated quickly."""
    if task_type == "look_at_obj_in_light":
        kinds, things = ["Bed", "Desk", "Drawer", "SideTable"], ["Book", "DeskLamp", "Mug", "Pen"]
    else:
        kinds, things = list(KITCHEN), ["Apple", "Egg", "Knife", "Mug"]
    room = alfworld_games.Room(0, list(places_of(kinds).values()), things)
    game, trajectory = alfworld_games.draft(room, task_type, random.Random(seed))
    return write(folder, game, **trajectory)


def furnished_game(folder: Path, task_type: str, inside: dict[str, tuple[str, ...]], **goal: str) -> Path:
    """A game of which one knows where everything is."""
    from alfworld.gen.goal_library import gdict

    places = places_of(inside)
    things = [
        alfworld_games.Thing(f"{thing}_bar_9", thing, places[kind]) for kind, held in inside.items() for thing in held
    ]
    problem = alfworld_games.problem(list(places.values()), things, gdict[task_type]["pddl"].format(**goal))
    game = json.loads(small_game(folder, task_type).read_text())
    return write(folder, game | {"pddl_problem": problem})


@pytest.mark.parametrize("where", ["kitchen", "bedroom"])
def test_every_answer_is_the_unmodified_engines(tmp_path: Path, where: str) -> None:
    """The same commands through the package as it is: every observation, reward, end and admissible list is equal."""
    import textworld
    from alfworld.agents.environment.alfred_tw_env import AlfredDemangler, AlfredInfos
    from textworld.envs import PddlEnv

    if where == "kitchen":
        words = {"obj": "Apple", "recep": "CounterTop"}
        file = furnished_game(tmp_path, "pick_heat_then_place_in_recep", KITCHEN, **words)
        script = PLAYED_IN_KITCHEN
    else:
        file = furnished_game(tmp_path, "look_at_obj_in_light", BEDROOM, obj="Book", toggle="DeskLamp")
        script = PLAYED_IN_BEDROOM
    wanted = textworld.EnvInfos(won=True, admissible_commands=True, extras=["gamefile"])
    original = AlfredInfos(AlfredDemangler(PddlEnv(wanted), shuffle=False))
    original.load(json.loads(file.read_text()))
    state = original.reset()
    ours = AlfworldEnv()
    observation, info = ours.reset(options={"game": str(file)})
    assert f"-= Welcome to TextWorld, ALFRED! =-\n\n{observation}" == state.feedback
    assert info["admissible"] == state["admissible_commands"]
    played = 0
    for command in script.replace("\n", " ").strip().split("; "):
        possible = command in info["admissible"]
        state, score, done = original.step(command)
        observation, reward, terminated, _, info = ours.step(command)
        assert (observation, reward, terminated) == (state.feedback, float(score), done), command
        assert info["admissible"] == state["admissible_commands"], command
        assert info["valid"] == possible, command
        played += possible
    assert played == script.count(";") + 1 - script.count("the knife") and info["success"] is True


def test_the_guides_example_is_what_the_engine_says(tmp_path: Path) -> None:
    """The worked example, played: word for word, and it wins at its end."""
    inside = {"Cabinet": (), "CounterTop": ("Apple", "Knife"), "Fridge": (), "Microwave": ()}
    file = furnished_game(tmp_path, "pick_heat_then_place_in_recep", inside, obj="Apple", recep="Fridge")
    env = AlfworldEnv()
    env.reset(options={"game": str(file)})
    _, *example = alfworld.GUIDE.example.split("\n> ")
    for i, turn in enumerate(example):
        command, _, told = turn.partition("\n")
        observation, reward, terminated, _, info = env.step(command)
        assert (observation, terminated, reward) == (told, i == len(example) - 1, float(i == len(example) - 1))
    assert info["success"] is True


@pytest.mark.parametrize("task_type", alfworld.TASK_TYPES)
def test_it_keeps_the_contract_on_every_task_type(tmp_path: Path, task_type: str) -> None:
    """Drawn commands, with a horizon: the same story in a new instance, snapshots restored in both."""
    file = small_game(tmp_path, task_type)
    task = Task(id=task_type, instruction="", options={"game": str(file)})
    check_env(lambda: AlfworldEnv(max_steps=12), tasks=[task], steps=12)


def test_a_state_is_the_same_however_it_was_come_to(tmp_path: Path) -> None:
    """Its anchor tells; a closed fridge is no open one, and what was looked at leaves no trace."""
    file = furnished_game(tmp_path, "pick_and_place_simple", KITCHEN, obj="Mug", recep="Cabinet")
    env = AlfworldEnv()
    env.reset(options={"game": str(file)})

    def after(*actions: str) -> str:
        for action in actions:
            assert env.step(action)[4]["valid"] is True
        return env.anchor()

    closed = after("go to fridge 1")
    opened = after("open fridge 1")
    taken = after("take egg 1 from fridge 1")
    assert len({closed, opened, taken}) == 3
    assert after("move egg 1 to fridge 1") == opened
    assert after("close fridge 1", "look", "inventory") == closed
    assert after("go to countertop 1") != closed and after("go to fridge 1") == closed


def test_what_cannot_be_done_is_answered_and_an_episode_ends_once(tmp_path: Path) -> None:
    """Nothing happens, the horizon truncates, and after the end nothing more is played."""
    file = small_game(tmp_path, "pick_and_place_simple")
    env = AlfworldEnv(max_steps=2)
    with pytest.raises(EnvError, match="reset first"):
        env.step("look")
    env.reset(options={"game": str(file)})
    assert env.step("fly to the moon")[:4] == ("Nothing happens.", 0.0, False, False)
    observation, reward, terminated, truncated, info = env.step("  inventory\n")
    assert (observation, reward, terminated, truncated) == ("You are not carrying anything.", 0.0, False, True)
    assert info["valid"] is True and "success" not in info
    assert env.step("look")[0] == "The episode is over."
    assert env.step("look")[3] is True


def test_a_snapshot_goes_on_in_another_process(tmp_path: Path) -> None:
    """Taken in the middle, restored under another hash seed without the cache: the same answers to the end."""
    (task,) = tasks("train", 1, task_types=["pick_and_place_simple"])
    env = AlfworldEnv()
    env.reset(options=task["options"])
    commands = expert(task)
    for command in [*commands[:2], "dance", "look"]:
        env.step(command)
    state = env.snapshot()
    assert len(state) < 300
    script = f"""if True:
        import json
        from leafe_graph.envs.alfworld import AlfworldEnv, expert
        from leafe_graph.envs.alfworld.fast_downward import cache_dir
        task = {task!r}
        env = AlfworldEnv()
        env.reset(options=task["options"])
        env.restore({state!r})
        print(json.dumps([env.step(command) for command in {commands[2:]!r}]))
        """
    variables = os.environ | {
        "LEAFE_CACHE": str(tmp_path),
        "PYTHONHASHSEED": "7",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    done = subprocess.run([sys.executable, "-c", script], env=variables, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    story = [list(env.step(command)) for command in commands[2:]]
    assert json.loads(done.stdout) == story and story[-1][2] is True
    made_here = alfworld_games.game_file(**task["options"])
    made_there = next(tmp_path.glob("alfworld/*/train/*/game.tw-pddl"))
    here, there = (json.loads(file.read_text()) for file in (made_here, made_there))
    assert here["pddl_problem"] == there["pddl_problem"] and here["grammar"] == there["grammar"]


def test_a_pool_rewinds_without_replaying(tmp_path: Path) -> None:
    """A place with a snapshot is leased by restoring: in an instance that stood elsewhere, and no turn is replayed."""
    file = small_game(tmp_path, "pick_and_place_simple")
    task = Task(id="small", instruction="", options={"game": str(file)})
    with EnvPool(AlfworldEnv, size=1) as pool:
        env, _, _ = pool.reset(task)
        where = env.step("go to cabinet 1")[0]
        place = Place(task=task, turns=[], observation=where, env_state=env.snapshot())
        expected = env.step("examine cabinet 1")
        env.step("go to fridge 1")
        pool.put_back(env)
        replayed: list[int] = []
        again = pool.lease(place, before_replay=replayed.append)
        assert again is env and replayed == []
        assert again.step("examine cabinet 1") == expected
        pool.put_back(again)


@pytest.mark.parametrize("broken", [b"", b"\xff", b"[]", b"{}", b'{"alfworld": 2}', "number", "applied"])
def test_a_snapshot_of_something_else_is_refused(tmp_path: Path, broken: bytes | str) -> None:
    """Neither other bytes, nor another game's, nor operators that cannot be applied."""
    env = AlfworldEnv()
    env.reset(options={"game": str(small_game(tmp_path / "other", "pick_and_place_simple", seed=1))})
    other = json.loads(env.snapshot())
    env.reset(options={"game": str(small_game(tmp_path / "one", "pick_and_place_simple"))})
    with pytest.raises(EnvError, match="another game"):
        env.restore(json.dumps(other).encode())
    state = json.loads(env.snapshot())
    if isinstance(broken, str):
        broken = json.dumps(state | {"applied": [10**6] if broken == "number" else "go"}).encode()
    with pytest.raises(EnvError, match="not a snapshot"):
        env.restore(broken)


def test_many_play_at_a_time_from_many_threads(tmp_path: Path) -> None:
    """Eight threads, each with an instance and a game: the story that each game has when it is played alone."""
    files = [small_game(tmp_path / str(seed), "pick_cool_then_place_in_recep", seed) for seed in range(4)]

    def story(number: int) -> list[Any]:
        env = AlfworldEnv()
        observation, info = env.reset(options={"game": str(files[number % 4])})
        told: list[Any] = [observation]
        draw = random.Random(number)
        for step in range(40):
            *answer, info = env.step(draw.choice(info["admissible"]))
            told.append(answer)
            if step % 10 == 0:
                env.restore(env.snapshot())
        env.close()
        return told

    together: dict[int, Any] = {}
    threads = [threading.Thread(target=lambda n=n: together.__setitem__(n, story(n))) for n in range(8)]  # type: ignore[misc]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=300)
    assert together == {number: story(number) for number in range(8)}


def test_copies_of_the_library_are_used_again_and_leave_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Closed or forgotten, an instance gives its copy back; a new copy's file is gone once it is loaded."""
    file = small_game(tmp_path / "game", "pick_and_place_simple")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    idle = alfworld_downward._IDLE
    envs = [AlfworldEnv() for _ in range(len(idle) + 2)]
    for env in envs:
        env.reset(options={"game": str(file)})
    assert idle == [] and list(scratch.iterdir()) == []
    copies = len(envs)
    envs.pop().close()
    env = envs.pop()
    del env
    gc.collect()
    assert len(idle) == 2
    for env in envs:
        env.close()
        env.close()
    assert len(idle) == copies
    env = AlfworldEnv()
    env.reset(options={"game": str(file)})
    assert len(idle) == copies - 1 and env.step("look")[4]["valid"]


def test_official_files_are_read_anew_where_they_change_and_named_where_they_are_broken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one process, which remembers what it has read."""
    monkeypatch.setenv("ALFWORLD_DATA", str(tmp_path))
    game = tmp_path / "json_2.1.1" / "train" / "some" / "trial_1" / "game.tw-pddl"
    game.parent.mkdir(parents=True)
    for content, found in (('{"solvable": false}', 0), ('{"solvable": true}', 1), ('{"solvable": null}', 0)):
        game.write_text(content, encoding="utf-8")
        game.with_name("traj_data.json").write_text(json.dumps({"task_type": alfworld.TASK_TYPES[0]}), encoding="utf-8")
        assert len(list(alfworld.official_games("train"))) == found
    for content in ("{", "[" * 100_000, "1" * 5000):
        game.write_text('{"solvable": true}', encoding="utf-8")
        game.with_name("traj_data.json").write_text(content, encoding="utf-8")
        with pytest.raises(ConfigError, match=r"traj_data\.json cannot be read"):
            tasks("train", 1)


def test_official_games_are_those_that_the_package_counts(_folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the official layout: the same games as AlfredTWEnv takes, in every split; the planner wins one."""
    from alfworld.agents.environment.alfred_tw_env import AlfredTWEnv

    data = _folders / "official"
    for split in ("train", "valid_seen", "valid_unseen"):
        for number, task_type in enumerate(alfworld.TASK_TYPES[:3]):
            small_game(data / "json_2.1.1" / split / f"{task_type}-Mug-None-Desk-{number}" / "trial_T1", task_type)
    train = data / "json_2.1.1" / "train"
    small_game(train / "pick_and_place_with_movable_recep-Mug-Pan-Desk-1" / "trial_T1", "pick_and_place_simple")
    small_game(train / "pick_and_place_simple-AppleSliced-None-Fridge-1" / "trial_T1", "pick_and_place_simple")
    for name, change in (("unsolvable", {"solvable": False}), ("unknown", {"solvable": None})):
        file = small_game(train / f"pick_and_place_simple-Mug-None-{name}-1" / "trial_T1", "pick_and_place_simple")
        file.write_text(json.dumps(json.loads(file.read_text()) | change))
    other = small_game(train / "pick_three-Mug-None-Desk-1" / "trial_T1", "pick_and_place_simple")
    other.with_name("traj_data.json").write_text(json.dumps({"task_type": "pick_three"}))
    small_game(train / "pick_and_place_simple-Mug-None-Desk-9" / "trial_T1", "pick_and_place_simple").unlink()
    try:
        for split, name, folder in (
            ("train", "train", "train"),
            ("validation", "eval_in_distribution", "valid_seen"),
            ("test", "eval_out_of_distribution", "valid_unseen"),
        ):
            paths = dict.fromkeys(("data_path", "eval_id_data_path", "eval_ood_data_path"), str(train.parent / folder))
            config = {
                "dataset": paths | {"num_train_games": -1, "num_eval_games": -1},
                "env": {"goal_desc_human_anns_prob": 0, "task_types": [1, 2, 3, 4, 5, 6]},
            }
            theirs = AlfredTWEnv(config, train_eval=name).game_files
            ours = tasks(split, 3)  # type: ignore[arg-type]
            assert {str(train.parent / task["options"]["game"]) for task in ours} == set(theirs)  # type: ignore[index]
            with pytest.raises(ConfigError, match=r"3 such games.*alfworld-download"):
                tasks(split, 4)  # type: ignore[arg-type]
        assert tasks("train", 2, start=1) == tasks("train", 3)[1:]
        (task,) = tasks("test", 1, task_types=["look_at_obj_in_light"])
        env = AlfworldEnv()
        env.reset(options=task["options"])
        for command in expert(task):
            *_, info = env.step(command)
        assert info["success"] is True and task["id"].startswith("alfworld-valid_unseen/look_at_obj_in_light")
        assert tasks("train", 1, source="generated")[0]["id"].startswith("alfworld-v1-train-")
    finally:
        (data / "json_2.1.1").rename(_folders / "away")  # for the other tests there are none


@pytest.mark.parametrize(
    "options",
    [
        {"split": "train"},
        {"split": "dev", "task_type": "pick_and_place_simple", "number": 0},
        {"split": "train", "task_type": "dance", "number": 0},
        {"split": "train", "task_type": "pick_and_place_simple", "number": -1},
        {"split": "train", "task_type": "pick_and_place_simple", "number": "0"},
        {"game": 3},
        {"level": "x"},
    ],
)
def test_options_that_name_no_game_are_refused(options: dict[str, Any]) -> None:
    """The error says what was seen and what is expected."""
    with pytest.raises(ConfigError, match=r"name no game: expected 'game'"):
        AlfworldEnv().reset(options=options)


def test_other_wrong_wishes_are_refused(tmp_path: Path) -> None:
    """Files that are no games, and arguments that cannot be."""
    (tmp_path / "x").write_text("{}")
    for name in ("x", "none"):
        with pytest.raises(EnvError, match=r"is no game of ALFWorld"):
            AlfworldEnv().reset(options={"game": str(tmp_path / name)})
    with pytest.raises(ConfigError, match="max_steps=0"):
        AlfworldEnv(max_steps=0)
    with pytest.raises(ConfigError, match="dance"):
        tasks("train", 1, task_types=["dance"])
    with pytest.raises(ConfigError, match="expected some of"):
        tasks("train", 1, task_types=[])
    with pytest.raises(ConfigError, match="start=-1"):
        tasks("train", 1, start=-1)
    with pytest.raises(ConfigError, match="unknown source"):
        tasks("train", 1, source="mine")  # type: ignore[arg-type]
