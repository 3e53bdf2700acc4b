"""
The bounds of numbers, in one place: for options, whose values are text, and for fields of dataclasses.

Used by :mod:`lhttp_tx.codec.limits`, :mod:`lhttp_tx.config` and the options. Imports nothing of the project.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import lru_cache
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

__all__ = [
    "BYTE_RATE",
    "COUNT",
    "COUNT_OR_NONE",
    "DELAY",
    "GRACE",
    "HANG",
    "PING_INTERVAL",
    "RATE",
    "RATIO",
    "REPLICAS",
    "SECONDS",
    "SECONDS_OR_NONE",
    "SIZE",
    "SIZE_OR_NONE",
    "WAIT",
    "WORKERS",
    "Bound",
    "check_fields",
]


_SHOWN = 40
"""The most characters of an option's value that an error text shows."""

_INTEGER = re.compile(r"-?[0-9]+")
_NUMBER = re.compile(r"-?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]{1,3})?|nan|inf")
_NUMBERS: Mapping[type, Callable[[str], object]] = {int: _INTEGER.fullmatch, float: _NUMBER.fullmatch}
"""How a number is written. Python also reads signs, underscores, and digits of other scripts."""


@dataclass(frozen=True, slots=True)
class Bound:
    """
    The numbers from *low* to *high*, both included.

    >>> Bound(int, 1, 5)("3")
    3

    :ivar kind: ``int`` or ``float``.
    :ivar low: the smallest number.
    :ivar high: the largest number.
    :ivar zero: whether 0 is also allowed, with the meaning "none".
    """

    kind: type
    low: float
    high: float
    zero: bool = False

    def __str__(self) -> str:
        return f"from {self.low} to {self.high}"

    def __call__(self, text: str) -> Any:
        """
        Return the number in the text of an option.

        :raises ValueError: if the text is not one of these numbers.
        """
        stripped = text.strip()
        if not _NUMBERS[self.kind](stripped):
            raise ValueError(f"{text[:_SHOWN]!r} is not a number")
        try:
            number = self.kind(stripped)
        except ValueError:
            number = float("inf")  # more digits than Python reads
        if number not in self:
            raise ValueError(f"{text[:_SHOWN]} is not {self}{', nor 0' if self.zero else ''}")
        return number

    def __contains__(self, number: float) -> bool:
        return self.low <= number <= self.high or (self.zero and number == 0)

    def check(self, name: str, value: object) -> None:
        """
        Check the type and the bounds of a value.

        :param name: the name of the value, for the error text.
        :raises TypeError: if *value* is not a number of this kind.
        :raises ValueError: if *value* is out of bounds.
        """
        _check_type(name, value, self.kind)
        if value not in self:  # type: ignore[operator]
            raise ValueError(f"{name} is {self}{', or 0' if self.zero else ''}, not {value}")

    @property
    def coerceDoc(self) -> str:  # noqa: N802 - Twisted's name
        """The description for ``--help``."""
        return f"A number {self}{', or 0' if self.zero else ''}."


SIZE = Bound(int, 1, 2**31 - 1)
COUNT = Bound(int, 1, 1_000_000)
COUNT_OR_NONE = Bound(int, 0, 1_000_000)
BYTE_RATE = Bound(int, 0, 2**31 - 1)
RATE = Bound(float, 0.1, 1_000_000, zero=True)
RATIO = Bound(float, 0, 1)
SECONDS = Bound(float, 0.1, 86_400)
SECONDS_OR_NONE = Bound(float, 0, 86_400)
PING_INTERVAL = Bound(float, 1, 86_400, zero=True)
GRACE = Bound(float, 0.1, 86_400, zero=True)
WAIT = Bound(float, 0.01, 86_400, zero=True)
HANG = Bound(float, 5, 86_400, zero=True)
DELAY = Bound(float, 1, 3_600, zero=True)
WORKERS = Bound(int, 1, 256)
REPLICAS = Bound(int, 1, 5)
SIZE_OR_NONE = Bound(int, 65_536, 2**50, zero=True)

_ANY: dict[Any, Bound] = {int: Bound(int, 0, 2**63 - 1), float: Bound(float, 0, 2**63 - 1)}
"""The bounds of a number that has no bounds of its own: it must not be negative."""


def check_fields(value: Any, bounds: Mapping[str, Bound]) -> None:
    """
    Check the types of a dataclass's fields, and the bounds of its numbers.

    :param value: the instance. Errors do not show the values of fields that are not numbers, which may be secret.
    :param bounds: the bounds of its numbers, by the name of the field. Other numbers must not be negative.
    :raises TypeError: if a field has a wrong type.
    :raises ValueError: if a number is out of bounds.
    """
    hints = _hints(value.__class__)
    for field in fields(value):
        found, hint = getattr(value, field.name), hints[field.name]
        bound = bounds.get(field.name) or _ANY.get(hint)
        if bound is not None:
            bound.check(field.name, found)
        else:
            _check_type(field.name, found, hint)


@lru_cache
def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)


def _check_type(name: str, value: object, hint: Any) -> None:
    if not _fits(value, hint):
        raise TypeError(f"{name} is {_told(hint)}, not {_told_type(value)}")


def _fits(value: object, hint: Any) -> bool:
    if get_origin(hint) in (Union, UnionType):
        return any(_fits(value, choice) for choice in get_args(hint))
    if get_origin(hint) is tuple:
        return isinstance(value, tuple) and all(_fits(found, get_args(hint)[0]) for found in value)
    if get_origin(hint) is Mapping:
        key, content = get_args(hint)
        return isinstance(value, Mapping) and all(
            _fits(name, key) and _fits(found, content) for name, found in value.items()
        )
    if hint is Any:
        return True
    if hint in (int, float):
        return isinstance(value, int | hint) and not isinstance(value, bool)
    return isinstance(value, hint)


def _told(hint: Any) -> str:
    if get_origin(hint) in (Union, UnionType):
        return " or ".join(map(_told, get_args(hint)))
    if get_origin(hint) is tuple:
        return f"a tuple of {get_args(hint)[0].__name__}"
    if get_origin(hint) is Mapping:
        key, content = get_args(hint)
        return f"a mapping of {_told(key)} to {_told(content)}"
    if hint is Any:
        return "anything"
    names = {
        Any: "anything",
        int: "a whole number",
        float: "a number",
        bool: "True or False",
        str: "a str",
        bytes: "bytes",
    }
    return names.get(hint, "None" if hint is NoneType else hint.__name__)


def _told_type(value: object) -> str:
    if isinstance(value, tuple):
        return "one with " + ", ".join(sorted({type(found).__name__ for found in value}))
    return type(value).__name__
