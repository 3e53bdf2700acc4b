"""
``POST /publish``: any program can publish with one HTTP request.

Source: the protocol document, section "HTTP".
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from http import HTTPStatus

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request

from lhttp_tx.codec.message import Message, parse
from lhttp_tx.codec.views import JSON, PROTOBUF, View
from lhttp_tx.engine.answers import error_message
from lhttp_tx.engine.engine import Engine
from lhttp_tx.errors import LHTTPError, LocalProtocolError, MessageTooLarge, Refused, RemoteProtocolError
from lhttp_tx.guard.access import AccessPolicy
from lhttp_tx.guard.heads import check_headers
from lhttp_tx.guard.proxied import is_proxied
from lhttp_tx.history.values import Filing, message_id_of
from lhttp_tx.observe.rationing import RationedLogger
from lhttp_tx.web.paths import is_named_plainly

__all__ = ["PublishResource"]

_log = RationedLogger(__name__)

_PROTOBUF_TYPE = b"application/x-protobuf"

_VIEWS: Mapping[str, View] = {
    "application/json": JSON,
    "application/protobuf": PROTOBUF,
    "application/vnd.google.protobuf": PROTOBUF,
    "application/x-protobuf": PROTOBUF,
}
"""The forms of a message besides LHTTP's own text, by their media types."""

_MAX_ACCEPTED = 16
"""The most entries of ``Accept`` that the server reads."""

_QUALITY = re.compile(r"[ \t]*q=(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)[ \t]*")


class PublishResource(Resource):
    """
    Publishes the LHTTP message in the body of a POST to the channels that its ``publish`` header lists. The body may be
    a view of the message: its ``Content-Type`` says so.
    """

    isLeaf = True

    def __init__(self, engine: Engine, policy: AccessPolicy, *, is_closed: Callable[[], bool] = lambda: False) -> None:
        """
        :param engine: the engine that publishes.
        :param policy: decides who may publish.
        :param is_closed: returns whether the server has closed all its clients, so that nobody would get a message.
        """
        super().__init__()
        self._engine = engine
        self._policy = policy
        self._is_closed = is_closed

    def render(self, request: Request) -> int | bytes:
        """
        Answer with 200 and JSON, or with 400, 401, 403, 404, 405, 413, 429 or 503 and a text that gives the reason. If
        ``Accept`` asks for JSON or Protocol Buffers, answer in this form.
        """
        request.responseHeaders.removeHeader(b"server")
        if not is_named_plainly(request):
            return _refuse(request, 404, "not found: write the path /publish exactly")
        if request.method != b"POST":
            request.setHeader(b"allow", b"POST")
            return _refuse(request, 405, "publish with POST; the body is an LHTTP message with a publish header")
        if self._is_closed():
            request.setHeader(b"connection", b"close")
            request.channel.persistent = 0
            return _refuse(request, 503, "the server is going away; connect again")
        try:
            self._check(request)
            message = self._engine.defaults.complete_message(self._parse(request), self._engine.limits)
            message = _identified(message, _header(request, b"idempotency-key"))
            filing = Filing(message_id_of(message.head), message.headers.get("store") != "no")
            result = self._engine.publish_message(message, filing)
        except LHTTPError as error:
            return _refuse(request, error.status, error.reason)
        if result is None:
            return _answer(request, message, filing, self._engine.receipt_note())
        self._answer_later(request, message, filing, result)
        return NOT_DONE_YET

    def _check(self, request: Request) -> None:
        names = [name.lower() for name, values in request.requestHeaders.getAllRawHeaders() for _ in values]
        check_headers(names)
        self._policy.check_host(_header(request, b"host"))
        self._policy.check_publish(
            peer=None if is_proxied(request.channel.transport) else _ip(request.getClientAddress()),
            host=_header(request, b"host"),
            origin=_header(request, b"origin"),
            fetch_site=_header(request, b"sec-fetch-site"),
            authorization=_header(request, b"authorization"),
            header_names=[name.decode("latin-1") for name in names],
        )

    def _parse(self, request: Request) -> Message:
        limits = self._engine.limits
        data: bytes = request.content.read(limits.message_size + 1)  # type: ignore[union-attr]
        if len(data) > limits.message_size:
            raise MessageTooLarge(f"message is larger than {limits.message_size} bytes")
        kind = (_header(request, b"content-type") or "").partition(";")[0].strip(" \t").lower()
        view = _VIEWS.get(kind)
        if view is not None and not data.startswith(b"LHTTP/"):  # no view begins like this
            data, binary = view.read(data, limits)
            return parse(data, binary=binary, limits=limits)
        binary = kind == "application/octet-stream"
        if not binary:
            try:
                data.decode("utf-8")
            except UnicodeDecodeError:
                binary = True
        return parse(data, binary=binary, limits=limits)

    def _answer_later(self, request: Request, message: Message, filing: Filing, result: Deferred[None]) -> None:
        gone: list[object] = []
        request.notifyFinish().addErrback(gone.append)

        def accepted(_: None) -> None:
            if not gone:
                request.write(_answer(request, message, filing, self._engine.receipt_note()))
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


def _identified(message: Message, key: str | None) -> Message:
    """
    Return the message with the id from the header ``Idempotency-Key``.

    :param key: the value of the header; ``None`` without one.
    :raises RemoteProtocolError: if the message has another id, or the value is malformed.
    """
    if key is None:
        return message
    # A string of RFC 9651, as in the draft of this header, or without quotes, as most callers write it.
    key = key.strip('"')
    known = message.headers.get("message-id")
    if known is not None and known != key:
        raise RemoteProtocolError("Idempotency-Key and message-id differ: leave one of them out")
    try:
        return message if known else message.replace(headers=[*message.headers, ("message-id", key)])
    except LocalProtocolError:
        raise RemoteProtocolError("Idempotency-Key is not 1 to 64 visible ASCII characters") from None


def _answer(request: Request, message: Message, filing: Filing, note: bytes) -> bytes:
    """
    Answer a request whose message was published, or was not stored.

    :param note: a header line that a receipt would have, or nothing.
    """
    if filing.failure is not None:
        return _refuse(request, filing.failure.status, filing.failure.reason)
    channels = message.head.channels("publish")
    name, _, value = note.decode("ascii").strip().partition(":")
    if _wanted(request) is PROTOBUF:
        noted = [(name, value)] if note else []
        return _told(request, Message("receipt", [("publish", " ".join(channels)), *filing.headers(), *noted]))
    told: dict[str, object] = {"channels": channels}
    if filing.positions:
        told["positions"] = filing.positions
    if filing.duplicate:
        told["duplicate"] = True
    if note:
        told[name] = value
    return _told_json(request, told)


def _refuse(request: Request, status: int, reason: str) -> bytes:
    request.setResponseCode(status, _phrase(status))
    if status == 401:
        request.setHeader(b"www-authenticate", b"Bearer")
    wanted = _wanted(request)
    if wanted is PROTOBUF:
        answer = _told(request, error_message(status, reason, None))
    elif wanted is JSON:
        answer = _told_json(request, {"status": status, "reason": reason})
    else:
        request.setHeader(b"content-type", b"text/plain; charset=utf-8")
        answer = reason.encode("utf-8") + b"\n"
    return b"" if request.method == b"HEAD" else answer


def _told(request: Request, message: Message) -> bytes:
    request.setHeader(b"content-type", _PROTOBUF_TYPE)
    return PROTOBUF.write(message.raw, message.binary)


def _told_json(request: Request, told: dict[str, object]) -> bytes:
    request.setHeader(b"content-type", b"application/json")
    return json.dumps(told).encode("ascii") + b"\n"


def _wanted(request: Request) -> View | None:
    """
    Return the view that ``Accept`` prefers for the answer (RFC 9110, section 12.5.1).

    :returns: ``None`` if it asks for no view. The answer is then JSON if the request succeeds, and a line of text if it
        fails.
    """
    best, chosen = 0.0, None
    for entry in (_header(request, b"accept") or "").split(",", _MAX_ACCEPTED)[:_MAX_ACCEPTED]:
        kind, *parameters = entry.lower().split(";", 8)
        view = _VIEWS.get(kind.strip(" \t"))
        quality = next((found for name in parameters if (found := _QUALITY.fullmatch(name))), None)
        weight = 1.0 if quality is None else float(quality[1])
        if view is not None and weight > best:
            best, chosen = weight, view
    return chosen


def _header(request: Request, name: bytes) -> str | None:
    value: bytes | None = request.getHeader(name)
    return None if value is None else value.decode("utf-8", "surrogateescape")


def _ip(address: IAddress) -> str | None:
    return getattr(address, "host", None)


def _phrase(status: int) -> bytes | None:
    """Return the reason phrase of a status, because Twisted does not know all; ``None`` for an unknown status."""
    try:
        return HTTPStatus(status).phrase.encode("ascii")
    except ValueError:
        return None
