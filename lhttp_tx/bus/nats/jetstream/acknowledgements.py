"""
What a stream answers to publications.

A server writes ``{"stream":"NAME","seq":NUMBER}`` if it has stored one, and ``{"error":{…},"stream":"NAME","seq":0}``
if it has not. Used by :mod:`lhttp_tx.bus.nats.jetstream.appends`.
"""

from __future__ import annotations

import json
from itertools import repeat

from lhttp_tx.bus.nats.headers import Head, read_head

__all__ = ["IN_PROCESS", "NO_STREAM", "UNKNOWN", "read", "read_all"]

UNKNOWN = "the history store has not confirmed the publication: it is not known whether it is stored"
"""The error text for a publication without an acknowledgement."""

NO_STREAM = "no stream of NATS takes it: the stream was deleted, or JetStream is unavailable"
"""The error text for a publication that nobody has taken."""

IN_PROCESS = "another publication with the same message id is on its way into the stream"
"""The error text for a publication that would be a duplicate if an earlier one, which is not decided, is stored."""

_IN_PROCESS_CODE = 10158
"""The code that a stream with replicas gives to such a publication."""


def read(data: bytes, head: Head | None) -> tuple[int, bool, str]:
    """
    Read an acknowledgement.

    :param data: its payload.
    :param head: its NATS headers, or ``None``.
    :returns: the sequence number, whether the publication is a duplicate, and the error text. The text is empty if the
        stream has the publication. Else the number is 0.
    """
    if head is not None and "Status" in read_head(head):
        return 0, False, NO_STREAM
    end = data.rfind(b'"seq":')
    if end > 0 and data[end + 6 : -1].isdigit() and data[end + 6 : -1] != b"0":  # errors have 0 there
        return int(data[end + 6 : -1]), False, ""
    try:
        found = json.loads(data)
        if "error" in found:
            if found["error"].get("err_code") == _IN_PROCESS_CODE:
                return 0, False, IN_PROCESS
            return 0, False, f"JetStream: {found['error'].get('description') or found['error'].get('code')}"
        return int(found["seq"]), bool(found.get("duplicate")), ""
    except (ValueError, KeyError, TypeError, AttributeError):
        return 0, False, "JetStream gave an invalid answer"


def read_all(answers: list[bytes]) -> list[int] | None:
    """
    Return the sequence numbers of plain acknowledgements; ``None`` if one is not plain, such as a duplicate.

    :param answers: payloads, at least one. An error has the number 0.
    """
    begin = answers[0][: answers[0].rfind(b'"seq":') + 6]
    if len(begin) <= 6 or not all(map(bytes.startswith, answers, repeat(begin))):
        return None
    size = len(begin)
    try:
        return [int(each[size:-1]) for each in answers]
    except ValueError:
        return None
