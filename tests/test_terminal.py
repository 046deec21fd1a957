"""What is printed, wherever it goes: ASCII, a reader that goes away, a full disk, a narrow terminal, hostile texts."""

import ast
import io
import logging
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from rich.table import Table
from trees import branch, run_folder, turn

from leafe_graph.cli.main import Leafe, main
from leafe_graph.errors import LeafeError
from leafe_graph.evaluation.compare import Comparison, Difference
from leafe_graph.evaluation.results import result_from_branches
from leafe_graph.report.transcript import transcript
from leafe_graph.terminal import bar, streams
from leafe_graph.terminal.console import Terminal
from leafe_graph.text import did_you_mean, printable

ROOT = Path(__file__).parents[1]
HOSTILE = "\x1b[2J\x1b]0;title\x07 a\x00b\r\x9b31m \u202egnp.exe\u2066 \ud83d"
HARMLESS = r"\x1b[2J\x1b]0;title\x07 a\x00b\r\x9b31m \u202egnp.exe\u2066 \ud83d"
NAMES = ("local:some-model-of-a-long-name-base", "local:some-model-of-a-long-name-adapted")

Streams = Callable[..., tuple[io.BytesIO, io.BytesIO]]


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> Streams:
    """Gives a command streams of an encoding, and returns what it writes there."""

    def encoded(encoding: str) -> tuple[io.BytesIO, io.BytesIO]:
        out, err = io.BytesIO(), io.BytesIO()
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(out, encoding, errors="strict"))
        monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(err, encoding, errors="strict"))
        return out, err

    return encoded


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """A run in which the task, the world, the model and the server write what a terminal would obey."""
    ended = branch("0", [turn(HOSTILE, HOSTILE)], "model_error", task=f"t{HOSTILE}", instruction=f"β … {HOSTILE}")
    ended["error"] = f"BadRequestError: {HOSTILE}"
    return run_folder(tmp_path / "run", [ended]).folder


def harmless(text: str) -> bool:
    """Whether a terminal would only show it."""
    return all(character.isprintable() or character in "\n\t" for character in text)


def called(*args: str) -> int:
    """Exit code of a command."""
    try:
        return main(args)
    except SystemExit as ended:
        return int(ended.code or 0)


# ---- what others said


def test_codes_that_a_terminal_obeys_are_spelt_out() -> None:
    """Escape codes, NUL, bells, C1, what turns a text's direction, half a surrogate pair; not what is to be read."""
    assert printable(HOSTILE) == HARMLESS and harmless(HARMLESS)
    assert printable(HARMLESS) == HARMLESS
    for text in ("one\ttwo\nthree", "äöü ß β τ √ 中文 😀 👩‍🚀", "שלום עולם", r"C:\x1b"):
        assert printable(text) == text


def test_show_prints_no_codes(hostile: Path, said: Streams) -> None:
    """Whoever wrote them: they are shown as escapes, where they stood."""
    out, _ = said("utf-8")
    assert main(["show", str(hostile)]) == 0
    shown = out.getvalue().decode()
    assert harmless(shown) and shown.count(HARMLESS) == 5
    assert f"END model_error: BadRequestError: {HARMLESS}" in shown or f": BadRequestError: {HARMLESS}" in shown


def test_a_transcript_holds_no_codes(hostile: Path) -> None:
    """For who prints it in Python."""
    from leafe_graph import RunFolder

    assert harmless(transcript(RunFolder(hostile).branches))


def test_errors_and_log_lines_print_no_codes(hostile: Path, said: Streams) -> None:
    """What is told of a file that holds them, of a flag, and what a module logs."""
    _, err = said("utf-8")
    assert called("show", str(hostile), "--task", HOSTILE.replace("\x00", "").replace("\ud83d", "")) == 2
    assert called("explore", "--out", "r", "--model", "m", "--split", "\x1b[2J") == 2
    assert called("explore", "--out", "r", "--model", "m", "--\x1b[2J", "x") == 2
    assert called("\x1b[2J") == 2
    record = logging.LogRecord("leafe_graph", logging.WARNING, "f.py", 1, "the server says %s", (HOSTILE,), None)
    streams.LogHandler().emit(record)
    told = err.getvalue().decode()
    assert harmless(told) and "\\x1b[2J" in told and f"the server says {HARMLESS}" in told


def test_an_error_that_nobody_foresaw_prints_no_codes(said: Streams, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its traceback ends with what a server said."""
    _, err = said("utf-8")
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    streams.ready()
    error = RuntimeError(HOSTILE)
    sys.excepthook(type(error), error, None)
    assert err.getvalue().decode() == f"RuntimeError: {HARMLESS}\n"


def test_what_is_printed_is_no_markup_and_no_code(said: Streams) -> None:
    """In lines, titles, heads and cells alike: a name in brackets is a name."""
    out, _ = said("utf-8")
    name = f"[red]a[/b] :bug: {HOSTILE}"
    table = Table(name, title=name)
    table.add_row(name)
    console = Terminal()
    console.width = 200
    console.print(name)
    console.print(table)
    shown = out.getvalue().decode()
    assert harmless(shown) and shown.count(f"[red]a[/b] :bug: {HARMLESS}") == 4


def test_a_policy_may_have_any_name_in_a_plot(tmp_path: Path) -> None:
    """Codes, the formula that a dollar would begin, an underscore, which matplotlib leaves out: all are shown."""
    figure = pytest.importorskip("matplotlib.figure")
    from leafe_graph.evaluation.plots import plot

    seen = []
    draw = figure.Figure.savefig

    def saved(self: Any, *args: Any, **kwargs: Any) -> None:
        seen.extend(text.get_text() for text in self.axes[0].get_legend().get_texts())
        draw(self, *args, **kwargs)

    result = result_from_branches([branch("0", [turn("o", "a")], "success")], policy="p")
    names = ["_base", r"$\frac", "a\x1b[2Jb"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figure.Figure, "savefig", saved)
        plot([result.model_copy(update={"policy": name}) for name in names], tmp_path / "plot.png")
    assert seen == ["_base", r"\$\frac", r"a\x1b[2Jb"]


# ---- what the terminal cannot show


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp437"])
def test_every_help_is_shown_where_output_is_not_utf8(encoding: str, said: Streams) -> None:
    """A character that the terminal lacks is an escape."""
    for command in ("", *Leafe.model_fields):
        out, err = said(encoding)
        assert called(*filter(None, [command]), "--help") == 0, command
        assert out.getvalue().startswith(b"usage: leafe") and err.getvalue() == b""


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_trees_tables_and_errors_are_shown_where_output_is_not_utf8(
    encoding: str, hostile: Path, said: Streams
) -> None:
    """And a table's lines stay of one length."""
    out, err = said(encoding)
    assert main(["show", str(hostile)]) == 0
    assert rb"\u03b2 \u2026" in out.getvalue()
    assert main(["show", str(hostile), "--task", "中"]) == 2
    assert rb"'\u4e2d'" in err.getvalue()
    out, _ = said(encoding)
    assert main(["envs"]) == 0
    table = Table("β", title="τ")
    table.add_row("中")
    Terminal().print(table)
    lines = out.getvalue().decode(encoding).splitlines()[-5:]
    assert [line.strip() for line in lines] == ["+--------+", r"| \u03b2 |", "|--------|", r"| \u4e2d |", "+--------+"]


def test_the_users_own_choice_of_replacement_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """PYTHONIOENCODING=ascii:replace."""
    stream = io.TextIOWrapper(io.BytesIO(), "ascii", errors="replace")
    monkeypatch.setattr(sys, "stdout", stream)
    streams.ready()
    assert stream.errors == "replace"


def test_text_files_are_read_and_written_in_utf8_whatever_the_locale() -> None:
    """A terminal that is not UTF-8 comes with a locale that is not, by which Python would take files too."""
    found = []
    for file in (each for folder in ("leafe_graph", "envs", "finetune") for each in (ROOT / folder).rglob("*.py")):
        for call in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not isinstance(call, ast.Call):
                continue
            name = getattr(call.func, "attr", getattr(call.func, "id", ""))
            mode = [part.value for part in call.args if isinstance(part, ast.Constant)][-1:]
            opens = name == "open" and re.fullmatch("[rwax]+?", str(*mode)) is not None
            told = any(keyword.arg == "encoding" for keyword in call.keywords)
            if not told and (opens or name == "write_text" or (name == "read_text" and not call.args)):
                found.append(f"{file.relative_to(ROOT)}:{call.lineno}")
    assert not found, found


# ---- a reader that goes away, a full disk


@pytest.fixture
def unread() -> Iterator[Callable[[], io.TextIOWrapper]]:
    """Makes streams into a pipe that nobody reads."""
    opened = []

    def stream() -> io.TextIOWrapper:
        reading, writing = os.pipe()
        os.close(reading)
        opened.append(os.fdopen(writing, "w", encoding="utf-8"))
        return opened[-1]

    yield stream
    for each in opened:
        each.close()


@pytest.mark.parametrize("args", [["envs"], ["--help"], ["explore", "--help"], ["show", "run"], ["ply"]])
def test_output_that_nobody_reads_changes_nothing(
    args: list[str], hostile: Path, unread: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Piped into ``head``: quiet, to the last flush, and the exit code is the command's own."""
    monkeypatch.chdir(hostile.parent)
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, unread())
    assert called(*args) == (2 if args == ["ply"] else 0)
    sys.stdout.flush()
    sys.stderr.flush()  # as the interpreter does at its end


def test_nothing_goes_to_standard_output_in_place_of_a_closed_standard_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As ``2>&-`` leaves it."""
    monkeypatch.setattr(sys, "stderr", None)
    assert main(["ply"]) == 2
    assert capsys.readouterr().out == ""


def test_work_goes_on_when_nobody_reads(unread: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """A console whose reader has gone is silent, a bar on it too."""
    monkeypatch.setattr(sys, "stderr", unread())
    terminal = Terminal(stderr=True)
    monkeypatch.setattr(terminal, "_force_terminal", True)
    monkeypatch.setattr(bar, "errors", terminal)
    with bar.Bar("explore", 2) as drawn:
        for done in (1, 2):
            drawn.update(done, ["won"])
            terminal.print("a line")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_output_that_cannot_be_written_is_an_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A full disk behind ``>``: told in a line, and the exit code is not 0."""
    with open("/dev/full", "w", encoding="utf-8") as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert main(["envs"]) == 2
        with pytest.raises(LeafeError, match="No space left on device"):
            Terminal().print("x")
        streams.flush()
    assert "cannot be written: No space left on device" in capsys.readouterr().err


# ---- little room


@pytest.mark.parametrize("width", [20, 30, 40, 60, 80, 200])
def test_numbers_stay_whole_and_names_can_be_told_apart(width: int) -> None:
    """However narrow: names are folded, nothing is left out; what fits into the width does not go beyond it."""
    first, second = NAMES
    gains = [Difference(k=k, first=0.5, second=1.0, difference=0.5, low=-0.1, high=0.875, p=0.0312) for k in (1, 16)]
    terminal = Terminal()
    terminal.width = width
    with terminal.capture() as capture:
        terminal.print(Comparison(first=first, second=second, tasks=12, differences=gains).table())
    lines = capture.get().splitlines()
    shown = " ".join(" ".join(lines).replace("│", " ").split())
    for number, times in (("100.0", 2), ("50.0", 2), ("+50.0", 2), ("[-10.0,", 2), ("+87.5]", 2), ("0.0312", 2)):
        assert shown.split().count(number) == times, number
    assert "…" not in shown
    heads = [line.split("┃") for line in lines if "┃" in line]
    assert {"".join(head[column].strip() for head in heads) for column in (2, 3)} == {first, second}
    if width >= 60:
        assert max(map(len, lines)) <= width


def test_words_of_heads_stay_whole_where_there_is_room() -> None:
    """A head of two words is broken between them before a word is broken."""
    table = Table("round", "Pass@1", "Pass@2", "env steps")
    table.add_row("0", "37.5 [16.7, 62.5]", "50.0 [25.0, 75.0]", "755")
    terminal = Terminal()
    terminal.width = 58
    with terminal.capture() as capture:
        terminal.print(table)
    lines = capture.get().splitlines()
    assert max(map(len, lines)) <= 58
    assert {"round", "env", "steps"} <= {word for line in lines for word in line.replace("┃", " ").split()}


@pytest.mark.parametrize(
    ("width", "shows", "bar_drawn"),
    [
        (200, ["won", "branches", "steps/s", "tokens/s"], True),
        (100, ["won", "branches", "steps/s", "tokens/s"], False),
        (80, ["won", "branches", "steps/s"], False),
        (60, ["won"], False),
        (40, [], False),
    ],
)
def test_progress_keeps_totals_and_times(
    width: int, shows: list[str], bar_drawn: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """First the bar goes, then speeds, then the counts of branches."""
    out = io.StringIO()
    monkeypatch.setattr(bar, "errors", Console(file=out, width=width, force_terminal=True, color_system=None))
    with bar.Bar("evaluate", 1234) as drawn:
        drawn.update(617, ["1200 won", "12345 branches", "123.4 steps/s", "123456 tokens/s"])
    line = out.getvalue().rpartition("\x1b[2K")[2].partition("\n")[0]
    assert len(line) <= width
    assert "evaluate" in line and "617/1234" in line and "0:00:00 left" in line
    assert [word for word in ("won", "branches", "steps/s", "tokens/s") if word in line] == shows
    assert ("━" in line) == bar_drawn


def test_items_are_given_one_by_one_as_a_bar_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each counts when the next is asked for."""
    out = io.StringIO()
    monkeypatch.setattr(bar, "errors", Console(file=out, width=80, force_terminal=True, color_system=None))
    assert [*bar.track("abc", "play")] == ["a", "b", "c"]
    assert "play" in out.getvalue() and "0/3" in out.getvalue() and "3/3" in out.getvalue()


def test_no_bar_is_drawn_into_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where its lines would pile up."""
    out = io.StringIO()
    monkeypatch.setattr(bar, "errors", Console(file=out))
    with bar.Bar("evaluate", 2) as drawn:
        drawn.update(1, [])
    assert [*bar.track([1], "play")] == [1]
    assert out.getvalue() == ""


def test_a_word_that_is_nearly_right_gets_a_suggestion() -> None:
    """And one that is not gets none."""
    assert did_you_mean("sokobn", ["webshop", "sokoban"]) == "; did you mean 'sokoban'?"
    assert did_you_mean("chess", ["webshop", "sokoban"]) == ""
