"""Traces of real servers, at a collector."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from integration._collector import Collector
from integration._server import TIME_LIMIT, Backend, ServerProcess, http_request, message, open_client, wait_until

pytest.importorskip("opentelemetry.exporter.otlp.proto.http", reason="OpenTelemetry is missing (the extra otel)")

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
NAMED = {"traceparent": f"00-{TRACE}-{SPAN}-01"}
PROCESSORS = """
from lhttp_tx import processor
from opentelemetry import trace

@processor("work")
async def work(request):
    with trace.get_tracer("mine").start_as_current_span("my own"):
        await request.server.publish("done", "done", body="it is")
"""


@pytest.fixture
def make() -> Iterator[Callable[..., Collector]]:
    """Make collectors, each of which stops at the end of the test."""
    made: list[Collector] = []

    def make(**options: Any) -> Collector:
        made.append(Collector(**options))
        return made[-1]

    yield make
    for collector in made:
        collector.stop()


def read_until(client: Any, text: str) -> str:
    """Return the next message of *client* that contains *text*."""
    while True:
        received = client.recv(timeout=TIME_LIMIT)
        if text in received:
            return received  # type: ignore[no-any-return]


def test_a_trace_goes_through_processor_backend_and_history(
    serve: Callable[..., ServerProcess], make: Callable[..., Collector], backend: Backend, tmp_path: Path
) -> None:
    collector = make()
    (tmp_path / "work.py").write_text(PROCESSORS, "utf-8")
    (tmp_path / "headers").write_text("x-key: 0123456789\n", "utf-8")
    (tmp_path / "headers").chmod(0o600)
    options = ("--trace", collector.url, "--trace-headers-file", "headers", "--processor", "work.py:work")
    history = ("--history", "room.>", "--history-store", "sqlite:history.db")
    server = serve(*options, *history, "--upstream-allow", backend.url, environment={"OTEL_SERVICE_NAME": "chat"})
    with open_client(server.port) as client:
        client.send(message("x", {"subscribe": "room.a done", "receipt": "0"}))
        read_until(client, "receipt-id:0")
        upstream = {"upstream": f"POST {backend.url}/ok", "publish": "room.a", "receipt": "1"}
        client.send(message("work", {**upstream, **NAMED}, "hi"))
        published = read_until(client, "hi")
        read_until(client, "receipt-id:1")
        assert http_request(server.port, "POST", "/publish", message("x", {"publish": "room.b"}), NAMED)[0] == 200
        client.send(message("untraced", {"publish": "room.a"}))
        assert "traceparent" not in read_until(client, "untraced")
        names = {"work", "process work", "my own", "publish", "deliver", "append", "confirm", "POST", "POST /publish"}
        wait_until(lambda: names <= {span.name for span in collector.spans}, "all spans are there")
    spans = {span.name: span for span in collector.spans}
    assert {span.trace for span in collector.spans} == {TRACE}
    assert spans["work"].parent == spans["POST /publish"].parent == SPAN
    assert spans["process work"].parent == spans["POST"].parent == spans["work"].own
    assert spans["my own"].parent == spans["process work"].own
    assert any(f"traceparent:{span.header}" in published for span in collector.named("publish"))
    (request,) = backend.requests
    assert request[2]["traceparent"].startswith(spans["POST"].header)
    assert all(headers["x-key"] == "0123456789" for headers in collector.headers)
    assert {span.resource["service.name"] for span in collector.spans} == {"chat"}
    assert f"traces: to {collector.url}, of messages whose traceparent is sampled, and of 0 of those" in server.log
    assert "0123456789" not in server.log


def test_what_is_left_is_sent_at_the_end(serve: Callable[..., ServerProcess], make: Callable[..., Collector]) -> None:
    collector = make()
    server = serve("--trace", collector.url, "--trace-ratio", "1")
    assert http_request(server.port, "POST", "/publish", message("x", {"publish": "room"}))[0] == 200
    server.stop()
    assert {"POST /publish", "publish"} <= {span.name for span in collector.spans}


@pytest.mark.parametrize(("trouble", "said"), [({"hangs": True}, "within 2 s"), ({"status": 401}, "spans are lost")])
def test_a_collector_that_fails_holds_up_nothing(
    serve: Callable[..., ServerProcess], make: Callable[..., Collector], trouble: dict[str, Any], said: str
) -> None:
    collector = make(**trouble)
    server = serve("--trace", collector.url, "--trace-rate", "1000")
    with open_client(server.port) as client:
        client.send(message("x", {"subscribe": "room", "receipt": "0"}))
        read_until(client, "receipt-id:0")
        for number in range(3):
            client.send(message("x", {"publish": "room", **NAMED}, f"number {number}"))
            read_until(client, f"number {number}")
            wait_until(lambda: collector.headers, "the collector was asked")
    begun = time.monotonic()
    server.stop()
    assert time.monotonic() - begun < TIME_LIMIT / 2
    server.wait_for_log(said)
