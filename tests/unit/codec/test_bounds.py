"""lhttp_tx.codec.bounds: numbers of options and of values, held to the same bounds."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest

from lhttp_tx.codec.bounds import COUNT, PING_INTERVAL, SECONDS, SIZE, Bound, check_fields


@dataclass(frozen=True)
class Sample:
    name: str = "a"
    names: tuple[str, ...] = ()
    secret: bytes | None = None
    is_on: bool = False
    count: int = 1
    seconds: float = 1
    free: int = 0

    def __post_init__(self) -> None:
        check_fields(self, {"count": COUNT, "seconds": SECONDS})


@pytest.mark.parametrize(("text", "number"), [("1", 1), ("1000000", 1_000_000)])
def test_text_becomes_a_number(text: str, number: int) -> None:
    assert COUNT(text) == number


@pytest.mark.parametrize(
    ("bound", "text", "why"),
    [
        (COUNT, "0", "0 is not from 1 to 1000000"),
        (COUNT, "1.5", "'1.5' is not a number"),
        (COUNT, "", "'' is not a number"),
        (COUNT, "+5", r"'\+5' is not a number"),
        (COUNT, "1_000", "'1_000' is not a number"),
        (COUNT, "\u0665", "'\u0665' is not a number"),
        (SECONDS, "1_0", "'1_0' is not a number"),
        (SECONDS, "+5", r"'\+5' is not a number"),
        (SECONDS, "\u0665", "'\u0665' is not a number"),
        (SECONDS, "nan", "nan is not from 0.1 to 86400"),
        (SECONDS, "inf", "inf is not from 0.1 to 86400"),
        (PING_INTERVAL, "0.5", "0.5 is not from 1 to 86400, nor 0"),
    ],
)
def test_text_that_is_out_of_bounds_is_refused(bound: Bound, text: str, why: str) -> None:
    with pytest.raises(ValueError, match=f"^{why}$"):
        bound(text)


def test_zero_may_stand_for_none() -> None:
    assert PING_INTERVAL("0") == 0
    assert PING_INTERVAL.coerceDoc == "A number from 1 to 86400, or 0."
    assert SIZE.coerceDoc == "A number from 1 to 2147483647."


@pytest.mark.parametrize(
    ("settings", "kind", "why"),
    [
        ({"names": "tcp:1"}, TypeError, "names is a tuple of str, not str"),
        ({"names": ["tcp:1"]}, TypeError, "names is a tuple of str, not list"),
        ({"names": ("a", 5)}, TypeError, "names is a tuple of str, not one with int, str"),
        ({"name": None}, TypeError, "name is a str, not NoneType"),
        ({"secret": "a secret"}, TypeError, "secret is bytes or None, not str"),
        ({"is_on": 1}, TypeError, "is_on is True or False, not int"),
        ({"is_on": "no"}, TypeError, "is_on is True or False, not str"),
        ({"count": True}, TypeError, "count is a whole number, not bool"),
        ({"count": 1.0}, TypeError, "count is a whole number, not float"),
        ({"count": 0}, ValueError, "count is from 1 to 1000000, not 0"),
        ({"seconds": "1"}, TypeError, "seconds is a number, not str"),
        ({"seconds": math.nan}, ValueError, "seconds is from 0.1 to 86400, not nan"),
        ({"seconds": math.inf}, ValueError, "seconds is from 0.1 to 86400, not inf"),
        ({"free": -1}, ValueError, "free is from 0 to 9223372036854775807, not -1"),
    ],
)
def test_a_field_that_cannot_be_is_refused(settings: dict[str, object], kind: type[Exception], why: str) -> None:
    with pytest.raises(kind) as caught:
        Sample(**settings)  # type: ignore[arg-type]
    assert str(caught.value) == why


def test_whole_numbers_are_numbers() -> None:
    assert Sample(seconds=2, secret=b"x", names=("a", "b")).seconds == 2
