"""
The heads of responses that resources write without twisted.web, and the responses to refused clients.

Pure functions.
"""

from __future__ import annotations

from collections.abc import Iterable
from http import HTTPStatus

__all__ = ["STREAM_HEADERS", "STREAM_TYPE", "Pairs", "phrase", "plain_refusal", "response"]

Pairs = Iterable[tuple[str, str]]
"""Headers."""

STREAM_TYPE = "text/event-stream"
"""The media type of a stream."""

STREAM_HEADERS = (
    ("Content-Type", STREAM_TYPE),
    ("Cache-Control", "no-store, no-transform"),
    ("X-Accel-Buffering", "no"),  # nginx
    ("X-Content-Type-Options", "nosniff"),
)
"""Headers of a stream. Caches do not store it, and proxies do not buffer it."""


def phrase(status: int) -> str:
    """Return the reason phrase of a status. An authenticator may refuse with a status that has none."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Refused"


def response(status: int, headers: Pairs, body: bytes | None = None) -> bytes:
    """
    Return a response after which the server closes the connection, or the head of a stream that ends with the
    connection.

    :param body: the whole body; ``None`` if it follows.
    """
    length = () if body is None else (("Content-Length", str(len(body))),)
    lines = [
        f"HTTP/1.1 {status} {phrase(status)}",
        *(f"{name}: {value}" for name, value in (*headers, *length)),
        "Connection: close",
        "",
        "",
    ]
    return "\r\n".join(lines).encode("latin-1") + (body or b"")


def plain_refusal(status: int, reason: str, headers: Pairs) -> tuple[int, list[tuple[str, str]], bytes]:
    """
    Return status, headers and body of the response to a refused client. The body is one line of text.

    :param headers: further headers.
    """
    body = reason.encode("utf-8", "replace") + b"\n"
    kind = ("Content-Type", "text/plain; charset=utf-8"), ("X-Content-Type-Options", "nosniff")
    return status, [*kind, ("Cache-Control", "no-store"), *headers], body
