"""Spans as OpenTelemetry's SDK makes them, sent by its exporter: what goes over the wire is theirs."""

import logging
import os
import threading
from collections.abc import Iterator, Sequence

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)

from ..errors import ConfigError, LeafeError
from ..importing import __version__
from ..redaction import without_passwords
from .spans import Key, Span, ident

PART = 4 * 2**20
"""Characters that a request tells, unless one span has more: collectors take 20 MiB unless told otherwise."""


class Collector:
    """Takes spans at an address; headers, certificates, compression and time limits are OTEL_…'s.

    Raises:
        ConfigError: OpenTelemetry is switched off, and would send nothing.
    """

    def __init__(self, to: str) -> None:
        if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
            raise ConfigError("OTEL_SDK_DISABLED=true, so no trace can be sent: unset it, or send none")
        self.to, self._ids, self._made = to, _Ids(), InMemorySpanExporter()
        self._exporter = OTLPSpanExporter(endpoint=to)
        resource = Resource({"service.name": "leafe-graph"}).merge(OTELResourceDetector().detect())
        provider = TracerProvider(ALWAYS_ON, resource, shutdown_on_exit=False, id_generator=self._ids)
        provider.add_span_processor(SimpleSpanProcessor(self._made))
        self._tracer = provider.get_tracer("leafe_graph", __version__)
        self._said: list[str] = []
        self._sends: int | None = None  # the thread that does at this moment
        self._log = logging.getLogger(OTLPSpanExporter.__module__)
        self._log.addFilter(self._hear)

    def take(self, spans: Sequence[Span], run: str, task: str) -> None:
        """Send spans of a task, in as few requests as `PART` allows.

        Raises:
            LeafeError: they were not taken.
        """
        trace = ident(run, ("trace", task), 16)

        def context(key: Key) -> SpanContext:
            return SpanContext(trace, ident(run, key, 8), is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED))

        for span in spans:
            self._ids.trace, self._ids.span = trace, ident(run, span.key, 8)
            within = Context() if span.parent is None else set_span_in_context(NonRecordingSpan(context(span.parent)))
            made = self._tracer.start_span(
                span.name,
                within,
                SpanKind.CLIENT if span.calls else SpanKind.INTERNAL,
                {name: value for name, value in span.attributes.items() if value is not None},
                [Link(context(key), {"leafe.link": "rewound to"}) for key in span.links],
                _nanoseconds(span.time["started"]),
            )
            for name, moment, told in span.events:
                known = {field: value for field, value in told.items() if value is not None}
                made.add_event(name, known, _nanoseconds(moment))
            if span.error is not None:
                made.set_status(Status(StatusCode.ERROR, span.error))
            made.end(_nanoseconds(max(span.time["started"], span.time["ended"])))
        ended = self._made.get_finished_spans()
        self._made.clear()
        for part in _parts(ended):
            self._said.clear()
            self._sends = threading.get_ident()
            result = self._exporter.export(part)
            self._sends = None
            if result is not SpanExportResult.SUCCESS:
                said = "; ".join(dict.fromkeys(self._said[:1] + self._said[-1:])) or "no reason was given"
                raise LeafeError(f"{without_passwords(self.to)} did not take the traces of task {task!r}: {said}")

    def stop(self) -> None:
        """Begin no other try of what is being sent."""
        self._exporter.shutdown()

    def close(self) -> None:
        """Let go of the connection."""
        self._sends = threading.get_ident()
        self._exporter.shutdown()
        self._log.removeFilter(self._hear)

    def _hear(self, record: logging.LogRecord) -> bool:
        """What the exporter says of a failure is told in the error; what others' exporters say is theirs."""
        if record.thread != self._sends:
            return True
        self._said.append(without_passwords(record.getMessage()))
        return False


class _Ids(IdGenerator):  # type: ignore[misc]
    """Gives the ids that a span has by what it is."""

    trace = span = 0

    def generate_span_id(self) -> int:
        return self.span

    def generate_trace_id(self) -> int:
        return self.trace


def _parts(spans: Sequence[ReadableSpan]) -> Iterator[list[ReadableSpan]]:
    """The same spans in their order, so many together as a request may have."""
    part: list[ReadableSpan] = []
    told = 0
    for span in spans:
        own = sum(len(held) for held in (span.attributes or {}).values() if isinstance(held, str))
        if part and told + own > PART:
            yield part
            part, told = [], 0
        part.append(span)
        told += own
    if part:
        yield part


def _nanoseconds(moment: float) -> int:
    return round(moment * 1e6) * 1000
