"""
The beginning of an event stream, and the answers to refused clients.

Pure functions.
"""

from __future__ import annotations

import random

from lhttp_tx.engine.answers import error_message
from lhttp_tx.web.answers import STREAM_HEADERS, STREAM_TYPE, Pairs, plain_refusal
from lhttp_tx.web.events.encoding import view_json

__all__ = ["beginning", "passes", "refusal"]

_RETRY = 1_000
_RETRY_REFUSED = 5_000
"""
The shortest ``retry`` in milliseconds: of an ordinary stream, and of a refused client. Each client gets a random time
of up to three times as long, so that the clients of a node that stops do not all reconnect at once.
"""


def beginning(least: int = _RETRY) -> bytes:
    """
    Return the first bytes of a stream: the time after which a client reconnects.

    :param least: the shortest time, in milliseconds.
    """
    return b"retry: %d\n\n" % random.randint(least, 3 * least)  # noqa: S311 - no secret


def passes(status: int) -> bool:
    """Return whether a client that was refused with *status* may succeed later."""
    return status == 429 or status >= 500


def refusal(status: int, reason: str, headers: Pairs, accept: str) -> tuple[int, list[tuple[str, str]], bytes]:
    """
    Return status, headers and body of the response to a refused client.

    The ``EventSource`` of a browser does not reconnect after a status other than 200. So if the client may succeed
    later, it gets a stream that ends at once, with the error as its only event.

    :param headers: further headers.
    :param accept: the header ``Accept`` of the request.
    """
    if passes(status) and STREAM_TYPE in accept.lower():
        event = view_json(error_message(status, reason, None).raw, False)
        return 200, [*STREAM_HEADERS, *headers], beginning(_RETRY_REFUSED) + event
    return plain_refusal(status, reason, headers)
