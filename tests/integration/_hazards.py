"""How long the tests of hostile input and long use take, and what they share: a stage for one attack, and its judge."""

from __future__ import annotations

import os
import socket
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from integration._honest import Figures, HonestClient
from integration._server import Backend, RawClient, ServerProcess

__all__ = ["MAX_P99", "SECONDS", "THOROUGH", "Flood", "Stage", "attack_beside_honest", "waits_too_long"]

THOROUGH = bool(os.environ.get("LHTTP_TEST_THOROUGH"))
"""Whether the full figures are asked for: ``LHTTP_TEST_THOROUGH=1``, or ``tox -e hazards``."""

SECONDS = 10.0 if THOROUGH else 1.0
"""How long an attack goes on."""

MAX_P99 = 0.1
"""Seconds that an honest client may wait where the machine is free: see :func:`waits_too_long`."""

_ATTEMPTS = 3
"""The machine may have been busy with something else: what takes too long must do so each time."""

_CONTROL_SECONDS = 2.0
"""For how long an honest client is measured that nobody attacks."""

_AS_LONG = 2
"""How many times as long as that one an honest client may wait beside an attack."""

_MOST = 1.0
"""Seconds that it may wait at most, however busy the machine is."""


def waits_too_long(figures: Figures, most: float) -> bool:
    """
    Return whether an honest client has waited for too long, and say so.

    If it has waited for more than *most* seconds, the machine may have been busy with something else. Then another one
    is measured at once, at a server of its own that nobody attacks: the first may have waited twice as long.

    :param figures: what the client beside the attack has seen.
    :param most: seconds that 99 of 100 messages may take on a machine that is free.
    """
    if figures.p99 < most:
        return False
    with tempfile.TemporaryDirectory() as directory:
        server = ServerProcess(cwd=Path(directory))
        try:
            with HonestClient(server) as honest:
                time.sleep(_CONTROL_SECONDS)
        finally:
            server.check()
    allowed = min(max(most, _AS_LONG * honest.figures.p99), _MOST)
    print(f"p99 {figures.p99:.3f} s; without the attack {honest.figures}; allowed {allowed:.3f} s")
    return figures.p99 >= allowed


@dataclass(frozen=True)
class Stage:
    """
    Where an attack takes place.

    :ivar server: the server attacked.
    :ivar backend: a backend that the server may reach, if it may reach one.
    :ivar end: when the attack is over, in the time of :func:`time.monotonic`.
    """

    server: ServerProcess
    backend: Backend
    end: float

    @property
    def port(self) -> int:
        """The server's port."""
        return self.server.port

    def lasts(self) -> bool:
        """Return whether the attack is to go on."""
        return time.monotonic() < self.end


class Flood:
    """Connections that send the same bytes again and again, and read nothing."""

    def __init__(self, clients: Iterable[RawClient], data: bytes) -> None:
        self._data = memoryview(data)
        self._left = dict.fromkeys(clients, self._data)
        for client in self._left:
            client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65_536)
            client.sock.setblocking(False)

    def send(self) -> bool:
        """Send what the server takes, and return whether it has taken something. Those that it closes are forgotten."""
        has_sent = False
        for client, left in tuple(self._left.items()):
            try:
                self._left[client] = left[client.sock.send(left) :] or self._data
                has_sent = True
            except BlockingIOError:
                time.sleep(0.001)
            except ConnectionError:
                del self._left[client]
        return has_sent


def attack_beside_honest(
    server: ServerProcess, backend: Backend, attack: Callable[[Stage], None], max_growth: int
) -> None:
    """
    Let an attack go on for some time beside an honest client, which must lose nothing and not wait.

    :param max_growth: bytes by which the memory of the server may grow meanwhile.
    """
    for attempt in range(_ATTEMPTS):
        with HonestClient(server) as honest:
            attack(Stage(server, backend, time.monotonic() + SECONDS))
        figures = honest.figures
        print(figures)
        assert (figures.lost, figures.strange) == (0, 0), figures
        assert figures.growth < max_growth, figures
        if not waits_too_long(figures, MAX_P99):
            break
        assert attempt < _ATTEMPTS - 1, figures
