"""
The gate: asks the authenticators for the identity of a client, and decides about clients that none of them knows.

The transports use it for handshakes, and :mod:`lhttp_tx.auth.lobby` for login messages. No I/O.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeVar

from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from lhttp_tx.auth.attempts import LoginAttempt
from lhttp_tx.engine.answers import is_told
from lhttp_tx.engine.attributes import check_instance
from lhttp_tx.engine.awaiting import as_deferred
from lhttp_tx.errors import LHTTPError, LocalProtocolError, Refused
from lhttp_tx.identity import LAST_TIME, Identity, is_name
from lhttp_tx.interfaces import IAuthenticator
from lhttp_tx.observe.rationing import RationedLogger

if TYPE_CHECKING:
    from lhttp_tx.auth.lobby import Lobby

__all__ = ["Gate"]

_log = RationedLogger(__name__)

_T = TypeVar("_T")


class Gate:
    """
    Decides which clients may connect, and gives them identities.

    :ivar allow_anonymous: whether clients without credentials may connect.
    :ivar login_timeout: seconds within which a client that connects without credentials must send a login message; 0:
        such a client may not connect.
    :ivar max_failures: failed logins of one connection after which it is closed.
    :ivar clock: the reactor, for time limits.
    :ivar now: returns the current time, in seconds since 1970.
    :ivar challenges: headers of a refusal with status 401.
    :ivar secrets: names of query parameters that hold secrets.
    :ivar lobbies: the lobbies of clients that have not logged in yet.
    """

    def __init__(
        self,
        authenticators: Iterable[IAuthenticator],
        *,
        clock: IReactorTime,
        allow_anonymous: bool = False,
        login_timeout: float = 0.0,
        timeout: float = 5.0,
        max_in_flight: int = 100,
        max_failures: int = 3,
        now: Callable[[], float] = time.time,
    ) -> None:
        """
        :param authenticators: asked in this order. The first that knows the client decides.
        :param timeout: seconds that an authenticator may take if it sets no limit of its own.
        :param max_in_flight: attempts that may wait for authenticators at one time.
        :raises ValueError: if an object in *authenticators* is not an authenticator.
        """
        self._authenticators = tuple(authenticators)
        for found in self._authenticators:
            check_instance(found, IAuthenticator)
        self._timeout = timeout
        self._max_in_flight = max_in_flight
        self._in_flight = 0
        self.secrets = frozenset(name for found in self._authenticators for name in found.secret_parameters)
        challenges = [challenge for found in self._authenticators for challenge in found.challenges]
        self.challenges: tuple[tuple[str, str], ...] = tuple(
            ("WWW-Authenticate", challenge) for challenge in dict.fromkeys(challenges)
        )
        self.allow_anonymous = allow_anonymous
        self.login_timeout = login_timeout
        self.max_failures = max_failures
        self.clock = clock
        self.now = now
        self.lobbies: set[Lobby] = set()

    @property
    def description(self) -> str:
        """One line for the log that says who may connect."""
        kinds = ", ".join(type(found).__name__ for found in self._authenticators)
        if self.allow_anonymous:
            return f"anybody; users authenticated by {kinds}"
        if self.login_timeout:
            return f"authenticated by {kinds}, with a login message within {self.login_timeout:g} seconds"
        return f"authenticated by {kinds}"

    def close_lobbies(self, code: int, reason: str) -> None:
        """Close the connections of all clients that have not logged in yet."""
        for lobby in tuple(self.lobbies):
            lobby.close(code, reason)

    def admit(self, attempt: LoginAttempt, *, by_message: bool = False) -> Deferred[Identity | None]:
        """
        Decide about a handshake.

        :param by_message: whether the client may log in with a message even without *login_timeout*, because it cannot
            send credentials otherwise.
        :returns: a Deferred that

            - succeeds with the identity, which may be anonymous if anonymous clients may connect;
            - succeeds with ``None`` if the client may connect, but must then log in with a message;
            - fails with :exc:`~lhttp_tx.errors.Refused`.
        """
        return self._ask(attempt).addCallback(self._admitted, attempt, by_message)

    def log_in(self, attempt: LoginAttempt) -> Deferred[Identity]:
        """
        Decide about a login message.

        :returns: a Deferred that

            - succeeds with the identity;
            - fails with :exc:`~lhttp_tx.errors.Refused`.
        """

        def known(identity: Identity | None) -> Identity:
            if identity is None:
                raise Refused(401, "a login message needs a token, or a user and a password, that this server accepts")
            return identity

        return self._ask(attempt).addCallback(known)

    def anonymous(self, attempt: LoginAttempt) -> Identity:
        """Return the identity of an anonymous client."""
        return self._without_secrets(replace(attempt.identify(""), user=None))

    def _admitted(self, identity: Identity | None, attempt: LoginAttempt, by_message: bool) -> Identity | None:
        if identity is not None:
            return identity
        if self.allow_anonymous:
            return self.anonymous(attempt)
        if self.login_timeout or by_message:
            return None
        raise Refused(401, "log in to connect: the handshake has no credentials that this server accepts")

    def _ask(self, attempt: LoginAttempt) -> Deferred[Identity | None]:
        if self._in_flight >= self._max_in_flight:
            return fail(Refused(503, "too many logins are in progress"))
        self._in_flight += 1

        def done(result: _T) -> _T:
            self._in_flight -= 1
            return result

        asking: Deferred[Identity | None] = Deferred.fromCoroutine(self._ask_in_turn(attempt))
        asking.addBoth(done)
        asking.addErrback(_shown, attempt)
        return asking

    async def _ask_in_turn(self, attempt: LoginAttempt) -> Identity | None:
        for authenticator in self._authenticators:
            answer = authenticator.authenticate(attempt)
            if answer is not None and not isinstance(answer, Identity):
                limit = self._timeout if authenticator.timeout is None else authenticator.timeout
                answer = await _limited(answer, authenticator, self.clock, limit)
            if answer is not None:
                return self._checked(answer, authenticator)
        return None

    def _checked(self, identity: object, authenticator: IAuthenticator) -> Identity:
        if not isinstance(identity, Identity):
            raise TypeError(f"{authenticator!r} answered with {type(identity).__name__}, not with an Identity or None")
        user = identity.user
        if not isinstance(user, str) or not is_name(user):
            raise Refused(403, "the name of this user contains control characters, or is empty or too long")
        expires: object = identity.expires
        if expires is not None:
            if not isinstance(expires, int | float) or not expires >= -LAST_TIME:  # false for NaN, too
                raise TypeError(f"{authenticator!r} answered with an identity whose expires is not a time")
            if expires > LAST_TIME:
                identity = replace(identity, expires=None)
        return self._without_secrets(identity)

    def _without_secrets(self, identity: Identity) -> Identity:
        if self.secrets.isdisjoint(identity.parameters):
            return identity
        kept = {name: value for name, value in identity.parameters.items() if name not in self.secrets}
        return replace(identity, parameters=MappingProxyType(kept))


def _limited(answer: Awaitable[_T], owner: object, clock: IReactorTime, seconds: float) -> Deferred[_T]:
    """Return the outcome of *answer*. After *seconds*, cancel it, and stop waiting even if it does not end."""
    waiting: Deferred[_T] = as_deferred(answer, owner)

    def cancel(_: object) -> None:
        if timer.active():
            timer.cancel()
        waiting.cancel()

    def late() -> None:
        outcome.errback(Refused(503, "the login took too long"))
        waiting.cancel()

    def arrived(result: _T | Failure) -> None:
        if timer.active():
            timer.cancel()
        if not outcome.called:
            outcome.callback(result)
        elif isinstance(result, Failure) and not result.check(CancelledError, LHTTPError):
            _log.failure("an authenticator failed after its time limit", result)

    outcome: Deferred[_T] = Deferred(cancel)
    timer = clock.callLater(seconds, late)
    waiting.addBoth(arrived)
    return outcome


def _shown(failure: Failure, attempt: LoginAttempt) -> Failure:
    """Return the failure for the client. Log any failure that is not a refusal, and hide it from the client."""
    error = failure.value
    if isinstance(error, LHTTPError) and not isinstance(error, LocalProtocolError) and is_told(error):
        return failure
    if isinstance(error, CancelledError):
        return Failure(Refused(503, "the login was cancelled"))
    _log.failure("{peer}: an authenticator failed", failure, peer=attempt.address)
    return Failure(Refused(500, "internal error"))
