"""
The heads of responses that resources write themselves, and of those to clients that are refused.

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
"""Headers of a stream. Nobody keeps it, and no proxy waits for its end."""


def phrase(status: int) -> str:
    """Return the reason phrase of a status. An authenticator may refuse with a status that has none."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Refused"


def response(status: int, headers: Pairs, body: bytes | None = None) -> bytes:
    """
    Return a response after which the connection is closed, or the head of a stream, which ends with it.

    :param body: all of the body; ``None`` if it follows.
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
    Return status, headers and body of the response to a client that is refused: one line of text.

    :param headers: further headers.
    """
    body = reason.encode("utf-8", "replace") + b"\n"
    kind = ("Content-Type", "text/plain; charset=utf-8"), ("X-Content-Type-Options", "nosniff")
    return status, [*kind, ("Cache-Control", "no-store"), *headers], body
