"""Sokoban: the rules, the words, rooms and splits, snapshots, level files, the solver."""

import itertools
import subprocess
import sys
from collections import deque
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leafe_graph.env import SnapshotEnv
from leafe_graph.envs import sokoban
from leafe_graph.envs.sokoban import SokobanEnv
from leafe_graph.errors import ConfigError, EnvError

ROOM = """
#######
#.@ $ #
#  $ .#
#     #
#######
"""
ACTIONS = st.lists(st.sampled_from([*sokoban.ACTIONS, "hm"]), max_size=40)


def play(level: str, actions: str, **settings: object) -> tuple[SokobanEnv, list[str]]:
    """Play a level with the actions' initials; the environment and the feedback to each."""
    env = SokobanEnv(**settings)  # type: ignore[arg-type]
    env.reset(options={"level": level})
    names = {action[0]: action for action in sokoban.ACTIONS}
    return env, [env.step(names[letter])[4]["feedback"] for letter in actions]


def test_observation_is_feedback_and_grid_in_the_fields_symbols() -> None:
    """The first observation is the grid alone; later ones begin with a few words."""
    env = SokobanEnv()
    first, info = env.reset(options={"level": "#######\n#@$.*+#\n#######".replace("+", "_")})
    assert first == "# # # # # # #\n# P X O √ _ #\n# # # # # # #"
    assert info == {"admissible": ["up", "down", "left", "right"]}
    observation, reward, terminated, truncated, info = env.step("right")
    assert observation == "solved\n# # # # # # #\n# _ P √ √ _ #\n# # # # # # #"
    assert (reward, terminated, truncated) == (1.0, True, False)
    assert info["success"] is True
    assert info["valid"] is True
    assert info["feedback"] == "solved"


def test_player_on_a_target_is_shown() -> None:
    """S is the player on a target, and the target is still there when the player leaves."""
    env, _ = play(ROOM, "l")
    assert sokoban.render(env.state).split("\n")[1] == "# S _ _ X _ #"
    env.step("right")
    assert sokoban.render(env.state).split("\n")[1] == "# O P _ X _ #"


@pytest.mark.parametrize(
    ("level", "actions", "said"),
    [
        (ROOM, "r", "moved"),
        (ROOM, "u", "blocked by wall"),
        ("######\n#@$$.#\n#.   #\n######", "r", "blocked: two boxes in a row"),
        ("######\n# @$##\n#.   #\n######", "r", "blocked: box against wall"),
        ("#######\n#     #\n# @$ .#\n#     #\n#######", "r", "pushed box"),
        ("#######\n#     #\n# @$. #\n#     #\n#$ .  #\n#######", "r", "box on target"),
        ("#######\n#     #\n# @*  #\n#     #\n# $ . #\n#######", "r", "box off target"),
        ("#####\n#   #\n#@$ #\n#.  #\n#####", "r", "box stuck at wall: deadlock"),
        ("######\n#    #\n#@$  #\n#.   #\n######", "r", "pushed box"),
        ("#####\n#.  #\n#@$ #\n#####", "r", "box stuck in corner: deadlock"),
        ("#######\n#     #\n# $   #\n#@$   #\n#     #\n# .. ##\n#######", "r", "pushed box"),
        ("########\n#      #\n#   $  #\n# $    #\n#  @ ..#\n########", "r", "moved"),
        ("#######\n#     #\n#  $$ #\n#@$#  #\n# . ..#\n#######", "r", "blocked: box against wall"),
    ],
)
def test_feedback_says_what_happened(level: str, actions: str, said: str) -> None:
    """Each kind of answer, in a few words."""
    assert play(level, actions)[1] == [said]


def test_boxes_that_block_each_other_are_a_deadlock() -> None:
    """Two boxes side by side at a wall never move again, even where each alone could be pushed on."""
    level = "#########\n#. $    #\n#   $   #\n#   @  .#\n#       #\n#########"
    env, said = play(level, "u")
    assert said == ["boxes stuck together: deadlock"]
    assert sokoban.deadlocked(env.state)
    assert sokoban.distance(env.state) is None


def test_a_move_that_changes_nothing_is_not_valid_but_counts() -> None:
    """Blocked and unknown actions cost a step, are marked, and leave the grid alone."""
    env = SokobanEnv(max_steps=3)
    grid, _ = env.reset(options={"level": ROOM})
    for action, said in (("up", "blocked by wall"), ("dance", "unknown action, answer up, down, left or right")):
        observation, reward, terminated, truncated, info = env.step(action)
        assert observation == f"{said}\n{grid}"
        assert (reward, terminated, truncated, info["valid"]) == (0.0, False, False, False)
    *_, terminated, truncated, info = env.step("left")
    assert (terminated, truncated) == (False, True)
    assert "success" not in info
    observation, _, _, truncated, info = env.step("left")
    assert (truncated, info["feedback"], info["valid"]) == (True, "the episode is over", False)


def test_end_on_deadlock_is_a_failure() -> None:
    """Only when asked for does a deadlock end the episode."""
    level = "#####\n#.  #\n#@$ #\n#####"
    env = SokobanEnv(end_on_deadlock=True)
    env.reset(options={"level": level})
    _, reward, terminated, truncated, info = env.step("right")
    assert (reward, terminated, truncated, info["success"]) == (0.0, True, False, False)
    env = SokobanEnv()
    env.reset(options={"level": level})
    assert env.step("right")[2:4] == (False, False)


@pytest.mark.parametrize(
    ("text", "action"),
    [
        ("up", "up"),
        (" UP.\n", "up"),
        ("Action: left", "left"),
        ("**right**", "right"),
        ('{"action": "down"}', "down"),
        ("<answer>up</answer>", "up"),
        ("The box is left of me, the wall is up. <answer> Down </answer>", "down"),
        ("left or right? I take left.\nAction: left\nThen up.", "left"),
        ("go up", "up"),
        ("move_down", "down"),
        ("up, up", "up"),
        ("Up is a wall, so it is\n</think>\n\nRight", "right"),
        ("<think>up?</think> Right", "right"),
        ("<think>up, since", None),
        ("", None),
        ("up or down", None),
        ("upward", None),
        ("<answer></answer> up", None),
        ("jump", None),
        ("\ud800 🙂" * 1000, None),
    ],
)
def test_actions_are_read_from_what_models_write(text: str, action: str | None) -> None:
    """One direction must be recognisable, with whatever around it."""
    assert sokoban.read_action(text) == action


def test_misuse_is_told() -> None:
    """Unknown options, impossible rooms and steps before a reset raise with what to do."""
    env = SokobanEnv()
    with pytest.raises(EnvError, match="call reset"):
        env.step("up")
    for options, said in (
        ({"levels": ROOM}, "unknown options"),
        ({"size": 3}, "no place"),
        ({"size": "6"}, "size='6'"),
        ({"boxes": 0}, "no place"),
        ({"min_moves": 5, "max_moves": 4}, "min_moves <= max_moves"),
        ({"size": 4, "min_moves": 50, "max_moves": 60}, "rooms tried"),
        ({"level": 7}, "expected the level's text"),
        ({"level": "####\n#@*#\n####"}, "nothing to play"),
    ):
        with pytest.raises(ConfigError, match=said):
            env.reset(seed=0, options=options)
    with pytest.raises(ConfigError, match="max_steps=0"):
        SokobanEnv(max_steps=0)


@pytest.mark.parametrize(
    ("size", "boxes", "low", "high"), [(6, 1, 3, 10), (5, 1, 1, 3), ((8, 5), 1, 4, 12), (7, 2, 6, 22)]
)
def test_rooms_are_as_hard_as_asked_for(size: int | tuple[int, int], boxes: int, low: int, high: int) -> None:
    """The search forwards confirms what the search backwards promised; every difficulty within bounds occurs."""
    lengths = []
    for seed in range(25):
        state = sokoban.generate(seed, size=size, boxes=boxes, min_moves=low, max_moves=high)
        assert (state.level.width, state.level.height) == ((size, size) if isinstance(size, int) else size)
        assert len(state.boxes) == len(state.level.targets) == boxes
        assert sokoban.parse(sokoban.to_text(state)) == sokoban.parse(sokoban.render(state)) == state
        solution = sokoban.solve(state)
        assert solution is not None
        lengths.append(len(solution))
    assert low <= min(lengths) <= max(lengths) <= high
    assert len(set(lengths)) > (high - low) / 3


def test_rooms_depend_on_the_seed_alone() -> None:
    """The same in another process with another hash seed, and written down here for other Python versions."""
    code = (
        "from leafe_graph.envs.sokoban import generate, to_text; "
        "print([to_text(generate(i, size=7, boxes=2)) for i in range(5)])"
    )
    here = str([sokoban.to_text(sokoban.generate(i, size=7, boxes=2)) for i in range(5)])
    for hash_seed in ("1", "2"):
        run = subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": hash_seed}, capture_output=True, text=True, check=True
        )
        assert run.stdout.strip() == here
    assert sokoban.to_text(sokoban.generate(1)) == "######\n#   @#\n#   ##\n## $ #\n## . #\n######"


def test_env_generates_what_the_task_holds() -> None:
    """A task's seed and its level are two ways to the same start."""
    for task in sokoban.tasks("validation", 5, size=7, boxes=2, max_moves=15):
        env = SokobanEnv(size=7, boxes=2, max_moves=15)
        assert env.reset(seed=task["seed"]) == env.reset(options=task["options"])
        assert SokobanEnv().reset(
            seed=task["seed"], options={"size": [7, 7], "boxes": 2, "min_moves": 3, "max_moves": 15}
        ) == env.reset(options=task["options"])


def test_splits_share_no_level_and_no_room() -> None:
    """Disjoint seeds and ids; no start and no room in two splits up to rotation; no start twice in one."""
    sizes = {"train": 400, "validation": 60, "test": 60}
    lists = {split: sokoban.tasks(split, n) for split, n in sizes.items()}  # type: ignore[arg-type]
    levels, rooms = {}, {}
    for split, tasks in lists.items():
        states = [sokoban.parse(task["options"]["level"]) for task in tasks]
        levels[split] = {sokoban.canonical(state) for state in states}
        rooms[split] = {sokoban.canonical(state, room_only=True) for state in states}
        assert len(levels[split]) == len(tasks) == sizes[split]
        assert {sokoban.split_of(state) for state in states} == {split}
        assert all(3 <= (sokoban.distance(state) or 0) <= 10 for state in states)
    for one, two in itertools.combinations(sizes, 2):
        assert not levels[one] & levels[two]
        assert not rooms[one] & rooms[two]
        for field in ("seed", "id"):
            assert not {task[field] for task in lists[one]} & {task[field] for task in lists[two]}


def test_tasks_are_the_same_every_time() -> None:
    """A shorter list is the beginning of a longer one, and a later start only leaves out."""
    many = sokoban.tasks("train", 12)
    assert sokoban.tasks("train", 5) == many[:5]
    start = int(many[5]["id"].rpartition("-")[2])
    assert sokoban.tasks("train", 7, start=start) == many[5:]
    assert many[0]["id"].startswith("sokoban-train-6x6-b1-m3-10-0000")
    assert many[0]["instruction"] == sokoban.INSTRUCTION
    with pytest.raises(ConfigError, match="unknown split"):
        sokoban.tasks("dev", 1)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="asked for 500"):
        sokoban.tasks("train", 500, size=(5, 3), min_moves=1, max_moves=2)
    with pytest.raises(ConfigError, match="start=-1"):
        sokoban.tasks("train", 1, start=-1)


def test_rotated_and_reflected_levels_are_the_same_level() -> None:
    """All eight images of a level have one canonical form, wherever it lies within the grid."""
    state = sokoban.generate(3, size=(7, 6), boxes=2)
    rows = sokoban.to_text(state).split("\n")
    images = []
    for _ in range(4):
        rows = ["".join(column) for column in zip(*rows[::-1], strict=True)]
        images += [rows, [row[::-1] for row in rows], ["#" * len(rows[0]), *rows]]
    states = [sokoban.parse("\n".join(image)) for image in images]
    assert {sokoban.canonical(image) for image in states} == {sokoban.canonical(state)}
    assert {sokoban.split_of(image) for image in states} == {sokoban.split_of(state)}


@settings(max_examples=60)
@given(
    before=ACTIONS, between=ACTIONS, after=ACTIONS, seed=st.integers(0, 20), max_steps=st.sampled_from([None, 5, 50])
)
def test_snapshots_are_exact(before: list, between: list, after: list, seed: int, max_steps: int | None) -> None:  # type: ignore[type-arg]
    """Whatever happens in between, and in any instance, the same actions give the same answers after restoring."""
    env = SokobanEnv(boxes=2, max_steps=max_steps, end_on_deadlock=seed % 2 == 0)
    assert isinstance(env, SnapshotEnv)
    env.reset(seed=seed)
    for action in before:
        env.step(action)
    state = env.snapshot()
    story = [env.step(action) for action in after]
    for action in between:
        env.step(action)
    for instance in (env, SokobanEnv()):
        instance.restore(state)
        assert instance.snapshot() == state
        assert [instance.step(action) for action in after] == story
    assert len(state) < 80


def test_a_foreign_snapshot_is_refused() -> None:
    """Bytes of something else are told apart from a snapshot, before anything changes."""
    env, _ = play(ROOM, "r")
    before = env.snapshot()
    for junk in (b"", b"\xff\xfe", b"sokoban2 1 0 0 -\n" + ROOM.encode()):
        with pytest.raises(EnvError, match="not a Sokoban snapshot"):
            env.restore(junk)
    with pytest.raises(ConfigError, match="snapshot, line 1"):
        env.restore(b"sokoban1 5 9 0 -\n###")
    assert env.snapshot() == before


def test_level_files_round_trip(tmp_path: Path) -> None:
    """Titles, comments, blank lines, ragged rows, outside floor and both floor symbols are read."""
    path = tmp_path / "first.txt"
    path.write_text(
        "; one\n\n   ####\n####  #\n#@-$ .#\n#######\n; two\n#####\n#@$.#\n#####\n\n\n"
        "#####\n#.$_#\n#_ @#\n#####\n; end",
        encoding="utf-8",
    )
    tasks = sokoban.load_levels(path)
    assert [task["id"][:13] for task in tasks] == ["first-000000-", "first-000001-", "first-000002-"]
    assert [sokoban.solve(task["options"]["level"]) for task in tasks] == [["right"] * 3, ["right"], ["up", "left"]]
    again = tmp_path / "again.txt"
    again.write_text("\n\n".join(task["options"]["level"] for task in tasks), encoding="utf-8")
    assert [t["options"] for t in sokoban.load_levels(again)] == [t["options"] for t in tasks]
    fields = tmp_path / "field.txt"
    fields.write_text(
        "\n\n".join(sokoban.render(sokoban.parse(t["options"]["level"])) for t in tasks), encoding="utf-8"
    )
    assert [t["options"] for t in sokoban.load_levels(fields)] == [t["options"] for t in tasks]


@pytest.mark.parametrize(
    ("level", "line", "said"),
    [
        ("#####\n# $.#\n#####", 4, "0 players"),
        ("#####\n#@$.#\n#@  #\n#####", 4, "2 players"),
        ("#####\n#@$ #\n#####", 4, "1 boxes and 0 targets"),
        ("#####\n#@  #\n#####", 4, "0 boxes"),
        ("#####\n#@$.#\n#  ?#\n#####", 6, "'?'"),
        ("#####\n#@$.#\n#   \n#####", 6, "open here"),
        ("#####\n#@$.#\n#   #\n## ##", 7, "open here"),
        ("#####\n#@ *#\n#####", 4, "nothing to play"),
    ],
)
def test_level_file_errors_name_file_and_line(tmp_path: Path, level: str, line: int, said: str) -> None:
    """What is wrong, in which file, at which line."""
    path = tmp_path / "levels.txt"
    path.write_text(f"#####\n#@$.#\n#####\n{level}".replace("#####\n#####", "#####\n;\n#####", 1), encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        sokoban.load_levels(path)
    assert said in str(caught.value)
    assert f"{path}, line {line + 1}" in str(caught.value)


@settings(max_examples=200)
@given(st.text("#@+$*. -_\nPSXO√?", max_size=60))
def test_any_text_is_a_level_or_a_config_error(text: str) -> None:
    """Reading never fails in another way, and what was read can be written and read again."""
    try:
        state = sokoban.parse(f"#####\n#@$.#\n#   #\n{text}#####")
    except ConfigError:
        return
    assert sokoban.parse(sokoban.to_text(state)) == sokoban.parse(sokoban.render(state)) == state
    assert sokoban.solve(state) is None or sokoban.distance(state) is not None


LEVEL = b"#####\n#@$.#\n#####\n"


@pytest.mark.parametrize(
    ("content", "levels"),
    [
        (LEVEL + b"Title: X marks the SPOT\nAuthor: Pat\n\n" + LEVEL + b"Title: Second\n", 2),
        (b"Title: First\n" + LEVEL + b"Comment:\n$ and @ are pushed.\nComment-End:\nSecond\n" + LEVEL, 2),
        (b"Level 1\n" + LEVEL + b":: seen\nSolution: rrR\n'Half way'\n-----\n" + LEVEL + b"*** end ***", 2),
        (b"; Andr\xe9 \x85\n" + LEVEL, 1),
        (b"\xef\xbb\xbf" + LEVEL + b"\xef\xbb\xbf", 1),
        (b"\xef\xbb\xbf; 0\n" + LEVEL, 1),
        ("Über 1\n#####\n#@$.#\n#####".encode("utf-16"), 1),
        ("#####\n#@$.#\n#####\n".encode("utf-16-be").join([b"\xfe\xff", b""]), 1),
        (LEVEL.replace(b"\n", b"\r\n") + b"\r\n" + LEVEL.replace(b"\n", b"\r"), 2),
        (b"\t\n\n" + LEVEL + b"   \n" + LEVEL, 2),
        (b"5#|#@$.#|5#\nTitle: coded\n\n5#\n#@$.#\n5#", 2),
        (b"# # # # #\n# P X O #\n# # # # #\nPat's OX\n_ # # # # #\n# # P X O #\n# # # # # #", 2),
    ],
)
def test_level_collections_are_read_as_they_are_passed_round(tmp_path: Path, content: bytes, levels: int) -> None:
    """Titles and comments before and after, Latin-1, UTF-16, byte order marks, any line ends, run-length encoding."""
    path = tmp_path / "levels.txt"
    path.write_bytes(content)
    found = [task["options"]["level"] for task in sokoban.load_levels(path)]
    assert len(found) == levels and {sokoban.solve(level)[0] for level in found} == {"right"}  # type: ignore[index]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (LEVEL + b"\n@$.\n", "line 5: 1 boxes|line 5, column 1: the room is open here"),
        (LEVEL + b"\n# Level 2\n" + LEVEL, "line 5, column 3: 'L' is not a Sokoban symbol"),
        (LEVEL + b"\nx####\n#@$.#\n#####\n", "line 6, column .: the room is open here"),
        (b"9999999999#", "0 players|is not a Sokoban symbol"),
        ("#####\n#@$.#\n#####\n".encode("utf-16-le"), "is not a Sokoban symbol"),
        (b"2(#-)", "no level found"),
    ],
)
def test_what_looks_like_a_level_and_is_none_is_named(tmp_path: Path, content: bytes, said: str) -> None:
    """Never left out without a word, never a traceback."""
    path = tmp_path / "levels.txt"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=said):
        sokoban.load_levels(path)


def test_a_level_file_that_is_none_is_named(tmp_path: Path) -> None:
    """Not there, or a folder."""
    for path in (tmp_path, tmp_path / "none.txt"):
        with pytest.raises(ConfigError, match=f"{path.name}: cannot be read"):
            sokoban.load_levels(path)


def test_files_of_the_same_name_have_levels_of_their_own(tmp_path: Path) -> None:
    """As in Boxoban's folders train and valid; the same level of the same name and number is the same task."""
    ids = []
    for folder, level in (
        ("train", LEVEL),
        ("valid", LEVEL.replace(b"@$.", b"@ $.").replace(b"###", b"####")),
        ("copy", LEVEL),
    ):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "000.txt").write_bytes(level)
        ids += [task["id"] for task in sokoban.load_levels(tmp_path / folder / "000.txt")]
    assert ids[0] == ids[2] != ids[1]


def test_an_empty_level_file_is_an_error(tmp_path: Path) -> None:
    """No level at all is said, with what was expected."""
    path = tmp_path / "levels.txt"
    path.write_text("; nothing\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="no level found"):
        sokoban.load_levels(path)


def brute_force(start: sokoban.State) -> int | None:
    """Moves of an optimal solution by the rules alone: no pruning, no encoding."""
    seen, queue = {start}, deque([(start, 0)])
    while queue:
        state, moves = queue.popleft()
        if state.solved:
            return moves
        for action in sokoban.ACTIONS:
            after, _ = sokoban.move(state, action)
            if after not in seen:
                seen.add(after)
                queue.append((after, moves + 1))
    return None


@settings(max_examples=40)
@given(
    seed=st.integers(0, 10_000),
    boxes=st.integers(1, 2),
    actions=st.lists(st.sampled_from(sokoban.ACTIONS), max_size=12),
)
def test_solver_table_and_brute_force_agree(seed: int, boxes: int, actions: list[str]) -> None:
    """On states that random play reaches, deadlocks included, in small rooms."""
    state = sokoban.generate(seed, size=(6, 5), boxes=boxes, min_moves=1, max_moves=14)
    for action in actions:
        if not state.solved:
            state, _ = sokoban.move(state, action)
    expected = brute_force(state)
    solution = sokoban.solve(state)
    assert sokoban.distance(state) == expected == (None if solution is None else len(solution))
    if sokoban.deadlocked(state):
        assert expected is None
    best = {
        action for action in sokoban.ACTIONS if expected and brute_force(sokoban.move(state, action)[0]) == expected - 1
    }
    assert set(sokoban.optimal_actions(state)) == best
    for action in solution or []:
        assert action in sokoban.optimal_actions(state)
        state, _ = sokoban.move(state, action)
    assert solution is None or state.solved


def test_searches_say_when_a_level_is_too_big() -> None:
    """A limit is an error with what to do, never a wrong answer."""
    big = sokoban.parse("##########\n" + "#        #\n" * 5 + "# $$$@...#\n" + "#        #\n##########")
    with pytest.raises(ConfigError, match="use solve"):
        sokoban.distance(big)
    with pytest.raises(ConfigError, match="raise limit"):
        sokoban.solve(big, limit=1000)


def test_unreachable_corners_become_walls() -> None:
    """Floor that the player can never see is a wall; a box there stays where it is."""
    state = sokoban.parse("########\n#@$.# *#\n########")
    assert sokoban.render(state) == "# # # # # # # #\n# P X O # # √ #\n# # # # # # # #"
    assert sokoban.solve(state) == ["right"]
