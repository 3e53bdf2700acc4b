"""
The methods of the admin API: one table of names, parameters, scopes and answers.

The HTTP side with its OpenAPI document (:mod:`lhttp_tx.web.admin`) and ``lhttp admin`` are made from it. The types are
JSON Schema (draft 2020-12). The module imports nothing of the server, so that the command works without it. Source:
the protocol document, section "HTTP API".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["BY_NAME", "MAX_CALLS", "MAX_CHANNELS", "MAX_PAGE", "METHODS", "Method", "Parameter"]

Schema = Mapping[str, Any]

MAX_CHANNELS = 100
"""The maximum number of channels of one call."""

MAX_CALLS = 100
"""The maximum number of calls of a batch."""

MAX_PAGE = 1_000
"""The maximum number of entries of one answer."""

_CHANNEL: Schema = {
    "type": "string",
    "minLength": 1,
    "maxLength": 255,
    "pattern": r"^(?![$_])(?!(.*\.)?[*>](\.|$))[^\s.\x00-\x1f\x7f-\x9f]+(\.[^\s.\x00-\x1f\x7f-\x9f]+)*$",
    "format": "lhttp-channel",
    "description": "The name of a channel, of at most 255 bytes.",
}
_PATTERN: Schema = {
    "type": "string",
    "minLength": 1,
    "maxLength": 255,
    "pattern": r"^([0-9A-Za-z-][0-9A-Za-z_-]*|\*)(\.([0-9A-Za-z_-]+|\*))*(\.>)?$|^>$",
    "format": "lhttp-pattern",
}
_CHANNELS: Schema = {"type": "array", "items": _CHANNEL, "minItems": 1, "maxItems": MAX_CHANNELS}
_NAME: Schema = {"type": "string", "minLength": 1, "maxLength": 255}
_COUNT: Schema = {"type": "integer", "minimum": 0}
_TEXT: Schema = {"type": "string"}
_NODES: Schema = {"type": "array", "items": _TEXT, "description": "Nodes that did not answer in time."}
_VALUE: Schema = {
    "type": "string",
    "pattern": r"^[!-~]([ -~]*[!-~])?$|^$",
    "format": "lhttp-value",
    "maxLength": 1024,
}
_HEADERS: Schema = {
    "type": "array",
    "items": {"type": "array", "items": _TEXT, "minItems": 2, "maxItems": 2},
    "maxItems": 64,
    "description": "Pairs of name and value.",
}


@dataclass(frozen=True, slots=True)
class Parameter:
    """
    A parameter of a method.

    :ivar name: its key.
    :ivar schema: its type.
    :ivar meaning: what it is for, in one sentence.
    :ivar required: whether it has to be given.
    """

    name: str
    schema: Schema
    meaning: str
    required: bool = False


@dataclass(frozen=True, slots=True)
class Method:
    """
    A method of the API.

    :ivar name: its name, as in ``POST /api/NAME`` and in the scope of a key.
    :ivar summary: what it does, in one sentence.
    :ivar parameters: its parameters.
    :ivar answer: the properties of its answer.
    :ivar channels: the parameters that name channels, which must be in the scope of the key.
    :ivar whom: whether exactly one of the parameters ``user`` and ``connection`` has to be given.
    :ivar exclusive: pairs of parameters that do not go together.
    :ivar command: the name of the subcommand of ``lhttp admin``; empty if there is none.
    :ivar columns: the property with the rows that the subcommand prints, then the keys of a row to print. If it is
        empty, the subcommand prints all properties.
    """

    name: str
    summary: str
    parameters: tuple[Parameter, ...]
    answer: Mapping[str, Schema]
    channels: tuple[str, ...] = ()
    whom: bool = False
    exclusive: tuple[tuple[str, str], ...] = ()
    command: str = ""
    columns: tuple[str, ...] = ()


_WHOM = (
    Parameter("user", _NAME, "All connections of this user."),
    Parameter("connection", _NAME, "The connection with this id."),
)
_ONE = Parameter("channel", _CHANNEL, "The channel.", required=True)
_SEVERAL = Parameter("channels", _CHANNELS, "The channels.", required=True)
_MESSAGE = (
    Parameter(
        "command",
        {"type": "string", "pattern": "^[!-~]{1,64}$", "format": "lhttp-token"},
        "The command of the message: 1 to 64 visible ASCII characters.",
        required=True,
    ),
    Parameter(
        "headers",
        {
            "type": "object",
            "propertyNames": {"type": "string", "pattern": "^[!-9;-~]{1,64}$", "format": "lhttp-name"},
            "additionalProperties": _VALUE,
            "maxProperties": 32,
        },
        "Additional headers of the message.",
    ),
    Parameter("body", _TEXT, "The body, as text."),
    Parameter("body_base64", {"type": "string", "contentEncoding": "base64"}, "The body in base64, instead of body."),
    Parameter(
        "message_id",
        {"type": "string", "pattern": "^[!-~]{1,64}$", "format": "lhttp-token"},
        "An id of the message. The server does not publish a second message with this id within --message-id-window. "
        "Default: the header Idempotency-Key.",
    ),
    Parameter("store", {"type": "boolean"}, "Whether the history stores the message; true by default."),
)
_PAGE = (
    Parameter("limit", {"type": "integer", "minimum": 1, "maximum": MAX_PAGE}, "The maximum number of entries."),
    Parameter(
        "cursor",
        {"type": "string", "maxLength": 255},
        "The value of next in the previous answer, to get the next page.",
    ),
)
_NEXT: Schema = {"type": "string", "description": "The cursor of the next page. The last page has none."}
_POSITION: Schema = {
    "type": "string",
    "pattern": "^[0-9A-Za-z_]{1,32}-(0|[1-9][0-9]{0,17})$",
    "format": "lhttp-position",
}
_BODIES = (("body", "body_base64"),)
_INDEX: Schema = {"type": "string", "pattern": "^[0-9]{1,9}$", "format": "lhttp-index"}
_REACHED: Mapping[str, Schema] = {"count": _COUNT, "unanswered": _NODES}
_PUBLISHED: Mapping[str, Schema] = {
    "channels": {"type": "array", "items": _TEXT},
    "positions": {"type": "object", "additionalProperties": _TEXT},
    "duplicate": {"type": "boolean"},
}


def _rows(**properties: Schema) -> Schema:
    return {"type": "array", "items": {"type": "object", "properties": properties}}


METHODS: tuple[Method, ...] = (
    Method(
        "publish",
        "Publish a message to a channel.",
        (_ONE, *_MESSAGE),
        _PUBLISHED,
        ("channel",),
        exclusive=_BODIES,
        command="publish",
    ),
    Method(
        "broadcast",
        "Publish one message to several channels.",
        (_SEVERAL, *_MESSAGE),
        _PUBLISHED,
        ("channels",),
        exclusive=_BODIES,
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
                        "properties": {"method": _TEXT, "params": {"type": "object"}},
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
        {"answers": _rows(status={"type": "integer"}, answer={"type": "object"}, problem={"type": "object"})},
    ),
    Method(
        "subscribe",
        "Subscribe the connections of a user, or one connection. The channel rules are not checked.",
        (*_WHOM, _SEVERAL),
        _REACHED,
        ("channels",),
        whom=True,
    ),
    Method(
        "unsubscribe",
        "Unsubscribe the connections of a user, or one connection.",
        (*_WHOM, _SEVERAL),
        _REACHED,
        ("channels",),
        whom=True,
    ),
    Method(
        "disconnect",
        "Close the connections of a user, or one connection.",
        (
            *_WHOM,
            Parameter(
                "code", {"type": "integer", "minimum": 3000, "maximum": 4999}, "The close code; 4000 by default."
            ),
            Parameter("reason", {"type": "string", "maxLength": 30}, "The reason that the clients receive."),
        ),
        _REACHED,
        whom=True,
        command="kick",
    ),
    Method(
        "refresh",
        "Set the time at which the login of a user's connections, or of one connection, expires.",
        (
            *_WHOM,
            Parameter(
                "expires",
                {"type": "integer", "minimum": 0, "maximum": 253_402_300_799},
                "The time in seconds since 1970. Then the server closes the connections, unless they log in again.",
                required=True,
            ),
        ),
        _REACHED,
        whom=True,
    ),
    Method(
        "presence",
        "List the users in a channel with presence.",
        (_ONE, _PAGE[0], Parameter("cursor", _INDEX, _PAGE[1].meaning)),
        {"people": _rows(user=_TEXT, connections={"type": "array", "items": _TEXT}), "next": _NEXT},
        ("channel",),
        command="presence",
        columns=("people", "user", "connections"),
    ),
    Method(
        "presence_stats",
        "Count the users in a channel with presence, and their connections.",
        (_ONE,),
        {"people": _COUNT, "connections": _COUNT},
        ("channel",),
    ),
    Method(
        "history",
        "Read messages of a channel with history, the oldest first.",
        (
            _ONE,
            Parameter("since", _POSITION, "Only messages after this position, the oldest first."),
            Parameter("before", _POSITION, "Only messages before this position: the newest of them."),
            Parameter("limit", {"type": "integer", "minimum": 1, "maximum": 500}, "The maximum number of messages."),
        ),
        {
            "position": _TEXT,
            "messages": _rows(position=_TEXT, command=_TEXT, headers=_HEADERS, body=_TEXT, body_base64=_TEXT),
            "more": {"type": "boolean"},
            "missed": {"type": "boolean"},
        },
        ("channel",),
        exclusive=(("since", "before"),),
        command="history",
        columns=("messages", "position", "command", "body"),
    ),
    Method("history_remove", "Remove the history of a channel.", (_ONE,), {}, ("channel",)),
    Method(
        "channels",
        "List the channels that have subscribers.",
        (
            Parameter("pattern", _PATTERN, "Only channels that match this pattern, such as news.>"),
            *_PAGE,
        ),
        {"channels": _rows(channel=_TEXT, subscribers=_COUNT), "next": _NEXT, "unanswered": _NODES},
        command="channels",
        columns=("channels", "channel", "subscribers"),
    ),
    Method(
        "connections",
        "List all connections, or those of a user, or those that are subscribed to a channel.",
        (
            Parameter("user", _NAME, "Only connections of this user."),
            Parameter("connection", _NAME, "Only the connection with this id."),
            Parameter("channel", _CHANNEL, "Only connections that are subscribed to this channel."),
            *_PAGE,
        ),
        {
            "connections": _rows(
                connection=_TEXT,
                user={"type": ["string", "null"]},
                node=_TEXT,
                address=_TEXT,
                channels={"type": "array", "items": _TEXT},
                subscriptions=_COUNT,
                queued=_COUNT,
                unsent=_COUNT,
            ),
            "next": _NEXT,
            "unanswered": _NODES,
        },
        ("channel",),
        exclusive=(("connection", "user"), ("connection", "channel")),
        command="connections",
        columns=("connections", "connection", "user", "address", "node", "subscriptions", "queued", "unsent"),
    ),
    Method(
        "users",
        "List the users who are connected.",
        _PAGE,
        {"users": _rows(user=_TEXT, connections=_COUNT), "next": _NEXT, "unanswered": _NODES},
        command="users",
        columns=("users", "user", "connections"),
    ),
    Method(
        "nodes",
        "List the nodes of the cluster.",
        (),
        {"nodes": _rows(node=_TEXT, connections=_COUNT, channels=_COUNT, subscriptions=_COUNT), "unanswered": _NODES},
        command="nodes",
        columns=("nodes", "node", "connections", "channels", "subscriptions"),
    ),
    Method(
        "info",
        "Show the node that answers, and the number of nodes and connections in the cluster.",
        (),
        {
            "node": _TEXT,
            "version": _TEXT,
            "started": {"type": "number"},
            "bus": _TEXT,
            "bus_up": {"type": "boolean"},
            "history": _TEXT,
            "history_up": {"type": "boolean"},
            "nodes": _COUNT,
            "connections": _COUNT,
            "unanswered": _NODES,
        },
        command="info",
    ),
)
"""All methods, in the order of the documentation."""

BY_NAME: Mapping[str, Method] = {method.name: method for method in METHODS}
"""The same, by name."""
