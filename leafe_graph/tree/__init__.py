"""Experience trees on disk: the run folder, its settings, and paths through its branches.

Floor 4: it may know the floors below, and nothing that plays.
"""

from .branches import path
from .run_folder import RunFolder
from .run_settings import RunSettings

__all__ = ["RunFolder", "RunSettings", "path"]
