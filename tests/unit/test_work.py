"""
How much work a message costs, counted instead of timed: one test or more for each scenario of the benchmarks.

The letters are those of ``python -m benchmarks --list``.
"""

import gc
import itertools
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport

from lhttp_tx import Message, Request, processor
from lhttp_tx.codec import message as message_module
from lhttp_tx.engine import engine as engine_module, hub as hub_module
from lhttp_tx.testing import Server
from lhttp_tx.transports.websocket import (
    frames as frames_module,
    outbox as outbox_module,
    protocol as protocol_module,
    reader as lane_module,
)
from lhttp_tx.transports.websocket.factory import LHTTPServerFactory
from lhttp_tx.transports.websocket.frames import split_frames
from lhttp_tx.web.site import LHTTPSite, RootResource
from unit.transports.websocket.test_protocol import Peer, connected, frame

BODY = "x" * 32


class Work(Counter[str]):
    """
    Counts what is done while it is called.

    ``parses`` of heads; ``plans`` made; ``frames`` built and ``framed`` bytes in them; ``unmasked`` bytes;
    ``requests``, ``messages`` and ``deferreds`` made; ``runs`` of publications that the hub receives, and those
    ``received`` in them.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__()
        self._on = False

        def watch(owner: Any, name: str, count: Callable[..., dict[str, int]]) -> None:
            original = getattr(owner, name)

            def counting(*args: Any, **kwargs: Any) -> Any:
                if self._on:
                    self.update(count(*args))
                return original(*args, **kwargs)

            monkeypatch.setattr(owner, name, counting)

        for module in (engine_module, message_module):
            watch(module, "parse_head", lambda *_: {"parses": 1})
        watch(protocol_module, "build_frame", lambda payload, _: {"frames": 1, "framed": len(payload)})
        watch(frames_module, "build_frame", lambda payload, _: {"frames": 1, "framed": len(payload)})
        watch(frames_module, "build_frames", lambda run, _: {"frames": len(run), "framed": sum(map(len, run))})
        watch(lane_module, "_unmask_batch", lambda masked, *_: {"unmasked": len(masked)})
        watch(lane_module, "_unmask_large", lambda masked, *_: {"unmasked": len(masked)})
        watch(hub_module.Hub, "receive", lambda _, __, run, ___: {"runs": 1, "received": len(run)})
        watch(engine_module.Engine, "_make_plan", lambda *_: {"plans": 1})
        watch(Request, "__init__", lambda *_: {"requests": 1})
        watch(Message, "__init__", lambda *_: {"messages": 1})
        watch(Message, "from_parts", lambda *_: {"messages": 1})
        watch(Deferred, "__init__", lambda *_: {"deferreds": 1})

    def __call__(self, function: Callable[..., object], *args: object) -> "Work":
        """Call *function* and return what was done."""
        self.clear()
        self._on = True
        try:
            function(*args)
        finally:
            self._on = False
        return self

    def made(self, *names: str) -> dict[str, int]:
        """Return the counts of *names*, all unless told otherwise, without those that are 0."""
        return {name: count for name, count in self.items() if count and (name in names or not names)}


def calls(function: Callable[..., object], *args: object) -> int:
    """Return how many functions are called while *function* is, those that are written in C included."""
    count = 0

    def profile(_: object, event: str, __: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    collecting = gc.isenabled()
    gc.disable()  # others, such as Hypothesis, may have asked to be called when it collects
    sys.setprofile(profile)
    try:
        function(*args)
    finally:
        sys.setprofile(before)
        if collecting:
            gc.enable()
    return count


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Work:
    return Work(monkeypatch)


@processor("echo")
def echo(request: Request) -> None:
    request.reply()


@processor("echo-deferred")
def echo_deferred(request: Request) -> Deferred[None]:
    request.reply()
    return succeed(None)


@processor("echo-coroutine")
async def echo_coroutine(request: Request) -> None:
    request.reply()


@pytest.fixture
def server() -> Server:
    return Server(processors=[echo, echo_deferred, echo_coroutine])


@pytest.fixture
def factory(clock: Clock, server: Server, monkeypatch: pytest.MonkeyPatch) -> LHTTPServerFactory:
    monkeypatch.setattr(outbox_module, "perf_counter", itertools.repeat(0.0).__next__)  # no time passes between reads
    return LHTTPServerFactory(engine=server.engine, reactor=clock)


def publish(channel: str, body: str = BODY) -> bytes:
    return frame(f"LHTTP/1.0 x\r\npublish:{channel}\r\n\r\n{body}")


def settle(factory: LHTTPServerFactory) -> None:
    """End the turn of the reactor: the next read is not joined with others; see ``Outbox``."""
    for _ in range(2):  # what was held may itself be for many
        factory.outbox.cork()
        factory.outbox.uncork()
        factory.reactor.advance(0)


def subscribers(factory: LHTTPServerFactory, count: int, channel: str = "room") -> list[Peer]:
    peers = []
    for _ in range(count):
        peer = connected(factory)
        peer.send(f"LHTTP/1.0 x\r\nsubscribe:{channel}\r\n\r\n")
        peers.append(peer)
    return peers


def written(peers: list[Peer]) -> list[int]:
    """How many messages each got since its handshake."""
    return [len(split_frames(b"".join(peer.transport.writes))) for peer in peers]


def writes(peers: list[Peer]) -> list[int]:
    """How many writes each got since its handshake."""
    return [len(peer.transport.writes) for peer in peers]


# (a) a burst, 1 to 1


def test_a_burst_parses_once_frames_each_once_and_writes_once(factory: LHTTPServerFactory, work: Work) -> None:
    peers = subscribers(factory, 1)
    publisher = connected(factory)
    done = work(publisher.protocol.dataReceived, publish("room") * 500)
    assert (writes(peers), written(peers)) == ([1], [500])
    assert done.made("parses", "plans", "frames") == {"parses": 1, "plans": 1, "frames": 500}


def test_a_burst_makes_no_objects_for_its_messages(factory: LHTTPServerFactory, work: Work) -> None:
    subscribers(factory, 1)
    publisher = connected(factory)
    done = work(publisher.protocol.dataReceived, publish("room") * 500)
    assert done.made("requests", "messages", "deferreds") == {}


@pytest.mark.parametrize(("sizes", "bound"), [((32,), 0.5), ((8, 25, 42), 4)], ids=["of one size", "of many sizes"])
def test_a_publication_of_a_burst_takes_few_calls(
    factory: LHTTPServerFactory, sizes: tuple[int, ...], bound: float
) -> None:
    subscribers(factory, 1)
    publisher = connected(factory)
    data = b"".join(publish("room", "x" * size) for size in sizes)
    few, many = (calls(publisher.protocol.dataReceived, data * (count // len(sizes))) for count in (120, 480))
    assert (many - few) / 360 <= bound


def test_the_publications_of_a_read_go_through_bus_and_hub_at_once(factory: LHTTPServerFactory, work: Work) -> None:
    subscribers(factory, 1)
    publisher = connected(factory)
    done = work(publisher.protocol.dataReceived, publish("room") * 500)
    assert done.made("runs", "received") == {"runs": 1, "received": 500}


def test_a_burst_that_ends_within_a_frame_costs_the_same(factory: LHTTPServerFactory, work: Work) -> None:
    peers = subscribers(factory, 1)
    publisher = connected(factory)
    data = publish("room") * 500
    publisher.protocol.dataReceived(data[:10_000])
    done = work(publisher.protocol.dataReceived, data[10_000:])
    assert written(peers) == [500]
    assert writes(peers) == [2]
    assert done.made("parses", "requests", "messages", "deferreds") == {}


# (b) a burst, 1 to many


def test_a_fan_out_frames_once_for_all_and_writes_once_to_each(factory: LHTTPServerFactory, work: Work) -> None:
    peers = subscribers(factory, 100)
    publisher = connected(factory)
    data = publish("room") * 50
    done = work(publisher.protocol.dataReceived, data)
    assert (writes(peers), written(peers)) == ([1] * 100, [50] * 100)
    assert done.made("frames", "deferreds", "requests") == {"frames": 50}
    assert len({id(peer.transport.writes[0]) for peer in peers}) == 1


# (c) a stream, each delivery a write of its own


def test_a_delivery_that_comes_alone_is_one_write_of_one_shared_frame(factory: LHTTPServerFactory, work: Work) -> None:
    peers = subscribers(factory, 100)
    publisher = connected(factory)
    publisher.protocol.dataReceived(publish("room"))
    settle(factory)
    done = work(publisher.protocol.dataReceived, publish("room"))
    assert writes(peers) == [2] * 100
    assert len({id(peer.transport.writes[1]) for peer in peers}) == 1
    made = {name: count for name, count in done.made().items() if name not in ("framed", "unmasked")}
    assert made == {"frames": 1, "runs": 1, "received": 1}


# (d) echo


def test_echoes_of_one_read_are_one_write(factory: LHTTPServerFactory, work: Work) -> None:
    peer = connected(factory)
    done = work(peer.protocol.dataReceived, frame("LHTTP/1.0 echo\r\n\r\n" + BODY) * 100)
    assert (writes([peer]), written([peer])) == ([1], [100])
    assert done.made("parses", "plans", "frames", "requests", "messages", "deferreds") == {
        "parses": 1,
        "plans": 1,
        "frames": 100,
        "requests": 100,
        "messages": 100,
    }


def test_an_echo_takes_few_calls(factory: LHTTPServerFactory) -> None:
    peer = connected(factory)
    data = frame("LHTTP/1.0 echo\r\n\r\n" + BODY)
    few, many = (calls(peer.protocol.dataReceived, data * count) for count in (100, 500))
    assert (many - few) / 400 <= 38


@pytest.mark.parametrize(("head", "bound"), [("LHTTP/1.0 echo\r\n", 60), ("LHTTP/1.0 x\r\npublish:room\r\n", 63)])
def test_a_message_that_comes_alone_takes_few_calls(factory: LHTTPServerFactory, head: str, bound: int) -> None:
    subscribers(factory, 1)
    peer = connected(factory)
    data = frame(f"{head}\r\n{BODY}")
    peer.protocol.dataReceived(data)
    assert calls(peer.protocol.dataReceived, data) <= bound


# (e) kinds of processors


@pytest.mark.parametrize(("command", "deferreds"), [("echo", 0), ("echo-deferred", 1), ("echo-coroutine", 1)])
def test_what_a_kind_of_processor_costs(
    factory: LHTTPServerFactory, clock: Clock, work: Work, command: str, deferreds: int
) -> None:
    peer = connected(factory)
    timers = len(clock.getDelayedCalls())
    done = work(peer.protocol.dataReceived, frame(f"LHTTP/1.0 {command}\r\n\r\n{BODY}") * 100)
    assert (writes([peer]), written([peer])) == ([1], [100])
    assert done["deferreds"] == 100 * deferreds
    assert len(clock.getDelayedCalls()) == timers


# (f) large bodies


@pytest.mark.parametrize("size", [1_024, 16_384, 61_440])
def test_a_body_is_unmasked_once_and_framed_once(factory: LHTTPServerFactory, work: Work, size: int) -> None:
    peers = subscribers(factory, 10)
    publisher = connected(factory)
    data = publish("room", "x" * size)
    whole = len(data) - 8
    done = work(publisher.protocol.dataReceived, data)
    assert written(peers) == [1] * 10
    assert done.made("unmasked", "framed", "frames") == {"unmasked": whole, "framed": whole, "frames": 1}


# (g) connections


def test_a_connection_is_answered_in_one_write(factory: LHTTPServerFactory, work: Work) -> None:
    peer = Peer(factory)
    done = work(peer.open)
    assert done.made("parses", "requests", "messages", "frames", "deferreds") == {}
    assert peer.transport.value() == b""


def test_an_idle_connection_holds_no_queue_and_no_state(factory: LHTTPServerFactory) -> None:
    (peer,) = subscribers(factory, 1)
    session = peer.protocol.session
    assert (session._queue, session._state, session._run, session._opened) == (None, None, None, [])


# (h) many channels


def test_channels_that_fit_are_looked_at_once(factory: LHTTPServerFactory, work: Work) -> None:
    peers = [peer for number in range(300) for peer in subscribers(factory, 1, f"c{number}")]
    publisher = connected(factory)
    data = b"".join(publish(f"c{number}") for number in range(300))
    publisher.protocol.dataReceived(data)
    settle(factory)
    done = work(publisher.protocol.dataReceived, data)
    assert (writes(peers), written(peers)) == ([2] * 300, [2] * 300)
    assert done.made("parses", "plans", "requests", "messages", "deferreds") == {}


def test_with_more_channels_than_fit_in_turn_some_are_known(
    clock: Clock, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module, "_PLAN_SIZE", 80_000)
    factory = LHTTPServerFactory(engine=Server().engine, reactor=clock)
    publisher = connected(factory)
    data = b"".join(publish(f"c{number}") for number in range(400))
    for _ in range(5):
        publisher.protocol.dataReceived(data)
    done = work(publisher.protocol.dataReceived, data)
    assert done.made("requests", "messages", "deferreds") == {}
    assert done["parses"] <= 340


def test_a_publication_with_a_new_head_takes_few_calls(factory: LHTTPServerFactory) -> None:
    publisher = connected(factory)
    publisher.protocol.dataReceived(publish("a"))
    data = [b"".join(publish(f"c{turn}x{number}") for number in range(count)) for turn, count in enumerate((50, 250))]
    few, many = (calls(publisher.protocol.dataReceived, found) for found in data)
    assert (many - few) / 200 <= 90


# (i) POST /publish


def test_a_post_parses_once_and_frames_once(factory: LHTTPServerFactory, clock: Clock, work: Work) -> None:
    peers = subscribers(factory, 10)
    site: Any = LHTTPSite(RootResource(factory=factory), max_body_size=1_000, reactor=clock)
    transport = StringTransport(peerAddress=IPv4Address("TCP", "127.0.0.1", 4321))
    channel = site.buildProtocol(transport.getPeer())
    channel.makeConnection(transport)
    body = b"LHTTP/1.0 x\r\npublish:room\r\n\r\nhello"
    head = b"POST /publish HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: %d\r\n\r\n" % len(body)
    done = work(channel.dataReceived, head + body)
    assert transport.value().startswith(b"HTTP/1.1 200 ")
    assert (writes(peers), written(peers)) == ([1] * 10, [1] * 10)
    assert done.made("parses", "plans", "frames", "requests") == {"parses": 1, "frames": 1}


# (j) growth


def growth(factory: LHTTPServerFactory, grow: Callable[[int], object], data: bytes) -> list[int]:
    """How many calls *data* takes at first, and after each of two times of growing."""
    publisher = connected(factory)
    publisher.protocol.dataReceived(data)
    settle(factory)
    found = [calls(publisher.protocol.dataReceived, data)]
    for _ in range(2):
        grow(100)
        settle(factory)
        found.append(calls(publisher.protocol.dataReceived, data))
    return found


@pytest.mark.parametrize("count", [1, 50])
def test_a_publication_costs_the_same_however_many_others_are_connected(
    factory: LHTTPServerFactory, count: int
) -> None:
    subscribers(factory, 3)
    costs = growth(factory, lambda more: [connected(factory) for _ in range(more)], publish("room") * count)
    assert len(set(costs)) == 1


@pytest.mark.parametrize("count", [1, 50])
def test_a_publication_costs_the_same_however_many_other_channels_there_are(
    factory: LHTTPServerFactory, count: int
) -> None:
    subscribers(factory, 3)
    names = iter(range(1_000))
    costs = growth(
        factory,
        lambda more: [subscribers(factory, 1, f"other{next(names)}") for _ in range(more)],
        publish("room") * count,
    )
    assert len(set(costs)) == 1


@pytest.mark.parametrize("count", [1, 50])
def test_the_cost_of_a_publication_is_a_straight_line_in_its_subscribers(
    factory: LHTTPServerFactory, count: int
) -> None:
    subscribers(factory, 1)
    first, second, third = growth(factory, lambda more: subscribers(factory, more), publish("room") * count)
    assert third - second == second - first > 0


def test_a_run_costs_each_subscriber_the_same_however_long_it_is(factory: LHTTPServerFactory) -> None:
    costs = []
    for count in (10, 20):
        subscribers(factory, 1)
        first, second, _ = growth(factory, lambda more: subscribers(factory, more), publish("room") * count)
        costs.append(second - first)
    assert costs[0] == costs[1]


@pytest.mark.parametrize("sizes", [(10, 80), (130, 400), (5_000, 60_000)])
def test_a_publication_takes_as_many_calls_whatever_its_size(
    factory: LHTTPServerFactory, sizes: tuple[int, int]
) -> None:
    subscribers(factory, 3)
    publisher = connected(factory)
    publisher.protocol.dataReceived(publish("room"))
    small, large = (calls(publisher.protocol.dataReceived, publish("room", "x" * size)) for size in sizes)
    assert small == large
