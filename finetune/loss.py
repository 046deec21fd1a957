"""What an objective comes to over rows, and what it wants to know of them before training starts."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from .batches import chains, micro_batches
from .objectives import Objective
from .said import Said, ask
from .tokens import TokenRow

if TYPE_CHECKING:
    import torch


def weighted(losses_N: "torch.Tensor", rows: Sequence[TokenRow], c: Sequence[float]) -> "torch.Tensor":
    """The part of some rows in the sum over all; ``c`` has their coefficients."""
    import torch

    weights = [factor * row.weight for factor, row in zip(c, rows, strict=True)]
    return (torch.tensor(weights, dtype=losses_N.dtype, device=losses_N.device) * losses_N).sum()


def objective_value(
    model: Any,
    rows: Sequence[TokenRow],
    objective: Objective,
    *,
    micro_batch_size: int = 8,
    rank: int = 0,
    processes: int = 1,
) -> float:
    """The objective over all rows, without gradients and dropout: the held-out loss.

    The training steps' estimator is tested against it. Of several processes each gets its part of the sum, the one of
    ``rank``.
    """
    c, _ = objective.coefficients(rows)
    total = 0.0
    for said, members in _asked(model, rows, micro_batch_size, rank, processes):
        these = [rows[i] for i in members]
        losses_N, _ = objective.losses(said, these)
        # In float64: which of two evaluations is better may show in the last digits only.
        total += weighted(losses_N.cpu().double(), these, [c[i] for i in members]).item()
    return total / len(rows)


def references(
    model: Any,
    rows: Sequence[TokenRow],
    objective: Objective,
    *,
    micro_batch_size: int = 8,
    rank: int = 0,
    processes: int = 1,
) -> dict[int, Any]:
    """What the objective keeps of what the model, as it is now, says of rows, by the rows' indices.

    Of several processes each gets its part.
    """
    asked = [(i, question) for i, row in enumerate(rows) if (question := objective.asked(row)) is not None]
    found: dict[int, Any] = {}
    if asked:
        questions = [question for _, question in asked]
        for said, members in _asked(model, questions, micro_batch_size, rank, processes):
            found |= zip([asked[n][0] for n in members], objective.kept(said), strict=True)
    return found


def remembering(rows: Sequence[TokenRow], known: dict[int, Any]) -> list[TokenRow]:
    """The rows with their references."""
    return [replace(row, reference=known[i]) if i in known else row for i, row in enumerate(rows)]


def _asked(
    model: Any, rows: Sequence[TokenRow], micro_batch_size: int, rank: int, processes: int
) -> Iterator[tuple[Said, list[int]]]:
    """What the model says of all rows, without gradients and dropout, with the rows' indices."""
    import torch

    training = model.training
    model.eval()
    with torch.no_grad():
        for batch in micro_batches(rows, chains(rows, longest=len(rows)), micro_batch_size)[rank::processes]:
            yield ask(model, [[rows[i] for i in chain] for chain in batch]), [i for chain in batch for i in chain]
    model.train(training)
