"""
Processors: what answers a command, and the registry that finds it.

Users subclass :class:`Processor` or decorate a function with :func:`processor`. No module-level registry exists.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from twisted.plugin import IPlugin
from zope.interface import implementer

from lhttp_tx.interfaces import IProcessor, MaybeAwaitable

if TYPE_CHECKING:
    from lhttp_tx.request import Request
    from lhttp_tx.session import Session

__all__ = ["FunctionProcessor", "Processor", "Registry", "processor"]


@implementer(IPlugin, IProcessor)
class Processor:
    """
    A processor that does nothing yet: subclass it, set :attr:`command` and override what you need.

    One object serves every connection; what belongs to a connection is kept in ``session.state``. An instance in a
    module of ``twisted.plugins`` is found as a plugin.
    """

    command: str = ""
    """The command whose messages it gets: 1 to 64 visible ASCII characters."""

    timeout: float | None = None
    """Seconds that one call may take before it is cancelled; ``None``: the server's own limit."""

    def on_open(self, session: Session) -> MaybeAwaitable:
        """See :meth:`lhttp_tx.interfaces.IProcessor.on_open`."""
        return None

    def on_message(self, request: Request) -> MaybeAwaitable:
        """See :meth:`lhttp_tx.interfaces.IProcessor.on_message`."""
        return None

    def on_close(self, session: Session) -> MaybeAwaitable:
        """See :meth:`lhttp_tx.interfaces.IProcessor.on_close`."""
        return None


class FunctionProcessor(Processor):
    """A processor that is one function of the request; made by :func:`processor`."""

    def __init__(
        self, function: Callable[[Request], MaybeAwaitable], command: str, timeout: float | None = None
    ) -> None:
        self.command = command
        self.timeout = timeout
        self.__name__ = function.__name__
        self.__doc__ = function.__doc__
        self._function = function

    def on_message(self, request: Request) -> MaybeAwaitable:
        """Call the function."""
        return self._function(request)

    def __repr__(self) -> str:
        return f"<processor {self.__name__}>"


def processor(
    command: str, *, timeout: float | None = None
) -> Callable[[Callable[[Request], MaybeAwaitable]], FunctionProcessor]:
    """
    Make a processor of the decorated function.

    >>> @processor("echo")
    ... def echo(request):
    ...     request.reply()

    :param command: the command whose messages it gets.
    :param timeout: seconds that one call may take; ``None``: the server's own limit.
    """

    def decorate(function: Callable[[Request], MaybeAwaitable]) -> FunctionProcessor:
        return FunctionProcessor(function, command, timeout)

    return decorate


class Registry:
    """
    The processors of one server, each under its command.

    :ivar watchers: called when a processor was added, which may be at any time.
    """

    def __init__(self) -> None:
        self._processors: dict[str, IProcessor] = {}
        self.watchers: list[Callable[[], None]] = []

    def add(self, processor: IProcessor) -> None:
        """
        Let *processor* handle the messages of its command.

        :raises ValueError: if it names no command, or another processor has it.
        """
        command = processor.command
        if not (0 < len(command) <= 64 and all("!" <= char <= "~" for char in command)):
            raise ValueError(f"{processor!r} has the command {command!r}; use 1 to 64 visible ASCII characters")
        if command in self._processors:
            raise ValueError(f"command {command!r} has a processor already: {self._processors[command]!r}")
        self._processors[command] = processor
        for watcher in self.watchers:
            watcher()

    def get(self, command: str) -> IProcessor | None:
        """Return the processor of *command*, or ``None``."""
        return self._processors.get(command)

    def __iter__(self) -> Iterator[IProcessor]:
        return iter(self._processors.values())

    def __len__(self) -> int:
        return len(self._processors)
