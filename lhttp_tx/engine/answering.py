"""
Answers the messages of one connection: with receipts, which may wait for the bus and for histories, and with errors.

All answers go out in the order of the messages. Stands between :mod:`lhttp_tx.engine.membership` and
:mod:`lhttp_tx.engine.handling`.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, cast

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from lhttp_tx.codec.codes import POLICY_VIOLATION
from lhttp_tx.codec.message import Message
from lhttp_tx.engine.answers import error_message, error_of
from lhttp_tx.engine.delivery import Delivery
from lhttp_tx.engine.membership import Member
from lhttp_tx.engine.receipts import Answer, Receipts, told
from lhttp_tx.engine.sequence import Sequence
from lhttp_tx.engine.state import State
from lhttp_tx.errors import Muted
from lhttp_tx.identity import Identity
from lhttp_tx.interfaces import ITransport
from lhttp_tx.observe.rationing import RationedLogger

if TYPE_CHECKING:
    from lhttp_tx.engine.engine import Engine
    from lhttp_tx.history.values import Filing

__all__ = ["PATIENCE", "Answerer"]

_log = RationedLogger(__name__)

_BUSY, _CLOSING = State.BUSY, State.CLOSING


class _Patience:
    """
    The time limit for a message that waits for receipts.

    :ivar timeout: seconds. A bus reports sooner than this that it does not know whether a publication has arrived.
    """

    timeout: float | None = 30.0


PATIENCE = _Patience()
"""The only instance of its class."""


class Answerer(Member):
    """The layer of a session that answers messages."""

    __slots__ = ("_errors", "_receipts", "_sequence")

    def __init__(self, *, engine: Engine, transport: ITransport, identity: Identity | None = None) -> None:
        """See :class:`lhttp_tx.engine.session.Session`."""
        super().__init__(engine=engine, transport=transport, identity=identity)
        self._sequence = Sequence(engine.clock, engine.limits.processor_timeout, self._resume)
        self._errors = 0
        self._receipts: Receipts | None = None

    def send(self, message: Message) -> None:
        """See :meth:`lhttp_tx.engine.session.Session.send`."""
        try:
            raw, binary = message.raw, message.binary
        except AttributeError:
            raise TypeError(f"a message is a lhttp_tx.Message, not {message!r:.80}") from None
        stage = self.stage
        if stage is not _BUSY and stage >= _CLOSING:
            return
        hub = self._engine.hub
        if hub.run:
            hub.flush()
        self._transport.send(raw, binary)

    @abstractmethod
    def _settled(self) -> None:
        """Called when no receipts wait any more."""

    def _say(
        self,
        answer: Message,
        token: str | None = None,
        filing: Filing | None = None,
        channels: tuple[str, ...] = (),
    ) -> None:
        """
        Send the answer to one message, after the answers to earlier messages.

        :param token: the receipt's token, if *answer* is a receipt that waits until the bus has the publication; else
            ``None``.
        :param filing: the outcome of the publication in histories. If it is still open, the receipt gets its headers
            when the store has decided.
        :param channels: the channels of the publication; empty if they are not known.
        """
        if token is None and self._receipts is None:
            self.send(answer)
            return
        confirmation = None
        if self._receipts is None:
            confirmation = self._engine.hub.confirm(filing is not None and filing.is_kept)
            if confirmation is None:
                self.send(told(answer, cast(str, token), filing))
                return
        self._add([(answer.raw, answer.binary, token, filing, channels)], confirmation)

    def _add(self, answers: list[Answer], confirmation: Deferred[None] | None) -> None:
        """
        Send answers after those that already wait.

        :param confirmation: succeeds when the bus has the publications that these receipts are for; ``None`` if earlier
            receipts wait.
        """
        receipts = self._receipts
        if receipts is None:
            confirm = self._engine.hub.confirm
            receipts = Receipts(
                confirm=confirm,
                send=self._send_answers,
                ended=self._receipts_sent,
                peer=self.peer,
                note=self._engine.receipt_note,
            )
            self._receipts = receipts
        receipts.add_all(answers)
        if confirmation is not None:
            receipts.begin(confirmation)

    def _send_answers(self, payloads: list[bytes], binary: bool) -> None:
        if self.stage < _CLOSING:
            self._engine.hub.flush()
            self._transport.deliver(Delivery("", payloads, binary))

    def _receipts_sent(self) -> None:
        self._receipts = None
        self._settled()

    def _answer(self, receipt: str | None, failure: Failure) -> None:
        """
        Send the client an error message. Close the connection after too many errors from 400 to 499 in a row. A muted
        client stays connected, so :exc:`~lhttp_tx.errors.Muted` does not count.

        :param receipt: the token of the receipt that the message asked for, or ``None``.
        """
        status, reason = error_of(failure, self.peer)
        self._say(error_message(status, reason, receipt))
        for watcher in self._engine.watchers:
            watcher.session_failed(self, status, reason)
        if 400 <= status < 500 and not isinstance(failure.value, Muted):
            self._errors += 1
            if self._errors == self._engine.limits.error_count and not self.closed:
                _log.info("{peer}: closed after {count} errors in a row", peer=self.peer, count=self._errors)
                self.close(POLICY_VIOLATION, "too many errors in a row")
        receipts = self._receipts
        if receipts is not None and not receipts.has_room and not self.closed:
            self._sequence.wait(receipts.settled(), PATIENCE, None, lambda _, failure: None)

    @abstractmethod
    def _resume(self) -> None:
        """Handle the queued messages, until one of them has to wait for something."""
