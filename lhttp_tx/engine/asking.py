"""
Publications that ask for receipts. If their heads are otherwise equal, they share one plan and are handled in runs.

Clients write another token and another message id into each message. Such messages still share a plan. Used by
:mod:`lhttp_tx.engine.engine` and :mod:`lhttp_tx.engine.handling`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import TYPE_CHECKING, final

from lhttp_tx.engine.receipts import KEPT, Answer

if TYPE_CHECKING:
    from lhttp_tx.history.archive import Archive
    from lhttp_tx.history.values import Filing

__all__ = ["LONGEST_TOKEN", "RECEIPT", "Asking", "Tokens", "key_of", "receipt_message"]

LONGEST_TOKEN = 64
"""
The most bytes of a token or a message id here. A message with a longer one, or with one that is not visible ASCII, does
not share a plan.
"""

RECEIPT = frozenset({"receipt"})

_VALUES = re.compile(rb"\r\n(?:receipt|message-id):([!-~]{1,64})(?=\r\n)")

_RECEIPT_LINE = b"\r\nreceipt:"

_RECEIPT_TEXT = b"LHTTP/1.0 receipt\r\nreceipt-id:%b\r\n%b\r\n"

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


def _is_token(value: bytes) -> bool:
    """Return whether a token or a message id is one that a plan can be shared with, see :data:`LONGEST_TOKEN`."""
    return 0 < len(value) <= LONGEST_TOKEN and (value.isalnum() or not value.translate(None, _VISIBLE))


@final
class Tokens:
    """
    Separates tokens from messages whose heads differ only in their tokens and message ids.

    :ivar key: the key of their plan.
    :ivar id_at: the index of the message id in the message without the header ``receipt``; 0 if there is no id.
    :ivar cost: the approximate memory of this object, in bytes.
    """

    __slots__ = ("_ahead", "_behind", "_pieces", "_receipt_first", "cost", "id_at", "key")

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
        # The head without the receipt, in two pieces: before the id and after it. Without an id, all is after it.
        lines = len(_RECEIPT_LINE)
        without = [piece[:-lines] if piece.endswith(_RECEIPT_LINE) else piece for piece in pieces]
        if added:
            start, line_end, rest = without[0].partition(b"\r\n")
            without[0] = start + added + line_end + rest
        ahead = 0 if count == 1 else 2 if self._receipt_first else 1
        self._ahead = b"".join(without[:ahead])
        self._behind = b"".join(without[ahead:])
        self.id_at = len(self._ahead)
        self.cost = 500 + 6 * len(self.key)

    def split_run(self, messages: list[bytes], first: int, size: int) -> tuple[list[bytes], list[bytes]]:
        """
        Split consecutive messages from *first* on, up to the first one that has another head or is too large.

        :param messages: the messages of one read.
        :param first: the index of the first message to split.
        :param size: the most bytes of a message.
        :returns: the tokens, and the messages without the header ``receipt``. Both lists may be empty.
        """
        tokens: list[bytes] = []
        plain: list[bytes] = []
        before, middle, *last = self._pieces
        start, ahead, behind = len(before), self._ahead, self._behind
        for data in islice(messages, first, None):
            if len(data) > size or not data.startswith(before):
                break
            token, found, rest = data[start:].partition(middle)
            if not found or not _is_token(token):
                break
            if last:
                other, found, rest = rest.partition(last[0])
                if not found or not _is_token(other):
                    break
                if not self._receipt_first:
                    token, other = other, token
                plain.append(b"%b%b%b%b" % (ahead, other, behind, rest))
            else:
                plain.append(behind + rest)
            tokens.append(token)
        return tokens, plain

    def id_of(self, plain: bytes) -> str | None:
        """Return the message id of a message whose header ``receipt`` was removed; ``None`` if it has none."""
        if not self.id_at:
            return None
        return plain[self.id_at : plain.find(b"\r\n", self.id_at)].decode("ascii")


def receipt_message(token: bytes, pairs: Iterable[tuple[str, str]] = ()) -> bytes:
    """
    Return the bytes of a receipt.

    :param token: its token.
    :param pairs: the names and values of more headers. They must be well-formed.
    """
    lines = "".join(f"{name}:{value}\r\n" for name, value in pairs) if pairs else ""
    return _RECEIPT_TEXT % (token, lines.encode())


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
        self._placed: list[bytes] | None = None
        self._filed: list[Filing] | None = None
        self._archive = archive
        if archive is None:
            return
        if wanted.id_at or (is_kept and archive.store.spreads):
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
        """
        Return the receipts of the first *count* publications. Those whose outcome was not known at once get it when
        they are sent.
        """
        channels = (self._channel,)
        if self._filed is not None:
            return [
                (
                    receipt_message(token, () if filing.is_open else filing.headers()),
                    *(False, token.decode("ascii"), filing, channels),
                )
                for token, filing in zip(self._tokens[:count], self._filed, strict=False)
            ]
        kept = KEPT if self.is_kept else None
        if self._placed is None:
            return [
                (receipt_message(token), False, token.decode("ascii"), kept, channels) for token in self._tokens[:count]
            ]
        channel = self._channel.encode().replace(b"%", b"%%")
        text = _RECEIPT_TEXT % (b"%b", b"position:%b=%%b\r\n" % channel)
        return [
            (text % (token, position), False, token.decode("ascii"), kept, channels)
            for token, position in zip(self._tokens[:count], self._placed, strict=True)
        ]

    def refused(self, count: int) -> list[str]:
        """Return the tokens of the publications after the first *count*."""
        return [token.decode("ascii") for token in self._tokens[count:]]
