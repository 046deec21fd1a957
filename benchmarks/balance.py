"""Choosing one of many servers: what it costs, and how even they are.

    git show REVISION:leafe_graph/models/balanced.py > build/before.py
    python benchmarks/balance.py --before build/before.py

Processor time of a choice and its end; then the requests of the busiest server over the mean, where as many processes
as are named each choose for tasks of their own and know of no other's. Each task has one request in flight.
"""

import argparse
import importlib.util
import sys
import time
from pathlib import Path
from typing import Any

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
