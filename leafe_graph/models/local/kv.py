"""Keys and values of token sequences: blocks of rows that can be cut and joined, and those kept of recent prompts."""

from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .memo import Ids

Layers = list[tuple[Any, Any]]
"""Keys and values of each layer, (rows, heads, columns, head size)."""

MIN_PREFIX = 16
"""A shared prefix of fewer tokens is computed anew: finding and copying it costs as much."""


@dataclass
class Block:
    """Keys, values and mask (rows, columns; 1 is a token, 0 padding) of some rows."""

    layers: Layers
    mask: Any

    def select(self, rows: list[int]) -> "Block":
        """The given rows (one may come twice), without columns that are padding in all of them."""
        import torch

        layers, mask = self.layers, self.mask
        if rows != list(range(mask.shape[0])):
            index = torch.tensor(rows)
            layers, mask = [(k[index.to(k.device)], v[index.to(v.device)]) for k, v in layers], mask[index]
        if not bool((used := mask.any(0)).all()):
            layers = [(k[:, :, used.to(k.device)], v[:, :, used.to(v.device)]) for k, v in layers]
            mask = mask[:, used]
        return Block(layers, mask)

    def __add__(self, other: "Block") -> "Block":
        """The rows of both, padded to the same width."""
        from torch import cat
        from torch.nn.functional import pad

        width = max(self.mask.shape[1], other.mask.shape[1])

        def joined(a: Any, b: Any) -> Any:
            return cat([pad(t, (0, 0, width - t.shape[2], 0)) for t in (a, b)])

        return Block(
            [(joined(k, q), joined(v, w)) for (k, v), (q, w) in zip(self.layers, other.layers, strict=True)],
            cat([pad(mask, (width - mask.shape[1], 0)) for mask in (self.mask, other.mask)]),
        )

    def bytes(self, tokens: int) -> int:
        """Memory of so many tokens of one row."""
        return sum(2 * tokens * k.shape[1] * k.shape[3] * k.element_size() for k, _ in self.layers)


class Prefixes:
    """The keys and values of recent prompts, at most ``limit`` bytes; those that were not used for longest go first.

    A prompt that begins like one of them (the same instruction, the turn before) is computed from where they part.
    """

    def __init__(self, limit: int) -> None:
        self._limit, self._size = limit, 0
        self._kept: OrderedDict[Ids, Block] = OrderedDict()  # of one row each
        self._sorted: list[Ids] = []  # the longest common prefix is with a neighbour in this order

    def put(self, sequences: Sequence[Ids], block: Block) -> None:
        """Keep the rows of ``block``, which are those of ``sequences``."""
        for row, ids in enumerate(sequences):
            if ids in self._kept:
                continue
            self._kept[ids] = block.select([row])  # a copy: a view would hold the whole block in memory
            self._sorted.insert(bisect_left(self._sorted, ids), ids)
            self._size += block.bytes(len(ids))
        while self._size > self._limit:
            ids, block = self._kept.popitem(last=False)
            del self._sorted[bisect_left(self._sorted, ids)]
            self._size -= block.bytes(len(ids))

    def match(self, ids: Ids) -> tuple[int, Ids]:
        """How many tokens of ``ids`` are known, and from which prompt. Never all: the last one gives the logits."""
        at = bisect_left(self._sorted, ids)
        known, kept = max(
            ((common(kept, ids), kept) for kept in self._sorted[max(at - 1, 0) : at + 1]), default=(0, ())
        )
        known = min(known, len(ids) - 1)
        return (known, kept) if known >= MIN_PREFIX else (0, ())

    def gather(self, matches: Sequence[tuple[int, Ids]]) -> Block | None:
        """What `match` found as a block with a row for each; None where nothing was."""
        import torch

        width = max(known for known, _ in matches)
        if not width:
            return None
        mask = torch.zeros(len(matches), width, dtype=torch.long)
        layers: Layers = []
        for row, (known, kept) in enumerate(matches):
            if not known:
                continue
            self._kept.move_to_end(kept)
            block = self._kept[kept]
            columns = block.mask[0].nonzero()[:known, 0].to(block.layers[0][0].device)
            layers = layers or [
                (
                    k.new_zeros(len(matches), k.shape[1], width, k.shape[3]),
                    v.new_zeros(len(matches), v.shape[1], width, v.shape[3]),
                )
                for k, v in block.layers
            ]
            mask[row, width - known :] = 1
            for (k, v), (kept_k, kept_v) in zip(layers, block.layers, strict=True):
                k[row, :, width - known :] = kept_k[0][:, columns]
                v[row, :, width - known :] = kept_v[0][:, columns]
        return Block(layers, mask)


def common(a: Ids, b: Ids) -> int:
    """Length of the common prefix."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
