"""
Sends the messages of a session in order, one request at a time. If an answer is lost, it repeats the request.

A part of :mod:`lhttp_tx.client.http.connection`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol, final

from twisted.internet.defer import CancelledError, Deferred, TimeoutError as DeferredTimeout
from twisted.internet.task import deferLater

from lhttp_tx.client.http.requests import Answer, Refusal, judge, pause

__all__ = ["Outgoing", "Post"]

_MAX_BATCH = 32_768
"""The most bytes of a request with several messages."""

_MAX_COUNT = 100
"""The most messages of a request."""

_TOO_LARGE = 413

_GRACE = 1.0
"""Seconds to wait for a last message, which may say why the session has ended."""


class Post(Protocol):
    """Makes one request to ``/send``."""

    def __call__(self, number: int | None, body: bytes, content_type: str) -> Deferred[Answer]:
        """Post *body* as the request with this number. A request without a number only tells what the client has."""


@final
class Outgoing:
    """
    The messages of one session that the server has not taken yet.

    :ivar unsent: the bytes of these messages.
    """

    def __init__(
        self,
        post: Post,
        *,
        reactor: Any,
        drained: Callable[[], object],
        refused: Callable[[bytes, bool, str], object],
        failed: Callable[[str], object],
    ) -> None:
        """
        :param drained: called when the server has taken everything.
        :param refused: called with a message that is too large for the server, whether it is binary, and the reason.
        :param failed: called with the reason when the session takes no more messages.
        """
        self.unsent = 0
        self._post = post
        self._reactor = reactor
        self._drained = drained
        self._refused = refused
        self._failed = failed
        self._most = _MAX_COUNT
        self._queue: deque[tuple[bytes, bool]] = deque()
        self._number = 0
        self._patience = 0.0
        self._must_acknowledge = self._is_sending = self._over = False
        self._sending: Deferred[None] | None = None
        self._idle: Deferred[None] | None = None

    def begin(self, patience: float) -> None:
        """
        Begin to send.

        :param patience: seconds without a successful request after which the session must have ended.
        """
        self._patience = patience
        self._pump()

    def add(self, payload: bytes, binary: bool) -> None:
        """Queue a message."""
        self._queue.append((payload, binary))
        self.unsent += len(payload)
        self._pump()

    def acknowledge(self) -> None:
        """Tell the server soon what the client has."""
        self._must_acknowledge = True
        self._pump()

    def when_idle(self, seconds: float) -> Deferred[None]:
        """Return a Deferred that succeeds when everything is sent, after *seconds* at the latest."""
        self._idle = Deferred()
        if not self._is_sending:
            self._idle.callback(None)
        waiting = self._idle.addTimeout(seconds, self._reactor)
        return waiting.addErrback(lambda failure: failure.trap(DeferredTimeout) and None)

    def stop(self) -> None:
        """Send nothing more."""
        self._over = True
        if self._sending is not None:
            self._sending.cancel()

    def _pump(self) -> None:
        if not self._is_sending and not self._over and self._patience:
            self._is_sending = True
            self._sending = Deferred.fromCoroutine(self._send_all())

    async def _send_all(self) -> None:
        try:
            while (self._queue or self._must_acknowledge) and not self._over:
                await self._send_batch()
        except CancelledError:
            return
        except Exception as error:
            why = str(error)
            with suppress(CancelledError):
                await deferLater(self._reactor, _GRACE, lambda: None)  # the fetching side may learn the reason
                self._failed(why)
        finally:
            self._is_sending = False
            if self._idle is not None and not self._idle.called:
                self._idle.callback(None)

    async def _send_batch(self) -> None:
        batch = self._next_batch()
        self._must_acknowledge = False
        body = batch[0][0] if len(batch) == 1 else b"".join(b"%d\n%b" % (len(raw), raw) for raw, _ in batch)
        kind = "application/octet-stream" if batch and batch[0][1] else "text/plain; charset=utf-8"
        self._number += bool(batch)
        number = self._number if batch else None
        began, failures = self._reactor.seconds(), 0
        while not self._over:
            try:
                judge(await self._post(number, body, kind))
                break
            except Refusal as refusal:
                if refusal.status != _TOO_LARGE or not batch:
                    raise
                self._number -= 1  # the server has not counted it
                if len(batch) > 1:
                    self._most = 1
                    self._queue.extendleft(reversed(batch))
                    return
                self._refused(*batch[0], str(refusal))
                break
            except Exception:
                if self._over or self._reactor.seconds() - began > self._patience:
                    raise
                await pause(self._reactor, failures)
                failures += 1
        self.unsent -= sum(len(raw) for raw, _ in batch)
        if not self.unsent and not self._over:
            self._drained()

    def _next_batch(self) -> list[tuple[bytes, bool]]:
        batch: list[tuple[bytes, bool]] = []
        size = 0
        while self._queue and len(batch) < self._most:
            payload, binary = self._queue[0]
            size += len(payload) + 8
            if batch and (size > _MAX_BATCH or binary != batch[0][1]):
                break
            batch.append(self._queue.popleft())
        return batch
