"""
The methods of the admin API: one table of names, parameters, scopes and answers.

The HTTP side with its OpenAPI document (:mod:`lhttp_tx.web.admin`) and ``lhttp admin`` are made from it. The types are
JSON Schema (draft 2020-12). The module imports nothing of the server, so that the command works without it. Source: the
how-to about the admin side, section "HTTP API".

This file has more than 400 lines because it is one table.
"""

from __future__ import annotations

from collections.abc import Mapping

from lhttp_tx.observe.schemas import (
    BASE64,
    BODIES,
    CHANNEL,
    COUNT,
    HEADERS,
    INDEX,
    MAX_CALLS,
    MAX_MUTE,
    MESSAGE,
    MUTE_SECONDS,
    NAME,
    NEXT,
    NODES,
    NUMBER,
    ONE,
    PAGE,
    PATTERN,
    POSITION,
    PUBLISHED,
    REACHED,
    SEVERAL,
    TEXT,
    WHOM,
    Method,
    Parameter,
    rows,
)

__all__ = ["BY_NAME", "MAX_CALLS", "METHODS", "Method", "Parameter"]

METHODS: tuple[Method, ...] = (
    Method(
        "publish",
        "Publish a message to a channel.",
        (ONE, *MESSAGE),
        PUBLISHED,
        ("channel",),
        exclusive=BODIES,
        command="publish",
    ),
    Method(
        "broadcast",
        "Publish one message to several channels.",
        (SEVERAL, *MESSAGE),
        PUBLISHED,
        ("channels",),
        exclusive=BODIES,
    ),
    Method(
        "batch",
        "Make several calls, one after another. The key must allow each of them. Each call has its own answer.",
        (
            Parameter(
                "calls",
                {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "properties": {"method": TEXT, "params": {"type": "object"}},
                        "required": ["method"],
                        "additionalProperties": False,
                    },
                    "minItems": 1,
                    "maxItems": MAX_CALLS,
                },
                "The calls, in order.",
                required=True,
            ),
        ),
        {"answers": rows(status={"type": "integer"}, answer={"type": "object"}, problem={"type": "object"})},
    ),
    Method(
        "subscribe",
        "Subscribe the connections of a user, or one connection. The channel rules are not checked.",
        (*WHOM, SEVERAL),
        REACHED,
        ("channels",),
        whom=True,
    ),
    Method(
        "unsubscribe",
        "Unsubscribe the connections of a user, or one connection.",
        (*WHOM, SEVERAL),
        REACHED,
        ("channels",),
        whom=True,
    ),
    Method(
        "disconnect",
        "Close the connections of a user, or one connection.",
        (
            *WHOM,
            Parameter(
                "code", {"type": "integer", "minimum": 3000, "maximum": 4999}, "The close code; 4000 by default."
            ),
            Parameter("reason", {"type": "string", "maxLength": 30}, "The reason that the clients receive."),
        ),
        REACHED,
        whom=True,
        command="kick",
    ),
    Method(
        "mute",
        "Refuse what a user, on all present and later connections, or one connection publishes, for a limited time.",
        (
            *WHOM,
            Parameter(
                "seconds",
                {"type": "integer", "minimum": 1, "maximum": MAX_MUTE},
                f"The time in seconds; {MUTE_SECONDS} by default.",
            ),
        ),
        REACHED,
        whom=True,
        command="mute",
    ),
    Method(
        "unmute",
        "Lift the mutes of a user and of the user's connections, or the mute of one connection.",
        WHOM,
        REACHED,
        whom=True,
        command="unmute",
    ),
    Method(
        "mutes",
        "List the muted users, connected or not.",
        PAGE,
        {"mutes": rows(user=TEXT, seconds=COUNT), "next": NEXT, "unanswered": NODES},
        command="mutes",
        columns=("mutes", "user", "seconds"),
    ),
    Method(
        "refresh",
        "Set the time at which the login of a user's connections, or of one connection, expires.",
        (
            *WHOM,
            Parameter(
                "expires",
                {"type": "integer", "minimum": 0, "maximum": 253_402_300_799},
                "The time in seconds since 1970. Then the server closes the connections, unless they log in again.",
                required=True,
            ),
        ),
        REACHED,
        whom=True,
    ),
    Method(
        "presence",
        "List the users in a channel with presence.",
        (ONE, PAGE[0], Parameter("cursor", INDEX, PAGE[1].meaning)),
        {"people": rows(user=TEXT, connections={"type": "array", "items": TEXT}), "next": NEXT},
        ("channel",),
        command="presence",
        columns=("people", "user", "connections"),
    ),
    Method(
        "presence_stats",
        "Count the users in a channel with presence, and their connections.",
        (ONE,),
        {"people": COUNT, "connections": COUNT},
        ("channel",),
    ),
    Method(
        "history",
        "Read messages of a channel with history, the oldest first.",
        (
            ONE,
            Parameter("since", POSITION, "Only messages after this position, the oldest first."),
            Parameter("before", POSITION, "Only messages before this position: the newest of them."),
            Parameter("limit", {"type": "integer", "minimum": 1, "maximum": 500}, "The maximum number of messages."),
        ),
        {
            "position": TEXT,
            "messages": rows(position=TEXT, command=TEXT, headers=HEADERS, body=TEXT, body_base64=BASE64),
            "more": {"type": "boolean"},
            "missed": {"type": "boolean"},
        },
        ("channel",),
        exclusive=(("since", "before"),),
        command="history",
        columns=("messages", "position", "command", "body"),
    ),
    Method("history_remove", "Remove the history of a channel.", (ONE,), {}, ("channel",)),
    Method(
        "channels",
        "List the channels that have subscribers.",
        (
            Parameter("pattern", PATTERN, "Only channels that match this pattern, such as news.>"),
            *PAGE,
        ),
        {"channels": rows(channel=TEXT, subscribers=COUNT), "next": NEXT, "unanswered": NODES},
        command="channels",
        columns=("channels", "channel", "subscribers"),
    ),
    Method(
        "connections",
        "List all connections, or those of a user, or those that are subscribed to a channel.",
        (
            Parameter("user", NAME, "Only connections of this user."),
            Parameter("connection", NAME, "Only the connection with this id."),
            Parameter("channel", CHANNEL, "Only connections that are subscribed to this channel."),
            *PAGE,
        ),
        {
            "connections": rows(
                connection=TEXT,
                user={"type": ["string", "null"]},
                node=TEXT,
                address=TEXT,
                channels={"type": "array", "items": TEXT},
                subscriptions=COUNT,
                queued=COUNT,
                unsent=COUNT,
            ),
            "next": NEXT,
            "unanswered": NODES,
        },
        ("channel",),
        exclusive=(("connection", "user"), ("connection", "channel")),
        command="connections",
        columns=("connections", "connection", "user", "address", "node", "subscriptions", "queued", "unsent"),
    ),
    Method(
        "connection",
        "Show one connection.",
        (Parameter("connection", NAME, "Its id.", required=True),),
        {
            "connection": TEXT,
            "user": {"type": ["string", "null"]},
            "node": TEXT,
            "address": TEXT,
            "transport": TEXT,
            "codec": TEXT,
            "state": TEXT,
            "channels": {"type": "array", "items": TEXT},
            "subscriptions": COUNT,
            "queued": COUNT,
            "queued_bytes": COUNT,
            "unsent": COUNT,
            "expires": {"type": ["number", "null"]},
            "claims": {"type": "array", "items": TEXT, "description": "The names of the claims of its login."},
            "muted": {**COUNT, "description": "The seconds until it may publish again; 0 if it is not muted."},
            "user_muted": {**COUNT, "description": "The seconds for which its user is still muted; 0 if it is not."},
            "unanswered": NODES,
        },
        command="connection",
    ),
    Method(
        "search",
        "Find users, connections and channels whose names contain a text. The key sees what it may list.",
        (
            Parameter("text", {**NAME, "maxLength": 100}, "The text, in any case.", required=True),
            Parameter("limit", {"type": "integer", "minimum": 1, "maximum": 100}, "The maximum number of each kind."),
        ),
        {
            "found": rows(
                kind={"type": "string", "enum": ["user", "connection", "channel"]},
                name=TEXT,
                count=COUNT,
                address=TEXT,
            ),
            "more": {"type": "boolean"},
            "unanswered": NODES,
        },
        command="search",
        columns=("found", "kind", "name", "count", "address"),
    ),
    Method(
        "users",
        "List the users who are connected.",
        PAGE,
        {"users": rows(user=TEXT, connections=COUNT), "next": NEXT, "unanswered": NODES},
        command="users",
        columns=("users", "user", "connections"),
    ),
    Method(
        "nodes",
        "List the nodes of the cluster.",
        (),
        {
            "nodes": rows(node=TEXT, connections=COUNT, users=COUNT, channels=COUNT, subscriptions=COUNT),
            "unanswered": NODES,
        },
        command="nodes",
        columns=("nodes", "node", "connections", "users", "channels", "subscriptions"),
    ),
    Method(
        "rates",
        "Show what went through each node in the last ten minutes: a sample every two seconds, with rates per second "
        "and mean times in seconds. Messages and times need --metrics.",
        (
            Parameter("since", {"type": "integer", "minimum": 0}, "Only samples after this time (seconds since 1970)."),
            Parameter(
                "limit",
                {"type": "integer", "minimum": 1, "maximum": 300},
                "The maximum number of samples of a node.",
            ),
        ),
        {
            "samples": rows(
                node=TEXT,
                time=NUMBER,
                connections=COUNT,
                lag=NUMBER,
                **dict.fromkeys(
                    (
                        *("opened", "closed", "errors", "received", "received_bytes", "published", "delivered"),
                        *("delivered_bytes", "handshake", "processor", "upstream", "bus", "history", "round_trip"),
                    ),
                    NUMBER,
                ),
            ),
            "unanswered": NODES,
        },
        command="rates",
        columns=("samples", "node", "time", "connections", "received", "published", "delivered", "errors", "lag"),
    ),
    Method(
        "incidents",
        "List the newest error messages to clients, closed connections, and warnings of the log, the newest first.",
        (
            Parameter("kind", {"type": "string", "enum": ["error", "close", "log"]}, "Only those of this kind."),
            Parameter("limit", {"type": "integer", "minimum": 1, "maximum": 200}, "The maximum number of entries."),
        ),
        {
            "incidents": rows(
                node=TEXT,
                number=COUNT,
                time=NUMBER,
                kind=TEXT,
                connection=TEXT,
                user={"type": ["string", "null"]},
                address=TEXT,
                code={"type": ["integer", "null"], "description": "The status of an error, or the code of a close."},
                level=TEXT,
                event=TEXT,
                text=TEXT,
            ),
            "unanswered": NODES,
        },
        command="incidents",
        columns=("incidents", "time", "node", "kind", "code", "user", "connection", "text"),
    ),
    Method(
        "trace",
        "Watch messages pass: call it again and again. It begins with the first call, and ends 15 seconds after the "
        "last one. Bodies need trace_bodies in the scope of the key, too.",
        (
            Parameter(
                "trace",
                {"type": "string", "pattern": "^[!-~]{1,64}$", "format": "lhttp-token"},
                "An id of your choice, the same in each call.",
                required=True,
            ),
            Parameter(
                "kind",
                {"type": "string", "enum": ["user", "connection", "channel", "command"]},
                "What to follow.",
                required=True,
            ),
            Parameter("name", NAME, "Its name.", required=True),
            Parameter("bodies", {"type": "boolean"}, "Whether to show the first 2,000 bytes of each body."),
            Parameter(
                "after",
                {"type": "object", "additionalProperties": COUNT, "maxProperties": 1000},
                "The value of after in the previous answer, to get what has come since.",
            ),
            Parameter("stop", {"type": "boolean"}, "Whether the trace ends now."),
        ),
        {
            "messages": rows(
                node=TEXT,
                number=COUNT,
                time=NUMBER,
                direction={"type": "string", "enum": ["in", "out", "publish", "deliver"]},
                connection=TEXT,
                user={"type": ["string", "null"]},
                channel=TEXT,
                count=COUNT,
                command=TEXT,
                size=COUNT,
                headers=HEADERS,
                body=TEXT,
                body_size=COUNT,
                problem=TEXT,
            ),
            "after": {"type": "object", "additionalProperties": COUNT},
            "dropped": {**COUNT, "description": "Messages that were not shown, because there were too many."},
            "full": {**NODES, "description": "Nodes that have too many traces already."},
            "unanswered": NODES,
        },
    ),
    Method(
        "info",
        "Show the node that answers, and the number of nodes and connections in the cluster.",
        (),
        {
            "node": TEXT,
            "version": TEXT,
            "started": {"type": "number"},
            "bus": TEXT,
            "bus_up": {"type": "boolean"},
            "history": TEXT,
            "history_up": {"type": "boolean"},
            "nodes": COUNT,
            "connections": COUNT,
            "unanswered": NODES,
        },
        command="info",
    ),
)
"""All methods, in the order of the documentation."""

BY_NAME: Mapping[str, Method] = {method.name: method for method in METHODS}
"""All methods, by name."""
