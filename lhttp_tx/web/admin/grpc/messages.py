"""
Converts between the messages of the gRPC side, which are objects of the library protobuf, and JSON values.

There is no generated code: the classes are made from :mod:`lhttp_tx.web.admin.proto` when the server starts. They have
a pool of their own, so that they do not collide with classes that a program has generated from ``admin.proto``. Source:
Protocol Buffers, "ProtoJSON Format", with two differences: whole numbers are also numbers in JSON, and a header is a
pair.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from typing import Any

from google.protobuf import any_pb2, descriptor_pb2, struct_pb2
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.unknown_fields import UnknownFieldSet

from lhttp_tx.observe.methods import METHODS
from lhttp_tx.web.admin.problems import Problem
from lhttp_tx.web.admin.proto import PACKAGE, PROTO, STRUCT, Field, Structure, rpc_name, structures

__all__ = ["Messages"]

_TYPES = {
    "string": FieldDescriptor.TYPE_STRING,
    "bytes": FieldDescriptor.TYPE_BYTES,
    "int64": FieldDescriptor.TYPE_INT64,
    "double": FieldDescriptor.TYPE_DOUBLE,
    "bool": FieldDescriptor.TYPE_BOOL,
}
_HEADER = f"{PACKAGE}.Header"


class Messages:
    """Reads requests and writes answers."""

    def __init__(self) -> None:
        """Make the classes."""
        pool = DescriptorPool()
        for known in (struct_pb2, any_pb2):
            pool.AddSerializedFile(known.DESCRIPTOR.serialized_pb)
        pool.Add(_file(structures(PROTO.read_text("utf-8"))))
        pool.Add(_status())

        def named(name: str) -> type[Message]:
            return GetMessageClass(pool.FindMessageTypeByName(name))  # type: ignore[no-any-return,unused-ignore]

        self._requests = {method.name: named(f"{PACKAGE}.{rpc_name(method.name)}Request") for method in METHODS}
        self._responses = {method.name: named(f"{PACKAGE}.{rpc_name(method.name)}Response") for method in METHODS}
        self._problem = named(f"{PACKAGE}.Problem")
        self._status = named("google.rpc.Status")

    def read(self, method: str, data: bytes) -> dict[str, Any]:
        """
        Return the parameters in a request, a JSON value.

        :param method: the name of the method.
        :param data: the bytes of the request.
        :raises Problem: with status 400 if *data* is not such a request, or has an unknown field.
        """
        message: Any = self._requests[method]()
        try:
            message.ParseFromString(data)
        except (DecodeError, RecursionError):
            raise Problem(400, f"the request is no {message.DESCRIPTOR.name}") from None
        unknown = UnknownFieldSet(message)
        if len(unknown):
            raise Problem(400, f"{method} has no parameter with the number {unknown[0].field_number}")
        return _told(message)

    def write(self, method: str, told: Mapping[str, Any]) -> bytes:
        """
        Return the bytes of a response.

        :param method: the name of the method.
        :param told: the answer, a JSON value.
        """
        message: Any = self._responses[method]()
        _fill(message, told)
        found: bytes = message.SerializeToString()
        return found

    def write_problem(self, code: int, problem: Problem) -> bytes:
        """
        Return a ``google.rpc.Status`` with a ``Problem`` in its details.

        :param code: the status code of gRPC.
        :param problem: the problem.
        """
        message = self._problem()
        _fill(message, problem.told)
        status: Any = self._status(code=code, message=problem.detail)
        detail = status.details.add()
        detail.type_url = f"type.googleapis.com/{PACKAGE}.Problem"
        detail.value = message.SerializeToString()
        found: bytes = status.SerializeToString()
        return found


def _told(message: Any) -> dict[str, Any]:
    """Return the JSON value of a message."""
    told: dict[str, Any] = {}
    for field, value in message.ListFields():
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            told[field.json_name] = {key: value[key] for key in sorted(value)}  # maps have no order
        elif _is_repeated(field):
            told[field.json_name] = [_told_one(field, each) for each in value]
        else:
            told[field.json_name] = _told_one(field, value)
    return told


def _told_one(field: Any, value: Any) -> Any:
    if field.type == FieldDescriptor.TYPE_BYTES:
        return base64.b64encode(value).decode("ascii")
    if field.type != FieldDescriptor.TYPE_MESSAGE:
        return value
    if field.message_type.full_name == STRUCT:
        return {key: _plain(each) for key, each in value.fields.items()}
    return _told(value)


def _plain(value: Any) -> Any:
    """Return the JSON value of a ``google.protobuf.Value``."""
    kind = value.WhichOneof("kind")
    if kind == "struct_value":
        return {key: _plain(each) for key, each in value.struct_value.fields.items()}
    if kind == "list_value":
        return [_plain(each) for each in value.list_value.values]
    if kind == "number_value":
        number: float = value.number_value
        return int(number) if number.is_integer() else number
    return None if kind in (None, "null_value") else getattr(value, kind)


def _fill(message: Any, told: Mapping[str, Any]) -> None:
    """Set the fields of a message to those of a JSON value. Skip values that are ``None``."""
    fields = {field.json_name: field for field in message.DESCRIPTOR.fields}
    for key, value in told.items():
        if value is None:
            continue
        field = fields[key]
        if field.type != FieldDescriptor.TYPE_MESSAGE:
            if _is_repeated(field):
                getattr(message, field.name).extend(value)
            else:
                is_bytes = field.type == FieldDescriptor.TYPE_BYTES
                setattr(message, field.name, base64.b64decode(value) if is_bytes else value)
            continue
        inner = getattr(message, field.name)
        if field.message_type.GetOptions().map_entry:
            inner.update(value)
        elif field.message_type.full_name == STRUCT:
            inner.SetInParent()
            _fill_struct(inner, value)
        elif field.message_type.full_name == _HEADER:
            for name, text in value:
                inner.add(name=name, value=text)
        else:
            for row in value:
                _fill(inner.add(), row)


def _fill_struct(struct: Any, told: Mapping[str, Any]) -> None:
    for key, value in told.items():
        _fill_value(struct.fields[key], value)


def _fill_value(found: Any, value: Any) -> None:
    if value is None:
        found.null_value = 0
    elif isinstance(value, bool):
        found.bool_value = value
    elif isinstance(value, int | float):
        found.number_value = value
    elif isinstance(value, str):
        found.string_value = value
    elif isinstance(value, Mapping):
        found.struct_value.SetInParent()
        _fill_struct(found.struct_value, value)
    else:
        found.list_value.SetInParent()
        for each in value:
            _fill_value(found.list_value.values.add(), each)


def _is_repeated(field: Any) -> bool:
    """Return whether a field is repeated. Newer versions of the library have another attribute for it."""
    repeated = getattr(field, "is_repeated", None)
    return bool(field.label == FieldDescriptor.LABEL_REPEATED if repeated is None else repeated)


def _file(found: Iterable[Structure]) -> Any:
    """Return the file with all messages."""
    file = descriptor_pb2.FileDescriptorProto(
        name="lhttp/admin/v1/admin.proto", package=PACKAGE, syntax="proto3", dependency=["google/protobuf/struct.proto"]
    )
    for structure in found:
        _add(file.message_type.add(), structure, f".{PACKAGE}")
    return file


def _add(message: Any, structure: Structure, place: str) -> None:
    message.name = structure.name
    path = f"{place}.{structure.name}"
    for row in structure.rows:
        _add(message.nested_type.add(), row, path)
    local = {row.name for row in structure.rows}
    for field in structure.fields:
        added = message.field.add(name=field.name, number=field.number, json_name=field.key)
        added.label = FieldDescriptor.LABEL_OPTIONAL if field.label == "optional" else FieldDescriptor.LABEL_REPEATED
        if field.label == "map":
            added.type, added.type_name = FieldDescriptor.TYPE_MESSAGE, f"{path}.{_add_map(message, field)}"
        elif field.type in _TYPES:
            added.type = _TYPES[field.type]
        else:
            near = f"{path}.{field.type}" if field.type in local else f".{PACKAGE}.{field.type}"
            added.type, added.type_name = FieldDescriptor.TYPE_MESSAGE, f".{STRUCT}" if field.type == STRUCT else near
        if field.label == "optional":
            # A choice (oneof) with only this field tells whether the field is set, as protoc does for proto3.
            added.proto3_optional, added.oneof_index = True, len(message.oneof_decl)
            message.oneof_decl.add(name=f"_{field.name}")


def _add_map(message: Any, field: Field) -> str:
    """Add the message of the entries of a map, and return its name."""
    entry = message.nested_type.add(name=f"{rpc_name(field.name)}Entry")
    entry.options.map_entry = True
    for number, (name, kind) in enumerate((("key", "string"), ("value", field.type)), 1):
        entry.field.add(name=name, number=number, label=FieldDescriptor.LABEL_OPTIONAL, type=_TYPES[kind])
    return str(entry.name)


def _status() -> Any:
    """Return the file of ``google.rpc.Status``, which libraries of gRPC know."""
    file = descriptor_pb2.FileDescriptorProto(
        name="google/rpc/status.proto", package="google.rpc", syntax="proto3", dependency=["google/protobuf/any.proto"]
    )
    message = file.message_type.add(name="Status")
    for number, (name, kind) in enumerate((("code", "int64"), ("message", "string")), 1):
        message.field.add(name=name, number=number, label=FieldDescriptor.LABEL_OPTIONAL, type=_TYPES[kind])
    message.field.add(
        name="details",
        number=3,
        label=FieldDescriptor.LABEL_REPEATED,
        type=FieldDescriptor.TYPE_MESSAGE,
        type_name=".google.protobuf.Any",
    )
    return file
