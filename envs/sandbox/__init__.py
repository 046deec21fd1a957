"""Where programs of a model's making run, cut off from the machine."""

from .sandbox import Limits, Run, Sandbox, Session, Verdict, default_sandbox

__all__ = ["Limits", "Run", "Sandbox", "Session", "Verdict", "default_sandbox"]
