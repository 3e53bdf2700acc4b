"""Reading ``tests/vectors``; see the README there."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

__all__ = ["VECTORS", "octets", "parametrized", "read"]

VECTORS = Path(__file__).parent.parent / "vectors"


def read(name: str) -> list[dict[str, Any]]:
    """Return the entries of the file *name*."""
    entries: list[dict[str, Any]] = json.loads((VECTORS / f"{name}.json").read_bytes())
    return entries


def octets(entry: dict[str, Any], key: str) -> bytes:
    """Return the bytes that *entry* holds under *key*, in whichever of the three ways."""
    if key in entry:
        return str(entry[key]).encode("utf-8")
    if key + "_base64" in entry:
        return base64.b64decode(entry[key + "_base64"], validate=True)
    return "".join(text * times for text, times in entry[key + "_repeat"]).encode("utf-8")


def parametrized(name: str) -> pytest.MarkDecorator:
    """Return a mark that runs a test for each entry of the file *name*."""
    entries = read(name)
    return pytest.mark.parametrize("entry", entries, ids=[entry["name"].replace("[", "(") for entry in entries])
