"""URLs of WebSockets."""

from __future__ import annotations

from urllib.parse import SplitResult, urlsplit

__all__ = ["parse_url"]


def parse_url(url: str) -> SplitResult:
    """
    Return the parts of a WebSocket URL.

    :raises ValueError: if it is not a ``ws://`` or ``wss://`` URL with a host. The text says what is wrong.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("ws", "wss"):
        raise ValueError(f"{url!r} does not begin with ws:// or wss://")
    if not parts.hostname:
        raise ValueError(f"{url!r} names no host")
    if parts.username is not None or parts.fragment:
        raise ValueError(f"{url!r} holds a user name or a fragment")
    if not url.isascii() or any(char <= " " for char in url):
        raise ValueError(f"{url!r} holds a blank or a character that must be escaped")
    if parts.port == 0:
        raise ValueError(f"{url!r} has the port 0")
    return parts
