"""
The types of the admin API: JSON Schema (draft 2020-12) of its parameters and answers, and what describes a method.

A part of :mod:`lhttp_tx.observe.methods`. Imports nothing of the server.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = [
    "BASE64",
    "BODIES",
    "CHANNEL",
    "CHANNELS",
    "COUNT",
    "HEADERS",
    "INDEX",
    "MAX_CALLS",
    "MAX_CHANNELS",
    "MAX_MUTE",
    "MAX_PAGE",
    "MESSAGE",
    "MUTE_SECONDS",
    "NAME",
    "NEXT",
    "NODES",
    "NUMBER",
    "ONE",
    "PAGE",
    "PATTERN",
    "POSITION",
    "PUBLISHED",
    "REACHED",
    "SEVERAL",
    "TEXT",
    "VALUE",
    "WHOM",
    "Method",
    "Parameter",
    "Schema",
    "rows",
]

Schema = Mapping[str, Any]

MAX_CHANNELS = 100
"""The maximum number of channels of one call."""

MAX_CALLS = 100
"""The maximum number of calls of a batch."""

MAX_PAGE = 1_000
"""The maximum number of entries of one answer."""

MAX_MUTE = 604_800
"""The most seconds of a mute: seven days."""

MUTE_SECONDS = 600
"""The seconds of a mute, unless the call has others."""

CHANNEL: Schema = {
    "type": "string",
    "minLength": 1,
    "maxLength": 255,
    "pattern": r"^(?![$_])(?!(.*\.)?[*>](\.|$))[^\s.\x00-\x1f\x7f-\x9f]+(\.[^\s.\x00-\x1f\x7f-\x9f]+)*$",
    "format": "lhttp-channel",
    "description": "The name of a channel, of at most 255 bytes.",
}
PATTERN: Schema = {
    "type": "string",
    "minLength": 1,
    "maxLength": 255,
    "pattern": r"^([0-9A-Za-z-][0-9A-Za-z_-]*|\*)(\.([0-9A-Za-z_-]+|\*))*(\.>)?$|^>$",
    "format": "lhttp-pattern",
}
CHANNELS: Schema = {"type": "array", "items": CHANNEL, "minItems": 1, "maxItems": MAX_CHANNELS}
NAME: Schema = {"type": "string", "minLength": 1, "maxLength": 255}
COUNT: Schema = {"type": "integer", "minimum": 0}
NUMBER: Schema = {"type": "number"}
TEXT: Schema = {"type": "string"}
BASE64: Schema = {
    "type": "string",
    "pattern": "^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$",
    "contentEncoding": "base64",
}
NODES: Schema = {"type": "array", "items": TEXT, "description": "Nodes that did not answer in time."}
VALUE: Schema = {
    "type": "string",
    "pattern": r"^[!-~]([ -~]*[!-~])?$|^$",
    "format": "lhttp-value",
    "maxLength": 1024,
}
HEADERS: Schema = {
    "type": "array",
    "items": {"type": "array", "items": TEXT, "minItems": 2, "maxItems": 2},
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
    :ivar required: whether it is required.
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
    :ivar exclusive: pairs of parameters that exclude each other.
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


WHOM = (
    Parameter("user", NAME, "All connections of this user."),
    Parameter("connection", NAME, "The connection with this id."),
)
ONE = Parameter("channel", CHANNEL, "The channel.", required=True)
SEVERAL = Parameter("channels", CHANNELS, "The channels.", required=True)
MESSAGE = (
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
            "additionalProperties": VALUE,
            "maxProperties": 32,
        },
        "Additional headers of the message.",
    ),
    Parameter("body", TEXT, "The body, as text."),
    Parameter("body_base64", BASE64, "The body in base64, instead of body."),
    Parameter(
        "message_id",
        {"type": "string", "pattern": "^[!-~]{1,64}$", "format": "lhttp-token"},
        "An id of the message. The server does not publish a second message with this id within --message-id-window. "
        "Default: the header Idempotency-Key.",
    ),
    Parameter("store", {"type": "boolean"}, "Whether the history stores the message; true by default."),
)
PAGE = (
    Parameter("limit", {"type": "integer", "minimum": 1, "maximum": MAX_PAGE}, "The maximum number of entries."),
    Parameter(
        "cursor",
        {"type": "string", "maxLength": 255},
        "The value of next in the previous answer, to get the next page.",
    ),
)
NEXT: Schema = {"type": "string", "description": "The cursor of the next page. The last page has none."}
POSITION: Schema = {
    "type": "string",
    "pattern": "^[0-9A-Za-z_]{1,32}-(0|[1-9][0-9]{0,17})$",
    "format": "lhttp-position",
}
BODIES = (("body", "body_base64"),)
INDEX: Schema = {"type": "string", "pattern": "^[0-9]{1,9}$", "format": "lhttp-index"}
REACHED: Mapping[str, Schema] = {"count": COUNT, "unanswered": NODES}
PUBLISHED: Mapping[str, Schema] = {
    "channels": {"type": "array", "items": TEXT},
    "positions": {"type": "object", "additionalProperties": TEXT},
    "duplicate": {"type": "boolean"},
}


def rows(**properties: Schema) -> Schema:
    """Return the type of an array of objects with these properties."""
    return {"type": "array", "items": {"type": "object", "properties": properties}}
