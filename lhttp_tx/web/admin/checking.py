"""
Checks the parameters of a call against their types.

Knows the subset of JSON Schema that :mod:`lhttp_tx.observe.methods` uses.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping
from typing import Any

from lhttp_tx.codec.channels import MAX_CHANNEL_SIZE, check_channel
from lhttp_tx.codec.positions import parse_position
from lhttp_tx.errors import LHTTPError
from lhttp_tx.observe.methods import Method
from lhttp_tx.rules.patterns import check_pattern
from lhttp_tx.web.admin.problems import Problem

__all__ = ["check_call"]

_TYPES: Mapping[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "boolean": (bool,),
    "array": (list,),
    "object": (dict,),
}
_NAMES = {"string": "text", "integer": "a whole number", "boolean": "true or false", "array": "an array",
          "object": "an object"}  # fmt: skip


def check_call(method: Method, params: Any) -> dict[str, Any]:
    """
    Return the parameters of a call.

    :param params: a JSON value.
    :raises Problem: with status 400 if *method* does not take them. The text names the parameter.
    """
    if not isinstance(params, dict):
        raise Problem(400, "the parameters are an object in JSON")
    known = {parameter.name: parameter for parameter in method.parameters}
    for name in params:
        if name not in known:
            raise Problem(400, f"{method.name} has no parameter {name[:64]!a}")
    for name, parameter in known.items():
        if name in params:
            _check(name, params[name], parameter.schema)
        elif parameter.required:
            raise Problem(400, f"{method.name} needs the parameter {name}")
    if method.whom and ("user" in params) is ("connection" in params):
        raise Problem(400, "name either a user or a connection")
    for one, other in method.exclusive:
        if one in params and other in params:
            raise Problem(400, f"{one} and {other} cannot be combined")
    return params


def _is_token(value: str) -> bool:
    return value.isascii() and value.isprintable() and 0 < len(value) <= 64 and " " not in value


def _is_value(value: str) -> bool:
    return value.isascii() and (not value or value.isprintable()) and value == value.strip()


def _is_index(value: str) -> bool:
    return value.isascii() and value.isdigit() and len(value) <= 9


_TESTS: Mapping[str, Callable[[str], bool]] = {
    "lhttp-token": _is_token,
    "lhttp-name": lambda value: _is_token(value) and ":" not in value,
    "lhttp-value": _is_value,
    "lhttp-index": _is_index,
}
"""Checks for the formats that have a pattern in the table. Each has the same effect as its pattern."""

_FORMATS: Mapping[str, Callable[[str], object]] = {
    "lhttp-channel": check_channel,
    "lhttp-pattern": check_pattern,
    "lhttp-position": parse_position,
}
"""Checks for formats whose pattern covers only some of the rules. The pattern is only for the OpenAPI document."""


def _check(name: str, value: Any, schema: Mapping[str, Any]) -> None:
    kind = schema["type"]
    is_number = kind == "integer" and isinstance(value, float) and value.is_integer()
    if (not isinstance(value, _TYPES[kind]) and not is_number) or (kind == "integer" and isinstance(value, bool)):
        raise Problem(400, f"{name} is {_NAMES[kind]}")
    if kind == "string":
        _check_text(name, value, schema)
    elif kind == "integer":
        if not schema.get("minimum", value) <= value <= schema.get("maximum", value):
            raise Problem(400, f"{name} is from {schema.get('minimum', 'any')} to {schema.get('maximum', 'any')}")
    elif kind == "array":
        if not schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value)):
            raise Problem(400, f"{name} has {schema.get('minItems', 0)} to {schema.get('maxItems', 'any')} entries")
        for found in value:
            _check(f"an entry of {name}", found, schema["items"])
    elif kind == "object":
        _check_object(name, value, schema)


def _check_text(name: str, value: str, schema: Mapping[str, Any]) -> None:
    if not value.isascii():
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:
            raise Problem(400, f"{name} is not valid Unicode") from None
    if not schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", len(value)):
        raise Problem(400, f"{name} has {schema.get('minLength', 0)} to {schema.get('maxLength', 'any')} characters")
    check = _FORMATS.get(schema.get("format", ""))
    if check is check_channel and len(value.encode("utf-8")) > MAX_CHANNEL_SIZE:
        # JSON Schema counts characters, so the form of the call is correct: there is no such channel.
        raise Problem(404, f"{name}: no channel has a name of more than {MAX_CHANNEL_SIZE} bytes")
    if check is not None:
        try:
            check(value)
        except LHTTPError as error:
            raise Problem(400, f"{name}: {error.reason}") from None
        except ValueError as error:
            raise Problem(400, f"{name}: {error}") from None
    test = _TESTS.get(schema.get("format", ""))
    if test is not None and not test(value):
        raise Problem(400, f"{name} {value[:64]!a} does not match {schema['pattern']}")
    if schema.get("contentEncoding") == "base64":
        try:
            size = len(base64.b64decode(value, validate=True))
        except (binascii.Error, ValueError):
            raise Problem(400, f"{name} is not base64") from None
        if len(value) != (size + 2) // 3 * 4:  # more padding than needed
            raise Problem(400, f"{name} is not base64")


def _check_object(name: str, value: dict[str, Any], schema: Mapping[str, Any]) -> None:
    if len(value) > schema.get("maxProperties", len(value)):
        raise Problem(400, f"{name} has at most {schema['maxProperties']} entries")
    properties = schema.get("properties", {})
    for required in schema.get("required", ()):
        if required not in value:
            raise Problem(400, f"{name} needs {required}")
    for key, found in value.items():
        if "propertyNames" in schema:
            _check_text(f"a name in {name}", key, schema["propertyNames"])
        other = schema.get("additionalProperties", True)
        if key in properties:
            _check(f"{key} of {name}", found, properties[key])
        elif other is False:
            raise Problem(400, f"{name} has no {key[:64]!a}")
        elif isinstance(other, dict):
            _check(f"{key[:64]!a} of {name}", found, other)
