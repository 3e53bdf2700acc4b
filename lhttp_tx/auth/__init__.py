"""
Authenticators, which identify clients, and the login between a handshake and a session.

:class:`Authenticator` is the base class for users. :mod:`lhttp_tx.auth.cred` asks checkers of twisted.cred, and
:mod:`lhttp_tx.auth.tokens` takes JSON Web Tokens. :class:`~lhttp_tx.auth.gate.Gate` asks the authenticators in turn. A
server without an authenticator imports none of these.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TYPE_CHECKING

from twisted.plugin import IPlugin
from zope.interface import implementer

from lhttp_tx.interfaces import IAuthenticator, MaybeAwaitable

if TYPE_CHECKING:
    from lhttp_tx.auth.attempts import LoginAttempt
    from lhttp_tx.identity import Identity
    from lhttp_tx.running import RunningServer

__all__ = ["Authenticator"]


@implementer(IPlugin, IAuthenticator)
class Authenticator:
    """
    An authenticator that knows no clients yet: subclass it and override :meth:`authenticate`.

    One object serves every connection. The server finds an instance in a module of ``twisted.plugins`` as a plugin.

    >>> class Invited(Authenticator):
    ...     def authenticate(self, attempt):
    ...         if attempt.parameters.get("invitation") == "x7Qk":
    ...             return attempt.identify("guest")
    """

    timeout: float | None = None
    """Seconds after which the server cancels a call; ``None``: the server's own limit."""

    challenges: tuple[str, ...] = ()
    """Values of the header ``WWW-Authenticate`` for a client that is refused with status 401."""

    secret_parameters: frozenset[str] = frozenset()
    """Names of query parameters that hold secrets. The identity does not contain them."""

    def on_start(self, server: RunningServer) -> MaybeAwaitable:
        """See :meth:`lhttp_tx.interfaces.IAuthenticator.on_start`."""
        return None

    def on_stop(self, server: RunningServer) -> MaybeAwaitable:
        """See :meth:`lhttp_tx.interfaces.IAuthenticator.on_stop`."""
        return None

    def authenticate(self, attempt: LoginAttempt) -> Identity | Awaitable[Identity | None] | None:
        """See :meth:`lhttp_tx.interfaces.IAuthenticator.authenticate`."""
        return None
