"""
Makes the messages and the service of the gRPC side from the table of methods, and writes them as ``admin.proto``.

``python -m lhttp_tx.web.admin.proto`` writes ``admin.proto`` again after a change to the table. The numbers of fields
must never change. The table has no numbers, so they come from the existing file. A new field gets a number that was
never used, and the number of a removed field stays reserved. This module needs no extra packages. Source: Protocol
Buffers, "Language Guide (proto 3)" and "Updating A Message Type".
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lhttp_tx.observe.methods import METHODS
from lhttp_tx.observe.schemas import Schema

__all__ = ["PACKAGE", "PROTO", "SERVICE", "Field", "Structure", "main", "rpc_name", "structures", "written"]

PACKAGE = "lhttp.admin.v1"
"""The name of the package of Protocol Buffers."""

SERVICE = f"{PACKAGE}.Admin"
"""The name of the service."""

PROTO = Path(__file__).with_name("admin.proto")
"""The path of ``admin.proto``."""

STRUCT = "google.protobuf.Struct"
"""The type of a JSON object that the table does not describe."""

_HEADER = "Header"
_SCALARS = {"string": "string", "integer": "int64", "number": "double", "boolean": "bool"}
_WIDTH = 120
_BASE64 = "_base64"
_FIELD = re.compile(r"(?:(?:optional|repeated) )?(?:map<[^>]*>|[\w.]+) (\w+) = (\d+)(?: \[.*\])?;")
_TOP = """\
// The API of the admin side of lhttp_tx for gRPC. Each method is one of POST /api/METHOD, with the same parameters. The
// key is in the metadata, "authorization: Bearer SECRET", and so is an "idempotency-key". An error has a status code of
// gRPC and, in its details (google.rpc.Status), a Problem with the status and the text of the HTTP side. In JSON, the
// messages are those of the HTTP side.
//
// Written by python -m lhttp_tx.web.admin.proto: do not change it by hand.

syntax = "proto3";

package {package};

import "google/protobuf/struct.proto";
"""


@dataclass(frozen=True, slots=True)
class Field:
    """
    A field of a message.

    :ivar name: its name.
    :ivar key: its key in JSON.
    :ivar number: its number.
    :ivar type: a scalar type of Protocol Buffers, or the name of a message.
    :ivar label: ``optional``, ``repeated`` or ``map``. A map has keys of text.
    :ivar meaning: its purpose; may be empty.
    """

    name: str
    key: str
    number: int
    type: str
    label: str
    meaning: str = ""


@dataclass(frozen=True, slots=True)
class Structure:
    """
    A message of Protocol Buffers.

    :ivar name: its name.
    :ivar fields: its fields.
    :ivar rows: messages that are defined in it.
    :ivar reserved: numbers of fields that it once had.
    """

    name: str
    fields: tuple[Field, ...]
    rows: tuple[Structure, ...] = ()
    reserved: tuple[int, ...] = ()


def rpc_name(method: str) -> str:
    """
    Return the name of a method in gRPC.

    >>> rpc_name("history_remove")
    'HistoryRemove'
    """
    return "".join(part.capitalize() for part in method.split("_"))


def structures(known: str) -> tuple[Structure, ...]:
    """
    Return all messages: two for each method, and those that the methods share.

    :param known: the text of the existing ``admin.proto``, for the numbers.
    """
    numbers = _numbers(known)
    text = {"type": "string"}
    problem = {"type": text, "title": text, "status": {"type": "integer"}, "detail": text}
    told: list[Structure] = []
    for method in METHODS:
        asked = {
            parameter.name: {
                **parameter.schema,
                "description": f"{'Required. ' if parameter.required else ''}{parameter.meaning}",
            }
            for parameter in method.parameters
        }
        for kind, properties in (("Request", asked), ("Response", method.answer)):
            told.append(_structure(rpc_name(method.name) + kind, "", properties, numbers))
    told.append(_structure(_HEADER, "", {"name": text, "value": text}, numbers))
    told.append(_structure("Problem", "", problem, numbers))
    return tuple(told)


def written(known: str) -> str:
    """
    Return the text of ``admin.proto``.

    :param known: the text of the existing file, for the numbers.
    """
    parts = [_TOP.format(package=PACKAGE), *_service()]
    for structure in structures(known):
        parts += ["", *_lines(structure, "")]
    return "\n".join(parts) + "\n"


def _service() -> Iterator[str]:
    yield f"service {SERVICE.removeprefix(f'{PACKAGE}.')} {{"
    for method in METHODS:
        name = rpc_name(method.name)
        yield from _comment(method.summary, "  ")
        yield f"  rpc {name}({name}Request) returns ({name}Response);"
    yield "}"


def _lines(structure: Structure, indent: str) -> Iterator[str]:
    yield f"{indent}message {structure.name} {{"
    inner = f"{indent}  "
    for row in structure.rows:
        yield from _lines(row, inner)
    if structure.reserved:
        yield f"{inner}reserved {', '.join(map(str, structure.reserved))};"
    for field in structure.fields:
        yield from _comment(field.meaning, inner)
        kind = f"map<string, {field.type}>" if field.label == "map" else f"{field.label} {field.type}"
        # Its name in JSON would be bodyBase64.
        named = f' [json_name = "{field.key}"]' if "_" in field.key else ""
        yield f"{inner}{kind} {field.name} = {field.number}{named};"
    yield f"{indent}}}"


def _comment(text: str, indent: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH, initial_indent=f"{indent}// ", subsequent_indent=f"{indent}// ")


def _structure(
    name: str, place: str, properties: Mapping[str, Schema], numbers: Mapping[str, Mapping[str, int]]
) -> Structure:
    path = f"{place}.{name}".lstrip(".")
    known = numbers.get(path, {})
    fields: list[Field] = []
    rows: list[Structure] = []
    free = max(known.values(), default=0) + 1
    for key, schema in properties.items():
        own = key.removesuffix(_BASE64) + "_bytes" if "contentEncoding" in schema else key
        number = known.get(own, free)
        free += number == free
        label, kind, row = _typed(key, schema)
        if row is not None:
            kind = f"{rpc_name(key)}Row"
            rows.append(_structure(kind, path, row, numbers))
        fields.append(Field(own, key, number, kind, label, _meaning(schema)))
    gone = sorted(set(known.values()) - {field.number for field in fields})
    return Structure(name, tuple(fields), tuple(rows), tuple(gone))


def _typed(key: str, schema: Schema) -> tuple[str, str, Mapping[str, Schema] | None]:
    """Return the label and the type of a field, and the properties of the message that is its type, if it is one."""
    kind: Any = schema["type"]
    if isinstance(kind, list):  # it may be null; then the field is not set
        (kind,) = (each for each in kind if each != "null")
    if kind == "array":
        items = schema["items"]
        if items["type"] == "array":  # of pairs
            return "repeated", _HEADER, None
        return "repeated", *_typed(key, items)[1:]
    if kind == "object":
        if "properties" in schema:
            return "optional", "", schema["properties"]
        values = schema.get("additionalProperties")
        if values is None:
            return "optional", STRUCT, None
        return "map", _SCALARS[values["type"]], None
    return "optional", "bytes" if "contentEncoding" in schema else _SCALARS[kind], None


def _meaning(schema: Schema) -> str:
    meaning: str = schema.get("description", "")
    meaning = meaning.replace("in base64, instead of body", "as bytes, instead of body")
    return f"{meaning} One of: {', '.join(schema['enum'])}.".lstrip() if "enum" in schema else meaning


def _numbers(text: str) -> dict[str, dict[str, int]]:
    """Return the numbers of all fields, by message and name. A reserved number has its digits as the name."""
    found: dict[str, dict[str, int]] = {}
    place: list[str] = []
    for line in map(str.strip, text.splitlines()):
        words = line.split()
        if words and words[-1] == "{":
            place.append(words[1])
        elif line == "}":
            place.pop()
        elif line.startswith("reserved "):
            known = found.setdefault(".".join(place), {})
            known |= {digits: int(digits) for digits in re.findall(r"\d+", line)}
        elif place and (match := _FIELD.fullmatch(line)):
            found.setdefault(".".join(place), {})[match[1]] = int(match[2])
    return found


def main() -> None:
    """Write the file again."""
    PROTO.write_text(written(PROTO.read_text("utf-8") if PROTO.exists() else ""), "utf-8")


if __name__ == "__main__":
    main()
