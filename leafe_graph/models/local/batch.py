"""The running batch: distinct token sequences with their keys and values, and the forwards that extend them.

Rows are padded on the left and carry a mask and positions, so that rows of any length can stand together, be dropped,
doubled (two answers part) and joined by others between two forwards. The keys and values of a row hold all of its
sequence but the last token, which the next `Batch.decode` feeds. What prompts have in common is computed once.
"""

from dataclasses import dataclass
from itertools import groupby
from typing import Any

from .kv import MIN_PREFIX, Block, Layers, Prefixes, common
from .memo import Ids
from .sampling import Request

Rows = dict[Ids, list[Request]]
"""The requests that stand at each distinct sequence."""

PREFILL_TOKENS = 2048
"""Largest padded prefill in one forward."""
MAX_PADDED = 1.15
"""Most padded tokens a prefill may have for each real one."""
FORWARD = 2 * 10**7
"""Multiplications that take as long as it takes to begin a forward: padding that costs less than another one is no
waste. Measured with Llamas of a third of a million parameters on a CPU."""
PREFIX_BYTES = 512 * 2**20
"""Bound of the kept keys and values of prompts."""


@dataclass
class Stats:
    """What an engine did since it was made."""

    requests: int = 0
    forwards: int = 0
    """Calls of the model."""
    prefill_tokens: int = 0
    """Prompt tokens that went through the model, padding not counted."""
    decode_tokens: int = 0
    """Sampled tokens that went through the model; the last token of an answer never does."""
    memo_hits: int = 0
    """Tokens that were drawn from memoised logits, without the model."""


class Batch:
    """Rows that are being decoded. ``rows`` stand in the order of the block's batch dimension."""

    def __init__(self, model: Any, stats: Stats, prefix_bytes: int = PREFIX_BYTES) -> None:
        self._model, self._stats = model, stats
        self.rows: Rows = {}
        self._block: Block | None = None
        self._prefixes = Prefixes(prefix_bytes)
        self._spare = FORWARD // sum(weights.numel() for weights in model.parameters()) if model is not None else 0

    def size(self) -> int:
        """Number of requests in it."""
        return sum(map(len, self.rows.values()))

    def plan(self, sequences: list[Ids]) -> list[list[Ids]]:
        """New sequences in chunks to `prefill`: about as much to compute for each, and not too much at once.

        A beginning that many of them share and that is not known yet goes through the model here, once for all.
        """
        for _, alike in groupby(sorted(sequences), key=lambda ids: ids[:MIN_PREFIX]):
            group = list(alike)
            shared = common(group[0], group[-1])  # they are sorted: what the ends share, all share
            saved = sum(max(0, shared - self._prefixes.match(ids)[0]) for ids in group)
            if len(group) > 1 and shared >= MIN_PREFIX and saved > shared:
                self.prefill([group[0][:shared]])
        chunks: list[list[Ids]] = []
        total = 0
        fresh = {ids: len(ids) - self._prefixes.match(ids)[0] for ids in sequences}
        for ids in sorted(fresh, key=lambda ids: fresh[ids]):
            total += fresh[ids]
            if not chunks or fresh[ids] * (len(chunks[-1]) + 1) > min(MAX_PADDED * total + self._spare, PREFILL_TOKENS):
                chunks.append([])
                total = fresh[ids]
            chunks[-1].append(ids)
        return chunks

    def prefill(self, chunk: list[Ids]) -> tuple[Any, Block]:
        """Next-token logits (rows, vocabulary) of new sequences, and what `join` wants to take them in."""
        import torch

        matches = [self._prefixes.match(ids) for ids in chunk]
        past = self._prefixes.gather(matches)
        width = max(len(ids) - known for ids, (known, _) in zip(chunk, matches, strict=True))
        inputs, positions, mask = (torch.zeros(len(chunk), width, dtype=torch.long) for _ in range(3))
        for row, (ids, (known, _)) in enumerate(zip(chunk, matches, strict=True)):
            padding = width - (len(ids) - known)
            inputs[row, padding:] = torch.tensor(ids[known:])
            positions[row, padding:] = torch.arange(known, len(ids))
            mask[row, padding:] = 1
        self._stats.prefill_tokens += int(mask.sum())
        if past is not None:
            mask = torch.cat([past.mask, mask], -1)
        logits, block = self._call(inputs, positions, mask, past.layers if past is not None else [])
        self._prefixes.put(chunk, block)
        return logits, block

    def join(self, rows: Rows, parents: list[int], block: Block) -> None:
        """Put ``rows`` beside the running ones; row i continues row ``parents[i]`` of the prefilled ``block``."""
        for ids in rows.keys() & self.rows.keys():  # the same sequence is running already: go along with it
            self.rows[ids] += rows[ids]
        new = [(ids, parent) for ids, parent in zip(rows, parents, strict=True) if ids not in self.rows]
        if new:
            block = block.select([parent for _, parent in new])
            self._block = block if self._block is None else self._block + block
            self.rows |= {ids: rows[ids] for ids, _ in new}

    def decode(self) -> Any:
        """Next-token logits (rows, vocabulary) of all rows."""
        import torch

        assert self._block is not None, "decode was called on an empty batch"
        inputs = torch.tensor([[ids[-1]] for ids in self.rows])
        positions = torch.tensor([[len(ids) - 1] for ids in self.rows])
        mask = torch.nn.functional.pad(self._block.mask, (0, 1), value=1)
        self._stats.decode_tokens += len(self.rows)
        logits, self._block = self._call(inputs, positions, mask, self._block.layers)
        return logits

    def replace(self, rows: Rows, parents: list[int]) -> None:
        """After `decode`: the rows that go on; row i continues the former row ``parents[i]``."""
        self._block = self._block.select(parents) if self._block is not None and rows else None
        self.rows = rows

    def _call(self, inputs: Any, positions: Any, mask: Any, layers: Layers) -> tuple[Any, Block]:
        from transformers import DynamicCache

        device = self._model.device
        self._stats.forwards += 1
        out = self._model(
            input_ids=inputs.to(device),
            position_ids=positions.to(device),
            attention_mask=mask.to(device),
            past_key_values=DynamicCache(layers) if layers else DynamicCache(),
            use_cache=True,
            logits_to_keep=1,
        )
        layers = [(layer.keys, layer.values) for layer in out.past_key_values.layers]
        return out.logits[:, -1].float().cpu(), Block(layers, mask)
