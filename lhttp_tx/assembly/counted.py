"""
Parts of a server that count for the metrics.

:mod:`lhttp_tx.assembly.parts` uses them instead of the ordinary ones if ``Config(metrics=True)``, so that they cost a
server without metrics nothing. They count where a run of messages begins or ends.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from operator import length_hint
from time import perf_counter
from typing import TYPE_CHECKING, Any, cast

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from lhttp_tx.engine.awaiting import as_deferred
from lhttp_tx.engine.conversation import Conversation
from lhttp_tx.engine.engine import Engine
from lhttp_tx.engine.handshake import Handshake
from lhttp_tx.engine.hub import HEAD_SIZE, Hub
from lhttp_tx.engine.sequence import Step
from lhttp_tx.engine.state import State
from lhttp_tx.errors import LHTTPError
from lhttp_tx.history.recovery import Recovery
from lhttp_tx.interfaces import IBus, IProcessor, MaybeAwaitable, MaybeDeferred
from lhttp_tx.observe.counters import Counters, Histogram
from lhttp_tx.upstream.client import UpstreamClient, UpstreamResponse

if TYPE_CHECKING:
    from lhttp_tx.history.values import Filing

__all__ = ["CountedHub", "CountedUpstream", "cause_of", "count", "counted_conversation", "counted_step"]

_PACKAGE = "lhttp_tx."
_IDLE = State.IDLE


def cause_of(error: object) -> str:
    """
    Return the name of an exception of this project; ``internal`` for all others, because their names have no limit.
    """
    kind = type(error)
    return kind.__name__ if isinstance(error, LHTTPError) and kind.__module__.startswith(_PACKAGE) else "internal"


class CountedHub(Hub):
    """A hub that counts publications and deliveries."""

    def __init__(self, *, bus: IBus, counters: Counters) -> None:
        """
        :param bus: carries publications.
        :param counters: its counters.
        """
        super().__init__(bus=bus)
        self._counters = counters

    def publish(
        self, channels: Iterable[str], payload: bytes, binary: bool, filing: Filing | None = None
    ) -> MaybeDeferred:
        """See :meth:`lhttp_tx.engine.hub.Hub.publish`."""
        names = tuple(channels)
        self._counters.publications += len(names)
        return super().publish(names, payload, binary, filing)

    def publish_run(self, channels: tuple[str, ...], payloads: Iterator[bytes], binary: bool) -> MaybeDeferred:
        """See :meth:`lhttp_tx.engine.hub.Hub.publish_run`."""
        if len(channels) > 1:  # it calls publish for each channel
            return super().publish_run(channels, payloads, binary)
        before = length_hint(payloads)
        if not before:  # a generator, such as for heads that have to be changed
            return super().publish_run(channels, self._count(payloads), binary)
        try:
            return super().publish_run(channels, payloads, binary)
        finally:
            self._counters.publications += before - length_hint(payloads)

    def _count(self, payloads: Iterator[bytes]) -> Iterator[bytes]:
        for payload in payloads:
            self._counters.publications += 1
            yield payload

    def flush(self) -> None:
        """See :meth:`lhttp_tx.engine.hub.Hub.flush`."""
        if self.run:
            found = self._channels.get(self._run_channel)
            if found is not None:
                members = len(found.members)
                counters = self._counters
                counters.deliveries += members * len(self.run)
                counters.delivered_bytes += members * (self._run_size - HEAD_SIZE * len(self.run))
        super().flush()

    def confirm(self, kept: bool) -> MaybeDeferred:
        """See :meth:`lhttp_tx.engine.hub.Hub.confirm`."""
        begun = perf_counter()
        waiting = super().confirm(kept)
        if waiting is not None:
            times = self._counters.history_times if kept else self._counters.bus_times
            waiting.addBoth(self._confirmed, times, begun)
        return waiting

    def _confirmed(self, result: Any, times: Histogram, begun: float) -> Any:
        if isinstance(result, Failure):
            self._counters.unconfirmed[cause_of(result.value)] += 1
        else:
            times.observe(perf_counter() - begun)
        return result


def counted_conversation(counters: Counters) -> type[Conversation]:
    """Return the class of sessions that count received messages and errors."""

    class CountedConversation(Conversation):
        __slots__ = ()

        def receive_run(self, messages: list[bytes], first: int, binary: bool) -> int:
            if self.stage is not _IDLE:
                self.receive(messages[first], binary)
                return first + 1
            stop = super().receive_run(messages, first, binary)
            counters.received_messages += stop - first
            return stop

        def receive(self, data: bytes, binary: bool) -> None:
            counters.received_messages += 1
            super().receive(data, binary)

        def _answer(self, receipt: str | None, failure: Failure) -> None:
            error = failure.value
            cause = cause_of(error)
            status = str(error.status) if cause != "internal" and isinstance(error, LHTTPError) else "500"
            counters.errors[status, cause] += 1
            super()._answer(receipt, failure)

        def open(self, handshake: Handshake | None = None) -> None:
            counters.opened += 1
            super().open(handshake)

    return CountedConversation


def counted_step(step: Step, own: Step, counters: Counters) -> Step:
    """Return a step that also measures its time, if *own* is a processor's ``on_message``; otherwise *step*."""
    call, owner = step
    if own[0] != getattr(owner, "on_message", None):
        return step
    times = counters.processor(cast(IProcessor, owner).command)

    def timed(argument: Any) -> MaybeAwaitable:
        begun = perf_counter()
        try:
            result = call(argument)
        except BaseException:
            times.observe(perf_counter() - begun)
            raise
        if result is None:
            times.observe(perf_counter() - begun)
            return None
        waiting: Deferred[Any] = as_deferred(result, owner)
        return waiting.addBoth(observed, begun)

    def observed(result: Any, begun: float) -> Any:
        times.observe(perf_counter() - begun)
        return result

    return timed, owner


class CountedUpstream(UpstreamClient):
    """A client of backends that counts its requests."""

    counters: Counters

    def request(self, *arguments: Any, **options: Any) -> Deferred[UpstreamResponse]:
        """See :meth:`lhttp_tx.upstream.client.UpstreamClient.request`."""
        begun = perf_counter()
        try:
            waiting = super().request(*arguments, **options)
        except LHTTPError as error:
            self.counters.upstream[cause_of(error)] += 1
            raise
        return waiting.addBoth(self._answered, begun)

    def _answered(self, result: Any, begun: float) -> Any:
        self.counters.upstream_times.observe(perf_counter() - begun)
        if isinstance(result, Failure):
            self.counters.upstream[cause_of(result.value)] += 1
        else:
            self.counters.upstream[f"{result.status // 100}xx"] += 1
        return result


def count(engine: Engine, upstream: UpstreamClient, recovery: Recovery | None, bus: IBus, counters: Counters) -> None:
    """
    Let the parts of a server count. Call this once, before the server starts.

    :param engine: its engine.
    :param upstream: makes its requests to backends.
    :param recovery: delivers the messages that clients have missed; ``None`` without history.
    :param bus: its bus.
    :param counters: the counters.
    """
    engine.counters = counters
    engine.conversation = counted_conversation(counters)
    engine.step_watchers.insert(0, lambda step, own: counted_step(step, own, counters))
    if isinstance(upstream, CountedUpstream):
        upstream.counters = counters
    if recovery is not None:
        recovery.on_told.append(counters.count_recovery)
    on_gap = getattr(bus, "on_gap", None)
    if on_gap is not None:
        on_gap.append(counters.count_gap)
