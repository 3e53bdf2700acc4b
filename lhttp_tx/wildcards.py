"""
Wildcard subscriptions: which of them a channel belongs to.

Pure; used by the buses. A token ``*`` stands for one token of a channel's name, ``>`` at the end for one or more. The
server's own channels, whose names begin with ``$`` or ``_``, belong to none.
"""

from __future__ import annotations

from typing import Any

__all__ = ["Wildcards", "is_wildcard"]

_NAME = ""
"""The key under which a node holds the wildcard subscription that ends there; no token is empty."""


def is_wildcard(name: str) -> bool:
    """
    Return whether *name*, which is valid, is a wildcard subscription and no channel.

    >>> is_wildcard("room.*"), is_wildcard("room.>"), is_wildcard("room.*x")
    (True, True, False)
    """
    return ("*" in name or ">" in name) and not {"*", ">"}.isdisjoint(name.split("."))


class Wildcards:
    """A set of wildcard subscriptions. What it costs to look a channel up does not depend on how many there are."""

    def __init__(self) -> None:
        self._root: dict[str, Any] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, name: str) -> None:
        """Add a wildcard subscription; once more changes nothing."""
        node = self._root
        for token in name.split("."):
            node = node.setdefault(token, {})
        if _NAME not in node:
            node[_NAME] = name
            self._count += 1

    def discard(self, name: str) -> None:
        """Take a wildcard subscription away, if it is there."""
        path = [self._root]
        tokens = name.split(".")
        for token in tokens:
            if token not in path[-1]:
                return
            path.append(path[-1][token])
        if path[-1].pop(_NAME, None) is None:
            return
        self._count -= 1
        for token in reversed(tokens):
            if path.pop():
                return
            del path[-1][token]

    def matching(self, channel: str) -> list[str]:
        """
        Return the wildcard subscriptions that *channel* belongs to.

        >>> wildcards = Wildcards()
        >>> for name in ("room.*", "room.>", "*.7", "room.*.names"):
        ...     wildcards.add(name)
        >>> sorted(wildcards.matching("room.7"))
        ['*.7', 'room.*', 'room.>']
        """
        found: list[str] = []
        if channel[:1] in ("$", "_"):
            return found
        nodes = [self._root]
        for token in channel.split("."):
            following = []
            for node in nodes:
                if ">" in node:
                    found.append(node[">"][_NAME])
                following += [node[key] for key in (token, "*") if key in node]
            nodes = following
        found += [node[_NAME] for node in nodes if _NAME in node]
        return found
