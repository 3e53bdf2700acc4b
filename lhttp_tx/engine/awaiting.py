"""
Turns the result of a user's callback into a Deferred: a Deferred, a coroutine or an awaitable of asyncio.

If an event loop of asyncio runs, as with Twisted's asyncio reactor, a coroutine may await Deferreds and awaitables of
asyncio. The coroutine then runs as an asyncio task, whose first step runs at once. Otherwise a coroutine may await only
Deferreds. Every module that calls a user's callback uses this one. Of the project, it imports only the log.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextvars import copy_context
from typing import Any, TypeVar

from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.python.failure import Failure

from lhttp_tx.observe.rationing import RationedLogger

__all__ = ["Outcome", "as_deferred", "awaitable", "in_any_case", "loop_runs"]

_log = RationedLogger(__name__)

_T = TypeVar("_T")

_NOTHING: Any = object()


def as_deferred(result: object, owner: object) -> Deferred[Any]:
    """
    Return the result of a callback as a Deferred.

    Cancelling this Deferred cancels *result*. The Deferred fires when *result* has ended, which may be later than the
    cancellation: a coroutine may handle it first.

    :param result: a Deferred, a coroutine, an asyncio future or task, or another awaitable.
    :param owner: the object that the callback belongs to, for the error text.
    :raises TypeError: if *result* cannot be awaited.
    """
    if isinstance(result, Deferred):
        return result
    if isinstance(result, Coroutine):
        return _run(result)
    if asyncio.isfuture(result):
        return Deferred.fromFuture(result).addErrback(_told_to_twisted)
    if isinstance(result, Awaitable):
        return _run(_wait_for(result))
    name = getattr(owner, "__name__", type(owner).__name__)
    raise TypeError(f"{name} returned {result!r}; return None, a Deferred, a coroutine or another awaitable")


def in_any_case(call: Callable[[], object]) -> Deferred[Any] | None:
    """
    Return what the method *call* returns: ``None``, or its result as a Deferred (see :func:`as_deferred`). If it
    raises, or its result cannot be awaited, the Deferred fails.
    """
    try:
        result = call()
        return None if result is None else as_deferred(result, getattr(call, "__self__", call))
    except Exception:
        return fail()


class Outcome(Deferred[_T]):
    """A Deferred that asyncio tasks may also await."""

    def __await__(self) -> Generator[Any, None, _T]:
        """Wait for the Deferred, in a coroutine of Twisted or of asyncio."""
        if not self.called and (loop := asyncio._get_running_loop()) and asyncio.current_task(loop):
            future = loop.create_future()
            self.addBoth(_fill, future)
            try:
                yield next(future.__await__())
            except BaseException:
                _let_go(self)
                raise
            if not future.done():  # Twisted, not asyncio, runs this coroutine within a task's step
                future.cancel()
        return (yield from super().__await__())

    __iter__ = __await__


def awaitable(deferred: Deferred[_T]) -> Deferred[_T]:
    """Return a Deferred with the result of *deferred*. Asyncio tasks may await it, too, unless it has fired already."""
    if deferred.called:
        return deferred
    outcome: Outcome[_T] = Outcome(lambda _: deferred.cancel())
    deferred.addBoth(outcome.callback)
    return outcome


def loop_runs() -> bool:
    """
    Return whether an event loop of asyncio runs in this thread. With the asyncio reactor, the loop runs once the
    reactor does.
    """
    return asyncio._get_running_loop() is not None


async def _wait_for(found: Awaitable[_T]) -> _T:
    return await found


def _run(coroutine: Coroutine[Any, Any, Any]) -> Deferred[Any]:
    loop = asyncio._get_running_loop()
    return Deferred.fromCoroutine(coroutine) if loop is None else _Driver(coroutine, loop).outcome


def _fill(result: _T, future: asyncio.Future[None]) -> _T:
    """Tell *future* that a Deferred has fired. The Deferred keeps its result."""
    if not future.done():
        future.set_result(None)
    return result


def _let_go(deferred: Deferred[Any]) -> None:
    """Cancel the Deferred that a cancelled coroutine was waiting for."""
    deferred.addErrback(_log_unless_cancelled)
    try:
        deferred.cancel()
    except Exception:
        _log.failure("cancelling a Deferred failed")


def _log_unless_cancelled(failure: Failure) -> None:
    if not failure.check(CancelledError, asyncio.CancelledError):
        _log.failure("the awaitable of a cancelled coroutine failed", failure)


def _told_to_twisted(failure: Failure) -> Failure:
    """Return *failure*, with asyncio's ``CancelledError`` replaced by Twisted's."""
    return Failure(CancelledError()) if failure.check(asyncio.CancelledError) else failure


class _Driver(Coroutine[Any, None, None]):
    """
    Runs a coroutine that awaits Deferreds and awaitables of asyncio. An asyncio task has this object as its coroutine.

    :ivar outcome: fires when the coroutine has ended, with its result or its failure.
    """

    def __init__(self, coroutine: Coroutine[Any, Any, Any], loop: asyncio.AbstractEventLoop) -> None:
        self._coroutine = coroutine
        self._loop = loop
        self._driving = self._drive()
        self._first: Any = _NOTHING
        self._has_begun = self._has_ended = False
        self._late: Deferred[Any] | None = None
        self.outcome: Deferred[Any] = Deferred(self._cancel)
        self.outcome.addErrback(self._cancelled)
        context = copy_context()
        self._task: asyncio.Task[None] | None = asyncio.Task(self, loop=loop, context=context)
        if asyncio.current_task(loop) is None:
            context.run(self._begin, self._task)

    def _begin(self, task: asyncio.Task[None]) -> None:
        """Run the first step now, rather than in the next turn of the loop."""
        asyncio.tasks._enter_task(self._loop, task)
        try:
            self._has_begun = True
            self._first = next(self._driving, _NOTHING)
        finally:
            asyncio.tasks._leave_task(self._loop, task)

    # Called by the task

    def send(self, value: None) -> Any:
        """Run one step. If the first step has already run, return the value that it yielded."""
        self._has_begun = True
        if self._first is not _NOTHING:
            first, self._first = self._first, _NOTHING
            return first
        return self._driving.send(value)

    def throw(self, typ: Any, val: Any = None, tb: Any = None) -> Any:
        """Raise an exception in the coroutine, where it waits."""
        self._first = _NOTHING
        if self._has_begun:
            return self._driving.throw(typ if val is None else val)
        self._has_begun = True
        self._coroutine.close()
        self._end(Failure(typ if val is None else val))
        raise StopIteration

    def close(self) -> None:
        """Close the coroutine."""
        self._driving.close()

    def __await__(self) -> Generator[Any, None, None]:
        return self._driving

    def __getattr__(self, name: str) -> Any:
        if name.startswith("cr_"):  # libraries for asyncio inspect the coroutine of a task
            return getattr(self._coroutine, name)
        raise AttributeError(name)

    # Within the task

    def _drive(self) -> Generator[Any, None, None]:
        call: Any = self._coroutine.send
        argument: Any = None
        while True:
            try:
                found = call(argument)
            except StopIteration as stop:
                return self._end(stop.value)
            except (KeyboardInterrupt, GeneratorExit):
                raise
            except BaseException:
                return self._end(Failure())
            call, argument = self._coroutine.send, None
            try:
                if isinstance(found, Deferred):
                    yield from self._wait(found)
                else:
                    yield found
            except GeneratorExit:
                self._coroutine.close()
                raise
            except BaseException as error:
                call, argument = self._coroutine.throw, error

    def _wait(self, found: Deferred[Any]) -> Generator[Any, None, None]:
        future = self._loop.create_future()
        found.addBoth(_fill, future)
        try:
            yield from future
        except BaseException:
            _let_go(found)
            raise

    def _end(self, result: Any) -> None:
        self._has_ended = True
        self._task = None
        if self._late is not None:
            self._late.callback(_told_to_twisted(result) if isinstance(result, Failure) else result)
        else:
            self.outcome.callback(result)

    # Cancellation by the waiting side

    def _cancel(self, _: object) -> None:
        if self._task is not None:
            self._task.cancel()

    def _cancelled(self, failure: Failure) -> Failure | Deferred[Any]:
        """After a cancellation, wait until the coroutine has ended."""
        if self._has_ended:
            return failure
        self._late = Deferred(self._cancel)
        return self._late
