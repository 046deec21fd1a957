"""Sizes of language models, for estimates on a machine that need not have them."""

import json
from dataclasses import dataclass

from ..errors import ConfigError
from ..files import path_of
from .spec import EMBEDDED, ModelSpec


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Sizes of a decoder as Llama and Qwen2 have it."""

    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    vocab: int
    tied: bool = False
    """Whether input and output embedding are one."""
    head_dim: int = 0
    """hidden / heads unless given."""
    context: int | None = None
    """Most tokens of a prompt with its answer; None where that is not said."""

    @property
    def matrices(self) -> list[tuple[int, int]]:
        """Inputs and outputs of a block's linear layers: q, k, v, o, gate, up, down."""
        size = self.head_dim or self.hidden // self.heads
        query, key = self.heads * size, self.kv_heads * size
        attention = [(self.hidden, query), (self.hidden, key), (self.hidden, key), (query, self.hidden)]
        return [*attention, *[(self.hidden, self.intermediate)] * 2, (self.intermediate, self.hidden)]

    @property
    def linear(self) -> int:
        """Parameters of all blocks' linear layers."""
        return self.layers * sum(a * b for a, b in self.matrices)

    @property
    def embeddings(self) -> int:
        """Parameters of the embeddings."""
        return self.vocab * self.hidden * (1 if self.tied else 2)

    def lora(self, rank: int) -> int:
        """Parameters of an adapter on all linear layers."""
        return self.layers * rank * sum(a + b for a, b in self.matrices)

    def kv_values(self) -> int:
        """Keys and values of one token."""
        return 2 * self.layers * self.kv_heads * (self.head_dim or self.hidden // self.heads)


SHAPES = {
    EMBEDDED: Shape(
        hidden=576, intermediate=1536, layers=30, heads=9, kv_heads=3, vocab=49152, tied=True, context=8192
    ),
    "Qwen/Qwen2.5-7B-Instruct": Shape(
        hidden=3584, intermediate=18944, layers=28, heads=28, kv_heads=4, vocab=152064, context=32768
    ),
    "Qwen/Qwen2.5-72B-Instruct": Shape(
        hidden=8192, intermediate=29568, layers=80, heads=64, kv_heads=8, vocab=152064, context=32768
    ),
    "meta-llama/Llama-3.1-8B-Instruct": Shape(
        hidden=4096, intermediate=14336, layers=32, heads=32, kv_heads=8, vocab=128256, context=131072
    ),
}
"""From the models' config.json, for plans on a machine that does not have them."""


def shape(model: str) -> Shape | None:
    """The sizes of a model: of its folder's config.json, or of the table; None where neither tells them."""
    name = ModelSpec.parse(model).weights
    file = path_of(name) / "config.json"
    if not file.is_file():
        return SHAPES.get(name)
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
        return Shape(
            hidden=config["hidden_size"],
            intermediate=config["intermediate_size"],
            layers=config["num_hidden_layers"],
            heads=config["num_attention_heads"],
            kv_heads=config.get("num_key_value_heads") or config["num_attention_heads"],
            vocab=config["vocab_size"],
            tied=bool(config.get("tie_word_embeddings")),
            head_dim=config.get("head_dim") or 0,
            context=config.get("max_position_embeddings"),
        )
    except (ValueError, KeyError) as error:
        raise ConfigError(f"{file} does not tell the model's sizes: {error!r}") from error
