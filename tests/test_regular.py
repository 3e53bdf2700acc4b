"""Every regular expression of the server and of the clients, against texts that make it go back: its work is linear."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from regular import Counter, TooMany, attacks

import lhttp_tx

ROOT = Path(lhttp_tx.__file__).parent
SIZE = 40
GROWTH = 2.5
"""How many times the steps twice the text may take; 4 for what is quadratic."""

_WHOLE = {"fullmatch", "match"}
_USES = {*_WHOLE, "search", "sub", "subn", "findall", "finditer", "split"}
_LITERAL = re.compile(r"(?<=[(=>,:&|!?])\s*/((?![*/])(?:\\.|\[(?:\\.|[^\]\\\n])*\]|[^/\\\[\n])+)/([dgimsuvy]*)")


def of_python() -> Iterator[tuple[str, str | bytes, int, bool]]:
    """Give the name, the pattern, the flags, and whether all of a text is matched, of each in the package."""
    for path in sorted(ROOT.rglob("*.py")):
        tree = ast.parse(path.read_text("utf-8"))
        module = ".".join(path.relative_to(ROOT.parent).with_suffix("").parts)
        used: dict[str, set[str]] = {}
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                used.setdefault(node.value.id, set()).add(node.attr)
        for node in ast.walk(tree):
            if isinstance(node, ast.Assign) and _calls_re(node.value, {"compile"}):
                (target,) = node.targets
                assert isinstance(target, ast.Name)
                compiled: re.Pattern[Any] = getattr(__import__(module, fromlist=[target.id]), target.id)
                uses = used[target.id] & _USES
                assert uses, f"{module}: what is {target.id} for?"
                yield f"{module}.{target.id}", compiled.pattern, compiled.flags, uses <= _WHOLE
            elif _calls_re(node, _USES):
                pattern = node.args[0]  # type: ignore[attr-defined]
                assert isinstance(pattern, ast.Constant)
                assert isinstance(pattern.value, str | bytes)
                yield f"{module}: {pattern.value!r}", pattern.value, 0, False


def _calls_re(node: ast.AST, names: set[str]) -> bool:
    """Return whether *node* is a call of one of the functions of the module re."""
    function = getattr(node, "func", None)
    module = getattr(function, "value", None)
    return isinstance(module, ast.Name) and module.id == "re" and function.attr in names  # type: ignore[union-attr]


def of_javascript() -> Iterator[tuple[str, str, int, bool]]:
    """Give the same of each in the JavaScript client and the chat page."""
    for path in sorted((ROOT / "web" / "static").rglob("*.*js")):
        for found in _LITERAL.finditer(path.read_text("utf-8")):
            pattern = re.sub(r"\\p\{\w+\}", r"\\s", found[1])
            yield f"{path.name}: /{found[1]}/", pattern, re.IGNORECASE if "i" in found[2] else 0, False


PYTHON = list(of_python())
JAVASCRIPT = list(of_javascript())
ALL = [*PYTHON, *JAVASCRIPT]


@pytest.fixture(autouse=True)
def deep() -> Iterator[None]:
    """Let the counter go as deep as a text is long."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(10_000)
    yield
    sys.setrecursionlimit(limit)


def growth(pattern: str | bytes, flags: int, whole: bool) -> float:
    """Return how many times the steps the worst text takes when it is twice as long."""
    counter = Counter(pattern, flags)
    run: Callable[[str, int], int] = counter.full if whole else counter.search_all
    worst = 0.0
    for attack in attacks(counter):
        once, twice = attack(SIZE), attack(2 * SIZE)
        try:
            steps = run(once, 60 * len(once) + 500)
            worst = max(worst, run(twice, 60 * len(twice) + 500) / (steps + 50))
        except TooMany:
            return float("inf")
    return worst


@pytest.mark.parametrize(("pattern", "flags", "whole"), [entry[1:] for entry in ALL], ids=[entry[0] for entry in ALL])
def test_the_steps_of_a_match_grow_with_the_text_and_no_faster(pattern: str | bytes, flags: int, whole: bool) -> None:
    assert growth(pattern, flags, whole) <= GROWTH


@pytest.mark.parametrize("pattern", [r"[ \t]+$", r"^(a+)+$", r"a*a*$", r"(?:a|a)*b", r"x.*y.*z", r"\s*:", r"a++b"])
def test_expressions_that_are_not_linear_are_found(pattern: str) -> None:
    assert growth(pattern, 0, False) > GROWTH


@pytest.mark.parametrize(
    "pattern", [r"^[ \t]+", r"[ \t]+", r"^a{1,64}$", r"(?i)ab|cd", r"(?<=x)y", r"(?m)^a++b", r"[^a]*a"]
)
def test_expressions_that_are_linear_pass(pattern: str) -> None:
    assert growth(pattern, 0, pattern == "[^a]*a") <= GROWTH


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        (r"a(b|c)+d?", "abcbcdx"),
        (r"(?!a)[^a]*", "bcda"),
        (rb"[\x21-\x7e]{2,3}", "abcd"),
        (r"^\s*x$", "  x"),
        (r"a++b", "aab"),
        (r"a*+ab", "aab"),
        (r"(?:ab?)*+c", "abaabc"),
        (r"(?i)AB", "ab"),
    ],
)
def test_the_counter_matches_as_python_does(pattern: str | bytes, text: str) -> None:
    counter = Counter(pattern)
    counter._begin(text, 10_000)
    end = counter._sequence(list(counter.tree), lambda at: at)(0)
    found = re.match(pattern, text.encode() if isinstance(pattern, bytes) else text)  # type: ignore[arg-type]
    assert end == (found.end() if found else -1)


def test_all_that_there_are_have_been_found() -> None:
    assert len(PYTHON) >= 20
    count = sum(
        len(
            re.findall(
                r"\bre\.(?:compile|search|match|fullmatch|findall|finditer|sub|split)\(", path.read_text("utf-8")
            )
        )
        for path in ROOT.rglob("*.py")
    )
    assert count == len(PYTHON)
    assert len(JAVASCRIPT) >= 12
