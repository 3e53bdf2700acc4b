"""
The life of one message.

A :class:`Request` is what filters and processors get. Whatever belongs to one message is kept here and never on the
connection, so that messages cannot be mixed up.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, final

from lhttp_tx.message import Headers, Message
from lhttp_tx.multipart import Part

if TYPE_CHECKING:
    from lhttp_tx.session import Session

__all__ = ["Request"]

_UNSET: Any = object()


@final
class Request:
    """
    One message on its way through filters and processor.

    :ivar session: the connection it came from.
    :ivar message: the message. A filter's ``before`` may replace it: the command and the headers of the new one decide
        what happens next.
    :ivar parts: the parts of a multipart body; empty without a ``multipart`` header.
    :ivar published: whether it was published; a receipt then waits until the bus has it.
    :ivar receipt: the token of the receipt that the client asked for, or ``None``.
    :ivar receipt_headers: headers to add to the receipt, if one was asked for.
    :ivar receipt_body: the body of the receipt.
    :ivar receipt_binary: whether the receipt travels as a binary WebSocket message, as a body that is not UTF-8 must.
    """

    __slots__ = (
        "_publication",
        "_state",
        "message",
        "parts",
        "published",
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
        self.parts: tuple[Part, ...] = ()
        self.published = False
        self.receipt_headers: tuple[tuple[str, str], ...] = ()
        self.receipt_body = b""
        self.receipt_binary = False
        self._publication: Message | None = _UNSET
        self._state: dict[Any, Any] | None = None

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
        """The body of the message as text; see :attr:`Message.text`."""
        return self.message.text

    @property
    def state(self) -> dict[Any, Any]:
        """What filters and processor want to tell each other about this message."""
        if self._state is None:
            self._state = {}
        return self._state

    @property
    def publication(self) -> Message | None:
        """
        What the ``publish`` header sends: the message less the headers meant for the server, unless somebody set
        another message. Set it to ``None`` to publish nothing.
        """
        if self._publication is _UNSET:
            return self.message.stripped()
        return self._publication

    @publication.setter
    def publication(self, message: Message | None) -> None:
        self._publication = message

    def reply(
        self,
        body: bytes | str | None = None,
        *,
        command: str | None = None,
        headers: Iterable[tuple[str, str]] | dict[str, str] | None = None,
        binary: bool | None = None,
    ) -> None:
        """
        Send a message to the sender of this one. What is not given is taken from the request.

        :param body: the body.
        :param command: the command.
        :param headers: pairs of name and value; they replace all headers of the request.
        :param binary: whether it travels as a binary WebSocket message.
        :raises LocalProtocolError: if the result is not a well-formed message.
        """
        if body is None and command is None and headers is None and binary is None:
            self.session.send(self.message)
        else:
            self.session.send(self.message.replace(command=command, headers=headers, body=body, binary=binary))

    def __repr__(self) -> str:
        return f"<Request {self.message!r}>"
