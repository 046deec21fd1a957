#!/usr/bin/env python3
"""What a GPU does with this project, in one command of a few minutes: JSON and a table of all that was measured.

    python scripts/gpu_check.py --dry-run                     # all parts at toy size, on a CPU
    python scripts/gpu_check.py --carry wheels                # what to take along, where packages can be had
    python scripts/gpu_check.py --wheels wheels --out FOLDER  # needs torch, transformers, peft and accelerate there

Each part runs in a process of its own and is stopped when its share of the time is spent: a crash, memory that does
not suffice, or a hang costs that part alone. `results.json` and `table.md` in the folder are written anew after each. A
part is "ok", "skipped" (what it needs is not installed), "stopped" (what it measured until then is kept) or "failed";
the exit status is 0 if all are ok or skipped.

The parts: `model` makes a model of Qwen2.5-7B's shape with random weights and rows like ALFWorld's; `plain`, `ours` and
`trl` train LoRA on them and must have the same losses; `numerics` holds number formats and merging against each other;
`tree` tells what running shared prefixes once gains; `policy` teaches the tiny language policy, ten times larger than
it comes, and `loop` is `leafe bench` with it.
"""

import argparse
import gc
import json
import math
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

HEAVY = [
    "torch",
    "transformers.models.qwen2.modeling_qwen2",
    "transformers.models.llama.modeling_llama",
    "peft",
    "matplotlib.pyplot",
    "leafe_graph.finetune.train",
    "leafe_graph.bench",
    "leafe_graph.models.local",
    "leafe_graph.agent.graph",
    "leafe_graph.exploration.explore",
    "leafe_graph.phases.evaluate",
]
"""What processes of the dry run are forked with, which saves most of its time. On a GPU they begin afresh: after one
import that touches it no fork could use it."""
PACKAGES = ("leafe-graph", "torch", "transformers", "peft", "accelerate", "trl", "bitsandbytes", "flash-attn")


def main(given: Sequence[str] | None = None) -> int:
    """Run the parts; 0 if all are ok."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/gpu-check"), help="folder of results.json and table.md")
    parser.add_argument("--seconds", type=float, default=540, help="all parts together end within so many")
    parser.add_argument("--parts", help="some of them, with commas between; all unless given")
    parser.add_argument("--dry-run", action="store_true", help="toy sizes, on the CPU")
    parser.add_argument("--wheels", type=Path, help="folder of wheels to install beside the packages that are there")
    parser.add_argument("--work", type=Path, help="folder for model and runs, kept; a temporary one unless given")
    parser.add_argument("--tasks", type=int, help="whose rows are trained on, two branches each")
    parser.add_argument("--turns", type=int, help="of a branch")
    parser.add_argument("--levels", type=int, help="of Sokoban, that the bench judges on")
    parser.add_argument("--samples", type=int, help="of each level: n of Pass@k")
    parser.add_argument("--policy", type=Path, help="a policy of the part `policy`, in place of one that is taught")
    parser.add_argument(
        "--peak", type=float, help="the chip's TFLOP/s in bfloat16; a matrix product tells unless given"
    )
    parser.add_argument("--carry", type=Path, help="put into this folder what --wheels takes, and end")
    parser.add_argument("--also", default="trl,bitsandbytes", help="--carry: wanted if they fit with what they need")
    parser.add_argument(
        "--there", default="", help="--carry: packages that are there beside the four and what they need"
    )
    parser.add_argument("--mib", type=float, default=56, help="--carry: all wheels together, at most")
    parser.add_argument("--python", default="3.12", help="--carry: for this Python")
    arguments = parser.parse_args(given)
    if arguments.carry:
        from gpu_carry import carry

        also, there = (list(filter(None, names.split(","))) for names in (arguments.also, arguments.there))
        return carry(arguments.carry, also, there=there, mib=arguments.mib, python=arguments.python)
    arguments.out = arguments.out.absolute()
    arguments.out.mkdir(parents=True, exist_ok=True)
    ends = time.time() + arguments.seconds
    if arguments.dry_run:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    with tempfile.TemporaryDirectory() as temporary:
        if arguments.wheels:
            install(arguments.wheels, f"{temporary}/site")
        return check(arguments, (arguments.work or Path(temporary, "work")).absolute(), ends)


def install(folder: Path, site: str) -> None:
    """Put the wheels of a folder where this process and all that it starts find them first."""
    wheels = sorted(folder.glob("*.whl"))
    if not wheels:
        sys.exit(f"--wheels: no wheels in {folder}; --carry makes such a folder")
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps", "--no-compile", "--target", site]
    subprocess.run([*pip, *map(str, wheels)], check=True)
    sys.path.insert(0, site)
    os.environ["PYTHONPATH"] = os.pathsep.join([site, *filter(None, [os.environ.get("PYTHONPATH")])])


def check(arguments: argparse.Namespace, work: Path, ends: float) -> int:
    """All parts that were asked for, one after the other."""
    import torch
    from gpu_parts import PARTS
    from gpu_shapes import DRY, FULL

    if not (arguments.dry_run or torch.cuda.is_available()):
        sys.exit("PyTorch sees no GPU here; --dry-run runs all parts at toy size on the CPU")
    wanted = arguments.parts.split(",") if arguments.parts else [*PARTS]
    if strange := {*wanted} - PARTS.keys():
        sys.exit(f"--parts: there is no {', '.join(sorted(strange))}; expected some of {', '.join(PARTS)}")
    own = {name: getattr(arguments, name) for name in ("tasks", "turns", "levels", "samples")}
    sizes = replace(DRY if arguments.dry_run else FULL, **{name: n for name, n in own.items() if n})
    work.mkdir(parents=True, exist_ok=True)
    if arguments.policy:
        shutil.copytree(arguments.policy, work / "policy", dirs_exist_ok=True)
        wanted = [name for name in wanted if name != "policy"]
    name = "CPU" if arguments.dry_run else torch.cuda.get_device_name()
    found: dict[str, Any] = {
        "command": " ".join(sys.argv),
        "device": name,
        "dry_run": arguments.dry_run,
        "versions": versions(),
        "parts": {},
    }
    context: Any = multiprocessing.get_context("forkserver" if arguments.dry_run else "spawn")
    heavy = HEAVY if arguments.dry_run else []
    multiprocessing.set_forkserver_preload(heavy)
    order = [part for part in PARTS if part in wanted]
    for at, part in enumerate(order):
        weights = [PARTS[each][1] for each in order[at:]]
        share = max(0.0, ends - time.time()) * weights[0] / sum(weights)
        found["parts"][part] = run(context, part, (work, sizes, heavy), share, arguments.out)
        judge(found, arguments.peak)
        save(found, arguments.out)
        print(f"{part}: {found['parts'][part]['status']} {found['parts'][part].get('error', '')}", flush=True)
    print((arguments.out / "table.md").read_text(encoding="utf-8"))
    return 0 if found["ok"] else 1


def versions() -> dict[str, str | None]:
    """Of what matters; None where it is not installed."""

    def of(package: str) -> str | None:
        try:
            return version(package)
        except PackageNotFoundError:
            return None

    return {package: of(package) for package in PACKAGES}


def run(context: Any, part: str, told: tuple[Any, ...], share: float, out: Path) -> dict[str, Any]:
    """A part in a process of its own, for at most so many seconds; its lines, and how it went."""
    lines, log = out / f"{part}.jsonl", out / f"{part}.log"
    lines.write_text("")
    started = time.time()
    process = context.Process(target=work_on, args=(part, started + 0.9 * share, lines, log, *told))
    process.start()
    try:
        process.join(share)
    finally:  # after Ctrl-C, too
        if stopped := process.is_alive():
            kill(process.pid)
        process.join()
    measured = [json.loads(line) for line in lines.read_text(encoding="utf-8").splitlines()]
    error = next((line["error"] for line in measured if "error" in line), None)
    found = {
        "share": round(share, 1),
        "seconds": round(time.time() - started, 1),
        "lines": [line for line in measured if "error" not in line],
    }
    if not (measured or stopped or process.exitcode):
        error = "it measured nothing"
    if stopped:
        return found | {"status": "stopped", "error": f"its {share:.0f} s were over"}
    if process.exitcode or error:
        return found | {"status": "failed", "error": error or f"its process died (exit code {process.exitcode})"}
    return found | {"status": "ok"}


def kill(group: int) -> None:
    """End a part's process with all that it started."""
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:  # it has only just begun, or ended
        os.kill(group, signal.SIGKILL)


def work_on(part: str, until: float, lines: Path, log: Path, work: Path, sizes: Any, heavy: list[str]) -> None:
    """What a part's process does: a line of JSON for each that it yields, what it prints into its log."""
    from leafe_graph.processes.child import end_with_parent

    os.setsid()
    threading.Thread(target=end_with_parent, daemon=True).start()
    multiprocessing.set_forkserver_preload(heavy)  # of processes that it starts in turn
    with log.open("wb") as out:
        os.dup2(out.fileno(), 1)
        os.dup2(out.fileno(), 2)
    from gpu_parts import PARTS, in_a_line

    gc.freeze()  # collecting what an arm held looks no more at all that was imported
    with lines.open("a", encoding="utf-8") as told:
        try:
            for line in PARTS[part][0](work, sizes, until):
                told.write(json.dumps(line) + "\n")
                told.flush()
        except BaseException as error:
            traceback.print_exc()
            told.write(json.dumps({"error": in_a_line(error)}) + "\n")
            told.flush()
            os._exit(1)


def judge(found: dict[str, Any], peak: float | None) -> None:
    """See which lines are what they should be: the same losses in all arms, a share of the peak that can be."""
    from gpu_parts import TOLERANCE

    parts = found["parts"]
    lines = [line for part in parts.values() for line in part["lines"]]
    product = next((line["TFLOP/s of a matrix product"] for line in lines if line["what"] == "peak"), None)
    peak = peak or product
    trained = [line for line in lines if "model TFLOP/s" in line]
    for line in trained:
        if peak:
            line["share of the peak"] = line["model TFLOP/s"] / peak
        if not line["4 bits"]:  # which is another base
            gaps = [abs(a - b) for a, b in zip(trained[0]["loss"], line["loss"], strict=True)]
            line["off the first's losses by"] = max(gaps, key=lambda gap: (math.isnan(gap), gap))
            if not all(gap <= TOLERANCE for gap in gaps):
                line["failed"] = f"its losses are others than those of the first arm by more than {TOLERANCE:g}"
    for part in parts.values():
        wrong = [line["failed"] for line in part["lines"] if "failed" in line]
        if wrong and part["status"] == "ok":
            part["status"], part["error"] = "failed", f"{len(wrong)} of its lines, the first: {wrong[0]}"
        if part["status"] == "ok" and all("skipped" in line for line in part["lines"]):
            part["status"], part["error"] = "skipped", part["lines"][0]["skipped"]
    found["ok"] = all(part["status"] in ("ok", "skipped") for part in parts.values())


def save(found: dict[str, Any], out: Path) -> None:
    """Write results.json, and table.md: what became of each part, and what each measured."""
    from leafe_graph.files import save_json, save_text
    from leafe_graph.text import markdown_table

    save_json(out / "results.json", found)
    said = ", ".join(f"{package} {told}" for package, told in found["versions"].items() if told)
    size = ": toy sizes, which say nothing of speed" if found["dry_run"] else ""
    text = f"`{found['command']}`\n\n{found['device']}{size}; {said}\n\n"
    heads = ("part", "status", "seconds", "")
    rows = [(name, part["status"], part["seconds"], part.get("error", "")) for name, part in found["parts"].items()]
    text += markdown_table(heads, rows) + "\n"
    for name, part in found["parts"].items():
        if part["lines"]:
            columns = list(dict.fromkeys(key for line in part["lines"] for key in line))
            cells = [[shown(line.get(column)) for column in columns] for line in part["lines"]]
            text += f"\n## {name}: {part['status']}\n\n{markdown_table(columns, cells)}\n"
    save_text(out / "table.md", text)


def shown(value: Any) -> str:
    """A figure as a table has it."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(shown, value))
    return f"{value:,.4g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)


if __name__ == "__main__":
    sys.exit(main())
