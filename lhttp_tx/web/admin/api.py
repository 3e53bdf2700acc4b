"""
The HTTP side of the API: ``POST /api/METHOD``, ``GET /api/openapi.json`` and ``GET /api/key``.

It reads a call, checks it against the table of methods and the scope of the key, and answers in JSON.
"""

from __future__ import annotations

import json
import re
from collections import OrderedDict
from typing import Any, NoReturn

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from twisted.web.resource import IResource, Resource
from twisted.web.server import NOT_DONE_YET, Request

from lhttp_tx.errors import LHTTPError, LocalProtocolError
from lhttp_tx.observe.methods import BY_NAME, METHODS, Method
from lhttp_tx.observe.rationing import RationedLogger
from lhttp_tx.web.admin.calls import Calls
from lhttp_tx.web.admin.checking import check_call
from lhttp_tx.web.admin.gate import AdminGate
from lhttp_tx.web.admin.keys import AdminKey, digest_of
from lhttp_tx.web.admin.managed import Managed
from lhttp_tx.web.admin.openapi import describe
from lhttp_tx.web.admin.problems import Problem, answer, refuse
from lhttp_tx.web.admin.scopes import SCOPES
from lhttp_tx.web.admin.site import AdminResource, header

__all__ = ["MAX_ANSWER", "WINDOW", "ApiResource", "Remembered"]

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
_JSON = "application/json"


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


class _MethodResource(AdminResource):
    """``POST /api/METHOD``."""

    methods = (b"POST",)

    def __init__(self, gate: AdminGate, method: Method, calls: Calls, kept: Remembered, clock: IReactorTime) -> None:
        super().__init__(gate)
        self._clock = clock
        self.scope = method.name
        self._method = method
        self._calls = calls
        self._kept = kept

    def respond(self, request: Request, key: AdminKey | None) -> int:
        assert key is not None
        params = _read(request)
        idempotency = header(request, b"idempotency-key")
        if idempotency is not None:
            idempotency = idempotency.strip('"')
            if not _KEY.fullmatch(idempotency):
                raise Problem(400, "Idempotency-Key is not 1 to 64 visible ASCII characters")
        gone: list[object] = []
        request.notifyFinish().addErrback(gone.append)

        def done(body: bytes) -> None:
            if not gone:
                request.write(answer(request, 200, _JSON, body))
                request.finish()

        def failed(failure: Failure) -> None:
            problem = _problem(failure)
            if not gone:
                request.write(refuse(request, problem))
                request.finish()

        call: Deferred[bytes] = Deferred.fromCoroutine(self._call(params, key, idempotency))
        call.addCallbacks(done, failed).addErrback(lambda failure: _log.failure("answering failed", failure))
        return NOT_DONE_YET

    async def _call(self, params: Any, key: AdminKey, idempotency: str | None) -> bytes:
        method = self._method
        check_call(method, params)
        if idempotency is None:
            return _dump(await self._answer(method, params, key))
        digest = digest_of(json.dumps([method.name, params], sort_keys=True).encode("ascii"))
        known = self._kept.begin(key.name, idempotency, digest)
        if known is not None:
            return known
        body: bytes | None = None
        try:
            if any(parameter.name == "message_id" for parameter in method.parameters):
                params = {"message_id": idempotency, **params}  # so that the whole cluster knows it
            body = _dump(await self._answer(method, params, key))
        finally:
            self._kept.end(key.name, idempotency, body)
        return body

    async def _answer(self, method: Method, params: dict[str, Any], key: AdminKey) -> dict[str, Any]:
        if method.name == "batch":
            return await self._batch(params["calls"], key)
        _check_scope(method, params, key)
        return await self._calls.call(method.name, params, key)

    async def _batch(self, calls: list[dict[str, Any]], key: AdminKey) -> dict[str, Any]:
        answers: list[dict[str, Any]] = []
        size = 0
        for number, call in enumerate(calls):
            if number:
                await deferLater(self._clock, 0)  # other clients get their turn between the calls
            try:
                if size > MAX_ANSWER:
                    raise Problem(413, "the answers before are too large: this call was not made")
                method = BY_NAME.get(call["method"])
                if method is None or method.name == "batch":
                    raise Problem(404, f"a batch has no method {call['method'][:64]!a}")
                if not key.may_call(method.name):
                    raise Problem(403, f"the key {key.name} may not call {method.name}")
                params = check_call(method, call.get("params", {}))
                told = await self._answer(method, params, key)
            except Exception:
                problem = _problem(Failure())
                answers.append({"status": problem.status, "problem": problem.told})
            else:
                answers.append({"status": 200, "answer": told})
                size += len(json.dumps(told))
        return {"answers": answers}


class _Description(AdminResource):
    """``GET /api/openapi.json``, for every key."""

    def __init__(self, gate: AdminGate, version: str) -> None:
        super().__init__(gate)
        self._body = _dump(describe(version))

    def respond(self, request: Request, key: AdminKey | None) -> bytes:
        return answer(request, 200, _JSON, self._body)


class _OwnKey(AdminResource):
    """``GET /api/key``, for every key: its name and scope."""

    def respond(self, request: Request, key: AdminKey | None) -> bytes:
        assert key is not None
        methods = sorted(name for name in SCOPES if key.may_call(name))
        return answer(
            request, 200, _JSON, _dump({"name": key.name, "methods": methods, "channels": list(key.channels)})
        )


class ApiResource(Resource):
    """``/api``, with a resource for each method."""

    def __init__(self, gate: AdminGate, managed: Managed, clock: IReactorTime, nothing: IResource) -> None:
        """
        :param gate: checks the keys.
        :param managed: the server.
        :param clock: the reactor.
        :param nothing: answers every other path.
        """
        super().__init__()
        self._nothing = nothing
        calls, kept = Calls(managed, clock), Remembered(clock)
        for method in METHODS:
            self.putChild(method.name.encode("ascii"), _MethodResource(gate, method, calls, kept, clock))
        self.putChild(b"key", _OwnKey(gate))
        self.putChild(b"openapi.json", _Description(gate, managed.version))

    def getChild(self, path: bytes, request: Request) -> IResource:
        """Return the resource for paths without a method."""
        return self._nothing

    def render(self, request: Request) -> int | bytes:
        """Answer ``/api`` itself."""
        rendered: int | bytes = self._nothing.render(request)
        return rendered


def _check_scope(method: Method, params: dict[str, Any], key: AdminKey) -> None:
    """:raises Problem: if a channel is not in the scope of the key."""
    for name in method.channels:
        value = params.get(name, [])
        for channel in [value] if isinstance(value, str) else value:
            if not key.may_use(channel):
                raise Problem(403, f"the key {key.name} may not use the channel {channel!a}")


def _read(request: Request) -> Any:
    """Return the parameters in the body of *request*; none in an empty one."""
    data: bytes = request.content.read()  # type: ignore[union-attr] # the site bounds it
    if not data:
        return {}
    kind = (header(request, b"content-type") or "").partition(";")[0].strip().lower()
    if kind != _JSON:
        raise Problem(415, "the body is JSON: say so with Content-Type: application/json")
    try:
        return json.loads(data.decode("utf-8"), parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise Problem(400, "the body is not JSON") from None


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _dump(told: Any) -> bytes:
    return json.dumps(told).encode("ascii") + b"\n"


def _problem(failure: Failure) -> Problem:
    """Return the problem that a caller gets for a failure. Log an internal error."""
    error = failure.value
    if isinstance(error, Problem):
        return error
    if isinstance(error, LHTTPError):
        own = isinstance(error, LocalProtocolError)  # the caller asked for a message that cannot be written
        return Problem(400 if own else error.status if 400 <= error.status <= 599 else 500, error.reason)
    _log.failure("a call of the admin API failed", failure)
    return Problem(500, "internal error; see the log of the server")
