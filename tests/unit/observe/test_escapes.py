"""lhttp_tx.observe.escapes: text of strangers in the log."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from lhttp_tx.observe.escapes import printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("tcp4:192.0.2.1:54321", "tcp4:192.0.2.1:54321"),
        ("Jürgen", "Jürgen"),
        ("", ""),
        ("a\x1b[31mb", r"a\x1b[31mb"),
        ("a\nb", r"a\nb"),
        ("a\u202eb", r"a\u202eb"),
        ("\udcff", r"\udcff"),
    ],
)
def test_what_cannot_be_printed_is_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown


@given(st.text())
def test_the_result_can_be_printed(text: str) -> None:
    assert printable(text).isprintable()
