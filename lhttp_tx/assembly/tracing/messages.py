"""
The spans of messages, and of their processors.

Used by :mod:`lhttp_tx.assembly.tracing.wiring`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from lhttp_tx.assembly.tracing.ends import end, ended
from lhttp_tx.engine.awaiting import as_deferred
from lhttp_tx.engine.conversation import Conversation
from lhttp_tx.engine.handshake import Handshake
from lhttp_tx.engine.request import Request
from lhttp_tx.engine.sequence import Step
from lhttp_tx.engine.state import State
from lhttp_tx.filters import HeaderFilter
from lhttp_tx.interfaces import MaybeAwaitable
from lhttp_tx.observe.tracing.tracer import Tracer

if TYPE_CHECKING:
    from opentelemetry.trace import Span

__all__ = ["TraceFilter", "traced_conversation", "traced_step"]

_IDLE = State.IDLE
_SYSTEM = {"messaging.system": "lhttp"}
_OTHER = "message"
"""The name of the span of a message without a processor. Clients could make up any number of commands."""


def _span_of(request: Request) -> Span | None:
    state = request._state
    return None if state is None else state.get(TraceFilter)


class TraceFilter(HeaderFilter):
    """Begins the span of a message that names its parent, or was drawn. It must be the first filter."""

    headers = ("traceparent",)

    def __init__(self, tracer: Tracer) -> None:
        """:param tracer: makes the spans."""
        self._tracer = tracer

    def before(self, request: Request) -> MaybeAwaitable:
        """Begin the span. The class of :func:`traced_conversation` ends it."""
        headers = request.message.headers
        name = headers.get("traceparent")
        session = cast(Any, request.session)
        span = session.take_drawn(name)
        if span is None:
            parent = self._tracer.join(name, headers.get("tracestate"))
            if parent is None:
                return None
            span = self._tracer.begin(_OTHER, "SERVER", parent, {})
        if request.session._engine.registry.get(request.command) is not None:
            span.update_name(request.command)
        span.set_attributes(
            {
                **_SYSTEM,
                "network.protocol.name": "lhttp",
                "network.protocol.version": "1.0",
                "client.address": request.session.peer,
                "session.id": request.session.identity.connection_id,
                "lhttp.command": request.command,
                "messaging.message.envelope.size": len(request.message.raw),
            }
        )
        message_id = headers.get("message-id")
        if message_id is not None:
            span.set_attribute("messaging.message.id", message_id)
        request.state[TraceFilter] = span
        return None


def traced_step(step: Step, own: Step, tracer: Tracer) -> Step:
    """Return a step that runs within the span of its message. A processor's ``on_message`` gets a span of its own."""
    call, owner = step
    command = owner.command if own[0] == getattr(owner, "on_message", None) else None  # type: ignore[attr-defined]

    def traced(request: Request) -> MaybeAwaitable:
        span = _span_of(request)
        if span is None:
            return call(request)
        if command is not None:
            span = tracer.begin(f"process {command}", "INTERNAL", span, {"lhttp.command": command})
        with tracer.within(span):
            try:
                result = call(request)
                waiting: Deferred[Any] | None = None if result is None else as_deferred(result, owner)
            except BaseException as error:
                if command is not None:
                    end(tracer, span, error)
                raise
        if command is None:
            return waiting
        if waiting is None:
            tracer.end(span)
            return None
        return waiting.addBoth(ended, tracer, span)

    return traced, owner


def traced_conversation(own: type[Conversation], tracer: Tracer) -> type[Conversation]:
    """
    Return a subclass for sessions. They end the spans of their messages, and draw some messages without a parent to be
    traced.
    """

    class TracedConversation(own):  # type: ignore[misc, valid-type]
        __slots__ = ("_drawn",)

        def open(self, handshake: Handshake | None = None) -> None:
            self._drawn: tuple[str, Span] | None = None
            own.open(self, handshake)

        def take_drawn(self, name: str | None) -> Span | None:
            """Return the span of the message that was drawn, if the message has this ``traceparent``."""
            drawn = self._drawn
            if drawn is None or drawn[0] != name:
                return None
            self._drawn = None
            return drawn[1]

        def _draw(self, data: bytes) -> bytes:
            """Return a message that was drawn. It names its span, unless it has a parent or may not be traced."""
            tracer.draw_again()
            if self._drawn is not None or b"\r\ntraceparent:" in data.partition(b"\r\n\r\n")[0].lower():
                return data
            if not tracer.admits():
                return data
            span = tracer.begin(_OTHER, "SERVER", None, {})
            fields = tracer.fields(span)
            drawn = tracer.write(data, fields, is_received=True)
            if drawn is not data:
                self._drawn = fields[0][1], span
            return drawn

        def receive_run(self, messages: list[bytes], first: int, binary: bool) -> int:
            if self.stage is not _IDLE:
                self.receive(messages[first], binary)
                return first + 1
            due = tracer.due
            if due >= len(messages) - first:
                stop = own.receive_run(self, messages, first, binary)
                tracer.due -= stop - first
                return stop
            if due:
                taken = own.receive_run(self, messages[first : first + due], 0, binary)
                tracer.due -= taken
                return first + taken
            return first + own.receive_run(self, [self._draw(messages[first])], 0, binary)

        def receive(self, data: bytes, binary: bool) -> None:
            if tracer.due:
                tracer.due -= 1
            else:
                data = self._draw(data)
            own.receive(self, data, binary)

        def _span_for(self, data: bytes) -> Span | None:
            """Return the span of a message that does not go through steps."""
            drawn = self._drawn
            if drawn is not None and drawn[0].encode() in data:
                self._drawn = None
                return drawn[1]
            parent = tracer.parent_of(data)
            return None if parent is None else tracer.begin(_OTHER, "SERVER", parent, _SYSTEM)

        def _refuse(self, data: bytes) -> None:
            error = Failure().value
            span = self._span_for(data)
            own._refuse(self, data)
            if span is not None:
                end(tracer, span, error)

        def _drop(self, data: bytes, binary: bool) -> None:
            span = self._span_for(data)
            own._drop(self, data, binary)
            if span is not None:
                tracer.end(span, "Refused", 503)

        def _before_done(self, request: Request, failure: Failure | None) -> None:
            span = _span_of(request)
            own._before_done(self, request, failure)
            if span is None:
                return
            if failure is not None:
                end(tracer, span, failure.value)
            elif _span_of(request) is span and self._sequence.waiting is None:
                tracer.end(span, "internal")  # a filter has made another message, which has no plan

        def _rest_done(self, request: Request, failure: Failure | None) -> None:
            span = _span_of(request)
            if span is None:
                own._rest_done(self, request, failure)
                return
            del request.state[TraceFilter]
            tracer.on_confirmed = None
            with tracer.within(span):
                own._rest_done(self, request, failure)
            waiting, tracer.on_confirmed = tracer.on_confirmed, None
            if failure is not None or waiting is None:
                end(tracer, span, None if failure is None else failure.value)
            else:
                waiting.append(lambda error: end(tracer, span, error))

    return TracedConversation
