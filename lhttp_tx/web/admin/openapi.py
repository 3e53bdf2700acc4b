"""
The OpenAPI 3.1 document of the API, made from the table of methods.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lhttp_tx.observe.methods import METHODS, Method
from lhttp_tx.web.admin.problems import PROBLEM

__all__ = ["describe"]

_PROBLEMS: Mapping[str, str] = {
    "400": "The call is malformed; detail says what is wrong.",
    "401": "There is no key, or it is not valid.",
    "403": "The key may not do this, or a page of another site asks.",
    "404": "There is nothing of this name.",
    "409": "It does not fit: an Idempotency-Key of another call, or a position of a history that was reset.",
    "413": "It is too large.",
    "415": "The body is no application/json.",
    "429": "Too much at a time.",
    "500": "The server failed; its log says why.",
    "503": "The bus or the history store is unavailable.",
    "504": "The history store did not answer in time.",
}
_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "A second call with this key within two minutes gets the answer of the first one.",
    "schema": {"type": "string", "pattern": "^[!-~]{1,64}$"},
}


def describe(version: str) -> dict[str, Any]:
    """
    Return the document, a JSON value.

    :param version: the version of the package.
    """
    return {
        "openapi": "3.1.0",
        "info": {"title": "LHTTP admin API", "version": version},
        "security": [{"key": []}],
        "paths": {f"/api/{method.name}": {"post": _operation(method)} for method in METHODS},
        "components": {
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
            "schemas": {
                "Problem": {
                    "type": "object",
                    "description": "RFC 9457",
                    "properties": {
                        "type": {"type": "string"},
                        "title": {"type": "string"},
                        "status": {"type": "integer"},
                        "detail": {"type": "string"},
                    },
                    "required": ["type", "title", "status", "detail"],
                }
            },
            "responses": {
                status: {
                    "description": meaning,
                    "content": {PROBLEM: {"schema": {"$ref": "#/components/schemas/Problem"}}},
                }
                for status, meaning in _PROBLEMS.items()
            },
        },
    }


def _operation(method: Method) -> dict[str, Any]:
    schema: dict[str, Any] = {
        "type": "object",
        "properties": {
            parameter.name: {**parameter.schema, "description": parameter.meaning} for parameter in method.parameters
        },
        "required": [parameter.name for parameter in method.parameters if parameter.required],
        "additionalProperties": False,
    }
    if method.whom:
        schema["oneOf"] = [{"required": ["user"]}, {"required": ["connection"]}]
    if method.exclusive:
        schema["not"] = {"anyOf": [{"required": list(pair)} for pair in method.exclusive]}
    return {
        "operationId": method.name,
        "summary": method.summary,
        "parameters": [_KEY],
        "requestBody": {
            "required": bool(schema["required"] or method.whom),
            "content": {"application/json": {"schema": schema}},
        },
        "responses": {
            "200": {
                "description": "Done.",
                "content": {
                    "application/json": {
                        "schema": {
                            "type": "object",
                            "properties": dict(method.answer),
                            "additionalProperties": False,
                        }
                    }
                },
            },
            **{status: {"$ref": f"#/components/responses/{status}"} for status in _PROBLEMS},
        },
    }
