"""
Makes and splits multipart messages.

Used by programs and by the ``lhttp`` command.
"""

from collections.abc import Iterable

from lhttp_tx.codec.headers import HeaderPairs, pairs_of
from lhttp_tx.codec.message import Message
from lhttp_tx.codec.multipart import Part, join_parts, parse_offsets, split_parts

__all__ = ["multipart_message", "parts_of"]


def multipart_message(
    command: str, parts: Iterable[Part], headers: HeaderPairs | dict[str, str] = (), *, binary: bool = True
) -> Message:
    """
    Return a message whose body consists of *parts*.

    :param command: the command.
    :param parts: at least one part.
    :param headers: more headers than ``multipart``, as pairs of name and value or a dict.
    :param binary: whether to send it as a binary WebSocket message. Bodies that are not UTF-8 need this.
    :raises LocalProtocolError: if there is no part, or if a value is malformed.
    """
    offsets, body = join_parts(parts)
    return Message(command, [*pairs_of(headers), ("multipart", offsets)], body, binary=binary)


def parts_of(message: Message) -> tuple[Part, ...]:
    """
    Return the parts of a message; an empty tuple if it has no ``multipart`` header.

    :raises RemoteProtocolError: if the header or a part is malformed.
    """
    value = message.headers.get("multipart")
    return () if value is None else split_parts(parse_offsets(value), message.body)
