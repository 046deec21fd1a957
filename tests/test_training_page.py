"""The commands and settings of docs/training.md are such as the program takes; what they do, other tests tell."""

import re
import shlex
from pathlib import Path

import pytest
from pydantic_settings import CliApp, get_subcommand

from leafe_graph.cli.main import Leafe
from leafe_graph.cli.runs import Run
from leafe_graph.finetune import TrainConfig
from leafe_graph.rounds.yaml_file import read_config

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """The text of the fenced blocks, continued lines joined."""
    return [b.replace("\\\n", " ") for b in re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)]


def test_settings_of_a_training_are_taken(tmp_path: Path) -> None:
    """The YAML file as printed."""
    for text in blocks("yaml"):
        (tmp_path / "train.yaml").write_text(text)
        assert TrainConfig(config=tmp_path / "train.yaml").load_in_4bit  # type: ignore[call-arg]


def test_commands_are_taken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Each `leafe` line, and the one that accelerate starts, is parsed; recipes that it names are read."""
    (tmp_path / "train.yaml").write_text(blocks("yaml")[0])
    (tmp_path / "FILE").touch()
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    lines = "\n".join([*blocks("sh"), *re.findall(r"`(leafe [^`]*)`", PAGE)])
    commands = re.findall(r"^(?:leafe|accelerate .*-m leafe_graph) (.*)$", lines, re.MULTILINE)
    assert len(commands) > 8
    for command in commands:
        words = shlex.split(command, comments=True)
        if len(words) > 1 and not {"--help", "…"} & {*words}:
            parsed = get_subcommand(CliApp.run(Leafe, cli_args=words))
            if isinstance(parsed, Run) and parsed.config.suffix:
                read_config(parsed.config)
    assert "examples/multi_gpu.yaml" in PAGE and (ROOT / "examples" / "multi_gpu.yaml").is_file()
