"""Rounds whose policy plays in workers end with the very weights of a run in one process."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from clusters import cluster, forest, gone, growers

from leafe_graph.cli.main import main
from leafe_graph.models.identity import digest_of_weights
from leafe_graph.tree.run_folder import RunFolder

pytest.importorskip("torch")

FILE = """\
model: local:{model}
env: sokoban
env_options: {{size: 6, boxes: 1, min_moves: 2, max_moves: 5, view: coordinates, end_on_deadlock: true}}
prompts: leafe_graph.envs.sokoban.coordinates:PROMPTS
max_turns: 8
max_tokens: 1
history: 0
rounds: 2
patience: null
batch_invariant: true
{where}
explore: {{tasks: 8, max_branches: 3, max_depth: 2, experience_turns: 1, reflect_max_tokens: 8, concurrency: 4}}
train: {{epochs: 1, batch_size: 8, micro_batch_size: 8}}
eval: {{tasks: 2, samples: 1}}
"""


@pytest.fixture(scope="module")
def ray() -> Iterator[Any]:
    """A cluster."""
    with cluster() as made:
        yield made


def rounds(folder: Path, where: str) -> Path:
    """Two rounds with the tiny policy on Sokoban."""
    from leafe_graph.envs.sokoban.tiny import TINY_POLICY

    folder.mkdir()
    (folder / "rounds.yaml").write_text(FILE.format(model=TINY_POLICY, where=where))
    assert main(["run", str(folder / "rounds.yaml"), "--out", str(folder / "out")]) == 0
    return folder / "out"


def test_two_workers_leave_the_adapter_of_one_process(ray: Any, tmp_path: Path) -> None:
    """Explored, judged and learned twice; answers that are computed by themselves do not depend on who asks beside."""
    alone = rounds(tmp_path / "alone", "")
    many = rounds(tmp_path / "many", f"workers: 2\nray: {ray.address}")
    for number in (1, 2):
        played = [RunFolder(out / f"round-{number}") for out in (alone, many)]
        assert forest(played[0]) == forest(played[1])
        adapters = [digest_of_weights(out / f"round-{number}/adapter") for out in (alone, many)]
        assert adapters[0] == adapters[1] is not None
    assert gone(growers)
