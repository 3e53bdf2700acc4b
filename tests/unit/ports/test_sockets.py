"""Who may connect to a UNIX socket."""

from __future__ import annotations

import os
import socket
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.error import CannotListenError
from twisted.internet.protocol import Factory, connectionDone
from twisted.internet.testing import MemoryReactor, MemoryReactorClock

from lhttp_tx.ports.adopting import AdoptingReactor
from lhttp_tx.ports.sockets import UNIXRights, find_group, read_mode


class UNIXReactor:
    """Opens UNIX sockets that nobody accepts on, and writes down the rights that they have when they are opened."""

    def __init__(self) -> None:
        self.opened: list[int] = []
        self.clock = MemoryReactorClock()

    def listenUNIX(self, address: str, factory: Any, backlog: int, mode: int, wantPID: bool) -> Any:
        from twisted.internet.unix import Port

        port = Port(address, factory, backlog, mode, self.clock)
        port.startReading = lambda: None  # type: ignore[method-assign]
        port.startListening()
        self.opened.append(mode_of(address))
        return port


@pytest.fixture
def path() -> Iterator[str]:
    """Where a socket may be; the name of a temporary directory of pytest is too long for one."""
    with tempfile.TemporaryDirectory() as directory:
        yield f"{directory}/socket"


def mode_of(path: str) -> int:
    return stat.S_IMODE(Path(path).stat().st_mode)


def listen(rights: UNIXRights, description: str) -> UNIXReactor:
    reactor = UNIXReactor()
    outcome: list[Any] = []
    rights.endpoint(reactor, description).listen(Factory()).addBoth(outcome.append)
    reactor.clock.advance(1)
    if isinstance(getattr(outcome[0], "value", None), Exception):
        raise outcome[0].value
    outcome[0].socket.close()
    return reactor


@pytest.mark.parametrize(
    ("rights", "more", "mode"),
    [
        (UNIXRights(), "", 0o666),
        (UNIXRights(), ":mode=640", 0o640),
        (UNIXRights(mode=0o600), "", 0o600),
        (UNIXRights(mode=0o600), ":mode=640", 0o640),
        (UNIXRights(group=str(os.getgid())), "", 0o660),
        (UNIXRights(group=str(os.getgid())), ":mode=620", 0o620),
        (UNIXRights(mode=0o640, group=str(os.getgid())), "", 0o640),
    ],
)
@pytest.mark.parametrize("proxy", ["", "haproxy:"])
def test_the_mode_of_a_socket(path: str, rights: UNIXRights, more: str, mode: int, proxy: str) -> None:
    reactor = listen(rights, f"{proxy}unix:{path}{more}")
    assert mode_of(path) == mode
    assert reactor.opened == [mode if rights.group is None else 0o600]  # it is not open before the group is right


def test_a_group_that_the_process_may_not_use_stops_the_start(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "chown", denied)
    reactor = UNIXReactor()
    outcome: list[Any] = []
    UNIXRights(group="0").endpoint(reactor, f"unix:{path}").listen(Factory()).addBoth(outcome.append)
    assert outcome[0].check(CannotListenError)
    assert "Operation not permitted" in str(outcome[0].value)
    assert list(Path(path).parent.iterdir()) == []  # at once: where a start fails, there is no next turn


def test_the_socket_belongs_to_the_group(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[tuple[Any, ...]] = []
    monkeypatch.setattr(os, "chown", lambda *arguments: given.append(arguments))
    listen(UNIXRights(group="12345"), f"unix:{path}")
    assert given == [(path.encode(), -1, 12345)]


def test_other_endpoints_have_no_mode() -> None:
    reactor = MemoryReactor()
    UNIXRights(0o600, "0").endpoint(reactor, "tcp:80").listen(Factory())
    assert [server[0] for server in reactor.tcpServers] == [80]


@pytest.mark.parametrize("worker", [False, True], ids=["systemd", "worker"])
def test_a_socket_of_another_process_keeps_its_file_and_its_rights(path: str, worker: bool) -> None:
    reactor = MemoryReactorClock()
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(path)
        made.listen()
        made.setblocking(False)
        Path(path).chmod(0o600)
        outcome: list[Any] = []
        if worker:
            endpoint = AdoptingReactor(reactor, os.dup(made.fileno())).endpoint(None, f"haproxy:unix:{path}:mode=666")
            endpoint.listen(Factory()).addBoth(outcome.append)
        else:
            rights = UNIXRights().endpoint(reactor, "tcp:0")
            outcome.append(rights._reactor.adoptStreamPort(made.fileno(), socket.AF_UNIX, Factory()))
        (port,) = outcome
        assert mode_of(path) == 0o600
        port.connectionLost(connectionDone)
        assert Path(path).is_socket()
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(path)  # others still accept


@pytest.mark.parametrize(("text", "mode"), [("660", 0o660), ("0600", 0o600), ("777", 0o777)])
def test_a_mode_is_octal(text: str, mode: int) -> None:
    assert read_mode(text) == mode


@pytest.mark.parametrize("text", ["", "66", "1777", "432", "060", "rw", "0o660", "668", "-660", "660 ", str(0o660)])
def test_what_is_no_mode_is_told(text: str) -> None:
    with pytest.raises(ValueError, match="write it in octal digits, such as 660"):
        read_mode(text)


def test_groups_are_found() -> None:
    assert find_group("root") == find_group("0") == 0
    with pytest.raises(ValueError, match="there is no group 'nobody of that name'"):
        find_group("nobody of that name")
