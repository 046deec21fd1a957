"""`explore` keeps its decision points where it is told to: a saver, what opens one, a database's address."""

import traceback
from pathlib import Path
from typing import Any

import pytest
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from postgres import Server
from worlds import PIT, forest, pit_reply

from leafe_graph.errors import ConfigError
from leafe_graph.exploration.explore import explore
from leafe_graph.testing import GridWorld, ScriptedModel
from leafe_graph.tree.run_folder import RunFolder


def run(out: Path, checkpointer: Any = None) -> RunFolder:
    """A tree of two branches: a lost one, and the fork that wins."""
    return explore(ScriptedModel(reply=pit_reply), GridWorld, [PIT], out=out, checkpointer=checkpointer)


def test_saver_is_opened_in_the_runs_own_event_loop(tmp_path: Path) -> None:
    """An asynchronous saver belongs to a loop, so explore takes what opens it; the same tree as without."""
    file = tmp_path / "mine.sqlite"
    given = run(tmp_path / "given", AsyncSqliteSaver.from_conn_string(str(file)))
    assert forest(given.branches) == forest(run(tmp_path / "default").branches)
    assert not (tmp_path / "given" / "checkpoints.sqlite").exists()
    with SqliteSaver.from_conn_string(str(file)) as saver:
        assert {tuple_.config["configurable"]["thread_id"] for tuple_ in saver.list(None)} == {
            given.branches[0]["thread_id"]
        }


def test_decision_points_are_kept_in_postgresql(tmp_path: Path, postgres_server: Server) -> None:
    """By its address: tables are made where they are missing, and a second run finds them."""
    address = postgres_server.new_database()
    first, second = (run(tmp_path / name, address) for name in ("first", "second"))
    assert forest(first.branches) == forest(second.branches) == forest(run(tmp_path / "default").branches)
    assert not (tmp_path / "first" / "checkpoints.sqlite").exists()
    assert address not in (tmp_path / "first" / "config.json").read_text()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("mysql://secret@host/db", "begins with 'mysql'; expected postgresql://"),
        ("", "expected postgresql://"),
        (7, "checkpointer is 'int'; expected a checkpoint saver"),
        (SqliteSaver.from_conn_string, "checkpointer is 'method'"),
        ("postgresql://127.0.0.1:9/db", "cannot be opened: .*127.0.0.1"),
        ("postgresql://me:a%secret@127.0.0.1:9/db", "cannot be opened: .* %25 for %"),
        ("postgresql://me:a@secret@127.0.0.1:9/db", "cannot be opened: .* %40 for @"),
        ("postgresql+langgraph://me:a secret@127.0.0.1:9/db", "cannot be opened: .* %20 for a space"),
    ],
)
def test_what_is_no_saver_is_refused(wrong: Any, said: str, tmp_path: Path) -> None:
    """With what was seen and what was expected, and never a password; no folder is made."""
    pytest.importorskip("psycopg", reason='pip install ".[postgres]"')
    with pytest.raises(ConfigError, match=said) as caught:
        run(tmp_path / "run", wrong)
    assert "secret" not in "".join(traceback.format_exception(caught.value))
    assert not (tmp_path / "run").exists()
