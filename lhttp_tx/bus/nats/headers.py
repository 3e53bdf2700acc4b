"""
The headers of NATS messages, and the commands that publish messages.

Pure functions. Source: the NATS documentation, "Client Protocol", and "ADR-4: Headers".
"""

from __future__ import annotations

from typing import Final

__all__ = ["BINARY_HEAD", "Head", "binary_of", "is_stored", "publish_commands", "read_head"]

Head = bytes
"""A block of headers, from ``NATS/1.0`` to the blank line, inclusive."""

BINARY_HEAD: Final = b"NATS/1.0\r\nLhttp-Frame: binary\r\n\r\n"
"""The headers of a publication that subscribers get as a binary message. Other publications have none."""

_PLAIN = b"NATS/1.0\r\n"
"""The beginning of headers without a status."""


def publish_commands(target: bytes, head: Head, payloads: list[bytes]) -> bytes:
    """
    Return the commands that publish *payloads*.

    :param target: the subject; with a reply subject, a blank and the reply subject follow.
    :param head: the headers of each of them; empty if they have none.
    """
    if not head:
        return b"".join([b"PUB %b %d\r\n%b\r\n" % (target, len(each), each) for each in payloads])
    size = len(head)
    return b"".join([b"HPUB %b %d %d\r\n%b%b\r\n" % (target, size, size + len(each), head, each) for each in payloads])


def read_head(head: Head | None) -> dict[str, str]:
    """
    Return the headers of a message. If a name occurs several times, the last one counts.

    The key ``Status`` has the status of an answer of NATS.
    """
    if head is None:
        return {}
    if head.startswith(_PLAIN):
        try:
            return dict([line.split(": ", 1) for line in head[10:-4].decode("ascii").split("\r\n")])
        except ValueError:
            pass  # headers of another program, or an id that is not ASCII
    first, _, lines = head.partition(b"\r\n")
    found: dict[str, str] = {}
    status = first[9:12].strip()
    if status.isdigit():
        found["Status"] = status.decode("ascii")
    for line in lines.split(b"\r\n"):
        name, colon, value = line.partition(b":")
        if colon:
            found[name.strip().decode("ascii", "replace")] = value.strip().decode("utf-8", "replace")
    return found


def is_stored(head: Head) -> bool:
    """Return whether a stream has stored the message and published it again."""
    return b"\r\nNats-Sequence:" in head


def binary_of(head: Head) -> bool:
    """Return whether the message is a publication that subscribers get as a binary message."""
    return head == BINARY_HEAD or (b"Lhttp-Frame" in head and read_head(head).get("Lhttp-Frame") == "binary")
