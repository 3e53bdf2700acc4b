"""lhttp_tx.web.admin.grpc.messages: JSON values as messages, and back."""

from __future__ import annotations

import base64
from typing import Any

import pytest

pytest.importorskip("google.protobuf", reason="protobuf is missing (the extra grpc)")
pytest.importorskip("grpc", reason="grpcio is missing (the extra grpc)")

from google.protobuf import json_format
from hypothesis import given, strategies as st

from lhttp_tx.observe.methods import BY_NAME, METHODS
from lhttp_tx.web.admin.grpc.messages import Messages
from lhttp_tx.web.admin.problems import Problem
from lhttp_tx.web.admin.proto import PROTO

MESSAGES = Messages()


def sample(schema: Any) -> Any:
    """Return a value of a type: the largest of everything that may be there."""
    kind = schema["type"]
    kind = kind if isinstance(kind, str) else kind[0]
    if kind == "array":
        items = schema["items"]
        return [["name", "value"], ["x", ""]] if items["type"] == "array" else [sample(items), sample(items)]
    if kind == "object":
        if "properties" in schema:
            return {name: sample(each) for name, each in schema["properties"].items()}
        values = schema.get("additionalProperties")
        return {"a": [1, None, {"b": True}], "c": "d"} if values is None else {"a": sample(values), "b": sample(values)}
    plain = {"integer": 2**53 + 1, "number": 0.5, "boolean": False, "string": "ö"}
    return base64.b64encode(b"\xff\0").decode() if "contentEncoding" in schema else plain[kind]


@pytest.mark.parametrize("method", [method.name for method in METHODS])
def test_an_answer_is_read_as_it_was_written(method: str) -> None:
    told = sample({"type": "object", "properties": BY_NAME[method].answer})
    data = MESSAGES.write(method, told)
    message: Any = MESSAGES._responses[method]()
    message.ParseFromString(data)
    found = json_format.MessageToDict(message)
    for rows in found.values():
        for row in rows if isinstance(rows, list) else ():
            if isinstance(row, dict) and "headers" in row:
                row["headers"] = [[pair["name"], pair["value"]] for pair in row["headers"]]
    assert found == as_protobuf(told)


def as_protobuf(value: Any) -> Any:
    """Return a JSON value as Protocol Buffers has it: large whole numbers are text."""
    if isinstance(value, dict):
        return {name: as_protobuf(each) for name, each in value.items()}
    if isinstance(value, list):
        return [as_protobuf(each) for each in value]
    return str(value) if value == 2**53 + 1 else value


@pytest.mark.filterwarnings("ignore:invalid character:FutureWarning")  # protobuf's own use of CPython 3.15
@pytest.mark.parametrize("method", [method.name for method in METHODS])
def test_a_request_is_read_as_json_has_it(method: str) -> None:
    params = {parameter.name: sample(parameter.schema) for parameter in BY_NAME[method].parameters}
    message: Any = MESSAGES._requests[method]()
    json_format.ParseDict(params, message)
    assert MESSAGES.read(method, message.SerializeToString()) == params


def test_what_is_not_there_is_told_from_what_is_empty() -> None:
    message: Any = MESSAGES._requests["refresh"](user="", expires=0)
    assert MESSAGES.read("refresh", message.SerializeToString()) == {"user": "", "expires": 0}
    assert MESSAGES.read("refresh", b"") == {}
    assert MESSAGES.write("connection", {"user": None, "expires": None}) == b""


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"\xff", "the request is no PublishRequest"),
        (b"\x0a\x01\xff", "the request is no PublishRequest"),  # no UTF-8
        (b"\x0a\x7f", "the request is no PublishRequest"),  # cut off
        (b"\x9a\x06\x01a", "publish has no parameter with the number 99"),
    ],
)
def test_what_is_no_request_is_refused(data: bytes, why: str) -> None:
    with pytest.raises(Problem, match=why) as caught:
        MESSAGES.read("publish", data)
    assert caught.value.status == 400


def test_a_request_may_not_be_nested_without_end() -> None:
    value = b""
    for _ in range(200):
        value = b"\x32" + _size(value := b"\x0a" + _size(value) + value) + value  # a list in a list
    call = b"\x12" + _size(entry := b"\x0a" + _size(pair := b"\x0a\x01a\x12" + _size(value) + value) + pair) + entry
    with pytest.raises(Problem, match="is no BatchRequest"):
        MESSAGES.read("batch", b"\x0a" + _size(call) + call)


def _size(data: bytes) -> bytes:
    number, found = len(data), b""
    while number > 127:
        found += bytes([number & 127 | 128])
        number >>= 7
    return found + bytes([number])


@given(st.binary(max_size=60))
def test_no_bytes_break_it(data: bytes) -> None:
    for method in ("publish", "batch", "trace"):
        try:
            MESSAGES.read(method, data)
        except Problem as problem:
            assert problem.status == 400


def test_the_compiler_makes_the_same_of_the_file(tmp_path: Any) -> None:
    protoc = pytest.importorskip("grpc_tools.protoc", reason="grpcio-tools is missing")
    from importlib.resources import files

    from google.protobuf import descriptor_pb2

    out = tmp_path / "found"
    include = str(files("grpc_tools") / "_proto")
    arguments = [f"-I{PROTO.parent}", f"-I{include}", f"--descriptor_set_out={out}", str(PROTO)]
    assert protoc.main(["protoc", *arguments]) == 0
    (compiled,) = descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes()).file
    made = descriptor_pb2.FileDescriptorProto()
    MESSAGES._problem.DESCRIPTOR.file.CopyToProto(made)
    assert {service.name: len(service.method) for service in compiled.service} == {"Admin": len(METHODS)}
    for file in (compiled, made):
        file.ClearField("service")
        file.name = "admin.proto"
        for message in file.message_type:
            _without_defaults(message)
    assert compiled == made


def _without_defaults(message: Any) -> None:
    """Take out the order in which the compiler has nested messages, and names in JSON that need not be said."""
    nested = sorted(message.nested_type, key=lambda each: each.name)
    copies = [each.__class__.FromString(each.SerializeToString()) for each in nested]
    del message.nested_type[:]
    message.nested_type.extend(copies)
    for each in message.nested_type:
        _without_defaults(each)
        for field in each.field:
            if each.options.map_entry:
                field.ClearField("json_name")
