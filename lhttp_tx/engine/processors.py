"""
Processors, which handle commands, and the registry that finds them.

Users subclass :class:`Processor` or decorate a function with :func:`processor`. There is no registry at module level.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import update_wrapper
from inspect import Parameter, signature
from types import MethodType
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar, overload

from twisted.plugin import IPlugin
from zope.interface import implementer

from lhttp_tx.engine.attributes import check_instance
from lhttp_tx.engine.idle import idle
from lhttp_tx.interfaces import IProcessor, MaybeAwaitable

if TYPE_CHECKING:
    from lhttp_tx.engine.request import Request
    from lhttp_tx.engine.session import Session
    from lhttp_tx.running import RunningServer

__all__ = ["FunctionProcessor", "MethodProcessor", "Processor", "ProcessorDecorator", "Registry", "processor"]

_S = TypeVar("_S")
_R_co = TypeVar("_R_co", bound=MaybeAwaitable, covariant=True)
_RESULT = TypeVar("_RESULT", bound=MaybeAwaitable)

_POSITIONAL = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)


@implementer(IPlugin, IProcessor)
class Processor:
    """
    A processor that does nothing yet. Subclass it, set :attr:`command`, and override the methods that you need.

    One object serves all connections. Keep the state of one connection in ``session.state``. If a module in
    ``twisted.plugins`` has an instance, the server loads it as a plugin.
    """

    command: str = ""
    """The command whose messages the processor gets: 1 to 64 visible ASCII characters."""

    timeout: float | None = None
    """Seconds after which the server cancels a call; ``None``: the server's own limit."""

    trusted: bool = False
    """
    Whether the processor may write channels into a message that its client may not use. Rules and hooks do not check
    these channels.
    """

    @idle
    def on_start(self, server: RunningServer) -> MaybeAwaitable:
        """See :meth:`lhttp_tx.interfaces.IProcessor.on_start`."""
        return None

    @idle
    def on_stop(self, server: RunningServer) -> MaybeAwaitable:
        """See :meth:`lhttp_tx.interfaces.IProcessor.on_stop`."""
        return None

    @idle
    def on_open(self, session: Session) -> MaybeAwaitable:
        """See :meth:`lhttp_tx.interfaces.IProcessor.on_open`."""
        return None

    @idle
    def on_message(self, request: Request) -> MaybeAwaitable:
        """See :meth:`lhttp_tx.interfaces.IProcessor.on_message`."""
        return None

    @idle
    def on_close(self, session: Session) -> MaybeAwaitable:
        """See :meth:`lhttp_tx.interfaces.IProcessor.on_close`."""
        return None


class FunctionProcessor(Processor, Generic[_R_co]):
    """
    A function of the request that :func:`processor` has made a processor. It can still be called like the function.
    """

    def __init__(
        self,
        function: Callable[[Request], _R_co],
        command: str,
        timeout: float | None = None,
        trusted: bool = False,
    ) -> None:
        self.command = command
        self.trusted = trusted
        self.timeout = timeout
        self._function = function
        update_wrapper(self, function, updated=())

    def on_message(self, request: Request) -> MaybeAwaitable:
        """Call the function."""
        return self._function(request)

    def __call__(self, request: Request) -> _R_co:
        """Call the function, as if it had not been decorated."""
        return self._function(request)

    def __repr__(self) -> str:
        return f"<processor {_name_of(self)}>"


class MethodProcessor(Generic[_S, _R_co]):
    """
    A method that is decorated with :func:`processor`. Each instance of the class has its own processor, such as
    ``Desk().open``.
    """

    def __init__(
        self,
        function: Callable[[_S, Request], _R_co],
        command: str,
        timeout: float | None = None,
        trusted: bool = False,
    ) -> None:
        self._function = function
        self._settings = command, timeout, trusted
        update_wrapper(self, function, updated=())

    @overload
    def __get__(self, instance: None, owner: type[Any]) -> MethodProcessor[_S, _R_co]: ...

    @overload
    def __get__(self, instance: _S, owner: type[Any]) -> FunctionProcessor[_R_co]: ...

    def __get__(self, instance: _S | None, owner: type[Any]) -> MethodProcessor[_S, _R_co] | FunctionProcessor[_R_co]:
        if instance is None:
            return self
        return FunctionProcessor(MethodType(self._function, instance), *self._settings)

    def __call__(self, instance: _S, request: Request) -> _R_co:
        """Call the method, as if it had not been decorated."""
        return self._function(instance, request)

    def __repr__(self) -> str:
        return f"<method {getattr(self, '__qualname__', _name_of(self))} that is a processor of each instance>"


class ProcessorDecorator(Protocol):
    """The decorator that :func:`processor` returns."""

    @overload
    def __call__(self, function: Callable[[Request], _RESULT], /) -> FunctionProcessor[_RESULT]: ...

    @overload
    def __call__(self, function: Callable[[_S, Request], _RESULT], /) -> MethodProcessor[_S, _RESULT]: ...


def processor(command: str, *, timeout: float | None = None, trusted: bool = False) -> ProcessorDecorator:
    """
    Make the decorated function a processor; or the decorated method, for each instance of its class.

    >>> @processor("echo")
    ... def echo(request):
    ...     request.reply()

    The function can still be called, as ``echo(request)``. A method takes ``self`` and the request. Pass the method of
    an instance to the server, such as ``Desk().open``.

    :param command: the command whose messages the processor gets: 1 to 64 visible ASCII characters.
    :param timeout: the most seconds that one call may take; ``None``: the server's own limit.
    :param trusted: see :attr:`Processor.trusted`.
    """

    def decorate(function: Callable[..., Any]) -> Any:
        kind: Callable[..., Any] = MethodProcessor if _is_method(function) else FunctionProcessor
        return kind(function, command, timeout, trusted)

    return decorate


def _is_method(function: Callable[..., Any]) -> bool:
    """Return whether *function* needs two arguments rather than one."""
    try:
        parameters = signature(function).parameters.values()
    except (TypeError, ValueError):  # some functions written in C have no signature
        return False
    needed = [each for each in parameters if each.kind in _POSITIONAL and each.default is Parameter.empty]
    return len(needed) == 2


def _name_of(found: object) -> str:
    return str(getattr(found, "__name__", "without a name"))


class Registry:
    """
    The processors of one server, by command.

    :ivar watchers: functions that are called when processors have been added or replaced, which may happen at any time.
    """

    def __init__(self) -> None:
        self._processors: dict[str, IProcessor] = {}
        self.watchers: list[Callable[[], None]] = []

    def add(self, processor: IProcessor) -> None:
        """
        Add *processor*. It handles the messages of its command from now on.

        :raises ValueError: if *processor* is not a processor, if its command is not 1 to 64 visible ASCII characters,
            or if another processor has this command.
        """
        if isinstance(processor, MethodProcessor):
            raise ValueError(f"{processor!r}: pass that of an instance")
        check_instance(processor, IProcessor)
        command = processor.command
        if not (isinstance(command, str) and 0 < len(command) <= 64 and all("!" <= char <= "~" for char in command)):
            raise ValueError(f"{processor!r} has the command {command!r}; use 1 to 64 visible ASCII characters")
        if command in self._processors:
            raise ValueError(f"command {command!r} has a processor already: {self._processors[command]!r}")
        self._processors[command] = processor
        for watcher in self.watchers:
            watcher()

    def replace(self, pairs: Iterable[tuple[IProcessor, IProcessor]], *, only_check: bool = False) -> None:
        """
        Replace the first processor of each pair by the second: all or none. Messages that are being handled are not
        affected.

        :param only_check: whether to check the new processors without replacing any.
        :raises ValueError: if :meth:`add` would refuse one of the new processors.
        """
        new = {id(old): processor for old, processor in pairs}
        trial = Registry()
        for found in self:
            trial.add(new.get(id(found), found))
        if not only_check:
            self._processors = trial._processors
            for watcher in self.watchers:
                watcher()

    def get(self, command: str) -> IProcessor | None:
        """Return the processor of *command*, or ``None``."""
        return self._processors.get(command)

    def __iter__(self) -> Iterator[IProcessor]:
        return iter(self._processors.values())

    def __len__(self) -> int:
        return len(self._processors)
