"""
Passes the messages of a subscription to the owner of a link.

Used by :mod:`lhttp_tx.bus.nats.link`.
"""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Any

from lhttp_tx.bus.nats.headers import Head, binary_of, is_stored
from lhttp_tx.bus.nats.incoming import Run
from lhttp_tx.bus.nats.owner import LinkOwner
from lhttp_tx.codec.text import is_text

if TYPE_CHECKING:
    from lhttp_tx.bus.nats.link import Link

__all__ = ["pass_on"]


def pass_on(owner: LinkOwner, link: Link, run: Run[Any], wildcard: str | None = None) -> None:
    """
    Pass publications on. Consecutive publications of one kind go together.

    :param owner: the owner of *link*.
    :param link: the link that they came over.
    :param run: the publications.
    :param wildcard: the subject of the subscription that they came through, if it is a wildcard; else ``None``.
    """
    heads, payloads = run.heads, run.payloads
    if heads is None:
        _receive(owner, link, run.subject, payloads, False, wildcard)
    elif all(map(is_stored, heads)):
        owner.receive_stored(link, run.subject, heads, payloads, wildcard)
    else:
        begin = 0
        for (stored, binary), group in groupby(heads, _kind):
            end = begin + sum(1 for _ in group)
            if stored:
                owner.receive_stored(link, run.subject, heads[begin:end], payloads[begin:end], wildcard)
            else:
                _receive(owner, link, run.subject, payloads[begin:end], binary, wildcard)
            begin = end


def _kind(head: Head) -> tuple[bool, bool]:
    """Return whether a stream has stored the publication; and whether it is binary, if no stream has."""
    stored = is_stored(head)
    return stored, not stored and binary_of(head)


def _receive(
    owner: LinkOwner, link: Link, subject: str, payloads: list[bytes], binary: bool, wildcard: str | None
) -> None:
    """Pass publications on. Payloads that are not UTF-8 go to subscribers as binary, whatever *binary* is."""
    if binary or all(map(bytes.isascii, payloads)):
        owner.receive(link, subject, payloads, binary, wildcard)
        return
    for text, group in groupby(payloads, is_text):
        owner.receive(link, subject, list(group), not text, wildcard)
