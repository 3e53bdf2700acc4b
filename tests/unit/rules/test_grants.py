"""lhttp_tx.rules.grants: who may, as a rule says it."""

from __future__ import annotations

from typing import Any

import pytest

from lhttp_tx.identity import Identity
from lhttp_tx.rules.grants import read_access

NOBODY_KNOWN = Identity(None, "1")


def jack(**claims: Any) -> Identity:
    return Identity("jack", "2", claims)


@pytest.mark.parametrize(
    ("access", "anonymous", "known"),
    [("anybody", True, True), ("authenticated", False, True), ("nobody", False, False)],
)
def test_words_say_who_may(access: str, anonymous: bool, known: bool) -> None:
    found = read_access(access, None)
    assert found.allows(NOBODY_KNOWN, "a") is anonymous
    assert found.allows(jack(), "a") is known
    assert str(found) == access


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ({"role": "admin", "level": 1}, {"level": 1, "role": "admin"}, True),
        ({"roles": ["a", "b"]}, {"roles": ["a", "b"]}, True),
        ({"roles": ["a", "b"]}, {"roles": ["a"]}, False),
        ({"roles": ["a"]}, {"roles": "a"}, False),
        ({"role": "admin"}, {"role": "admin", "level": 1}, False),
        ({"admin": 1}, {"admin": True}, False),
        ({"realm": {"admins": [1]}}, {"realm": {"admins": [True]}}, False),
        ({"realm": {"admin": True}}, {"realm": "admin"}, False),
    ],
)
def test_claims_are_the_same_if_they_ask_for_the_same(one: Any, other: Any, same: bool) -> None:
    assert (read_access(one, None) == read_access(other, None)) is same


@pytest.mark.parametrize(
    ("user", "channel", "allowed"),
    [
        ("jack", "user.jack.inbox", True),
        ("mike", "user.jack.inbox", False),
        ("Jack", "user.jack.inbox", False),
        (None, "user.jack.inbox", False),
        (None, "user.None.inbox", False),
        ("*", "user.*.inbox", False),
        (">", "user.>", False),
        ("jack", "user.*.inbox", False),
        ("jack", "user.>", False),
        ("jack", ">", False),
        ("jack", "user.jack.*", True),
    ],
)
def test_a_channel_may_belong_to_the_user_that_it_names(user: str | None, channel: str, allowed: bool) -> None:
    assert read_access("{user}", 1).allows(Identity(user, "1"), channel) is allowed


@pytest.mark.parametrize(
    ("wanted", "claims", "allowed"),
    [
        ({"role": "admin"}, {"role": "admin"}, True),
        ({"role": "admin"}, {"role": "user"}, False),
        ({"role": "admin"}, {}, False),
        ({"role": "admin"}, {"role": ["user", "admin"]}, True),
        ({"role": "admin"}, {"role": []}, False),
        ({"role": "admin"}, {"role": "administrator"}, False),
        ({"role": ["admin", "owner"]}, {"role": "owner"}, True),
        ({"role": ["admin", "owner"]}, {"role": ["user", "owner"]}, True),
        ({"role": "admin", "team": 3}, {"role": "admin", "team": 3}, True),
        ({"role": "admin", "team": 3}, {"role": "admin"}, False),
        ({"team": 1}, {"team": True}, False),
        ({"verified": True}, {"verified": True}, True),
        ({"verified": True}, {"verified": 1}, False),
        ({"verified": True}, {"verified": "true"}, False),
        ({"realm": {"roles": "admin"}}, {"realm": {"roles": ["admin"]}}, True),
        ({"realm": {"roles": "admin"}}, {"realm": "admin"}, False),
        ({"scope": "chat:write"}, {"scope": "chat:read chat:write"}, True),
        ({"scope": "chat:w"}, {"scope": "chat:read chat:write"}, False),
        ({"role": "write"}, {"role": "read write"}, False),
    ],
)
def test_claims_say_who_may(wanted: dict[str, Any], claims: dict[str, Any], allowed: bool) -> None:
    assert read_access(wanted, None).allows(jack(**claims), "a") is allowed


def test_an_array_lets_in_whom_one_of_them_lets_in() -> None:
    access = read_access(["{user}", {"role": "admin"}], 1)
    assert access.allows(jack(), "user.jack")
    assert access.allows(jack(role="admin"), "user.mike")
    assert not access.allows(jack(), "user.mike")
    assert str(access) == "{user} or claims role = 'admin'"
