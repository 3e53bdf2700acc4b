"""
The base of the resources that authenticate a client before they answer: event streams, and sessions without WebSocket.

The access rules are those of the WebSocket: a client that may not open one is refused here, too.
"""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure
from twisted.web.resource import IResource, Resource
from twisted.web.server import NOT_DONE_YET, Request

from lhttp_tx.auth.attempts import LoginAttempt, read_parameters
from lhttp_tx.engine.handshake import Handshake as Shown
from lhttp_tx.errors import LHTTPError, Refused
from lhttp_tx.guard.access import AccessPolicy
from lhttp_tx.guard.admission import Place, peer_name
from lhttp_tx.guard.heads import check_counts, check_headers
from lhttp_tx.identity import Identity, new_connection_id
from lhttp_tx.observe.rationing import RationedLogger
from lhttp_tx.transports.websocket.factory import LHTTPServerFactory
from lhttp_tx.transports.websocket.handshake import Handshake, certificate_of
from lhttp_tx.web.answers import Pairs, phrase, plain_refusal
from lhttp_tx.web.paths import is_named_plainly

__all__ = ["Asked", "AskedResource"]

_log = RationedLogger(__name__)

_OWN_SITE = (None, "same-origin", "none")
"""Values of ``Sec-Fetch-Site`` in requests that do not come from a page of another site."""

_TOO_MANY = (429, 503)
"""Statuses of refusals that can be frequent. The log gets no line for each."""

_PREFLIGHT_AGE = 600
"""Seconds for which a browser need not ask again whether a page may send a request."""


class Asked:
    """
    A request, as these resources see it.

    :ivar handshake: its target and its headers.
    :ivar place: its place among the connections of the server; ``None`` if the site does not count them.
    :ivar headers: headers of the response that depend on the request, such as those for browsers.
    """

    def __init__(self, request: Request, policy: AccessPolicy) -> None:
        found: dict[str, list[bytes]] = {}
        for name, values in request.requestHeaders.getAllRawHeaders():
            found.setdefault(name.lower().decode("latin-1"), []).extend(values)
        self._repeated = [name.encode("latin-1") for name, values in found.items() for _ in values]
        joined = {
            name: (b"; " if name == "cookie" else b", ").join(values).decode("latin-1")
            for name, values in found.items()
        }
        self.handshake = Handshake(request.uri.decode("latin-1"), joined)
        self.place: Place | None = getattr(request.channel, "place", None)
        self._policy = policy
        self._request = request
        self.headers: list[tuple[str, str]] = [("Vary", "Origin")]

    def header(self, name: str) -> str | None:
        """Return the value of a header, by its name in lower case."""
        return self.handshake.headers.get(name)

    def check(self, factory: LHTTPServerFactory) -> None:
        """
        Apply the rules for handshakes.

        :raises Refused: if a rule forbids the request.
        """
        check_headers(self._repeated)
        factory.check(self.handshake, self.place)
        self._check_site()

    def check_known(self) -> None:
        """
        Apply the rules for requests of a client that has a session already. These rules concern only the request
        itself.

        :raises Refused: if a rule forbids the request.
        """
        check_headers(self._repeated)
        check_counts(self.handshake.target, self.handshake.headers)
        host = self.header("host")
        self._policy.check_host(host)
        self._policy.check_origin(self.header("origin"), host)
        self._check_site()

    def _check_site(self) -> None:
        origin = self.header("origin")
        if origin is None:
            # An image or a script on a page of another site: its request has no Origin, but the user's cookies.
            if self.header("sec-fetch-site") not in _OWN_SITE:
                raise Refused(403, "pages of another site may read this with EventSource or fetch, if they are allowed")
        elif self._is_named(origin):
            self.headers += [("Access-Control-Allow-Origin", origin), ("Access-Control-Allow-Credentials", "true")]
        else:
            self.headers.append(("Access-Control-Allow-Origin", "*"))  # without the user's cookies

    def _is_named(self, origin: str) -> bool:
        """Return whether the policy allows an origin by its name, and not only with ``*``."""
        try:
            AccessPolicy(self._policy.origins - {"*"}).check_origin(origin, self.header("host"))
        except Refused:
            return False
        return True

    @property
    def peer(self) -> str:
        """The address of the client, for logs."""
        place = self.place
        if place is not None and place.forwarded:
            return f"tcp{6 if ':' in str(place.client) else 4}:{place.client}"
        return peer_name(self._request.transport.getPeer())  # type: ignore[union-attr]

    def attempt(self) -> LoginAttempt:
        """Return the request as an attempt to log in."""
        return LoginAttempt(
            self.peer,
            new_connection_id(),
            self.handshake.path,
            read_parameters(self.handshake.query),
            self.handshake.headers,
            secure=bool(self._request.isSecure()),
            certificate=self._certificate(),
        )

    def _certificate(self) -> bytes | None:
        return certificate_of(self._request.transport) if self._request.isSecure() else None

    def shown(self, is_wanted: bool) -> Shown | None:
        """
        Return how the connection was opened, for users' code.

        :param is_wanted: whether any code can ask for it.
        :returns: ``None`` if none can.
        """
        if not is_wanted:
            return None
        handshake = self.handshake
        return Shown(handshake.path, handshake.query, handshake.headers, self._certificate())


class AskedResource(Resource):
    """
    A resource that authenticates the client before it answers.

    :ivar websocket: answers opening handshakes of WebSockets on the same path.
    """

    _methods: tuple[str, ...] = ("GET", "HEAD")
    _headers = "Authorization, Last-Event-ID, Cache-Control"
    _subject = "event stream"

    def __init__(self, factory: LHTTPServerFactory, policy: AccessPolicy, websocket: IResource) -> None:
        """
        :param factory: makes the WebSockets of the server.
        :param policy: the access rules.
        """
        super().__init__()
        self._factory = factory
        self._policy = policy
        self.websocket = websocket

    def getChild(self, path: bytes, request: Request) -> IResource:
        """Return the WebSocket, as for every path that has no resource of its own."""
        return self.websocket

    def _refuse(self, request: Request, asked: Asked, error: LHTTPError) -> bytes:
        """Answer with a refusal."""
        if error.status in _TOO_MANY:
            self._factory.admission.refuse(asked.peer, f"status {error.status}, {error.reason}")
        else:
            told = {"peer": asked.peer, "subject": self._subject, "status": error.status, "why": error.reason}
            _log.info("{peer}: {subject} refused with {status}: {why!r}", **told)
        headers = [*asked.headers, *(self._challenges(request) if error.status == 401 else ())]
        return self._answer(request, *self._refusal(error.status, error.reason, headers, asked))

    def _refusal(self, status: int, reason: str, headers: Pairs, asked: Asked) -> tuple[int, Pairs, bytes]:
        """Return status, headers and body of a refusal."""
        return plain_refusal(status, reason, headers)

    def _challenges(self, request: Request) -> Pairs:
        """Return the headers that tell a client how to log in."""
        gate = self._factory.gate
        return () if gate is None else gate.challenges

    def _answer(self, request: Request, status: int, headers: Pairs, body: bytes) -> bytes:
        request.setResponseCode(status, phrase(status).encode("latin-1"))
        for name, value in headers:
            request.responseHeaders.addRawHeader(name, value.encode("latin-1"))
        if body:
            request.setHeader(b"content-length", b"%d" % len(body))
        return b"" if request.method == b"HEAD" else body

    def _preflight(self, request: Request, asked: Asked) -> int:
        """Tell a browser whether a page may send its request (a preflight of the Fetch standard)."""
        headers = [
            *asked.headers,
            ("Allow", self._allowed),
            ("Access-Control-Allow-Methods", ", ".join(name for name in self._methods if name != "HEAD")),
            ("Access-Control-Allow-Headers", self._headers),
            ("Access-Control-Max-Age", str(_PREFLIGHT_AGE)),
        ]
        self._finish(request, self._answer(request, 204, headers, b""))
        return NOT_DONE_YET  # or else twisted.web writes Content-Length, which a 204 must not have (RFC 9110, 8.6)

    @property
    def _allowed(self) -> str:
        return ", ".join([*(name for name in self._methods if name != "HEAD"), "OPTIONS"])

    def _begin(self, request: Request) -> Asked | int | bytes:
        """Check a request. Return it, or the result of ``render`` if the request is answered already."""
        request.responseHeaders.removeHeader(b"server")
        asked = Asked(request, self._policy)
        try:
            if not is_named_plainly(request):
                raise Refused(404, "not found: write the path exactly")
            self._check(request, asked)
            if request.method == b"OPTIONS":
                return self._preflight(request, asked)
            if request.method.decode("latin-1") not in self._methods:
                asked.headers.append(("Allow", self._allowed))
                raise Refused(405, f"use {' or '.join(name for name in self._methods if name != 'HEAD')}")
        except LHTTPError as error:
            return self._leave(request) if self._is_leaving else self._refuse(request, asked, error)
        return asked

    def _check(self, request: Request, asked: Asked) -> None:
        """Apply the access rules for this request."""
        asked.check(self._factory)

    @property
    def _is_leaving(self) -> bool:
        return self._factory.draining

    def _leave(self, request: Request) -> int | bytes:
        """Refuse a client because the server is stopping."""
        request.setResponseCode(503)
        request.setHeader(b"content-type", b"text/plain; charset=utf-8")
        return b"server is going away\n"

    def _ask(self, request: Request, attempt: LoginAttempt) -> Deferred[Identity | None]:
        """
        Authenticate the client while it waits. Call this only if there is a gate.

        :returns: a Deferred that

            - succeeds with the identity, or with ``None`` if the client must log in with a message;
            - fails with :exc:`~lhttp_tx.errors.Refused`.
        """
        gate = self._factory.gate
        assert gate is not None
        if not gate.secrets.isdisjoint(attempt.parameters):
            raise Refused(400, "secrets in URLs end up in logs: use a header, a cookie, or a ticket")
        admission = gate.admit(attempt)
        request.notifyFinish().addErrback(lambda _: admission.cancel())
        return admission

    def _nobody(self, attempt: LoginAttempt) -> Identity | None:
        """Return the identity of a client without authenticators; ``None`` if only its address is known."""
        if not attempt.parameters:
            return None
        return Identity(None, attempt.connection_id, {}, attempt.parameters, attempt.address)

    def _finish(self, request: Request, answer: int | bytes) -> None:
        if isinstance(answer, bytes):
            request.write(answer)
            request.finish()

    def _failed(self, failure: Failure, request: Request, asked: Asked) -> None:
        """Answer a request whose Deferred has failed, if its client still waits."""
        error = failure.value
        if isinstance(error, CancelledError) or getattr(request.channel, "transport", None) is None:
            return
        if not isinstance(error, LHTTPError):
            _log.failure("answering a request failed", failure)
            error = Refused(500, "internal error")
        self._finish(request, self._leave(request) if self._is_leaving else self._refuse(request, asked, error))
