"""
The views of messages that clients can choose, by the names of their subprotocols.

Part of the codec. A view is the same message in another form. The bus, the store and the engine handle only messages.
Transports convert messages that they send to views, and views that they receive to messages.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import suppress

from lhttp_tx.codec.json_view import decode_json, encode_json, receipt_of_json
from lhttp_tx.codec.limits import UNLIMITED, Limits
from lhttp_tx.codec.message import Unreadable
from lhttp_tx.codec.protobuf_view import decode_protobuf, encode_protobuf, receipt_of_protobuf
from lhttp_tx.errors import RemoteProtocolError

__all__ = ["JSON", "PROTOBUF", "VIEWS", "View"]


class View(ABC):
    """
    One kind of view. It is an :class:`~lhttp_tx.engine.delivery.Encoding`, with one object for each kind.

    :ivar binary: whether the views are sent as binary WebSocket messages.
    """

    binary: bool

    @abstractmethod
    def write(self, message: bytes, binary: bool) -> bytes:
        """
        Return the view of a message.

        :param binary: whether the message is binary.
        :raises RemoteProtocolError: if *message* is malformed.
        """

    @abstractmethod
    def read(self, data: bytes, limits: Limits) -> tuple[bytes, bool]:
        """
        Return the message that a client's view represents, and whether it is binary.

        :raises RemoteProtocolError: if *data* is not a view, or the message is too large.
        """

    @abstractmethod
    def read_own(self, data: bytes) -> tuple[bytes, bool]:
        """
        Return the message that a view of the server itself represents, and whether it is binary. It may have any size.
        """

    @abstractmethod
    def receipt(self, data: bytes, limits: Limits) -> str | None:
        """Return the token of the receipt that a malformed view asks for; ``None`` if it cannot be found."""

    def encode(self, payloads: list[bytes], binary: bool) -> list[bytes]:
        """
        Return the views of messages. Payloads that are not messages are left out, because a bus may bring any bytes.
        """
        with suppress(RemoteProtocolError):
            return [self.write(payload, binary) for payload in payloads]
        views: list[bytes] = []
        for payload in payloads:
            try:
                views.append(self.write(payload, binary))
            except RemoteProtocolError:
                continue
        return views

    def take(self, data: bytes, limits: Limits) -> tuple[bytes, bool]:
        """Like :meth:`read`, but return an :class:`~lhttp_tx.codec.message.Unreadable` instead of raising an error."""
        try:
            return self.read(data, limits)
        except RemoteProtocolError as error:
            return Unreadable.of(error, self.receipt(data, limits)), False


class _JSON(View):
    """The subprotocol ``lhttp.json``."""

    binary = False

    def write(self, message: bytes, binary: bool) -> bytes:
        return encode_json(message)

    def read(self, data: bytes, limits: Limits) -> tuple[bytes, bool]:
        return decode_json(data, limits)

    def read_own(self, data: bytes) -> tuple[bytes, bool]:
        return decode_json(data, UNLIMITED, max_parts=0)

    def receipt(self, data: bytes, limits: Limits) -> str | None:
        return receipt_of_json(data, limits)


class _Protobuf(View):
    """The subprotocol ``lhttp.protobuf``."""

    binary = True

    def write(self, message: bytes, binary: bool) -> bytes:
        return encode_protobuf(message, binary)

    def read(self, data: bytes, limits: Limits) -> tuple[bytes, bool]:
        return decode_protobuf(data, limits)

    def read_own(self, data: bytes) -> tuple[bytes, bool]:
        return decode_protobuf(data, UNLIMITED, max_parts=0)

    def receipt(self, data: bytes, limits: Limits) -> str | None:
        return receipt_of_protobuf(data, limits)


JSON: View = _JSON()
PROTOBUF: View = _Protobuf()

VIEWS: Mapping[str, View] = {"lhttp.json": JSON, "lhttp.protobuf": PROTOBUF}
"""The views, by subprotocol."""
