"""
The spans of publications on their way to the bus, into histories and to subscribers, and of requests to backends.

Used by :mod:`lhttp_tx.assembly.tracing.wiring`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from lhttp_tx.assembly.tracing.ends import end, ended
from lhttp_tx.engine.hub import Hub
from lhttp_tx.history.archive import Archive
from lhttp_tx.interfaces import MaybeDeferred
from lhttp_tx.observe.tracing.tracer import Tracer
from lhttp_tx.upstream.client import UpstreamClient, UpstreamResponse
from lhttp_tx.upstream.targets import Target

if TYPE_CHECKING:
    from opentelemetry.trace import Span

    from lhttp_tx.history.values import Filing

__all__ = ["traced_archive", "traced_hub", "traced_upstream"]

_SYSTEM = {"messaging.system": "lhttp"}


def traced_hub(own: type[Hub], tracer: Tracer) -> type[Hub]:
    """Return a subclass for hubs. It makes spans of publications, deliveries, and confirmations for receipts."""

    class TracedHub(own):  # type: ignore[misc, valid-type]
        def publish(
            self, channels: Iterable[str], payload: bytes, binary: bool, filing: Filing | None = None
        ) -> MaybeDeferred:
            parent = tracer.current() or tracer.parent_of(payload)
            if parent is None:
                return own.publish(self, channels, payload, binary, filing)
            names = tuple(channels)
            attributes: dict[str, str | int] = {
                **_SYSTEM,
                "messaging.operation.name": "publish",
                "messaging.operation.type": "send",
                "messaging.message.envelope.size": len(payload),
            }
            if len(names) == 1:
                attributes["messaging.destination.name"] = names[0]
            else:
                attributes["lhttp.channels"] = len(names)
            span = tracer.begin("publish", "PRODUCER", parent, attributes)
            payload = tracer.write(payload, tracer.fields(span))
            with tracer.within(span):
                try:
                    waiting = own.publish(self, names, payload, binary, filing)
                except BaseException as error:
                    end(tracer, span, error)
                    raise
            if waiting is None:
                tracer.end(span)
                return None
            return waiting.addBoth(ended, tracer, span)

        def confirm(self, kept: bool) -> MaybeDeferred:
            parent = tracer.current()
            waiting = own.confirm(self, kept)
            if parent is None or waiting is None:
                return waiting
            span = tracer.begin("confirm", "INTERNAL", parent, {"lhttp.history": kept})
            calls: list[Callable[[object], None]] = [lambda error: end(tracer, span, error)]
            tracer.on_confirmed = calls

            def confirmed(result: Any) -> Any:
                for call in calls:
                    call(result.value if isinstance(result, Failure) else None)
                return result

            return waiting.addBoth(confirmed)

        def flush(self) -> None:
            found = self._channels.get(self._run_channel) if self.run else None
            spans = [] if found is None else _deliveries(tracer, found.name, self.run, len(found.members))
            own.flush(self)
            for span in spans:
                tracer.end(span)

    return TracedHub


def _deliveries(tracer: Tracer, channel: str, payloads: list[bytes], subscribers: int) -> list[Span]:
    """Begin a span for each traced publication to a channel."""
    spans = []
    for payload in payloads:
        parent = tracer.parent_of(payload, delivered=True)
        if parent is not None:
            attributes: dict[str, str | int] = {
                **_SYSTEM,
                "messaging.operation.name": "deliver",
                "messaging.operation.type": "process",
                "messaging.destination.name": channel,
                "messaging.message.envelope.size": len(payload),
                "lhttp.subscribers": subscribers,
            }
            spans.append(tracer.begin("deliver", "CONSUMER", parent, attributes, links=True))
    return spans


def traced_archive(own: type[Archive], tracer: Tracer) -> type[Archive]:
    """Return a subclass for archives. A span of a publication ends when the store has confirmed the publication."""

    class TracedArchive(own):  # type: ignore[misc, valid-type]
        def publish(self, channel: str, payload: bytes, binary: bool, filing: Filing | None) -> MaybeDeferred:
            parent = tracer.current()
            if parent is None or self.retention(channel) is None or (filing is not None and not filing.stored):
                return own.publish(self, channel, payload, binary, filing)
            attributes = {"messaging.destination.name": channel, "lhttp.store": type(self.store).__name__}
            span = tracer.begin("append", "INTERNAL", parent, attributes)
            try:
                with tracer.within(span):
                    waiting = own.publish(self, channel, payload, binary, filing)
                stored = self.store.confirm()
            except BaseException as error:
                end(tracer, span, error)
                raise
            if stored is None:
                tracer.end(span)
            else:
                stored.addBoth(ended, tracer, span).addErrback(lambda _: None)  # the receipt reports the error
            return waiting

    return TracedArchive


def traced_upstream(own: type[UpstreamClient], tracer: Tracer) -> type[UpstreamClient]:
    """Return a subclass for clients of backends. It makes spans of requests, and names them in the requests."""

    class TracedUpstream(own):  # type: ignore[misc, valid-type]
        def request(
            self,
            method: str,
            target: Target,
            body: bytes,
            *,
            headers: Iterable[tuple[str, str]] = (),
            **options: Any,
        ) -> Deferred[UpstreamResponse]:
            parent = tracer.current()
            if parent is None:
                return own.request(self, method, target, body, headers=headers, **options)
            attributes: dict[str, str | int] = {
                "http.request.method": method,
                "server.address": target.host,
                "server.port": target.port,
                "url.full": f"{target.scheme}://{target.host}:{target.port}{target.path}",  # a query may hold secrets
            }
            span = tracer.begin(method, "CLIENT", parent, attributes)
            fields = tracer.fields(span)
            others = [pair for pair in headers if pair[0].lower() not in ("traceparent", "tracestate")]
            try:
                waiting = own.request(self, method, target, body, headers=[*others, *fields], **options)
            except BaseException as error:
                end(tracer, span, error)
                raise
            return waiting.addBoth(self._traced, span)

        def _traced(self, result: Any, span: Span) -> Any:
            if not isinstance(result, Failure):
                span.set_attribute("http.response.status_code", result.status)
                if result.status >= 400:  # for a client, both kinds are errors
                    tracer.end(span, str(result.status))
                    return result
            return ended(result, tracer, span)

    return TracedUpstream
