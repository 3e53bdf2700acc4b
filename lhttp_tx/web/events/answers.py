"""
How ``/events`` answers: the heads of its responses, and what refuses a client.

Pure functions.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from http import HTTPStatus

from lhttp_tx.engine.answers import error_message
from lhttp_tx.web.events.encoding import view_json

__all__ = ["STREAM_TYPE", "Pairs", "beginning", "passes", "phrase", "refusal", "response"]

Pairs = Iterable[tuple[str, str]]
"""Headers."""

STREAM_TYPE = "text/event-stream"
"""The media type of a stream."""

_RETRY = 1_000
_RETRY_REFUSED = 5_000
"""
Milliseconds after which a client comes again, at least, and when it was refused. Each client is told a time of its own,
up to three times as long: clients of a node that stops do not all come to another one at once.
"""

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


def beginning(least: int = _RETRY) -> bytes:
    """Return the first bytes of a stream: when a client that has lost it is to come again."""
    return b"retry: %d\n\n" % random.randint(least, 3 * least)  # noqa: S311 - no secret


def passes(status: int) -> bool:
    """Return whether a client that was refused with *status* may have more luck later."""
    return status == 429 or status >= 500


def refusal(status: int, reason: str, headers: Pairs, accept: str) -> tuple[int, list[tuple[str, str]], bytes]:
    """
    Return status, headers and body of the response to a client that is refused.

    A browser's ``EventSource`` never comes again after a status other than 200. So one that may have more luck later
    gets a stream that ends at once, with the error as its only event.

    :param headers: further headers.
    :param accept: the header ``Accept`` of the request.
    """
    if passes(status) and STREAM_TYPE in accept.lower():
        event = view_json(error_message(status, reason, None).raw, False)
        return 200, [*STREAM_HEADERS, *headers], beginning(_RETRY_REFUSED) + event
    body = reason.encode("utf-8", "replace") + b"\n"
    kind = ("Content-Type", "text/plain; charset=utf-8"), ("X-Content-Type-Options", "nosniff")
    return status, [*kind, ("Cache-Control", "no-store"), *headers], body
