"""
Messages as entries: the JSON texts in which a client fetches them.

Pure functions, and encodings of deliveries. An entry has no line ends, so it is the data of one server-sent event.
Source: the protocol document, section "Without WebSocket".
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from json.encoder import encode_basestring
from typing import Protocol

from lhttp_tx.codec.text import is_text
from lhttp_tx.codec.views import JSON

__all__ = ["FORMS", "Form"]

_MISLEADING = ((b"\xc2\x85", b"\\u0085"), (b"\xe2\x80\xa8", b"\\u2028"), (b"\xe2\x80\xa9", b"\\u2029"))
"""Characters that some libraries wrongly take for line ends in an event stream, with their escapes in JSON."""


class Form(Protocol):
    """
    Makes entries from messages: an :class:`~lhttp_tx.engine.delivery.Encoding`. All sessions share one object.

    :ivar converts: whether the entries contain views of the messages.
    """

    converts: bool

    def encode(self, payloads: list[bytes], binary: bool) -> list[bytes]:
        """Return the entries of messages. Payloads that are not a message may be left out."""


class _Whole:
    """
    Each message unchanged: a JSON string, or an object with the key ``base64`` for a binary message.
    """

    converts = False

    def encode(self, payloads: list[bytes], binary: bool) -> list[bytes]:
        return [_whole(payload, binary) for payload in payloads]


def _whole(payload: bytes, binary: bool) -> bytes:
    if binary or not is_text(payload):
        return b'{"base64":"%b"}' % b64encode(payload)
    return _one_line(encode_basestring(payload.decode("utf-8")).encode("utf-8"))


class _Views:
    """The JSON views of messages. A delivery converts its messages once for all transports that use these views."""

    view = JSON
    converts = True

    def encode(self, payloads: list[bytes], binary: bool) -> list[bytes]:
        return self.encode_views(self.view.encode(payloads, binary))

    def encode_views(self, views: list[bytes]) -> list[bytes]:
        """Return the entries of views; see :class:`lhttp_tx.engine.delivery.Encoding`."""
        return [_one_line(view) for view in views]


def _one_line(text: bytes) -> bytes:
    if not text.isascii():
        for character, escape in _MISLEADING:
            text = text.replace(character, escape)
    return text


FORMS: Mapping[str, Form] = {"lhttp": _Whole(), "lhttp.json": _Views()}
"""The forms by the names of the subprotocols that they correspond to."""
