"""A run's trees, walked in a terminal. It needs Textual, and is imported where somebody asks for it."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar

from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import Binding
from textual.containers import Horizontal, VerticalScroll
from textual.widgets import Footer, Input, Static, Tree

from ..prompts import call_text
from ..text import printable
from ..tree.branches import owner, telling
from ..tree.outline import Outline
from ..tree.run_folder import RunFolder
from ..types import Branch, Turn
from .contents import title
from .ends import ENDS
from .times import told_time, told_turn_time
from .tree_svg import trunk

COLOURS = {"good": "green", "bad": "red", "back": "yellow", "off": "bright_black"}
FILTERS = ("all", "solved after a rewind", "never solved", "errors")
LONG = 20_000
"""Characters of a text that are shown."""
Place = tuple[str, str | None, int | None]
"""A task, a branch of it and a decision point on that branch; its end is None."""


class Places(Tree[Place]):  # type: ignore[misc]
    """Tasks, branches and turns, opened and closed by the arrows."""

    BINDINGS: ClassVar[list[Any]] = [
        Binding("right,l", "open", "open", key_display="→"),
        Binding("left,h", "close", "close", key_display="←"),
    ]

    def action_open(self) -> None:
        """Open the place, or go to what is in it."""
        node = self.cursor_node
        if node is not None and node.allow_expand and not node.is_expanded:
            node.expand()
        else:
            self.action_cursor_down()

    def action_close(self) -> None:
        """Close the place, or go to what it is in."""
        node = self.cursor_node
        if node is None:
            return
        if node.allow_expand and node.is_expanded:
            node.collapse()
        elif node.parent is not None and node.parent is not self.root:
            self.move_cursor(node.parent)


class Walk(App[None]):  # type: ignore[misc]
    """The tasks of a run, which open to their branches and turns; beside them what was seen, said and answered.

    A fork stands where it leaves its trunk: before the turn that the trunk took at that decision point.
    """

    CSS = """
    Places { width: 46%; overflow-x: hidden; border-right: solid $panel; }
    #words { padding: 0 1; }
    #search { display: none; height: 3; }
    #search.asked { display: block; }
    #state { height: 1; padding: 0 1; color: $text-muted; }
    """
    BINDINGS: ClassVar[list[Any]] = [
        Binding("slash", "search", "search"),
        Binding("f", "filter", "filter"),
        Binding("j,pagedown", "read(1)", "read on", priority=True, show=False),
        Binding("k,pageup", "read(-1)", "read back", priority=True, show=False),
        Binding("q", "quit", "quit"),
    ]

    def __init__(self, run: RunFolder) -> None:
        super().__init__()
        self.run_folder, self.filtered = run, FILTERS[0]
        self.title = printable(title(run.config.get("settings", {}), run.folder))
        self._trees: dict[str, dict[str, Branch]] = {}

    def compose(self) -> ComposeResult:
        """The tree of places, the words beside it, what is asked and what the keys do."""
        places = Places(self.title, id="places")
        places.show_root = False
        places.guide_depth = 2
        yield Static(id="state")
        yield Input(placeholder="words of a task; Enter", id="search")
        with Horizontal():
            yield places
            with VerticalScroll(can_focus=False, id="reader"):
                yield Static(id="words")
        yield Footer()

    def on_mount(self) -> None:
        """Show all tasks, the most telling first."""
        self._fill("")
        self.query_one(Places).focus()

    def _fill(self, asked: str) -> None:
        places = self.query_one(Places)
        places.clear()
        outlines = self.run_folder.trees.outlines
        words = asked.lower().split()
        for task in telling(self.run_folder):
            tree = outlines[task]
            told = f"{task}\n{next(iter(tree.values())).task['instruction']}".lower()
            if all(word in told for word in words) and _fits(tree.values(), self.filtered):
                places.root.add(_task(task, tree), data=(task, None, None))
        shown = f"{len(places.root.children)} of {len(outlines)} tasks"
        self.query_one("#state", Static).update(_plain(f"{self.title} · {shown} · {self.filtered}"))
        places.root.expand()
        if places.root.children:
            places.move_cursor_to_line(0)
        else:
            self.query_one("#words", Static).update("no such task")

    def tree_of(self, task: str) -> dict[str, Branch]:
        """A task's branches; the last one that was asked for is kept."""
        if task not in self._trees:
            self._trees = {task: self.run_folder.trees[task]}
        return self._trees[task]

    def on_tree_node_expanded(self, event: Any) -> None:
        """Read a task's tree when it is opened."""
        node = event.node
        if node.data is None or node.children:
            return
        task = node.data[0]
        tree = self.tree_of(task)
        for name, branch in tree.items():
            if branch["parent"] is None:
                self._branch(node, tree, task, name)

    def _branch(self, above: Any, tree: Mapping[str, Branch], task: str, name: str) -> None:
        branch = tree[name]
        node = above.add(_head(branch), data=(task, name, branch["decision_point"]), expand=True)
        for t in range(branch["decision_point"], branch["decision_point"] + len(branch["turns"]) + 1):
            for fork, other in tree.items():
                if other["parent"] is not None and other["decision_point"] == t and trunk(tree, other) == name:
                    self._branch(node, tree, task, fork)
            i = t - branch["decision_point"]
            if i < len(branch["turns"]):
                node.add_leaf(_turn(t, branch["turns"][i]), data=(task, name, t))
        node.add_leaf(_end(branch), data=(task, name, None))

    def on_tree_node_highlighted(self, event: Any) -> None:
        """Show the words of the place that the cursor is at."""
        if event.node.data is not None:
            self.query_one("#words", Static).update(self._words(event.node.data, branch=bool(event.node.children)))
            self.query_one("#reader").scroll_home(animate=False)

    def _words(self, place: Place, *, branch: bool) -> Text:
        task, name, t = place
        tree = self.tree_of(task)
        if name is None:
            first = next(iter(tree.values()))
            return _sections([("task", task), ("instruction", first["task"]["instruction"])])
        own = tree[name]
        if branch:
            return _sections(_rewind(tree, own))
        if t is None:
            return _sections(_ended(own))
        return _sections(_said(own["turns"][t - own["decision_point"]], t, name))

    def action_read(self, by: int) -> None:
        """Scroll the words."""
        reader = self.query_one("#reader")
        (reader.scroll_page_down if by > 0 else reader.scroll_page_up)(animate=False)

    def action_search(self) -> None:
        """Ask for words."""
        search = self.query_one("#search", Input)
        search.add_class("asked")
        search.focus()

    def on_input_submitted(self, event: Any) -> None:
        """Show the tasks that have them."""
        event.input.remove_class("asked")
        self._fill(event.value)
        self.query_one(Places).focus()

    def action_filter(self) -> None:
        """Show other tasks: solved after a rewind, never solved, with errors, all."""
        self.filtered = FILTERS[(FILTERS.index(self.filtered) + 1) % len(FILTERS)]
        self._fill(self.query_one("#search", Input).value)


def _fits(tree: Iterable[Outline], filtered: str) -> bool:
    branches = [*tree]
    depths = [branch.depth for branch in branches if branch.end == "success"]
    return {
        "all": True,
        "solved after a rewind": bool(depths) and min(depths) > 0,
        "never solved": not depths,
        "errors": any(branch.error for branch in branches),
    }[filtered]


def _task(task: str, tree: Mapping[str, Outline]) -> Text:
    least = min((branch.depth for branch in tree.values() if branch.end == "success"), default=None)
    state, colour = ("✕ never solved", "red") if least is None else ("✓ solved", "green")
    if least:
        state = f"✓ after {least} rewind{'s' * (least > 1)}"
    return Text.assemble((f"{state}  ", colour), _line(task, 60), (f"  {len(tree)} branches", "dim"))


def _head(branch: Branch) -> Text:
    style, mark, name = ENDS[branch["end"]]
    start = "" if branch["parent"] is None else f"↶ from {branch['parent']} at {branch['decision_point']}: "
    return Text.assemble(
        (f"{mark} ", COLOURS[style]),
        f"branch {printable(branch['id'])} ",
        (f"{start}{_line(branch['experience'] or '', 60) if start else name}", "dim"),
    )


def _turn(t: int, turn: Turn) -> Text:
    action = _line(turn["action"], 40) or "(nothing)"
    return Text.assemble((f"{t:>2} ", "dim"), action, (f" → {_line(turn['feedback'], 60)}", "dim"))


def _end(branch: Branch) -> Text:
    style, mark, name = ENDS[branch["end"]]
    return Text(f"{mark} {name}", COLOURS[style])


def _line(text: str, length: int) -> str:
    line = " ".join(text[: 4 * length].split())
    return printable(line if len(line) <= length else line[: length - 1].rstrip() + "…")


def _plain(text: str) -> Text:
    return Text(printable(text))


def _sections(parts: Iterable[tuple[str, str]]) -> Text:
    """Heads and texts below each other: nothing in them is markup, and no terminal obeys it."""
    text = Text()
    for head, said in parts:
        text.append(f"{printable(head)}\n", "bold")
        more = f"\n… {len(said) - LONG:,} more characters: leafe report shows them" * (len(said) > LONG)
        text.append(f"{printable(said[:LONG])}{more}\n\n")
    return text


def _said(turn: Turn, t: int, name: str) -> Iterator[tuple[str, str]]:
    message = turn["message"]
    facts = [f"reward {turn['reward']:g}" + ", no effect" * (turn["valid"] is False), told_turn_time(turn)]
    yield f"branch {name}, step {t}", "\n".join(filter(None, facts))
    yield "observation", turn["observation"]
    if thoughts := message.get("thoughts"):
        yield "thoughts", thoughts
    if message["content"]:
        yield "the model said", message["content"]
    for call in message.get("tool_calls", ()):
        yield "tool call", call_text(call)
    if "request" not in turn and turn["action"].strip() != message["content"].strip():
        yield "action", turn["action"]
    yield "feedback", turn["feedback"]


def _rewind(tree: Mapping[str, Branch], branch: Branch) -> Iterator[tuple[str, str]]:
    """Before and after, and the words that led from one to the other."""
    if branch["parent"] is None:
        yield f"branch {branch['id']}", f"a first attempt, {ENDS[branch['end']][2]}"
        return
    parent, t = tree[branch["parent"]], branch["decision_point"]
    yield f"branch {branch['id']}", f"from branch {branch['parent']}, rewound to step {t}"
    sides = (("before", owner(tree, parent["id"], t)), ("after", branch))
    for side, own in sides:
        turns = own["turns"][t - own["decision_point"] :]
        ended = (parent if side == "before" else branch)["end"]
        yield f"{side}: {ENDS[ended][2]}", turns[0]["action"] if turns else "it ended here"
    if branch["experience"] is not None:
        yield "experience that it was told", branch["experience"]
    for reflection in parent["reflections"]:
        if reflection["decision_point"] == t and reflection["experience"] == branch["experience"]:
            yield f"reflection after {reflection['turn']} steps, word for word", reflection["raw"]


def _ended(branch: Branch) -> Iterator[tuple[str, str]]:
    facts = [f"return {branch['return_']:g}", told_time(branch)]
    yield f"branch {branch['id']}: {ENDS[branch['end']][2]}", "\n".join(filter(None, facts))
    if branch["error"]:
        yield "error", branch["error"]
    for reflection in branch["reflections"]:
        yield f"reflection after {reflection['turn']} steps: {reflection['verdict']}", reflection["raw"]
