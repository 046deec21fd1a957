"""Where programs of a model's making run, cut off from the machine.

It knows errors and the catalogue, and no environment: it can be used alone.
"""

from .process import Limits, Run, Verdict
from .sandbox import Sandbox, Session, default_sandbox

__all__ = ["Limits", "Run", "Sandbox", "Session", "Verdict", "default_sandbox"]
