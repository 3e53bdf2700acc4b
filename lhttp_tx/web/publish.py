"""
``POST /publish``: any program can publish with one HTTP request.

Source: the protocol document, section "HTTP".
"""

from __future__ import annotations

import json

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request

from lhttp_tx.access import AccessPolicy
from lhttp_tx.engine import Engine
from lhttp_tx.errors import LHTTPError, MessageTooLarge, Refused
from lhttp_tx.message import Message, parse

__all__ = ["PublishResource"]

_log = Logger()


class PublishResource(Resource):
    """Publishes the LHTTP message in the body of a POST to the channels that its ``publish`` header lists."""

    isLeaf = True

    def __init__(self, engine: Engine, policy: AccessPolicy) -> None:
        """
        :param engine: where it publishes.
        :param policy: who may.
        """
        super().__init__()
        self._engine = engine
        self._policy = policy

    def render(self, request: Request) -> int | bytes:
        """Answer with 200 and JSON, or with 400, 401, 403, 405, 413 or 503 and a text that says why."""
        request.responseHeaders.removeHeader(b"server")
        if request.method != b"POST":
            request.setHeader(b"allow", b"POST")
            return _refuse(request, 405, "publish with POST; the body is an LHTTP message with a publish header")
        try:
            self._check(request)
            message = self._parse(request)
            result = self._engine.publish_message(message)
        except LHTTPError as error:
            return _refuse(request, error.status, error.reason)
        if result is None:
            return _accept(request, message)
        self._answer_later(request, message, result)
        return NOT_DONE_YET

    def _check(self, request: Request) -> None:
        self._policy.check_host(_header(request, b"host"))
        self._policy.check_publish(
            peer=_ip(request.getClientAddress()),
            host=_header(request, b"host"),
            origin=_header(request, b"origin"),
            fetch_site=_header(request, b"sec-fetch-site"),
            authorization=_header(request, b"authorization"),
            header_names=[name.lower().decode("latin-1") for name, _ in request.requestHeaders.getAllRawHeaders()],
        )

    def _parse(self, request: Request) -> Message:
        limits = self._engine.limits
        data: bytes = request.content.read(limits.message_size + 1)  # type: ignore[union-attr]
        if len(data) > limits.message_size:
            raise MessageTooLarge(f"message is larger than {limits.message_size} bytes")
        binary = _header(request, b"content-type") == "application/octet-stream"
        if not binary:
            try:
                data.decode("utf-8")
            except UnicodeDecodeError:
                binary = True
        return parse(data, binary=binary, limits=limits)

    def _answer_later(self, request: Request, message: Message, result: Deferred[None]) -> None:
        gone: list[object] = []
        request.notifyFinish().addErrback(gone.append)

        def accepted(_: None) -> None:
            if not gone:
                request.write(_accept(request, message))
                request.finish()

        def failed(failure: Failure) -> None:
            error = failure.value
            if not isinstance(error, LHTTPError):
                _log.failure("publishing failed", failure)
                error = Refused(500, "internal error")
            if not gone:
                request.write(_refuse(request, error.status, error.reason))
                request.finish()

        result.addCallbacks(accepted, failed).addErrback(lambda failure: _log.failure("answering failed", failure))


def _accept(request: Request, message: Message) -> bytes:
    request.setHeader(b"content-type", b"application/json")
    return json.dumps({"channels": message.head.channels("publish")}).encode("ascii") + b"\n"


def _refuse(request: Request, status: int, reason: str) -> bytes:
    request.setResponseCode(status)
    request.setHeader(b"content-type", b"text/plain; charset=utf-8")
    if status == 401:
        request.setHeader(b"www-authenticate", b"Bearer")
    return b"" if request.method == b"HEAD" else reason.encode("utf-8") + b"\n"


def _header(request: Request, name: bytes) -> str | None:
    value: bytes | None = request.getHeader(name)
    return None if value is None else value.decode("utf-8", "surrogateescape")


def _ip(address: IAddress) -> str | None:
    return getattr(address, "host", None)
