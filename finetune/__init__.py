"""Experience distillation: example rows to a LoRA adapter.

It reads rows and checks them, makes tokens and batches of them, trains on them by an objective of ``objectives/``, and
leaves an adapter with its card. Importing it needs no torch.

Floor 6: it may know the floors below, but of these only models, files, importing and
the words and settings: nothing that plays, and nothing of how the rows were made.
"""

from .config import TrainConfig, TrainResult

__all__ = ["TrainConfig", "TrainResult"]
