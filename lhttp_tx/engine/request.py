"""
One message, as filters and processors get it.

A :class:`Request` has the whole state of one message. The session has none of it, so messages cannot be mixed up.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, final

from lhttp_tx.codec.headers import HeaderPairs, Headers, pairs_of
from lhttp_tx.codec.message import Message
from lhttp_tx.codec.multipart import Part
from lhttp_tx.errors import LocalProtocolError, RemoteProtocolError

if TYPE_CHECKING:
    from lhttp_tx.engine.session import Session
    from lhttp_tx.history.values import Filing
    from lhttp_tx.running import RunningServer

__all__ = ["Request"]

_UNSET: Any = object()

_NONE: frozenset[str] = frozenset()

_JUDGED = ("subscribe", "publish")
"""The headers whose channels are checked by rules and hooks."""


_ORDERS = frozenset({"publish", "receipt", "subscribe", "unsubscribe", "upstream"})
"""Headers that tell the server what to do. Replies leave them out."""

_ORDERS_AND_PARTS = _ORDERS | {"multipart"}


def _without_orders(message: Message, *, parts: bool) -> Message:
    """
    Return *message* without the headers that tell the server what to do.

    :param parts: whether to keep the header ``multipart``, because the body does not change.
    """
    head = message.head
    kept = head.reply if parts else head.without(_ORDERS_AND_PARTS)
    if kept is None:
        found = head.without(_ORDERS)
        kept = head.reply = True if found is head else found
    if kept is True or kept is head:
        return message
    return Message.from_parts(kept, kept.raw + message.raw[len(head.raw) :], message.binary)


@final
class Request:
    """
    One message on its way through the filters and its processor.

    :ivar session: the connection that the message came from.
    :ivar message: the message. A filter's ``before`` may replace it. The command and the headers of the new message
        then decide what happens next.
    :ivar filing: the outcome of the publication in histories; ``None`` if the message was not published, or nobody
        asks.
    :ivar published: whether the message was published. If so, its receipt waits until the bus has the publication.
    :ivar published_to: its channels; empty if they are not known. If the bus refuses other channels, this does not
        concern the receipt.
    :ivar receipt: the token of the receipt that the client asked for, or ``None``.
    :ivar receipt_headers: pairs of name and value that are added to the receipt, if the client asked for one.
    :ivar receipt_body: the body of the receipt.
    :ivar receipt_binary: whether to send the receipt as a binary message. Set it if *receipt_body* is not UTF-8.
    """

    __slots__ = (
        "_parts",
        "_publication",
        "_state",
        "_vouched",
        "filing",
        "message",
        "published",
        "published_to",
        "receipt",
        "receipt_binary",
        "receipt_body",
        "receipt_headers",
        "session",
    )

    def __init__(self, session: Session, message: Message, receipt: str | None = None) -> None:
        self.session = session
        self.message = message
        self.receipt = receipt
        self.filing: Filing | None = None
        self._parts: tuple[Part, ...] | Callable[[], tuple[Part, ...]] = ()
        self.published = False
        self.published_to: tuple[str, ...] = ()
        self.receipt_headers: tuple[tuple[str, str], ...] = ()
        self.receipt_body = b""
        self.receipt_binary = False
        self._publication: Message | None = _UNSET
        self._state: dict[Any, Any] | None = None
        self._vouched: dict[str, frozenset[str]] | None = None

    @property
    def server(self) -> RunningServer:
        """The server that has received the message."""
        return self.session.server

    @property
    def parts(self) -> tuple[Part, ...]:
        """The parts of a multipart body; empty without a ``multipart`` header."""
        if callable(self._parts):
            self._parts = self._parts()
        return self._parts

    @parts.setter
    def parts(self, parts: tuple[Part, ...] | Callable[[], tuple[Part, ...]]) -> None:
        """Set them, or what makes them when they are asked for."""
        self._parts = parts

    @property
    def command(self) -> str:
        """The command of the message."""
        return self.message.command

    @property
    def headers(self) -> Headers:
        """The headers of the message."""
        return self.message.headers

    @property
    def body(self) -> bytes:
        """The body of the message, verbatim."""
        return self.message.body

    @property
    def text(self) -> str:
        """The body of the message as text; see :attr:`lhttp_tx.codec.message.Message.text`."""
        return self.message.text

    @property
    def state(self) -> dict[Any, Any]:
        """A dict for data about this message that filters and the processor share."""
        if self._state is None:
            self._state = {}
        return self._state

    @property
    def publication(self) -> Message | None:
        """
        The message that the ``publish`` header publishes. By default, it is this message without the headers that are
        only for the server.

        Set it to publish another message. Set it to ``None`` to publish nothing.
        """
        if self._publication is _UNSET:
            return self.message.stripped()
        return self._publication

    @publication.setter
    def publication(self, message: Message | None) -> None:
        self._publication = message

    def judged(self, name: str) -> tuple[str, ...]:
        """
        Return the channels in the header *name* for which the client needs permission.

        These are all channels except those that ``trusted`` code has written into the header.

        :raises LocalProtocolError: if the list is malformed. Then a filter or processor has written it.
        """
        try:
            channels = self.message.head.channels(name)
        except RemoteProtocolError as error:
            raise LocalProtocolError(f"header {name}: {error.reason}") from error
        vouched = self.vouched(name)
        return tuple(channel for channel in channels if channel not in vouched) if vouched else channels

    def vouched(self, name: str) -> frozenset[str]:
        """Return the channels that ``trusted`` code has written into the header *name*."""
        return _NONE if self._vouched is None else self._vouched.get(name, _NONE)

    def vouch(self, before: Message) -> None:
        """
        Treat the channels that the message lists now, and *before* did not list, as written by ``trusted`` code.

        The engine calls this after each callback of such code that may replace the message.

        :param before: the message before the callback.
        """
        if before is self.message:
            return
        vouched = {} if self._vouched is None else self._vouched
        for name in _JUDGED:
            with suppress(RemoteProtocolError):  # the error is reported when the list is used
                added = frozenset(self.message.head.channels(name)).difference(before.head.channels(name))
                vouched[name] = self.vouched(name) | added
        self._vouched = vouched

    def reply(
        self,
        body: bytes | str | None = None,
        *,
        command: str | None = None,
        headers: Iterable[tuple[str, str]] | dict[str, str] | None = None,
        binary: bool | None = None,
    ) -> None:
        """
        Send a message to the sender of this message. The request provides what the arguments do not.

        :param body: the body; a str is sent as UTF-8.
        :param command: the command.
        :param headers: pairs of name and value, or a dict, which replace the request's headers. By default, the reply
            has the request's headers, except those that tell the server what to do: ``publish``, ``receipt``,
            ``subscribe``, ``unsubscribe`` and ``upstream``. If *body* is given, the reply does not have ``multipart``
            either.
        :param binary: whether to send the reply as a binary WebSocket message.
        :raises LocalProtocolError: if the result is not a well-formed message.
        """
        message = self.message
        if headers is None and (message.head.reply is not True or body is not None):
            message = _without_orders(message, parts=body is None)
        if body is not None or command is not None or headers is not None or binary is not None:
            message = message.replace(command=command, headers=headers, body=body, binary=binary)
        self.session.send(message)

    def reply_json(self, value: Any, *, command: str | None = None, headers: HeaderPairs | dict[str, str] = ()) -> None:
        """
        Send JSON to the sender of this message, with ``content-type: application/json``.

        :param value: a value that JSON can represent. NaN and infinities are refused.
        :param command: the command, by default the request's.
        :param headers: pairs of name and value, or a dict, which replace the request's headers. If they have
            ``content-type``, it is not added.
        :raises LocalProtocolError: if JSON cannot represent *value*, or the result is not a well-formed message.
        """
        try:
            body = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise LocalProtocolError(f"the value is not one of JSON: {error}") from None
        pairs = pairs_of(headers)
        if not any(name.lower() == "content-type" for name, _ in pairs):
            pairs = [*pairs, ("content-type", "application/json")]
        self.reply(body, command=command, headers=pairs, binary=False)

    def __repr__(self) -> str:
        return f"<Request {self.message!r}>"
