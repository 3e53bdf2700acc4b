"""
Answers calls of the API: checks them, keeps them within the scope of the key, and makes each only once.

:mod:`lhttp_tx.web.admin.api` passes on calls over HTTP, and :mod:`lhttp_tx.web.admin.grpc` those over gRPC. This module
imports neither.
"""

from __future__ import annotations

import json
import re
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from lhttp_tx.errors import LHTTPError, LocalProtocolError
from lhttp_tx.observe.methods import BY_NAME, Method
from lhttp_tx.observe.rationing import RationedLogger
from lhttp_tx.web.admin.calls import Calls
from lhttp_tx.web.admin.checking import check_call
from lhttp_tx.web.admin.keys import AdminKey, digest_of
from lhttp_tx.web.admin.problems import Problem

__all__ = ["MAX_ANSWER", "WINDOW", "Answering", "Remembered", "problem_of"]

_log = RationedLogger(__name__)

WINDOW = 120.0
"""Seconds for which the answer to a call with an Idempotency-Key is kept."""

MAX_ANSWER = 4_194_304
"""The most bytes of the answers in a batch. Beyond that, the remaining calls are not made."""

_KEPT_SIZE = 8_388_608
"""The most bytes of kept answers. Beyond that, the oldest are dropped."""

_KEPT_COST = 500
"""Bytes that a kept answer counts in addition to its own."""

_KEY = re.compile(r"[!-~]{1,64}")


class _Kept:
    """The answer to a call with an Idempotency-Key; ``None`` while the call is under way."""

    def __init__(self, digest: bytes, until: float) -> None:
        self.digest = digest
        self.until = until
        self.body: bytes | None = None


class Remembered:
    """Keeps the answers to calls with an Idempotency-Key, for a limited time and within a limit of bytes."""

    def __init__(self, clock: IReactorTime) -> None:
        """:param clock: the reactor."""
        self._clock = clock
        self._kept: OrderedDict[tuple[str, str], _Kept] = OrderedDict()
        self.size = 0

    def begin(self, key: str, idempotency: str, digest: bytes) -> bytes | None:
        """
        Return the answer to an earlier call with this key. If there is none, note that the call begins.

        :param key: the name of the caller's key.
        :param idempotency: its Idempotency-Key.
        :param digest: a hash of the call.
        :returns: the body of the answer; ``None`` if the call must be made.
        :raises Problem: with status 409 while the first call is under way, or if it was a different call.
        """
        now = self._clock.seconds()
        while self._kept and next(iter(self._kept.values())).until <= now:
            self._drop(next(iter(self._kept)))
        found = self._kept.get((key, idempotency))
        if found is None:
            self._kept[key, idempotency] = _Kept(digest, now + WINDOW)
            self.size += _KEPT_COST
            return None
        if found.digest != digest:
            raise Problem(409, "this Idempotency-Key was used for another call")
        if found.body is None:
            raise Problem(409, "the first call with this Idempotency-Key is still running")
        return found.body

    def end(self, key: str, idempotency: str, body: bytes | None) -> None:
        """Note the answer of a call; ``None`` if it failed, so that it may be repeated."""
        found = self._kept.get((key, idempotency))
        if found is None:
            return
        if body is None:
            self._drop((key, idempotency))
            return
        found.body = body
        self.size += len(body)
        self._make_room()

    def _make_room(self) -> None:
        """Drop the oldest answers while there are too many bytes."""
        if self.size > _KEPT_SIZE:
            for place, found in tuple(self._kept.items()):
                if found.body is not None:  # a call under way must not be repeated
                    self._drop(place)
                if self.size <= _KEPT_SIZE:
                    break

    def _drop(self, place: tuple[str, str]) -> None:
        found = self._kept.pop(place)
        self.size -= _KEPT_COST + len(found.body or b"")


class Answering:
    """Answers the calls of one server. Those over HTTP and those over gRPC share the answers that are kept."""

    def __init__(self, calls: Calls, clock: IReactorTime) -> None:
        """
        :param calls: the methods.
        :param clock: the reactor.
        """
        self._calls = calls
        self._clock = clock
        self._kept = Remembered(clock)

    async def answer(
        self,
        method: Method,
        params: Any,
        key: AdminKey,
        idempotency: str | None = None,
        wanted: Callable[[], bool] = lambda: True,
    ) -> dict[str, Any]:
        """
        Return the answer to a call, a JSON value.

        :param method: the method.
        :param params: its parameters, a JSON value that nobody has checked.
        :param key: the key of the caller.
        :param idempotency: the Idempotency-Key of the call, if it has one.
        :param wanted: tells whether anybody still waits for the answer. If not, a batch makes no more calls.
        :raises Problem: if it is refused.
        :raises LHTTPError: if it fails.
        """
        if not key.may_call(method.name):
            raise Problem(403, f"the key {key.name} may not call {method.name}")
        check_call(method, params)
        if idempotency is None:
            return await self._answer(method, params, key, wanted)
        idempotency = idempotency.strip('"')
        if not _KEY.fullmatch(idempotency):
            raise Problem(400, "Idempotency-Key is not 1 to 64 visible ASCII characters")
        digest = digest_of(json.dumps([method.name, params], sort_keys=True).encode("ascii"))
        known = self._kept.begin(key.name, idempotency, digest)
        if known is not None:
            repeated: dict[str, Any] = json.loads(known)
            return repeated
        body: bytes | None = None
        try:
            if any(parameter.name == "message_id" for parameter in method.parameters):
                params = {"message_id": idempotency, **params}  # so that all nodes recognize a repetition
            told = await self._answer(method, params, key, wanted)
            body = json.dumps(told).encode("ascii")
        finally:
            self._kept.end(key.name, idempotency, body)
        return told

    async def _answer(
        self, method: Method, params: dict[str, Any], key: AdminKey, wanted: Callable[[], bool]
    ) -> dict[str, Any]:
        if method.name == "batch":
            return await self._batch(params["calls"], key, wanted)
        _check_scope(method, params, key)
        return await self._calls.call(method.name, params, key)

    async def _batch(self, calls: list[dict[str, Any]], key: AdminKey, wanted: Callable[[], bool]) -> dict[str, Any]:
        answers: list[dict[str, Any]] = []
        size = 0
        for number, call in enumerate(calls):
            if number:
                await deferLater(self._clock, 0)  # other clients get their turn between the calls
            if not wanted():
                raise Problem(504, f"nobody waits any more: of {len(calls)} calls, {number} were made")
            try:
                if size > MAX_ANSWER:
                    raise Problem(413, "the answers before are too large: this call was not made")
                method = BY_NAME.get(call["method"])
                if method is None or method.name == "batch":
                    raise Problem(404, f"a batch has no method {call['method'][:64]!a}")
                told = await self.answer(method, call.get("params", {}), key)
            except Exception:
                problem = problem_of(Failure())
                answers.append({"status": problem.status, "problem": problem.told})
            else:
                answers.append({"status": 200, "answer": told})
                size += len(json.dumps(told))
        return {"answers": answers}


def _check_scope(method: Method, params: dict[str, Any], key: AdminKey) -> None:
    """:raises Problem: if a channel is not in the scope of the key."""
    for name in method.channels:
        value = params.get(name, [])
        for channel in [value] if isinstance(value, str) else value:
            if not key.may_use(channel):
                raise Problem(403, f"the key {key.name} may not use the channel {channel!a}")


def problem_of(failure: Failure) -> Problem:
    """Return the problem that a caller gets for a failure. If the failure is a bug of the server, log it."""
    error = failure.value
    if isinstance(error, Problem):
        return error
    if isinstance(error, LHTTPError):
        own = isinstance(error, LocalProtocolError)  # the caller asked for a message that cannot be written
        return Problem(400 if own else error.status if 400 <= error.status <= 599 else 500, error.reason)
    _log.failure("a call of the admin API failed", failure)
    return Problem(500, "internal error; see the log of the server")
