"""Round after round: a YAML file's run of a method, with what every round came to. It prints nothing.

Floor 9: it may know the floors below, and no flags.
"""

from .config import RunConfig
from .loop import run
from .yaml_file import read_config

__all__ = ["RunConfig", "read_config", "run"]
