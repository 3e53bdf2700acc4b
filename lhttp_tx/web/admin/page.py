"""
The dashboard: the files of a page that calls the API.

The files contain no data, so they need no key. An operator types a key into the page, and the page sends it to the API
with each call.
"""

from __future__ import annotations

from importlib.resources import files
from typing import Final

from twisted.web.resource import IResource, Resource
from twisted.web.server import Request

from lhttp_tx.web.admin.gate import AdminGate
from lhttp_tx.web.admin.keys import AdminKey
from lhttp_tx.web.admin.problems import answer
from lhttp_tx.web.admin.site import AdminResource

__all__ = ["PageFile", "Static"]

_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; "
    "trusted-types 'none'"
)
"""
The page may load nothing from other hosts, and code and style only from its own files. It cannot make HTML from text.
"""

_HEADERS: Final = {
    "content-security-policy": _POLICY,
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}

_TYPES: Final = {
    "css": "text/css; charset=utf-8",
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}


class PageFile(AdminResource):
    """One file. Links on pages of other sites may lead to the page itself, but not to its other files."""

    is_open = True

    def __init__(self, gate: AdminGate, name: str, content: bytes) -> None:
        """
        :param gate: checks the requests.
        :param name: the name of the file. Its ending gives the media type.
        :param content: the content of the file.
        """
        super().__init__(gate)
        self._content = content
        self._type = _TYPES[name.rpartition(".")[2]]
        self.is_linked = self._type.startswith("text/html")

    def respond(self, request: Request, key: AdminKey | None) -> bytes:
        """Answer with the file."""
        for name, value in _HEADERS.items():
            request.setHeader(name.encode("ascii"), value.encode("ascii"))
        return answer(request, 200, self._type, self._content)


class Static(Resource):
    """``/static``: the files of the dashboard, which are read once."""

    def __init__(self, gate: AdminGate, nothing: IResource) -> None:
        """
        :param gate: checks the requests.
        :param nothing: answers every other path.
        """
        super().__init__()
        self._nothing = nothing
        for file in files("lhttp_tx.web.admin").joinpath("static").iterdir():
            if file.name.rpartition(".")[2] in _TYPES:
                found = PageFile(gate, file.name, file.read_bytes())
                if file.name == "index.html":
                    self.page = found
                else:
                    self.putChild(file.name.encode("ascii"), found)

    def getChild(self, path: bytes, request: Request) -> IResource:
        """Return the resource for paths without a file."""
        return self._nothing

    def render(self, request: Request) -> int | bytes:
        """Answer ``/static`` itself."""
        rendered: int | bytes = self._nothing.render(request)
        return rendered
