"""A coding agent mends a failing test suite and goes back to its own mistakes: ``create_agent``, and one line more.

    pip install -e ".[langchain,openai]" pytest
    python examples/coding_agent.py --model openai:gpt-5-mini
    python examples/coding_agent.py --model vllm:NAME@http://HOST:PORT/v1 --project my/project

The model has a shell and an editor in a folder: a small broken project, unless ``--project`` names another. When it
says that it is done, pytest judges. If tests fail, the model is asked which step was the mistake; conversation and
folder go back to that step, and from there it tries again knowing better. What it does is printed while it does it,
a rewind with what was learned, and at its end the commands that look at what was recorded and train on it.

The shell does what the model says, as you: run this where that is no danger. Only the folder is brought back.
"""

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

from langchain.agents import create_agent
from langchain.agents.middleware import ModelRetryMiddleware

from leafe_graph import LeafeError, LeafeMiddleware, Verdict, Workspace, load_model

TASK = (
    "Tests of this project fail. See them with `python -m pytest -q`, mend the code, and leave the tests as they are."
)
BROKEN = {
    "money.py": '''\
def split(cents: int, people: int) -> list[int]:
    """Shares that add up to all of it and differ by a cent at most, the greater ones first."""
    return [cents // people] * people


def show(cents: int) -> str:
    """As on a bill: 1234 is "12.34", and -5 is "-0.05"."""
    return f"{cents // 100}.{cents % 100}"
''',
    "test_money.py": """\
from money import show, split


def test_split():
    assert split(100, 3) == [34, 33, 33]
    assert split(101, 3) == [34, 34, 33]
    assert split(90, 3) == [30, 30, 30]


def test_show():
    assert [show(cents) for cents in (1234, 1205, -5)] == ["12.34", "12.05", "-0.05"]
""",
}


class Project:
    """A folder with tests: the agent's tools, and its judge."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self.given = self._tests()
        self._one = threading.Lock()
        """Calls that the model makes at once take turns: two edits of one file would lose one of them."""

    def shell(self, command: str) -> str:
        """Run a command of bash in the project, for a minute at most; its exit code and what it printed."""
        with self._one:
            code, output = self._run("bash", "-c", command)
        return f"exit code {code}\n{output}"

    def edit(self, path: str, old: str, new: str) -> str:
        """Replace a text that a file of the project has once; an empty ``old`` writes a new file."""
        file = (self.folder / path).resolve()
        if not file.is_relative_to(self.folder):
            return f"{path} is not in the project"
        try:
            with self._one:
                text = file.read_text() if file.exists() else ""
                found = text.count(old) if old else int(not text)
                if found != 1:
                    return f"{path} has the old text {found} times; expected once"
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(text.replace(old, new, 1))
        except (OSError, UnicodeError) as error:  # a folder, no text: the model hears of it
            return f"{path} cannot be edited: {error}"
        return f"{path} is written"

    def judge(self, state: Any, runtime: Any) -> Verdict:
        """Pytest's word, on the tests that were given."""
        if self._tests() != self.given:
            return Verdict(False, "The tests themselves were changed.")
        code, output = self._run(sys.executable, "-m", "pytest", "-q")
        return Verdict(code == 0, output)

    def _tests(self) -> dict[Path, bytes]:
        return {file: file.read_bytes() for name in ("test_*.py", "*_test.py") for file in self.folder.rglob(name)}

    def _run(self, *command: str) -> tuple[int, str]:
        """Whatever a command leaves running ends with it: a snapshot is taken while nothing writes."""
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
        env = os.environ | {"PATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
        with tempfile.TemporaryFile() as output:
            process = subprocess.Popen(
                command,
                cwd=self.folder,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                code = process.wait(60)
            except subprocess.TimeoutExpired:
                code = 124
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            output.seek(0)
            return code, output.read().decode(errors="replace")[-4000:]


def mend(model: Any, project: Project, record: str | Path) -> bool:
    """Let the agent mend the project; whether the tests pass."""
    leafe = LeafeMiddleware(judge=project.judge, worlds=[Workspace(project.folder)], record=record)
    agent = create_agent(
        load_model(model),
        tools=[project.shell, project.edit],
        system_prompt="You mend software. Look before you change it, and run the tests before you say that it is done.",
        middleware=[ModelRetryMiddleware(on_failure="error"), leafe],
    )
    for mode, event in agent.stream({"messages": TASK}, stream_mode=["updates", "custom"]):
        if mode == "custom":
            tell(event["leafe"])
        else:
            for message in event.get("model", {}).get("messages", []):
                for call in message.tool_calls:
                    print(f"{call['name']}: {' | '.join(map(str, call['args'].values()))[:200]!r}")
    return bool(project.judge(None, None).success)


def tell(event: dict[str, Any]) -> None:
    """What the middleware does, as it does it."""
    if event["event"] == "reflection" and event["verdict"] == "rewind":
        print(f"pytest says no. Back to step {event['decision']}, knowing: {event['experience']}")


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="as leafe_graph.load_model and init_chat_model know it")
    parser.add_argument("--project", type=Path, help="a folder with tests that fail; its own unless given")
    parser.add_argument("--record", default="runs/coding-agent", help="the run folder that attempts are written to")
    said = parser.parse_args()
    if (folder := said.project) is None:
        folder = Path(tempfile.mkdtemp()) / "project"
        folder.mkdir()
        for name, text in BROKEN.items():
            (folder / name).write_text(text)
    try:
        mended = mend(said.model, Project(folder), said.record)
    except LeafeError as error:
        parser.error(str(error))
    print(f"The tests {'pass' if mended else 'still fail'} in {folder}. Next:")
    print(f"  leafe show {said.record}\n  leafe export {said.record}")
    print(f"  leafe train --model HUGGING_FACE_NAME --data {said.record} --out {said.record}/adapter")
    return 0 if mended else 1


if __name__ == "__main__":
    sys.exit(main())
