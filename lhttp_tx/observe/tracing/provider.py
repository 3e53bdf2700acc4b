"""
Makes a ``TracerProvider`` of OpenTelemetry's SDK, which sends spans to a collector with OTLP over HTTP.

The environment variables of OpenTelemetry's SDK and exporter apply, such as ``OTEL_SERVICE_NAME``,
``OTEL_RESOURCE_ATTRIBUTES``, ``OTEL_EXPORTER_OTLP_HEADERS`` and ``OTEL_EXPORTER_OTLP_CERTIFICATE``. Arguments take
precedence.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from lhttp_tx.observe.tracing.exporting import Exporting, in_thread

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

__all__ = ["check_collector", "check_headers", "endpoint_of", "is_installed", "make_provider"]

_PATH = "/v1/traces"
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_MAX_ATTRIBUTE = 1_024
"""The most characters of the value of a span's attribute."""


def is_installed() -> bool:
    """Return whether the packages for traces are installed."""
    try:
        return all(
            find_spec(name) is not None
            for name in ("opentelemetry.sdk.trace", "opentelemetry.exporter.otlp.proto.http.trace_exporter")
        )
    except ModuleNotFoundError:
        return False


def check_collector(url: str) -> None:
    """:raises ValueError: if *url* is not the URL of a collector. The text does not show it: it may be secret."""
    try:
        found = urlsplit(url)
        port_is_valid = found.port != 0
    except ValueError:
        raise ValueError("the URL is malformed; write one such as http://127.0.0.1:4318") from None
    if found.scheme not in ("http", "https") or not found.hostname or not port_is_valid or not url.isprintable():
        raise ValueError("this is no http or https URL; write one such as http://127.0.0.1:4318")
    if found.username is not None or found.password is not None or found.query or found.fragment:
        raise ValueError("the URL has a user, a query or a fragment; secrets belong in headers")


def check_headers(headers: Mapping[str, str]) -> None:
    """:raises ValueError: if HTTP does not allow one of these. The text names no value: it may be a secret."""
    for name, value in headers.items():
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name[:64]!a} is no name of a header")
        if not value.isascii() or not value.isprintable() or value != value.strip():
            raise ValueError(f"the value of {name} is not visible ASCII characters")


def endpoint_of(url: str) -> str:
    """
    Return the URL to which spans are posted.

    >>> endpoint_of("http://127.0.0.1:4318")
    'http://127.0.0.1:4318/v1/traces'

    :param url: the URL of the collector, with or without ``/v1/traces``.
    """
    return url if url.endswith(_PATH) else url.rstrip("/") + _PATH


class _Heard(logging.Handler):
    """
    Keeps the last line that the exporter has logged. Python's log does not get it.

    :ivar text: the line; ``None`` if the exporter has logged nothing since the export began.
    """

    text: str | None = None

    def emit(self, record: logging.LogRecord) -> None:
        self.text = record.getMessage()


def make_provider(
    url: str, *, headers: Mapping[str, str], instance: str, version: str, ratio: float, reactor: Any
) -> tuple[Any, Exporting, Callable[[Mapping[str, str]], None]]:
    """
    Return a ``TracerProvider``, the queue of its spans for the collector, and a function that replaces *headers*.

    Nothing is sent before there is a span.

    If the process has no global ``TracerProvider`` yet, it gets one, so that the collector also gets spans of
    processors. Of their traces without a parent, this one samples the share *ratio*.

    :param url: see :func:`endpoint_of`.
    :param headers: headers of requests to the collector. They may be secret.
    :param instance: the name of this node.
    :param version: the version of this package.
    :param reactor: the reactor.
    """
    from opentelemetry import trace
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource
    from opentelemetry.sdk.trace import SpanLimits, SpanProcessor, TracerProvider
    from opentelemetry.sdk.trace.export import SpanExportResult
    from opentelemetry.sdk.trace.sampling import ALWAYS_ON, ParentBased, TraceIdRatioBased

    current: list[tuple[dict[str, str], Any]] = []

    def use_headers(headers: Mapping[str, str]) -> None:
        """Use other headers from the next request on."""
        # The exporter reads its headers only once, from here and from the environment.
        found = dict(headers)
        current[:] = [(found, OTLPSpanExporter(endpoint=endpoint_of(url), headers=found or None))]

    use_headers(headers)
    heard = _Heard()
    logger = logging.getLogger(OTLPSpanExporter.__module__)
    logger.addHandler(heard)
    logger.propagate = False

    def export(spans: list[Any]) -> str | None:
        heard.text = None
        if current[0][1].export(spans) is SpanExportResult.SUCCESS:
            return None
        return heard.text or "the collector did not take them"

    exporting = Exporting(export, reactor, in_thread(reactor))

    class Processor(SpanProcessor):
        def on_end(self, span: ReadableSpan) -> None:
            if span.context is not None and span.context.trace_flags.sampled:
                exporting.take(span)

    own = {"service.name": "lhttp_tx", "service.version": version, "service.instance.id": instance}
    resource = Resource.create({**own, **OTELResourceDetector().detect().attributes})
    providers = []
    for root in (ALWAYS_ON, TraceIdRatioBased(ratio)):  # this server has drawn its own before it makes a span
        provider = TracerProvider(
            sampler=ParentBased(root),
            resource=resource,
            shutdown_on_exit=False,
            span_limits=SpanLimits(max_attribute_length=_MAX_ATTRIBUTE),
        )
        provider.add_span_processor(Processor())
        providers.append(provider)
    if isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        trace.set_tracer_provider(providers[1])
    return providers[0], exporting, use_headers
