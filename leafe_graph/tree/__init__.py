"""Experience trees on disk: the run folder, and paths through its branches.

It knows types, errors, budget and files, and nothing that plays.
"""

from .branches import path
from .run_folder import RunFolder
from .run_settings import RunSettings

__all__ = ["RunFolder", "RunSettings", "path"]
