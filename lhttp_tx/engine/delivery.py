"""
Deliveries, which the hub and the sessions pass to connections, and the channels whose subscribers get them.

A delivery holds messages, but no encoding of them. Each transport has an encoding of its own, such as WebSocket frames.
The transport asks the delivery for its messages in that encoding. Imports only the codec.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from contextlib import suppress
from typing import Any, Protocol, TypeAlias, TypeVar, final

from twisted.internet.defer import Deferred

from lhttp_tx.codec.limits import UNLIMITED
from lhttp_tx.codec.message import Message, parse
from lhttp_tx.codec.views import View
from lhttp_tx.errors import LHTTPError

__all__ = ["Channel", "Deliver", "Delivery", "Encoding", "parse_payloads"]

_Made_co = TypeVar("_Made_co", covariant=True)
_Made = TypeVar("_Made")


class Encoding(Protocol[_Made_co]):
    """
    A way to encode messages. All connections that use the same encoding share one object. Encodings are compared by
    identity.

    An encoding may have an attribute ``view``, a :class:`~lhttp_tx.codec.views.View`, and a method ``encode_views``
    that takes the list of the messages' views. Then encodings with the same view share the list, even if they differ in
    other ways, such as compression.
    """

    def encode(self, payloads: list[bytes], binary: bool) -> _Made_co:
        """
        Return the encoded messages. This must not change *payloads*.

        :param payloads: LHTTP messages, at least one.
        :param binary: whether to send them as binary messages; otherwise they are UTF-8.
        """


@final
class Delivery:
    """
    A run of messages for one or many connections.

    :ivar channel: the channel of the publications; empty for messages of the server to one client.
    :ivar payloads: the messages, at least one, as clients get them. Do not change the list.
    :ivar binary: whether to send them as binary messages; otherwise they are UTF-8.
    :ivar encoding: the first encoding that a connection asked for, or ``None``. Do not set it.
    :ivar made: the messages in *encoding*. A transport that uses this encoding may read it instead of calling
        :meth:`encoded`.
    """

    __slots__ = ("_counts", "_others", "binary", "channel", "encoding", "made", "payloads")

    def __init__(self, channel: str, payloads: list[bytes], binary: bool) -> None:
        self.channel = channel
        self.payloads = payloads
        self.binary = binary
        self.encoding: object = None
        self.made: Any = None

    def encoded(self, encoding: Encoding[_Made]) -> _Made:
        """Return the messages in *encoding*. They are encoded once, however many connections ask."""
        found: _Made
        if self.encoding is encoding:
            found = self.made
            return found
        if self.encoding is None:
            try:
                has_view = encoding.view is not None  # type: ignore[attr-defined]
            except AttributeError:
                has_view = False
            found = self._encode(encoding) if has_view else encoding.encode(self.payloads, self.binary)
            self.made, self.encoding = found, encoding
            return found
        return self._kept(encoding)

    def count(self, call: Callable[[object], object]) -> None:
        """
        Report the encodings of this delivery, so that an owner that keeps the delivery can count their bytes.

        :param call: called with each encoding that is made from now on, except the first one that has no view.
        """
        self._counts = call

    @property
    def makings(self) -> int:
        """The number of encodings that were made, including the lists of views."""
        if self.encoding is None:
            return 0
        return 1 + len(self._others) if hasattr(self, "_others") else 1

    def _kept(self, encoding: Encoding[_Made]) -> _Made:
        if not hasattr(self, "_others"):  # mostly there is only one encoding
            self._others: dict[object, Any] = {}
        if encoding not in self._others:
            self._others[encoding] = self._encode(encoding)
        found: _Made = self._others[encoding]
        return found

    def _encode(self, encoding: Encoding[_Made]) -> _Made:
        """Encode the messages. Encodings that have the same view share the list of views."""
        view: View | None = getattr(encoding, "view", None)
        found: _Made
        if view is None:
            found = encoding.encode(self.payloads, self.binary)
        else:
            shared: Any = encoding
            found = shared.encode_views(self._kept(view))
        if hasattr(self, "_counts"):  # mostly nobody keeps a delivery
            self._counts(found)
        return found

    def __len__(self) -> int:
        return len(self.payloads)

    def __repr__(self) -> str:
        return f"<Delivery of {len(self.payloads)} to {self.channel or 'one client'}>"


Deliver: TypeAlias = Callable[[Delivery], None]
"""Takes deliveries for one subscriber. It must not raise."""


def parse_payloads(payloads: list[bytes], binary: bool) -> list[Message]:
    """
    Return the messages in *payloads*. Payloads that are not messages are left out, because a bus may bring any bytes.
    """
    found: list[Message] = []
    for payload in payloads:
        with suppress(LHTTPError):
            found.append(parse(payload, binary=binary, limits=UNLIMITED))
    return found


class Channel:
    """
    The subscribers of one channel on this node.

    :ivar members: the functions that take deliveries, by subscriber, in the order of subscribing.
    :ivar waiters: Deferreds that fire when the bus has subscribed; ``None`` if it has.
    :ivar asking: the subscribers that want to be told about gaps; ``None`` if there are none.
    :ivar later: the runs that wait until the current delivery of this channel is done, and whether they are binary;
        ``None`` if there is no current delivery.
    """

    __slots__ = ("asking", "later", "members", "name", "waiters")

    def __init__(self, name: str) -> None:
        self.name = name
        self.members: dict[Hashable, Deliver] = {}
        self.waiters: list[Deferred[None]] | None = None
        self.asking: set[Hashable] | None = None
        self.later: list[tuple[list[bytes], bool]] | None = None
