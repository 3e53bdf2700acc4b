"""
Header filters: what sees a message before and after its processor.

:class:`HeaderFilter` is the base class for users; the server's own filters are the other modules here, and use
nothing that a user's filter could not use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.plugin import IPlugin
from zope.interface import implementer

from lhttp_tx.interfaces import IHeaderFilter, MaybeAwaitable

if TYPE_CHECKING:
    from lhttp_tx.message import Head
    from lhttp_tx.request import Request
    from lhttp_tx.session import Session

__all__ = ["HeaderFilter"]


@implementer(IPlugin, IHeaderFilter)
class HeaderFilter:
    """
    A filter that does nothing yet: subclass it and override what you need.

    A method that is not overridden costs nothing. An instance in a module of ``twisted.plugins`` is found as a plugin.
    """

    headers: tuple[str, ...] | None = None
    """Lower-case names: only messages with one of these headers are seen; ``None``: all messages."""

    timeout: float | None = None
    """Seconds that one call may take before it is cancelled; ``None``: the server's own limit."""

    def check(self, head: Head) -> None:
        """See :meth:`lhttp_tx.interfaces.IHeaderFilter.check`."""

    def on_open(self, session: Session) -> MaybeAwaitable:
        """See :meth:`lhttp_tx.interfaces.IHeaderFilter.on_open`."""
        return None

    def before(self, request: Request) -> MaybeAwaitable:
        """See :meth:`lhttp_tx.interfaces.IHeaderFilter.before`."""
        return None

    def after(self, request: Request) -> MaybeAwaitable:
        """See :meth:`lhttp_tx.interfaces.IHeaderFilter.after`."""
        return None

    def on_close(self, session: Session) -> MaybeAwaitable:
        """See :meth:`lhttp_tx.interfaces.IHeaderFilter.on_close`."""
        return None
