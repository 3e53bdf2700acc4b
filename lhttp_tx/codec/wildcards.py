"""
Finds the wildcard subscriptions that match a channel.

No I/O. Used by the buses and by sessions. A token ``*`` stands for one token of a channel's name. ``>`` at the end
stands for one or more tokens. No wildcard matches the server's own channels, whose names begin with ``$`` or ``_``.
"""

from __future__ import annotations

from itertools import count, takewhile
from operator import eq, truth

from lhttp_tx.codec.cache import Generations

__all__ = ["Wildcards", "is_wildcard"]

_ROOT = 0
"""The root node of all names. Other nodes have higher numbers, so their numbers are true in conditions."""

_CACHE_SIZE = 4_194_304
"""The most bytes of the cache of results."""

_FOUND_COST = 600
"""
Bytes of memory of a cached result, in addition to 4 for each character of the channel and 8 for each wildcard
subscription. Measured, and rounded up.
"""


def is_wildcard(name: str) -> bool:
    """
    Return whether *name* is a wildcard subscription, rather than a channel. It must be valid.

    >>> is_wildcard("room.*"), is_wildcard("room.>"), is_wildcard("room.*x")
    (True, True, False)
    """
    return ("*" in name or ">" in name) and not {"*", ">"}.isdisjoint(name.split("."))


class _Found:
    """
    The wildcard subscriptions that match a channel.

    :ivar names: these subscriptions.
    :ivar cost: the approximate memory of this object, in bytes.
    """

    __slots__ = ("cost", "names")

    def __init__(self, channel: str, names: list[str]) -> None:
        self.names = names
        self.cost = _FOUND_COST + 4 * len(channel) + 8 * len(names)


class Wildcards:
    """
    A set of wildcard subscriptions.

    Results are cached until the set changes. The work of a search depends only on the number of subscriptions that it
    finds, not on that of all subscriptions. Suppose that wildcards have up to *n* tokens, and up to *k* of these are
    ``*``. Then a search visits, for each of the first *n* tokens, at most one node for each way to replace up to *k* of
    the tokens so far by ``*``. These are 128 nodes if *n* is 8 and *k* is 2 (:class:`lhttp_tx.codec.limits.Limits`). If
    a channel has the same beginning as the channel of the search before, the search does not repeat this part.
    """

    def __init__(self, cache_size: int = _CACHE_SIZE) -> None:
        """:param cache_size: the most bytes of the cache of results."""
        self._edges: dict[str, dict[int, int]] = {}
        self._passing: dict[int, int] = {}
        self._ends: dict[int, str] = {}
        self._names: set[str] = set()
        self._new = count(_ROOT + 1)
        self._cache: Generations[str, _Found] = Generations(cache_size)
        self._tokens: list[str] = []  # of the channel of the last search
        self._trail: list[tuple[list[int], list[str]]] = []  # the state of that search after each token

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
        Return whether a wildcard subscription has a first token that fits *channel*. This is cheaper than caching an
        empty result.
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
        # The nodes that match the tokens so far, and the names that match any continuation.
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
