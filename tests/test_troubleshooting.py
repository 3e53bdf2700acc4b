"""The messages on the page about troubleshooting are those that the program gives."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs/troubleshooting.rst").read_text(encoding="utf-8")
OTHERS = frozenset({"Connection refused", "Address already in use"})
"""Messages of the system."""


def messages() -> list[str]:
    """Return the messages in the first column of the page's tables."""
    cells = re.findall(r"^   \* - (.*(?:\n       .*)*)", PAGE, re.MULTILINE)
    found = [re.sub(r"\s+", " ", text) for cell in cells for text in re.findall(r"``(.+?)``", cell, re.DOTALL)]
    return [text for text in found if " " in text]


def texts() -> str:
    """Return every string in the source, a line each; a replacement field of an f-string ends a line."""
    found = []
    for path in sorted((ROOT / "lhttp_tx").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str | bytes):
                value = node.value if isinstance(node.value, str) else node.value.decode("latin-1")
                found.append(re.sub(r"\{[^}]*\}", "\n", value))
    return "\n".join(found)


@pytest.fixture(scope="module")
def source() -> str:
    return texts()


@pytest.mark.parametrize("message", messages())
def test_message_is_one_of_the_program(message: str, source: str) -> None:
    pieces = [piece.strip() for piece in message.split("…")]
    for piece in pieces:
        known = piece.split(": ", 1)[1:] if piece.endswith(tuple(OTHERS)) else [piece]
        assert all(text in source or text in OTHERS for text in known), f"nothing says {piece!r}"


def test_page_has_messages_of_all_kinds() -> None:
    assert len(messages()) > 50
