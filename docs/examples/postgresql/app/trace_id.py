"""Joins the log lines of a request with its trace, by the ids of both."""

from opentelemetry.trace import format_trace_id, get_current_span


def current_trace_id() -> str:
    """Return the id as in a `traceparent` header, or "" if nothing is traced."""
    context = get_current_span().get_span_context()
    return format_trace_id(context.trace_id) if context.is_valid else ""


def record_request_id(identifier: str) -> None:
    """Give the span the header that the response will have."""
    get_current_span().set_attribute("http.response.header.x-request-id", (identifier,))
