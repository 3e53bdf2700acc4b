"""
What a channel may be called, and lists of channels in header values.

Part of the codec: pure functions, used by :mod:`lhttp_tx.message` and whoever takes a name from outside.
Source: the protocol document, section "Subscribe, publish, unsubscribe".
"""

import unicodedata
from collections.abc import Iterable

from lhttp_tx.errors import RemoteProtocolError

__all__ = ["MAX_CHANNEL_SIZE", "check_channel", "split_channels"]

MAX_CHANNEL_SIZE = 255
"""The longest channel name, in bytes of UTF-8."""


def check_channel(name: str) -> str:
    """
    Return *name* if it may name a channel.

    :param name: the name as a client wrote it.
    :raises RemoteProtocolError: with status 400 if it is malformed, with 403 if it is one of the server's own
        (it begins with ``$`` or ``_``). The text says which rule was broken.
    """
    try:
        size = len(name.encode("utf-8"))
    except UnicodeEncodeError:
        raise RemoteProtocolError(f"channel {name!a} is not valid Unicode") from None
    if not size:
        raise RemoteProtocolError("channel name is empty")
    if size > MAX_CHANNEL_SIZE:
        raise RemoteProtocolError(f"channel name of {size} bytes is longer than {MAX_CHANNEL_SIZE}")
    if not (name.isascii() and name.isalnum()):
        _check_characters(name)
    return name


def _check_characters(name: str) -> None:
    for char in name:
        if char.isspace() or unicodedata.category(char) == "Cc":
            raise RemoteProtocolError(f"channel {name!a} holds a blank or control character")
    if name[0] in "$_":
        raise RemoteProtocolError(f"channel {name!a} is reserved for the server", status=403)
    for token in name.split("."):
        if not token:
            raise RemoteProtocolError(f"channel {name!a} has an empty token")
        if token in ("*", ">"):
            raise RemoteProtocolError(f"channel {name!a} has the wildcard {token} as a token")


def split_channels(values: Iterable[str]) -> tuple[str, ...]:
    """
    Return the channels that header *values* list, in order, each once.

    :param values: the values of a ``subscribe``, ``unsubscribe`` or ``publish`` header and of its repetitions.
    :raises RemoteProtocolError: if a name is malformed or reserved, or if there is no name at all.
    """
    names: dict[str, None] = {}
    for value in values:
        for name in value.replace("\t", " ").split(" "):
            if name:
                names[check_channel(name)] = None
    if not names:
        raise RemoteProtocolError("list of channels is empty")
    return tuple(names)
