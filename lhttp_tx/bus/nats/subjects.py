"""
Channel names as NATS subjects.

Pure functions, used by :mod:`lhttp_tx.bus.nats.bus`. A subject is the prefix and the channel's name. Bytes of the name
that NATS does not allow in a subject become ``%`` and two hexadecimal digits. The mapping is one-to-one. A channel
never becomes a wildcard, a subject outside the prefix, or one of NATS's own subjects. Sources: the how-to about
clusters, section "Use the channels from NATS"; the NATS documentation, "Subject-Based Messaging".
"""

from __future__ import annotations

import re

__all__ = ["MAX_PREFIX_SIZE", "channel_of", "check_prefix", "subject_of", "wildcard_subject_of"]

MAX_PREFIX_SIZE = 255
"""The longest prefix, in bytes of UTF-8."""

_ESCAPED = re.compile(
    r"[%*>\s\x00-\x20\x7f-\x9f]"  # the escape itself, wildcards, blanks, control characters
    r"|(?:\A|(?<=\.))\."  # a dot that would leave an empty token before it
    r"|\.\Z"  # or after it
    r"|\A\$"  # the first character of NATS's own subjects: $SYS, $JS, $KV ...
    r"|\A_(?=INBOX)"  # the inboxes for replies
)
_ESCAPE = re.compile(r"(?:%[0-9A-F]{2})+")
_PREFIX = re.compile(r"(?!\$|_INBOX)(?:[^\s.*>%\x00-\x20\x7f-\x9f]+\.)+")


def subject_of(channel: str, prefix: str) -> str:
    """
    Return the subject that carries *channel*.

    :param channel: usually a name that :func:`lhttp_tx.codec.channels.check_channel` accepts. Any other text works,
        too.
    :param prefix: a prefix that :func:`check_prefix` accepts.

    >>> subject_of("room.7", "lhttp.")
    'lhttp.room.7'
    >>> subject_of("a*..b", "lhttp.")
    'lhttp.a%2A.%2Eb'
    """
    return prefix + _ESCAPED.sub(_escape, channel)


def wildcard_subject_of(wildcard: str, prefix: str) -> str:
    """
    Return the subject of a wildcard subscription.

    :param wildcard: a name that :func:`lhttp_tx.codec.channels.check_wildcard` accepts.
    :param prefix: as for :func:`subject_of`.

    >>> wildcard_subject_of("room%.*.>", "lhttp.")
    'lhttp.room%25.*.>'
    """
    tokens = (token if token in ("*", ">") else _ESCAPED.sub(_escape, token) for token in wildcard.split("."))
    return prefix + ".".join(tokens)


def _escape(match: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in match[0].encode("utf-8"))


def channel_of(subject: str, prefix: str) -> str | None:
    """
    Return the channel that *subject* carries; ``None`` if :func:`subject_of` never returns this subject.

    >>> channel_of("lhttp.a%2A.%2Eb", "lhttp.")
    'a*..b'
    >>> channel_of("other.room", "lhttp.") is None
    True
    """
    if not subject.startswith(prefix):
        return None
    try:
        channel = _ESCAPE.sub(_unescape, subject[len(prefix) :])
        return channel if channel and subject_of(channel, prefix) == subject else None
    except ValueError:
        return None


def _unescape(match: re.Match[str]) -> str:
    return bytes.fromhex(match[0].replace("%", "")).decode("utf-8")


def check_prefix(prefix: str) -> str:
    """
    Return *prefix* if it is valid: empty, or tokens that each end with a dot.

    :raises ValueError: if it is not, or is longer than :data:`MAX_PREFIX_SIZE`. The text says what to write.
    """
    if prefix and (not _PREFIX.fullmatch(prefix) or len(prefix.encode("utf-8", "replace")) > MAX_PREFIX_SIZE):
        raise ValueError(
            f"{prefix!r} is not a prefix of NATS subjects; write tokens that end with a dot, such as lhttp., or nothing"
        )
    return prefix
