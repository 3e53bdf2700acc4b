"""A trace goes from worker to worker, through NATS and through a history in JetStream."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from integration._collector import Collector
from integration._nats import NATSProcess, needs_nats
from integration._server import TIME_LIMIT, ServerProcess, http_request, message, open_client, wait_until

from cluster.test_workers import owners

pytest.importorskip("opentelemetry.exporter.otlp.proto.http", reason="OpenTelemetry is missing (the extra otel)")

pytestmark = needs_nats

NAMED = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}


@pytest.fixture
def collector() -> Iterator[Collector]:
    started = Collector()
    yield started
    started.stop()


@pytest.fixture
def nats(tmp_path: Path) -> Iterator[NATSProcess]:
    process = NATSProcess("-js", "-sd", str(tmp_path / "jetstream"))
    yield process
    process.stop()


def test_a_trace_reaches_every_worker(
    serve: Callable[..., ServerProcess], nats: NATSProcess, collector: Collector
) -> None:
    options = ("--workers", "2", "--nats", nats.url, "--history", "kept.>", "--trace", collector.url)
    server = serve(*options, endpoints=2)
    server.wait_for_log("connected to NATS", count=2)
    with ExitStack() as stack:
        clients: list[Any] = []

        def spread() -> bool:
            clients.append(stack.enter_context(open_client(server.port)))
            return all(owners(server).values())

        wait_until(spread, "both workers have clients")
        for client in clients:
            client.send(message("x", {"subscribe": "room kept.a", "receipt": "0"}))
            while "receipt-id:0" not in client.recv(timeout=TIME_LIMIT):
                pass
        for channel in ("room", "kept.a"):
            assert http_request(server.port, "POST", "/publish", message("x", {"publish": channel}), NAMED)[0] == 200
            got = {client.recv(timeout=TIME_LIMIT) for client in clients}
            assert len(got) == 1

            def deliveries() -> list[Any]:
                return [
                    span
                    for span in collector.named("deliver")
                    if span.attributes["messaging.destination.name"] == channel  # noqa: B023 - called at once
                ]

            wait_until(lambda: len(deliveries()) == 2, "both workers have delivered")
            assert len({span.resource["service.instance.id"] for span in deliveries()}) == 2
            (publish,) = (
                span for span in collector.named("publish") if span.attributes["messaging.destination.name"] == channel
            )
            assert {span.parent for span in deliveries()} == {publish.own}
            assert f"traceparent:{publish.header}" in got.pop()
    assert {span.trace for span in collector.spans} == {"0af7651916cd43dd8448eb211c80319c"}
    (append,) = collector.named("append")
    assert append.attributes["lhttp.store"] == "JetStreamHistory"
