"""What is trained for, as an object: which rows, how much each counts, their losses, and what all this is called."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from leafe_graph.errors import ConfigError

if TYPE_CHECKING:
    import torch

    from ..said import Said
    from ..tokens import TokenRow

_TAKEN_BY = {
    "demonstration": "demonstrations",
    "preference": "dpo",
    "rollout": "grpo",
    "world_model": "world_model",
    "self_reflection": "self_reflection",
    "on_policy": "on_policy_distillation",
}


@dataclass(frozen=True, kw_only=True)
class Objective(ABC):
    """The base of all objectives: a subclass has to give a name, terms, words, and the coefficients of rows.

    Its fields are the settings that it needs, by the names that they have in `TrainConfig`. The first line of its
    docstring is what ``leafe train --help`` says of it.
    """

    name: ClassVar[str]
    """What `TrainConfig.objective` calls it."""
    terms: ClassVar[Mapping[str, str]]
    """The kinds of rows that it takes, and what the mean over each kind's rows is called in metrics.jsonl; loss.png
    shows these means under the kinds' names."""
    measures: ClassVar[Mapping[str, str]] = {}
    """What else `losses` tells of rows, and of which kind: metrics.jsonl has the means over these."""

    @property
    @abstractmethod
    def words(self) -> str:
        """How the model card tells it."""

    @abstractmethod
    def coefficients(self, rows: "Sequence[TokenRow]") -> tuple[list[float], list[str]]:
        """The coefficient c_i of each row, and what is worth a warning.

        The mean of ``c_i * weight_i * loss_i`` over all rows is the objective.

        Raises:
            ConfigError: there are rows of a kind that it does not take, or that lack what it needs.
        """

    def drops(self, kind: str) -> bool:
        """Whether rows of this kind are left out, so that no time is spent on them."""
        return False

    def asked(self, row: "TokenRow") -> "TokenRow | None":
        """What the weights from which training starts are asked of this row, once before it; None: nothing."""
        return None

    def kept(self, said: "Said") -> list[Any]:
        """What is kept of the answers, a value for each row that was asked: its `TokenRow.reference` from then on."""
        raise NotImplementedError

    def losses(self, said: "Said", rows: "Sequence[TokenRow]") -> "tuple[torch.Tensor, dict[str, torch.Tensor]]":
        """The loss of each row, (N,), and its `measures`, (N,) each, 0 in rows of other kinds."""
        return said.nll_N, {}

    def refuse_others(self, rows: "Sequence[TokenRow]") -> None:
        """Raise `ConfigError` for rows of a kind that has no term."""
        if strange := sorted({row.kind for row in rows} - self.terms.keys()):
            takes = {name: f'objective="{_TAKEN_BY[name]}"' for name in strange if name in _TAKEN_BY}
            raise ConfigError(
                f"the {self.name} objective is over {' and '.join(self.terms)} rows, the data also has {strange}: "
                + (f"train on those with {', '.join(takes.values())} first, or leave" if takes else "leave")
                + " them out of the data"
            )
