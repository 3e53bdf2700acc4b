"""
Finds the lines of keys in a TOML document, because ``tomllib`` does not report them.

Used by :mod:`lhttp_tx.twistd.settings`. Pure functions on text that is valid TOML.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from typing import Any, TypeAlias

__all__ = ["Place", "find_lines", "line_of"]

Place: TypeAlias = tuple[str | int, ...]
"""A place in a document: keys, and the indexes of tables in an array."""

# The end of a string is optional. Otherwise, in an invalid document, the search would restart at each quotation mark.
# A backslash always takes the next character with it, so that a string can be read in only one way.
_TOKEN = re.compile(
    r'(?P<string>"""(?:\\.|(?!""")[^\\])*(?:"""+)?|\'\'\'(?:(?!\'\'\').)*(?:\'\'\'+)?|"(?:\\.|[^"\\\n])*"?|\'[^\'\n]*\'?)'
    r"|(?P<comment>\#[^\n]*)|(?P<end>\n)|(?P<open>[\[{])|(?P<close>[\]}])|(?P<equals>=)|(?P<other>[^\"'\#\n\[\]{}=]+|.)",
    re.DOTALL,
)


def find_lines(text: str) -> dict[Place, int]:
    """
    Return the lines of all keys and table headers in a TOML document, except those inside a value.

    :param text: a valid document.
    """
    lines: dict[Place, int] = {}
    counts: dict[Place, int] = {}
    prefix: Place = ()
    statement: list[re.Match[str]] = []
    depth, line, start = 0, 1, 1
    for token in _TOKEN.finditer(text + "\n"):
        kind = token.lastgroup
        if kind == "end" and depth == 0:
            if statement:
                prefix = _note(statement, prefix, start, lines, counts)
            statement = []
        elif kind == "open":
            depth += 1
        elif kind == "close":
            depth -= 1
        if kind not in ("end", "comment") and (statement or token[0].strip()):
            if not statement:
                start = line
            statement.append(token)
        line += token[0].count("\n")
    return lines


def _note(
    statement: list[re.Match[str]], prefix: Place, line: int, lines: dict[Place, int], counts: dict[Place, int]
) -> Place:
    """Note the line of a statement. Return the table to which the following statements belong."""
    text = "".join(token[0] for token in statement).strip()
    if not text.startswith("["):
        equals = next(number for number, token in enumerate(statement) if token.lastgroup == "equals")
        place = prefix + _keys("".join(token[0] for token in statement[:equals]))
        for end in range(len(prefix) + 1, len(place) + 1):
            lines.setdefault(place[:end], line)
        return prefix
    many = text.startswith("[[")
    keys = _keys(text[2:-2] if many else text[1:-1])
    name: Place = ()
    for number, key in enumerate(keys, 1):
        name += (key,)
        if name in counts and number < len(keys):
            name += (counts[name],)
    if many:
        counts[name] = counts.get(name, -1) + 1
        lines.setdefault(name, line)
        name += (counts[name],)
    lines[name] = line
    return name


def _keys(text: str) -> tuple[str, ...]:
    """Return the parts of a dotted key."""
    found: Any = tomllib.loads(f"{text.strip()} = 0")
    keys: list[str] = []
    while isinstance(found, dict):
        ((key, found),) = found.items()
        keys.append(key)
    return tuple(keys)


def line_of(lines: Mapping[Place, int], place: Place) -> int:
    """Return the line of *place*, or of its nearest known parent."""
    while place and place not in lines:
        place = place[:-1]
    return lines.get(place, 1)
