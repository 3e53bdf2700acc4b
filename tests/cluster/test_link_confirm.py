"""What the link to NATS asks and what it hears, seen from a server that a test speaks for."""

from __future__ import annotations

import asyncio
import gc
import socket
import struct
import time
from collections import deque
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred, DeferredList
from twisted.logger import LogLevel, formatEvent, globalLogPublisher

from cluster._cluster import UNKNOWN, pause, until
from cluster._link import Server, linked
from lhttp_tx.bus.nats.origins import Origins
from lhttp_tx.errors import BusUnavailable

pytestmark = pytest.mark.asyncio_reactor


class Owner:
    """A LinkOwner that remembers that its link was lost."""

    def __init__(self) -> None:
        self.origins = Origins()
        self.lost: list[str] = []

    def link_lost(self, link: Any, reason: str) -> None:
        self.lost.append(reason)


@pytest_twisted.async_yield_fixture
async def ends() -> AsyncIterator[tuple[Any, Server, Owner]]:
    """A link, the server at its other end, and its owner."""
    owner = Owner()
    async with linked(owner) as (link, server):
        server.heard.clear()
        yield link, server, owner


def publish(link: Any, payload: bytes = b"payload", subject: str = "lhttp.room") -> list[Any]:
    """Publish, and return a list in which will be whether it is confirmed: ``None``, or why not."""
    result = link.publish(subject, payload, False)
    found: list[Any] = []
    waiting = link.confirm() if result is None else result.addCallback(lambda _: link.confirm())
    waiting.addCallbacks(found.append, lambda failure: found.append(failure.value.reason))
    return found


FORBIDDEN = "the bus does not allow this channel"


def named(link: Any) -> list[Any]:
    """Ask for a confirmation, and return a list in which will be the channels that are refused, or ``None``."""
    found: list[Any] = []
    link.confirm().addCallbacks(found.append, lambda failure: found.append(failure.value.channels))
    return found


@pytest_twisted.ensureDeferred
async def test_a_refusal_is_of_no_concern_to_those_who_ask_when_it_is_over(ends: Any) -> None:
    link, server, _ = ends
    server.silent = True
    first = named(link)
    await until(lambda: server.pings)
    second = named(link)
    for subject in ("lhttp.bad", "lhttp.worse", "lhttp.bad"):
        server.refuse(subject)
    await until(lambda: len(link._confirmations._refused) == 3)
    server.silent = False
    server.answer()
    await until(lambda: first and second)
    assert first == second == [{"bad", "worse"}]
    third = named(link)
    await until(lambda: third)
    assert third == [None]
    assert not link._confirmations._refused or link._confirmations._refused[-1][0] < link._confirmations.asked


@pytest_twisted.ensureDeferred
async def test_beyond_a_number_of_refusals_all_who_wait_fail(ends: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lhttp_tx.bus.nats.confirmations._MAX_REFUSED", 5)
    link, server, _ = ends
    server.silent = True
    found = publish(link)
    await until(lambda: server.pings)
    for number in range(6):
        server.refuse(f"lhttp.{number}")
    await until(lambda: found)
    assert found == [UNKNOWN]


async def alert(ends: Any) -> None:
    """Let the server refuse a publication, and answer what was sent before it."""
    link, server, _ = ends
    publish(link, subject="lhttp.bad")
    server.refuse("lhttp.bad")
    await link.checked()
    await link.checked()
    await until(lambda: not link._denials._settling)
    assert link._denials.alert
    server.silent = True
    server.heard.clear()


@pytest_twisted.ensureDeferred
async def test_a_refused_publication_fails_no_receipt_of_another_channel(ends: Any) -> None:
    link, server, owner = ends
    await alert(ends)
    good, bad = [publish(link)], [publish(link, subject="lhttp.worse") for _ in range(3)]
    await until(lambda: server.pings)
    server.refuse("lhttp.worse")
    server.refuse("lhttp.worse")
    good.append(publish(link, subject="lhttp.other"))
    await until(lambda: all(bad))
    server.refuse("lhttp.worse")
    server.silent = False
    server.answer()
    await until(lambda: all(good))
    assert (good, bad) == ([[None], [None]], [[FORBIDDEN]] * 3)
    assert publish(link) == [], "it is known to be allowed"
    assert owner.lost == []


@pytest_twisted.ensureDeferred
async def test_a_refused_channel_is_refused_here_until_it_is_tried_again(ends: Any) -> None:
    link, server, _ = ends
    await alert(ends)
    with pytest.raises(BusUnavailable, match=FORBIDDEN):
        publish(link, subject="lhttp.bad")
    assert server.heard == []
    link._denials._denied._ends["lhttp.bad"] = 0.0  # the time is over
    found = publish(link, subject="lhttp.bad")
    server.silent = False
    await until(lambda: found)
    assert found == [None]
    assert link.publish("lhttp.bad", b"x", False) is None


@pytest_twisted.ensureDeferred
async def test_a_channel_that_was_allowed_and_is_refused_then_is_named_to_all_that_wait(ends: Any) -> None:
    link, server, _ = ends
    await alert(ends)
    server.silent = False
    found = publish(link)
    await until(lambda: found)
    server.silent = True
    found, channels = [publish(link), publish(link, subject="lhttp.other")], named(link)
    await until(lambda: server.pings > 1)
    server.refuse("lhttp.room")
    later = named(link)
    server.silent = False
    server.answer()
    await until(lambda: all(found) and channels and later)
    assert found == [[FORBIDDEN], [None]], "the first was not tried, because it was allowed"
    assert channels == [{"room"}]
    assert later in ([None], [{"room"}]), "the refusal may have come first"
    with pytest.raises(BusUnavailable, match=FORBIDDEN):
        publish(link)


@pytest_twisted.ensureDeferred
async def test_a_publication_to_a_stream_that_is_refused_fails_no_receipt(ends: Any) -> None:
    link, server, _ = ends
    server.silent = True
    found = publish(link)
    await until(lambda: server.pings)
    server.refuse("$stream.room")
    server.silent = False
    server.answer()
    await until(lambda: found)
    assert found == [None]
    assert not link._denials.alert


@pytest_twisted.ensureDeferred
async def test_what_nodes_tell_each_other_is_never_tried(ends: Any) -> None:
    link, _, _ = ends
    await alert(ends)
    assert link.publish("lhttp.%24node.0", b"x", False) is None
    link._denials._denied._ends["lhttp.%24node.0"] = 1e9
    assert link.publish("lhttp.%24node.0", b"x", False) is None


@pytest_twisted.ensureDeferred
async def test_what_is_tried_fails_with_the_link(ends: Any) -> None:
    link, server, owner = ends
    await alert(ends)
    found = publish(link)
    await until(lambda: server.pings)
    server.drop()
    await until(lambda: found)
    assert found == [UNKNOWN]
    assert len(owner.lost) == 1


@pytest_twisted.ensureDeferred
async def test_what_a_link_remembers_of_refusals_has_a_bound_and_an_end(ends: Any) -> None:
    link, _, _ = ends
    await alert(ends)
    denials = link._denials
    for number in range(10_050):
        denials.refused(f"lhttp.{number}")
        denials._attempts.setdefault(f"lhttp.x{number}", deque([Deferred()]))
        denials._tried(None, f"lhttp.x{number}")
    assert len(denials._denied) == len(denials._allowed) == 10_000
    denials._relax()
    assert (denials.alert, len(denials._denied), denials._allowed, denials._attempts) == (False, 0, {}, {})


@pytest_twisted.ensureDeferred
async def test_a_publication_is_confirmed_by_an_answer_to_a_ping_behind_it(ends: Any) -> None:
    link, server, _ = ends
    server.silent = True
    found = publish(link)
    await until(lambda: server.pings)
    await pause(0.05)
    assert (server.heard, found) == ([b"payload", b"PING"], [])
    server.answer()
    await until(lambda: found)
    assert found == [None]


@pytest_twisted.ensureDeferred
async def test_a_publication_and_its_ping_leave_in_one_write(ends: Any) -> None:
    link, _, _ = ends
    transport = link._client._tap.transport
    write, writes = transport.writelines, []

    def counted(lines: list[bytes]) -> None:
        writes.append(b"".join(lines))
        write(lines)

    transport.writelines = counted
    found = publish(link)
    await until(lambda: found)
    assert len(writes) == 1 and writes[0].endswith(b"payload\r\nPING\r\n")


@pytest_twisted.ensureDeferred
async def test_while_the_server_does_not_read_no_ping_overtakes_a_publication(ends: Any) -> None:
    link, server, _ = ends
    server.transport.pauseProducing()
    while not link._client._tap.full:
        link.publish("lhttp.room", b"x" * 100_000, False)
        await pause(0)
    link.publish("lhttp.room", b"last but one", False)
    found = publish(link, b"last")
    await pause(0.05)
    assert link._client.pending_data_size > 0 and not found
    server.transport.resumeProducing()
    await until(lambda: found)
    assert server.heard[-3:] == [b"last but one", b"last", b"PING"]


@pytest_twisted.ensureDeferred
async def test_a_thousand_confirmations_that_are_asked_for_at_once_cost_one_ping(ends: Any) -> None:
    link, server, _ = ends
    found = [publish(link) for _ in range(1_000)]
    await until(lambda: found[-1])
    assert found == [[None]] * 1_000
    assert server.heard == [b"payload"] * 1_000 + [b"PING"]


@pytest_twisted.ensureDeferred
async def test_one_ping_is_under_way_and_the_next_is_for_all_who_came_meanwhile(ends: Any) -> None:
    link, server, _ = ends
    server.silent = True
    found = [publish(link, b"0")]
    await until(lambda: server.pings)
    for number in range(1, 100):
        found.append(publish(link, b"%d" % number))
        if number % 10 == 0:
            await pause(0)
    await until(lambda: len(server.heard) == 101)
    await pause(0.02)
    assert server.pings == 1
    server.answer()
    await until(lambda: server.pings == 2)
    assert found == [[None]] + [[]] * 99
    assert server.heard[-1] == b"PING"
    server.answer()
    await until(lambda: found[-1])
    assert found == [[None]] * 100


@pytest_twisted.ensureDeferred
async def test_what_is_published_when_others_are_confirmed_is_asked_about_behind_it(ends: Any) -> None:
    link, server, _ = ends
    found: list[Any] = []
    link.publish("lhttp.room", b"1", False)
    link.confirm().addCallback(lambda _: found.append(publish(link, b"2")))
    await until(lambda: found and found[0])
    assert server.heard == [b"1", b"PING", b"2", b"PING"]


@pytest_twisted.ensureDeferred
async def test_a_sign_of_life_is_asked_for_behind_what_was_published(ends: Any) -> None:
    link, server, _ = ends
    link.publish("lhttp.room", b"payload", False)
    await link.checked()
    assert server.heard == [b"payload", b"PING"]


@pytest_twisted.ensureDeferred
async def test_a_sign_of_life_confirms_what_was_published_before_it(ends: Any) -> None:
    link, server, _ = ends
    server.silent = True
    found = [publish(link)]
    await until(lambda: server.pings)
    found.append(publish(link))
    checked = link.checked()
    await until(lambda: server.pings == 2)
    found.append(publish(link))
    server.answer()
    await checked
    assert found[:2] == [[None]] * 2


@pytest_twisted.ensureDeferred
async def test_a_link_that_is_closed_has_sent_and_confirmed_everything(ends: Any) -> None:
    link, server, _ = ends
    found = publish(link)
    await link.close(flush=True)
    assert found == [None]
    assert b"payload" in server.heard


@pytest_twisted.ensureDeferred
async def test_a_connection_that_is_lost_confirms_nothing(ends: Any) -> None:
    link, server, owner = ends
    server.silent = True
    found = [publish(link)]
    await until(lambda: server.pings)
    found.append(publish(link))
    server.drop()
    await until(lambda: owner.lost)
    assert found == [[UNKNOWN], [UNKNOWN]]
    with pytest.raises(BusUnavailable):
        await link.confirm()


@pytest_twisted.ensureDeferred
async def test_a_link_that_is_closed_at_once_confirms_nothing(ends: Any) -> None:
    link, server, _ = ends
    server.silent = True
    found = publish(link)
    await until(lambda: server.pings)
    await link.close(flush=False)
    assert found == [UNKNOWN]


@pytest_twisted.ensureDeferred
async def test_a_server_that_does_not_answer_is_given_up_after_four_seconds(ends: Any) -> None:
    link, server, owner = ends
    server.silent = True
    start = time.monotonic()
    found = publish(link)
    await until(lambda: found)
    assert (found, owner.lost) == ([UNKNOWN], ["no answer for 4 s"])
    assert time.monotonic() - start > 3.9


@pytest_twisted.ensureDeferred
async def test_a_publication_that_nats_does_not_allow_is_not_confirmed(ends: Any) -> None:
    link, server, owner = ends
    errors: list[Any] = []
    globalLogPublisher.addObserver(errors.append)
    server.silent = True
    found = [publish(link)]
    await until(lambda: server.pings)
    server.refuse("lhttp.room")
    server.answer()
    await until(lambda: found[0])
    with pytest.raises(BusUnavailable, match="does not allow"):
        publish(link)
    found.append(publish(link, subject="lhttp.another"))
    server.silent = False
    server.answer()
    await until(lambda: found[1])
    globalLogPublisher.removeObserver(errors.append)
    assert (found, owner.lost) == ([[FORBIDDEN], [None]], [])
    told = [formatEvent(event) for event in errors if event["log_level"] is LogLevel.error]
    assert told == ["NATS forbids this node to publish to 'lhttp.room'"]
    assert not link._orders.denied, "there may be any number of such subjects"


@pytest_twisted.ensureDeferred
async def test_what_nats_does_not_allow_fills_no_log(ends: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    link, server, _ = ends
    lines: list[str] = []

    def observe(event: Any) -> None:
        if event["log_level"] is LogLevel.error:
            lines.append(formatEvent(event))

    async def refuse(count: int) -> None:
        for number in range(count):
            server.refuse(f"lhttp.{number}")
        await link.checked()

    globalLogPublisher.addObserver(observe)
    await refuse(100)
    assert lines == ["NATS forbids this node to publish to 'lhttp.0'"]
    told = link._complaints.told
    monkeypatch.setattr(link._complaints, "told", {verb: (0.0, count) for verb, (_, count) in told.items()})
    await refuse(1)
    globalLogPublisher.removeObserver(observe)
    assert lines[1:] == ["NATS forbids this node to publish to 'lhttp.0' (99 more such lines)"]


@pytest_twisted.ensureDeferred
async def test_a_subscription_that_nats_does_not_allow_is_remembered_no_longer_than_it_is_wanted(ends: Any) -> None:
    link, server, _ = ends
    server.silent = True
    subscribing = link.subscribe("lhttp.room")
    await until(lambda: server.pings)
    server.refuse("lhttp.room", "Subscription to")
    server.answer()
    with pytest.raises(BusUnavailable, match="does not allow"):
        await subscribing
    link.unsubscribe("lhttp.room")
    await until(lambda: server.pings == 2)
    assert not link._orders.denied


@pytest_twisted.ensureDeferred
async def test_a_refused_subject_with_capitals_is_recognised_and_its_twin_without_is_not_refused(
    ends: Any,
) -> None:
    link, server, _ = ends
    server.silent = True
    refused, allowed = link.subscribe("lhttp.Room.7"), link.subscribe("lhttp.room.7")
    await until(lambda: server.pings)
    server.refuse("lhttp.Room.7", "Subscription to")
    server.answer()
    with pytest.raises(BusUnavailable, match="does not allow"):
        await refused
    await allowed
    assert link._orders.denied == {"lhttp.Room.7"}


@pytest_twisted.ensureDeferred
async def test_a_subscription_in_hand_fails_with_the_link(ends: Any) -> None:
    link, server, owner = ends
    server.silent = True
    found: list[Any] = []
    link.subscribe("lhttp.room").addErrback(lambda failure: found.append(failure.value.reason))
    await until(lambda: server.pings)
    server.drop()
    await until(lambda: owner.lost)
    await until(lambda: found)
    assert found == ["the bus is unavailable, try again later"]


@pytest_twisted.ensureDeferred
async def test_those_who_wait_are_bounded(ends: Any) -> None:
    link, server, _ = ends
    server.silent = True
    waiting = [link.confirm() for _ in range(50_000)]
    with pytest.raises(BusUnavailable):
        await link.confirm()
    server.silent = False
    await DeferredList(waiting)


@pytest_twisted.ensureDeferred
async def test_a_server_that_dies_while_much_waits_to_be_sent_leaves_no_traceback(
    ends: tuple[Any, Server, Owner],
) -> None:
    """nats-py tried to write the rest to the lost connection, in a task whose failure nobody looks at."""
    link, server, owner = ends
    failures: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    before = loop.get_exception_handler()
    loop.set_exception_handler(lambda _, context: failures.append(context))
    try:
        assert server.transport is not None
        server.transport.pauseProducing()  # type: ignore[attr-defined]
        with pytest.raises(BusUnavailable):
            while True:
                link.publish("a", b"x" * 500_000, True)
                await pause(0)
        sock = server.transport.getHandle()  # type: ignore[attr-defined]
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        server.transport.abortConnection()  # type: ignore[attr-defined]
        await until(lambda: owner.lost)
        await pause(0.1)
        gc.collect()
        assert failures == []
    finally:
        loop.set_exception_handler(before)
