"""Rows of one episode share their history: one forward pass of the longest row serves all of them.

Where every prompt shows the whole history, the row of turn t is a prefix of turn t+1's prompt. Such rows form a
*chain*: its last row's tokens are run once, and each row's loss is read off at its own completion. Under a causal mask
no token sees what comes after it, so loss and gradient are those of the rows run one by one.
"""

from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from random import Random

from .tokens import TokenRow

ALIKE = 8
"""Most chains for each sequence of a forward pass: each adds a row of logits for each token of its answer."""


def chains(rows: Sequence[TokenRow], *, longest: int) -> list[list[int]]:
    """All row indices, in chains of at most ``longest`` rows: each row equals the next or is a prefix of its prompt.

    Rows that extend nothing and are extended by nothing stand alone, equal ones too: they spread over an epoch's steps.
    A row that several rows extend is in one of their chains only.
    """
    found: list[list[int]] = []
    tail: list[int] = []  # the tokens of the chain that may go on
    for whole, i in sorted((row.prompt_ids + row.completion_ids, i) for i, row in enumerate(rows)):
        if found and len(found[-1]) < longest and tail in (whole, rows[i].prompt_ids[: len(tail)]):
            found[-1].append(i)
        else:
            found.append([i])
        tail = whole
    return sorted(part for chain in found for part in ([chain] if _grows(rows, chain) else [[i] for i in chain]))


def _grows(rows: Sequence[TokenRow], chain: Sequence[int]) -> bool:
    return len(rows[chain[-1]]) > len(rows[chain[0]])


def steps_in_epoch(n_rows: int, batch_size: int) -> int:
    """Optimiser steps in which ``n_rows`` are seen once."""
    return -(-n_rows // batch_size)


def epoch_steps(
    chains: Sequence[Sequence[int]], kinds: Sequence[str], batch_size: int, *, seed: int, epoch: int
) -> list[list[Sequence[int]]]:
    """The chains (of row indices) of each optimiser step of an epoch: every row once, kinds spread evenly.

    A chain is not cut: it stands in the step that its middle falls into, so no step is empty if no chain has more rows
    than a step on average. Chains of one row give steps whose sizes differ by one row at most. The order depends on
    (seed, epoch) alone, so that a resumed run sees what an undisturbed one sees.
    """
    rng = Random(f"{seed}/{epoch}")
    total = Counter(kinds)
    rarest = [min((kinds[i] for i in chain), key=lambda kind: (total[kind], kind)) for chain in chains]
    places: list[tuple[float, int]] = []
    for kind in sorted(set(rarest)):
        members = [n for n, k in enumerate(rarest) if k == kind]
        rng.shuffle(members)
        shift = rng.random()
        places += [((place + shift) / len(members), n) for place, n in enumerate(members)]
    n_steps = steps_in_epoch(len(kinds), batch_size)
    bounds = [round(step * len(kinds) / n_steps) for step in range(1, n_steps + 1)]
    steps: list[list[Sequence[int]]] = [[] for _ in bounds]
    seen = 0
    for _, n in sorted(places):
        steps[bisect_right(bounds, seen + (len(chains[n]) - 1) // 2)].append(chains[n])
        seen += len(chains[n])
    return steps


def micro_batches(rows: Sequence[TokenRow], chains: Sequence[Sequence[int]], size: int) -> list[list[Sequence[int]]]:
    """Cut a step into forward passes of at most ``size`` sequences and of similar lengths: a fifth at most is padding.

    Chains whose last rows are alike stand together and count once, since `ask` runs once what they run: where prompts
    show no history, samples of one task meet in the same states.
    """

    def order(chain: Sequence[int]) -> tuple[int, int, tuple[tuple[int, ...], ...], Sequence[int]]:
        last = rows[chain[-1]]
        return len(last), len(last.prompt_ids), last.runs, chain

    batches: list[list[Sequence[int]]] = []
    there: set[tuple[tuple[int, ...], ...]] = set()
    for length, _, ids, chain in sorted(map(order, chains)):
        new = ids not in there
        full = (new and len(there) == size) or bool(batches and len(batches[-1]) == ALIKE * size)
        if not batches or full or length > 1.25 * len(rows[batches[-1][0][-1]]):
            batches.append([])
            there = set()
        batches[-1].append(chain)
        there.add(ids)
    return batches
