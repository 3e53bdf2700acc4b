"""
The methods of the API that list and show things. They change nothing.

A part of :mod:`lhttp_tx.web.admin.calls`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import chain
from operator import itemgetter
from typing import Any

from twisted.internet.interfaces import IReactorTime

from lhttp_tx.codec.wildcards import is_wildcard
from lhttp_tx.web.admin.incidents import KINDS
from lhttp_tx.web.admin.keys import AdminKey
from lhttp_tx.web.admin.managed import Managed
from lhttp_tx.web.admin.problems import Problem
from lhttp_tx.web.admin.rates import MAX_SAMPLES

__all__ = ["PAGE", "Lookups", "Params", "Told"]

PAGE = 100
"""The most entries in an answer if the call has no ``limit``."""

_FOUND = 20
"""The most results of each kind in a search if the call has no ``limit``."""

_KINDS = ("user", "connection", "channel")
"""The kinds of results in a search."""

Params = Mapping[str, Any]
Told = dict[str, Any]


class Lookups:
    """The methods, by their names: ``do_NAME``. Each takes parameters and the key."""

    def __init__(self, managed: Managed, clock: IReactorTime) -> None:
        """
        :param managed: the server.
        :param clock: the reactor.
        """
        self._managed = managed
        self._clock = clock

    async def do_channels(self, params: Params, key: AdminKey) -> Told:
        """List channels."""
        pattern = params.get("pattern")
        if pattern is not None and not key.may_use(pattern):
            raise Problem(403, f"the key {key.name} may not use all channels that match {pattern}")
        patterns = list(key.channels) if pattern is None else [pattern]
        pages, unanswered = await self._survey("channel_page", params, patterns=patterns)
        counts: dict[str, int] = {}
        for page in pages.values():
            for name, count in page:
                counts[name] = counts.get(name, 0) + count
        names, more = _first(counts, pages, params)
        told: Told = {"channels": [{"channel": name, "subscribers": counts[name]} for name in names]}
        return _paged(told, names, more, unanswered)

    async def do_connections(self, params: Params, key: AdminKey) -> Told:
        """List connections."""
        if not (key.has_all_channels or "channel" in params):
            raise Problem(403, f"the key {key.name} may not use all channels: ask for the connections of a channel")
        some = {name: params[name] for name in ("user", "connection", "channel") if name in params}
        pages, unanswered = await self._survey("connection_page", params, **some)
        found = {row["connection"]: {**row, "node": node} for node, page in pages.items() for row in page}
        for row in found.values():
            row["channels"] = [channel for channel in row["channels"] if key.may_use(channel)]
        names, more = _first(found, pages, params)
        return _paged({"connections": [found[name] for name in names]}, names, more, unanswered)

    async def do_connection(self, params: Params, key: AdminKey) -> Told:
        """Show one connection."""
        if not key.has_all_channels:
            raise Problem(403, f"the key {key.name} may not use all channels, so it may not look at a connection")
        answers, unanswered = await self._managed.control.survey("connection", connection=params["connection"])
        for node, found in answers.items():
            for row in found:
                return {**row, "node": node, "unanswered": list(unanswered)}
        missing = f"; {len(unanswered)} nodes did not answer" if unanswered else ""
        raise Problem(404, f"there is no connection {params['connection'][:64]!a}{missing}")

    async def do_search(self, params: Params, key: AdminKey) -> Told:
        """Find users, connections and channels."""
        kinds = [kind for kind in _KINDS if key.may_call(f"{kind}s") and (kind != "connection" or key.has_all_channels)]
        limit = int(params.get("limit", _FOUND))
        answers, unanswered = await self._managed.control.survey(
            "search", text=params["text"], kinds=kinds, patterns=list(key.channels), limit=limit + 1
        )
        found: dict[tuple[str, str], Told] = {}
        for kind, name, count, *address in chain.from_iterable(answers.values()):
            row = found.setdefault((kind, name), {"kind": kind, "name": name, "count": 0})
            row["count"] += count
            if address:
                row["address"] = address[0]
        rows: list[Told] = []
        more = False
        for kind in kinds:
            names = sorted(name for found_kind, name in found if found_kind == kind)
            more = more or len(names) > limit
            rows += [found[kind, name] for name in names[:limit]]
        return {"found": rows, "more": more, "unanswered": list(unanswered)}

    async def do_users(self, params: Params, key: AdminKey) -> Told:
        """List users."""
        pages, unanswered = await self._survey("user_page", params)
        counts: dict[str, int] = {}
        for page in pages.values():
            for name, count in page:
                counts[name] = counts.get(name, 0) + count
        names, more = _first(counts, pages, params)
        return _paged(
            {"users": [{"user": name, "connections": counts[name]} for name in names]}, names, more, unanswered
        )

    async def do_mutes(self, params: Params, key: AdminKey) -> Told:
        """List muted users."""
        pages, unanswered = await self._survey("mute_page", params)
        left: dict[str, int] = {}
        for page in pages.values():
            for name, seconds in page:
                left[name] = max(seconds, left.get(name, 0))
        names, more = _first(left, pages, params)
        return _paged({"mutes": [{"user": name, "seconds": left[name]} for name in names]}, names, more, unanswered)

    async def do_nodes(self, params: Params, key: AdminKey) -> Told:
        """List nodes."""
        answers, unanswered = await self._managed.control.survey("info")
        return {"nodes": [{"node": name, **told} for name, told in answers.items()], "unanswered": list(unanswered)}

    async def do_rates(self, params: Params, key: AdminKey) -> Told:
        """List samples."""
        answers, unanswered = await self._managed.control.survey(
            "rates", since=int(params.get("since", 0)), limit=int(params.get("limit", MAX_SAMPLES))
        )
        samples = [{"node": node, **sample} for node, found in answers.items() for sample in found]
        return {"samples": sorted(samples, key=itemgetter("time")), "unanswered": list(unanswered)}

    async def do_incidents(self, params: Params, key: AdminKey) -> Told:
        """List incidents."""
        if not key.has_all_channels:
            raise Problem(403, f"the key {key.name} may not use all channels, so it may not see what happens in them")
        kinds = [params["kind"]] if "kind" in params else list(KINDS)
        limit = int(params.get("limit", PAGE))
        answers, unanswered = await self._managed.control.survey("incidents", kinds=kinds, limit=limit)
        found = [{"node": node, **row} for node, rows in answers.items() for row in rows]
        found.sort(key=itemgetter("time"), reverse=True)
        return {"incidents": found[:limit], "unanswered": list(unanswered)}

    async def do_trace(self, params: Params, key: AdminKey) -> Told:
        """Follow messages."""
        kind, name, bodies = params["kind"], params["name"], params.get("bodies", False)
        if kind != "channel" and not key.has_all_channels:
            raise Problem(403, f"the key {key.name} may not use all channels: it may trace only a channel")
        if kind == "channel" and not _may_trace(key, name):
            raise Problem(403, f"the key {key.name} may not use the channel {name[:64]!a}")
        if bodies and not key.may_call("trace_bodies"):
            raise Problem(403, f"the key {key.name} may not see bodies: it lacks trace_bodies")
        answers, unanswered = await self._managed.control.survey(
            "trace",
            key=key.name,
            trace=params["trace"],
            kind=kind,
            name=name,
            bodies=bodies,
            after=params.get("after", {}),
            stop=params.get("stop", False),
        )
        messages = [{"node": node, **row} for node, told in answers.items() for row in told["messages"]]
        return {
            "messages": sorted(messages, key=itemgetter("time", "number")),
            "after": {node: told["number"] for node, told in answers.items()},
            "dropped": sum(told["dropped"] for told in answers.values()),
            "full": [node for node, told in answers.items() if told.get("full")],
            "unanswered": list(unanswered),
        }

    async def do_info(self, params: Params, key: AdminKey) -> Told:
        """Describe this node."""
        managed = self._managed
        answers, unanswered = await managed.control.survey("info")
        return {
            "node": managed.nodes.name,
            "version": managed.version,
            "started": managed.started,
            "bus": getattr(managed.bus, "description", type(managed.bus).__name__),
            "bus_up": bool(managed.bus.available),
            "history": managed.histories.store.description if managed.histories.is_active else "none",
            "history_up": managed.histories.available,
            "nodes": len(answers) + len(unanswered),
            "connections": sum(told["connections"] for told in answers.values()),
            "unanswered": list(unanswered),
        }

    async def _survey(self, do: str, params: Params, **details: Any) -> tuple[dict[str, Any], tuple[str, ...]]:
        after, limit = params.get("cursor", ""), int(params.get("limit", PAGE))
        return await self._managed.control.survey(do, after=after, limit=limit + 1, **details)


def _may_trace(key: AdminKey, channel: str) -> bool:
    """Return whether the scope of *key* contains a channel. Its name need not be valid."""
    return key.has_all_channels or (not is_wildcard(channel) and key.may_use(channel))


def _first(found: Iterable[str], pages: Mapping[str, list[Any]], params: Params) -> tuple[list[str], bool]:
    """Return the names of one page, in order, and whether there are more."""
    limit = int(params.get("limit", PAGE))
    names = sorted(found)
    return names[:limit], len(names) > limit or any(len(page) > limit for page in pages.values())


def _paged(told: Told, names: list[str], more: bool, unanswered: tuple[str, ...]) -> Told:
    told["unanswered"] = list(unanswered)
    if more and names:
        told["next"] = names[-1]
    return told
