"""What is trained for, as an object: which rows, how much each counts, the loss, and what all this is called."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    import torch

    from ..tokens import TokenRow


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

    @property
    @abstractmethod
    def words(self) -> str:
        """How the model card tells it, before "of -log π(action | history)"."""

    @abstractmethod
    def coefficients(self, kinds: Sequence[str]) -> tuple[list[float], list[str]]:
        """The coefficient c_i of each row by the rows' kinds, and what is worth a warning.

        The mean of ``c_i * weight_i * nll_i`` over all rows is the objective.

        Raises:
            ConfigError: there are rows of a kind that it does not take.
        """

    def drops(self, kind: str) -> bool:
        """Whether rows of this kind are left out, so that no time is spent on them."""
        return False

    def loss(self, nll_N: "torch.Tensor", rows: "Sequence[TokenRow]", c: Sequence[float]) -> "torch.Tensor":
        """The part of some rows in the sum over all; ``nll_N`` is -log pi of each, ``c`` its coefficient."""
        import torch

        weights = [factor * row.weight for factor, row in zip(c, rows, strict=True)]
        return (torch.tensor(weights, dtype=nll_N.dtype, device=nll_N.device) * nll_N).sum()
