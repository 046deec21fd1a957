"""An experience tree as plain text: the words of the environment and of the model, in the order of the branches."""

from collections.abc import Iterator, Sequence

from ..prompts import said
from ..text import printable
from ..types import Branch, Reflection
from .ends import ENDS
from .times import told_time, told_turn_time


def transcript(tree: Sequence[Branch], *, times: bool = True) -> str:
    """All branches of one task; a line that begins with ``>`` is an action, what follows it the answer.

    Decision points and steps are 0-based and count from the task's start, in every branch. Of a branch's last answer
    there is what the record holds: its feedback. What a terminal would obey, such as codes of colours, is spelt out.

    Args:
        tree: its branches.
        times: tell when each was and how long it took, where the log does.
    """
    lines = (line for number, branch in enumerate(tree) for line in _branch(branch, first=number == 0, times=times))
    return printable("\n".join(lines)) + "\n"


def _branch(branch: Branch, *, first: bool, times: bool) -> Iterator[str]:
    if first:
        yield f"TASK {branch['task']['id']}"
        if branch["task"]["instruction"]:
            yield branch["task"]["instruction"]
        if branch["turns"]:
            yield "\n" + branch["turns"][0]["observation"]
    start = "" if branch["parent"] is None else f" from branch {branch['parent']} at step {branch['decision_point']}"
    yield f"\nBRANCH {branch['id']}{start}"
    if branch["experience"] is not None:
        yield f"told: {branch['experience']}"
    if times and (when := told_time(branch)):
        yield f"({when})"
    for number, turn in enumerate(branch["turns"]):
        t = branch["decision_point"] + number
        yield f"\n{t}> {turn['action']}"
        # The action of an agent that makes its own prompts is all that it said and called.
        if "request" not in turn and (words := said(turn["message"])).strip() != turn["action"]:
            yield f"(said: {words})"
        if times and (when := told_turn_time(turn)):
            yield f"({when})"
        following = branch["turns"][number + 1 : number + 2]
        seen = following[0]["observation"] if following else turn["feedback"]
        yield from [seen] if turn["feedback"] in seen else [turn["feedback"], seen]
        yield from (_reflection(each, times=times) for each in branch["reflections"] if each["turn"] == t + 1)
    yield f"\nEND {ENDS[branch['end']][2]}" + (f": {branch['error']}" if branch["error"] else "")


def _reflection(reflection: Reflection, *, times: bool) -> str:
    where = "" if reflection["decision_point"] is None else f" to step {reflection['decision_point']}"
    when = f"\n({when})" if times and (when := told_time(reflection)) else ""
    return f"\nREFLECTION after {reflection['turn']} steps: {reflection['verdict']}{where}{when}\n{reflection['raw']}"
