"""Ends spans, and notes in them what has failed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.python.failure import Failure

from lhttp_tx.assembly.counted import cause_of
from lhttp_tx.errors import LHTTPError
from lhttp_tx.observe.tracing.tracer import Tracer

if TYPE_CHECKING:
    from opentelemetry.trace import Span

__all__ = ["end", "ended"]


def end(tracer: Tracer, span: Span, error: object = None) -> None:
    """End a span. If there is an *error*, the span has failed."""
    if error is None:
        tracer.end(span)
    else:
        tracer.end(span, cause_of(error), error.status if isinstance(error, LHTTPError) else 500)


def ended(result: Any, tracer: Tracer, span: Span) -> Any:
    """End a span with the result of a Deferred. Return the result."""
    end(tracer, span, result.value if isinstance(result, Failure) else None)
    return result
