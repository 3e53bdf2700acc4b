"""
Publications that ask for receipts. If their heads are otherwise equal, they share one plan and are handled in runs.

Clients write another token and another message id into each message. Such messages still share a plan. Used by
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
The most bytes of a token or a message id here. A message with a longer one, or with one that is not visible ASCII, does
not share a plan.
"""

RECEIPT = frozenset({"receipt"})

_VALUES = re.compile(rb"\r\n(?:receipt|message-id):([!-~]{1,64})(?=\r\n)")

_RECEIPT_LINE = b"\r\nreceipt:"

_VISIBLE = bytes(range(0x21, 0x7F))


def key_of(beginning: bytes) -> bytes:
    """
    Return the key of the plan that such messages share: their head without tokens and ids. No message begins with this
    key.

    :param beginning: the head of a message, with the blank line.
    """
    return b"\0" + b"\0".join(_pieces(beginning))


def _pieces(beginning: bytes) -> list[bytes]:
    """
    Return the text around the first three tokens and ids of a head. A head with more than two cannot share a plan.
    """
    pieces, end = [], 0
    for found in islice(_VALUES.finditer(beginning), 3):
        pieces.append(beginning[end : found.start(1)])
        end = found.end(1)
    return [*pieces, beginning[end:]]


class Asked(NamedTuple):
    """
    A message without its token.

    :ivar token: the token of its receipt.
    :ivar plain: the message without the header ``receipt``.
    """

    token: bytes
    plain: bytes


@final
class Tokens:
    """
    Separates tokens from messages whose heads differ only in their tokens and message ids.

    :ivar key: the key of their plan.
    :ivar id_at: the index of the message id in the message without the header ``receipt``; 0 if there is no id.
    :ivar cost: the approximate memory of this object, in bytes.
    """

    __slots__ = ("_behind", "_pieces", "_receipt_first", "cost", "id_at", "key")

    def __init__(self, beginning: bytes, added: bytes = b"") -> None:
        """
        :param beginning: the head of a message, with the blank line. It has one header ``receipt``, and at most one
            header ``message-id``.
        :param added: header lines, each after a CRLF. Each message gets them directly after the start line.
        :raises ValueError: if the head cannot share a plan: a token or an id is too long, is not visible ASCII, or is
            missing.
        """
        self.key = key_of(beginning)
        pieces = _pieces(beginning)
        count = len(pieces) - 1
        receipts = [piece.endswith(_RECEIPT_LINE) for piece in pieces[:-1]]
        if receipts.count(True) != 1 or count > 2:
            raise ValueError("not one token, and at most one message id")
        self._receipt_first = receipts[0]
        self._pieces = pieces
        # The head without the receipt, in two pieces: before the id and after it. Without an id, in one piece.
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
        """Return the token and the rest of a message; ``None`` if the message has another head."""
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
        Split consecutive messages from *first* on, up to the first one that has another head or is too large.

        :param messages: the messages of one read.
        :param first: the index of the first message to split.
        :param size: the most bytes of a message.
        :returns: a list that may be empty.
        """
        run: list[Asked] = []
        for data in islice(messages, first, None):
            found = self.split(data) if len(data) <= size else None
            if found is None:
                break
            run.append(found)
        return run

    def id_of(self, plain: bytes) -> str:
        """Return the message id of a message whose header ``receipt`` was removed."""
        return plain[self.id_at : plain.find(b"\r\n", self.id_at)].decode("ascii")


def receipt_message(token: bytes, pairs: Iterable[tuple[str, str]] = ()) -> bytes:
    """
    Return the bytes of a receipt.

    :param token: its token.
    :param pairs: the names and values of more headers. They must be well-formed.
    """
    lines = "".join(f"{name}:{value}\r\n" for name, value in pairs) if pairs else ""
    return b"LHTTP/1.0 receipt\r\nreceipt-id:%b\r\n%b\r\n" % (token, lines.encode())


@final
class Asking:
    """
    The publications of one call of a shortcut that ask for receipts, and their outcomes.

    :ivar is_kept: whether their receipts wait for a history, too.
    """

    __slots__ = ("_archive", "_channel", "_filed", "_placed", "_tokens", "_wanted", "is_kept")

    def __init__(self, channel: str, wanted: Tokens, archive: Archive | None, *, is_kept: bool) -> None:
        """
        Make the archive record the outcomes of publications, until :meth:`took` is called.

        :param channel: the channel of the publications.
        :param wanted: splits the messages of the plan.
        :param archive: records message ids and positions; ``None`` if the server keeps neither.
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
        """Set the tokens of the publications that the shortcut has taken, in order. The archive stops recording."""
        self._tokens = tokens
        if self._archive is not None:
            self._archive.identify = self._archive.placed = None

    @property
    def count(self) -> int:
        """The number of publications that the shortcut has taken."""
        return len(self._tokens)

    @property
    def done(self) -> int:
        """The number of publications that succeeded, if the call of the shortcut has raised."""
        for noted in (self._filed, self._placed):
            if noted is not None:
                return len(noted)
        return len(self._tokens) - 1

    @property
    def sure(self) -> int:
        """
        The number of publications that certainly succeeded, if the bus has refused one after the call of the shortcut.
        """
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
