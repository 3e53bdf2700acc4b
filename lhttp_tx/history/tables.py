"""
Reads the history settings of a configuration file.

The key ``history`` is ``true``, ``false``, a table such as ``{messages = 100, age = "24h"}``, or the name of a table
``[retention.NAME]``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from hashlib import sha256
from typing import Any

from lhttp_tx.history.values import DEFAULT_RETENTION, OPTIONS_CLASS, Retention

__all__ = ["read_age", "read_classes", "read_history"]

_KEYS = ("messages", "age", "size", "recovery")

_AGE = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,3})?) ?(s|m|h|d)")

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}

_TAKEN = (DEFAULT_RETENTION.name, OPTIONS_CLASS)
"""The names of history classes that a file cannot define."""


def read_age(value: Any) -> float:
    """
    Return *value* in seconds. It is a number of seconds, or a text such as ``90s``, ``15m``, ``24h`` or ``7d``.

    :raises ValueError: if it is neither.
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    found = _AGE.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise ValueError(f'age is a number of seconds, or a text such as "90s", "15m", "24h" or "7d", not {value!r}')
    return float(found[1]) * _UNITS[found[2]]


def read_history(value: Any, classes: Mapping[str, Retention]) -> Retention | None:
    """
    Return the history class that the key ``history`` of a channel rule stands for.

    :param value: the value as :mod:`tomllib` reads it.
    :param classes: the named history classes.
    :returns: the class; ``None`` for ``false``, which means no history.
    :raises ValueError: if *value* is not valid. The text says why.
    """
    if isinstance(value, bool):
        return DEFAULT_RETENTION if value else None
    if isinstance(value, str):
        if value not in classes:
            known = f"; those that exist: {', '.join(sorted(classes))}" if classes else ""
            raise ValueError(f"there is no table [retention.{value[:64]}]{known}")
        return classes[value]
    if isinstance(value, dict):
        found = _read(value)
        return Retention(_name_of(found), **found)
    raise ValueError('it is true, false, a table such as {messages = 100, age = "24h"}, or the name of a class')


def read_classes(tables: Any) -> tuple[dict[str, Retention], list[tuple[tuple[str, ...], str]]]:
    """
    Return the history classes of the tables ``[retention.NAME]``, and the mistakes in them.

    A table with a mistake counts as a class with the default limits.

    :param tables: the table ``retention`` as :mod:`tomllib` reads it.
    :returns: the classes by name; and the mistakes, each as a pair of its place below ``retention`` and a text.
    """
    if not isinstance(tables, dict) or not all(isinstance(table, dict) for table in tables.values()):
        return {}, [((), "retention is a table of tables: write [retention.NAME]")]
    classes: dict[str, Retention] = {}
    problems: list[tuple[tuple[str, ...], str]] = []
    for name, table in tables.items():
        try:
            if name in _TAKEN:
                raise ValueError(f"{name} is a reserved name: choose another one")
            classes[name] = Retention(name, **_read(table))
        except ValueError as error:
            problems.append(((name,), str(error)))
            classes[name] = DEFAULT_RETENTION  # so that rules with this name are not reported, too
    return classes, problems


def _read(table: Mapping[str, Any]) -> dict[str, Any]:
    for key in table:
        if key not in _KEYS:
            raise ValueError(f"there is no key {key}; those that exist: {', '.join(_KEYS)}")
    found: dict[str, Any] = {key: table[key] for key in _KEYS if key in table}
    for key, value in found.items():
        if key != "age" and (not isinstance(value, int) or isinstance(value, bool)):
            raise ValueError(f"{key} is a whole number, not {value!r}")
    if "age" in found:
        found["age"] = read_age(found["age"])
    Retention("checked", **found)
    return found


def _name_of(found: Mapping[str, Any]) -> str:
    """Return a name for a class that has none. It depends only on the limits, and differs for other limits."""
    whole = Retention("checked", **found)
    bounds = (("m", whole.messages), ("a", f"{whole.age:.15g}"), ("s", whole.size), ("r", whole.recovery))
    name = "_".join(f"{letter}{str(value).replace('.', '-')}" for letter, value in bounds if value)
    return name if len(name) <= 32 else "h" + sha256(name.encode("ascii")).hexdigest()[:31]
