"""Gymnasium both ways: its checker passes ours, ours passes its, and the way there and back is the same."""

import os
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import needs
import pytest

from leafe_graph import create_leafe_agent
from leafe_graph.dataset.demonstrate import demonstrate
from leafe_graph.env import TextEnv
from leafe_graph.env.gymnasium_adapter import charset, from_gymnasium, tasks, to_gymnasium
from leafe_graph.envs import sokoban, webshop
from leafe_graph.envs.catalog import environment
from leafe_graph.errors import ConfigError, EnvError
from leafe_graph.testing import GridWorld, ScriptedModel, check_env, grid_tasks
from leafe_graph.types import Task

if not os.environ.get("LEAFE_NEEDS_WORLDS"):
    pytest.importorskip("gymnasium", reason='pip install ".[gymnasium]"')
gym = import_module("gymnasium")
np = import_module("numpy")

MOVES = ["up", "down", "left", "right"]
LATIN = "abcdefghijklmnopqrstuvwxyz0123456789 .,;:?!-"


class Guess(gym.Env):  # type: ignore[misc, name-defined]
    """Guess a digit, told by words; ``names`` makes the action space Discrete, from 1 on."""

    metadata = {"render_modes": []}  # noqa: RUF012
    observation_space = gym.spaces.Text(40, charset=LATIN)

    def __init__(self, *, discrete: bool = False) -> None:
        text = gym.spaces.Text(8, charset=LATIN)
        self.action_space = gym.spaces.Discrete(10, start=1) if discrete else text
        self._discrete = discrete

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self._secret = int(self.np_random.integers(10))
        self._left = 6
        return "guess a digit", {}

    def step(self, action: Any) -> Any:
        assert self.action_space.contains(action)
        self._left -= 1
        digit = int(action) - 1 if self._discrete else int(action) if str(action).isdecimal() else None
        if digit == self._secret:
            return "right!", gym.spaces.Box(1, 1, ()).sample(), True, False, {}
        hint = "what?" if digit is None else "higher" if digit < self._secret else "lower"
        return f"{hint}, {self._left} left", 0, False, self._left == 0, {"valid": digit is not None}


DIGITS = [str(digit) for digit in range(10)]


@pytest.fixture
def registered() -> Iterator[Callable[..., str]]:
    """Registers what makes an environment, until the test is over."""
    ids: list[str] = []

    def register(make: Callable[..., Any], **settings: Any) -> str:
        ids.append(f"LeafeTest{len(ids)}-v0")
        gym.register(ids[-1], entry_point=make, **settings)
        return ids[-1]

    yield register
    for name in ids:
        del gym.registry[name]


def shop(n: int) -> list[Task]:
    """Goals of a small catalogue."""
    return webshop.tasks("test", n, products=120)


WORLDS = [
    pytest.param(sokoban.SokobanEnv, lambda: sokoban.tasks("test", 3), id="sokoban"),
    pytest.param(lambda: sokoban.SokobanEnv(end_on_deadlock=True), lambda: None, id="sokoban-by-seed"),
    pytest.param(GridWorld, lambda: grid_tasks(3), id="grid"),
    pytest.param(webshop.WebShopEnv, lambda: shop(3), id="webshop", marks=needs.world("webshop")),
]


@pytest.mark.parametrize("actions", [None, MOVES])
@pytest.mark.parametrize(("make", "some_tasks"), WORLDS)
def test_gymnasiums_checker_passes_our_environments(
    make: Callable[[], TextEnv],
    some_tasks: Callable[[], list[Task] | None],
    actions: list[str] | None,
    registered: Callable[..., str],
) -> None:
    """Without a warning (those are errors here), with spaces of text and with numbered actions."""
    from gymnasium.utils.env_checker import check_env as gymnasium_check

    name = registered(lambda: to_gymnasium(make(), some_tasks(), actions=actions))
    made = gym.make(name)
    gymnasium_check(made.unwrapped)
    made.close()


@pytest.mark.parametrize("discrete", [False, True])
def test_their_environment_keeps_our_contract(discrete: bool) -> None:
    """Text or named actions; seeds go through; the last reward makes a success."""
    names = DIGITS if discrete else None
    check_env(lambda: from_gymnasium(Guess(discrete=discrete), actions=names), actions=[*"5", "no", *"123456789"])
    env = from_gymnasium(Guess(discrete=discrete), actions=names)
    observation, info = env.reset(seed=3)
    assert observation == "guess a digit" and info == ({"admissible": DIGITS} if discrete else {})
    secret = env.env._secret
    wrong, hint = ("9", "lower") if secret < 9 else ("0", "higher")
    first = env.step(wrong)
    assert first[:4] == (f"{hint}, 5 left", 0.0, False, False) and first[4]["valid"] is True
    end = env.step(str(secret))
    assert end[:4] == ("right!", 1.0, True, False) and end[4]["success"] is True
    after = env.step(wrong)
    assert after[:4] == ("right!", 0.0, True, False) and after[4]["valid"] is False
    env.reset(seed=3)
    assert [env.step(wrong)[3] for _ in range(6)] == [False] * 5 + [True]


def test_an_action_that_the_space_has_not_is_answered_without_asking() -> None:
    """Too long, other characters, no name: nothing changes, nothing is counted."""
    for env in (from_gymnasium(Guess()), from_gymnasium(Guess(discrete=True), actions=DIGITS)):
        env.reset(seed=0)
        for action in ("", "123456789", "ä", "ten!€"):
            assert env.step(action)[:4] == ("guess a digit", 0.0, False, False)
            assert env.step(action)[4]["valid"] is False
        assert env.step("0")[0].endswith("5 left") or env.step("0")[2]


@pytest.mark.parametrize(
    ("told", "threshold", "success"),
    [
        ({}, None, True),
        ({}, 3.0, False),
        ({}, 2.0, True),
        ({"success": False}, None, False),
        ({"is_success": 0}, None, False),
        ({"success": None}, None, True),
        ({"success": np.bool_(False)}, None, False),
        ({"success": np.array([1.0])}, 3.0, True),
    ],
)
def test_what_a_success_is(told: dict[str, Any], threshold: float | None, success: bool) -> None:
    """What ``info`` says; else a sum of rewards from the threshold on; else a last reward above 0."""

    class Two(Guess):
        left = 2

        def step(self, action: Any) -> Any:
            self.left -= 1
            return "ok", 1, self.left == 0, False, dict(told) if self.left == 0 else {}

    env = from_gymnasium(Two(), success=threshold)
    env.reset(seed=0)
    assert "success" not in env.step("a")[4]
    assert env.step("a")[4]["success"] is success


def test_a_truncated_episode_is_a_success_where_it_says_so() -> None:
    """Some environments go on until time is up, and tell at each step whether the task is solved."""
    for told, said in (({"success": True}, True), ({"is_success": False}, False), ({}, None)):
        world = type("World", (Guess,), {"step": lambda self, action, told=told: ("ok", 0, False, True, dict(told))})
        env = from_gymnasium(world())
        env.reset(seed=0)
        assert env.step("1")[4].get("success") is said
        agent = create_leafe_agent(ScriptedModel(reply=["1"]), env=lambda w=world: from_gymnasium(w()), max_rewinds=0)
        assert agent.invoke({"task": "guess"})["end"] == ("success" if said else "truncated")


@pytest.mark.parametrize(
    ("answer", "error", "said"),
    [
        (
            ("ok", 1, True, False, {"success": "False"}),
            EnvError,
            r"info\['success'\] is 'False'; expected True or False",
        ),
        (("ok", 1, True, {}), ConfigError, r"step returned 4 values, as Gym did before 0\.26"),
        (("ok", np.zeros(2), False, False, {}), EnvError, r"the reward is array.*; expected one value"),
        ((b"ok", 0, False, False, {}), EnvError, "the observation is bytes; expected str"),
    ],
)
def test_answers_that_are_none_are_named(answer: Any, error: type[Exception], said: str) -> None:
    """A text is no success; nor are four values five."""
    env = from_gymnasium(type("World", (Guess,), {"step": lambda self, action: answer})())
    env.reset(seed=0)
    with pytest.raises(error, match=said):
        env.step("1")


def test_numbers_of_numpy_are_numbers_for_both_wrappers() -> None:
    """Rewards of one element, ends, tasks by number, seeds, actions."""
    answer = ("ok", np.array([0.5]), np.bool_(True), np.bool_(False), {"valid": np.bool_(True)})
    env = from_gymnasium(type("World", (Guess,), {"step": lambda self, action: answer})())
    env.reset(seed=np.int64(3))
    assert env.step("1") == ("ok", 0.5, True, False, {"valid": True, "success": True})
    there = to_gymnasium(GridWorld(), grid_tasks(3), actions=MOVES)
    named = there.reset(options={"task": np.int64(1)})[1]["task_id"]
    assert named == there.reset(options={"task": np.array(1)})[1]["task_id"] == "grid-000001"
    assert there.reset(seed=np.int64(5))[0] == there.reset(seed=5)[0]
    assert there.step(np.int64(1))[0]
    for wrong in (np.int64(3), 1.5, True, "1"):
        with pytest.raises(ConfigError, match="expected a number from 0 to 2"):
            there.reset(options={"task": wrong})
    assert to_gymnasium(GridWorld()).reset(seed=np.int64(5))[0] == to_gymnasium(GridWorld()).reset(seed=5)[0]


def test_names_that_differ_in_capitals_can_both_be_chosen() -> None:
    """Spelt as they are; a spelling that could be either is no action."""
    seen: list[int] = []
    world = type("World", (Guess,), {"step": lambda self, action: seen.append(action) or ("ok", 0, False, False, {})})
    env = from_gymnasium(world(discrete=True), actions=["go", "Go", *DIGITS[2:8], "Stop", "look"])
    env.reset(seed=0)
    valid = [env.step(said)[4].get("valid") for said in ("go", "Go", "GO", " STOP ", "stop")]
    assert seen == [1, 2, 9, 9] and valid == [None, None, False, None, None]


@pytest.mark.parametrize(
    ("actions", "said"),
    [
        ("ab", r"actions='ab': expected a list of texts"),
        ([1, 2], r"actions=\[1, 2\]: expected a list of texts"),
        (["a", "a"], r"'a' is there twice"),
    ],
)
def test_actions_that_are_no_names_are_refused(actions: Any, said: str) -> None:
    """Both ways; one text is not a list of its letters."""
    world = Guess()
    world.action_space = gym.spaces.Discrete(2)
    for wrap in (lambda: from_gymnasium(world, actions=actions), lambda: to_gymnasium(GridWorld(), actions=actions)):
        with pytest.raises(ConfigError, match=said):
            wrap()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ([{"instruction": "Walk."}], r"a task needs id and instruction; \['id'\] not in \['instruction'\]"),
        ([{"id": "a", "instruction": "Walk.", "seed": "1"}], "the task's seed is '1'; expected a whole number"),
        ([3], "the task is 3: an agent is invoked with"),
        ("Walk.", r"tasks is 'Walk\.'; expected a list of tasks"),
    ],
)
def test_a_task_that_is_none_is_named_before_it_is_played(wrong: Any, said: str) -> None:
    """In the same words wherever tasks are given."""
    ways: list[Callable[[], Any]] = [
        lambda: to_gymnasium(GridWorld(), wrong),
        lambda: check_env(GridWorld, tasks=wrong),
        lambda: demonstrate(GridWorld, wrong, lambda task: ["up"]),
    ]
    for way in ways:
        with pytest.raises(ConfigError, match=said):
            way()


def test_a_world_that_does_not_know_whether_an_action_was_valid_says_none() -> None:
    """As an environment of ours may."""
    answer = ("ok", 0.0, False, False, {"valid": None})
    env = from_gymnasium(type("World", (Guess,), {"step": lambda self, action: answer})())
    env.reset(seed=0)
    assert env.step("1")[4]["valid"] is None
    agent = create_leafe_agent(ScriptedModel(reply=["1"]), env=lambda: env, max_turns=1, max_rewinds=0)
    assert agent.invoke({"task": "guess"})["turns"][0]["valid"] is None


@pytest.mark.parametrize(
    ("space", "where", "said"),
    [
        ("observation_space", gym.spaces.Box(0, 1, (3,)), "observation_space is Box.*TransformObservation"),
        ("action_space", gym.spaces.MultiDiscrete([2, 3]), "action_space is MultiDiscrete.*TransformAction"),
        ("action_space", gym.spaces.Discrete(4), r"Discrete\(4\), actions= has 2 names"),
    ],
)
def test_spaces_that_are_not_of_text_are_named(space: str, where: Any, said: str) -> None:
    """With what was seen, and how to wrap it."""
    env = Guess()
    setattr(env, space, where)
    with pytest.raises(ConfigError, match=said):
        from_gymnasium(env, actions=["a", "b"])


@pytest.mark.parametrize("actions", [None, MOVES])
def test_there_and_back_is_the_same(actions: list[str] | None) -> None:
    """Sokoban through Gymnasium and back shows what Sokoban shows, reward and info included, and keeps the contract."""

    def there_and_back() -> TextEnv:
        return from_gymnasium(to_gymnasium(sokoban.SokobanEnv(), actions=actions), actions=actions)

    check_env(there_and_back, seeds=(0, 1))
    for task in sokoban.tasks("train", 3):
        one, other = sokoban.SokobanEnv(), there_and_back()
        assert one.reset(seed=task["seed"]) == other.reset(seed=task["seed"])
        for action in ["up", *sokoban.expert({"id": "", "instruction": "", "seed": task["seed"]})]:
            assert one.step(action) == other.step(action)


def test_a_gymnasium_environment_comes_back_unchanged() -> None:
    """Theirs through our door and back plays the same episode."""
    one, other = Guess(), to_gymnasium(from_gymnasium(Guess()))
    assert one.reset(seed=4) == other.reset(seed=4)
    for action in ("0", "9", "x"):
        assert one.step(action)[:4] == other.step(action)[:4]


def test_an_observation_that_the_space_has_not_is_shown_in_full_beside_it() -> None:
    """Characters outside the set become U+FFFD, what is too long is cut, and nothing is lost."""

    class Foreign(GridWorld):
        def _look(self) -> str:
            return "漢√…🙂\ud800" + "x" * 30

    env = to_gymnasium(Foreign(), max_observation=20)
    observation, info = env.reset(seed=0)
    assert observation == "\ufffd√…\ufffd?" + "x" * 15 and env.observation_space.contains(observation)
    assert info["observation"] == "漢√…🙂?" + "x" * 30
    assert "observation" not in to_gymnasium(GridWorld()).reset(seed=0)[1]


def test_a_reset_names_its_task() -> None:
    """Drawn by the seed, or asked for."""
    env = to_gymnasium(GridWorld(), grid_tasks(50))
    drawn = [env.reset(seed=seed)[1]["task_id"] for seed in (1, 1, 2, None, None)]
    assert drawn[0] == drawn[1] and len(set(drawn)) > 2
    _, info = env.reset(options={"task": 7})
    assert info["task_id"] == "grid-000007" and info["instruction"].startswith("Walk to the goal")
    with pytest.raises(ConfigError, match="0 to 49"):
        env.reset(options={"task": 50})
    with pytest.raises(ConfigError, match="at least one"):
        to_gymnasium(GridWorld(), [])


def test_the_command_line_plays_a_registered_environment(registered: Callable[..., str]) -> None:
    """``--env gymnasium:ID``: its tasks are seeds, and its options go to the wrapper."""
    name = registered(Guess, max_episode_steps=5, kwargs={"discrete": True})
    make, found = environment(f"gymnasium:{name}", split="test", n=3, options={"actions": DIGITS, "instruction": "Hi."})
    assert found == tasks("test", 3, instruction="Hi.") and found[0]["seed"] == 2_000_000_000
    check_env(make, tasks=found, actions=DIGITS)
    make_text, _ = environment(f"gymnasium:{name}", split="test", n=3, options={"discrete": False})
    assert "admissible" not in make_text().reset(seed=0)[1]
    with pytest.raises(ConfigError, match="no environment 'LeafeNone-v0'"):
        environment("gymnasium:LeafeNone-v0", split="test", n=3, options={})
    with pytest.raises(ConfigError, match="No module named 'leafe_none'"):
        environment("gymnasium:leafe_none:My-v0", split="test", n=3, options={})
    with pytest.raises(ConfigError, match="train, validation, test"):
        tasks("dev", 1)  # type: ignore[arg-type]
    with pytest.raises(EnvError, match="call reset first"):
        make().step("1")


def test_a_module_of_the_folder_one_stands_in_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``gymnasium:MODULE:ID``, as with MODULE:ATTRIBUTE."""
    (tmp_path / "leafe_my_game.py").write_text(
        "import gymnasium, test_gymnasium\ngymnasium.register('LeafeMine-v0', entry_point=test_gymnasium.Guess)\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [folder for folder in sys.path if folder])
    make, _ = environment("gymnasium:leafe_my_game:LeafeMine-v0", split="test", n=1, options={})
    assert make().reset(seed=0)[0] == "guess a digit"
    del gym.registry["LeafeMine-v0"]


def test_samples_are_the_same_in_every_process() -> None:
    """The characters are in order, not as a set has them."""
    assert to_gymnasium(GridWorld()).action_space.character_list == tuple(sorted(charset()))
