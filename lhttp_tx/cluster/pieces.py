"""
Splits answers that are too large for one message between nodes, and joins the pieces.

No I/O: the functions that send are passed in.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import maybeDeferred

__all__ = ["MAX_ANSWER", "PIECE_SIZE", "Pieces", "in_pieces", "send_pieces"]

PIECE_SIZE = 131_072
"""
The most characters of a piece. In JSON, a piece has at most twice as many bytes. NATS accepts messages of 1 MiB by
default. If an operator changes that, it accepts at least a little more than ``--max-message-size``.
"""

MAX_ANSWER = 16_777_216
"""The most characters of an answer as JSON."""

_AT_ONCE = 8
"""The number of pieces of an answer that are sent before waiting until the bus has them."""

_MAX_WAITING = 4 * MAX_ANSWER
"""The most characters of incomplete answers to one question, all together."""


def in_pieces(answer: Any) -> list[str]:
    """Split an answer, a JSON value, into pieces. Return an empty list if it fits into one message."""
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
    Send a few pieces. Send the next ones when the bus has these, because it refuses more than it can buffer.

    :param pieces: the pieces of one answer.
    :param send: sends a piece; returns whether the bus has taken it. If not, the rest is not sent.
    :param confirm: see :meth:`lhttp_tx.interfaces.IBus.confirm`.
    :param begin: the number of pieces that were sent before.
    """
    end = begin + _AT_ONCE
    for number, piece in enumerate(pieces[begin:end], begin + 1):
        if not send({"piece": piece, "number": number, "of": len(pieces)}):
            return
    if end < len(pieces):
        sent = maybeDeferred(confirm)
        sent.addCallback(lambda _: send_pieces(pieces, send, confirm, end))
        sent.addErrback(lambda failure: None)  # without the bus, nobody gets the answer


class Pieces:
    """The pieces of answers to one question."""

    def __init__(self) -> None:
        self._waiting: dict[str, list[str]] = {}
        self._size = 0

    def add(self, sender: str, message: dict[str, Any]) -> dict[str, Any] | None:
        """
        Take a piece.

        :param sender: the name of the node that answers.
        :param message: the message. ``piece`` is the text, ``number`` counts the pieces from 1, ``of`` is their number.
        :returns: after the last piece, a dict whose ``answer`` is the whole answer; else ``None``. A piece that is out
            of order, or would take too much memory, is dropped. The answer then stays incomplete.
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
