"""Records statements, connections, and how many requests wait for one, with OpenTelemetry."""

import asyncio
from collections.abc import Iterable
from typing import Any, Literal
from weakref import WeakSet

from opentelemetry import metrics, trace
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.trace import SpanKind, StatusCode
from sqlalchemy import QueuePool, event
from sqlalchemy.ext.asyncio import AsyncEngine

tracer = trace.get_tracer(__name__)
meter = metrics.get_meter(__name__)


def record_statements(engine: AsyncEngine) -> None:
    """Record a span for each statement, without the values that it is sent with."""
    event.listen(engine.sync_engine, "before_cursor_execute", begin_span)
    event.listen(engine.sync_engine, "after_cursor_execute", end_span)
    event.listen(engine.sync_engine, "handle_error", fail_span)


def begin_span(
    connection: Any, _: Any, statement: str, _parameters: Any, context: Any, _many: bool
) -> None:
    operation = statement.split(maxsplit=1)[0]
    attributes = {
        "db.system.name": connection.dialect.name,
        "db.operation.name": operation,
        "db.query.text": statement,
    }
    context.span = tracer.start_span(operation, None, SpanKind.CLIENT, attributes)


def end_span(
    _: Any, _cursor: Any, _statement: str, _parameters: Any, context: Any, _many: bool
) -> None:
    context.span.end()


def fail_span(context: Any) -> None:
    span = getattr(context.execution_context, "span", None)
    if span and span.is_recording():
        error = type(context.original_exception)
        span.set_attribute("error.type", error.__qualname__)
        span.set_status(StatusCode.ERROR)
        span.end()


class MeasuredSlots(asyncio.Semaphore):
    """Counts those who wait for a slot. There is a slot for each connection of a pool."""

    def __init__(self, pool: QueuePool) -> None:
        super().__init__(pool.size())
        self.pool = pool
        self.waiting = 0
        measured.add(self)

    async def acquire(self) -> Literal[True]:
        self.waiting += 1
        try:
            return await super().acquire()
        finally:
            self.waiting -= 1


measured: WeakSet[MeasuredSlots] = WeakSet()


def connections(_: CallbackOptions) -> Iterable[Observation]:
    used = sum(slots.pool.checkedout() for slots in measured)
    idle = sum(slots.pool.checkedin() for slots in measured)
    yield Observation(used, {"db.client.connection.state": "used"})
    yield Observation(idle, {"db.client.connection.state": "idle"})


def most_connections(_: CallbackOptions) -> Iterable[Observation]:
    yield Observation(sum(slots.pool.size() for slots in measured))


def waiting(_: CallbackOptions) -> Iterable[Observation]:
    yield Observation(sum(slots.waiting for slots in measured))


for name, observe, unit in (
    ("db.client.connection.count", connections, "{connection}"),
    ("db.client.connection.max", most_connections, "{connection}"),
    ("db.client.connection.pending_requests", waiting, "{request}"),
):
    meter.create_observable_up_down_counter(name, [observe], unit)
