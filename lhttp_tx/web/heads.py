"""
Reads the heads of HTTP requests.

:mod:`lhttp_tx.web.channel` builds on it. twisted.web handles each line of a head, and each byte of a name, separately.
So a head of many short lines would cost much time. This module reads all lines that have arrived together. twisted.web
still checks the first line, and the headers for the length of the body.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from twisted.web.http import HTTPChannel
from twisted.web.http_headers import Headers

from lhttp_tx.guard.heads import is_moderate, is_shallow, is_short_list, read_fields
from lhttp_tx.transports.websocket.handshake import MAX_HEADERS

__all__ = ["HeadChannel"]

_TARGET = re.compile(rb"[\x21-\x7e]+")
"""A valid request target: printable ASCII without blanks."""

_LONG = 64
"""The size of a first line, in bytes, from which on twisted.web does not get the target: each byte costs it time."""

_MAX_METHOD = 64
"""The most bytes of a method: each byte costs twisted.web time."""

_LENGTHS = frozenset({b"content-length", b"transfer-encoding"})
"""Headers for the length of a body. twisted.web checks them."""


def _spelled(name: bytes) -> bytes:
    """Return *name* as the headers of twisted.web spell it."""
    headers = Headers()
    headers.addRawHeader(name, b"")
    return next(headers.getAllRawHeaders())[0]


_SPELLED = {
    b"-".join(map(bytes.capitalize, name.split(b"-"))): _spelled(name)
    for name in (b"content-md5", b"dnt", b"etag", b"p3p", b"te", b"www-authenticate", b"x-xss-protection")
}
"""Names for which twisted.web does not follow the rule that each word has one capital, with their spelling there."""


def _is_bounded(target: bytes) -> bool:
    path, _, query = target.partition(b"?")
    return is_shallow(path) and is_moderate(query)


class HeadChannel(HTTPChannel):
    """
    Reads the heads of the requests of one connection, and refuses those that two programs may read differently.

    :ivar names: the names of the headers of the current request, in lower case. A repeated name occurs as often as it
        was sent.
    :ivar broken: whether a head was malformed. The connection then ends, and no more data is read.
    """

    maxHeaders = MAX_HEADERS
    names: Sequence[bytes] = ()
    broken = False
    _has_first_line = False

    def lineReceived(self, line: bytes) -> None:
        """Take a line of a head. Lines of headers are read together. twisted.web handles all other lines."""
        if self.broken:
            return
        if self._has_first_line and line:
            self._take_headers(line)
            return
        self._has_first_line = bool(line)
        if line[:1] in (b" ", b"\t"):
            self._respondToBadRequestAndDisconnect()
        elif len(line) > _LONG:
            self._take_long_target(line)
        else:
            super().lineReceived(line)

    def _take_headers(self, line: bytes) -> None:
        """
        Take *line* and the lines of headers that have arrived after it.

        Each line, and each byte of a name, costs twisted.web time. So it gets only the headers for the length of the
        body.
        """
        room = self.totalHeadersSize - self._receivedHeaderSize
        lines = line + b"\r\n" + self._buffer[:room]
        end = lines.find(b"\r\n\r\n", 0, room)
        if end < 0:
            end = lines.rfind(b"\r\n", 0, room)
            if end < 0 or len(lines) > room:
                self._respondToBadRequestAndDisconnect()
                return
        lines, self._buffer = lines[: end + 2], self._buffer[end - len(line) :]
        self._receivedHeaderSize += len(lines)
        count = len(self.names) + lines.count(b"\r\n")
        fields = read_fields(lines) if count <= self.maxHeaders else None
        if fields is None:
            self._respondToBadRequestAndDisconnect()
            return
        self.names = [*self.names, *fields[0]]
        headers = self.requests[-1].requestHeaders._rawHeaders
        for name, value in zip(*fields, strict=True):
            if name in _LENGTHS:
                if not self.headerReceived(name + b":" + value):
                    return
            elif name == b"connection" and not is_short_list(value):
                self._respondToBadRequestAndDisconnect()
                return
            else:
                spelled = b"-".join(map(bytes.capitalize, name.split(b"-")))
                headers.setdefault(_SPELLED.get(spelled, spelled), []).append(value)

    def _respondToBadRequestAndDisconnect(self) -> None:
        """Refuse a malformed head. Read nothing after it."""
        self.broken = True
        super()._respondToBadRequestAndDisconnect()

    def _take_long_target(self, line: bytes) -> None:
        """Take a long first line of a head. twisted.web gets a short target instead of the real one."""
        method, _, rest = line.partition(b" ")
        target, _, version = rest.partition(b" ")
        if len(method) > _MAX_METHOD or not _TARGET.fullmatch(target) or not _is_bounded(target):
            self._respondToBadRequestAndDisconnect()
            return
        self._receivedHeaderSize += len(target)
        super().lineReceived(b"%s / %s" % (method, version))
        self._path = target

    def headerReceived(self, line: bytes) -> bool:
        """Take a header. Return whether it is well-formed."""
        try:
            return bool(super().headerReceived(line))
        except ValueError:  # a length with more digits than Python converts
            self._respondToBadRequestAndDisconnect()
            self.length = None
            return False

    def allHeadersReceived(self) -> None:
        """Begin the request. The next line is the first line of another request."""
        self._has_first_line = False
        super().allHeadersReceived()
        self.names = ()
