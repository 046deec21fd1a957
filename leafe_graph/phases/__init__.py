"""One model of settings a phase, and one phase run from it: names to objects, then what anybody can call.

Importing it is light; the files beside config.py import what they run.

Floor 7: it may know the floors below, and not which round it is.
"""

from .config import DemonstrateConfig, EvalConfig, ExploreConfig, ExportConfig

__all__ = ["DemonstrateConfig", "EvalConfig", "ExploreConfig", "ExportConfig"]
