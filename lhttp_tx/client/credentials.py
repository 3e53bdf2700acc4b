"""
The credentials of the program: calls the functions that return headers, and checks the headers.

:mod:`lhttp_tx.client.websocket.entrance` uses it for each new connection, :mod:`lhttp_tx.client.renewal` for each
renewal. This module does not keep the headers, log them, or show them in texts. Exceptions of the functions are logged
or reported. It imports neither the connection nor anything above it.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, final

from twisted.internet.defer import CancelledError, Deferred, ensureDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from lhttp_tx.client.errors import ClientClosed, LoginFailed
from lhttp_tx.codec.headers import HeaderPairs
from lhttp_tx.codec.message import Message
from lhttp_tx.errors import LHTTPError

__all__ = ["COMMAND", "Account", "Credentials", "HeaderSource", "http_headers", "login_message", "read_account"]

_log = Logger()

COMMAND = "login"
"""The command of login messages, and of the server's answers."""

_RECEIPT = "login"
"""The token of the receipt for the first login message of a connection."""

_FOREIGN = frozenset({"publish", "subscribe", "unsubscribe", "upstream", "multipart", "receipt"})
"""The headers that a login message must not have. Source: the protocol document, section "Login"."""

_HTTP_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")

HeaderSource = Callable[[], HeaderPairs | dict[str, str] | Awaitable[HeaderPairs | dict[str, str]]]
"""
Returns headers, as pairs of name and value or a dict. It may be a plain function, a function that returns a Deferred,
or a coroutine function that awaits Deferreds.
"""

Pairs = list[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Account:
    """
    The user of a connection, according to the server.

    :ivar user: the name of the user; ``None`` if the server gave none.
    :ivar expires: the time at which the server closes the connection unless the client logs in again, in seconds since
        1970; ``None``: never.
    """

    user: str | None
    expires: float | None


@final
class Credentials:
    """A function of the program that returns headers."""

    def __init__(self, source: HeaderSource, what: str, *, reactor: Any, timeout: float) -> None:
        """
        :param source: the function.
        :param what: its name in error texts.
        :param reactor: the reactor, for the time limit.
        :param timeout: the most seconds that the function may take.
        """
        self._source = source
        self._what = what
        self._reactor = reactor
        self._timeout = timeout

    def fetch(self) -> Deferred[Pairs]:
        """
        Call the function.

        :returns: a Deferred that

            - succeeds with pairs of name and value;
            - fails with :exc:`~lhttp_tx.client.errors.LoginFailed` if the function fails, takes too long, or returns
              anything else; or with :exc:`~lhttp_tx.client.errors.ClientClosed` if the function raises this.
        """
        try:
            found = self._source()
        except Exception:
            return self._checked(Failure())
        if inspect.iscoroutine(found):
            return self._limited(ensureDeferred(found))
        return self._limited(found) if isinstance(found, Deferred) else self._checked(found)

    def _limited(self, waiting: Deferred[Any]) -> Deferred[Pairs]:
        """Limit the time of *waiting*, even if the function continues after its cancellation."""
        is_wanted = True

        def cancel(_: object) -> None:
            nonlocal is_wanted
            is_wanted = False
            if timer.active():
                timer.cancel()
            waiting.cancel()

        def late() -> None:
            outcome.errback(LoginFailed(f"{self._what} gave nothing within {self._timeout:g} seconds", status=504))
            waiting.cancel()

        def arrived(result: Any) -> None:
            if timer.active():
                timer.cancel()
            if is_wanted and not outcome.called:
                self._checked(result).chainDeferred(outcome)

        outcome: Deferred[Pairs] = Deferred(cancel)
        timer = self._reactor.callLater(self._timeout, late)
        waiting.addBoth(arrived)
        return outcome

    def _checked(self, found: Any) -> Deferred[Pairs]:
        outcome: Deferred[Pairs] = Deferred()
        if isinstance(found, Failure):
            outcome.errback(self._error(found))
        elif (pairs := _pairs(found)) is None:
            # Do not show the value: it might be a secret.
            error = LoginFailed(
                f"{self._what} gave {type(found).__name__}, not pairs or a dict of header names and values"
            )
            outcome.errback(error)
        else:
            outcome.callback(pairs)
        return outcome

    def _error(self, failure: Failure) -> Exception:
        error = failure.value
        if isinstance(error, ClientClosed):
            return error
        if isinstance(error, LHTTPError):
            return LoginFailed(f"{self._what} failed: {error.reason}")
        if isinstance(error, OSError):
            return LoginFailed(f"{self._what} failed: {error}")
        if not failure.check(CancelledError):
            _log.failure("{what} failed", failure, what=self._what)
        return LoginFailed(f"{self._what} failed: {type(error).__name__}")


def _pairs(found: Any) -> Pairs | None:
    """Return *found* as pairs of str; ``None`` if it is empty or has another type."""
    try:
        pairs = [(name, value) for name, value in (found.items() if isinstance(found, dict) else found)]
    except (TypeError, ValueError):
        return None
    return pairs if pairs and all(isinstance(text, str) for pair in pairs for text in pair) else None


def http_headers(pairs: Pairs) -> dict[str, str]:
    """
    Return *pairs* as headers for an HTTP request.

    :raises LoginFailed: if a header is malformed. The text does not show it.
    """
    for name, value in pairs:
        if not _HTTP_NAME.fullmatch(name) or not value.isprintable():
            raise LoginFailed("a header for the handshake is malformed: perhaps a token contains a line break")
    return dict(pairs)


def login_message(pairs: Pairs) -> Message:
    """
    Return the login message with the headers *pairs*, and a receipt.

    :raises LoginFailed: if a header is malformed or not allowed. The text does not show its value.
    """
    try:
        message = Message(COMMAND, [*pairs, ("receipt", _RECEIPT)])
    except LHTTPError:
        raise LoginFailed(
            "a header for the login message is malformed: perhaps a token contains a line break"
        ) from None
    foreign = sorted(_FOREIGN & {name.lower() for name, _ in pairs})
    if foreign:
        raise LoginFailed(f"a login message must not have the header {foreign[0]}")
    return message


def read_account(message: Message) -> Account:
    """Return the account in a ``login`` message of the server."""
    expires = message.headers.get("expires", "")
    known = expires.isascii() and expires.isdigit() and len(expires) <= 12
    return Account(message.headers.get("user") or None, float(expires) if known else None)
