"""Exploring against a server: tokens a second, beside a raw client's with the same prompts.

python benchmarks/serve.py --vllm-python VENV/bin/python

Starts a vLLM server on 127.0.0.1 and grows trees on it, some at once, with everything that exploring does: graph,
environment, checkpoints, log. Then OpenAI's own asynchronous client sends the very same requests in the same order, as
many at once, without waiting for an environment or for one answer before the next question. Answers have a fixed
length, and each measurement has a prefix cache of its own.
"""

import argparse
import asyncio
import os
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import BaseMessage, convert_to_openai_messages
from openai import AsyncOpenAI

from leafe_graph import Limits, explore
from leafe_graph.serve.server import VllmServer
from leafe_graph.testing import SnapshotGridWorld, grid_tasks

PATIENCE = 3000.0
"""Seconds that the server may take to start, and for a call: a busy machine is slow, not broken."""


class Recorder(BaseCallbackHandler):
    """Writes the requests down, in the order in which they are made."""

    raise_error = True

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []

    def on_chat_model_start(self, serialized: Any, messages: list[list[BaseMessage]], **kwargs: Any) -> None:
        """One more request."""
        names = ("seed", "temperature", "max_completion_tokens", "max_tokens")
        settings = {n: v for n, v in kwargs["invocation_params"].items() if n in names and v is not None}
        self.requests.append({"messages": convert_to_openai_messages(messages[0]), **settings})


def explored(server: VllmServer, arguments: argparse.Namespace, salt: str) -> tuple[float, int, list[dict[str, Any]]]:
    """Seconds, completion tokens and requests of growing trees."""
    recorder = Recorder()
    model = server.model(temperature=1.0, callbacks=[recorder], extra_body={"cache_salt": salt, "ignore_eos": True})
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        run = explore(
            model,
            SnapshotGridWorld,
            grid_tasks(arguments.tasks),
            out=folder,
            limits=Limits(max_branches=2, max_depth=1),
            max_turns=arguments.turns,
            max_tokens=arguments.max_tokens,
            reflect_max_tokens=arguments.max_tokens,
            timeout=PATIENCE,
            retry=None,  # what is asked twice would be counted twice
            concurrency=arguments.concurrency,
        )
        seconds = time.perf_counter() - started
    if errors := [branch["error"] for branch in run.branches if branch["error"]]:
        raise RuntimeError(f"{len(errors)} branches failed, the first with {errors[0]}")
    return seconds, run.cost["completion_tokens"], recorder.requests


async def raw(server: VllmServer, requests: list[dict[str, Any]], concurrency: int, salt: str) -> tuple[float, int]:
    """Seconds and completion tokens of the same requests alone."""
    waiting: Iterator[dict[str, Any]] = iter(requests)
    tokens = 0

    async def worker(client: AsyncOpenAI) -> None:
        nonlocal tokens
        for request in waiting:
            extra = {"cache_salt": salt, "ignore_eos": True}
            answer = await client.chat.completions.create(model=server.name, extra_body=extra, **request)
            tokens += answer.usage.completion_tokens if answer.usage else 0

    async with AsyncOpenAI(base_url=server.url, api_key="EMPTY", max_retries=0, timeout=PATIENCE) as client:
        started = time.perf_counter()
        await asyncio.gather(*(worker(client) for _ in range(concurrency)))
        return time.perf_counter() - started, tokens


def main() -> None:
    """Print a Markdown table."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the server is stopped too
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vllm-python", default=os.environ.get("LEAFE_VLLM_PYTHON"), help="an interpreter with vLLM")
    parser.add_argument("--model", default="local:smollm2-135m", help="what `leafe serve --model` takes")
    parser.add_argument("--tasks", type=int, default=48)
    parser.add_argument("--concurrency", type=int, default=16)
    parser.add_argument("--turns", type=int, default=4)
    parser.add_argument("--max-tokens", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    if arguments.vllm_python is None:
        print("skipped: needs vLLM; name its environment's python by --vllm-python or LEAFE_VLLM_PYTHON")
        return
    shares = []
    with VllmServer(arguments.model, python=arguments.vllm_python, start_timeout=PATIENCE) as server:
        first = argparse.Namespace(**vars(arguments) | {"tasks": 2, "turns": 1})
        asyncio.run(raw(server, explored(server, first, "warm")[2], 2, "warm"))  # imports, first connections
        print("| requests | tokens | explore, tokens/s | raw client, tokens/s | share |\n|" + "---:|" * 5, flush=True)
        for n in range(arguments.rounds):
            seconds, tokens, requests = explored(server, arguments, f"explore {n}")
            speed = tokens / seconds
            seconds, tokens = asyncio.run(raw(server, requests, arguments.concurrency, f"raw {n}"))
            shares.append(speed * seconds / tokens)
            print(
                f"| {len(requests)} | {tokens} | {speed:.1f} | {tokens / seconds:.1f} | {shares[-1]:.1%} |", flush=True
            )
    print(f"\nmedian share: {statistics.median(shares):.1%}; load {os.getloadavg()[0]:.1f} at the end")


if __name__ == "__main__":
    main()
