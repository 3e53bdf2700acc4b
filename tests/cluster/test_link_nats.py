"""The way to NATS in this process: what is rebuilt, what is told, and that nothing of a lost link is left over."""

from __future__ import annotations

import asyncio
import gc
import signal
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from integration._nats import NATSProcess, free_port, needs_nats
from twisted.internet.defer import Deferred

from cluster._cluster import pause, until
from lhttp_tx.bus.nats.origins import Origins
from lhttp_tx.errors import BusUnavailable, MessageTooLarge
from lhttp_tx.testing.bus import done, into

pytestmark = [needs_nats, pytest.mark.asyncio_reactor]


@pytest.fixture(scope="module")
def nats() -> Iterator[NATSProcess]:
    process = NATSProcess()
    yield process
    process.stop()


class Owner:
    """A LinkOwner that writes down what it is told."""

    def __init__(self) -> None:
        self.origins = Origins()
        self.received: list[tuple[str, bytes, bool]] = []
        self.lost: list[str] = []
        self.batches = 0
        self.open_batches = 0

    def begin_batch(self) -> None:
        self.batches += 1
        self.open_batches += 1

    def receive(
        self, link: Any, subject: str, payloads: list[bytes], binary: bool, wildcard: str | None = None
    ) -> None:
        assert wildcard is None
        assert self.open_batches == 1
        self.received += [(subject, payload, binary) for payload in payloads]

    def end_batch(self) -> None:
        self.open_batches -= 1

    def link_lost(self, link: Any, reason: str) -> None:
        self.lost.append(reason)

    def link_leaving(self, link: Any) -> None:
        """Not looked at."""


def open_link(url: str, owner: Owner | None = None, **settings: Any) -> Deferred[Any]:
    from lhttp_tx.bus.nats.opening import open_link
    from lhttp_tx.bus.nats.servers import NATSServers

    return open_link(url, NATSServers((url,), **settings), Owner() if owner is None else owner)


def break_protocol(bus: Any) -> None:
    """Send NATS a line that is too long, which it answers with ``-ERR`` and by closing the connection."""
    bus._keeper.link._client._transport.write(b"PUB " + b"x" * 5_000 + b" 0\r\n\r\n")


@pytest_twisted.async_yield_fixture
async def buses(nats: NATSProcess) -> AsyncIterator[list[Any]]:
    from twisted.internet import reactor

    from lhttp_tx.bus.nats.bus import NATSBus
    from lhttp_tx.bus.nats.servers import NATSServers

    made = [NATSBus(NATSServers((nats.url,)), clock=reactor) for _ in range(2)]
    for bus in made:
        await bus.start()
        await until(lambda bus=bus: bus.available)
    yield made
    for bus in made:
        await bus.stop()


@pytest_twisted.ensureDeferred
async def test_a_client_that_nats_has_closed_for_good_is_built_anew_and_subscribed_again(buses: list[Any]) -> None:
    received: list[bytes] = []
    await done(buses[0].subscribe("room", lambda channel, payloads, binary: received.extend(payloads)))
    for number in range(3):
        break_protocol(buses[0])
        await until(lambda: not buses[0].available)
        await until(lambda: buses[0].available)
        buses[1].publish("room", b"%d" % number, False)
        await until(lambda number=number: len(received) > number)
    assert received == [b"0", b"1", b"2"]


@pytest_twisted.ensureDeferred
async def test_a_subscriber_of_a_bus_that_is_being_built_anew_is_told_when_it_is_done(buses: list[Any]) -> None:
    received: list[bytes] = []
    break_protocol(buses[0])
    await until(lambda: not buses[0].available)
    await done(buses[0].subscribe("room", lambda channel, payloads, binary: received.extend(payloads)))
    buses[1].publish("room", b"hello", False)
    await until(lambda: received)


@pytest.mark.parametrize(
    "channel", ["a\x0bb", "a\x0cb", "*a", "a>", "$JS.API.x", "_INBOX.x", "a..b", "a\r\nPUB b 0\r\n", "a\0b", "🙂"]
)
@pytest_twisted.ensureDeferred
async def test_the_bus_itself_takes_names_that_no_client_may_write(buses: list[Any], channel: str) -> None:
    received: list[Any] = []
    links = [bus._keeper.link for bus in buses]
    await done(buses[0].subscribe(channel, into(received)))
    for name in ("a", "a.b", "b", "x", channel):
        buses[1].publish(name, b"payload", False)
    await until(lambda: received)
    await pause(0.05)
    assert received == [(channel, b"payload", False)]
    assert [bus._keeper.link for bus in buses] == links


@pytest.mark.parametrize("channel", ["*", ">", "a.*", "a.>"])
@pytest_twisted.ensureDeferred
async def test_a_publication_to_what_looks_like_a_wildcard_reaches_no_channel(buses: list[Any], channel: str) -> None:
    received: list[Any] = []
    links = [bus._keeper.link for bus in buses]
    for name in ("a", "a.b", "b", "last"):
        await done(buses[0].subscribe(name, into(received)))
    buses[1].publish(channel, b"payload", False)
    buses[1].publish("last", b"payload", False)
    await until(lambda: received)
    await pause(0.05)
    assert received == [("last", b"payload", False)]
    assert [bus._keeper.link for bus in buses] == links


@pytest_twisted.ensureDeferred
async def test_a_channel_stays_subscribed_for_a_moment_and_is_let_go_then(buses: list[Any], nats: NATSProcess) -> None:
    def receiver(*_: Any) -> None:
        raise AssertionError("it had left")

    await done(buses[0].subscribe("room", receiver))
    client = buses[0]._keeper.link._client
    buses[0].unsubscribe("room", receiver)
    await pause(1.0)
    assert len(client.receivers) == 1
    buses[1].publish("room", b"nobody", False)
    await until(lambda: not client.receivers, 3.0)
    assert buses[0].channels == frozenset()


@pytest_twisted.ensureDeferred
async def test_subscriptions_that_come_together_are_confirmed_by_one_round_trip(nats: NATSProcess) -> None:
    link = await open_link(nats.url)
    pings: list[None] = []
    check = link.check

    def counted() -> Any:
        pings.append(None)
        return check()

    link.check = counted
    waiting = [link.subscribe(f"room{number}") for number in range(1_000)]
    for deferred in waiting:
        await deferred
    assert len(pings) <= 2
    await link.close(flush=True)


@pytest_twisted.ensureDeferred
async def test_publications_of_one_turn_leave_in_few_writes(nats: NATSProcess) -> None:
    link = await open_link(nats.url)
    transport = link._client._tap.transport
    writes: list[int] = []
    write = transport.writelines

    def counted(lines: list[bytes]) -> Any:
        writes.append(len(lines))
        return write(lines)

    transport.writelines = counted
    for number in range(1_000):
        link.publish("room", b"%d" % number, False)
    await link.checked()
    assert sum(writes) >= 1_000
    assert len(writes) <= 3
    await link.close(flush=True)


@pytest_twisted.ensureDeferred
async def test_what_arrives_together_is_one_batch(nats: NATSProcess) -> None:
    owner = Owner()
    receiver, sender = await open_link(nats.url, owner), await open_link(nats.url)
    await receiver.subscribe("room")
    for number in range(1_000):
        sender.publish("room", b"%d" % number, number % 2 == 1)
    await until(lambda: len(owner.received) == 1_000)
    await pause(0)
    assert [payload for _, payload, _ in owner.received] == [b"%d" % number for number in range(1_000)]
    assert [binary for _, _, binary in owner.received] == [False, True] * 500
    assert owner.batches < 100 and owner.open_batches == 0
    for link in (receiver, sender):
        await link.close(flush=True)


@pytest_twisted.ensureDeferred
async def test_publications_that_go_in_one_piece_arrive_as_any_others(nats: NATSProcess) -> None:
    owner = Owner()
    receiver, sender = await open_link(nats.url, owner), await open_link(nats.url)
    await receiver.subscribe("r\u00f6om")
    payloads = [b"", b"PUB room 1\r\nx\r\n", "\u00e9".encode(), b"x" * 70_000, b"\r\n", b"0" * 1_048_000]
    expected = []
    for binary in (False, True, False):
        sender.publish("r\u00f6om", b"first", binary)
        sender.publish_more("r\u00f6om", payloads, binary)
        expected += [("r\u00f6om", payload, binary) for payload in (b"first", *payloads)]
    await until(lambda: len(owner.received) == len(expected))
    assert owner.received == expected
    await sender.checked()
    assert not sender._client.pending_data_size
    for link in (receiver, sender):
        await link.close(flush=True)


@pytest_twisted.ensureDeferred
async def test_a_publication_is_refused_while_too_much_waits(nats: NATSProcess) -> None:
    link = await open_link(nats.url, pending_size=1_000_000)
    taken = 0
    with pytest.raises(BusUnavailable, match="congested"):
        for _ in range(2_000):
            link.publish("room", b"x" * 1_000, False)
            taken += 1
    assert 900 < taken < 1_100
    await link.checked()
    link.publish("room", b"again", False)
    await link.close(flush=True)


@pytest_twisted.ensureDeferred
async def test_a_publication_as_large_as_nats_takes_is_sent_and_a_larger_one_refused(nats: NATSProcess) -> None:
    link = await open_link(nats.url)
    link.publish("room", b"x" * 1_048_576, False)
    await link.checked()
    link.publish("room", b"x" * (1_048_576 - 64), True)
    await link.checked()
    for size, binary in [(1_048_577, False), (1_048_576 - 63, True)]:
        with pytest.raises(MessageTooLarge, match="1048576"):
            link.publish("room", b"x" * size, binary)
    await link.checked()
    await link.close(flush=True)


@pytest_twisted.ensureDeferred
async def test_a_link_whose_server_has_gone_says_so_once_and_takes_nothing(nats: NATSProcess) -> None:
    server, owner = NATSProcess(), Owner()
    link = await open_link(server.url, owner)
    await link.subscribe("room")
    server.kill()
    await until(lambda: owner.lost)
    assert not link.usable
    with pytest.raises(BusUnavailable):
        link.publish("room", b"payload", False)
    with pytest.raises(BusUnavailable):
        await link.subscribe("other")
    link.unsubscribe("room")
    await link.close(flush=True)
    await pause(0.05)
    assert len(owner.lost) == 1


@pytest_twisted.ensureDeferred
async def test_a_link_that_was_closed_tells_nothing(nats: NATSProcess) -> None:
    owner = Owner()
    link = await open_link(nats.url, owner)
    await link.close(flush=True)
    await pause(0.05)
    assert owner.lost == []


@pytest.mark.parametrize(
    ("url", "reason"),
    [("nats://127.0.0.1:{port}", "refused|Connect call failed"), ("nats://no-such-host.invalid:4222", "no-such-host")],
)
@pytest_twisted.ensureDeferred
async def test_a_server_that_cannot_be_reached_is_named(url: str, reason: str) -> None:
    url = url.format(port=free_port())
    with pytest.raises(BusUnavailable, match=reason) as caught:
        await open_link(url)
    assert caught.value.reason.startswith(url)


@pytest.mark.parametrize("greeting", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"INFO nonsense\r\n", b"INFO {}\r\n", b""])
@pytest_twisted.ensureDeferred
async def test_what_is_no_nats_server_is_left_again(greeting: bytes) -> None:
    server = await Deferred.fromFuture(asyncio.ensure_future(_greet(greeting)))
    port = server.sockets[0].getsockname()[1]
    with pytest.raises(BusUnavailable):
        await open_link(f"nats://127.0.0.1:{port}")
    server.close()


async def _greet(greeting: bytes) -> asyncio.Server:
    """Return a server that says *greeting* and hangs up."""

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(greeting)
        writer.close()

    return await asyncio.start_server(greet, "127.0.0.1", 0)


class Resources:
    """The tasks and the descriptors that there are more than when this was made."""

    def __init__(self) -> None:
        self._before = self._present()

    @staticmethod
    def _present() -> set[str]:
        gc.collect()
        tasks = {repr(task.get_coro()) for task in asyncio.all_tasks(_loop())}
        found = set(Path("/proc/self/fd").iterdir())
        return tasks | {f"{path.name}: {path.readlink()}" for path in found if path.is_symlink()}

    async def released(self) -> None:
        """Return when nothing is left over."""
        end = time.monotonic() + 30.0
        while left := self._present() - self._before:
            assert time.monotonic() < end, left
            await pause(0.01)


def _loop() -> asyncio.AbstractEventLoop:
    from twisted.internet import reactor

    return reactor._asyncioEventloop  # type: ignore[attr-defined,no-any-return]


@pytest_twisted.ensureDeferred
async def test_links_that_are_lost_or_closed_leave_no_task_and_no_descriptor(nats: NATSProcess) -> None:
    await pause(0.05)
    resources = Resources()
    for number in range(20):
        link = await open_link(nats.url)
        for room in range(5):
            await link.subscribe(f"room{room}")
        if number % 2:
            link.lose("for the test")
        else:
            await link.close(flush=number % 4 == 0)
    await resources.released()


@pytest_twisted.ensureDeferred
async def test_a_server_that_dies_or_refuses_leaves_no_task_and_no_descriptor() -> None:
    await pause(0.05)
    resources = Resources()
    for _ in range(3):
        server = NATSProcess("--user", "a", "--pass", "b")
        for _ in range(5):
            with pytest.raises(BusUnavailable, match="Authorization Violation"):
                await open_link(server.url)
        link = await open_link(server.url, user="a", password="b")
        await link.subscribe("room")
        server.kill()
        await until(lambda link=link: not link.usable)
        with pytest.raises(BusUnavailable):
            await open_link(server.url)
    await resources.released()


@pytest_twisted.ensureDeferred
async def test_a_server_that_hangs_leaves_no_task_and_no_descriptor() -> None:
    await pause(0.05)
    resources = Resources()
    server = NATSProcess()
    link = await open_link(server.url)
    await link.subscribe("room")
    server.send_signal(signal.SIGSTOP)
    with pytest.raises(BusUnavailable, match="congested"):
        for _ in range(20_000):
            link.publish("room", b"x" * 1_000, False)
    opening = open_link(server.url)
    link.lose("for the test")
    with pytest.raises(BusUnavailable, match="no answer"):
        await opening
    server.kill()
    await resources.released()


@pytest_twisted.ensureDeferred
async def test_a_bus_that_is_stopped_leaves_no_task_and_no_descriptor(nats: NATSProcess) -> None:
    from twisted.internet import reactor

    from lhttp_tx.bus.nats.bus import NATSBus
    from lhttp_tx.bus.nats.servers import NATSServers

    await pause(0.05)
    resources = Resources()
    for wait in (0.3, *(number / 20_000 for number in range(100))):  # at every step of connecting
        bus = NATSBus(NATSServers((nats.url,)), clock=reactor)
        await bus.start()
        await pause(wait)
        await bus.stop()
    await resources.released()
