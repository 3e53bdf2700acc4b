"""Makes the tracer of a server, and lets the parts of the server use it."""

from __future__ import annotations

from typing import Any

from lhttp_tx.assembly.tracing.messages import traced_conversation, traced_step
from lhttp_tx.assembly.tracing.publications import traced_archive, traced_hub, traced_upstream
from lhttp_tx.config import Config
from lhttp_tx.engine.engine import Engine
from lhttp_tx.observe.tracing.provider import make_provider
from lhttp_tx.observe.tracing.tracer import Tracer
from lhttp_tx.upstream.client import UpstreamClient

__all__ = ["make_tracer", "trace"]


def make_tracer(config: Config, reactor: Any, *, node: str) -> Tracer | None:
    """
    Return the tracer, which makes the spans of a server; ``None`` if *config* asks for no traces.

    :param reactor: the reactor.
    :param node: the name of the node.
    """
    if config.trace is None:
        return None
    from lhttp_tx import __version__ as version

    provider, exporting, use_headers = config.trace, None, None
    if isinstance(provider, str):
        provider, exporting, use_headers = make_provider(
            provider,
            headers=config.trace_headers,
            instance=node,
            version=version,
            ratio=config.trace_ratio,
            reactor=reactor,
        )
    return Tracer(
        provider,
        clock=reactor,
        version=version,
        head_size=config.limits.head_size,
        header_count=config.limits.header_count,
        message_size=config.limits.message_size,
        ratio=config.trace_ratio,
        rate=config.trace_rate,
        exporting=exporting,
        use_headers=use_headers,
    )


def trace(engine: Engine, upstream: UpstreamClient, tracer: Tracer) -> None:
    """
    Let the parts of a server make spans. Call this once, before the server starts. Its first filter must be a
    ``TraceFilter``.

    :param engine: the engine of the server. Its hub already has the archive.
    :param upstream: makes requests to backends.
    :param tracer: makes the spans.
    """
    engine.step_watchers.append(lambda step, own: traced_step(step, own, tracer))
    engine.conversation = traced_conversation(engine.conversation, tracer)
    engine.hub.__class__ = traced_hub(type(engine.hub), tracer)
    upstream.__class__ = traced_upstream(type(upstream), tracer)
    if engine.hub.archive is not None:
        engine.hub.archive.__class__ = traced_archive(type(engine.hub.archive), tracer)
