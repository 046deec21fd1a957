"""A real vLLM server: base and adapters, exploration, the next round's adapter, and its end. ``make serve-test``."""

import os
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from rows import row, write

from leafe_graph.dataset.examples import examples
from leafe_graph.exploration.explore import explore
from leafe_graph.finetune import TrainConfig
from leafe_graph.finetune.tokens import read_examples, token_id_counts, tokenize
from leafe_graph.finetune.train import train
from leafe_graph.models.embedded import embedded_model_path
from leafe_graph.models.load import load_model
from leafe_graph.serve.server import VllmServer
from leafe_graph.settings import Limits
from leafe_graph.testing import SnapshotGridWorld, grid_tasks
from leafe_graph.types import Task

PYTHON = os.environ.get("LEAFE_VLLM_PYTHON")
pytestmark = [
    pytest.mark.embedded,
    pytest.mark.skipif(PYTHON is None, reason="needs vLLM, named by LEAFE_VLLM_PYTHON: make serve-test"),
]
for module in ("torch", "peft", "langchain_openai"):
    pytest.importorskip(module, reason='pip install ".[train,openai]"')

MODEL = "local:smollm2-135m"
PATIENCE = 1800.0
"""Seconds: a busy machine is slow, not broken."""
EPISODES = 16
PROMPTS = [
    [{"role": "system", "content": task["instruction"]}, {"role": "user", "content": observation}]
    for task, observation in ((task, SnapshotGridWorld().reset(seed=task["seed"])[0]) for task in grid_tasks(4))
]


def trained(folder: Path, word: str, adapter: Path | None = None) -> Path:
    """An adapter that says ``word`` wherever the walker stands."""
    rows = [{**row(action=word), "prompt": prompt} for prompt in PROMPTS]
    config = TrainConfig(
        model=MODEL,
        adapter=adapter,
        data=[write(folder / f"{word}.jsonl", rows)],
        out=folder / word,
        layers_to_transform=None if adapter else [*range(20, 30)],
        learning_rate=1e-3,
        lr_schedule="constant",
        batch_size=4,
        max_steps=8,
        backend="peft",
    )
    return train(config).adapter


@pytest.fixture(scope="module")
def starting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Future[VllmServer]]:
    """The one server of these tests, which starts while adapters are trained; the last test stops it."""
    folder = tmp_path_factory.mktemp("serve")
    server = VllmServer(MODEL, python=PYTHON, folder=folder, start_timeout=PATIENCE, drain_timeout=PATIENCE)
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(server.start)
        yield future
        future.exception()  # what has not begun yet cannot be stopped
        server.stop()


@pytest.fixture(scope="module")
def adapters(starting: Future[VllmServer], tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Those of two rounds, the second trained on from the first."""
    folder = tmp_path_factory.mktemp("adapters")
    first = trained(folder, "right")
    return [first, trained(folder, "down", first)]


@pytest.fixture(scope="module")
def server(starting: Future[VllmServer], adapters: list[Path]) -> VllmServer:
    """The server, healthy."""
    return starting.result()


def said(model: Any) -> list[str]:
    """The answers to the prompts, those of the most probable tokens."""
    return [answer.text for answer in model.batch(PROMPTS)]


GREEDY = {"temperature": 0, "max_tokens": 4}


def test_base_and_adapter_answer_as_in_our_own_process(server: VllmServer, adapters: list[Path]) -> None:
    """Word for word; and the adapter says what it was taught, which the base does not."""
    name = server.load_adapter(adapters[0], name="round-1")
    base, adapted = (said(server.model(called, **GREEDY)) for called in (None, name))
    assert all(answer.startswith("right") for answer in adapted)
    assert not any(answer.startswith("right") for answer in base)
    for answers, adapter in ((base, None), (adapted, str(adapters[0]))):
        with load_model(MODEL, adapter=adapter, **GREEDY) as local:  # type: ignore[attr-defined]
            assert answers == said(local)


class Together(SnapshotGridWorld):
    """Its episodes wait for each other at the start."""

    starts = threading.Barrier(EPISODES, timeout=PATIENCE)
    started = False

    def reset(self, **kwargs: Any) -> Any:
        """Wait until all are here; later episodes in the same world begin at once."""
        if not self.started:
            self.started = True
            self.starts.wait()
        return super().reset(**kwargs)


def test_sixteen_episodes_explore_at_once(server: VllmServer, adapters: list[Path], tmp_path: Path) -> None:
    """Trees grow for all of them, by what the adapter was taught, and no call fails."""
    model = server.model(server.load_adapter(adapters[0], name="round-1"), temperature=0.5)
    run = explore(
        model,
        Together,
        grid_tasks(EPISODES),
        out=tmp_path / "run",
        limits=Limits(max_branches=1),
        max_turns=2,
        max_tokens=3,
        reflect_max_tokens=8,
        timeout=PATIENCE,
        retry=None,
        concurrency=EPISODES,
    )
    assert [branch["error"] for branch in run.branches] == [None] * EPISODES
    actions = [turn["action"] for branch in run.branches for turn in branch["turns"]]
    right = [action for action in actions if action.startswith("right")]
    assert len(actions) >= EPISODES and len(right) > len(actions) / 2
    assert run.cost["completion_tokens"] > len(actions)


def test_more_prompt_than_is_read_at_once(server: VllmServer) -> None:
    """Seeded requests with more prompt tokens together than vLLM reads in a step, 2,048: all are answered."""
    model = server.model(temperature=1.0, max_tokens=1)
    prompts = [f"{n}: " + "push the box " * 80 for n in range(10)]
    answers = model.batch([[("user", prompt)] for prompt in prompts], seed=7)
    assert all(answer.usage_metadata["input_tokens"] > 250 for answer in answers)
    assert [answer.usage_metadata["output_tokens"] for answer in answers] == [1] * 10


def test_the_trainer_takes_the_ids_that_were_sampled(server: VllmServer, adapters: list[Path], tmp_path: Path) -> None:
    """Those of every row of an exploration, as they are: its prompts' and its replies', the stop token included."""
    from transformers import AutoTokenizer

    model = server.model(server.load_adapter(adapters[0], name="round-1"), temperature=0, return_prompt_token_ids=True)
    tasks: list[Task] = [{**task, "options": {"start": [1, 1], "goal": [2, 1]}} for task in grid_tasks(2)]
    run = explore(model, SnapshotGridWorld, tasks, out=tmp_path, max_turns=1, max_tokens=8, timeout=PATIENCE)
    rows, summary = examples(run.branches)
    tokenizer = AutoTokenizer.from_pretrained(embedded_model_path())
    file = write(tmp_path / "rows.jsonl", rows)
    tokenized = tokenize(read_examples([file]), tokenizer, stop_ids=[tokenizer.eos_token_id], max_length=1000)
    assert summary.rehearsal > 0 and token_id_counts(tokenized) == {"recorded": len(rows)}
    assert [row["prompt_token_ids"] for row in rows] == [row.prompt_ids for row in tokenized]


def test_next_rounds_adapter_needs_no_restart(server: VllmServer, adapters: list[Path]) -> None:
    """It has another name and another answer in the same process, beside the first until that is unloaded."""
    process = server._guard
    first, second = (server.load_adapter(path, name=f"round-{n}") for n, path in enumerate(adapters, 1))
    names = [server.base, "smollm2-135m"]  # with the digest of its weights, and as people call it
    assert server.models() == [*names, first, second]
    for name, word in ((second, "down"), (first, "right")):
        assert all(answer.startswith(word) for answer in said(server.model(name, **GREEDY)))
    server.unload_adapter(first)
    assert server.models() == [*names, second]
    assert server._guard is process is not None and process.poll() is None


def test_server_is_gone_afterwards(server: VllmServer) -> None:
    """What it was asked is still answered; then there is neither a process nor an open port."""
    guard, port = server._guard, int(server.url.removesuffix("/v1").rpartition(":")[2])
    assert guard is not None
    group = descendants(guard.pid)
    assert len(group) >= 3  # the server, its engine and its worker
    answers: list[Any] = []
    model = server.model(temperature=1.0, max_tokens=40, extra_body={"ignore_eos": True})
    caller = threading.Thread(target=lambda: answers.append(model.invoke("Tell me a story.")))
    caller.start()
    running(server)
    server.stop()
    caller.join(PATIENCE)
    assert answers[0].usage_metadata["output_tokens"] == 40
    assert not [pid for pid in group if Path(f"/proc/{pid}").exists()]
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0


def descendants(pid: int) -> list[int]:
    """The process ids below one."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
        except OSError:  # it has ended
            continue
    below, found = [pid], []
    while below:
        below = [child for child, parent in parents.items() if parent in below]
        found += below
    return found


def running(server: VllmServer) -> None:
    """Wait until the server computes a request."""
    import time

    from leafe_graph.serve.server import _request

    deadline = time.monotonic() + PATIENCE
    while True:
        lines = _request(f"{server.url.removesuffix('/v1')}/metrics").decode().splitlines()
        if any(line.startswith("vllm:num_requests_running") and float(line.split()[-1]) > 0 for line in lines):
            return
        assert time.monotonic() < deadline
        time.sleep(0.05)
