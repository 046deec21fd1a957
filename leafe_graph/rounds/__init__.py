"""Round after round: a YAML file's run of a method, with what every round came to.

It knows methods and phases, and neither flags nor terminals.
"""

from .config import RunConfig
from .loop import run
from .yaml_file import read_config

__all__ = ["RunConfig", "read_config", "run"]
