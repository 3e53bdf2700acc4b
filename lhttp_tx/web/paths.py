"""
Paths of resources, each with one spelling.

A guard of a path, such as a proxy in front, compares the path as it was sent. So
``/%70ublish`` and ``/publish/`` are not ``/publish``.
"""

from __future__ import annotations

from urllib.parse import quote

from twisted.web.server import Request

__all__ = ["is_named_plainly", "refuse_unless_read"]

_PLAIN = "!$&'()*+,;=:@~"
"""
Characters that need no escape in a segment, besides letters, digits, ``-``, ``.`` and ``_`` (RFC 3986, section 3.3).
"""


def is_named_plainly(request: Request) -> bool:
    """
    Return whether a request has the only spelling of its path: without needless escapes, and with nothing after it.
    """
    segments = request.prepath or []
    path = b"".join(b"/" + quote(segment, safe=_PLAIN).encode("ascii") for segment in segments)
    return not request.postpath and request.path == path


def refuse_unless_read(request: Request, *, missing: bytes, advice: bytes) -> bytes | None:
    """
    Answer with 404 unless *request* names its resource plainly, and with 405 unless it is GET or HEAD.

    :param missing: the body of the 404.
    :param advice: the body of the 405.
    :returns: the body of the refusal, whose headers are set; ``None`` if the resource should answer.
    """
    request.responseHeaders.removeHeader(b"server")
    if not is_named_plainly(request):
        request.setResponseCode(404)
        body = b"" if request.method == b"HEAD" else missing
    elif request.method not in (b"GET", b"HEAD"):
        request.setResponseCode(405)
        request.setHeader(b"allow", b"GET, HEAD")
        body = advice
    else:
        return None
    request.setHeader(b"content-type", b"text/plain; charset=utf-8")
    return body
