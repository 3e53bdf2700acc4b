"""
Identifies the node and the link of a publication, so that nodes drop publications of a link that its node has replaced.

If a NATS server or the network to it pauses, publications may arrive long after their node has moved to another link.
They may be duplicates, or arrive after newer ones. So each publication of a node has a mark. The mark is in the reply
subject of NATS, because there it takes only some bytes, and needs no headers. Nobody replies. Pure logic without I/O,
used by :mod:`lhttp_tx.bus.nats.incoming` and :mod:`lhttp_tx.bus.nats.bus`. Source: the protocol document, section
"Cluster".
"""

from __future__ import annotations

import secrets
from typing import Final, final

__all__ = ["MAX_NODES", "Origin", "Origins"]

MAX_NODES: Final = 4_096
"""Nodes whose newest link is remembered. Beyond that, those that came first are forgotten."""

_BEGIN: Final = b"_L."
"""How marks begin. The identity of the node follows, a dot, and the number of its link."""

_INNER: Final = b"." + _BEGIN

_MAX_DIGITS = 15


@final
class Origin:
    """
    One link of one node.

    :ivar late: whether what it brings is to be dropped: the node has a newer link, or is this node.
    """

    __slots__ = ("late", "number")

    def __init__(self, number: int, late: bool) -> None:
        self.number = number
        self.late = late


@final
class Origins:
    """
    What one node knows of the links of all nodes.

    :ivar node: the identity of this node, new for each start of the process.
    """

    def __init__(self) -> None:
        self.node = secrets.token_urlsafe(6).encode("ascii")
        self._count = 0
        self._newest: dict[bytes, Origin] = {}

    def begin(self) -> bytes:
        """Return the mark of a link of this node that is used from now on. It counts as newer than those before it."""
        self._count += 1
        return b"%b%b.%d" % (_BEGIN, self.node, self._count)

    def find(self, mark: bytes) -> Origin | None:
        """
        Return where a message comes from; ``None`` if it is none of a node's publications.

        :param mark: its subject for answers. NATS may have written something before it, and later versions may write
            something behind it.

        >>> other = Origins()
        >>> here, old, new = Origins(), other.begin(), other.begin()
        >>> [here.find(mark).late for mark in (old, new, old)]
        [False, False, True]
        """
        begin = 0 if mark.startswith(_BEGIN) else mark.rfind(_INNER) + 1
        words = mark[begin + 3 :].split(b".") if begin or mark.startswith(_BEGIN) else ()
        if len(words) < 2 or not words[1].isdigit() or len(words[1]) > _MAX_DIGITS:
            return None
        node, number = words[0], int(words[1])
        if node == self.node:
            return Origin(number, True)
        newest = self._newest.get(node)
        if newest is None or number > newest.number:
            if newest is not None:
                newest.late = True
            elif len(self._newest) >= MAX_NODES:
                del self._newest[next(iter(self._newest))]
            newest = self._newest[node] = Origin(number, False)
        return newest if number == newest.number else Origin(number, True)
