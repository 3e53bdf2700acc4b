"""Google's own reader and writer of ``lhttp.proto``, made from the file itself: the judge of the project's."""

from __future__ import annotations

import re
from typing import Any

import pytest

from lhttp_tx.web import assets

__all__ = ["MESSAGE", "DecodeError"]

pytest.importorskip("google.protobuf", reason="Google's reader is not installed: the extra test has it")

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

_TYPES = {"string": 9, "bytes": 12, "bool": 8}


def _message() -> Any:
    text = re.sub(r"//.*", "", assets.files("lhttp_tx.web").joinpath("static", "lhttp.proto").read_text())
    file = descriptor_pb2.FileDescriptorProto(name="lhttp.proto", package="lhttp", syntax="proto3")
    for name, fields in re.findall(r"message (\w+) \{([^}]*)\}", text):
        kind = file.message_type.add(name=name)
        for repeated, type_, field, number in re.findall(r"(repeated )?(\w+) (\w+) = (\d+);", fields):
            added = kind.field.add(name=field, number=int(number), label=3 if repeated else 1)
            if type_ in _TYPES:
                added.type = _TYPES[type_]  # type: ignore[assignment]
            else:
                added.type, added.type_name = 11, f".lhttp.{type_}"  # type: ignore[assignment]
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("lhttp.Message"))


MESSAGE = _message()
"""The class of ``lhttp.Message``."""
