"""
How a WebSocket connection opens: the handshake, who may come in, and the answer to those who may not.

Between :mod:`lhttp_tx.connection` and :mod:`lhttp_tx.protocol`, which begins where this ends.
"""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import Any

from autobahn.websocket.protocol import WebSocketProtocol
from autobahn.websocket.types import ConnectionDeny, ConnectionRequest
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from lhttp_tx.auth.attempt import LoginAttempt, read_parameters
from lhttp_tx.auth.gate import Gate
from lhttp_tx.connection import Connection
from lhttp_tx.errors import LHTTPError, Refused
from lhttp_tx.handshake import Handshake, accept_handshake
from lhttp_tx.identity import Identity, new_connection_id

__all__ = ["HANDSHAKE_SIZE", "Opening"]

_log = Logger()

_OPEN = WebSocketProtocol.STATE_OPEN
_CONNECTING = WebSocketProtocol.STATE_CONNECTING

HANDSHAKE_SIZE = 16_384
"""Bytes of a handshake's head that are taken; twisted.web has the same bound."""

_TOO_MANY = (429, 503)
"""Statuses of handshakes that are refused in numbers: the log has no line for each."""

_QUERY = re.compile(r"\?\S*")
"""The query of a request target."""

_SECRETS = ("http_headers", "http_request_data", "http_request_params", "http_request_uri", "http_status_line")
"""What Autobahn keeps of a handshake, and nobody looks at again."""


class Opening(Connection):
    """
    One WebSocket connection, up to the moment when it is open.

    :ivar handshake: how the client opened the connection, for whoever opens the session; it is not kept.
    """

    handshake: Handshake | None = None

    _admission: Deferred[Any] | None = None
    _attempt: LoginAttempt | None = None
    _identity: Identity | None = None
    _refusal: str | None = None

    # Where Autobahn need not be asked

    def open(self, handshake: Handshake, behind: bytes) -> None:
        """
        Open the WebSocket with a handshake that the factory has admitted; authenticators may still refuse it.

        :param handshake: what came first on this connection.
        :param behind: what has come behind it.
        """
        self._accept(handshake)
        if behind:
            self.dataReceived(behind)

    def _accept(self, handshake: Handshake) -> None:
        """Answer a handshake that nobody but the authenticators may refuse, when they have decided."""
        self.handshake = handshake
        self._take_place()
        if self.factory.gate is None:
            self._complete(handshake)
        else:
            admission = self._ask(self.factory.gate, handshake)
            admission.addCallbacks(lambda _: self._complete(handshake), self._refuse)

    def _complete(self, handshake: Handshake) -> None:
        """Do what Autobahn does when a handshake succeeds that asks for nothing more."""
        if self.state != _CONNECTING:  # the client left while an authenticator was asked
            return
        try:
            self.state = _OPEN
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

    def onConnect(self, request: ConnectionRequest) -> Deferred[None] | None:  # type: ignore[override]
        """Let the access rules decide about the opening handshake, and then the authenticators."""
        try:
            self.handshake = Handshake(self.http_request_uri, request.headers)
            self.factory.check(self.handshake, self.place)
        except Refused as refused:
            raise self._denial(refused) from None
        self._take_place()
        return None if self.factory.gate is None else self._ask(self.factory.gate, self.handshake)

    def _take_place(self) -> None:
        """Count as a WebSocket of the client, whom a trusted proxy may have named."""
        place = self.place
        if place is not None:
            place.take()
            if place.forwarded:
                self.peer = f"tcp{6 if ':' in str(place.client) else 4}:{place.client}"

    def _ask(self, gate: Gate, handshake: Handshake) -> Deferred[None]:
        """Let the authenticators decide about the opening handshake; whatever else arrives meanwhile waits."""
        self._attempt = LoginAttempt(
            self.peer or "",
            new_connection_id(),
            handshake.path,
            read_parameters(handshake.query),
            handshake.headers,
            secure=bool(self._transport_details.is_secure),
        )
        admission = gate.admit(self._attempt)
        if not admission.called:
            self._admission = admission
            if self.openHandshakeTimeoutCall is not None:  # from here on there is the gate's own limit
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
        """Complete the handshake; Autobahn would swallow what goes wrong in it and leave the client waiting."""
        if self.state != _CONNECTING:  # the client left while an authenticator was asked
            return
        try:
            super().succeedHandshake(res)
        except Exception:
            _log.failure("{peer}: handshake failed", peer=self.peer)
            self.dropConnection(abort=True)
        if self.factory.gate is not None:
            for name in _SECRETS:
                vars(self).pop(name, None)
        self._release()

    def _hold(self, data: bytes) -> None:
        """Keep what came behind a handshake that is not answered yet; nobody has much to say before the answer."""
        self._beginning += data
        if len(self._beginning) > HANDSHAKE_SIZE:
            self.dropConnection(abort=True)

    def _release(self) -> None:
        """Look at what was kept meanwhile."""
        if self._beginning:
            data, self._beginning = self._beginning, b""
            self.dataReceived(data)

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
        self.sendHttpErrorResponse(code, self._refusal or HTTPStatus(code).phrase, headers)
        self.dropConnection(abort=False)

    def sendHttpErrorResponse(self, code: int, reason: str, responseHeaders: Any = None) -> None:
        """Answer a refused handshake with a whole HTTP response."""
        body = reason.encode("utf-8") + b"\n"
        lines = [
            f"HTTP/1.1 {code} {HTTPStatus(code).phrase}",
            *(f"{name}: {value}" for name, value in responseHeaders or ()),
            "Content-Type: text/plain; charset=utf-8",
            f"Content-Length: {len(body)}",
            "Connection: close",
        ]
        self.sendData("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body)
