r"""
Login messages, for clients whose handshake cannot contain credentials, and for clients whose token will soon expire.

::

    LHTTP/1.0 login\r\ntoken:TOKEN\r\n\r\n
    LHTTP/1.0 login\r\nuser:USER\r\npassword:PASSWORD\r\n\r\n

:class:`Lobby` replaces the session until the first login. :class:`LoginProcessor` handles later logins.
Source: the protocol document, section "Login".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, final
from weakref import WeakKeyDictionary

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.python.failure import Failure

from lhttp_tx.auth.attempts import LoginAttempt
from lhttp_tx.auth.gate import Gate
from lhttp_tx.codec.codes import CREDENTIALS_EXPIRED, LOGIN_TIMEOUT, POLICY_VIOLATION
from lhttp_tx.codec.limits import Limits
from lhttp_tx.codec.message import Head, Message, parse
from lhttp_tx.engine.answers import error_message
from lhttp_tx.engine.processors import Processor
from lhttp_tx.errors import LHTTPError, Refused, RemoteProtocolError
from lhttp_tx.filters import HeaderFilter
from lhttp_tx.identity import Identity
from lhttp_tx.interfaces import ITransport, MaybeAwaitable
from lhttp_tx.observe.rationing import RationedLogger

if TYPE_CHECKING:
    from lhttp_tx.engine.conversation import Conversation
    from lhttp_tx.engine.request import Request
    from lhttp_tx.engine.session import Session

__all__ = ["COMMAND", "Lobby", "LoginFilter", "LoginProcessor"]

_log = RationedLogger(__name__)

COMMAND = "login"
"""The command of a login message, and of the answer to it."""

_FOREIGN = ("publish", "subscribe", "unsubscribe", "upstream", "multipart")
"""Headers that a login message must not have, because its contents are only for the server."""

_FAILURES = (401, 403)
"""Statuses that count as a failed login."""


def _check(head: Head) -> None:
    """:raises RemoteProtocolError: if a login message asks for anything but a login."""
    for name in _FOREIGN:
        if name in head.headers:
            raise RemoteProtocolError(f"a login message must not have the header {name}")


def _answer(identity: Identity) -> list[tuple[str, str]]:
    """Return the headers of the answer to a login."""
    pairs = [("user", identity.user or "")]
    if identity.expires is not None:
        pairs.append(("expires", str(int(identity.expires))))
    return pairs


@final
class Lobby:
    """
    Stands in for the session of a client that connected without credentials. It answers only login messages.

    It has the methods that a connection calls on a session. Once the client has logged in, the session opens, and gets
    all later messages.
    """

    __slots__ = ("_attempt", "_ended", "_enter", "_errors", "_failures", "_gate", "_late", "_limits", "_session",
                 "_timeout", "_timer", "_transport", "_waiting")  # fmt: skip

    def __init__(
        self,
        gate: Gate,
        attempt: LoginAttempt,
        *,
        transport: ITransport,
        limits: Limits,
        enter: Callable[[Identity], Conversation],
        timeout: float | None = None,
    ) -> None:
        """
        :param gate: decides about the logins.
        :param attempt: the handshake. The lobby does not keep its headers.
        :param transport: the open connection.
        :param limits: the limits of a message.
        :param enter: opens the session of the connection.
        :param timeout: seconds within which the client must log in; ``None``: the time limit of the gate.
        """
        self._gate = gate
        self._attempt = replace(attempt, headers={}, certificate=None)
        self._transport = transport
        self._limits = limits
        self._enter = enter
        self._errors = self._failures = 0
        self._late = self._ended = False
        self._waiting: Deferred[Identity] | None = None
        self._session: Conversation | None = None
        self._timeout = gate.login_timeout if timeout is None else timeout
        self._timer: IDelayedCall | None = gate.clock.callLater(self._timeout, self._time_is_up)
        gate.lobbies.add(self)

    def receive_run(self, messages: list[bytes], first: int, binary: bool) -> int:
        """See :meth:`lhttp_tx.engine.conversation.Conversation.receive_run`."""
        if self._session is not None:
            return self._session.receive_run(messages, first, binary)
        self.receive(messages[first], binary)
        return first + 1

    def receive(self, data: bytes, binary: bool) -> None:
        """
        Take a message from the connection.

        Reading pauses while a login is under way, so no message comes in the meantime.
        """
        if self._session is not None:
            self._session.receive(data, binary)
            return
        if self._ended:
            return
        receipt: str | None = None
        try:
            message = parse(data, binary=binary, limits=self._limits)
            receipt = message.headers.get("receipt")
            if message.command != COMMAND:
                raise Refused(401, "log in first")
            _check(message.head)
        except LHTTPError as error:
            self._refuse(error, receipt)
        else:
            self._log_in(message, receipt)

    def connection_lost(self) -> None:
        """Called when the connection has ended."""
        if self._session is not None:
            self._session.connection_lost()
        elif not self._ended:
            self._end()

    def close(self, code: int, reason: str) -> None:
        """Close the connection."""
        if not self._ended:
            self._end()
            self._transport.close(code, reason)

    def _log_in(self, message: Message, receipt: str | None) -> None:
        waiting = self._waiting = self._gate.log_in(replace(self._attempt, message=message))
        paused = not waiting.called
        if paused:
            self._transport.pause_reading()
        waiting.addCallbacks(self._logged_in, self._failed, callbackArgs=(receipt,), errbackArgs=(receipt,))
        waiting.addErrback(self._broken)
        if paused:
            waiting.addCallback(lambda _: None if self._ended else self._transport.resume_reading())

    def _logged_in(self, identity: Identity, receipt: str | None) -> None:
        self._waiting = None
        if self._ended:
            return
        self._leave()
        self._send(Message(COMMAND, _answer(identity)))
        if receipt is not None:
            self._send(Message("receipt", [("receipt-id", receipt)]))
        self._session = self._enter(identity)

    def _failed(self, failure: Failure, receipt: str | None) -> None:
        self._waiting = None
        if self._ended:
            return
        error: Any = failure.value
        _log.info("{peer}: login refused: {reason!r}", peer=self._transport.peer, reason=error.reason)
        self._refuse(error, receipt)
        self._failures += error.status in _FAILURES
        if self._ended:
            return
        if self._failures >= self._gate.max_failures:
            self.close(POLICY_VIOLATION, "too many failed logins")
        elif self._late:
            self._time_is_up()

    def _broken(self, failure: Failure) -> None:
        _log.failure("{peer}: opening the session failed", failure, peer=self._transport.peer)
        self._transport.close(1011, "internal error")

    def _refuse(self, error: LHTTPError, receipt: str | None) -> None:
        """Answer a message with an error. Close the connection after too many errors."""
        self._send(error_message(error.status, error.reason, receipt))
        if 400 <= error.status < 500:
            self._errors += 1
            if self._errors == self._limits.error_count:
                _log.info("{peer}: closed after {count} errors in a row", peer=self._transport.peer, count=self._errors)
                self.close(POLICY_VIOLATION, "too many errors in a row")

    def _send(self, message: Message) -> None:
        self._transport.send(message.raw, message.binary)

    def _time_is_up(self) -> None:
        if self._waiting is not None:
            self._late = True
        else:
            self.close(LOGIN_TIMEOUT, f"no login within {self._timeout:g} seconds")

    def _end(self) -> None:
        self._ended = True
        self._leave()
        if self._waiting is not None:
            self._waiting.cancel()

    def _leave(self) -> None:
        self._gate.lobbies.discard(self)
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None


class LoginFilter(HeaderFilter):
    """Closes connections whose credentials expire. Refuses login messages that ask for anything but a login."""

    headers = _FOREIGN

    def __init__(self, gate: Gate) -> None:
        """:param gate: has the clock."""
        self._gate = gate
        self._timers: WeakKeyDictionary[Session, IDelayedCall] = WeakKeyDictionary()

    def check(self, head: Head) -> None:
        """:raises RemoteProtocolError: if a login message asks for anything but a login."""
        if head.command == COMMAND:
            _check(head)

    def on_connect(self, session: Session) -> MaybeAwaitable:
        """Watch the session."""
        self.watch(session)
        return None

    def on_disconnect(self, session: Session) -> MaybeAwaitable:
        """Stop watching the session."""
        self._forget(session)
        return None

    def watch(self, session: Session) -> None:
        """Close *session* when its identity expires. Call this again after each login."""
        self._forget(session)
        expires = session.identity.expires
        if expires is not None:
            wait = max(0.0, expires - self._gate.now())
            self._timers[session] = self._gate.clock.callLater(wait, _expire, session)

    def _forget(self, session: Session) -> None:
        timer = self._timers.pop(session, None)
        if timer is not None and timer.active():
            timer.cancel()


def _expire(session: Session) -> None:
    _log.info("{peer}: closed, its credentials have expired", peer=session.peer)
    session.close(CREDENTIALS_EXPIRED, "credentials have expired")


class LoginProcessor(Processor):
    """Handles login messages on a connection that has a session: renewals, and logins of anonymous clients."""

    command = COMMAND

    def __init__(self, gate: Gate, watch: Callable[[Session], None]) -> None:
        """
        :param gate: decides about the logins.
        :param watch: called with a session that has a new identity.
        """
        self._gate = gate
        self._watch = watch
        self._failures: WeakKeyDictionary[Session, int] = WeakKeyDictionary()

    def on_message(self, request: Request) -> MaybeAwaitable:
        """
        Renew the identity of the connection, or set its first one.

        :raises Refused: if the login is refused, or if the connection belongs to another user.
        """
        identity = request.session.identity
        attempt = LoginAttempt(
            address=identity.address,
            connection_id=identity.connection_id,
            parameters=identity.parameters,
            message=request.message,
            identity=identity,
        )
        logging_in = self._gate.log_in(attempt)
        return logging_in.addCallbacks(self._logged_in, self._failed, callbackArgs=(request,), errbackArgs=(request,))

    def _logged_in(self, identity: Identity, request: Request) -> None:
        session = request.session
        if session.identity.user not in (None, identity.user):
            raise Refused(409, "this connection belongs to another user: open another one")
        session.identity = identity
        if not session.closed:
            self._watch(session)
        request.reply(b"", command=COMMAND, headers=_answer(identity), binary=False)

    def _failed(self, failure: Failure, request: Request) -> Failure:
        session = request.session
        error: Any = failure.value
        _log.info("{peer}: login refused: {reason!r}", peer=session.peer, reason=error.reason)
        if error.status in _FAILURES:
            failures = self._failures[session] = self._failures.get(session, 0) + 1
            if failures >= self._gate.max_failures:
                # Send this before the session handles another message. Otherwise it would come too late.
                session.send(error_message(error.status, error.reason, request.receipt))
                session.close(POLICY_VIOLATION, "too many failed logins")
        return failure
