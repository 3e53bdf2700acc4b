"""lhttp_tx.engine.attributes: mistakes in the classes of users that would not show otherwise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from twisted.internet.task import Clock
from zope.interface.interface import InterfaceClass

from lhttp_tx import Authenticator, HeaderFilter, Hooks, Message, Processor, Refused, Request
from lhttp_tx.bus.memory import MemoryBus
from lhttp_tx.engine.attributes import check_instance
from lhttp_tx.history.memory import MemoryHistory
from lhttp_tx.interfaces import IAuthenticator, IBus, IHeaderFilter, IHistoryStore, IHooks, IProcessor
from lhttp_tx.testing import Server
from lhttp_tx.twistd.loading import load_object

BASES: dict[type, InterfaceClass] = {
    Authenticator: IAuthenticator,
    HeaderFilter: IHeaderFilter,
    Hooks: IHooks,
    Processor: IProcessor,
}


def made(base: type, **attributes: Any) -> Any:
    return type("Mine", (base,), {"__module__": "mine", **attributes})()


@pytest.mark.parametrize(
    ("base", "attributes", "text"),
    [
        (HeaderFilter, {"headers": "token"}, r"Mine: headers is a tuple, not a str: write \('token',\)$"),
        (
            HeaderFilter,
            {"headers": ("token", "Publish")},
            "headers has 'Publish': write names of headers in lower case",
        ),
        (HeaderFilter, {"headers": ("a:b",)}, "headers has 'a:b'"),
        (HeaderFilter, {"headers": (b"token",)}, "headers is a tuple of str, not "),
        (HeaderFilter, {"headers": iter(["token"])}, "headers is a tuple of str, not "),
        (
            Authenticator,
            {"secret_parameters": "ticket"},
            r"secret_parameters is a tuple, not a str: write \('ticket',\)",
        ),
        (Authenticator, {"challenges": "Basic"}, r"challenges is a tuple, not a str: write \('Basic',\)"),
        (Processor, {"timeout": -1}, "timeout is a number of seconds above 0, or None, not -1"),
        (Processor, {"timeout": "2"}, "timeout is a number of seconds above 0, or None, not '2'"),
        (HeaderFilter, {"timeout": 0}, "timeout is a number"),
        (Hooks, {"timeout": float("nan")}, "timeout is a number"),
        (Authenticator, {"timeout": float("inf")}, "timeout is a number"),
        (Hooks, {"trusted": "no"}, "trusted is True or False, not 'no'"),
        (Hooks, {"before_subscibe": print}, r"nothing calls a method before_subscibe; did you mean before_subscribe\?"),
        (Hooks, {"on_conect": print}, r"did you mean on_connect\?"),
        (HeaderFilter, {"befor": print}, r"did you mean before\?"),
        (Processor, {"on_mesage": print}, r"did you mean on_message\?"),
        (Authenticator, {"autenticate": print}, r"did you mean authenticate\?"),
    ],
)
def test_a_slip_is_told(base: type, attributes: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        check_instance(made(base, **attributes), BASES[base])


@pytest.mark.parametrize(
    ("base", "attributes"),
    [
        (HeaderFilter, {"headers": None, "timeout": None}),
        (HeaderFilter, {"headers": (), "timeout": 5}),
        (HeaderFilter, {"headers": ["token", "x-1"], "timeout": 0.5, "trusted": True}),
        (HeaderFilter, {"headers": frozenset({"token"})}),
        (Authenticator, {"secret_parameters": {"ticket"}, "challenges": ["Basic"]}),
        (Hooks, {"on_closing_time": print, "members": print, "_on_conect": print, "on_conect": "no method"}),
        (Processor, {"on_message": print, "on_messages": print}),
    ],
)
def test_what_makes_sense_is_taken(base: type, attributes: dict[str, Any]) -> None:
    check_instance(made(base, **attributes), BASES[base])


def test_a_filter_that_would_see_nothing_stops_the_start() -> None:
    class Guard(HeaderFilter):
        headers = "publish"  # type: ignore[assignment]  # not a tuple, for want of a comma

        def before(self, request: Request) -> None:
            raise Refused(403, "nobody publishes")

    with pytest.raises(ValueError, match="Guard: headers is a tuple"):
        Server(filters=[Guard()])
    Guard.headers = ("publish",)
    client = Server(filters=[Guard()]).connect()
    client.send(Message("c", headers={"publish": "a"}))
    assert client.take()[0].headers.get("status") == "403"


def test_a_slip_in_a_file_is_told_with_its_name(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from lhttp_tx import Hooks\n\nclass H(Hooks):\n    def on_conect(self, s): ...\n"
    )
    with pytest.raises(ValueError, match=r"mine\.py:H': H: nothing calls a method on_conect"):
        load_object(f"{tmp_path}/mine.py:H", IHooks)


class Bare:
    """Has nothing that the server needs."""

    timeout = None

    def __repr__(self) -> str:
        return "bare"


@pytest.mark.parametrize(
    ("found", "interface", "lacking"),
    [
        (Bare(), IProcessor, r"has no command, on_open\(\), on_message\(\), on_close\(\)"),
        (Bare(), IHeaderFilter, r"has no headers, check\(\), on_connect\(\), before"),
        (Bare(), IAuthenticator, r"has no challenges, secret_parameters, authenticate\(\)"),
        (Bare(), IHooks, "has none of the methods"),
        (Bare(), IBus, r"has no description, available, bracket\(\), start"),
        (Bare(), IHistoryStore, r"has no description, available, trouble, spreads, start"),
        ("a name", IProcessor, "'a name' has no command"),
        (None, IHeaderFilter, "None has no headers"),
    ],
)
def test_what_an_object_lacks_is_told(found: Any, interface: InterfaceClass, lacking: str) -> None:
    with pytest.raises(ValueError, match=rf"{lacking}.* lhttp_tx\.interfaces\.{interface.__name__}"):
        check_instance(found, interface)


def test_a_method_that_is_none_is_lacking() -> None:
    store = type("Store", (MemoryHistory,), {"confirm": None})(Clock())
    with pytest.raises(ValueError, match=r"has no confirm\(\): it must provide lhttp_tx\.interfaces\.IHistoryStore"):
        Server(history_store=store)


def test_what_the_server_does_without_may_be_lacking() -> None:
    class Quiet:
        timeout = None

        def on_disconnect(self, session: Any) -> None: ...

    check_instance(Quiet(), IHooks)
    check_instance(MemoryBus(), IBus)


@pytest.mark.parametrize("kind", ["processors", "filters", "hooks", "authenticators"])
def test_a_server_takes_nothing_of_another_kind(kind: str) -> None:
    with pytest.raises(ValueError, match=r"lhttp_tx\.interfaces\.I"):
        Server(**{kind: [object()]})  # type: ignore[arg-type]
