"""
What a client is told when a message was not handled: the status, the reason, and which message it was.

Source: the protocol document, section "Errors and receipts". Used by :mod:`lhttp_tx.session`.
"""

from __future__ import annotations

import re

from twisted.internet.defer import CancelledError
from twisted.logger import Logger
from twisted.python.failure import Failure

from lhttp_tx.errors import LHTTPError, LocalProtocolError
from lhttp_tx.limits import Limits
from lhttp_tx.message import Message, parse_head, split_head

__all__ = ["error_message", "error_of", "receipt_of"]

_log = Logger()

_REASON_LENGTH = 200
"""Characters of an error's reason that a client is told."""

_RECEIPTS = re.compile(rb"(?i)\r\nreceipt:([^\x00-\x08\x0a-\x1f\x7f]*)(?=\r\n)")
"""Receipt lines of a head that is malformed elsewhere, so that its sender does not wait for ever."""

_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f]+")


def error_of(failure: Failure, peer: str) -> tuple[int, str]:
    """
    Return the status and the reason that a client is told; the log is told what was not the client's fault.

    :param peer: whose message it was, for the log.
    """
    error = failure.value
    if isinstance(error, LHTTPError) and not isinstance(error, LocalProtocolError):
        status, reason = error.status, error.reason
        if isinstance(status, int) and isinstance(reason, str):
            return status, reason
        _log.failure("{peer}: an error without a status or a reason", failure, peer=peer)
    elif isinstance(error, CancelledError):
        return 500, "cancelled"
    else:
        _log.failure("{peer}: a processor or filter failed", failure, peer=peer)
    return 500, "internal error"


def error_message(status: int, reason: str, receipt: str | None) -> Message:
    """
    Return the message that tells a client what went wrong.

    :param reason: for people; what may not stand in a header is left out, and what is too long cut off.
    :param receipt: the token of the receipt that the message had asked for.
    """
    text = _UNPRINTABLE.sub(" ", reason)[:_REASON_LENGTH].encode("utf-8", "replace").decode("utf-8").strip()
    pairs = [("status", str(status)), ("reason", text)]
    if receipt is not None:
        pairs.append(("receipt-id", receipt))
    return Message("error", pairs)


def receipt_of(data: bytes, limits: Limits) -> str | None:
    """
    Return the token of the receipt that a refused message asked for, if that much of it can be read.

    :param data: the whole message, which may be too large, or malformed.
    """
    try:
        # Without most of the body, so that a message that is refused for its size is answered too.
        head = split_head(data[: min(limits.head_size + 4, limits.message_size)], limits)
        return parse_head(head, limits).headers.get("receipt")
    except LHTTPError:
        found = _RECEIPTS.findall(data[: limits.head_size].partition(b"\r\n\r\n")[0] + b"\r\n")
        return found[-1].decode("utf-8", "replace").strip() if found else None
