"""A NATS whose every answer a test gives by hand: what NATSBus sees of one, without a socket."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock

from lhttp_tx.bus.nats.bus import NATSBus
from lhttp_tx.bus.nats.confirmations import UNCONFIRMED
from lhttp_tx.bus.nats.servers import NATSServers
from lhttp_tx.errors import BusUnavailable, MessageTooLarge

__all__ = ["A", "B", "FakeLink", "FakeNATS"]

A, B = "nats://a:4222", "nats://b:4222"


class FakeInbox:
    """Stands in for :class:`lhttp_tx.bus.nats.inbox.Inbox`, where nobody waits for answers."""

    def retire(self, done: Callable[[], object]) -> None:
        done()


class FakeLink:
    """
    Stands in for :class:`lhttp_tx.bus.nats.link.Link`.

    :ivar published: what it was given to publish.
    :ivar pieces: how often it was given several publications in one piece.
    :ivar denied: whether it lets the node do nothing.
    :ivar max_size: bytes of the largest publication that it takes.
    :ivar subscribed: the subjects that it was asked for, in order; also those that were taken back.
    :ivar unsubscribed: the subjects that were taken back, in order.
    :ivar mark: what its publications bear.
    :ivar closed: with which ``flush`` it was closed, or ``None``.
    :ivar checks: pings that have no answer yet.
    :ivar confirmations: questions whether it has what was published that have no answer yet.
    """

    def __init__(self, nats: FakeNATS, url: str, owner: Any) -> None:
        self.url = self.server = url
        self.owner = owner
        self.usable = True
        self.denied = False
        self.other_urls = list(nats.other_urls)
        self.published: list[tuple[str, bytes, bool]] = []
        self.pieces = 0
        self.max_size = 1_048_576
        self.subscribed: list[str] = []
        self.unsubscribed: list[str] = []
        self.closed: bool | None = None
        self.mark = b""
        self.checks: list[Deferred[None]] = []
        self.confirmations: list[Deferred[None]] = []
        self.inbox = FakeInbox()
        self._asked: dict[str, Deferred[None]] = {}
        self._nats = nats

    def begin(self, mark: bytes) -> None:
        self.mark = mark

    def publish(self, subject: str, payload: bytes, binary: bool) -> None:
        if not self.usable:
            raise BusUnavailable("the bus is unavailable, try again later")
        self.check_size(payload, binary)
        self.published.append((subject, payload, binary))

    def check_size(self, payload: bytes, binary: bool) -> None:
        if len(payload) > self.max_size:
            raise MessageTooLarge("larger than the bus takes")

    def publish_more(self, subject: str, payloads: list[bytes], binary: bool) -> None:
        self.pieces += 1
        self.published += [(subject, payload, binary) for payload in payloads]

    def subscribe(self, subject: str) -> Deferred[None]:
        self.subscribed.append(subject)
        answer = self._asked[subject] = Deferred()
        if self._nats.answers:
            answer.callback(None)
        return answer

    def unsubscribe(self, subject: str) -> None:
        self.unsubscribed.append(subject)

    def checked(self) -> Deferred[None]:
        if self._nats.answers:
            return succeed(None)
        self.checks.append(Deferred())
        return self.checks[-1]

    def probed(self) -> Deferred[None]:
        return self.checked()

    def confirm(self) -> Deferred[None]:
        if not self.usable:
            return fail(BusUnavailable(UNCONFIRMED))
        self.confirmations.append(Deferred())
        return self.confirmations[-1]

    def close(self, *, flush: bool) -> Deferred[None]:
        if flush:
            self.take()
        self.closed, self.usable = flush, False
        self._fail_confirmations()
        return succeed(None)

    # For the test

    def take(self) -> None:
        """Say that NATS has what was published."""
        confirmations, self.confirmations = self.confirmations, []
        for confirmation in confirmations:
            if not confirmation.called:
                confirmation.callback(None)

    def grant(self, subject: str) -> None:
        """Say that NATS has the subscription."""
        self._asked.pop(subject).callback(None)

    def deny(self, subject: str) -> None:
        """Say that NATS does not allow it."""
        self._asked.pop(subject).errback(BusUnavailable("the bus does not allow this channel"))

    def lose(self, reason: str = "connection closed") -> None:
        """Break the connection."""
        self.usable = False
        asked, self._asked = self._asked, {}
        for answer in asked.values():
            if not answer.called:
                answer.errback(BusUnavailable("the bus is unavailable, try again later"))
        self._fail_confirmations()
        self.owner.link_lost(self, reason)

    def _fail_confirmations(self) -> None:
        confirmations, self.confirmations = self.confirmations, []
        for confirmation in confirmations:
            if not confirmation.called:
                confirmation.errback(BusUnavailable(UNCONFIRMED))

    def receive(self, subject: str, *payloads: bytes) -> None:
        """Let publications arrive."""
        self.owner.begin_batch()
        for payload in payloads:
            self.owner.receive(self, subject, [payload], False)
        self.owner.end_batch()


class FakeNATS:
    """
    The servers, and one bus that uses them.

    :ivar attempts: the URLs that were connected to, in order.
    :ivar links: those that were accepted, in order.
    :ivar too_late: whether an attempt that is cancelled succeeds all the same, as one that was made already does.
    :ivar answers: whether links say at once that they have a subscription, or are alive.
    :ivar other_urls: what links have learnt of other servers.
    """

    def __init__(self, *urls: str, **settings: Any) -> None:
        self.clock = Clock()
        self.attempts: list[str] = []
        self.links: list[FakeLink] = []
        self.too_late = False
        self.answers = True
        self.other_urls: list[str] = []
        self.bus = NATSBus(NATSServers(urls or (A,), **settings), clock=self.clock, opener=self._open)
        self._pending: list[tuple[str, Deferred[Any], Any]] = []

    def _open(self, url: str, servers: NATSServers, owner: Any) -> Deferred[Any]:
        self.attempts.append(url)
        attempt: Deferred[Any] = Deferred(lambda attempt: self._cancelled(url, attempt, owner))
        self._pending.append((url, attempt, owner))
        return attempt

    def _cancelled(self, url: str, attempt: Deferred[Any], owner: Any) -> None:
        if self.too_late:
            self.links.append(FakeLink(self, url, owner))
            attempt.callback(self.links[-1])

    @property
    def pending(self) -> int:
        """How many attempts to connect have no outcome."""
        return sum(not attempt.called for _, attempt, _ in self._pending)

    def accept(self, *, lost: bool = False) -> FakeLink:
        """
        Let the oldest attempt succeed.

        :param lost: whether the connection breaks before the bus gets the link.
        """
        url, attempt, owner = self._pending.pop(0)
        link = FakeLink(self, url, owner)
        self.links.append(link)
        if lost:
            link.lose()
        attempt.callback(link)
        self.clock.advance(0)
        return link

    def refuse(self, reason: str = "refused") -> None:
        """Let the oldest attempt fail."""
        url, attempt, _ = self._pending.pop(0)
        attempt.errback(BusUnavailable(f"{url}: {reason}"))

    def start(self) -> FakeLink:
        """Start the bus and let its first attempt succeed."""
        self.bus.start()
        self.clock.advance(0)
        return self.accept()

    def subscribe(self, channel: str = "room") -> list[bytes]:
        """Subscribe, and return the list in which payloads will be."""
        received: list[bytes] = []
        self.bus.subscribe(channel, lambda channel, payloads, binary: received.extend(payloads))
        return received
