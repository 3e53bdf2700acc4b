"""
The methods of the API. Each works for the whole cluster.

:mod:`lhttp_tx.web.admin.answering` calls them with checked parameters. They return JSON values.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from typing import Any, cast

from twisted.internet.defer import Deferred

from lhttp_tx.cluster.control import Reached
from lhttp_tx.codec.limits import UNLIMITED
from lhttp_tx.codec.message import Message, parse_head
from lhttp_tx.codec.plain import usual_head, usual_pairs
from lhttp_tx.codec.positions import format_position, parse_position
from lhttp_tx.codec.text import is_text
from lhttp_tx.history.pages import PAYLOAD, READ_SHARE, checked
from lhttp_tx.history.turns import rework_of
from lhttp_tx.history.values import Filing, Page, Retention, Stored
from lhttp_tx.observe.schemas import MUTE_SECONDS
from lhttp_tx.web.admin.keys import AdminKey
from lhttp_tx.web.admin.lookups import PAGE, Lookups, Params, Told
from lhttp_tx.web.admin.problems import Problem

__all__ = ["Calls"]

_ANSWER_SIZE = 1_048_576
"""The approximate bytes of a history's messages in one answer. It contains at least one message."""

_AT_ONCE = 32
"""Messages of a history that are converted before others may get their turn."""

_PATIENCE = 10.0
"""Seconds within which a history store must answer."""

_SERVERS_OWN = frozenset({"publish", "subscribe", "unsubscribe", "receipt", "upstream", "message-id", "store", "offset",
                          "after"})  # fmt: skip
"""Headers that publish and broadcast refuse, because there are parameters for them, or the server writes them."""


class Calls(Lookups):
    """The methods, by their names: ``do_NAME``. Each takes parameters and the key, and may return a Deferred."""

    async def call(self, name: str, params: Params, key: AdminKey) -> Told:
        """
        Call a method.

        :raises Problem: if it is refused.
        :raises LHTTPError: if it fails.
        """
        method: Callable[[Params, AdminKey], Any] = getattr(self, f"do_{name}")
        return cast(Told, await method(params, key))

    # Messages

    async def do_publish(self, params: Params, key: AdminKey) -> Told:
        """Publish to one channel."""
        return await self._publish([params["channel"]], params)

    async def do_broadcast(self, params: Params, key: AdminKey) -> Told:
        """Publish to several channels."""
        return await self._publish(list(dict.fromkeys(params["channels"])), params)

    async def _publish(self, channels: list[str], params: Params) -> Told:
        headers = params.get("headers", {})
        for name in headers:
            if name.lower() in _SERVERS_OWN:
                raise Problem(400, f"the header {name} is set by a parameter or by the server: leave it out")
        body = base64.b64decode(params["body_base64"]) if "body_base64" in params else params.get("body", "").encode()
        pairs = [("publish", " ".join(channels)), *headers.items()]
        message_id = params.get("message_id")
        pairs += [("message-id", message_id)] if message_id is not None else []
        pairs += [] if params.get("store", True) else [("store", "no")]
        message = Message(params["command"], pairs, body, binary="body_base64" in params)
        engine = self._managed.engine
        message = engine.defaults.complete_message(message, engine.limits)
        limit = engine.limits.message_size
        if len(message.raw) > limit:
            raise Problem(413, f"the message has {len(message.raw)} bytes, and at most {limit} are allowed")
        filing = Filing(message_id, params.get("store", True))
        waiting = engine.publish_message(message, filing)
        if waiting is not None:
            await waiting
        if filing.failure is not None:
            raise filing.failure
        told: Told = {"channels": channels}
        if filing.positions:
            told["positions"] = filing.positions
        if filing.duplicate:
            told["duplicate"] = True
        return told

    # Connections

    async def do_subscribe(self, params: Params, key: AdminKey) -> Told:
        """Subscribe connections."""
        return _reached(await self._managed.control.subscribe(params["channels"], **_whom(params)))

    async def do_unsubscribe(self, params: Params, key: AdminKey) -> Told:
        """End subscriptions."""
        return _reached(await self._managed.control.unsubscribe(params["channels"], **_whom(params)))

    async def do_disconnect(self, params: Params, key: AdminKey) -> Told:
        """Close connections."""
        code, reason = int(params.get("code", 4000)), params.get("reason", "")
        return _reached(await self._managed.control.close(**_whom(params), code=code, reason=reason))

    async def do_mute(self, params: Params, key: AdminKey) -> Told:
        """Mute a user or a connection."""
        seconds = int(params.get("seconds", MUTE_SECONDS))
        return _reached(await self._managed.control.mute(**_whom(params), seconds=seconds, by=_named(key)))

    async def do_unmute(self, params: Params, key: AdminKey) -> Told:
        """Lift mutes."""
        return _reached(await self._managed.control.unmute(**_whom(params), by=_named(key)))

    async def do_refresh(self, params: Params, key: AdminKey) -> Told:
        """Set when logins expire."""
        if self._managed.engine.watch_expiry is None:
            raise Problem(409, "clients do not log in to this server, so no login expires")
        answers, unanswered = await self._managed.control.survey(
            "refresh", expires=int(params["expires"]), **_whom(params)
        )
        return {"count": sum(answers.values()), "unanswered": list(unanswered)}

    # Presence

    async def do_presence(self, params: Params, key: AdminKey) -> Told:
        """List people."""
        people = self._people(params["channel"])
        cursor = params.get("cursor", "0")
        if not re.fullmatch("[0-9]{1,9}", cursor):
            raise Problem(400, "cursor is not the value of next in an answer")
        first, limit = int(cursor), int(params.get("limit", PAGE))
        told: Told = {"people": people[first : first + limit]}
        if first + limit < len(people):
            told["next"] = str(first + limit)
        return told

    async def do_presence_stats(self, params: Params, key: AdminKey) -> Told:
        """Count people."""
        self._check_presence(params["channel"])
        people, connections = self._managed.presence.count(params["channel"])
        return {"people": people, "connections": connections}

    def _people(self, channel: str) -> list[dict[str, Any]]:
        self._check_presence(channel)
        return self._managed.presence.people(channel)

    def _check_presence(self, channel: str) -> None:
        if not self._managed.members.has_presence(channel):
            raise Problem(404, f"the server does not keep the presence of {channel!a}")

    # Histories

    async def do_history(self, params: Params, key: AdminKey) -> Told:
        """Read a history."""
        channel = params["channel"]
        retention = self._retention(channel)
        waiting = self._managed.histories.archive.turns.wait()
        if waiting is not None:
            await waiting
        store = self._managed.histories.store
        epoch = store.epoch_of(retention)
        limit = int(params.get("limit", PAGE))
        missed = False
        if "since" in params:
            known, offset = parse_position(params["since"])
            missed = known != epoch
            after = 0 if missed else offset
            page = await self._wait(store.read(channel, retention, after=after, limit=limit, size=_ANSWER_SIZE))
            missed = missed or not page.reaches
        else:
            before = 0
            if "before" in params:
                known, offset = parse_position(params["before"])
                if known != epoch:
                    raise Problem(409, "the history was reset after that position")
                before = max(offset, 1)
            page = await self._wait(store.newest(channel, retention, before=before, limit=limit, size=_ANSWER_SIZE))
        messages = page.messages
        self._managed.histories.archive.turns.spend(0, len(messages) // READ_SHARE)
        forward = "since" in params
        tip = messages[-1].offset if forward and messages and page.more else page.tip
        told: Told = {
            "position": format_position(epoch, tip),
            "messages": await self._told_all(messages, epoch),
            "more": page.more,
        }
        return told | ({"missed": True} if missed else {})

    async def _told_all(self, messages: list[Stored], epoch: str) -> list[Told]:
        """Convert messages, a few in each turn of the reactor."""
        turns = self._managed.histories.archive.turns
        found: list[Told] = []
        for start in range(0, len(messages), _AT_ONCE):
            waiting = turns.wait()
            if waiting is not None:
                await waiting
            some = messages[start : start + _AT_ONCE]
            payloads = [*map(PAYLOAD, some)]
            turns.spend(sum(map(len, payloads)) + sum(rework_of(payloads)), len(some))
            found += [_told(stored, epoch) for stored in some]
        return found

    async def do_history_remove(self, params: Params, key: AdminKey) -> Told:
        """Remove a history."""
        retention = self._retention(params["channel"])
        removing = self._managed.histories.store.remove(params["channel"], retention)
        if removing is not None:
            await removing.addTimeout(_PATIENCE, self._clock, _too_slow)
        return {}

    def _retention(self, channel: str) -> Retention:
        retention = self._managed.histories.archive.retention(channel)
        if retention is None:
            raise Problem(404, f"channel {channel!a} has no history")
        return retention

    async def _wait(self, found: Page | Deferred[Page]) -> Page:
        known = checked(found)
        if isinstance(known, Deferred):
            return cast(Page, await known.addTimeout(_PATIENCE, self._clock, _too_slow))
        return known


def _too_slow(result: Any, seconds: float) -> Any:
    raise Problem(504, f"the history store has not answered within {seconds:g} seconds")


def _told(stored: Stored, epoch: str) -> Told:
    raw, blank, body = stored.payload.partition(b"\r\n\r\n")
    raw = raw + b"\r\n" if blank else raw
    usual = usual_head(raw)
    if usual is not None:
        command, headers = usual[0].decode("ascii"), usual_pairs(usual[1])
    else:
        head = parse_head(raw, UNLIMITED)
        command, headers = head.command, [*head.headers]
    told: Told = {"position": format_position(epoch, stored.offset), "command": command, "headers": headers}
    if is_text(body):
        return told | {"body": body.decode("utf-8")}
    return told | {"body_base64": base64.b64encode(body).decode("ascii")}


def _reached(reached: Reached) -> Told:
    return {"count": reached.count, "unanswered": list(reached.unanswered)}


def _named(key: AdminKey) -> str:
    return f"the key {key.name}"


def _whom(params: Params) -> dict[str, str]:
    return {name: params[name] for name in ("user", "connection") if name in params}
