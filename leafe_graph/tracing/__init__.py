"""Trees as OpenTelemetry traces: what is told of them, and how it is sent."""

from .sending import Tracing, trace

__all__ = ["Tracing", "trace"]
