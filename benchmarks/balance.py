"""Choosing one of many servers: what it costs, how even they are, and what asking one costs.

    git show REVISION:leafe_graph/models/balanced.py > build/before.py
    python benchmarks/balance.py --before build/before.py

Processor time of a choice and its end; then the requests of the busiest server over the mean, where as many processes
as are named each choose for tasks of their own and know of no other's. Each task has one request in flight. At last the
processor time of a call over HTTP, the client's side alone, beside the same of LangChain's model that answers at once.
"""

import argparse
import asyncio
import importlib.util
import json
import multiprocessing
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from langchain_core.language_models import FakeListChatModel

from leafe_graph.models.load import load_model

SERVERS = (4, 64, 1000)
A_SERVER = 32
"""Requests in flight, in the mean."""


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, help="another state of leafe_graph/models/balanced.py")
    parser.add_argument("--processes", type=int, nargs="*", default=[1, 64])
    given = parser.parse_args()
    kinds = {"now": _servers(None)} | ({"before": _servers(given.before)} if given.before else {})
    known = " | ".join(f"busiest over mean, {n} process{'es' * (n > 1)}" for n in given.processes)
    print(f"| | servers | CPU µs a choice | {known} |\n|---|{'---:|' * (2 + len(given.processes))}", flush=True)
    for number in SERVERS:
        for name, servers in kinds.items():
            shares = [f"{_busiest(servers, number, processes):.2f}" for processes in given.processes]
            print(f"| {name} | {number:,} | {_cost(servers, number):,.1f} | {' | '.join(shares)} |", flush=True)
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    server = context.Process(target=_serve, args=(theirs,), daemon=True)
    server.start()
    called = asyncio.run(_calls(load_model(f"vllm:m@http://127.0.0.1:{ours.recv()}/v1")))
    plain = asyncio.run(_calls(FakeListChatModel(responses=["down"])))
    server.terminate()
    print(f"\na call over HTTP: {called * 1e3:.2f} ms of processor time; without HTTP: {plain * 1e3:.2f}")


def _serve(pipe: Any) -> None:
    """A server of one answer."""
    message = {"role": "assistant", "content": "down"}
    answer = {"id": "1", "object": "chat.completion", "created": 0, "model": "m"} | {
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 700, "completion_tokens": 1, "total_tokens": 701},
    }
    body = json.dumps(answer).encode()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: Any) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    pipe.send(http.server_port)
    http.serve_forever()


async def _calls(model: Any) -> float:
    """Processor seconds of a call, four at once, with a prompt of 3,200 characters."""

    async def some(number: int) -> None:
        for _ in range(number):
            await model.ainvoke([("system", "Walk."), ("user", _key(0) * 3)])

    await some(20)
    started = time.process_time()
    await asyncio.gather(*(some(100) for _ in range(4)))
    return (time.process_time() - started) / 400


def _servers(file: Path | None) -> Any:
    name = "leafe_graph.models.balanced"
    if file is None:
        return importlib.import_module(name).Servers
    spec = importlib.util.spec_from_file_location(f"{name}_before", file)
    assert spec and spec.loader
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Servers


def _urls(number: int) -> list[str]:
    return [f"http://10.0.{at // 250}.{at % 250}:8000/v1" for at in range(number)]


def _key(task: int) -> str:
    return f"task {task} " + "You are in the middle of a room. " * 30


def _cost(servers: Any, number: int) -> float:
    """Microseconds of processor time, of tasks that are at their thirty-first turn."""
    chosen = servers(_urls(number))
    keys = [_key(task) for task in range(16)]
    choices = [key for _ in range(31) for key in keys]
    for key in choices[:16]:
        chosen.give_back(chosen.take(key), well=True)
    started = time.process_time()
    for key in choices[16:]:
        chosen.give_back(chosen.take(key), well=True)
    return (time.process_time() - started) / (len(choices) - 16) * 1e6


def _busiest(servers: Any, number: int, processes: int) -> float:
    """After each task has come to its third turn, the tasks of a process one after the other."""
    urls = _urls(number)
    total = dict.fromkeys(urls, 0)
    for process in range(processes):
        chosen, tasks = servers(urls), range(process, A_SERVER * number, processes)
        at: dict[int, str] = {}
        for _ in range(3):
            for task in tasks:
                if task in at:
                    chosen.give_back(at[task], well=True)
                at[task] = chosen.take(_key(task))
        for url in at.values():
            total[url] += 1
    return max(total.values()) / A_SERVER


if __name__ == "__main__":
    main()
