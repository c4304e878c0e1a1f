"""Has FastAPI record a span for each request that is sampled.

Without this, a request that is not sampled would take twice its time: FastAPI prepares a span for
it all the same.
"""

from collections.abc import MutableMapping
from contextvars import ContextVar, Token
from typing import Any

from fastapi.telemetry import TelemetryConfig
from fastapi.telemetry._api import _RequestTelemetry
from opentelemetry import context, propagate, trace
from opentelemetry.context import Context
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import Decision
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind
from starlette.types import Scope


def is_probe(scope: MutableMapping[str, Any]) -> bool:
    path: str = scope["path"]
    return path.startswith("/health/")


# What FastAPI records: a span for each request. Those of its steps would cost more than all else
# together, and its log of an error has the error's text.
SPANS: TelemetryConfig = {
    "metrics": False,
    "logs": False,
    "operation_spans": False,
    "auto_configure": False,
    "exclude": is_probe,
}

# The id of the trace that begins next.
decided_id: ContextVar[int] = ContextVar("decided_id", default=0)


class DecidedIds(RandomIdGenerator):
    """Gives a new trace the id for which the sampler has decided."""

    def generate_trace_id(self) -> int:
        identifier = decided_id.get() or super().generate_trace_id()
        decided_id.set(0)
        return identifier


ids = DecidedIds()


def begin(scope: Scope) -> Token[Context] | None:
    """Enter the trace of a request, and return what leaves it, or None if nothing was entered.

    A request that is not sampled keeps the caller's trace, and has a span that records nothing.
    """
    if scope["type"] == "lifespan" or "fastapi.telemetry" in scope or is_probe(scope):
        return None
    provider = trace.get_tracer_provider()
    if not isinstance(provider, TracerProvider):
        scope["fastapi.telemetry"] = unrecorded()
        return None
    headers = {
        name.decode("latin-1"): value.decode("latin-1")
        for name, value in scope["headers"]
    }
    parent = propagate.extract(headers)
    caller = trace.get_current_span(parent).get_span_context()
    trace_id = caller.trace_id or ids.generate_trace_id()
    sampled = provider.sampler.should_sample(parent, trace_id, "", SpanKind.SERVER)
    if sampled.decision is not Decision.DROP:
        if not caller.trace_id:
            decided_id.set(trace_id)
        return context.attach(parent)
    scope["fastapi.telemetry"] = unrecorded()
    span_id, state = ids.generate_span_id(), sampled.trace_state
    dropped = SpanContext(trace_id, span_id, is_remote=False, trace_state=state)
    span = NonRecordingSpan(dropped)
    return context.attach(trace.set_span_in_context(span, parent))


def unrecorded() -> _RequestTelemetry:
    """Return the object to which FastAPI writes the route of a request, without a span."""
    return _RequestTelemetry(span=None, span_method="", data=None)
