"""
Authentication with user and password, by checkers of :mod:`twisted.cred`.

The option ``--auth`` makes the checkers. An embedding application passes its own.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from typing import Any

from twisted.cred.checkers import FilePasswordDB, ICredentialsChecker, InMemoryUsernamePasswordDatabaseDontUse
from twisted.cred.credentials import IUsernamePassword
from twisted.cred.error import LoginFailed, UnauthorizedLogin, UnhandledCredentials
from twisted.internet.defer import Deferred, fail, maybeDeferred
from twisted.logger import Logger
from zope.interface import implementer

from lhttp_tx.auth import Authenticator
from lhttp_tx.auth.attempts import LoginAttempt
from lhttp_tx.errors import Refused
from lhttp_tx.guard.files import check_file
from lhttp_tx.identity import Identity
from lhttp_tx.interfaces import IAuthenticator

__all__ = ["MAX_USERS_FILE", "CredAuthenticator", "Password"]

_log = Logger()

MAX_USERS_FILE = 16_777_216
"""The most bytes of a file with users. Each login reads the whole file."""


@implementer(IUsernamePassword)
class Password:
    """
    A user's name and password as checkers take them.

    Unlike Twisted's own class, it also takes text, compares in constant time, and shows nothing in its representation.

    :ivar username: the name, in UTF-8.
    :ivar password: the password, in UTF-8.
    """

    __slots__ = ("password", "username")

    def __init__(self, username: str, password: str) -> None:
        self.username = username.encode("utf-8", "surrogatepass")
        self.password = password.encode("utf-8", "surrogatepass")

    def checkPassword(self, password: bytes | str) -> bool:  # noqa: N802 - Twisted's name
        """Return whether *password* is right."""
        return hmac.compare_digest(self.password, _bytes(password))

    def __repr__(self) -> str:
        return "<Password>"


@implementer(IAuthenticator)
class CredAuthenticator(Authenticator):
    """
    Identifies clients by ``Authorization: Basic``, and by the headers ``user`` and ``password`` of a login message.
    """

    challenges = ('Basic realm="lhttp", charset="UTF-8"',)

    def __init__(self, checkers: Iterable[ICredentialsChecker]) -> None:
        """
        :param checkers: asked in this order. The first that accepts the password decides.
        :raises ValueError: if one of them does not take passwords.
        """
        self._checkers: tuple[Any, ...] = tuple(_mended(checker) for checker in checkers)
        for checker in self._checkers:
            if IUsernamePassword not in checker.credentialInterfaces:
                raise ValueError(f"{checker!r} does not accept passwords")

    async def _ask(self, user: str, password: str) -> object:
        for checker in self._checkers:
            try:
                return await maybeDeferred(checker.requestAvatarId, Password(user, password))
            except (LoginFailed, UnhandledCredentials):
                continue
        return None

    async def _authenticate(self, attempt: LoginAttempt, user: str, password: str) -> Identity:
        found = await self._ask(user, password)
        if isinstance(found, bytes):
            found = found.decode("utf-8", "replace")
        if not isinstance(found, str) or not found:  # twisted.cred's name for an anonymous user is ()
            raise Refused(401, "wrong user or password")
        return attempt.identify(found)

    def authenticate(self, attempt: LoginAttempt) -> Any:
        """
        Return a coroutine that returns the identity; ``None`` if *attempt* has no password.

        The coroutine raises Refused with status 401 if the password is wrong.
        """
        given = attempt.password
        return None if given is None else self._authenticate(attempt, *given)


@implementer(ICredentialsChecker)
class _UsersFile:
    """
    The users of a file, which Twisted opens for each login. This checks the file first, because a pipe would block.
    """

    def __init__(self, checker: FilePasswordDB) -> None:
        self._checker: Any = checker
        self.credentialInterfaces = checker.credentialInterfaces

    def requestAvatarId(self, credentials: Any) -> Deferred[Any]:  # noqa: N802 - Twisted's name
        try:
            check_file(self._checker.filename, most=MAX_USERS_FILE)
        except (OSError, ValueError) as error:
            _log.error("nobody can log in with the file of users: {error}", error=str(error))
            return fail(UnauthorizedLogin())
        return self._checker.requestAvatarId(credentials)  # type: ignore[no-any-return]


def _mended(checker: Any) -> Any:
    """
    Return a checker that does not block on its file, and stores names as bytes.

    The checker of ``--auth memory:`` stores text, which would match no user.
    """
    if type(checker) is FilePasswordDB:
        return _UsersFile(checker)
    if type(checker) is not InMemoryUsernamePasswordDatabaseDontUse:
        return checker
    mended = InMemoryUsernamePasswordDatabaseDontUse()
    for name, password in checker.users.items():
        mended.addUser(_bytes(name), _bytes(password))
    return mended


def _bytes(text: str | bytes) -> bytes:
    return text.encode("utf-8") if isinstance(text, str) else text
