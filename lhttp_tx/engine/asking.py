"""
Publications that ask for receipts. Those that are otherwise equal share one plan, and are handled in runs.

Clients write a different token and a different message id into each message. Such messages still share a plan. Used by
:mod:`lhttp_tx.engine.engine` and :mod:`lhttp_tx.engine.handling`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple, final

from lhttp_tx.engine.receipts import KEPT, Answer

if TYPE_CHECKING:
    from lhttp_tx.history.archive import Archive
    from lhttp_tx.history.values import Filing

__all__ = ["LONGEST_TOKEN", "RECEIPT", "Asked", "Asking", "Tokens", "key_of", "receipt_message"]

LONGEST_TOKEN = 64
"""
Bytes of a token, or of a message id. Messages with longer ones, or with other than visible ASCII characters, have plans
of their own.
"""

RECEIPT = frozenset({"receipt"})

_VALUES = re.compile(rb"\r\n(?:receipt|message-id):([!-~]{1,64})(?=\r\n)")

_RECEIPT_LINE = b"\r\nreceipt:"

_VISIBLE = bytes(range(0x21, 0x7F))


def key_of(beginning: bytes) -> bytes:
    """
    Return what such messages have in common, as the key of their plan: no message begins with it.

    :param beginning: the head of a message, and the blank line.
    """
    return b"\0" + b"\0".join(_pieces(beginning))


def _pieces(beginning: bytes) -> list[bytes]:
    """Return what stands between the first tokens and ids of a head; a head with more than two has no such plan."""
    pieces, end = [], 0
    for found in islice(_VALUES.finditer(beginning), 3):
        pieces.append(beginning[end : found.start(1)])
        end = found.end(1)
    return [*pieces, beginning[end:]]


class Asked(NamedTuple):
    """
    A message, taken apart.

    :ivar token: the token of its receipt.
    :ivar plain: the message without the receipt.
    """

    token: bytes
    plain: bytes


@final
class Tokens:
    """
    Takes messages with one head apart, whatever their tokens and their message ids are.

    :ivar key: the key of their plan.
    :ivar id_at: where the message id begins in the message without the receipt; 0: there is none.
    :ivar cost: its memory in bytes, approximately.
    """

    __slots__ = ("_behind", "_pieces", "_receipt_first", "cost", "id_at", "key")

    def __init__(self, beginning: bytes, added: bytes = b"") -> None:
        """
        :param beginning: the head of a message, and the blank line. It has one header ``receipt``, and at most one
            header ``message-id``.
        :param added: lines, each with a CRLF before it, which each message gets behind the start line.
        :raises ValueError: if one of them is written in a way that has a plan of its own.
        """
        self.key = key_of(beginning)
        pieces = _pieces(beginning)
        count = len(pieces) - 1
        receipts = [piece.endswith(_RECEIPT_LINE) for piece in pieces[:-1]]
        if receipts.count(True) != 1 or count > 2:
            raise ValueError("not one token, and at most one message id")
        self._receipt_first = receipts[0]
        self._pieces = pieces
        # Of the message without the receipt: what is before its id and behind it, or the whole head.
        lines = len(_RECEIPT_LINE)
        without = [piece[:-lines] if piece.endswith(_RECEIPT_LINE) else piece for piece in pieces]
        if added:
            start, line_end, rest = without[0].partition(b"\r\n")
            without[0] = start + added + line_end + rest
        if count == 1:
            self._behind = b"".join(without)
            self.id_at = 0
        elif self._receipt_first:
            self._behind = without[2]
            self._pieces = [*pieces, b"".join(without[:2])]
            self.id_at = len(self._pieces[3])
        else:
            self._behind = b"".join(without[1:])
            self._pieces = [*pieces, without[0]]
            self.id_at = len(without[0])
        self.cost = 500 + 6 * len(self.key)

    def split(self, data: bytes) -> Asked | None:
        """Return a message taken apart; ``None`` if it has another head."""
        pieces = self._pieces
        before, behind = pieces[0], pieces[1]
        if not data.startswith(before):
            return None
        first = len(before)
        last = data.find(b"\r\n", first, first + LONGEST_TOKEN + 2)
        if last <= first or not data.startswith(behind, last):
            return None
        token = data[first:last]
        rest = last + len(behind)
        if not self.id_at:
            return None if token.translate(None, _VISIBLE) else Asked(token, self._behind + data[rest:])
        last = data.find(b"\r\n", rest, rest + LONGEST_TOKEN + 2)
        if last <= rest or not data.startswith(pieces[2], last):
            return None
        other = data[rest:last]
        if (token + other).translate(None, _VISIBLE):
            return None
        if not self._receipt_first:
            token, other = other, token
        return Asked(token, b"%b%b%b%b" % (pieces[3], other, self._behind, data[last + len(pieces[2]) :]))

    def split_run(self, messages: list[bytes], first: int, size: int) -> list[Asked]:
        """
        Return messages taken apart: as many as follow each other from *first* on and have this head.

        :param size: the most bytes of a message.
        """
        run: list[Asked] = []
        for data in islice(messages, first, None):
            found = self.split(data) if len(data) <= size else None
            if found is None:
                break
            run.append(found)
        return run

    def id_of(self, plain: bytes) -> str:
        """Return the message id of a message without its receipt."""
        return plain[self.id_at : plain.find(b"\r\n", self.id_at)].decode("ascii")


def receipt_message(token: bytes, pairs: Iterable[tuple[str, str]] = ()) -> bytes:
    """
    Return a receipt.

    :param token: its token.
    :param pairs: what it tells beside: the names and values of well-formed headers.
    """
    lines = "".join(f"{name}:{value}\r\n" for name, value in pairs) if pairs else ""
    return b"LHTTP/1.0 receipt\r\nreceipt-id:%b\r\n%b\r\n" % (token, lines.encode())


@final
class Asking:
    """
    Publications of one call of a shortcut.

    :ivar is_kept: whether their receipts wait for a history, too.
    """

    __slots__ = ("_archive", "_channel", "_filed", "_placed", "_tokens", "_wanted", "is_kept")

    def __init__(self, channel: str, wanted: Tokens, archive: Archive | None, *, is_kept: bool) -> None:
        """
        Have the archive note what becomes of publications, until :meth:`took`.

        :param channel: the channel of the publications.
        :param wanted: what takes the messages apart.
        :param archive: knows message ids and positions.
        :param is_kept: whether the channel has a history.
        """
        self.is_kept = is_kept
        self._tokens: Sequence[bytes] = ()
        self._channel = channel
        self._placed: list[str] | None = None
        self._filed: list[Filing] | None = None
        self._archive = archive
        if archive is None:
            return
        if wanted.id_at:
            archive.identify = wanted.id_of
            archive.filed = self._filed = []
        elif is_kept:
            archive.placed = self._placed = []

    def took(self, tokens: Sequence[bytes]) -> None:
        """Note the tokens of those that the shortcut has taken."""
        self._tokens = tokens
        if self._archive is not None:
            self._archive.identify = self._archive.placed = None

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self._tokens)

    @property
    def done(self) -> int:
        """How many were published, if the last call has failed at once."""
        for noted in (self._filed, self._placed):
            if noted is not None:
                return len(noted)
        return len(self._tokens) - 1

    @property
    def sure(self) -> int:
        """How many were published, if the bus has refused the last one later."""
        return len(self._tokens) - 1 if self._placed is None else 0

    def answers(self, count: int) -> list[Answer]:
        """Return the receipts of the first *count* publications."""
        if self._filed is not None:
            return [
                (receipt_message(token, filing.headers()), False, token.decode("ascii"), filing)
                for token, filing in zip(self._tokens[:count], self._filed, strict=False)
            ]
        kept = KEPT if self.is_kept else None
        if self._placed is None:
            return [(receipt_message(token), False, token.decode("ascii"), kept) for token in self._tokens[:count]]
        return [
            (receipt_message(token, [("position", f"{self._channel}={position}")]), False, token.decode("ascii"), kept)
            for token, position in zip(self._tokens[:count], self._placed, strict=True)
        ]

    def refused(self, count: int) -> list[str]:
        """Return the tokens of the publications after the first *count*."""
        return [token.decode("ascii") for token in self._tokens[count:]]
