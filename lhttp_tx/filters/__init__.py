"""
Header filters: they see a message before and after its processor.

:class:`HeaderFilter` is the base class for users. The other modules here contain the server's own filters, which use
only what a user's filter can also use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.plugin import IPlugin
from zope.interface import implementer

from lhttp_tx.engine.idle import idle
from lhttp_tx.interfaces import IHeaderFilter, MaybeAwaitable

if TYPE_CHECKING:
    from lhttp_tx.codec.message import Head
    from lhttp_tx.engine.request import Request
    from lhttp_tx.engine.session import Session
    from lhttp_tx.running import RunningServer

__all__ = ["HeaderFilter"]


@implementer(IPlugin, IHeaderFilter)
class HeaderFilter:
    """
    A filter that does nothing yet: subclass it and override what you need.

    A method that is not overridden costs nothing. The server finds an instance in a module of ``twisted.plugins`` as a
    plugin.
    """

    headers: tuple[str, ...] | None = None
    """Lower-case names: the filter sees only messages with one of these headers; ``None``: all messages."""

    timeout: float | None = None
    """Seconds after which the server cancels a call; ``None``: the server's own limit."""

    trusted: bool = False
    """Whether it may write channels into a message that its client may not use: rules and hooks do not check those."""

    @idle
    def on_start(self, server: RunningServer) -> MaybeAwaitable:
        """See :meth:`lhttp_tx.interfaces.IHeaderFilter.on_start`."""
        return None

    @idle
    def on_stop(self, server: RunningServer) -> MaybeAwaitable:
        """See :meth:`lhttp_tx.interfaces.IHeaderFilter.on_stop`."""
        return None

    @idle
    def check(self, head: Head) -> None:
        """See :meth:`lhttp_tx.interfaces.IHeaderFilter.check`."""

    @idle
    def on_connect(self, session: Session) -> MaybeAwaitable:
        """See :meth:`lhttp_tx.interfaces.IHeaderFilter.on_connect`."""
        return None

    @idle
    def before(self, request: Request) -> MaybeAwaitable:
        """See :meth:`lhttp_tx.interfaces.IHeaderFilter.before`."""
        return None

    @idle
    def judge(self, request: Request) -> MaybeAwaitable:
        """See :meth:`lhttp_tx.interfaces.IHeaderFilter.judge`."""
        return None

    @idle
    def after(self, request: Request) -> MaybeAwaitable:
        """See :meth:`lhttp_tx.interfaces.IHeaderFilter.after`."""
        return None

    @idle
    def on_disconnect(self, session: Session) -> MaybeAwaitable:
        """See :meth:`lhttp_tx.interfaces.IHeaderFilter.on_disconnect`."""
        return None
