"""
Who a client is: authenticators, and what stands between a handshake and a session.

:class:`Authenticator` is the base class for users. :mod:`lhttp_tx.auth.cred` asks checkers of twisted.cred,
:mod:`lhttp_tx.auth.tokens` takes JSON Web Tokens; :class:`~lhttp_tx.auth.gate.Gate` asks all of them in turn. A server
without an authenticator imports none of these.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TYPE_CHECKING

from twisted.plugin import IPlugin
from zope.interface import implementer

from lhttp_tx.interfaces import IAuthenticator

if TYPE_CHECKING:
    from lhttp_tx.auth.attempt import LoginAttempt
    from lhttp_tx.identity import Identity

__all__ = ["Authenticator"]


@implementer(IPlugin, IAuthenticator)
class Authenticator:
    """
    An authenticator that knows nobody yet: subclass it and override :meth:`authenticate`.

    One object serves every connection. An instance in a module of ``twisted.plugins`` is found as a plugin.

    >>> class Invited(Authenticator):
    ...     def authenticate(self, attempt):
    ...         if attempt.parameters.get("invitation") == "x7Qk":
    ...             return attempt.identify("guest")
    """

    timeout: float | None = None
    """Seconds that it may take before it is cancelled; ``None``: the server's own limit."""

    challenges: tuple[str, ...] = ()
    """What a client without credentials is told in the header ``WWW-Authenticate``, with status 401."""

    secret_parameters: frozenset[str] = frozenset()
    """Names of query parameters that hold secrets; they are left out of the identity."""

    def authenticate(self, attempt: LoginAttempt) -> Identity | Awaitable[Identity | None] | None:
        """See :meth:`lhttp_tx.interfaces.IAuthenticator.authenticate`."""
        return None
