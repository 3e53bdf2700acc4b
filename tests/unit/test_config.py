"""lhttp_tx.config: what makes no sense is refused at once, as on the command line."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest
from twisted.internet.task import Clock
from twisted.python.components import proxyForInterface

from lhttp_tx import Authenticator
from lhttp_tx.bus.memory import MemoryBus
from lhttp_tx.bus.nats.servers import NATSServers
from lhttp_tx.codec.bounds import Bound
from lhttp_tx.codec.limits import UNLIMITED, Limits
from lhttp_tx.config import Config
from lhttp_tx.history.memory import MemoryHistory
from lhttp_tx.history.values import Retention
from lhttp_tx.interfaces import IBus
from lhttp_tx.rules.grants import AUTHENTICATED
from lhttp_tx.rules.model import Rule, Rules
from lhttp_tx.service import LHTTPService
from lhttp_tx.twistd.options import Options
from lhttp_tx.twistd.settings import declared

OTHER_NAMES = {
    "max_head_size": "head_size",
    "max_headers": "header_count",
    "max_queue": "queue_length",
    "max_subscriptions": "subscription_count",
    "max_subscribe_rate": "subscription_rate",
    "max_list": "list_length",
    "max_tokens": "token_count",
    "max_wildcard_tokens": "wildcard_tokens",
    "max_wildcards": "wildcard_count",
    "max_unsent": "unsent_size",
    "max_message_size": "message_size",
    "max_rate": "message_rate",
    "max_burst": "message_burst",
    "max_byte_rate": "byte_rate",
    "max_errors": "error_count",
}
"""Options whose field is called otherwise."""


class Nobody(Authenticator):
    def authenticate(self, attempt: Any) -> None:
        return None


def numbers(kind: Any) -> dict[str, tuple[Any, Any]]:
    """The numbers among the fields, each with its default and its bounds."""
    return {
        field.name: (field.default, kind.BOUNDS.get(field.name))
        for field in fields(kind)
        if isinstance(field.default, int | float) and not isinstance(field.default, bool)
    }


def test_every_number_has_the_bounds_and_the_default_of_its_option() -> None:
    known = numbers(Config) | numbers(Limits)
    rows = declared(Options, "optParameters", 5)
    options = {row[0].replace("-", "_"): (row[2], row[4]) for row in rows if isinstance(row[4], Bound)}
    compared = {OTHER_NAMES.get(name, name): option for name, option in options.items()}
    assert {name: compared.get(name) for name in known} == known


@pytest.mark.parametrize("name", [*numbers(Config), *numbers(Limits)])
def test_no_number_is_negative_or_something_else(name: str) -> None:
    kind: Any = Config if name in numbers(Config) else Limits
    for value, error in ((-1, ValueError), ("1", TypeError), (None, TypeError), (True, TypeError)):
        with pytest.raises(error, match=f"^{name} is "):
            kind(**{name: value})


@pytest.mark.parametrize("field", fields(Config), ids=lambda field: field.name)
def test_no_field_takes_what_is_of_another_type(field: Any) -> None:
    with pytest.raises(TypeError, match=f"^{field.name} is "):
        Config(**{field.name: object()})


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"listen": ("",)}, "listen holds an empty text"),
        ({"trusted_proxies": ("proxy.example",)}, "trusted_proxies: 'proxy.example'"),
        ({"allow_origins": ("app.example",)}, "allow_origins holds 'app.example': write scheme and host"),
        ({"server_names": ("a b/c",)}, "server_names holds 'a b/c': write a host name"),
        ({"server_names": ("*.example",)}, "server_names holds '\\*.example': write a host name"),
        ({"allow_origins": ("https://*.example",)}, "allow_origins holds 'https://\\*.example': write nothing but"),
        ({"unix_mode": 0o660}, "unix_mode is for UNIX sockets: add unix:PATH to listen"),
        ({"unix_group": "0", "listen": ("tcp:1",)}, "unix_group is for UNIX sockets: add unix:PATH to listen"),
        ({"unix_mode": 660, "listen": ("unix:x",)}, "unix_mode is from 0o600 to 0o777"),
        ({"unix_mode": 0o277, "listen": ("unix:x",)}, "unix_mode is from 0o600 to 0o777"),
        ({"upstream_allow": ("backend/record",)}, "upstream_allow: "),
        ({"presence": ("room*",)}, "presence holds 'room\\*'"),
        ({"login_parameter": "a&b"}, "login_parameter 'a&b': use letters"),
        ({"publish_token": b""}, "publish_token is shorter than 16 bytes"),
        ({"publish_token": b"0123456789abcdef\n"}, "publish_token has blanks around it"),
        ({"allow_anonymous": True, "login_timeout": 5.0}, "leave out allow_anonymous"),
    ],
)
def test_what_makes_no_sense_is_refused_at_once(settings: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        Config(**settings)


def test_no_error_shows_a_secret() -> None:
    with pytest.raises(TypeError) as caught:
        Config(publish_token="a secret as a str")  # type: ignore[arg-type]
    assert str(caught.value) == "publish_token is bytes or None, not str"


@pytest.mark.parametrize("name", ["plugins", "manhole", "manhole_keys", "workers"])
def test_what_has_no_effect_is_no_field(name: str) -> None:
    with pytest.raises(TypeError, match=name):
        Config(**{name: "x"})


@pytest.mark.parametrize(
    ("config", "why"),
    [
        (Config(allow_anonymous=True), "allow_anonymous needs an authenticator"),
        (Config(login_timeout=5.0), "login_timeout needs an authenticator"),
        (Config(max_per_user=1), "max_per_user needs users"),
        (Config(rules=Rules([Rule("a", publish=AUTHENTICATED)])), "the rule for 'a' depends on the user"),
    ],
)
def test_a_server_does_not_ask_who_clients_are_where_nobody_tells(config: Config, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        LHTTPService(config, reactor=Clock())


def test_what_clients_say_is_not_believed_where_they_log_in() -> None:
    with pytest.raises(ValueError, match="login_parameter is for servers without authentication"):
        LHTTPService(Config(login_parameter="name"), reactor=Clock(), authenticators=[Nobody()])


@pytest.mark.parametrize("config", [{}, Config, "lhttp.toml"])
def test_settings_are_a_config(config: Any) -> None:
    with pytest.raises(TypeError, match=r"config is a lhttp_tx\.config\.Config, not"):
        LHTTPService(config, reactor=Clock())


def test_a_server_has_one_bus_and_one_store() -> None:
    with pytest.raises(ValueError, match="two buses"):
        LHTTPService(Config(nats=NATSServers(("nats://127.0.0.1:4222",))), reactor=Clock(), bus=MemoryBus())
    with pytest.raises(ValueError, match="two history stores"):
        config = Config(history=("a",), history_store="sqlite:x")
        LHTTPService(config, reactor=Clock(), history_store=MemoryHistory(Clock()))


def test_two_history_classes_of_one_name_have_the_same_bounds() -> None:
    few = Retention(messages=5)
    with pytest.raises(ValueError, match=r"have the name 'default', the second one that of the channels 'a'"):
        LHTTPService(Config(history=("a",), rules=Rules([Rule("b", history=few)])), reactor=Clock())
    service = LHTTPService(Config(history=("a",), rules=Rules([])), reactor=Clock())
    with pytest.raises(ValueError, match="two history classes"):
        service.set_rules(Rules([Rule("b", history=few)]))
    service.set_rules(Rules([Rule("b", history=replace(few, name="few"))]))


def test_a_bus_with_other_nodes_needs_a_store_that_spreads() -> None:
    bus = proxyForInterface(IBus)(MemoryBus())
    with pytest.raises(
        ValueError, match=r"needs a store that sends to all nodes what it appends .IHistoryStore.spreads"
    ):
        LHTTPService(Config(history=("a",)), reactor=Clock(), bus=bus, history_store=MemoryHistory(Clock()))


def test_a_burst_needs_a_rate() -> None:
    with pytest.raises(ValueError, match="set message_rate, too"):
        Limits(message_burst=5)


def test_the_bounds_of_what_was_in_bounds_are_the_greatest() -> None:
    for name in ("message_size", "head_size", "header_count"):
        assert getattr(UNLIMITED, name) == Limits.BOUNDS[name].high


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"max_size": -1}, ValueError),
        ({"max_rate": 0.0001}, ValueError),
        ({"subscribe": "nobody"}, TypeError),
        ({"publish": None}, TypeError),
        ({"echo": "no"}, TypeError),
    ],
)
def test_a_rule_that_cannot_be_is_refused(settings: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error, match=next(iter(settings))):
        Rule("a", **settings)


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"urls": "nats://127.0.0.1"}, TypeError),
        ({"timeout": -1}, ValueError),
        ({"pending_size": 0}, ValueError),
        ({"local_delivery": "no"}, TypeError),
        ({"password": b"x"}, TypeError),
    ],
)
def test_a_nats_that_cannot_be_is_refused(settings: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error, match=next(iter(settings))):
        NATSServers(**{"urls": ("nats://127.0.0.1:4222",), **settings})


def test_names_and_origins_count_however_they_are_written() -> None:
    config = Config(allow_origins=("https://App.Example/",), server_names=("Chat.Example:8081",))
    policy = LHTTPService(config, reactor=Clock())._policy
    assert (policy.origins, policy.server_names) == ({"https://app.example"}, {"chat.example"})


@pytest.mark.parametrize(
    ("rules", "error"),
    [([Rule("a")], TypeError), (None, TypeError), (Rules([Rule("a", publish=AUTHENTICATED)]), ValueError)],
)
def test_other_rules_are_checked_as_the_first_ones(rules: Any, error: type[Exception]) -> None:
    service = LHTTPService(Config(rules=Rules()), reactor=Clock())
    with pytest.raises(error, match=r"rules is Rules, not|the rule for 'a' depends"):
        service.set_rules(rules)
    assert service.rules == Rules()
