"""
Finds the wildcard subscriptions that match a channel.

Pure; used by the buses. A token ``*`` stands for one token of a channel's name, ``>`` at the end for one or more. No
wildcard matches the server's own channels, whose names begin with ``$`` or ``_``.
"""

from __future__ import annotations

from itertools import count, takewhile
from operator import eq, truth

from lhttp_tx.codec.cache import Generations

__all__ = ["Wildcards", "is_wildcard"]

_ROOT = 0
"""The root node of all names. Other nodes have higher numbers, so that the number of a found node is true."""

_CACHE_SIZE = 4_194_304
"""The most bytes of the cache of results for channels."""

_FOUND_COST = 600
"""Bytes of a cached channel, in addition to its name and 8 for each wildcard subscription; measured, and rounded up."""


def is_wildcard(name: str) -> bool:
    """
    Return whether *name*, which must be valid, is a wildcard subscription rather than a channel.

    >>> is_wildcard("room.*"), is_wildcard("room.>"), is_wildcard("room.*x")
    (True, True, False)
    """
    return ("*" in name or ">" in name) and not {"*", ">"}.isdisjoint(name.split("."))


class _Found:
    """
    The wildcard subscriptions that match a channel.

    :ivar cost: their memory in bytes, approximately.
    """

    __slots__ = ("cost", "names")

    def __init__(self, channel: str, names: list[str]) -> None:
        self.names = names
        self.cost = _FOUND_COST + 4 * len(channel) + 8 * len(names)


class Wildcards:
    """
    A set of wildcard subscriptions.

    The results for a channel are cached until the set changes. The work of a search does not depend on the number of
    wildcard subscriptions, except those found. Suppose that wildcards have up to *n* tokens, and up to *k* of these are
    ``*``. Then a search visits at most one node for each way to replace up to *k* tokens by stars, for each of the
    first *n* tokens: 128 nodes if *n* is 8 and *k* is 2 (:class:`lhttp_tx.codec.limits.Limits`). If a channel begins
    like the one searched before it, as in a list, the search does not repeat the common part.
    """

    def __init__(self, cache_size: int = _CACHE_SIZE) -> None:
        """:param cache_size: the most bytes of the cache of results."""
        self._edges: dict[str, dict[int, int]] = {}
        self._passing: dict[int, int] = {}
        self._ends: dict[int, str] = {}
        self._names: set[str] = set()
        self._new = count(_ROOT + 1)
        self._cache: Generations[str, _Found] = Generations(cache_size)
        self._tokens: list[str] = []  # of the channel searched last
        self._trail: list[tuple[list[int], list[str]]] = []  # the state of the search after each of these

    def __len__(self) -> int:
        return len(self._names)

    def add(self, name: str) -> None:
        """Add a wildcard subscription. Adding it again changes nothing."""
        if name in self._names:
            return
        self._names.add(name)
        self._cache.clear()
        self._tokens = []
        self._trail.clear()
        node = _ROOT
        for token in name.split("."):
            edges = self._edges.setdefault(token, {})
            node = edges.get(node) or edges.setdefault(node, next(self._new))
            self._passing[node] = self._passing.get(node, 0) + 1
        self._ends[node] = name

    def discard(self, name: str) -> None:
        """Remove a wildcard subscription, if it is in the set."""
        if name not in self._names:
            return
        self._names.discard(name)
        self._cache.clear()
        self._tokens = []
        self._trail.clear()
        node = _ROOT
        for token in name.split("."):
            edges = self._edges[token]
            parent, node = node, edges[node]
            self._passing[node] -= 1
            if not self._passing[node]:
                del self._passing[node], edges[parent]
                if not edges:
                    del self._edges[token]
        del self._ends[node]

    def matching(self, channel: str) -> list[str]:
        """
        Return the wildcard subscriptions that match *channel*. Do not change the list.

        >>> wildcards = Wildcards()
        >>> for name in ("room.*", "room.>", "*.7", "room.*.names"):
        ...     wildcards.add(name)
        >>> sorted(wildcards.matching("room.7"))
        ['*.7', 'room.*', 'room.>']
        """
        found = self._cache.young.get(channel)
        if found is None and not self._may_match(channel):
            return []
        if found is None:
            found = self._cache.get(channel)
        if found is None:
            found = _Found(channel, self._find(channel))
            self._cache.put(channel, found)
        return found.names

    def _may_match(self, channel: str) -> bool:
        """
        Return whether a wildcard subscription begins like *channel*. This is cheaper than caching an empty result.
        """
        edges = self._edges
        first = channel.partition(".")[0]
        return _ROOT in edges.get(first, ()) or _ROOT in edges.get("*", ()) or _ROOT in edges.get(">", ())

    def _find(self, channel: str) -> list[str]:
        if channel[:1] in ("$", "_"):
            return []
        tokens = channel.split(".")
        trail = self._trail
        same = len([*takewhile(truth, map(eq, self._tokens, tokens))])
        del trail[same:]
        self._tokens = tokens
        # The nodes that fit the channel as far as it was read, and the names that fit any continuation.
        nodes, found = trail[-1] if trail else ([_ROOT], [])
        stars, rests = self._edges.get("*", {}), self._edges.get(">", {})
        for token in tokens[same:]:
            if not nodes:
                return found
            if rests:
                found = found + [self._ends[node] for node in filter(None, map(rests.get, nodes))]
            edges = self._edges.get(token)
            following = [] if edges is None else list(filter(None, map(edges.get, nodes)))
            following += filter(None, map(stars.get, nodes))
            nodes = following
            trail.append((nodes, found))
        return found + [self._ends[node] for node in nodes if node in self._ends]
