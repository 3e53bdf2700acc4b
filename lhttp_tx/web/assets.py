"""
The files that the server sends to browsers: the JavaScript client, and the chat page of ``--demo``.

They are read once, from the installed package. :class:`lhttp_tx.web.site.RootResource` puts them into its tree.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from importlib.resources import files

from twisted.web.http import CACHED
from twisted.web.resource import IResource, Resource
from twisted.web.server import Request

from lhttp_tx.web.paths import refuse_unless_read

__all__ = ["Asset", "client_assets", "demo_assets"]

_SCRIPT = b"text/javascript; charset=utf-8"
_POLICY = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self' ws: wss:; img-src data:; "
    b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""The chat page may load nothing from other hosts, and code and style only from its own files."""


class Asset(Resource):
    """One file. Browsers check each time whether it has changed, so they use a new release at once."""

    isLeaf = True

    def __init__(self, path: str, content_type: bytes, headers: tuple[tuple[bytes, bytes], ...] = ()) -> None:
        """
        :param path: the file, below ``lhttp_tx/web/static``.
        :param content_type: its media type.
        :param headers: further headers of the response.
        """
        super().__init__()
        self._content = files("lhttp_tx.web").joinpath("static", path).read_bytes()
        self._etag = b'"' + hashlib.sha256(self._content).hexdigest()[:32].encode("ascii") + b'"'
        self._headers = ((b"content-type", content_type), *headers)

    def render(self, request: Request) -> bytes:
        """Answer GET and HEAD with 200, or 304 if the browser has it already; anything else with 404 or 405."""
        request.setHeader(b"x-content-type-options", b"nosniff")
        refusal = refuse_unless_read(
            request, missing=b"there is no file here\n", advice=b"this is a file: read it with GET\n"
        )
        if refusal is not None:
            return refusal
        request.setHeader(b"cache-control", b"no-cache")
        for name, value in self._headers:
            request.setHeader(name, value)
        if request.setETag(self._etag) is CACHED:
            return b""
        request.setHeader(b"content-length", b"%d" % len(self._content))
        return b"" if request.method == b"HEAD" else self._content


def client_assets() -> Iterator[tuple[bytes, Asset]]:
    """Yield name and resource of the JavaScript client's files. Pages of any site may load them."""
    for name in ("lhttp.js", "lhttp.mjs", "lhttp-http.js"):
        yield name.encode("ascii"), Asset(name, _SCRIPT, ((b"access-control-allow-origin", b"*"),))


def demo_assets(websocket: IResource) -> Iterator[tuple[bytes, IResource]]:
    """
    Yield name and resource of the chat page's files; the page itself has the empty name.

    :param websocket: answers opening handshakes on the page's own path.
    """
    page = Asset(
        "demo/index.html",
        b"text/html; charset=utf-8",
        ((b"content-security-policy", _POLICY), (b"referrer-policy", b"no-referrer")),
    )
    yield b"", PageOrWebSocket(page, websocket)
    yield b"chat.css", Asset("demo/chat.css", b"text/css; charset=utf-8")
    yield b"chat.js", Asset("demo/chat.js", _SCRIPT)


class PageOrWebSocket(Resource):
    """
    Answers opening handshakes with the WebSocket, and everything else with the page.

    :ivar websocket: answers handshakes.
    """

    isLeaf = True

    def __init__(self, page: Resource, websocket: IResource) -> None:
        super().__init__()
        self._page = page
        self.websocket = websocket

    def render(self, request: Request) -> int | bytes:
        wanted = self.websocket if request.getHeader(b"upgrade") else self._page
        rendered: int | bytes = wanted.render(request)
        return rendered
