"""
Checks channel names, and reads lists of channels in header values.

Part of the codec: pure functions. Used by :mod:`lhttp_tx.codec.message`, and by all code that gets names from outside.
Source: the protocol document, section "Subscribe, publish, unsubscribe".
"""

import re
from collections.abc import Callable, Iterable
from itertools import repeat

from lhttp_tx.codec.limits import UNLIMITED, Limits
from lhttp_tx.codec.wildcards import is_wildcard
from lhttp_tx.errors import LocalProtocolError, RemoteProtocolError

__all__ = [
    "MAX_CHANNEL_SIZE",
    "PRESENCE",
    "check_channel",
    "check_subscription",
    "check_wildcard",
    "own_channels",
    "split_channels",
]

MAX_CHANNEL_SIZE = 255
"""The most bytes of a channel name in UTF-8."""

PRESENCE = "$presence."
"""The prefix of the server's own channels with messages about joins and leaves."""

_PLAIN = re.compile(r"[0-9A-Za-z-][0-9A-Za-z_-]*(?:\.[0-9A-Za-z_-]+)*")
"""Matches names that are valid, if their size and their number of tokens are allowed."""

_FORBIDDEN = re.compile(r"[\s\x00-\x1f\x7f-\x9f]")
"""Matches white space, as :meth:`str.isspace` defines it, and control characters (category Cc)."""


def check_channel(name: str) -> str:
    """
    Return *name* if it is a valid channel name.

    :param name: the name, as a client has written it.
    :raises RemoteProtocolError: with status 400 if the name is malformed; with status 403 if it is reserved for the
        server, because it begins with ``$`` or ``_``. The text says which rule the name breaks.
    """
    try:
        size = len(name.encode("utf-8"))
    except UnicodeEncodeError:
        raise RemoteProtocolError(f"channel {name!a} is not valid Unicode") from None
    if not size:
        raise RemoteProtocolError("channel name is empty")
    if size > MAX_CHANNEL_SIZE:
        raise RemoteProtocolError(f"channel name of {size} bytes is longer than {MAX_CHANNEL_SIZE}")
    if not _PLAIN.fullmatch(name):
        _check_characters(name)
    return name


def own_channels(channels: str | Iterable[str]) -> list[str]:
    """
    Return channel names from code on this side, as a list.

    :param channels: a channel name, or several.
    :raises LocalProtocolError: if a name is malformed or reserved. The code is wrong, not a client.
    :raises TypeError: if a name is not a str.
    """
    names = [channels] if isinstance(channels, str) else [*channels]
    if not all(isinstance(name, str) for name in names):
        raise TypeError(f"a channel is a str, and several are a list of str, not {channels!r:.80}")
    try:
        return [check_channel(name) for name in names]
    except RemoteProtocolError as error:
        raise LocalProtocolError(error.reason) from error


def check_wildcard(name: str) -> str:
    """
    Return *name* if it is a valid channel name or wildcard subscription.

    :param name: the name, as a client has written it. The token ``*`` stands for one token. ``>`` at the end stands for
        one or more tokens.
    :raises RemoteProtocolError: like :func:`check_channel`; and with status 400 if ``>`` is not the last token.
    """
    tokens = name.split(".")
    if ">" in tokens[:-1]:
        raise RemoteProtocolError(f"channel {name!a} has the wildcard > before its end")
    try:
        check_channel(".".join("x" if token in ("*", ">") else token for token in tokens))
    except RemoteProtocolError:
        check_channel(name)  # raises an error with the original name in its text
        raise
    return name


def check_subscription(name: str) -> str:
    """
    Return *name* if clients may subscribe to it: a channel, ``$presence.CHANNEL``, or a wildcard subscription.

    :raises RemoteProtocolError: like :func:`check_channel`.
    """
    if name.startswith(PRESENCE):
        check_channel(name[len(PRESENCE) :])
        return name
    return check_wildcard(name) if is_wildcard(name) and ">" not in name.split(".")[:-1] else check_channel(name)


def _check_characters(name: str) -> None:
    if _FORBIDDEN.search(name):
        raise RemoteProtocolError(f"channel {name!a} holds a blank or control character")
    if name[0] in "$_":
        raise RemoteProtocolError(f"channel {name!a} is reserved for the server", status=403)
    tokens = name.split(".")
    if "" in tokens:
        raise RemoteProtocolError(f"channel {name!a} has an empty token")
    for wildcard in ("*", ">"):
        if wildcard in tokens:
            raise RemoteProtocolError(f"channel {name!a} has the wildcard {wildcard} as a token")


def split_channels(
    values: Iterable[str],
    check: Callable[[str], str] = check_channel,
    limits: Limits = UNLIMITED,
    *,
    is_published: bool = False,
) -> tuple[str, ...]:
    """
    Return the channels in the values of a header, in order. Each occurs once.

    :param values: the values of a ``subscribe``, ``unsubscribe`` or ``publish`` header, including repetitions.
    :param check: returns a name if it is valid in this header, else raises. It is not called for plain names, which are
        always valid.
    :param limits: the limits for the number of names, including repeated ones, and for the tokens and wildcards of a
        name. The number is checked before the names.
    :param is_published: whether it is a ``publish`` header, in which each name causes a publication.
    :raises RemoteProtocolError: with status 429 if there are too many names; with status 400 if there is no name, or if
        a name has too many tokens or wildcards; and like *check*.
    """
    names = [*filter(None, " ".join(values).replace("\t", " ").split(" "))]
    if not names:
        raise RemoteProtocolError("list of channels is empty")
    most = limits.published if is_published else limits.listed
    if len(names) > most:
        raise RemoteProtocolError(f"list of {len(names)} channels is longer than {most}", status=429)
    listed = tuple(dict.fromkeys(names))
    if (
        all(map(_PLAIN.fullmatch, listed))
        and max(map(len, listed)) <= MAX_CHANNEL_SIZE
        and max(map(str.count, listed, repeat("."))) < limits.token_count
    ):
        return listed
    for name in listed:
        check(name)
        if "." in name or name in ("*", ">"):
            _check_tokens(name, limits)
    return listed


def _check_tokens(name: str, limits: Limits) -> None:
    dots = name.count(".") - name.startswith(PRESENCE)
    if dots >= limits.token_count:
        raise RemoteProtocolError(f"channel {name!a} has more than {limits.token_count} tokens")
    if is_wildcard(name):
        if dots >= limits.wildcard_tokens:
            raise RemoteProtocolError(f"wildcard subscription {name!a} has more than {limits.wildcard_tokens} tokens")
        if name.split(".").count("*") > limits.wildcard_count:
            raise RemoteProtocolError(f"wildcard subscription {name!a} has more than {limits.wildcard_count} tokens *")
