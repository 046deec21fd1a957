"""Trees as OpenTelemetry traces: what is told of them, and how it is sent.

Importing it loads nothing heavy.

Floor 5: it may know the floors below.
"""

from .sending import Tracing, trace, unsent

__all__ = ["Tracing", "trace", "unsent"]
