"""
Publications on their way into a stream.

Each publication has a reply subject, to which the stream sends an acknowledgement. Only a limited number is in flight
at the same time, because a server drops what it cannot handle. The others wait here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from hashlib import sha256
from itertools import repeat
from typing import Any, final

from twisted.internet.interfaces import IDelayedCall

from lhttp_tx.bus.nats.headers import Head, publish_commands
from lhttp_tx.bus.nats.jetstream.acknowledgements import IN_PROCESS, NO_STREAM, UNKNOWN, read, read_all
from lhttp_tx.bus.nats.jetstream.streams import Stream
from lhttp_tx.bus.nats.jetstream.tips import Tips
from lhttp_tx.bus.nats.jetstream.waiters import Waiters
from lhttp_tx.bus.nats.link import Link
from lhttp_tx.bus.nats.permission import FORBIDDEN, ForbiddenNames
from lhttp_tx.codec.positions import format_position
from lhttp_tx.errors import HistoryUnavailable
from lhttp_tx.history.values import Placing
from lhttp_tx.interfaces import MaybeDeferred
from lhttp_tx.observe.rationing import RationedLogger

__all__ = ["Appends"]

_log = RationedLogger(__name__)

_MAX_COUNT = 50_000
_MAX_SIZE = 16_777_216
"""
The most publications of one history class that may wait for an acknowledgement, and the most bytes of these. Beyond
that, publications are refused.
"""

_WINDOW = 2_000
_WINDOW_SIZE = 1_048_576
"""The most publications, and the most bytes, that are in flight at the same time."""

_MAX_ID = 256
"""The most bytes of a channel and a message id that NATS gets unchanged. Of longer ones, NATS gets a hash."""

_CHECK_INTERVAL = 1.0
"""Seconds between checks for publications that have waited too long."""

_PAUSE = 0.05
_TRIES = 60
"""
Seconds before a publication is sent again whose duplicate was in process, and how often it is. A stream decides such a
duplicate within milliseconds, unless it loses its leader.
"""

_DOUBT = 30.0
"""
The most seconds for which the offsets of duplicates are not believed, if the stream was created again and its new epoch
does not become known.
"""

_COST = 100
"""Bytes that are added to the size of each publication."""


@final
class _Run:
    """
    Publications that were appended together.

    :ivar sent: the number of publications that were sent.
    :ivar open: the number of publications without an acknowledgement.
    :ivar floor: the largest known offset in the stream before the first was sent. Their own offsets are larger.
    :ivar error: why some were not stored, if they have no placing to tell it; else ``None``.
    :ivar tip: the largest offset that one of them has got; 0 if none has.
    :ivar tries: how often the stream had not decided about a duplicate.
    :ivar since: the time of the clock at which publications of the run were last sent, or else appended.
    """

    __slots__ = (
        *("_appends", "channel", "error", "floor", "head", "links", "number", "open", "payloads", "placing", "sent"),
        *("since", "tip", "tries"),
    )

    def __init__(
        self,
        appends: Appends,
        number: int,
        channel: str,
        head: bytes,
        payloads: list[bytes],
        placing: Placing | None,
        since: float,
    ) -> None:
        self._appends = appends
        self.number = number
        self.channel = channel
        self.head = head
        self.payloads = payloads
        self.placing = placing
        self.sent = 0
        self.open = len(payloads)
        self.since = since
        self.tip = self.floor = self.tries = 0
        self.error: HistoryUnavailable | None = None
        self.links: dict[Link, str] = {}

    def answer(self, answers: list[bytes], heads: list[Head] | None) -> bool:
        """See :class:`lhttp_tx.bus.nats.inbox.Answered`."""
        return self._appends.answered(self, answers, heads)

    def unanswered(self) -> None:
        """See :class:`lhttp_tx.bus.nats.inbox.Answered`."""
        self._appends.fail(self, UNKNOWN)


@final
class Appends:
    """
    The publications that are appended to one stream, in order.

    :ivar stream: the stream.
    """

    def __init__(
        self, stream: Stream, link: Callable[[], Link | None], tips: Tips, *, clock: Any, timeout: float
    ) -> None:
        """
        :param stream: the stream.
        :param link: returns the link to send over; ``None`` if publications have to wait.
        :param tips: gets the offsets of stored publications.
        :param clock: the reactor.
        :param timeout: the most seconds to wait for an acknowledgement.
        """
        self.stream = stream
        self._link = link
        self._tips = tips
        self._clock = clock
        self._timeout = timeout
        self._runs: dict[int, _Run] = {}
        self._unsent: deque[_Run] = deque()
        self._number, self._oldest = 0, 1
        self._count = self._size = 0
        self._under_way = self._under_way_size = 0
        self._waiters = Waiters()
        self._checking: IDelayedCall | None = None
        self._forbidden = ForbiddenNames()
        self._doubted = "", 0.0
        self._again: list[_Run] = []
        self._sending_again: IDelayedCall | None = None

    @property
    def empty(self) -> bool:
        """Whether no publication waits for an acknowledgement."""
        return not self._runs

    def add(
        self, channel: str, payloads: list[bytes], binary: bool, placing: Placing | None, link: Link | None
    ) -> None:
        """
        Append *payloads* to the stream; parameters as of :meth:`lhttp_tx.interfaces.IHistoryStore.append`.

        :param link: the link of the node, which knows the largest allowed message; ``None`` if there is none.
        :raises HistoryUnavailable: if NATS does not allow the channel, or if too many publications wait for their
            acknowledgements.
        :raises MessageTooLarge: if NATS does not accept messages of this size.
        """
        if self._forbidden and self._forbidden.has(channel, self._clock.seconds()):
            raise HistoryUnavailable(FORBIDDEN)
        if link is not None:
            for payload in payloads:
                link.check_size(payload, binary, stored=True)
        size = sum(map(len, payloads)) + _COST * len(payloads)
        if self._runs and (self._count + len(payloads) > _MAX_COUNT or self._size + size > _MAX_SIZE):
            raise HistoryUnavailable("the history store does not keep up, try again later")
        lines = b"Lhttp-Frame: binary\r\n" if binary else b""
        if placing is not None and placing.message_id is not None:
            lines += b"Nats-Msg-Id: %s\r\n" % _id_of(channel, placing.message_id)
        head = b"NATS/1.0\r\n%s\r\n" % lines if lines else b""
        self._number += 1
        run = self._runs[self._number] = _Run(
            self, self._number, channel, head, payloads, placing, self._clock.seconds()
        )
        self._count += len(payloads)
        self._size += size
        self._unsent.append(run)
        if self._checking is None:
            self._checking = self._clock.callLater(_CHECK_INTERVAL, self._check)
        self.send()

    def send(self) -> None:
        """Send publications that wait, as far as the limits allow."""
        link = self._link()
        if link is None or not self.stream.ready:
            return
        while self._unsent and self._under_way < _WINDOW and self._under_way_size < _WINDOW_SIZE:
            run = self._unsent[0]
            room = _WINDOW - self._under_way
            payloads = run.payloads[run.sent : run.sent + room] if run.sent or room < run.open else run.payloads
            size = sum(map(len, payloads))
            while len(payloads) > 1 and self._under_way_size + size > _WINDOW_SIZE:
                payloads = payloads[: len(payloads) // 2]
                size = sum(map(len, payloads))
            if link not in run.links:
                run.links[link] = link.inbox.expect(run)
            target = f"{self.stream.subject_of(run.channel)} {run.links[link]}".encode()
            link.inbox.send(publish_commands(target, run.head, payloads))
            if not run.sent:
                run.floor = self.stream.tip
            run.sent += len(payloads)
            run.since = self._clock.seconds()
            self._under_way += len(payloads)
            self._under_way_size += size
            if run.sent == len(run.payloads):
                self._unsent.popleft()

    def answered(self, run: _Run, answers: list[bytes], heads: list[Head] | None) -> bool:
        """Take the stream's acknowledgements of the next publications of *run*. Return whether no more are expected."""
        if run.number not in self._runs:
            return True
        if heads is None and run.placing is None and len(answers) <= run.open:
            positions = read_all(answers)
            if positions and min(positions) > run.floor:
                self._done(run, max(positions), len(answers))
                return not run.open
        for data, head in zip(answers, repeat(None) if heads is None else heads, strict=False):
            self._answered(run, data, head)
            if run.number not in self._runs:
                return True
        return False

    def _answered(self, run: _Run, data: bytes, head: Head | None) -> None:
        position, duplicate, why = read(data, head)
        if why is IN_PROCESS:
            if run.tries < _TRIES:
                self._send_later(run)
                return
            why = UNKNOWN
        if not why and self._is_of_another(run, position, duplicate):
            why = UNKNOWN
        if why:
            self.stream.kick()
            if why not in (UNKNOWN, NO_STREAM):  # without a stream, the stream itself tells that it is away
                self.stream.refused = self._clock.seconds()
            self._refuse(run, 1, why)
        elif run.placing is not None:
            run.placing.position = format_position(self.stream.epoch, position)
            run.placing.duplicate = duplicate
        self._done(run, 0 if why else position, 1)

    def denied(self, link: Link, channel: str) -> None:
        """
        Note that NATS has refused a publication to *channel*, which was sent over *link*. NATS refuses publications in
        the order in which they were sent, so it is the oldest one.
        """
        self._forbidden.add(channel, self._clock.seconds())
        for run in self._runs.values():
            if run.channel == channel and link in run.links and run.sent > len(run.payloads) - run.open:
                self._refuse(run, 1, FORBIDDEN)
                self._done(run, 0, 1)
                if not run.open:
                    link.inbox.forget(run.links[link])
                return

    def _done(self, run: _Run, position: int, count: int) -> None:
        """
        Note that the next publications of *run* were acknowledged.

        :param position: the largest of their offsets; 0 if they were not stored.
        :param count: the number of these publications.
        """
        if position > run.tip:
            run.tip = position
            self.stream.refused = None
            if position > self.stream.tip:
                self.stream.tip = position
        first = len(run.payloads) - run.open
        run.open -= count
        self._under_way -= count
        self._under_way_size -= sum(map(len, run.payloads[first : first + count]))
        if not run.open:
            self._end(run)
        if self._unsent and self._under_way <= _WINDOW // 2:
            self.send()

    def _is_of_another(self, run: _Run, position: int, duplicate: bool) -> bool:
        """
        Return whether the stream was created again, and its epoch is not known yet.

        The offset of a duplicate does not tell, but one of another publication may have told.
        """
        now = self._clock.seconds()
        if position > run.floor or duplicate:
            epoch, end = self._doubted
            return duplicate and epoch == self.stream.epoch and now < end
        self._doubted = self.stream.epoch, now + _DOUBT
        return True

    def _send_later(self, run: _Run) -> None:
        """Send the one publication of *run* again, after a pause."""
        run.tries += 1
        run.sent = 0
        self._under_way -= 1
        self._under_way_size -= len(run.payloads[0])
        self._again.append(run)
        if self._sending_again is None:
            self._sending_again = self._clock.callLater(_PAUSE, self._send_again)

    def _send_again(self) -> None:
        self._sending_again = None
        again, self._again = self._again, []
        self._unsent.extendleft(run for run in reversed(again) if run.number in self._runs)
        self.send()

    @staticmethod
    def _refuse(run: _Run, count: int, why: str) -> None:
        """Note why *count* publications of *run* were not stored, and log it."""
        _log.error("{count} publications failed: {why}", count=count, why=why)
        error = HistoryUnavailable(why)
        if run.placing is None:
            run.error = error
        else:
            run.placing.failure = error

    def _end(self, run: _Run) -> None:
        del self._runs[run.number]
        if run.tip:
            self._tips.note(self.stream, run.channel, run.tip)
        self._count -= len(run.payloads)
        self._size -= sum(map(len, run.payloads)) + _COST * len(run.payloads)
        if self._waiters:
            if run.error is not None:
                self._waiters.blame(run.number, run.error)
            while self._oldest <= self._number and self._oldest not in self._runs:
                self._oldest += 1
            self._waiters.tell(self._oldest - 1)

    def fail(self, run: _Run, why: str) -> None:
        """Stop waiting for *run*, and report *why* for its publications without an acknowledgement."""
        if run.number not in self._runs:
            return
        for link, subject in run.links.items():
            link.inbox.forget(subject)
        if run in self._unsent:
            self._unsent.remove(run)
        self._under_way -= run.sent - (len(run.payloads) - run.open)
        self._under_way_size -= sum(map(len, run.payloads[len(run.payloads) - run.open : run.sent]))
        self._refuse(run, run.open, why)
        self._end(run)

    def _check(self) -> None:
        """Fail the runs that have waited too long."""
        self._checking = None
        limit, trouble = self._clock.seconds() - self._timeout, self.stream.trouble
        stuck = self._link() is None or not self.stream.ready  # runs that only wait for earlier ones are not late
        late = [
            run
            for run in self._runs.values()
            if (trouble and not run.sent) or (run.since < limit and (run.sent or stuck))
        ]
        for run in late:
            self.fail(run, UNKNOWN if run.sent else trouble or "the history store is unavailable, try again later")
        if late:
            self.stream.kick()
            self.send()
        if self._runs and self._checking is None:
            self._checking = self._clock.callLater(_CHECK_INTERVAL, self._check)

    def close(self) -> None:
        """Fail all runs, and stop checking."""
        for run in tuple(self._runs.values()):
            self.fail(run, UNKNOWN if run.sent else "the history store has stopped")
        for call in (self._checking, self._sending_again):
            if call is not None:
                call.cancel()
        self._checking = self._sending_again = None

    # Callers that wait

    def confirm(self) -> MaybeDeferred:
        """See :meth:`lhttp_tx.interfaces.IHistoryStore.confirm`."""
        if not self._runs:
            return None
        return self._waiters.add(self._number)


def _id_of(channel: str, message_id: str) -> bytes:
    found = f"{channel}:{message_id}".encode()
    return found if len(found) <= _MAX_ID else sha256(found).hexdigest().encode()
