"""
The HTTP of the admin side: its root, its answers without a key, and its limits.

None of it is on the public port. :mod:`lhttp_tx.web.admin.service` listens for it.
"""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.interfaces import IAddress
from twisted.web.resource import IResource, Resource
from twisted.web.server import Request

from lhttp_tx.errors import Refused
from lhttp_tx.guard.admission import Admission
from lhttp_tx.guard.heads import check_headers
from lhttp_tx.guard.proxied import is_proxied
from lhttp_tx.web.admin.gate import AdminGate
from lhttp_tx.web.admin.keys import AdminKey
from lhttp_tx.web.admin.problems import PROBLEM, Problem, answer, problem_body, refuse
from lhttp_tx.web.channel import BoundedRequest
from lhttp_tx.web.paths import is_named_plainly
from lhttp_tx.web.site import LHTTPSite

__all__ = ["MAX_BODY_SIZE", "AdminResource", "AdminRoot", "AdminSite", "LiveResource"]

MAX_BODY_SIZE = 2_097_152
"""The most bytes of a request's body: a batch of large messages."""


class AdminRequest(BoundedRequest):
    """A request whose errors are problems (RFC 9457), even those before it is complete."""

    def gotLength(self, length: int | None) -> None:
        """Take the length of the body. Refuse a request without a valid key before its body arrives."""
        super().gotLength(length)
        if length == 0 or self.refused:
            return
        try:
            admit(self.channel.site.gate, self)
        except Problem as problem:
            title = problem.told["title"].encode("ascii")
            self._refuse(b"%d %b" % (problem.status, title), problem.detail, problem.headers)

    def _refusal(self, status: bytes, reason: str) -> tuple[str, bytes]:
        return PROBLEM, problem_body(Problem(int(status[:3]), reason))


class AdminSite(LHTTPSite):
    """
    The site of the admin side.

    :ivar gate: checks the keys.
    """

    def __init__(self, root: IResource, gate: AdminGate, *, reactor: Any, admission: Admission | None = None) -> None:
        """
        :param root: the root resource.
        :param gate: checks the keys.
        :param reactor: the running reactor.
        :param admission: limits its connections; ``None``: no limit.
        """
        super().__init__(root, max_body_size=MAX_BODY_SIZE, reactor=reactor, admission=admission)
        self.gate = gate
        self.requestFactory = AdminRequest

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """Return the channel for a connection; ``None`` refuses it, because there are too many."""
        if self.admission is not None and not self.admission.admits(addr):
            return None
        return super().buildProtocol(addr)


class AdminResource(Resource):
    """
    The base class of the resources of the admin side. Subclasses override :meth:`respond`.

    :ivar methods: the HTTP methods that it answers.
    :ivar scope: the method that a key needs in its scope; ``None``: any key is enough.
    :ivar is_open: whether it needs no key.
    :ivar is_linked: whether a link on a page of another site may lead to it. The browser then shows the answer, but
        scripts of that page cannot read it.
    """

    isLeaf = True
    methods: tuple[bytes, ...] = (b"GET", b"HEAD")
    scope: str | None = None
    is_open = False
    is_linked = False

    def __init__(self, gate: AdminGate) -> None:
        """:param gate: checks the keys."""
        super().__init__()
        self.gate = gate

    def render(self, request: Request) -> int | bytes:
        """Answer, or refuse with a problem."""
        try:
            key = self._check(request)
            return self.respond(request, key)
        except Problem as problem:
            return refuse(request, problem)

    def _check(self, request: Request) -> AdminKey | None:
        key = admit(self.gate, request, is_open=self.is_open, is_linked=self.is_linked)
        if not is_named_plainly(request):
            raise Problem(404, "not found: write the path exactly")
        if request.method not in self.methods:
            allowed = b", ".join(self.methods).decode("ascii")
            raise Problem(405, f"use {allowed}", {"allow": allowed})
        if key is not None and self.scope is not None and not key.may_call(self.scope):
            raise Problem(403, f"the key {key.name} may not call {self.scope}")
        return key

    def respond(self, request: Request, key: AdminKey | None) -> int | bytes:
        """
        Answer a request with a sufficient key. Like ``render``, return the body, or ``NOT_DONE_YET``.

        :param key: the key of the caller; ``None`` if none is needed.
        :raises Problem: if it is refused.
        """
        raise NotImplementedError


class LiveResource(AdminResource):
    """``GET /live``: shows only that the process answers. It needs no key."""

    is_open = True

    def respond(self, request: Request, key: AdminKey | None) -> bytes:
        """Answer with ``{"status": "live"}``."""
        return answer(request, 200, "application/json", json.dumps({"status": "live"}).encode("ascii") + b"\n")


class _Nothing(AdminResource):
    """All other paths. A caller without a key cannot find out which paths exist: the server asks for a key first."""

    methods = (b"GET", b"HEAD", b"POST")

    def respond(self, request: Request, key: AdminKey | None) -> bytes:
        raise Problem(404, "not found")


class AdminRoot(Resource):
    """
    The root of the admin side: ``/live``, and resources that were added with ``putChild``.

    :ivar nothing: answers every path that has no resource.
    """

    def __init__(self, gate: AdminGate) -> None:
        """:param gate: checks the keys."""
        super().__init__()
        self.nothing = _Nothing(gate)
        self.putChild(b"live", LiveResource(gate))

    def getChild(self, path: bytes, request: Request) -> IResource:
        """Return the resource for all paths that have none of their own."""
        return self.nothing

    def render(self, request: Request) -> int | bytes:
        """Answer the root itself."""
        return self.nothing.render(request)


def admit(gate: AdminGate, request: Request, *, is_open: bool = False, is_linked: bool = False) -> AdminKey | None:
    """
    Check that a request has a valid key and does not come from a page of another site. Its body need not be complete.

    :param is_open: whether it needs no key.
    :param is_linked: whether a link on a page of another site may lead to it.
    :returns: the key; ``None`` if none is needed.
    :raises Problem: if it is refused.
    """
    names = [name.lower() for name, values in request.requestHeaders.getAllRawHeaders() for _ in values]
    try:
        check_headers(names)
    except Refused as refused:
        raise Problem(refused.status, refused.reason) from None
    host, origin, fetch_site = (header(request, name) for name in (b"host", b"origin", b"sec-fetch-site"))
    if is_linked and header(request, b"sec-fetch-dest") == "document":
        fetch_site = None
    gate.check_site(host, origin, fetch_site)
    if is_open:
        return None
    address = None if is_proxied(request.channel.transport) else request.channel.getPeer()
    return gate.log_in(getattr(address, "host", None), header(request, b"authorization"))


def header(request: Request, name: bytes) -> str | None:
    """Return a header of *request*, or ``None``."""
    value: bytes | None = request.getHeader(name)
    return None if value is None else value.decode("utf-8", "surrogateescape")
