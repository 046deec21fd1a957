"""Chat models from a string, and the folders that models lie in.

It knows types, errors, text and files, and nothing that plays or trains.
"""

from .load import load_model

__all__ = ["load_model"]
