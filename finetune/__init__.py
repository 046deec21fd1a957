"""Experience distillation: example rows to a LoRA adapter.

It reads rows and checks them, makes tokens and batches of them, trains on them by an objective of ``objectives/``, and
leaves an adapter with its card. It knows `leafe_graph.models`, the schema of a row (`leafe_graph.types.Example`) and
files, texts, settings and errors, and nothing of how the rows were made or who plays. Importing it needs no torch.
"""

from .config import TrainConfig, TrainResult

__all__ = ["TrainConfig", "TrainResult"]
