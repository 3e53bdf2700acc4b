"""
Opens a WebSocket connection: handles the handshake, and accepts or refuses the client.

This is the layer between :mod:`lhttp_tx.transports.websocket.connection` and
:mod:`lhttp_tx.transports.websocket.protocol`.
"""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import Any

from autobahn.websocket.protocol import WebSocketProtocol
from autobahn.websocket.types import ConnectionDeny, ConnectionRequest
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from lhttp_tx.auth.attempts import LoginAttempt, read_parameters
from lhttp_tx.auth.gate import Gate
from lhttp_tx.engine.handshake import Handshake as Shown
from lhttp_tx.errors import LHTTPError, Refused
from lhttp_tx.guard.heads import check_counts, origin_form, read_head
from lhttp_tx.identity import Identity, new_connection_id
from lhttp_tx.observe.rationing import RationedLogger
from lhttp_tx.transports.websocket.connection import Connection
from lhttp_tx.transports.websocket.handshake import (
    MAX_HEADERS,
    Handshake,
    accept_handshake,
    certificate_of,
    choose_subprotocol,
)

__all__ = ["HANDSHAKE_SIZE", "Opening"]

_log = RationedLogger(__name__)

_OPEN = WebSocketProtocol.STATE_OPEN
_CONNECTING = WebSocketProtocol.STATE_CONNECTING

HANDSHAKE_SIZE = 16_384
"""The largest head of a handshake, in bytes. twisted.web has the same bound."""

_TOO_MANY = (429, 503)
"""Statuses of refusals that can be frequent. The log gets no line for each."""

_QUERY = re.compile(r"\?\S*")
"""The query of a request target."""

_LEFT_BEHIND = (
    *("http_headers", "http_request_data", "http_request_host", "http_request_params", "http_request_path"),
    *("http_request_uri", "http_response_data", "http_status_line", "websocket_extensions", "websocket_origin"),
    *("websocket_protocols", "_head", "_target"),
)
"""Attributes of a handshake that nobody needs after the answer. Some contain secrets."""

_JUDGED = re.compile(rb"(?i:\r\n(?:connection|host|origin|sec-websocket-[a-z]+|upgrade):[^\r]*)")
"""
The headers that Autobahn checks, each with the line end before it. Each line costs Autobahn time, so it gets only
these.
"""

_PLAIN_QUERY = re.compile(rb"[!\"$-~]*")
"""
A query that Autobahn would accept. Each parameter and escape costs Autobahn time, so it does not get such a query.
"""

_LINE_ENDS = bytes.maketrans(b"\x0b\x0c\x1c\x1d\x1e\x85", b"______")
"""Replaces characters that end a line for Autobahn but not in HTTP. Otherwise a value could contain headers."""


def _phrase(code: int) -> str:
    """Return the reason phrase of a status code. An authenticator may refuse with a code that has none."""
    try:
        return HTTPStatus(code).phrase
    except ValueError:
        return "Refused"


class Opening(Connection):
    """
    One WebSocket connection, up to the moment when it is open.

    :ivar handshake: the handshake, until the session is open.
    :ivar user: the user that a ``twisted.cred`` guard around the resource has found.
    """

    user: str | None = None

    handshake: Handshake | None = None

    _admission: Deferred[Any] | None = None
    _attempt: LoginAttempt | None = None
    _identity: Identity | None = None
    _refusal: str | None = None
    _head: dict[str, str] | None = None
    _target = ""

    # Without Autobahn

    def open(self, handshake: Handshake, behind: bytes) -> None:
        """
        Open the WebSocket. The factory has admitted the handshake; authenticators may still refuse it.

        :param handshake: the first bytes of the connection.
        :param behind: the bytes after it.
        """
        self._accept(handshake)
        if behind:
            self.dataReceived(behind)

    def _accept(self, handshake: Handshake) -> None:
        """Answer a handshake as soon as the authenticators have decided. All other checks have accepted it."""
        self.handshake = handshake
        self._take_place()
        if self.factory.gate is None:
            self._complete(handshake)
        else:
            admission = self._ask(self.factory.gate, handshake)
            admission.addCallbacks(lambda _: self._complete(handshake), self._refuse)

    def _complete(self, handshake: Handshake) -> None:
        """Do what Autobahn does when a plain handshake succeeds."""
        if self.state != _CONNECTING:  # the client left while an authenticator was asked
            return
        try:
            self.state = _OPEN
            if "sec-websocket-protocol" in handshake.headers:
                self.websocket_protocol_in_use = choose_subprotocol(handshake.headers["sec-websocket-protocol"])
            self.write_frames(accept_handshake(handshake))
            if self.openHandshakeTimeoutCall is not None:
                self.openHandshakeTimeoutCall.cancel()
                self.openHandshakeTimeoutCall = None
            if self.autoPingInterval:
                timer = self.factory._batched_timer
                self.autoPingPendingCall = timer.call_later(self.autoPingInterval, self._sendAutoPing)
            self._onOpen()
            self.is_open.callback(None)
        except Exception:
            _log.failure("{peer}: handshake failed", peer=self.peer)
            self.dropConnection(abort=True)
        self._release()

    def _refuse(self, failure: Failure) -> None:
        denial: Any = failure.value
        self.failHandshake(denial.reason, denial.code)

    # Autobahn's callbacks

    def processHandshake(self) -> None:
        """Let Autobahn check a handshake. Refuse an ambiguous one before that."""
        end = self.data.find(b"\r\n\r\n")
        if end > HANDSHAKE_SIZE:
            self.failHandshake("the head of the handshake is too large", 431)
            return
        if end >= 0 and self.data.count(b"\n", 0, end) > MAX_HEADERS:
            self.failHandshake("the handshake has too many headers", 431)
            return
        if end >= 0:
            try:
                start, self._head = read_head(self.data[:end])
                method, blank, rest = start.partition(b" ")
                target, blank, version = rest.partition(b" ")
                target = origin_form(target, self._head.get("host", "").encode("latin-1"))
                self._target = target.translate(_LINE_ENDS).decode("latin-1")
                check_counts(self._target, self._head)
            except Refused as refused:
                self._refusal = refused.reason
                self.failHandshake(refused.reason, refused.status)
                return
            if self._head.get("sec-websocket-version", "13") != "13":
                self.failHandshake("WebSocket version is not 13", 400, [("Sec-WebSocket-Version", "13")])
                return
            lines = self.data[len(start) : end]
            if self.factory.plain:  # otherwise other code may read the other headers
                lines = b"".join(_JUDGED.findall(lines))
                path, _, query = target.partition(b"?")
                if b"#" not in path and _PLAIN_QUERY.fullmatch(query):
                    target = path
            head = method + b" " + target + blank + version + lines
            self.data = head.translate(_LINE_ENDS) + self.data[end:]
        super().processHandshake()

    def onConnect(self, request: ConnectionRequest) -> Deferred[None] | None:  # type: ignore[override]
        """Let the access rules decide about the opening handshake, and then the authenticators."""
        try:
            if self._head is None:
                self.handshake = Handshake(self.http_request_uri, request.headers)
            else:
                self.handshake = Handshake(self._target, self._head)
            self.factory.check(self.handshake, self.place)
        except Refused as refused:
            raise self._denial(refused) from None
        self._take_place()
        return None if self.factory.gate is None else self._ask(self.factory.gate, self.handshake)

    def _take_place(self) -> None:
        """Count the connection for the address of its client, which a trusted proxy may have named."""
        place = self.place
        if place is not None:
            place.take()
            place.work()
            if place.forwarded:
                self.peer = f"tcp{6 if ':' in str(place.client) else 4}:{place.client}"

    def _ask(self, gate: Gate, handshake: Handshake) -> Deferred[None]:
        """Let the authenticators decide about the opening handshake. Other bytes that arrive meanwhile wait."""
        self._attempt = LoginAttempt(
            self.peer or "",
            new_connection_id(),
            handshake.path,
            read_parameters(handshake.query),
            handshake.headers,
            secure=self.is_secure,
            certificate=certificate_of(self.transport) if self.is_secure else None,
        )
        admission = gate.admit(self._attempt)
        if not admission.called:
            self._admission = admission
            if self.openHandshakeTimeoutCall is not None:  # the gate has its own time limit
                self.openHandshakeTimeoutCall.cancel()
                self.openHandshakeTimeoutCall = None
        return admission.addCallbacks(self._admitted, self._not_admitted)

    def _admitted(self, identity: Identity | None) -> None:
        self._admission = None
        self._identity = identity
        if self.factory.draining:  # a session that is opened now would never be closed
            raise self._denial(Refused(503, "server is going away"))

    def _not_admitted(self, failure: Failure) -> None:
        self._admission = None
        error: Any = failure.value
        raise self._denial(error)

    def _denial(self, refused: LHTTPError) -> ConnectionDeny:
        self._refusal = refused.reason
        return ConnectionDeny(refused.status, refused.reason)

    def succeedHandshake(self, res: Any) -> None:
        """Complete the handshake. Without this method, Autobahn would hide errors in it, and the client would wait."""
        if self.state != _CONNECTING:  # the client left while an authenticator was asked
            return
        chosen, headers = res if isinstance(res, tuple) else (res, {})
        if chosen is None:
            chosen = choose_subprotocol(", ".join(self.websocket_protocols) or None)
        try:
            super().succeedHandshake((chosen, headers))
        except Exception:
            _log.failure("{peer}: handshake failed", peer=self.peer)
            self.dropConnection(abort=True)
        for name in _LEFT_BEHIND:
            vars(self).pop(name, None)
        self._release()

    def _hold(self, data: bytes) -> None:
        """Keep bytes that came after a handshake that is not answered yet. Clients send few before the answer."""
        self._beginning += data
        if len(self._beginning) > HANDSHAKE_SIZE:
            self.dropConnection(abort=True)

    def _release(self) -> None:
        """Read the bytes that were kept."""
        if self._beginning:
            data, self._beginning = self._beginning, b""
            self.dataReceived(data)

    # After opening

    def _nobody(self) -> Identity | None:
        """Return the identity of a client if there are no authenticators; ``None`` if only its address is known."""
        handshake = self.handshake
        if handshake is None or "?" not in handshake.target:
            return None
        parameters = read_parameters(handshake.query)
        return Identity(None, new_connection_id(), parameters=parameters, address=self.peer or "")

    def _shown(self) -> Shown | None:
        """Return how the connection was opened; ``None`` if no code can ask for it."""
        handshake = self.handshake
        if handshake is None or not self.factory.engine.open_steps:
            return None
        shown = certificate_of(self.transport) if self.is_secure else None
        return Shown(handshake.path, handshake.query, handshake.headers, shown, self.user)

    # Refusing

    def failHandshake(self, reason: str, code: int = 400, responseHeaders: Any = None) -> None:
        """Refuse a handshake without echoing what the client sent."""
        if self.state != _CONNECTING:
            return
        reason = _QUERY.sub("?...", reason or "")  # Autobahn repeats the target, whose query may hold a secret
        if code in _TOO_MANY:
            self.factory.admission.refuse(self.peer or "", f"status {code}, {self._refusal or reason}")
        else:
            _log.info("{peer}: handshake refused with {code}: {reason!r}", peer=self.peer, code=code, reason=reason)
        challenges = self.factory.gate.challenges if code == 401 and self.factory.gate is not None else ()
        self.wasClean = True  # so that Autobahn does not log it again
        headers = [*(responseHeaders or ()), *challenges]
        self.sendHttpErrorResponse(code, self._refusal or _phrase(code), headers)
        self.dropConnection(abort=False)

    def sendHttpErrorResponse(self, code: int, reason: str, responseHeaders: Any = None) -> None:
        """Answer a refused handshake with a whole HTTP response."""
        body = reason.encode("utf-8") + b"\n"
        lines = [
            f"HTTP/1.1 {code} {_phrase(code)}",
            *(f"{name}: {value}" for name, value in responseHeaders or ()),
            "Content-Type: text/plain; charset=utf-8",
            f"Content-Length: {len(body)}",
            "Connection: close",
        ]
        self.sendData("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body)
