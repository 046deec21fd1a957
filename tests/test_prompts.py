"""What the models are told, and how their answers are read."""

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leafe_graph.agent.reflection import parse_reflection
from leafe_graph.prompts import Prompts, said, text_action
from leafe_graph.types import Task, Turn

TASK: Task = {"id": "t", "instruction": "Win."}
DEEP = '{"a":' * 20_000
HUGE = "9" * 5000


def turn(observation: str, said: str, feedback: str = "ok") -> Turn:
    """A turn whose action was announced."""
    return Turn(
        observation=observation,
        action=said,
        message={"content": f"Action: {said}"},
        feedback=feedback,
        reward=0.0,
        terminated=False,
        truncated=False,
        valid=None,
        checkpoint_id=None,
        env_state=None,
    )


TURNS = [turn("o0", "a0"), turn("o1", "a1", "bump"), turn("o2", "a2")]


def test_act_prompt_is_the_history_as_a_chat() -> None:
    """The instruction, then each observation and what the model said to it, then what is seen now."""
    prompt = Prompts().act_messages(TASK, TURNS[:1], "o1")
    assert prompt == [
        {"role": "system", "content": "Win."},
        {"role": "user", "content": "o0"},
        {"role": "assistant", "content": "Action: a0"},
        {"role": "user", "content": "o1"},
    ]
    assert Prompts().act_messages({"id": "t", "instruction": ""}, [], "o0") == [{"role": "user", "content": "o0"}]


@pytest.mark.parametrize(("history", "first"), [(None, 0), (0, 3), (1, 2), (2, 1), (3, 0), (9, 0)])
def test_history_keeps_the_latest_turns(history: int | None, first: int) -> None:
    """None is all of them, 0 none."""
    prompt = Prompts().act_messages(TASK, TURNS, "o3", history=history)
    assert [m["content"] for m in prompt if m["role"] == "user"] == ["o0", "o1", "o2", "o3"][first:]


def test_experience_changes_the_last_message_only() -> None:
    """It comes after all that branches share, so a server's prefix cache still serves them."""
    plain = Prompts().act_messages(TASK, TURNS, "o3")
    told = Prompts().act_messages(TASK, TURNS, "o3", experience="mind {the} gap")
    assert told[:-1] == plain[:-1]
    assert told[-1]["content"] == "o3\n\nExperience from an earlier attempt: mind {the} gap"


def test_reflect_prompt_numbers_the_steps_from_zero() -> None:
    """Each step with the environment's answer; whether it failed or goes on; texts with braces stay as they are."""
    turns = [turn("{start}", "a0"), *TURNS[1:]]
    *_, message = Prompts().reflect_messages(TASK, turns, "o3", "failure")
    assert "Start:\n{start}\n" in message["content"]
    assert "Steps:\n0. a0 -> ok\n1. a1 -> bump\n2. a2 -> ok\n" in message["content"]
    assert "The task failed." in message["content"]
    assert "The task is not finished." in Prompts().reflect_messages(TASK, turns, "o3", None)[-1]["content"]


@pytest.mark.parametrize(
    ("content", "action"),
    [
        ("  up \n", "up"),
        ("<think>left or up?</think>\nup", "up"),
        ("<think>left, no, Action: down", ""),
        ("I am in a corner.\nAction: up", "up"),
        ("Action: left\nNo.\n  ACTION :  up  ", "up"),
        ("Action:\nup", "up"),
        ("```python\naction: int = 1\nx = 2\n```", "```python\naction: int = 1\nx = 2\n```"),
        ("Action: up\n```\naction: down = 1\nx: int\n```", "up"),
        ("Action:\n```python\nprint(1)\n```\nDone.", "Action:\n```python\nprint(1)\n```\nDone."),
        ("```\nAction: go to desk 1\n```", "go to desk 1"),
        ("The action: is unclear", "The action: is unclear"),
        ("\n" * 50_000, ""),
    ],
    ids=range(12),
)
def test_text_action_reads_what_models_write(content: str, action: str) -> None:
    """Thoughts are left out; the last announced action counts; otherwise the whole text is the action."""
    assert text_action({"content": content}) == action


@pytest.mark.parametrize(
    ("content", "action"),
    [
        ("Left is a wall.\n</think>\n\nright", "right"),
        ("Left is a wall.\nAction: left?\n</think>\nAction: right", "right"),
        ("up\n<think>sure?</think>", "up"),
        ("<think>a</think>\nup\n<think>b</think>", "up"),
        ("<think></think>\n\nup", "up"),
        ("</think>up", "up"),
        ("<thinking>left?</thinking>up", "up"),
        ("<thought>left?</thought>up", "up"),
        ("<reasoning>left?</reasoning>\nup", "up"),
        ("<seed:think>left?</seed:think>up", "up"),
        ("[THINK]left?[/THINK]up", "up"),
        ("left?[/THINK]up", "up"),
        ("<thinking>left, no, Action: down", ""),
        ("hm</think>\n```python\nprint(1)\n```", "```python\nprint(1)\n```"),
        ("I think <b>left</b>", "I think <b>left</b>"),
        ("</think>" * 10_000 + "up", "</think>" * 9_999 + "up"),
        ("<think>" * 10_000 + "</think>up", "up"),
    ],
    ids=range(17),
)
def test_thoughts_are_left_out_whoever_opened_them(content: str, action: str) -> None:
    """A chat template may have; the tags are those that models of several families write. Not closed: cut short."""
    assert text_action({"content": content}) == action


@pytest.mark.parametrize(
    "announced",
    [
        "**Action:** {}",
        "**Action**: {}",
        "**Action: {}**",
        "***Action:*** {}",
        "*Action*: {}",
        "_Action:_ {}",
        "__Action__ : {}",
        "`Action: {}`",
        "Action 1: {}",
        "**Action 12:** {}",
        "Action #2: {}",
        "- Action: {}",
        "* **Action:** {}",
        "2. Action: {}",
        "### Action: {}",
        "## **Action:**\n\n{}",
        "Action: **{}**",
        "Action: `{}`",
        'Action: "{}"',
        "**Action:** **`{}`**",
        "Action\uff1a{}",
        "Action: left\nNo.\n**Action:** {}\n",
        "```\n**Action:** {}\n```",
    ],
)
@pytest.mark.parametrize("action", ["go to desk 1", "search[red shoes]", "{'way': 'up'}"])
def test_action_that_is_announced_in_markdown_or_numbered(announced: str, action: str) -> None:
    """The announcement is not part of the action, nor is what emphasises or quotes the whole of it."""
    assert text_action({"content": f"The desk is near.\n\n{announced.format(action)}"}) == action


@pytest.mark.parametrize(
    "content",
    [
        "click[Action: figure]",
        "search[**action**: figures]",
        "Action Input: up",
        "My action: up",
        "Actions: up, down",
        "# Action: one step\nprint(1)",
        "action1 = 2\nprint(action1)",
        "**up**",
        '"up"',
        "look at **Action** 1",
    ],
)
def test_text_that_announces_nothing_is_the_action_as_it_stands(content: str) -> None:
    """Programs, searches and what only looks like an announcement are not touched."""
    assert text_action({"content": content}) == content


@pytest.mark.parametrize("action", ["'a' in 'b'", '"a" + "b"', "*args, *more", "__init__", "**", "press **Enter**"])
def test_announced_action_keeps_marks_that_are_its_own(action: str) -> None:
    """Only a pair of marks around the whole, with none inside, is taken off."""
    assert text_action({"content": f"**Action:** {action}"}) == action


def test_tool_call_is_an_action_as_json() -> None:
    """Environments speak text: the first call's name and arguments, with sorted keys; in a history, after the words."""
    calls: list[dict[str, Any]] = [{"name": "go", "args": {"to": "küche", "by": 1}}, {"name": "x", "args": {}}]
    assert text_action({"content": "hm", "tool_calls": calls}) == '{"args": {"by": 1, "to": "küche"}, "name": "go"}'
    assert said({"content": "hm", "tool_calls": calls[1:]}) == 'hm\n{"args": {}, "name": "x"}'
    assert said({"content": "", "tool_calls": calls[1:]}) == '{"args": {}, "name": "x"}'
    assert said({"content": ""}) == ""


def test_what_a_history_shows_of_a_tool_call_is_what_was_played() -> None:
    """Records of several calls and with random ids too: equal calls are equal texts, and who says the text acts so."""
    walk = {"name": "walk", "args": {"way": "up", "by": 1}, "id": "call_d439", "type": "tool_call"}
    other = {"name": "walk", "args": {"by": 1, "way": "up"}, "id": "call_77aa", "type": "tool_call"}
    text = said({"content": "", "tool_calls": [walk, {"name": "rest", "args": {}}]})
    assert text == said({"content": "", "tool_calls": [other]}) == text_action({"content": "", "tool_calls": [walk]})
    assert text_action({"content": text}) == text


def test_arguments_that_are_no_json_stand_as_the_model_wrote_them() -> None:
    """The environment reads an action that is no call, and not an empty one."""
    broken = text_action({"content": "", "tool_calls": [{"name": "walk", "args": '{"way": up'}]})
    assert broken == '{"args": {"way": up, "name": "walk"}'
    with pytest.raises(ValueError, match="Expecting value"):
        json.loads(broken)


WRITTEN = [
    # JSON, as asked for
    ('{"step": 4, "experience": "go up"}', "rewind", 4, "go up"),
    ('{"experience": " go up ", "step": "4"}', "rewind", 4, "go up"),
    ('{"step": 4.0, "experience": "go up"}', "rewind", 4, "go up"),
    ('{"step": "step 4", "experience": "go up"}', "rewind", 4, "go up"),
    ('{"STEP": 0, "Lesson": "go up"}', "rewind", 0, "go up"),
    ('{"decision_point": 4, "advice": "go up"}', "rewind", 4, "go up"),
    ('{"step": 4, "experience": "", "lesson": "go up"}', "rewind", 4, "go up"),
    ('{"step": 4, "on_track": false, "experience": "go up"}', "rewind", 4, "go up"),
    ('{"step": 4, "experience": "half a \\ud83d pair"}', "rewind", 4, "half a ? pair"),
    # JSON among other words
    ('Sure!\n```json\n{"step": 4, "experience": "go up"}\n```\nGood luck.', "rewind", 4, "go up"),
    ('Step 2 {looks} odd, but: {"step": 4, "experience": "go up"}', "rewind", 4, "go up"),
    ('{"reflection": {"step": 4, "experience": "go up"}}', "rewind", 4, "go up"),
    ('[{"step": 4, "experience": "go up"}]', "rewind", 4, "go up"),
    ('{"step": 1, "experience": "no"} Wait. {"step": 4, "experience": "go up"}', "rewind", 4, "go up"),
    ('<think>{"step": 1, "experience": "no"}</think>{"step": 4, "experience": "go up"}', "rewind", 4, "go up"),
    ('<think>{"step": 1, "experience": "cut off', "unparsed", None, None),
    # prose
    ("Step 4 was the mistake.", "rewind", 4, "Step 4 was the mistake."),
    ("I would rewind to decision point 4: go up", "rewind", 4, "I would rewind to decision point 4: go up"),
    ("**Step #4**: go up", "rewind", 4, "**Step #4**: go up"),
    ("At step 4 go up; yes, step 4.", "rewind", 4, "At step 4 go up; yes, step 4."),
    ("step ٤ was wrong", "rewind", 4, "step ٤ was wrong"),
    ("To get back on track, redo step 4.", "rewind", 4, "To get back on track, redo step 4."),
    ("On track until step 3, but the mistake was step 4.", "rewind", 4, ...),
    ("Step 1 was fine, step 2 too. The mistake was at step 4.", "rewind", 4, ...),
    ("<think>step 1? step 2?</think>Step 4.", "rewind", 4, "Step 4."),
    ("step 1? step 2?\n</think>\n\nStep 4.", "rewind", 4, "Step 4."),
    ('{"step": 1}?</think>{"step": 4, "experience": "go up"}', "rewind", 4, "go up"),
    ("<thinking>step 1?</thinking>Step 4.", "rewind", 4, "Step 4."),
    ("<thinking>Step 1, I would say", "unparsed", None, None),
    ("**Step:** 4\n**Experience:** go up", "rewind", 4, ...),
    ("**Step**: 4, go up", "rewind", 4, ...),
    ("The mistake was *step* **4**.", "rewind", 4, ...),
    ("- `Step 4`: go up", "rewind", 4, ...),
    ("1. Step 4 was the mistake.", "rewind", 4, ...),
    ("### Step 4: go up", "rewind", 4, ...),
    ("**Decision point:** 4", "rewind", 4, ...),
    ("**Step 2** and **3** were bad.", "unparsed", None, None),
    ("**Step 2**-**4** were bad.", "unparsed", None, None),
    ("Everything is **on** track.", "on_track", None, None),
    ("Steps 1, 2 and 4 were bad.", "unparsed", None, None),
    ("Step 1 and step 2 look odd.", "unparsed", None, None),
    ("Step 2-4 were bad.", "unparsed", None, None),
    ("Step 2 or 3, I think.", "unparsed", None, None),
    ("Step 1.5 was bad.", "unparsed", None, None),
    ("Step -1 was bad.", "unparsed", None, None),
    ("All is on track after step 1.", "unparsed", None, None),
    ("Step four was bad.", "unparsed", None, None),
    ("You stepped 4 times.", "unparsed", None, None),
    # on track
    ('{"step": null}', "on_track", None, None),
    ('{"step": null, "experience": "go on"}', "on_track", None, None),
    ('{"step": "none"}', "on_track", None, None),
    ('{"on_track": true}', "on_track", None, None),
    ('{"on_track": "Yes", "step": 2, "experience": "go on"}', "on_track", None, None),
    ("Everything is on track.", "on_track", None, None),
    ("I am not on track.", "unparsed", None, None),
    ("It isn't on track", "unparsed", None, None),
    # out of range
    ('{"step": 5, "experience": "go up"}', "out_of_range", 5, "go up"),
    ('{"step": -1, "experience": "go up"}', "out_of_range", -1, "go up"),
    ("Step 5 was the mistake.", "out_of_range", 5, "Step 5 was the mistake."),
    ('{"step": 1e300, "experience": "go up"}', "out_of_range", None, "go up"),
    ('{"step": 36893488147419103232, "experience": "go up"}', "out_of_range", None, "go up"),
    # nothing to go by
    ("", "unparsed", None, None),
    (" \n", "unparsed", None, None),
    ("{}", "unparsed", None, None),
    ("[1, 2]", "unparsed", None, None),
    ("4", "unparsed", None, None),
    ('{"step": 4}', "unparsed", None, None),
    ('{"step": 4, "experience": " "}', "unparsed", None, None),
    ('{"step": 4, "experience": ["go up"]}', "unparsed", None, None),
    ('{"step": 4.5, "experience": "go up"}', "unparsed", None, "go up"),
    ('{"step": true, "experience": "go up"}', "unparsed", None, "go up"),
    ('{"step": [4], "experience": "go up"}', "unparsed", None, "go up"),
    ('{"step": {"n": 4}, "experience": "go up"}', "unparsed", None, "go up"),
    ('{"step": "4 or 5", "experience": "go up"}', "unparsed", None, "go up"),
    ('{"step": NaN, "experience": "go up"}', "unparsed", None, "go up"),
    ('{"step": Infinity, "experience": "go up"}', "unparsed", None, "go up"),
    ('{"step": number, "experience": "why, and what to do instead"}', "unparsed", None, None),
    ('{"step": 4, "experience": "cut o', "unparsed", None, None),
    ('{"experience": "go up"}', "unparsed", None, None),
    (f'{{"step": {HUGE}, "experience": "go up"}}', "unparsed", None, None),
    (f'{{"step": "{HUGE}", "experience": "go up"}}', "unparsed", None, "go up"),
    (f"Step {HUGE} was bad.", "unparsed", None, None),
    (DEEP, "unparsed", None, None),
    (DEEP + "1" + "}" * 20_000, "unparsed", None, None),
    ("[" * 100_000, "unparsed", None, None),
    ("<think>" * 10_000, "unparsed", None, None),
    ("step" + " " * 100_000, "unparsed", None, None),
    ("on track? " * 20_000 + "step 1 step 2", "unparsed", None, None),
]


@pytest.mark.parametrize(("text", "verdict", "step", "experience"), WRITTEN, ids=[t[0][:50] for t in WRITTEN])
def test_reflections_that_models_really_write(text: str, verdict: str, step: int | None, experience: Any) -> None:
    """Of five turns, step 4 is the last; what is not clear is never guessed (``...``: the prose itself)."""
    assert parse_reflection(text, 5) == (verdict, step, text if experience is ... else experience)


def numbers(text: str) -> set[float]:
    """Every number in a text, as JSON or prose writes them."""
    return {float(n) for n in re.findall(r"-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?", text) if len(n) < 20}


PIECES = st.sampled_from(
    [
        *'{}[]",:',
        '"step"',
        '"experience"',
        "step ",
        "turn",
        "1",
        "4",
        "-",
        "1e1",
        "null",
        "true",
        "on track",
        "not ",
        "mistake at ",
        "<think>",
        "</think>",
        "```json",
        "\\ud800",
        "\n",
        ". ",
        "٣",
        "x",
        '{"step": 2, "experience": "e"}',
    ]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["step", "experience", "on_track", "x"]), inner),
)


@given(
    st.one_of(st.text(), st.lists(PIECES).map("".join), JSON.map(json.dumps)),
    st.integers(min_value=0, max_value=12),
)
def test_parser_never_raises_and_never_makes_a_step_up(text: str, turns: int) -> None:
    """Whatever the text: a rewind has a step that was played, that stands in the text, and something to learn."""
    verdict, step, experience = parse_reflection(text, turns)
    assert verdict in ("on_track", "rewind", "unparsed", "out_of_range")
    assert verdict == "rewind" or verdict == "out_of_range" or step is None
    if verdict == "rewind":
        assert step is not None
        assert 0 <= step < turns
        assert step in numbers(text)
        assert experience
        assert experience.strip()
        experience.encode()
