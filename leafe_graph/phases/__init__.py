"""One model of settings a phase, and one phase run from it: names to objects, then what anybody can call.

It knows everything that plays, exports, trains and judges, and not which round it is in. Importing it is light; the
files beside config.py import what they run.
"""

from .config import DemonstrateConfig, EvalConfig, ExploreConfig, ExportConfig

__all__ = ["DemonstrateConfig", "EvalConfig", "ExploreConfig", "ExportConfig"]
