"""lhttp_tx.web.admin.gate: keys, wrong keys, and web pages of other sites."""

from __future__ import annotations

import pytest
from twisted.internet.task import Clock

from lhttp_tx.guard.access import AccessPolicy
from lhttp_tx.web.admin.gate import FAILURES, MAX_ADDRESSES, AdminGate
from lhttp_tx.web.admin.keys import AdminKey, Keyring, digest_of
from lhttp_tx.web.admin.problems import Problem

SECRET = "0123456789abcdef"


class Stage:
    """A gate with one key."""

    def __init__(self) -> None:
        self.clock = Clock()
        keys = Keyring([AdminKey("k", digest_of(SECRET.encode()), frozenset("*"))])
        self.gate = AdminGate(
            keys, AccessPolicy(server_names=frozenset(["admin.example"]), loopback_only=True), self.clock
        )

    def status(self, secret: str | None, address: str | None = "192.0.2.1") -> int:
        try:
            self.gate.log_in(address, None if secret is None else f"Bearer {secret}")
        except Problem as problem:
            return problem.status
        return 200


def test_a_key_lets_in() -> None:
    assert Stage().status(SECRET) == 200
    assert Stage().gate.log_in(None, f"bearer  {SECRET} ").name == "k"


@pytest.mark.parametrize("authorization", [None, "", "Bearer", "Bearer ", f"Basic {SECRET}", SECRET])
def test_without_a_key_nobody_comes_in(authorization: str | None) -> None:
    with pytest.raises(Problem) as caught:
        Stage().gate.log_in("192.0.2.1", authorization)
    assert caught.value.status == 401
    assert "www-authenticate" in caught.value.headers


def test_wrong_keys_are_rationed_for_each_address() -> None:
    stage = Stage()
    assert [stage.status("wrong") for _ in range(FAILURES)] == [401] * FAILURES
    assert stage.status("wrong") == 429
    assert stage.status(SECRET) == 429  # or a guess would be told from a wrong one all the same
    assert stage.status(SECRET, "192.0.2.2") == 200
    stage.clock.advance(1.1)
    assert stage.status(SECRET) == 200
    assert stage.status("wrong") == 401
    assert stage.status("wrong") == 429


def test_addresses_of_one_ipv6_network_count_as_one() -> None:
    stage = Stage()
    for number in range(FAILURES):
        stage.status("wrong", f"2001:db8::{number + 1:x}")
    assert stage.status("wrong", "2001:db8::ffff") == 429


def test_programs_on_this_machine_count_as_one() -> None:
    stage = Stage()
    for number in range(FAILURES):
        stage.status("wrong", f"127.0.0.{number + 1}")
    assert stage.status("wrong", "127.9.9.9") == stage.status("wrong", "::1") == stage.status("wrong", None) == 429


def test_no_key_costs_no_ration() -> None:
    stage = Stage()
    assert {stage.status(None) for _ in range(50)} == {401}
    assert stage.status(SECRET) == 200


def test_many_addresses_take_a_bounded_room() -> None:
    stage = Stage()
    for number in range(MAX_ADDRESSES + 50):
        stage.status("wrong", f"10.{number // 65536}.{number // 256 % 256}.{number % 256}")
    assert len(stage.gate._failures) == MAX_ADDRESSES


@pytest.mark.parametrize(
    ("host", "origin", "site", "status"),
    [
        ("127.0.0.1:9081", None, None, 0),
        ("localhost:9081", "http://localhost:9081", "same-origin", 0),
        ("admin.example", "https://admin.example", None, 0),
        ("admin.example", "https://admin.example:443", None, 0),
        ("127.0.0.1:9081", None, "none", 0),
        ("evil.example:9081", None, None, 403),
        (None, None, None, 400),
        ("a/b", None, None, 400),
        ("127.0.0.1:9081", "http://127.0.0.1:8081", None, 403),
        ("127.0.0.1:9081", "http://evil.example", None, 403),
        ("127.0.0.1:9081", "null", None, 403),
        ("127.0.0.1:9081", "http://127.0.0.1:x", None, 403),
        ("127.0.0.1:9081", None, "same-site", 403),
        ("127.0.0.1:9081", None, "cross-site", 403),
    ],
)
def test_pages_of_other_sites_stay_outside(host: str | None, origin: str | None, site: str | None, status: int) -> None:
    try:
        Stage().gate.check_site(host, origin, site)
    except Problem as problem:
        assert problem.status == status
    else:
        assert status == 0
