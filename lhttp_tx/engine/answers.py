"""
Makes the server's own messages to a client: ``error``, ``close`` and ``missed``.

Sources: the protocol document, sections "Errors and receipts" and "Gaps". Used by sessions, the hub and the transports.
"""

from __future__ import annotations

import re

from twisted.internet.defer import CancelledError
from twisted.python.failure import Failure

from lhttp_tx.codec.limits import Limits
from lhttp_tx.codec.message import Message, Unreadable, parse_head, split_head
from lhttp_tx.errors import LHTTPError, LocalProtocolError
from lhttp_tx.observe.rationing import RationedLogger

__all__ = ["close_message", "error_message", "error_of", "is_told", "missed_message", "not_the_clients", "receipt_of"]

_log = RationedLogger(__name__)

_REASON_LENGTH = 200
"""The most characters of an error's reason that are sent to a client."""

_RECEIPTS = re.compile(rb"(?i)\r\nreceipt:([^\x00-\x08\x0a-\x1f\x7f]*)(?=\r\n)")
"""Finds ``receipt`` lines in a head that is otherwise malformed, so that its error can have a ``receipt-id``."""

_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f]+")


def error_of(failure: Failure, peer: str) -> tuple[int, str]:
    """
    Return the status and the reason that a client is told. Log the failure if the client did not cause it.

    :param peer: the address of the message's sender, for the log.
    """
    error = failure.value
    if isinstance(error, LHTTPError) and not isinstance(error, LocalProtocolError):
        if is_told(error):
            return error.status, error.reason
        _log.failure("{peer}: an error without a status of 400 to 599, or without a reason", failure, peer=peer)
    elif isinstance(error, CancelledError):
        return 500, "cancelled"
    else:
        _log.failure("{peer}: a processor or filter failed", failure, peer=peer)
    return 500, "internal error"


def is_told(error: LHTTPError) -> bool:
    """Return whether *error* may be sent to a client as it is. A user's code may have set any status and any reason."""
    status: object = error.status
    is_status = isinstance(status, int) and not isinstance(status, bool) and 400 <= status <= 599
    return is_status and isinstance(error.reason, str)


def not_the_clients(error: LHTTPError) -> Failure:
    """Return the failure of a filter that has replaced a valid head by a malformed one."""
    try:
        raise LocalProtocolError(f"a filter has set an invalid head: {error.reason}") from error
    except LocalProtocolError:
        return Failure()


def error_message(status: int, reason: str, receipt: str | None) -> Message:
    """
    Return an ``error`` message for a client.

    :param status: 400 to 599.
    :param reason: text for people. Runs of control characters become one blank, and the text is cut to 200 characters.
    :param receipt: the token of the receipt that the client's message asked for; ``None`` if it asked for none.
    """
    text = _one_line(reason, _REASON_LENGTH)
    pairs = [("status", str(status)), ("reason", text)]
    if receipt is not None:
        pairs.append(("receipt-id", receipt))
    return Message("error", pairs)


def close_message(code: int, reason: str) -> Message:
    """
    Return the message that tells a client why its connection ends. It is for transports that have no close frame.

    :param code: a WebSocket close code.
    :param reason: as for :func:`error_message`, but not cut.
    """
    return Message("close", [("code", str(code)), ("reason", _one_line(reason))])


def missed_message(channel: str, position: str | None) -> Message:
    """
    Return the message that tells a subscriber that publications were missed.

    :param channel: the channel, or the wildcard subscription.
    :param position: the position after which the publications continue; ``None`` in a channel without history.
    """
    return Message("missed", [("channel", channel), *([] if position is None else [("position", position)])])


def _one_line(text: str, length: int | None = None) -> str:
    return _UNPRINTABLE.sub(" ", text)[:length].encode("utf-8", "replace").decode("utf-8").strip()


def receipt_of(data: bytes, limits: Limits) -> str | None:
    """
    Return the token of the receipt that a refused message asked for, if the token can be read.

    :param data: the whole message, which may be too large, or malformed.
    """
    if isinstance(data, Unreadable):
        return data.receipt
    try:
        # Most of the body is left out, so that a message that is too large can be read here, too.
        head = split_head(data[: min(limits.head_size + 4, limits.message_size)], limits)
        return parse_head(head, limits).headers.get("receipt")
    except LHTTPError:
        # Of a head that is too large, only the end is searched: clients write this header last.
        head = data[: limits.message_size].partition(b"\r\n\r\n")[0] + b"\r\n"
        found = _RECEIPTS.findall(head, max(0, len(head) - limits.head_size))
        return found[-1].decode("utf-8", "replace").strip() if found else None
