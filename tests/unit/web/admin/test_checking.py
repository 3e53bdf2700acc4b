"""lhttp_tx.web.admin.checking: what a call may have as its parameters, and what the table of methods says."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from lhttp_tx.observe.methods import BY_NAME, METHODS
from lhttp_tx.web.admin.calls import Calls
from lhttp_tx.web.admin.checking import _FORMATS, _TESTS, check_call
from lhttp_tx.web.admin.openapi import describe
from lhttp_tx.web.admin.problems import Problem
from lhttp_tx.web.admin.scopes import SCOPES


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("info", {}),
        ("publish", {"channel": "a.b", "command": "chat", "headers": {"x": "y z"}, "body": "ä", "store": False}),
        ("publish", {"channel": "ä", "command": "chat", "body_base64": "AAEC"}),
        ("channels", {"pattern": "news.>", "limit": 5.0, "cursor": ""}),
        ("disconnect", {"user": "jack", "code": 4001}),
        ("history", {"channel": "a", "since": "ab_1-0"}),
        ("batch", {"calls": [{"method": "x", "params": {"any": 1}}]}),
    ],
)
def test_what_the_table_allows_passes(method: str, params: dict[str, Any]) -> None:
    assert check_call(BY_NAME[method], params) is params


@pytest.mark.parametrize(
    ("method", "params", "why"),
    [
        ("info", [], "an object"),
        ("info", {"x": 1}, "no parameter 'x'"),
        ("publish", {"command": "x"}, "needs the parameter channel"),
        ("publish", {"channel": "a..b", "command": "x"}, "empty token"),
        ("publish", {"channel": "$x", "command": "x"}, "reserved"),
        ("publish", {"channel": "a\n", "command": "x"}, "blank or control"),
        ("publish", {"channel": "a", "command": "x\n"}, "does not match"),
        ("publish", {"channel": "a", "command": "a b"}, "does not match"),
        ("publish", {"channel": "a", "command": "x", "body": "\ud800"}, "not valid Unicode"),
        ("publish", {"channel": "a", "command": "x", "body": 5}, "body is text"),
        ("publish", {"channel": "a", "command": "x", "body": "", "body_base64": ""}, "cannot be combined"),
        ("publish", {"channel": "a", "command": "x", "body_base64": "AAE"}, "not base64"),
        ("publish", {"channel": "a", "command": "x", "headers": {"a:b": ""}}, "a name in headers"),
        ("publish", {"channel": "a", "command": "x", "headers": {"a": "\r\nb"}}, "does not match"),
        ("publish", {"channel": "a", "command": "x", "store": 1}, "true or false"),
        ("broadcast", {"channels": [], "command": "x"}, "1 to 100"),
        ("broadcast", {"channels": ["a"] * 101, "command": "x"}, "1 to 100"),
        ("channels", {"limit": True}, "a whole number"),
        ("channels", {"limit": 1.5}, "a whole number"),
        ("channels", {"limit": 0}, "from 1 to"),
        ("channels", {"pattern": "a.>.b"}, "last token"),
        ("disconnect", {}, "name either a user or a connection"),
        ("disconnect", {"user": "a", "connection": "b"}, "name either a user or a connection"),
        ("disconnect", {"user": "a", "code": 1006}, "from 3000"),
        ("history", {"channel": "a", "since": "x"}, "not a position"),
        ("batch", {"calls": [{"params": {}}]}, "needs method"),
        ("batch", {"calls": [{"method": "a", "x": 1}]}, "has no 'x'"),
    ],
)
def test_what_the_table_does_not_allow_is_refused(method: str, params: Any, why: str) -> None:
    with pytest.raises(Problem, match=why) as caught:
        check_call(BY_NAME[method], params)
    assert caught.value.status == 400


def test_a_name_of_too_many_bytes_is_the_name_of_nothing() -> None:
    with pytest.raises(Problem) as caught:
        check_call(BY_NAME["history"], {"channel": "ä" * 200})
    assert caught.value.status == 404


def schemas(schema: Any) -> Iterator[dict[str, Any]]:
    """Yield a schema, and all that are in it."""
    if isinstance(schema, dict):
        yield schema
        for found in schema.values():
            yield from schemas(found)


def test_what_has_a_pattern_has_a_format_that_is_checked() -> None:
    for method in METHODS:
        for parameter in method.parameters:
            for schema in schemas(dict(parameter.schema)):
                if isinstance(schema.get("pattern"), str) and "contentEncoding" not in schema:
                    assert schema["format"] in {**_FORMATS, **_TESTS}


@pytest.mark.parametrize(
    "text", ["", "AAAA", "AA==", "AAA=", "A", "AA=", "A===", "AAAA=", "AAAA====", "ä", "AA AA", "=", "+/+/"]
)
def test_the_pattern_of_base64_says_what_is_checked(text: str) -> None:
    (schema,) = [found.schema for found in BY_NAME["publish"].parameters if found.name == "body_base64"]
    try:
        check_call(BY_NAME["publish"], {"channel": "a", "command": "x", "body_base64": text})
    except Problem:
        assert not re.fullmatch(schema["pattern"], text)
    else:
        assert re.fullmatch(schema["pattern"], text)


@pytest.mark.parametrize(
    "text", ["a", "a b", "", " a", "a ", "a:b", "12", "1234567890", "\x7f", "ä", "a" * 65, "a\n", "\n"]
)
@pytest.mark.parametrize("name", sorted(_TESTS))
def test_formats_say_the_same_as_their_patterns(name: str, text: str) -> None:
    found = [
        schema["pattern"]
        for method in METHODS
        for parameter in method.parameters
        for schema in schemas(dict(parameter.schema))
        if schema.get("format") == name
    ]
    assert found
    assert _TESTS[name](text) is bool(re.search(found[0].replace("$", r"\Z"), text))


def test_every_method_is_described_scoped_and_there() -> None:
    paths = describe("1")["paths"]
    assert paths.keys() == {f"/api/{method.name}" for method in METHODS}
    for method in METHODS:
        assert method.name in SCOPES
        assert method.name == "batch" or hasattr(Calls, f"do_{method.name}")
        names = {parameter.name for parameter in method.parameters}
        assert names.issuperset(method.channels)
        assert not method.columns or method.columns[0] in method.answer
