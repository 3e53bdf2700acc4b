"""
What a channel may be called, and lists of channels in header values.

Part of the codec: pure functions, used by :mod:`lhttp_tx.message` and whoever takes a name from outside.
Source: the protocol document, section "Subscribe, publish, unsubscribe".
"""

import unicodedata
from collections.abc import Callable, Iterable

from lhttp_tx.errors import RemoteProtocolError
from lhttp_tx.wildcards import is_wildcard

__all__ = ["MAX_CHANNEL_SIZE", "PRESENCE", "check_channel", "check_subscription", "check_wildcard", "split_channels"]

MAX_CHANNEL_SIZE = 255
"""The longest channel name, in bytes of UTF-8."""

PRESENCE = "$presence."
"""What the names of the server's channels begin with that tell who comes to a channel and who goes."""


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


def check_wildcard(name: str) -> str:
    """
    Return *name* if it may be a wildcard subscription: the name of a channel, but for its wildcards.

    :param name: the name as a client wrote it. The token ``*`` stands for one token, ``>`` at the end for one or more.
    :raises RemoteProtocolError: as :func:`check_channel`, and with status 400 if ``>`` is not the last token.
    """
    tokens = name.split(".")
    if ">" in tokens[:-1]:
        raise RemoteProtocolError(f"channel {name!a} has the wildcard > before its end")
    try:
        check_channel(".".join("x" if token in ("*", ">") else token for token in tokens))
    except RemoteProtocolError:
        check_channel(name)  # so that the text names what was written
        raise
    return name


def check_subscription(name: str) -> str:
    """Return *name* if it may stand in a list of subscriptions: a channel, a presence, or a wildcard subscription."""
    if name.startswith(PRESENCE):
        check_channel(name[len(PRESENCE) :])
        return name
    return check_wildcard(name) if is_wildcard(name) and ">" not in name.split(".")[:-1] else check_channel(name)


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


def split_channels(values: Iterable[str], check: Callable[[str], str] = check_channel) -> tuple[str, ...]:
    """
    Return the channels that header *values* list, in order, each once.

    :param values: the values of a ``subscribe``, ``unsubscribe`` or ``publish`` header and of its repetitions.
    :param check: returns a name if it may stand there.
    :raises RemoteProtocolError: if a name is malformed or reserved, or if there is no name at all.
    """
    names: dict[str, None] = {}
    for value in values:
        for name in value.replace("\t", " ").split(" "):
            if name:
                names[check(name)] = None
    if not names:
        raise RemoteProtocolError("list of channels is empty")
    return tuple(names)
