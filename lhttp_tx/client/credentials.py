"""
What a program says of who it is: its functions that give headers are asked, and what they give is checked.

Used by :mod:`lhttp_tx.client.entrance` for each new connection and by :mod:`lhttp_tx.client.renewal`. Nothing here
keeps what it gets, logs it, or shows it in a text; what a function raises is the program's own, and is logged or told.
Imports neither the connection nor anything above it.
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
from lhttp_tx.errors import LHTTPError
from lhttp_tx.message import HeaderPairs, Message

__all__ = ["COMMAND", "Account", "Credentials", "HeaderSource", "http_headers", "login_message", "read_account"]

_log = Logger()

COMMAND = "login"
"""The command of a login message, and of the server's answer to it."""

_RECEIPT = "login"
"""The receipt that the first login message of a connection asks for."""

_FOREIGN = frozenset({"publish", "subscribe", "unsubscribe", "upstream", "multipart", "receipt"})
"""Headers that a login message does not have; see the protocol document, section "Login"."""

_HTTP_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")

HeaderSource = Callable[[], HeaderPairs | dict[str, str] | Awaitable[HeaderPairs | dict[str, str]]]
"""
Gives headers, as pairs of name and value or a dict of them: a plain function, one that returns a Deferred, or a
coroutine function that awaits Deferreds.
"""

Pairs = list[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Account:
    """
    Who the server says that a connection belongs to.

    :ivar user: the name of the user.
    :ivar expires: when the server closes the connection unless the client logs in again, in seconds since 1970;
        ``None``: never.
    """

    user: str | None
    expires: float | None


@final
class Credentials:
    """A function of the program that gives headers."""

    def __init__(self, source: HeaderSource, what: str, *, reactor: Any, timeout: float) -> None:
        """
        :param source: the function.
        :param what: what it is called in texts.
        :param timeout: seconds that it may take.
        """
        self._source = source
        self._what = what
        self._reactor = reactor
        self._timeout = timeout

    def fetch(self) -> Deferred[Pairs]:
        """
        Ask for the headers.

        :returns: a Deferred that

            - succeeds with pairs of name and value;
            - fails with :exc:`~lhttp_tx.client.errors.LoginFailed` if the function fails, takes too long or gives
              anything else; with :exc:`~lhttp_tx.client.errors.ClientClosed` if the function raises that.
        """
        try:
            found = self._source()
        except Exception:
            return self._checked(Failure())
        if inspect.iscoroutine(found):
            return self._limited(ensureDeferred(found))
        return self._limited(found) if isinstance(found, Deferred) else self._checked(found)

    def _limited(self, waiting: Deferred[Any]) -> Deferred[Pairs]:
        """Wait no longer than the time limit, not even for a function that goes on when it is cancelled."""
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
            # Not what it is: that might be a secret.
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
    """Return *found* as pairs of text; ``None`` if it is anything else, or nothing."""
    try:
        pairs = [(name, value) for name, value in (found.items() if isinstance(found, dict) else found)]
    except (TypeError, ValueError):
        return None
    return pairs if pairs and all(isinstance(text, str) for pair in pairs for text in pair) else None


def http_headers(pairs: Pairs) -> dict[str, str]:
    """
    Return *pairs* as headers of an HTTP request.

    :raises LoginFailed: if one of them is malformed; the text does not show it.
    """
    for name, value in pairs:
        if not _HTTP_NAME.fullmatch(name) or not value.isprintable():
            raise LoginFailed("a header for the handshake is malformed: perhaps a line break belongs to a token")
    return dict(pairs)


def login_message(pairs: Pairs) -> Message:
    """
    Return the login message that consists of *pairs*, with a receipt.

    :raises LoginFailed: if one of them is malformed, or does not belong there; the text does not show it.
    """
    try:
        message = Message(COMMAND, [*pairs, ("receipt", _RECEIPT)])
    except LHTTPError:
        raise LoginFailed(
            "a header for the login message is malformed: perhaps a line break belongs to a token"
        ) from None
    foreign = sorted(_FOREIGN & {name.lower() for name, _ in pairs})
    if foreign:
        raise LoginFailed(f"a login message has no header {foreign[0]}")
    return message


def read_account(message: Message) -> Account:
    """Return who a ``login`` message of the server says that the connection belongs to."""
    expires = message.headers.get("expires", "")
    known = expires.isascii() and expires.isdigit() and len(expires) <= 12
    return Account(message.headers.get("user") or None, float(expires) if known else None)
