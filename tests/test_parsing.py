"""What people write by hand: keys that stand twice, options of a command line, encodings, and the lines of a file."""

import json
from pathlib import Path
from typing import Any

import pytest

from leafe_graph import ConfigError
from leafe_graph.cli.main import main
from leafe_graph.envs.catalog import environment
from leafe_graph.envs.codecontests import problems
from leafe_graph.evaluation.results import Result
from leafe_graph.finetune.config import TrainConfig
from leafe_graph.parsing import json_line, key_values, load_json, load_yaml, read_text
from leafe_graph.rounds import read_config

RESULT = '{\n"policy": "p",\n"n": 2,\n"tasks": [\n{"task_id": "a", "n": 2, "c": 2,\n"c": 0, "errors": 0}\n]\n}'


# ---- a key twice


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: 1\nb: 2\na: 3\n", "f:3: a: given twice"),
        ("a:\n  b: 1\n  b: 2\n", "f:3: a.b: given twice"),
        ("a:\n- b: 1\n- c: 1\n  c: 2\n", "f:4: a.1.c: given twice"),
        ('{"a": 1, "a": 2}\n', "f:1: a: given twice"),
        ("a: &x {b: 1, b: 2}\nc: *x\n", "f:1: a.b: given twice"),
    ],
)
def test_a_key_twice_in_yaml_is_told_with_its_line(text: str, says: str) -> None:
    """Once, however many aliases name its mapping."""
    with pytest.raises(ConfigError) as caught:
        load_yaml(text, "f")
    assert str(caught.value) == says
    assert load_yaml("a: &x {b: 1}\nc: *x\nd: {b: 1}\n", "f")[0]["d"] == {"b": 1}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"a": 1,\n"a": 2}', "f:2: the key 'a' is given twice"),
        ('[{"c": 1}, {"c": 2},\n {"b": {"c": 1},\n "d": {"c": 1,\n\n "c": 2}}]', "f:5: the key 'c' is given twice"),
        ('\n\n{"a": 1, "ä": 1,\n "ä": 2}', "f:4: the key 'ä' is given twice"),
        ('{\r\n\t"a": {"b": 1},\r\n\t"a": 2}', "f:3: the key 'a' is given twice"),
        ('{"a": "\x7f",\n"a": 2}', "f: the key 'a' is given twice"),
        ('{"a": 1', "f is not JSON: Expecting"),
        ("[" * 200_000, "f is not JSON: nested too deep"),
    ],
)
def test_a_key_twice_in_json_is_told_with_its_line(text: str, says: str) -> None:
    """The second of the two, in the object that has both."""
    with pytest.raises(ConfigError) as caught:
        load_json(text, "f")
    assert str(caught.value).startswith(says)


def test_a_key_twice_is_refused_in_every_file_that_people_write(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Trainings, runs of rounds, results; and in what a command line says."""
    train, rounds, result = (tmp_path / name for name in ("train.yaml", "rounds.yaml", "result.json"))
    train.write_text("model: m\ndata: [rows]\nout: o\nlearning_rate: 1e-4\nlearning_rate: 5e-1\n")
    rounds.write_text("model: local:m\nexplore:\n  tasks: 1\n  tasks: 2\n")
    result.write_text(RESULT)
    with pytest.raises(ValueError, match=r"train\.yaml:5: learning_rate: given twice"):
        TrainConfig(config=train)  # type: ignore[call-arg]
    with pytest.raises(ConfigError, match=r"rounds\.yaml:4: explore\.tasks: given twice"):
        read_config(rounds)
    with pytest.raises(ConfigError, match=r"result\.json:6: the key 'c' is given twice"):
        Result.load(result)
    (tmp_path / "problems.jsonl").write_text('{"name": "a"}\n{"name": "b", "name": "c"}\n')
    with pytest.raises(ConfigError, match=r"problems\.jsonl, line 2: .*the key 'name' is given twice"):
        list(problems.read_problems(tmp_path / "problems.jsonl", start=1))
    rounds.write_text("model: local:m\n")
    play = ["explore", "--model", "m", "--out", str(tmp_path / "run")]
    for args, says in (
        (["train", "--config", str(train)], "train.yaml:5: learning_rate: given twice"),
        (["compare", str(result), str(result)], "result.json:6: the key 'c' is given twice"),
        (["run", str(rounds), "--set", "rounds=1,rounds=2", "--dry-run"], "--set: rounds is given twice"),
        (["run", str(rounds), "--set", "explore={tasks: 1, tasks: 2}", "--dry-run"], "explore:1: tasks: given twice"),
        ([*play, "--env-options", '{"size": 6, "size": 7}'], "--env-options: size is given twice"),
        ([*play, "--env-options", "size=6", "--env-options", "size=7"], "--env-options: size is given twice"),
    ):
        assert main(args) == 2
        err = capsys.readouterr().err
        assert says in err and err.count("\n") == 1, err


# ---- encodings


@pytest.mark.parametrize("file", ["f.yaml", "f.json"])
def test_byte_order_mark_and_line_ends_of_other_systems_are_read(file: str, tmp_path: Path) -> None:
    """As editors on Windows write them."""
    text = '\ufeff{"model": "local:m",\r\n"rounds": 3}\r\n'
    (tmp_path / file).write_bytes(text.encode())
    assert read_config(tmp_path / file).rounds == 3
    (tmp_path / "result.json").write_bytes(("\ufeff" + RESULT.replace('\n"c": 0,', "")).encode())
    assert Result.load(tmp_path / "result.json").n == 2


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "f.yaml is empty, expected fields: model, env, explore, ..."),
        (b"- a\n", "f.yaml holds list, expected fields: model, env, explore, ..."),
        ("model: m".encode("utf-16"), "f.yaml is no text in UTF-8 (invalid start byte at byte 0)"),
        (b"\x00\x01", "f.yaml is not YAML: unacceptable character #x0000"),
        (b"a: [1\n", "f.yaml:2: not YAML: while parsing a flow sequence"),
    ],
)
def test_what_is_no_settings_file_is_told_in_one_line(content: bytes, says: str, tmp_path: Path) -> None:
    """Empty, binary, another encoding, another kind of content."""
    file = tmp_path / "f.yaml"
    file.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        read_config(file)
    assert says in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match=r"cannot be read: Is a directory"):
        read_text(tmp_path)


def test_a_record_is_one_line_for_whatever_reads_lines() -> None:
    """Line separators that JSON lets stand are written as escapes, and come back as they were."""
    record = {"text": "a\u2028b\u2029c\x85d\r\n\x0b\x0c\x1ce ü \\u2028"}
    line = json_line(record)
    assert line.splitlines() == [line[:-1]] and "ü" in line
    assert json.loads(line) == record


# ---- KEY=VALUE


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ("view=words,end_on_deadlock=true", {"view": "words", "end_on_deadlock": "true"}),
        ("instruction=Go left, then right", {"instruction": "Go left, then right"}),
        ("instruction=Go left, then right, boxes=2", {"instruction": "Go left, then right", "boxes": "2"}),
        ("size=[6, 7],boxes=2", {"size": [6, 7], "boxes": "2"}),
        ('name="a,b=c",x=1', {"name": "a,b=c", "x": "1"}),
        ('{"a": "x,b=1"}, c=2', {"a": "x,b=1", "c": "2"}),
        ("a.b-c=1=2", {"a.b-c": "1=2"}),
        ("text=[unfinished, x=1", {"text": "[unfinished", "x": "1"}),
        ("a=", {"a": ""}),
        ("", {}),
        ({"a": 1}, {"a": 1}),
    ],
)
def test_options_of_a_command_line(given: Any, found: dict[str, Any]) -> None:
    """A comma ends a value only before another KEY=."""
    assert key_values(given) == found


@pytest.mark.parametrize("given", ["size", "6,7", "=6", '{"size": 6', '{"size": 6} 7'])
def test_options_that_are_not_understood_say_what_is_expected(given: str, capsys: pytest.CaptureFixture[str]) -> None:
    """In one line with the flag."""
    assert main(["demonstrate", "--out", "rows.jsonl", "--env-options", given]) == 2
    err = capsys.readouterr().err
    assert err == f"leafe: --env-options: expected KEY=VALUE,KEY=VALUE or a JSON object, got {given!r}\n"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"size": 1.5}, "option size=1.5: Input should be a valid integer, got a number with a fractional part"),
        ({"size": [6]}, "option size=[6]: "),
        ({"boxes": [1]}, "option boxes=[1]: Input should be a valid integer"),
        ({"max_steps": "ten"}, "option max_steps='ten': Input should be a valid integer"),
        ({"view": "wide"}, "option view='wide': Input should be 'grid', 'words', 'both' or 'coordinates'"),
    ],
)
def test_options_of_another_type_are_refused_by_name(options: dict[str, Any], says: str) -> None:
    """Before anything is played, for what makes the environment and what makes its tasks alike."""
    with pytest.raises(ConfigError) as caught:
        environment("sokoban", split="train", n=1, options=options)
    assert str(caught.value).startswith(says)


def test_whole_numbers_may_be_written_as_any() -> None:
    """1e1 and 10.0 are 10; a pair is a list of two; a number is a text where one is expected."""
    options = {"size": [6.0, 5], "boxes": 1e0, "instruction": 42, "max_steps": 1e1}
    make, tasks = environment("sokoban", split="train", n=1, options=options)
    assert tasks[0]["id"].startswith("sokoban-train-6x5-b1") and tasks[0]["instruction"] == "42"
    assert getattr(make, "keywords")["max_steps"] == 10  # noqa: B009
