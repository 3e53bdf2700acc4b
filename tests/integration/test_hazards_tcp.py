"""
Attacks on a port of ``--tcp``, with an honest client at a WebSocket of the same server beside each.

As in ``test_hazards.py``: the server's memory stays, the honest client loses nothing and does not wait, and the
attacker gets what the defence says.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress

import pytest

from integration._device import TCP, Device, framed, tcp_port
from integration._hazards import SECONDS, Stage, waits_too_long
from integration._honest import HonestClient
from integration._server import TIME_LIMIT, Backend, ServerProcess, message, processor_arguments

pytestmark = pytest.mark.once

MAX_GROWTH = 20 * 2**20
MAX_P99 = 0.1
QUIET_TIME = 0.3
ATTEMPTS = 3


def send_and_never_read(stage: Stage, data: bytes, before: bytes = b"") -> None:
    """Send from several connections for as long as the attack lasts, then until the server reads no more of it."""
    with ExitStack() as stack:
        devices = [stack.enter_context(Device(tcp_port(stage.server), receive_buffer=8_192)) for _ in range(3)]
        left = dict.fromkeys(devices, memoryview(before + data))
        for device in devices:
            device.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65_536)
            device.sock.setblocking(False)
        quiet = time.monotonic()
        while stage.lasts() or time.monotonic() < quiet + QUIET_TIME:
            assert time.monotonic() < stage.end + TIME_LIMIT, "it goes on reading from a client that does not read"
            for device in tuple(left):
                try:
                    left[device] = left[device][device.sock.send(left[device]) :] or memoryview(data)
                    quiet = time.monotonic()
                except BlockingIOError:
                    time.sleep(0.001)
                except ConnectionError:
                    del left[device]  # it was closed, which is as good


def flood_with_malformed_messages(stage: Stage) -> None:
    send_and_never_read(stage, framed(b"x") * 30_000)


def flood_with_messages_to_be_answered(stage: Stage) -> None:
    send_and_never_read(stage, framed(message("echo")) * 3_000)


def flood_with_messages_that_ask_for_receipts(stage: Stage) -> None:
    send_and_never_read(stage, framed(message("x", {"receipt": "x" * 200})) * 1_000)


def publish_to_oneself_and_never_read(stage: Stage) -> None:
    publication = framed(message("chat", {"publish": "mine"}, "x" * 4_000))
    send_and_never_read(stage, publication * 100, framed(message("chat", {"subscribe": "mine"})))


def flood(stage: Stage, data: bytes) -> None:
    """Send for as long as the attack lasts; the connection stays good."""
    with Device(tcp_port(stage.server)) as device:
        while stage.lasts():
            device.sock.sendall(data)
        device.send(message("x", {"receipt": "end"}))
        while device.receive() != message("receipt", {"receipt-id": "end"}).encode():
            pass


def flood_with_heartbeats(stage: Stage) -> None:
    flood(stage, framed(b"") * 30_000)


def flood_with_the_smallest_messages(stage: Stage) -> None:
    flood(stage, framed(b"LHTTP/1.0 a\r\n") * 2_000)


def flood_with_heartbeats_between_messages(stage: Stage) -> None:
    flood(stage, framed(b"", b"LHTTP/1.0 a\r\n", b"", b"LHTTP/1.0 b\r\n\r\n\xff") * 1_000)


def drip(stage: Stage) -> None:
    """Hold large messages that never end, a byte at a time."""
    with ExitStack() as stack:
        devices = [stack.enter_context(Device(tcp_port(stage.server))) for _ in range(50)]
        for device in devices:
            device.sock.sendall(b"131072\n" + b"x" * 60_000)
        while stage.lasts():
            for device in devices:
                device.sock.sendall(b"x")
            time.sleep(0.001)


def declare_what_is_too_large(stage: Stage) -> None:
    while stage.lasts():
        with Device(tcp_port(stage.server)) as device, suppress(ConnectionError):
            device.sock.sendall(b"4294967295\n" + b"x" * 500_000)
            assert device.receive().startswith(b"LHTTP/1.0 error\r\nstatus:413\r\n")
            assert device.receive_close()[0] == 1009


def send_a_length_without_end(stage: Stage) -> None:
    while stage.lasts():
        with Device(tcp_port(stage.server)) as device, suppress(ConnectionError):
            device.sock.sendall(b"1" * 1_000_000)
            assert device.receive().startswith(b"LHTTP/1.0 error\r\nstatus:413\r\n")


def go_on_after_an_error(stage: Stage) -> None:
    """Send until the server drops the connection: it drops what comes, and does not wait for ever."""
    while stage.lasts():
        with Device(tcp_port(stage.server)) as device:
            end = time.monotonic() + TIME_LIMIT
            with suppress(ConnectionError):
                while time.monotonic() < end:
                    device.sock.sendall(b"no length" * 10_000)
            assert time.monotonic() < end, "it never drops a client that goes on"


def come_and_say_nothing(stage: Stage) -> None:
    with ExitStack() as stack:
        for _ in range(1_000):
            if stage.lasts():
                stack.enter_context(Device(tcp_port(stage.server)))


def come_and_go(stage: Stage) -> None:
    while stage.lasts():
        with Device(tcp_port(stage.server)) as device:
            device.subscribe(f"channel.{time.monotonic_ns()}")


ATTACKS = [
    come_and_go,
    come_and_say_nothing,
    declare_what_is_too_large,
    drip,
    flood_with_heartbeats,
    flood_with_heartbeats_between_messages,
    flood_with_malformed_messages,
    flood_with_messages_that_ask_for_receipts,
    flood_with_messages_to_be_answered,
    flood_with_the_smallest_messages,
    go_on_after_an_error,
    publish_to_oneself_and_never_read,
    send_a_length_without_end,
]


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    server = ServerProcess(
        *TCP,
        *processor_arguments("echo"),
        *("--max-errors", "0", "--ping-interval", "0"),
        cwd=tmp_path_factory.mktemp("attacked"),
        endpoints=2,
    )
    yield server
    server.check()


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__)
def test_attack_costs_others_nothing(
    attacked: ServerProcess, backend: Backend, attack: Callable[[Stage], None]
) -> None:
    for attempt in range(ATTEMPTS):
        with HonestClient(attacked) as honest:
            attack(Stage(attacked, backend, time.monotonic() + SECONDS))
        figures = honest.figures
        print(figures)
        assert (figures.lost, figures.strange) == (0, 0), figures
        assert figures.growth < MAX_GROWTH, figures
        if not waits_too_long(figures, MAX_P99):
            break
        assert attempt < ATTEMPTS - 1, figures
    with Device(tcp_port(attacked)) as device:
        device.subscribe("room")
