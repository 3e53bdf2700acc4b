"""lhttp_tx.codec.limits: the defaults that the protocol document names."""

import dataclasses

import pytest

from lhttp_tx.codec.limits import DEFAULT_LIMITS, Limits


def test_defaults_are_those_of_the_protocol() -> None:
    assert (DEFAULT_LIMITS.message_size, DEFAULT_LIMITS.head_size, DEFAULT_LIMITS.header_count) == (65_536, 8_192, 64)


def test_every_limit_is_described() -> None:
    for field in dataclasses.fields(Limits):
        assert f":ivar {field.name}:" in (Limits.__doc__ or "")


def test_limits_do_not_change() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        DEFAULT_LIMITS.message_size = 1  # type: ignore[misc]
