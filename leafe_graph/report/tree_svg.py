"""Pictures of experience trees, as SVG.

Time runs to the right and every branch has a line of its own. A dashed arrow leads from where a branch was reflected
upon back to the decision point; from there the next branch forks, with its experience written above it.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape

from ..errors import ConfigError
from ..types import Branch
from .ends import ENDS

_LIGHT = {"card": "#ffffff", "edge": "#d0d7de", "ink": "#1f2328", "dim": "#656d76"}
_LIGHT |= {"good": "#1a7f37", "bad": "#cf222e", "back": "#9a6700", "off": "#8c959f"}
_DARK = {"card": "#151b23", "edge": "#3d444d", "ink": "#f0f6fc", "dim": "#9198a1"}
_DARK |= {"good": "#3fb950", "bad": "#f85149", "back": "#d29922", "off": "#656c76"}


def _colours(of: dict[str, str]) -> str:
    """Plain rules, no CSS variables: not every SVG renderer knows those."""
    rules = f".tree .card {{ fill: {of['card']}; stroke: {of['edge']} }} .tree .rewind {{ stroke: {of['dim']} }}"
    rules += f".tree text {{ fill: {of['ink']}; stroke: {of['card']} }} .tree .dim, .tree .tip {{ fill: {of['dim']} }}"
    for name in ("good", "bad", "back", "off"):
        rules += f".tree .{name} {{ stroke: {of[name]} }} .tree .{name}.dot {{ fill: {of[name]} }}"
    return rules + f".tree .mark {{ fill: {of['card']} }}"


_STYLE = f"""
.tree text {{ font: 12px -apple-system, "Segoe UI", "DejaVu Sans", Helvetica, Arial, sans-serif; stroke-width: 4px;
  stroke-linejoin: round; paint-order: stroke }}
.tree .title {{ font-weight: 600; font-size: 14px }} .tree .dim {{ font-size: 11px }}
.tree .told {{ font-style: italic }}
.tree .line {{ stroke-width: 2.5; fill: none; stroke-linecap: round }}
.tree .rewind {{ stroke-width: 1.3; stroke-dasharray: 4 3; fill: none }}
.tree .mark {{ font-weight: 700; font-size: 13px; stroke-width: 0; text-anchor: middle }}
{_colours(_LIGHT)}
@media (prefers-color-scheme: dark) {{ {_colours(_DARK)} }}
"""


_WIDTH, _LEFT, _RIGHT, _TOP, _LANE = 960, 40, 32, 84, 66


def tree_svg(branches: Sequence[Branch], *, max_branches: int = 14) -> str:
    """One task's experience tree as a standalone SVG document.

    Args:
        branches: all of one task.
        max_branches: branches to draw; successes and their ancestors come first, and a line says how many are missing.
    """
    tree = {branch["id"]: branch for branch in branches}
    tasks = {branch["task"]["id"] for branch in branches}
    if len(tasks) != 1:
        raise ConfigError(f"a picture shows the branches of one task, got those of {len(tasks)}")
    lanes = _lanes(tree, _drawn(tree, max_branches))
    end_of = {name: tree[name]["decision_point"] + len(tree[name]["turns"]) for name in lanes}
    step = min(64.0, (_WIDTH - _LEFT - _RIGHT) / max(1, *end_of.values()))
    height = _TOP + _LANE * len(lanes) + 44

    def x(t: int) -> float:
        return round(_LEFT + step * t, 1)

    def y(name: str) -> float:
        return _TOP + _LANE * lanes[name] + 26

    back, lines, labels = [], [], []
    for name in lanes:
        branch = tree[name]
        style, mark, end = ENDS[branch["end"]]
        start, stop, level = branch["decision_point"], end_of[name], y(name)
        if branch["parent"] is not None:
            under = trunk(tree, branch)
            lines.append(f'<path class="line {style}" d="M{x(start)} {y(under)}V{level - 10}q0 10 10 10"/>')
            back.append(_arrow(x(end_of[branch["parent"]]), y(branch["parent"]), x(start), y(under)))
            told = _short(branch["experience"] or "", int((_WIDTH - x(start) - 24) / 6.6))
            hint = f"<title>{_xml(branch['experience'] or '')}</title>"
            labels.append(f'<text class="told" x="{x(start) + 10}" y="{level - 12}">{_xml(told)}{hint}</text>')
        begin = x(start) + (10 if branch["parent"] is not None else 0)
        lines.append(f'<path class="line {style}" d="M{min(begin, x(stop))} {level}H{x(stop)}"/>')
        for t, turn in enumerate(branch["turns"], start):
            hint = f"{t}. {turn['action']} → {turn['feedback']}"
            fill = "" if turn["valid"] is False else " dot"
            if len(turn["action"]) * 6 <= step - 4:
                words = f'<text class="dim" text-anchor="middle" x="{x(t) + step / 2:.1f}" y="{level + 15}">'
                labels.append(f"{words}{_xml(turn['action'])}</text>")
            lines.append(
                f'<circle class="card {style}{fill}" cx="{x(t) if t > start else begin}" cy="{level}" '
                f'r="{min(3.5, step / 3):.1f}"><title>{_xml(_short(hint, 300))}</title></circle>'
            )
        lines.append(f'<circle class="{style} dot" cx="{x(stop)}" cy="{level}" r="9"><title>{end}</title></circle>')
        lines.append(f'<text class="mark" x="{x(stop)}" y="{level + 4.5}">{mark}</text>')
    first = next(iter(tree.values()))
    title = _short(f"Task {first['task']['id']}", 100)
    missing = f" · {len(tree) - len(lanes)} more branches not shown" if len(lanes) < len(tree) else ""
    about = f"{len(tree)} branches, {sum(b['end'] == 'success' for b in tree.values())} solved it{missing} · "
    about += "turns run to the right, hollow dots are actions without effect"
    every = max(1, next(n for n in (1, 2, 5, 10, 20, 50, 100, 10**9) if n * step >= 28))
    ticks = "".join(
        f'<text class="dim" text-anchor="middle" x="{x(t)}" y="{_TOP - 12}">{t}</text>'
        for t in range(0, max(end_of.values()) + 1, every)
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="tree" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" '
        f'height="{height}" role="img"><title>Experience tree: {_xml(title)}</title><style>{_STYLE}</style>'
        f'<rect class="card" x="0.5" y="0.5" width="{_WIDTH - 1}" height="{height - 1}" rx="8"/>'
        f'<text class="title" x="20" y="28">{_xml(title)}</text><text class="dim" x="20" y="48">{_xml(about)}</text>'
        f"{ticks}{''.join(back)}{''.join(lines)}{''.join(labels)}{_legend(tree, lanes, height - 22)}</svg>\n"
    )


def _drawn(tree: dict[str, Branch], limit: int) -> set[str]:
    """Ids of the branches to draw: successes first, then in order; always with their ancestors."""
    drawn: set[str] = set()
    for branch in sorted(tree.values(), key=lambda b: b["end"] != "success"):
        line: list[str] = []
        name: str | None = branch["id"]
        while name is not None:
            line.append(name)
            name = tree[name]["parent"]
        if len(drawn.union(line)) <= max(limit, len(line) if not drawn else 0):
            drawn.update(line)
    return drawn


def trunk(tree: Mapping[str, Branch], branch: Branch) -> str:
    """The branch on whose line the decision point lies: the parent, or its ancestor if the rewind went further back."""
    above = tree[branch["parent"] or ""]
    while above["parent"] is not None and branch["decision_point"] <= above["decision_point"]:
        above = tree[above["parent"]]
    return above["id"]


def _lanes(tree: dict[str, Branch], drawn: set[str]) -> dict[str, int]:
    """A row for every branch, below its trunk; later forks nearer to it, so that no fork crosses a line."""
    order: list[str] = []
    forks: dict[str | None, list[str]] = {}
    for name in drawn:
        forks.setdefault(None if tree[name]["parent"] is None else trunk(tree, tree[name]), []).append(name)

    def place(names: Iterable[str]) -> None:
        for name in sorted(names, key=lambda n: (-tree[n]["decision_point"], len(n), n)):
            order.append(name)
            place(forks.get(name, ()))

    place(forks.get(None, ()))
    return {name: row for row, name in enumerate(order)}


def _arrow(x0: float, y0: float, x1: float, y1: float) -> str:
    """The rewind: from the end of the reflected branch back, above its line, to the decision point."""
    rise = 31
    tip = f'<path class="tip" d="M{x1} {y1 - 5}l-4 -7h8z"/>'
    return f'<path class="rewind" d="M{x0} {y0 - 9}C{x0} {y0 - 9 - rise} {x1} {y0 - 9 - rise} {x1} {y1 - 10}"/>{tip}'


def _legend(tree: dict[str, Branch], lanes: Iterable[str], level: float) -> str:
    parts, left = [], 30.0
    for end in [end for end in ENDS if any(tree[name]["end"] == end for name in lanes)]:
        style, mark, name = ENDS[end]
        parts.append(f'<circle class="{style} dot" cx="{left}" cy="{level}" r="8"/>')
        parts.append(f'<text class="mark" x="{left}" y="{level + 4.5}">{mark}</text>')
        parts.append(f'<text class="dim" x="{left + 14}" y="{level + 4}">{name}</text>')
        left += 14 + 6.2 * len(name) + 26
    if any(tree[name]["parent"] is not None for name in lanes):
        parts.append(f'<path class="rewind" d="M{left - 8} {level}h26"/>')
        rewinds = "reflection rewinds to the decision point"
        parts.append(f'<text class="dim" x="{left + 26}" y="{level + 4}">{rewinds}</text>')
    return "".join(parts)


def _short(text: str, length: int) -> str:
    text = " ".join(text.split())
    return text if len(text) <= length else text[: max(1, length - 1)].rstrip() + "…"


def _xml(text: str) -> str:
    """Escaped, and without the characters that XML cannot hold."""
    return escape(re.sub(r"[^\t\n\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "", text))
