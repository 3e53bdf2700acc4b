"""What is public, and what is not."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "reference" / "public.rst"
IMPORT = re.compile(r"^ *from (lhttp_tx[\w.]*) import (?:\(([^)]*)\)|([\w, ]+))", re.MULTILINE)
PUBLIC = {
    "lhttp_tx.running": ["RunningServer", "control", "presence", "publish"],
    "lhttp_tx.hooks": ["Hooks"],
    "lhttp_tx.filters": ["HeaderFilter"],
    "lhttp_tx.service": ["LHTTPService"],
    "lhttp_tx.config": ["Config"],
    "lhttp_tx.testing": ["BusContract", "Client", "HistoryContract", "Server"],
}


def modules() -> list[str]:
    rows = re.findall(r"^   \* - (.*)$", PAGE.read_text("utf-8"), re.MULTILINE)
    return [name for row in rows for name in re.findall(r"``(lhttp_tx[\w.]*)``", row)]


@pytest.mark.parametrize("name", modules())
def test_every_public_module_says_what_is_public(name: str) -> None:
    module = importlib.import_module(name)
    assert module.__all__
    for public in module.__all__:
        assert hasattr(module, public)
        assert not public.startswith("_") or public == "__version__"


@pytest.mark.parametrize("name", PUBLIC)
def test_nothing_internal_is_public(name: str) -> None:
    assert name in modules()
    assert sorted(importlib.import_module(name).__all__) == PUBLIC[name]


def test_an_interface_module_holds_interfaces_and_types_alone() -> None:
    interfaces = importlib.import_module("lhttp_tx.interfaces")
    assert [name for name in interfaces.__all__ if name[0].islower()] == []


def names() -> set[str]:
    """The public names that the page gives one by one."""
    return set(re.findall(r"(?::(?:class|func):`|``)(lhttp_tx(?:\.\w+)+\.\w+)`", PAGE.read_text("utf-8")))


def test_names_on_the_page_are_there() -> None:
    for name in names():
        module, _, attribute = name.rpartition(".")
        assert hasattr(importlib.import_module(module), attribute), name


def used() -> set[tuple[str, str]]:
    """Every name that a page, an example or the sample for type checkers imports, and who does."""
    files = [
        *ROOT.glob("docs/**/*.rst"),
        *ROOT.glob("examples/**/*.py"),
        *ROOT.glob("examples/*.tac"),
        ROOT / "README.md",
        ROOT / "tests" / "typing" / "sample_plugin.py",
    ]
    found: set[tuple[str, str]] = set()
    for file in files:
        for module, several, line in IMPORT.findall(file.read_text("utf-8")):
            found |= {(f"{module}.{name}", file.name) for name in re.findall(r"\w+", several or line)}
    return found


def test_users_are_told_to_import_what_is_public_alone() -> None:
    open_to_all = {f"{name}.{each}" for name in modules() for each in importlib.import_module(name).__all__}
    open_to_all |= names() | set(modules())
    assert sorted((name, file) for name, file in used() if name not in open_to_all) == []
