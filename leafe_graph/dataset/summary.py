"""What an export holds and what it left out."""

from typing import Literal, get_args

from pydantic import BaseModel, Field

from ..settings import RowKind, Rows


class Summary(BaseModel):
    """What an export holds and what it left out."""

    asked: Rows = Rows()
    """Which rows were asked for."""
    history: int | None
    """Earlier turns shown in each prompt; None is all."""
    branches: int = 0
    tasks: int = 0
    """Tasks that were explored."""
    tasks_covered: int = 0
    """Tasks with at least one row."""
    counterfactual: int = 0
    """Rows."""
    preference: int = 0
    """Rows."""
    rehearsal: int = 0
    """Rows."""
    rollout: int = 0
    """Rows."""
    world_model: int = 0
    """Rows."""
    self_reflection: int = 0
    """Rows."""
    on_policy: int = 0
    """Rows."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    prompt_tokens_are: Literal["token ids", "words"] = "words"
    """Counted by token ids where every row has them, else by whitespace-separated words."""
    completion_tokens_are: Literal["token ids", "words"] = "words"
    duplicates: int = 0
    """Rows left out: the same is there already, within the kind."""
    leaked: int = 0
    """Rows left out: text of an experience in them."""
    empty: int = 0
    """Rows left out: the model said nothing."""
    invalid: int = 0
    """Rows left out on request: the environment said that the action was not understood or had no effect."""
    unreadable: int = 0
    """Rows left out: no row can hold them, as a call whose arguments are no JSON object, or a prompt with pictures."""
    other_nodes: int = 0
    """Rows left out: other agents decided than were asked for."""
    same: int = 0
    """Rows left out: the revised action is the one that the parent took there. Of pairs always, of counterfactual rows
    on request and where the branch was told nothing."""
    unfit: int = 0
    """Self-reflections left out: another action is read from them than was taken, they say themselves twice, or they
    speak of an expert, of whom the policy will know nothing."""
    over: int = 0
    """Counterfactual rows left out: their task has as many as it may."""
    unrehearsed: int = 0
    """Successful branches left out of rehearsal: not in the share that was drawn."""
    groups: int = 0
    """Tasks whose independent attempts were compared, for rollouts."""
    alike: int = 0
    """Of these left out: all attempts had the same return, so none has an advantage. What they cost was spent."""
    unfinished: int = 0
    """Branches left out: ended by a budget or an error."""
    diverged: int = 0
    """Branches left out: played on from a state that their history does not tell, since a replay that showed something
    else than was recorded had been accepted; or forked from such a one."""
    files: list[str] = Field(default_factory=list)
    """Names of the written files."""
    notes: list[str] = Field(default_factory=list)
    """What the user should know."""

    def rows(self) -> list[tuple[str, str]]:
        """The summary as label and value, for a table."""
        kinds = get_args(RowKind)
        branches = f"of {self.branches}"
        some = [
            ("rows of invalid actions removed", self.invalid, ""),
            ("rows of calls that are no JSON, or of more than text, removed", self.unreadable, ""),
            ("rows of other nodes removed", self.other_nodes, ""),
            ("rows of unrevised actions removed", self.same, ""),
            ("unfit self-reflections removed", self.unfit, ""),
            ("counterfactual rows over a task's number removed", self.over, ""),
            ("successful branches not drawn for rehearsal", self.unrehearsed, ""),
            ("groups without variance removed", self.alike, f"of {self.groups}"),
        ]
        return [
            *((f"{kind} rows", str(getattr(self, kind))) for kind in kinds if kind in self.asked.kinds),
            ("tasks covered", f"{self.tasks_covered} of {self.tasks}"),
            (f"prompt tokens ({self.prompt_tokens_are})", str(self.prompt_tokens)),
            (f"completion tokens ({self.completion_tokens_are})", str(self.completion_tokens)),
            ("duplicates removed", str(self.duplicates)),
            ("leaking rows removed", str(self.leaked)),
            ("empty rows removed", str(self.empty)),
            *((label, f"{count} {whole}".rstrip()) for label, count, whole in some if count),
            ("unfinished branches ignored", f"{self.unfinished} {branches}"),
            *([("diverged branches ignored", f"{self.diverged} {branches}")] if self.diverged else []),
        ]

    def __str__(self) -> str:
        """The table and the notes, for the terminal."""
        width = max(len(label) for label, _ in self.rows())
        return "\n".join([f"{label:<{width}}  {value}" for label, value in self.rows()] + self.notes)
