"""
Multipart messages both ways, on top of the codec.

Used by programs and by the ``lhttp`` command.
"""

from collections.abc import Iterable

from lhttp_tx.message import HeaderPairs, Message
from lhttp_tx.multipart import Part, join_parts, parse_offsets, split_parts

__all__ = ["multipart_message", "parts_of"]


def multipart_message(
    command: str, parts: Iterable[Part], headers: HeaderPairs | dict[str, str] = (), *, binary: bool = True
) -> Message:
    """
    Return a message whose body consists of *parts*.

    :param headers: headers besides ``multipart``, as pairs of name and value or a dict of them.
    :param binary: whether it travels as a binary WebSocket message, as bodies that are not UTF-8 must.
    :raises LocalProtocolError: if there is no part, or the message would not be well-formed.
    """
    offsets, body = join_parts(parts)
    pairs = headers.items() if isinstance(headers, dict) else headers
    return Message(command, [*pairs, ("multipart", offsets)], body, binary=binary)


def parts_of(message: Message) -> tuple[Part, ...]:
    """
    Return the parts of a message's body; none if it has no ``multipart`` header.

    :raises RemoteProtocolError: if the header or a part is malformed.
    """
    value = message.headers.get("multipart")
    return () if value is None else split_parts(parse_offsets(value), message.body)
