"""Chat models from a string, and the folders that models lie in.

Floor 4: it may know the floors below, and nothing that plays or trains.
"""

from .load import load_model

__all__ = ["load_model"]
