"""Experience distillation: example rows to a LoRA adapter.

It knows the `leafe_graph.types.Example` schema and nothing of how the rows were made. Importing it needs no torch.
"""

from .config import TrainConfig, TrainResult

__all__ = ["TrainConfig", "TrainResult"]
