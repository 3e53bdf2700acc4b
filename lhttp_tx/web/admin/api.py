"""
The HTTP side of the API: ``POST /api/METHOD``, and what describes it to programs.

It reads a call, and answers in JSON. :mod:`lhttp_tx.web.admin.answering` checks and makes it.
"""

from __future__ import annotations

import json
from typing import Any, NoReturn

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.web.resource import IResource, Resource
from twisted.web.server import NOT_DONE_YET, Request

from lhttp_tx.observe.methods import METHODS, Method
from lhttp_tx.observe.rationing import RationedLogger
from lhttp_tx.web.admin.answering import Answering, problem_of
from lhttp_tx.web.admin.gate import AdminGate
from lhttp_tx.web.admin.keys import AdminKey
from lhttp_tx.web.admin.openapi import describe
from lhttp_tx.web.admin.problems import Problem, answer, refuse
from lhttp_tx.web.admin.proto import PROTO
from lhttp_tx.web.admin.scopes import SCOPES
from lhttp_tx.web.admin.site import AdminResource, header

__all__ = ["ApiResource"]

_log = RationedLogger(__name__)

_JSON = "application/json"


class _MethodResource(AdminResource):
    """``POST /api/METHOD``."""

    methods = (b"POST",)

    def __init__(self, gate: AdminGate, method: Method, answering: Answering) -> None:
        super().__init__(gate)
        self.scope = method.name
        self._method = method
        self._answering = answering

    def respond(self, request: Request, key: AdminKey | None) -> int:
        assert key is not None
        params = _read(request)
        idempotency = header(request, b"idempotency-key")
        gone: list[object] = []
        request.notifyFinish().addErrback(gone.append)

        def done(told: dict[str, Any]) -> None:
            if not gone:
                request.write(answer(request, 200, _JSON, _dump(told)))
                request.finish()

        def failed(failure: Failure) -> None:
            problem = problem_of(failure)
            if not gone:
                request.write(refuse(request, problem))
                request.finish()

        call: Deferred[dict[str, Any]] = Deferred.fromCoroutine(
            self._answering.answer(self._method, params, key, idempotency)
        )
        call.addCallbacks(done, failed).addErrback(lambda failure: _log.failure("answering failed", failure))
        return NOT_DONE_YET


class _Description(AdminResource):
    """``GET /api/openapi.json``, for every key."""

    def __init__(self, gate: AdminGate, version: str) -> None:
        super().__init__(gate)
        self._body = _dump(describe(version))

    def respond(self, request: Request, key: AdminKey | None) -> bytes:
        return answer(request, 200, _JSON, self._body)


class _Proto(AdminResource):
    """``GET /api/admin.proto``, for every key: the methods for gRPC."""

    def respond(self, request: Request, key: AdminKey | None) -> bytes:
        return answer(request, 200, "text/plain; charset=utf-8", PROTO.read_bytes())


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

    def __init__(self, gate: AdminGate, answering: Answering, version: str, nothing: IResource) -> None:
        """
        :param gate: checks the keys.
        :param answering: answers the calls.
        :param version: the version of the package.
        :param nothing: answers every other path.
        """
        super().__init__()
        self._nothing = nothing
        for method in METHODS:
            self.putChild(method.name.encode("ascii"), _MethodResource(gate, method, answering))
        self.putChild(b"admin.proto", _Proto(gate))
        self.putChild(b"key", _OwnKey(gate))
        self.putChild(b"openapi.json", _Description(gate, version))

    def getChild(self, path: bytes, request: Request) -> IResource:
        """Return the resource for paths without a method."""
        return self._nothing

    def render(self, request: Request) -> int | bytes:
        """Answer ``/api`` itself."""
        rendered: int | bytes = self._nothing.render(request)
        return rendered


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
