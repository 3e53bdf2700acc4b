"""Spans of ``POST /publish`` and ``POST /send``."""

from __future__ import annotations

from typing import Any

import pytest

from lhttp_tx import Message
from lhttp_tx.guard.access import AccessPolicy
from lhttp_tx.web.traced import trace_requests
from unit.web.connect.test_resource import connect, poll, post
from unit.web.events._stack import Stack

pytest.importorskip("opentelemetry.sdk", reason="OpenTelemetry is missing (the extra otel)")

from unit.assembly.test_tracing import NAMED, PARENT, SPAN, Spans, header_of, is_child, parent_of, subscribed

pytestmark = pytest.mark.usefixtures("clock")

TOKEN = b"0123456789abcdef"
BEARER = f"Authorization: Bearer {TOKEN.decode()}"
HEADERS = tuple(": ".join(pair) for pair in NAMED.items())
PLAIN = Message("chat", {"publish": "room.a"}, "hello").raw
OTHER = PARENT.replace(SPAN, "00f067aa0ba902b7")


@pytest.fixture
def spans() -> Spans:
    return Spans()


def a_stack(spans: Spans | None, **settings: Any) -> Stack:
    if spans is not None:
        settings["trace"] = spans.provider
    stack = Stack(policy=AccessPolicy(publish_token=TOKEN), **settings)
    trace_requests(stack.site.resource, stack.server.assembly.tracer)
    return stack


def publish(stack: Stack, *headers: str, body: bytes = PLAIN) -> int:
    return post(stack, "/publish", BEARER, *headers, body=body).status


def test_a_request_to_publish_is_followed(spans: Spans) -> None:
    stack = a_stack(spans)
    reader = subscribed(stack.server)
    assert publish(stack, *HEADERS) == 200
    request, producer, deliver = spans.take()
    assert (request.name, request.kind.name) == ("POST /publish", "SERVER")
    assert parent_of(request) == SPAN
    assert is_child(producer, request)
    assert is_child(deliver, producer)
    assert request.attributes is not None
    assert request.attributes["http.response.status_code"] == 200
    assert request.attributes["http.route"] == "/publish"
    assert request.attributes["client.address"] == "192.0.2.1"
    (got,) = reader.take()
    assert got.headers.get("traceparent") == header_of(producer)
    assert got.headers.get("tracestate") == "other=1"


def test_a_message_to_publish_may_name_its_parent_itself(spans: Spans) -> None:
    stack = a_stack(spans)
    assert publish(stack, body=Message("chat", {"publish": "room.a", **NAMED}).raw) == 200
    (producer,) = spans.take()
    assert (producer.name, parent_of(producer)) == ("publish", SPAN)


@pytest.mark.parametrize(
    "headers",
    [
        (),
        ("Traceparent: nonsense",),
        (HEADERS[0], HEADERS[0]),
        ("Traceparent: " + PARENT[:-1] + "0",),
        ("Tracestate: a=1",),
        ("Traceparent: \xff",),
    ],
)
def test_what_is_malformed_or_not_sampled_has_no_span(spans: Spans, headers: tuple[str, ...]) -> None:
    stack = a_stack(spans)
    reader = subscribed(stack.server)
    assert publish(stack, *headers) == 200
    assert not spans.take()
    (got,) = reader.take()
    assert got.raw == PLAIN


def test_a_refusal_has_its_status(spans: Spans) -> None:
    stack = a_stack(spans)
    assert post(stack, "/publish", *HEADERS, body=PLAIN).status == 401
    (request,) = spans.take()
    assert request.attributes is not None
    assert request.attributes["http.response.status_code"] == 401
    assert "error.type" not in request.attributes


def test_requests_are_drawn(spans: Spans) -> None:
    stack = a_stack(spans, trace_ratio=1.0)
    assert publish(stack) == 200
    request, producer = spans.take()
    assert request.parent is None
    assert is_child(producer, request)
    assert publish(stack, *HEADERS) == 200
    assert parent_of(spans.take()[0]) == SPAN
    assert publish(stack, "Traceparent: " + PARENT[:-1] + "0") == 200
    assert not spans.take(), "its parent is not sampled"


def test_messages_that_are_sent_belong_to_the_request(spans: Spans) -> None:
    stack = a_stack(spans)
    secret = connect(stack)
    assert post(stack, "/send", secret, body=Message("x", {"subscribe": "room.a"}).raw).status == 204
    own = Message("chat", {"publish": "room.a", "traceparent": OTHER}).raw
    body = b"".join(b"%d\n%b" % (len(data), data) for data in (PLAIN, own))
    assert post(stack, "/send", secret, *HEADERS, body=body).status == 204
    found = spans.take()
    (request,) = [span for span in found if span.name == "POST /send"]
    first, second = [span for span in found if span.name == "message"]
    assert parent_of(request) == SPAN
    assert is_child(first, request)
    assert parent_of(second) == "00f067aa0ba902b7"
    assert request.attributes is not None
    assert request.attributes["http.response.status_code"] == 204
    producers = [span for span in found if span.name == "publish"]
    messages = poll(stack, secret)["messages"]
    assert [header_of(span) in text for span, text in zip(producers, messages, strict=True)] == [True, True]


def test_a_server_without_traces_keeps_its_resources() -> None:
    stack = a_stack(None)
    for resource in stack.site.resource.children.values():
        assert "Traced" not in type(resource).__name__
    reader = subscribed(stack.server)
    assert publish(stack, *HEADERS) == 200
    (got,) = reader.take()
    assert got.raw == PLAIN
