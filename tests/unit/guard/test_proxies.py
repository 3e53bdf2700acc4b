"""lhttp_tx.guard.proxies: whose word about addresses is taken, and what addresses are counted under."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from lhttp_tx.guard.proxies import TrustedProxies, address_key

PROXIES = TrustedProxies(["127.0.0.1", "10.0.0.0/8", "2001:db8:1::/48", "unix"])


@pytest.mark.parametrize(
    ("host", "trusted"),
    [
        ("127.0.0.1", True),
        ("127.0.0.2", False),
        ("10.255.0.1", True),
        ("11.0.0.1", False),
        ("::ffff:10.0.0.1", True),
        ("2001:db8:1:2::3", True),
        ("2001:db8:2::3", False),
        ("fe80::1%eth0", False),
        ("no address", False),
        (None, True),
    ],
)
def test_proxies_are_known_by_address_network_and_socket(host: str | None, trusted: bool) -> None:
    assert PROXIES.trusts(host) is trusted


@pytest.mark.parametrize("host", ["127.0.0.1", "10.0.0.1", "::1", None])
def test_nobody_is_trusted_by_default(host: str | None) -> None:
    assert not TrustedProxies()
    assert not TrustedProxies().trusts(host)
    assert TrustedProxies().client_of(host, "192.0.2.1") == host


@pytest.mark.parametrize("name", ["", "proxy.example", "10.0.0.1/8", "10.0.0.0/33", "0.0.0.0/0", "::/0", "UNIX"])
def test_what_is_no_proxy_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"write an address|name the addresses"):
        TrustedProxies([name])


@pytest.mark.parametrize(
    ("forwarded", "client"),
    [
        ("192.0.2.1", "192.0.2.1"),
        (" 192.0.2.1\t", "192.0.2.1"),
        ("192.0.2.1:4711", "192.0.2.1"),
        ("2001:DB8::0:1", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("[2001:db8::1]:4711", "2001:db8::1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        # the last one that is no proxy's; what stands before it is anybody's word
        ("198.51.100.9, 192.0.2.1", "192.0.2.1"),
        ("192.0.2.1, 10.0.0.1, 10.0.0.2", "192.0.2.1"),
        ("198.51.100.9, 192.0.2.1, 10.0.0.1", "192.0.2.1"),
        ("10.0.0.3, 10.0.0.1", "10.0.0.3"),
        ("nonsense, 192.0.2.1", "192.0.2.1"),
        # what is no address ends it: the last one that is known counts
        ("192.0.2.1, nonsense", "127.0.0.1"),
        ("192.0.2.1, nonsense, 10.0.0.1", "10.0.0.1"),
        ("192.0.2.1,", "127.0.0.1"),
        ("", "127.0.0.1"),
        ("unknown", "127.0.0.1"),
        ("_hidden", "127.0.0.1"),
        ("192.0.2.1:x", "127.0.0.1"),
        ("192.0.2.1:", "127.0.0.1"),
        ("[2001:db8::1]x", "127.0.0.1"),
        ("[2001:db8::1", "127.0.0.1"),
        ("\N{FULLWIDTH DIGIT ONE}92.0.2.1", "127.0.0.1"),
        ("192.0.2.1" + " " * 100, "127.0.0.1"),
        ("fe80::1%eth0", "fe80::1"),
        ("fe80::1%\x1b[31m", "fe80::1"),
        ("2001:db8:2::1%1", "2001:db8:2::1"),
        ("[2001:db8:2::1%1]:80", "2001:db8:2::1"),
        ("192.0.2.1%1", "192.0.2.1"),
        ("," * 16_000, "127.0.0.1"),
        (None, "127.0.0.1"),
    ],
)
def test_the_client_is_the_last_one_that_is_no_proxy(forwarded: str | None, client: str) -> None:
    assert PROXIES.client_of("127.0.0.1", forwarded) == client


@given(st.text(max_size=60) | st.from_regex(r"[0-9a-f:.]{2,40}%.{0,20}", fullmatch=True))
def test_what_is_told_of_a_client_can_be_printed(forwarded: str) -> None:
    client = PROXIES.client_of("127.0.0.1", forwarded)
    assert client is not None
    assert set(client) <= set("0123456789abcdef:.")


def test_a_chain_of_proxies_without_end_is_not_followed() -> None:
    assert PROXIES.client_of("127.0.0.1", "192.0.2.1" + ", 10.0.0.1" * 31) == "192.0.2.1"
    assert PROXIES.client_of("127.0.0.1", "192.0.2.1" + ", 10.0.0.1" * 32) == "10.0.0.1"


@given(st.sampled_from(["192.0.2.1", "2001:db8:2::1", "127.0.0.2"]), st.text(max_size=200))
def test_nobody_else_is_believed(host: str, forwarded: str) -> None:
    assert PROXIES.client_of(host, forwarded) == host


@given(st.text(max_size=200), st.sampled_from(["192.0.2.7", "2001:db8:2::1"]))
def test_what_a_client_sends_does_not_hide_what_the_proxy_adds(sent: str, real: str) -> None:
    assert PROXIES.client_of("10.0.0.1", f"{sent}, {real}") == real
    assert PROXIES.client_of("10.0.0.1", f"{sent},{real}, 10.0.0.2") == real


@pytest.mark.parametrize(
    ("host", "key"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8:0:1::1", "2001:db8:0:1::/64"),
        ("2001:db8:0:1:ffff::", "2001:db8:0:1::/64"),
        ("2001:db8:0:2::1", "2001:db8:0:2::/64"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("fe80::1%eth0", "fe80::1%eth0"),
        ("127.0.0.1", None),
        ("127.1.2.3", None),
        ("::1", None),
        ("::ffff:127.0.0.1", None),
    ],
)
def test_clients_are_counted_by_address_and_by_network_where_one_has_many(host: str, key: str | None) -> None:
    assert address_key(host) == key
