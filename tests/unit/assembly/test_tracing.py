"""Spans: of a message, its processor, its publication on every node, its history, and its backend."""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.web.resource import Resource

from lhttp_tx import HeaderFilter, Message, Processor, Refused, Request, processor
from lhttp_tx.bus.memory import MemoryBus
from lhttp_tx.codec.limits import Limits
from lhttp_tx.codec.views import JSON, PROTOBUF
from lhttp_tx.engine.conversation import Conversation
from lhttp_tx.engine.hub import Hub
from lhttp_tx.errors import BusUnavailable
from lhttp_tx.history.archive import Archive
from lhttp_tx.history.memory import MemoryHistory
from lhttp_tx.interfaces import MaybeDeferred
from lhttp_tx.testing import Server
from lhttp_tx.upstream.client import UpstreamClient

pytest.importorskip("opentelemetry.sdk", reason="OpenTelemetry is missing (the extra otel)")

from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PARENT = f"00-{TRACE}-{SPAN}-01"
NAMED = {"traceparent": PARENT, "tracestate": "other=1"}


class Spans:
    """The spans that have ended."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self.provider = TracerProvider(shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))

    def take(self) -> list[ReadableSpan]:
        """Return them, in the order of their beginnings, and forget them."""
        found = sorted(self._exporter.get_finished_spans(), key=lambda span: span.start_time or 0)
        self._exporter.clear()
        return found

    def names(self) -> list[str]:
        return [span.name for span in self.take()]


@pytest.fixture
def spans() -> Spans:
    return Spans()


def header_of(span: ReadableSpan) -> str:
    return trace_header(span.context)


def trace_header(context: Any) -> str:
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"


def parent_of(span: ReadableSpan) -> str:
    return f"{span.parent.span_id:016x}" if span.parent is not None else ""


def id_of(span: ReadableSpan) -> str:
    return f"{span.context.span_id:016x}"


def is_child(span: ReadableSpan, parent: ReadableSpan) -> bool:
    return parent_of(span) == id_of(parent) and span.context.trace_id == parent.context.trace_id


def publication(**headers: str) -> Message:
    return Message("chat", {"publish": "room.a", **headers}, "hello")


def subscribed(server: Server, channel: str = "room.a") -> Any:
    client = server.connect()
    client.send(Message("x", {"subscribe": channel}))
    return client


@processor("upper")
def upper(request: Request) -> None:
    request.reply(request.text.upper())


def test_a_publication_is_followed_to_its_subscribers(spans: Spans) -> None:
    server = Server(trace=spans.provider)
    reader = subscribed(server)
    server.connect("10.0.0.1").send(publication(**NAMED, **{"message-id": "m1"}))
    message, publish, deliver = spans.take()
    assert [span.name for span in (message, publish, deliver)] == ["message", "publish", "deliver"]
    assert [span.kind.name for span in (message, publish, deliver)] == ["SERVER", "PRODUCER", "CONSUMER"]
    assert parent_of(message) == SPAN
    assert f"{message.context.trace_id:032x}" == TRACE
    assert is_child(publish, message)
    assert is_child(deliver, publish)
    assert [trace_header(link.context) for link in deliver.links] == [header_of(publish)]
    assert message.attributes is not None
    assert message.attributes["lhttp.command"] == "chat"
    assert message.attributes["client.address"] == "10.0.0.1"
    assert message.attributes["messaging.message.id"] == "m1"
    assert publish.attributes is not None
    assert publish.attributes["messaging.destination.name"] == "room.a"
    assert deliver.attributes is not None
    assert deliver.attributes["lhttp.subscribers"] == 1
    (got,) = reader.take()
    assert got.headers.get_all("traceparent") == (header_of(publish),)
    assert got.headers.get_all("tracestate") == ("other=1",)
    assert got.headers.get("publish") == "room.a"
    assert got.text == "hello"


@pytest.mark.parametrize("beyond", [False, True])
def test_another_node_goes_on(spans: Spans, beyond: bool) -> None:
    server, others = Server(trace=spans.provider), Spans()
    node = Server(beside=server, **({"trace": others.provider} if beyond else {}))
    reader = subscribed(node)
    server.connect().send(publication(**NAMED))
    _, publish = spans.take()
    (got,) = reader.take()
    assert got.headers.get("traceparent") == header_of(publish)
    deliveries = others.take()
    assert len(deliveries) == beyond
    assert all(is_child(span, publish) for span in deliveries)


def test_a_message_that_is_not_sampled_passes_as_it_is(spans: Spans) -> None:
    server = Server(trace=spans.provider)
    reader = subscribed(server)
    sent = [
        publication(),
        publication(traceparent=PARENT[:-1] + "0"),
        publication(traceparent=PARENT.upper()),
        publication(traceparent="x" * 4000, tracestate="y" * 3000),
        publication(traceparent=""),
        publication(tracestate="a=1"),
    ]
    client = server.connect()
    for message in sent:
        client.send(message)
    assert reader.take() == sent
    assert not spans.take()


def test_a_malformed_state_is_not_passed_on(spans: Spans) -> None:
    server = Server(trace=spans.provider)
    reader = subscribed(server)
    server.connect().send(publication(traceparent=PARENT, tracestate="\N{EURO SIGN}"))
    (got,) = reader.take()
    assert "tracestate" not in got.headers
    assert spans.names() == ["message", "publish", "deliver"]


# Processors


def test_a_processor_works_within_a_span_of_its_own(spans: Spans) -> None:
    seen: list[Any] = []

    @processor("look")
    def look(request: Request) -> None:
        seen.append(trace.get_current_span().get_span_context())
        request.reply("done")

    server = Server(processors=[look], trace=spans.provider)
    server.connect().send(Message("look", NAMED))
    message, process = spans.take()
    assert (message.name, process.name, process.kind.name) == ("look", "process look", "INTERNAL")
    assert is_child(process, message)
    assert seen == [process.context]
    server.connect().send(Message("look"))
    assert not spans.take()
    assert not seen[1].is_valid


def test_the_span_of_a_coroutine_lasts_until_it_ends(spans: Spans) -> None:
    waiting: Deferred[None] = Deferred()
    seen: list[Any] = []

    class Slow(Processor):
        command = "slow"

        async def on_message(self, request: Request) -> None:
            await waiting
            seen.append(trace.get_current_span().get_span_context())

    server = Server(processors=[Slow()], trace=spans.provider)
    server.connect().send(Message("slow", NAMED))
    assert not spans.take()
    waiting.callback(None)
    message, process = spans.take()
    assert is_child(process, message)
    assert seen == [process.context]
    assert not trace.get_current_span().get_span_context().is_valid


@pytest.mark.parametrize(
    ("error", "cause", "status", "is_fault"),
    [(Refused(403, "no"), "Refused", 403, False), (RuntimeError("secret"), "internal", 500, True)],
)
def test_a_failure_is_in_both_spans(
    spans: Spans, error: Exception, cause: str, status: int, is_fault: bool, failures: list[Any]
) -> None:
    @processor("fail")
    def fail(request: Request) -> None:
        raise error

    server = Server(processors=[fail], trace=spans.provider)
    server.connect().send(Message("fail", NAMED))
    found = spans.take()
    assert [span.name for span in found] == ["fail", "process fail"]
    for span in found:
        assert span.attributes is not None
        assert (span.attributes["error.type"], span.attributes["lhttp.status"]) == (cause, status)
        assert (span.status.status_code is trace.StatusCode.ERROR) is is_fault
        assert not span.events
        assert "secret" not in span.to_json()
    assert len(failures) == is_fault


def test_a_message_without_a_plan_has_a_span(spans: Spans) -> None:
    server = Server(trace=spans.provider)
    client = server.connect()
    client.send(Message("x", {**NAMED, "publish": "a..b"}))
    (span,) = spans.take()
    assert span.attributes is not None
    assert span.attributes["error.type"] == "RemoteProtocolError"
    assert parent_of(span) == SPAN
    (answer,) = client.take()
    assert answer.command == "error"


def test_a_filter_that_breaks_a_message_ends_its_span(spans: Spans, failures: list[Any]) -> None:
    class Breaking(HeaderFilter):
        headers = ("break",)

        def before(self, request: Request) -> None:
            if request.headers.get("break") == "here":
                raise Refused(403, "no")
            request.message = request.message.replace(headers={"publish": "a..b"})

    server = Server(filters=[Breaking()], trace=spans.provider)
    for how in ("here", "there"):
        server.connect().send(Message("x", {**NAMED, "break": how, "publish": "a"}))
        (span,) = spans.take()
        assert span.attributes is not None
        assert span.attributes["error.type"] == ("Refused" if how == "here" else "internal")
    assert len(failures) == 1


def test_what_a_processor_publishes_is_within_its_span(spans: Spans) -> None:
    @processor("tell")
    def tell(request: Request) -> None:
        request.server.publish("room.a", "told", body="hi")

    server = Server(processors=[tell], trace=spans.provider)
    reader = subscribed(server)
    server.connect().send(Message("tell", NAMED))
    _, process, publish, _ = spans.take()
    assert is_child(publish, process)
    (got,) = reader.take()
    assert got.headers.get("traceparent") == header_of(publish)


def test_a_name_that_a_client_makes_up_is_no_name_of_a_span(spans: Spans) -> None:
    server = Server(processors=[upper], trace=spans.provider)
    server.connect().send(Message("made-up", NAMED))
    server.connect().send(Message("upper", NAMED))
    assert spans.names() == ["message", "upper", "process upper"]


# Backends


class Record(Resource):
    isLeaf = True

    def __init__(self, code: int = 200) -> None:
        super().__init__()
        self.seen: list[Any] = []
        self.code = code

    def render_POST(self, request: Any) -> bytes:
        self.seen.append(request.requestHeaders)
        request.setResponseCode(self.code)
        return b"ok"


@pytest.mark.parametrize("setting", ["upstream_allow", "upstream_original"])
@pytest.mark.parametrize("code", [200, 404, 503])
def test_a_backend_is_told_of_the_request_to_it(spans: Spans, setting: str, code: int) -> None:
    backend = Record(code)
    server = Server(backend=backend, trace=spans.provider, **{setting: ["http://backend.example/"]})
    upstream = "POST http://backend.example/record?token=secret"
    server.connect().send(Message("x", {"upstream": upstream, **NAMED}))
    server.clock.advance(0)
    message, request = spans.take()
    assert (request.name, request.kind.name) == ("POST", "CLIENT")
    assert is_child(request, message)
    (headers,) = backend.seen
    assert headers.getRawHeaders("traceparent") == [header_of(request)]
    assert headers.getRawHeaders("tracestate") == ["other=1"]
    assert request.attributes is not None
    assert request.attributes["http.response.status_code"] == code
    assert request.attributes["url.full"] == "http://backend.example:80/record"
    assert request.attributes.get("error.type") == (None if code == 200 else str(code))


def test_a_backend_that_does_not_answer_is_an_error(spans: Spans) -> None:
    server = Server(trace=spans.provider, upstream_allow=["http://backend.example/"])
    server.connect().send(Message("x", {"upstream": "POST http://backend.example/", **NAMED}))
    server.clock.advance(60)
    _, request = spans.take()
    assert request.attributes is not None
    assert request.attributes["error.type"] == "UpstreamError"
    assert request.status.status_code is trace.StatusCode.ERROR


# Histories, receipts and codecs


@pytest.mark.parametrize("kind", ["receipt", "id", "plain", "several"])
def test_what_is_kept_has_a_span(spans: Spans, kind: str) -> None:
    server = Server(trace=spans.provider, history=["room.>"])
    headers = {"receipt": {"receipt": "r"}, "id": {"message-id": "1"}, "several": {"publish": "room.a room.b"}}
    client = server.connect()
    client.send(publication(**{**NAMED, **headers.get(kind, {})}))
    found = spans.take()
    message, publish, *appends = found
    assert [span.name for span in appends] == ["append"] * (2 if kind == "several" else 1)
    assert is_child(publish, message)
    assert all(is_child(span, publish) for span in appends)
    client.take()
    client.send(Message("history", {"channel": "room.a"}))
    (answer,) = client.take()
    assert f"traceparent:{header_of(publish)}".encode() in answer.body
    client.send(publication(**NAMED, store="no"))
    assert spans.names() == ["message", "publish"]


class SlowStore(MemoryHistory):
    """Says later that it has something."""

    def __init__(self, clock: Any) -> None:
        super().__init__(clock)
        self.waiting: list[Deferred[None]] = []

    def confirm(self) -> MaybeDeferred:
        self.waiting.append(Deferred())
        return self.waiting[-1]


@pytest.mark.parametrize("fails", [False, True])
def test_the_span_of_a_history_lasts_until_it_is_safe(spans: Spans, fails: bool) -> None:
    from twisted.internet.task import Clock

    clock = Clock()
    store = SlowStore(clock)
    server = Server(trace=spans.provider, history=["room.>"], history_store=store, clock=clock)
    client = server.connect()
    client.send(publication(**NAMED, receipt="r"))
    assert spans.names() == ["publish"]
    assert not client.take()
    for waiting in store.waiting:
        if fails:
            waiting.errback(BusUnavailable("the disk is full"))
        else:
            waiting.callback(None)
    assert [message.command for message in client.take()] == ["error" if fails else "receipt"]
    found = spans.take()
    assert sorted(span.name for span in found) == ["append", "confirm", "message"]
    for span in found:
        assert span.attributes is not None
        assert span.attributes.get("error.type") == ("BusUnavailable" if fails else None)


class ClosedBus(MemoryBus):
    def publish(self, channel: str, payload: bytes, binary: bool) -> MaybeDeferred:
        raise BusUnavailable("away")


def test_a_bus_that_refuses_is_an_error(spans: Spans) -> None:
    server = Server(trace=spans.provider, bus=ClosedBus())
    server.connect().send(publication(**NAMED))
    message, publish = spans.take()
    for span in (message, publish):
        assert span.attributes is not None
        assert (span.attributes["error.type"], span.attributes["lhttp.status"]) == ("BusUnavailable", 503)


@pytest.mark.parametrize("view", [JSON, PROTOBUF])
def test_all_forms_of_a_message_have_it(spans: Spans, view: Any) -> None:
    server = Server(trace=spans.provider)
    reader = subscribed(server)
    data, binary = view.read(view.write(publication(**NAMED).raw, False), Limits())
    server.connect().send(data if binary else data.decode())
    _, publish, _ = spans.take()
    (got,) = reader.take()
    shown = view.write(got.raw, got.binary)
    assert header_of(publish).encode() in (shown if isinstance(shown, bytes) else shown.encode())


# Bounds


def test_clients_cannot_have_more_traced_than_allowed(spans: Spans) -> None:
    server = Server(trace=spans.provider, trace_rate=3)
    reader = subscribed(server)
    client = server.connect()
    for _ in range(50):
        client.send(publication(**NAMED))
    assert len([span for span in spans.take() if span.name == "message"]) == 3
    got = reader.take()
    assert len(got) == 50
    assert [message.headers.get("traceparent") for message in got[3:]] == [PARENT] * 47
    server.clock.advance(1 / 3)
    client.send(publication(**NAMED))
    client.send(publication(**NAMED))
    assert spans.names() == ["message", "publish", "deliver"]


def test_what_is_not_sampled_uses_nothing_up(spans: Spans) -> None:
    server = Server(trace=spans.provider, trace_rate=1)
    client = server.connect()
    for _ in range(10):
        client.send(publication(traceparent=PARENT[:-1] + "0"))
    client.send(publication(**NAMED))
    assert spans.names() == ["message", "publish"]


def test_no_more_is_drawn_than_allowed(spans: Spans) -> None:
    server = Server(trace=spans.provider, trace_rate=3, trace_ratio=1.0)
    client = server.connect()
    for _ in range(50):
        client.send(Message("x"))
    assert spans.names() == ["message"] * 3


def test_a_message_that_is_as_large_as_allowed_is_published(spans: Spans) -> None:
    size = len(publication(**NAMED).raw)
    server = Server(trace=spans.provider, trace_ratio=1.0, trace_rate=1000, limits=Limits(message_size=size))
    reader, client = subscribed(server), server.connect()
    spans.take()
    sent = [publication(**NAMED), Message("chat", {"publish": "room.a"}, "x" * (size - 34))]
    assert len(sent[1].raw) == size
    for message in sent:
        client.send(message)
    assert [message.body for message in reader.take()] == [message.body for message in sent]
    assert spans.names() == ["message", "publish", "deliver"]


# Drawn messages


def test_messages_without_a_parent_are_drawn(spans: Spans) -> None:
    server = Server(trace=spans.provider, trace_ratio=1.0, processors=[upper])
    reader = subscribed(server)
    assert spans.names() == ["message"]
    client = server.connect()
    client.send(publication())
    message, publish, deliver = spans.take()
    assert message.parent is None
    assert is_child(publish, message)
    assert is_child(deliver, publish)
    (got,) = reader.take()
    assert got.headers.get("traceparent") == header_of(publish)
    client.send(Message("upper", body="a"))
    message, process = spans.take()
    assert (message.name, process.name) == ("upper", "process upper")
    assert message.parent is None
    client.send(publication(**NAMED))
    assert parent_of(spans.take()[0]) == SPAN
    client.send(publication(traceparent=PARENT[:-1] + "0"))
    assert not spans.take(), "its parent is not sampled"
    client.send("nonsense")
    client.send(Message("x", {"publish": "a..b"}))
    (refused,) = spans.take()
    assert refused.attributes is not None
    assert refused.attributes["error.type"] == "RemoteProtocolError"


def test_a_share_of_a_run_is_drawn(spans: Spans) -> None:
    server = Server(trace=spans.provider, trace_ratio=0.2, trace_rate=100_000)
    reader = subscribed(server)
    spans.take()
    session = server.connect().session
    run = [Message("chat", {"publish": "room.a"}, str(number)).raw for number in range(2000)]
    position = 0
    while position < len(run):
        position = session.receive_run(run, position, False)
    assert [message.text for message in reader.take()] == [str(number) for number in range(2000)]
    drawn = [span for span in spans.take() if span.name == "message"]
    assert 250 < len(drawn) < 550  # 400 on average; farther away is rarer than once in 10**17 runs


def test_messages_that_wait_are_drawn_one_at_a_time(spans: Spans) -> None:
    waiting: Deferred[None] = Deferred()

    class Slow(Processor):
        command = "slow"

        def on_message(self, request: Request) -> Deferred[None]:
            return waiting

    server = Server(trace=spans.provider, trace_ratio=1.0, processors=[Slow()])
    reader = subscribed(server)
    spans.take()
    client = server.connect()
    client.send(Message("slow"))
    for _ in range(3):
        client.send(publication())
    waiting.callback(None)
    assert len(reader.take()) == 3
    assert [name for name in spans.names() if name != "deliver"] == ["slow", "process slow", "message", "publish"]


def test_a_message_that_waits_before_one_that_was_drawn_keeps_its_parent(spans: Spans) -> None:
    waiting: Deferred[None] = Deferred()

    class Slow(Processor):
        command = "slow"

        def on_message(self, request: Request) -> Deferred[None]:
            return waiting

    server = Server(trace=spans.provider, trace_ratio=1.0, processors=[Slow()])
    client = server.connect()
    client.send(Message("slow", NAMED))
    client.send(Message("first", NAMED))
    client.send(Message("second"))
    waiting.callback(None)
    found = {(span.attributes or {})["lhttp.command"]: span for span in spans.take() if span.kind.name == "SERVER"}
    assert parent_of(found["first"]) == SPAN
    assert parent_of(found["second"]) == ""


@pytest.mark.parametrize("headers", [{}, NAMED])
def test_a_message_that_waits_for_too_long_has_a_span(spans: Spans, headers: dict[str, str]) -> None:
    waiting: Deferred[None] = Deferred()

    class Slow(Processor):
        command = "slow"

        def on_message(self, request: Request) -> Deferred[None]:
            return waiting

    server = Server(trace=spans.provider, trace_ratio=1.0, processors=[Slow()], wait_timeout=1.0)
    client = server.connect()
    client.send(Message("slow", {"traceparent": PARENT[:-1] + "0"}))
    client.send(Message("x", headers))
    server.clock.advance(2)
    waiting.callback(None)
    (dropped,) = spans.take()
    assert dropped.attributes is not None
    assert (dropped.attributes["error.type"], dropped.attributes["lhttp.status"]) == ("Refused", 503)
    client.send(Message("x"))
    assert spans.names() == ["message"], "others are drawn as before"


# Cost


def calls_of(server: Server, message: bytes) -> list[str]:
    """Return the calls of the package's code, and how many lines they run, for one message."""
    session = server.connect().session
    session.receive_run([message], 0, False)
    seen: list[str] = []

    def note(frame: FrameType, event: str, _: Any) -> Any:
        if frame.f_globals.get("__name__", "").startswith("lhttp_tx."):
            frame.f_trace_opcodes, frame.f_trace_lines = True, False
            if event == "call" or (event == "opcode" and sys.version_info[:2] != (3, 12)):  # 3.12 tells of some alone
                seen.append(frame.f_code.co_qualname)
            return note
        return None

    before = sys.gettrace()
    sys.settrace(note)
    try:
        session.receive_run([message], 0, False)
    finally:
        sys.settrace(before)
    return seen


def test_a_server_without_traces_has_none_of_this() -> None:
    server = Server(upstream_allow=["http://backend.example/"])
    assert type(server.engine.hub) is Hub
    assert type(server.engine.hub.archive) is Archive
    assert type(server.assembly.upstream) is UpstreamClient
    assert type(server.connect().session) is Conversation
    assert not server.engine.step_watchers
    assert not any("traceparent" in (found.headers or ()) for found in server.engine.filters)
    plain = calls_of(server, publication().raw)
    named = calls_of(server, publication(**NAMED).raw)
    assert plain == named
    assert not any("race" in call for call in plain)


def test_a_message_that_is_not_traced_costs_a_server_with_traces_little(spans: Spans) -> None:
    plain = calls_of(Server(), publication().raw)
    watched = calls_of(Server(trace=spans.provider), publication().raw)
    assert len(watched) - len(plain) < 60  # opcodes
    assert not spans.take()
