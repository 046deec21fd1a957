"""A run's report: one HTML file that needs nothing else."""

import base64
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from ..errors import ConfigError, MissingDependency, NothingPlayed
from ..evaluation.plots import plot
from ..evaluation.results import Result, powers_of_two
from ..evaluation.statistics import ALIKE
from ..files import save_text
from ..tree.branches import causes, frequent, ranked
from ..tree.run_folder import RunFolder
from .ends import ENDS
from .tree_svg import tree_svg


def write_report(run: RunFolder | str | Path, *, trees: int = 6) -> Path:
    """Write ``report.html`` into the run folder: summary, most telling trees, and evaluations if there are any."""
    folder = run if isinstance(run, RunFolder) else RunFolder(run)
    branches = folder.outlines
    ends = Counter(branch.end for branch in branches)
    facts = [
        ("tasks solved", f"{len(folder.solved)} of {len(folder.trees)}"),
        ("branches", f"{len(branches)}, {sum(branch.parent is not None for branch in branches)} of them forked"),
        *((f"branches ended: {name}", str(ends[end])) for end, (_, _, name) in ENDS.items() if ends[end]),
        *(("error", cause) for cause in frequent(causes(branches))),
        *((f"cost: {field.replace('_', ' ')}", f"{amount:,.0f}") for field, amount in folder.cost.items()),
        ("", "seconds are summed over branches, which run side by side"),
    ]
    body = [f"<h1>{escape(folder.folder.resolve().name)}</h1>", _table(facts), _evaluations(folder.folder / "eval")]
    body += ["<h2>Experience trees</h2>"] if branches else ["<p>No branches yet.</p>"]
    body += [
        f"<p>{escape(tree[0]['task']['instruction'])}</p><div>{tree_svg(tree)}</div>" for tree in ranked(folder, trees)
    ]
    page = f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="color-scheme" content="light dark">
<meta name="viewport" content="width=device-width"><title>leafe-graph report</title><style>
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 980px; margin: 2rem auto; padding: 0 1rem; }}
table {{ border-collapse: collapse; margin: 1rem 0; }} td, th {{ border: 1px solid #8884; padding: .25rem .7rem; }}
th {{ text-align: left; font-weight: 500; }} div {{ overflow-x: auto; }} img {{ background: #fff; max-width: 100%; }}
p {{ white-space: pre-wrap; }}
</style></head><body>
{"".join(body)}
</body></html>
"""
    file = folder.folder / "report.html"
    save_text(file, page)
    return file


def _evaluations(folder: Path) -> str:
    """Pass@k of every saved result, as a table and, with matplotlib, as curves."""
    results, notes = [], []
    for file in sorted(folder.glob("*.json")):
        try:
            result = Result.load(file)
            result.per_task(1)  # refuses where every sample failed
            results.append(result)
        except ConfigError as error:
            if '"pass_at_k"' in file.read_text(encoding="utf-8", errors="replace"):  # comparisons lie there too
                notes.append(str(error))
        except NothingPlayed as error:
            notes.append(str(error))
    notes += [warning for result in results if (warning := result.warning)]
    if not results:
        return "".join(f"<p>{escape(note)}</p>" for note in notes)
    ks = powers_of_two(min(result.n for result in results))
    rows = [("policy", *(f"Pass@{k}, %" for k in ks))]
    shown = [result.curve(ks) for result in results]
    rows += [(result.policy, *map(str, curve)) for result, curve in zip(results, shown, strict=True)]
    notes += [ALIKE] if any(estimate.alike for curve in shown for estimate in curve) else []
    try:
        with tempfile.TemporaryDirectory() as scratch:
            picture = base64.b64encode(plot(results, Path(scratch) / "curve.svg").read_bytes()).decode()
        curves = f'<img alt="Pass@k over k" src="data:image/svg+xml;base64,{picture}">'
    except MissingDependency as error:
        curves = f"<p>No curves: {escape(str(error))}</p>"
    below = "".join(f"<p>{escape(note)}</p>" for note in notes)
    return f"<h2>Evaluations, with 95% intervals over tasks</h2><div>{_table(rows)}</div>{below}{curves}"


def _table(rows: Iterable[Sequence[str]]) -> str:
    cells = (
        f"<tr><th>{escape(row[0])}</th>" + "".join(f"<td>{escape(cell)}</td>" for cell in row[1:]) + "</tr>"
        for row in rows
    )
    return f"<table>{''.join(cells)}</table>"
