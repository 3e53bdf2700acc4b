"""
Takes calls over gRPC: checks the key, reads the request, and answers.

For the library, each call is a stream of requests. Only the first request is read. So the server can check the key
before it reads the request, and can end a call that never sends one. Used by
:mod:`lhttp_tx.web.admin.grpc.listening`, which sets the limits that the library itself enforces. Source: gRPC, "gRPC
over HTTP2" and "Status codes".
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

import grpc
from grpc import StatusCode
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from lhttp_tx.observe.methods import METHODS, Method
from lhttp_tx.web.admin.answering import Answering, problem_of
from lhttp_tx.web.admin.gate import AdminGate
from lhttp_tx.web.admin.grpc.messages import Messages
from lhttp_tx.web.admin.problems import Problem
from lhttp_tx.web.admin.proto import SERVICE, rpc_name

__all__ = ["CODES", "MAX_RUNNING", "PATIENCE", "Service"]

MAX_RUNNING = 200
"""The most calls with a key at a time. Calls whose callers have left count until they end."""

PATIENCE = 10.0
"""The most seconds until a caller with a key has sent its request."""

CODES: Mapping[int, StatusCode] = {
    400: StatusCode.INVALID_ARGUMENT,
    401: StatusCode.UNAUTHENTICATED,
    403: StatusCode.PERMISSION_DENIED,
    404: StatusCode.NOT_FOUND,
    408: StatusCode.DEADLINE_EXCEEDED,
    409: StatusCode.ABORTED,
    413: StatusCode.RESOURCE_EXHAUSTED,
    429: StatusCode.RESOURCE_EXHAUSTED,
    502: StatusCode.UNAVAILABLE,
    503: StatusCode.UNAVAILABLE,
    504: StatusCode.DEADLINE_EXCEEDED,
}
"""The status codes for those of HTTP. All others are INTERNAL."""

_ONCE = ("authorization", "idempotency-key")
_PAGES = ("origin", "sec-fetch-site")
_DETAILS = "grpc-status-details-bin"
_PEER = re.compile(r"ipv[46]:\[?([^\]]*?)\]?:\d+")


class Service(grpc.GenericRpcHandler):  # type: ignore[misc,unused-ignore]
    """
    The methods, by their names in gRPC.

    :ivar running: the number of running calls with a key.
    """

    def __init__(self, gate: AdminGate, answering: Answering) -> None:
        """
        :param gate: decides who may call.
        :param answering: answers the calls.
        """
        self._gate = gate
        self._answering = answering
        self._messages = Messages()
        self.running = 0
        self._handlers = {f"/{SERVICE}/{rpc_name(method.name)}": self._handler(method) for method in METHODS}

    def service(self, handler_call_details: Any) -> Any:
        """Return the handler of a call; ``None`` if there is no such method."""
        return self._handlers.get(handler_call_details.method)

    def _handler(self, method: Method) -> Any:
        async def take(_: object, context: Any) -> bytes:
            try:
                return await self._take(method, context)
            except Problem as problem:
                await self._refuse(context, problem)
                raise  # never reached

        return grpc.stream_unary_rpc_method_handler(take)

    async def _take(self, method: Method, context: Any) -> bytes:
        metadata = _read(context.invocation_metadata())
        if any(name in metadata for name in _PAGES):
            raise Problem(403, "pages of another site may not use the admin side")
        key = self._gate.log_in(_address(context.peer()), metadata.get("authorization"))
        if not key.may_call(method.name):
            raise Problem(403, f"the key {key.name} may not call {method.name}")
        if self.running >= MAX_RUNNING:
            raise Problem(429, f"{MAX_RUNNING} calls run already: wait a second", {"retry-after": "1"})
        self.running += 1
        answering: asyncio.Future[dict[str, Any]] | None = None
        left: list[bool] = []
        try:
            params = self._messages.read(method.name, await _request(context))
            call = self._answering.answer(method, params, key, metadata.get("idempotency-key"), lambda: not left)
            answering = Deferred.fromCoroutine(call).asFuture(asyncio.get_running_loop())
            # If the caller leaves, the call continues, so that no change is left half done.
            told = await asyncio.shield(answering)
        except asyncio.CancelledError:
            left.append(True)
            raise
        except Problem:
            raise
        except Exception:
            raise problem_of(Failure()) from None
        finally:
            if answering is None or answering.done():
                self.running -= 1
            else:
                answering.add_done_callback(self._ended)
        return self._messages.write(method.name, told)

    def _ended(self, answering: asyncio.Future[dict[str, Any]]) -> None:
        """Note that a call has ended whose caller had left."""
        self.running -= 1
        if not answering.cancelled() and (error := answering.exception()) is not None:
            problem_of(Failure(error))  # logs it if it is a bug

    async def _refuse(self, context: Any, problem: Problem) -> None:
        """End a call with an error."""
        code = CODES.get(problem.status, StatusCode.INTERNAL)
        details = self._messages.write_problem(code.value[0], problem)
        more = tuple(problem.headers.items())
        await context.abort(code, problem.detail, trailing_metadata=((_DETAILS, details), *more))


async def _request(context: Any) -> bytes:
    """Return the first request of a call."""
    try:
        async with asyncio.timeout(PATIENCE):
            found = await context.read()
    except TimeoutError:
        raise Problem(408, f"no request came within {PATIENCE:g} seconds") from None
    if not isinstance(found, bytes):  # the end of the stream
        raise Problem(400, "the call has no request")
    return found


def _read(metadata: Any) -> dict[str, str]:
    """
    Return the texts in the metadata of a call.

    :raises Problem: with status 400 if ``authorization`` or ``idempotency-key`` occurs twice.
    """
    found: dict[str, str] = {}
    for name, value in metadata or ():
        if isinstance(value, bytes):
            continue
        if name in _ONCE and name in found:
            raise Problem(400, f"{name} is in the metadata more than once")
        found[name] = value
    return found


def _address(peer: str) -> str | None:
    """
    Return the address of a caller; ``None`` if it has none.

    >>> _address("ipv4:192.0.2.1:40000"), _address("ipv6:[2001:db8::1]:40000"), _address("ipv6:%5B::1%5D:40000")
    ('192.0.2.1', '2001:db8::1', '::1')
    >>> _address("unix:")
    """
    match = _PEER.fullmatch(unquote(peer))
    return None if match is None else match[1]
