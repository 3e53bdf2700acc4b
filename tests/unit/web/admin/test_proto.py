"""lhttp_tx.web.admin.proto: the file for gRPC is what the table of methods gives, and its numbers stay."""

from __future__ import annotations

import re

from lhttp_tx.observe.methods import METHODS
from lhttp_tx.web.admin.proto import PROTO, rpc_name, structures, written

TEXT = PROTO.read_text("utf-8")


def test_the_file_is_what_the_table_gives() -> None:
    assert written(TEXT) == TEXT, "write it anew: python -m lhttp_tx.web.admin.proto"


def test_every_method_and_every_parameter_is_in_it() -> None:
    messages = {structure.name: {field.key for field in structure.fields} for structure in structures(TEXT)}
    for method in METHODS:
        name = rpc_name(method.name)
        assert f"  rpc {name}({name}Request) returns ({name}Response);\n" in TEXT
        assert messages[f"{name}Request"] == {parameter.name for parameter in method.parameters}
        assert messages[f"{name}Response"] == set(method.answer)


def test_a_first_file_numbers_the_fields_in_order() -> None:
    first = written("")
    assert written(first) == first
    assert "  optional string command = 2;\n" in first


def test_a_new_field_gets_a_new_number() -> None:
    before = TEXT.replace("  optional string command = 2;\n", "", 1)
    assert before != TEXT
    request = written(before).partition("message PublishRequest {")[2].partition("\n}")[0]
    assert "optional string command = 8;" in request
    assert "optional string body = 4;" in request


def test_the_number_of_a_field_that_is_gone_stays_reserved() -> None:
    before = TEXT.replace("message InfoRequest {\n", "message InfoRequest {\n  reserved 2;\n  optional bool old = 5;\n")
    request = written(before).partition("message InfoRequest {")[2].partition("}")[0]
    assert request == "\n  reserved 2, 5;\n"
    assert written(written(before)) == written(before)


def test_no_number_is_given_twice() -> None:
    for body in re.findall(r"message \w+ \{([^{}]*)\}", TEXT):
        numbers = re.findall(r"\w = (\d+)", body)
        assert len(set(numbers)) == len(numbers)
