"""
Splits the answers of a node that are too large for one message between nodes, and joins them again.

No I/O: those who send are passed in. Incomplete answers are kept.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import maybeDeferred

__all__ = ["MAX_ANSWER", "PIECE_SIZE", "Pieces", "in_pieces", "send_pieces"]

PIECE_SIZE = 131_072
"""
The most characters of a piece. As JSON, they have twice as many bytes at most. NATS takes messages of 1 MiB by default,
and of a little more than ``--max-message-size`` if an operator changes that.
"""

MAX_ANSWER = 16_777_216
"""The most characters of an answer as JSON."""

_AT_ONCE = 8
"""How many pieces of an answer are sent before the bus is asked whether it has them."""

_MAX_WAITING = 4 * MAX_ANSWER
"""The most characters of all pieces of the answers to one question that wait for their ends."""


def in_pieces(answer: Any) -> list[str]:
    """Return an answer, a JSON value, in pieces; an empty list if it fits into one message."""
    if not isinstance(answer, list | dict):
        return []
    text = json.dumps(answer, separators=(",", ":"))
    if len(text) <= PIECE_SIZE:
        return []
    return [text[begin : begin + PIECE_SIZE] for begin in range(0, len(text), PIECE_SIZE)]


def send_pieces(
    pieces: list[str], send: Callable[[dict[str, Any]], bool], confirm: Callable[[], Any], begin: int = 0
) -> None:
    """
    Send a few pieces, and the next ones when the bus has these: it refuses what it cannot hold.

    :param send: sends a piece; returns whether the bus has taken it. If not, the rest is not sent.
    :param confirm: see :meth:`lhttp_tx.interfaces.IBus.confirm`.
    :param begin: how many have been sent before.
    """
    end = begin + _AT_ONCE
    for number, piece in enumerate(pieces[begin:end], begin + 1):
        if not send({"piece": piece, "number": number, "of": len(pieces)}):
            return
    if end < len(pieces):
        sent = maybeDeferred(confirm)
        sent.addCallback(lambda _: send_pieces(pieces, send, confirm, end))
        sent.addErrback(lambda failure: None)  # the bus is away, so the answer is, too


class Pieces:
    """The pieces of answers to one question."""

    def __init__(self) -> None:
        self._waiting: dict[str, list[str]] = {}
        self._size = 0

    def add(self, sender: str, message: dict[str, Any]) -> dict[str, Any] | None:
        """
        Take a piece.

        :param sender: the name of the node that answers.
        :param message: the message with the piece.
        :returns: a dict whose ``answer`` is the whole answer, after the last piece. A piece that does not follow the
            one before it, or would take too much memory, is dropped, and the answer never gets whole.
        """
        piece, number, count = message.get("piece"), message.get("number"), message.get("of")
        waiting = self._waiting.setdefault(sender, [])
        if not isinstance(piece, str) or number != len(waiting) + 1 or self._size + len(piece) > _MAX_WAITING:
            return None
        waiting.append(piece)
        self._size += len(piece)
        if number != count:
            return None
        del self._waiting[sender]
        text = "".join(waiting)
        self._size -= len(text)
        try:
            return {"answer": json.loads(text)}
        except ValueError:
            return None
