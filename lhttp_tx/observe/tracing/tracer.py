"""
Makes spans, and decides which messages are traced.

Used by :mod:`lhttp_tx.assembly.tracing` and :mod:`lhttp_tx.web.traced`. OpenTelemetry is imported when a
:class:`Tracer` is made, so that a server without traces does not need it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from math import log
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime

from lhttp_tx.observe.tracing.carrier import Parent, in_payload, read_parent, write
from lhttp_tx.observe.tracing.exporting import Exporting

if TYPE_CHECKING:
    from opentelemetry.trace import Span, TracerProvider

__all__ = ["Kind", "Tracer"]

Kind: TypeAlias = Literal["SERVER", "CLIENT", "PRODUCER", "CONSUMER", "INTERNAL"]

Attributes: TypeAlias = Mapping[str, str | int | bool]

_NEVER: Final = 2**62


class _Budget:
    """Allows a number of traces per second, and the same number at once."""

    def __init__(self, rate: float, clock: IReactorTime) -> None:
        self._rate = rate
        self._clock = clock
        self._left = float(rate)
        self._since = clock.seconds()

    def admits(self) -> bool:
        now = self._clock.seconds()
        self._left = min(self._rate, self._left + max(0.0, now - self._since) * self._rate)
        self._since = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


class Tracer:
    """
    Makes spans.

    A message is traced if it names a span that is sampled, or if it names none and is drawn at random. The number of
    traced messages per second is limited, because clients choose the spans that they name, and must not flood a
    collector.

    :ivar due: how many messages come before the next one that is drawn.
    :ivar draws: whether any messages are drawn.
    :ivar on_confirmed: functions that are called with an error or ``None`` when the publications of the current message
        are confirmed; ``None`` if no receipt waits for this.
    """

    def __init__(
        self,
        provider: TracerProvider | Any,
        *,
        clock: IReactorTime,
        version: str,
        head_size: int,
        header_count: int,
        message_size: int,
        ratio: float = 0.0,
        rate: int = 100,
        exporting: Exporting | None = None,
        use_headers: Callable[[Mapping[str, str]], None] | None = None,
    ) -> None:
        """
        :param provider: takes the spans; a ``TracerProvider`` of OpenTelemetry.
        :param clock: the reactor.
        :param version: the version of this package.
        :param head_size: the most bytes of a message's head.
        :param header_count: the most headers of a message.
        :param message_size: the most bytes of a message.
        :param ratio: the share of the messages without a parent that are traced, from 0 to 1.
        :param rate: the most messages that are traced per second. The same limit applies to deliveries, separately.
        :param exporting: the queue for the collector, which stops with the server; ``None`` if the owner of *provider*
            exports the spans.
        :param use_headers: replaces the headers of the requests to the collector; ``None`` without *exporting*.
        """
        from opentelemetry import context, trace
        from opentelemetry.trace.span import TraceState

        self._tracer = provider.get_tracer("lhttp_tx", version)
        self._trace, self._context, self._state = trace, context, TraceState
        self._messages = _Budget(rate, clock)
        self._deliveries = _Budget(rate, clock)
        self._bounds = {"head_size": head_size, "header_count": header_count, "size": message_size}
        self._head_size = head_size
        self._exporting = exporting
        self.use_headers = use_headers
        self._ratio = ratio
        self.draws = ratio > 0
        self.due = _NEVER
        self.on_confirmed: list[Callable[[object], None]] | None = None
        self.draw_again()

    def draw_again(self) -> None:
        """Draw at random which of the next messages is traced."""
        if 0 < self._ratio < 1:
            self.due = int(log(1 - random.random()) / log(1 - self._ratio))  # noqa: S311 - no secret
        elif self._ratio >= 1:
            self.due = 0

    def draw(self) -> bool:
        """Return whether this message or request, which names no parent, is traced."""
        return self.draws and random.random() < self._ratio and self._messages.admits()  # noqa: S311 - no secret

    def admits(self) -> bool:
        """Return whether one more message may be traced now."""
        return self._messages.admits()

    def join(self, parent: str | None, state: str | None) -> Parent | None:
        """Return the parent that a message names in its headers, if the message is to be traced."""
        found = read_parent(parent, state)
        return found if found is not None and found.is_sampled and self._messages.admits() else None

    def parent_of(self, payload: bytes, *, delivered: bool = False) -> Parent | None:
        """
        Return the parent that an LHTTP message names, if it is to be traced.

        :param delivered: whether it is a publication on its way to subscribers.
        """
        found = in_payload(payload, self._head_size)
        budget = self._deliveries if delivered else self._messages
        return found if found is not None and found.is_sampled and budget.admits() else None

    def begin(
        self,
        name: str,
        kind: Kind,
        parent: Span | Parent | None,
        attributes: Attributes,
        *,
        links: bool = False,
    ) -> Span:
        """
        Begin a span.

        :param name: its name. Clients must not be able to choose it.
        :param kind: its kind.
        :param parent: the span that it belongs to; ``None``: it begins a trace.
        :param attributes: its attributes.
        :param links: whether the span also links to its parent, as spans of consumers do.
        """
        context = self._context.Context()
        link: tuple[Any, ...] = ()
        if isinstance(parent, Parent):
            remote = self._trace.SpanContext(
                parent.trace_id,
                parent.span_id,
                is_remote=True,
                trace_flags=self._trace.TraceFlags(parent.flags),
                trace_state=self._state(parent.state),
            )
            parent = self._trace.NonRecordingSpan(remote)
            link = (self._trace.Link(remote),) if links else ()
        if parent is not None:
            context = self._trace.set_span_in_context(parent, context)
        return self._tracer.start_span(
            name,
            context=context,
            kind=getattr(self._trace.SpanKind, kind),
            attributes=attributes,
            links=link,
            record_exception=False,
            set_status_on_exception=False,
        )

    def end(self, span: Span, cause: str | None = None, status: int = 500) -> None:
        """
        End a span.

        :param cause: the name of the error; ``None`` if nothing has failed.
        :param status: the status that the client gets. Below 500, the failure is the client's.
        """
        if cause is not None:
            span.set_attribute("error.type", cause)
            span.set_attribute("lhttp.status", status)
            if status >= 500:
                span.set_status(self._trace.StatusCode.ERROR)
        span.end()

    def current(self) -> Span | None:
        """Return the current span, if it is recorded."""
        span = self._trace.get_current_span()
        return span if span.is_recording() else None

    def within(self, span: Span) -> AbstractContextManager[Any]:
        """Return a context manager. Within it, *span* is the current span."""
        found: AbstractContextManager[Any] = self._trace.use_span(
            span, end_on_exit=False, record_exception=False, set_status_on_exception=False
        )
        return found

    def fields(self, span: Span) -> list[tuple[str, str]]:
        """Return the headers that name *span* for other processes."""
        found = span.get_span_context()
        parent = f"00-{found.trace_id:032x}-{found.span_id:016x}-{found.trace_flags:02x}"
        state = found.trace_state.to_header() if found.trace_state else ""
        return [("traceparent", parent), *([("tracestate", state)] if state else [])]

    def write(self, payload: bytes, fields: Iterable[tuple[str, str]], *, is_received: bool = False) -> bytes:
        """
        Return an LHTTP message with these headers. If they do not fit, return it unchanged.

        :param is_received: whether the limit for the size of clients' messages applies.
        """
        bounds = self._bounds if is_received else {**self._bounds, "size": 0}
        return write(payload, fields, **bounds)

    def stop(self) -> Deferred[None]:
        """Send the remaining spans; see :meth:`lhttp_tx.observe.tracing.exporting.Exporting.stop`."""
        return succeed(None) if self._exporting is None else self._exporting.stop()
