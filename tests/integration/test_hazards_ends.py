"""Many ends: thousands of connections that come and go, peers that vanish, and SIGTERM under load."""

from __future__ import annotations

import ctypes
import json
import resource
import selectors
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from integration._ends import ENDS, come_and_go
from integration._hazards import THOROUGH
from integration._honest import FrameReader
from integration._server import (
    CLOSE,
    TEXT,
    TIME_LIMIT,
    RawClient,
    ServerProcess,
    client_frame,
    message,
    processor_arguments,
    wait_until,
)

pytestmark = [pytest.mark.once, pytest.mark.skipif(sys.platform != "linux", reason="looks into Linux's /proc")]

CENSUS = ("--processor", f"{Path(__file__).with_name('_census.py')}:census")

CYCLES = 10_000 if THOROUGH else 1_000
CLIENTS = 1_000
FILES_NEEDED = 2 * CLIENTS + 200


def take_census(port: int) -> dict[str, Any]:
    """Return what the server holds, counted by itself after a collection."""
    with RawClient(port) as client:
        client.send(message("census"))
        counted: dict[str, Any] = json.loads(client.receive()[1].partition(b"\r\n\r\n")[2])
        client.send(b"\x03\xe8", CLOSE)
        client.receive()
    return counted


def test_connections_of_all_kinds_leave_nothing_in_the_process(serve: Callable[..., ServerProcess]) -> None:
    server = serve(*processor_arguments("Visits", "coroutine"), *CENSUS)

    def settle() -> dict[str, Any]:
        wait_until(lambda: take_census(server.port)["objects"]["Session"] == 1, "the end of all sessions but this one")
        return take_census(server.port)

    come_and_go(server.port, ENDS, 30 * len(ENDS))
    before = settle()
    come_and_go(server.port, ENDS, CYCLES)
    after = settle()
    print(f"{CYCLES} cycles: memory +{(after['resident'] - before['resident']) / 2**20:.2f} MiB")
    assert after["channels"] == []
    assert after["objects"] == before["objects"]
    assert after["files"] == before["files"]
    assert after["resident"] - before["resident"] < 5 * 2**20


# Peers that vanish

PING_INTERVAL, PING_TIMEOUT = (30.0, 10.0) if THOROUGH else (4.0, 4.0)
SO_ATTACH_FILTER = 26


def vanish(sock: socket.socket) -> None:
    """
    Let nothing come to *sock* any more, as if its cable was cut.

    A packet filter of one instruction, "drop", is attached to it: the kernel answers the server's packets with
    neither an acknowledgement nor a reset, and as long as the socket is open, it sends nothing by itself.
    """
    drop = ctypes.create_string_buffer(struct.pack("HBBI", 6, 0, 0, 0))
    program = struct.pack("HL", 1, ctypes.addressof(drop))
    sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, program)


@pytest.mark.parametrize("busy", [False, True], ids=["idle", "with messages on their way"])
def test_peer_that_vanishes_is_closed_and_its_subscriptions_are_gone(
    serve: Callable[..., ServerProcess], busy: bool
) -> None:
    options = [] if THOROUGH else ["--ping-interval", str(PING_INTERVAL), "--ping-timeout", str(PING_TIMEOUT)]
    server = serve(*CENSUS, *options)
    files = take_census(server.port)["files"]
    with RawClient(server.port) as client:
        client.subscribe("a b c")
        vanish(client.sock)
        begin = time.monotonic()
        assert sorted(take_census(server.port)["channels"]) == ["a", "b", "c"]

        def gone() -> bool:
            if busy:
                with RawClient(server.port) as other:
                    other.send(message("chat", {"publish": "a", "receipt": "r"}, "hello"))
                    other.receive()
            time.sleep(0.05)
            return not take_census(server.port)["channels"]

        limit = PING_INTERVAL + PING_TIMEOUT + TIME_LIMIT
        wait_until(gone, "the end of its subscriptions", limit)
        print(f"closed after {time.monotonic() - begin:.1f} s")
        assert time.monotonic() - begin > PING_TIMEOUT / 2, "it was noticed by something else than a ping"
        wait_until(lambda: take_census(server.port)["files"] == files, "the end of its socket")


# SIGTERM under load


@pytest.fixture
def many_files() -> Any:
    """Allow this process, and those that it starts, as many open files as the test needs."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < FILES_NEEDED:
        pytest.skip(f"{FILES_NEEDED} open files are needed, {hard} are allowed")
    if soft != resource.RLIM_INFINITY and soft < FILES_NEEDED:
        resource.setrlimit(resource.RLIMIT_NOFILE, (FILES_NEEDED, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class Member:
    """One of many clients: what came to it, and for publishers, what was sent."""

    def __init__(self, client: RawClient, channel: str, publishes: bool) -> None:
        self.client = client
        self.channel = channel
        self.publishes = publishes
        self.sent = 0
        self.accepted = 0
        self.bodies: list[bytes] = []
        self.close: bytes | None = None
        self.ended = False
        self._reader = FrameReader()

    def publish(self) -> None:
        text = message("chat", {"publish": self.channel, "receipt": str(self.sent)}, str(self.sent))
        self.client.sock.sendall(client_frame(text.encode("ascii")))
        self.sent += 1

    def read(self) -> None:
        try:
            data = self.client.sock.recv(262_144)
        except ConnectionError:
            data = b""
        self.ended = not data
        for opcode, payload in self._reader.feed(data):
            head, _, body = payload.partition(b"\r\n\r\n")
            if opcode == CLOSE:
                self.close = payload
                self.client.send(payload[:2], CLOSE)
            elif opcode == TEXT and head.startswith(b"LHTTP/1.0 receipt\r\n"):
                assert head.endswith(b"receipt-id:%d" % self.accepted), head
                self.accepted += 1
            elif opcode == TEXT:
                assert head.startswith(b"LHTTP/1.0 chat\r\n"), payload
                self.bodies.append(body)


def test_sigterm_with_a_thousand_clients_under_load_loses_nothing(
    serve: Callable[..., ServerProcess], many_files: None
) -> None:
    server = serve("--drain-timeout", "20", "--close-timeout", "20")
    groups = 20
    with ExitStack() as stack, selectors.DefaultSelector() as selector:
        members = []
        for number in range(CLIENTS):
            member = Member(
                stack.enter_context(RawClient(server.port)), f"room.{number % groups}", number >= CLIENTS - groups
            )
            if not member.publishes:
                member.client.subscribe(member.channel)
            selector.register(member.client.sock, selectors.EVENT_READ, member)
            members.append(member)
        publishers = [member for member in members if member.publishes]

        begin = time.monotonic()
        signalled = exited = 0.0
        refused = False
        turn = 0
        while selector.get_map():
            now = time.monotonic()
            assert now < begin + 2 * TIME_LIMIT, f"{len(selector.get_map())} connections do not end"
            if not signalled and sum(publisher.accepted for publisher in publishers) > 2_000:
                server.process.send_signal(signal.SIGTERM)
                signalled = now
            for publisher in publishers:
                # They go on until they are told.
                if publisher.close is None and not publisher.ended and publisher.sent - publisher.accepted < 20:
                    with suppress(ConnectionError):
                        publisher.publish()
            if signalled and not refused and "closing " in server.log:
                try:
                    socket.create_connection(("127.0.0.1", server.port), TIME_LIMIT).close()
                except ConnectionRefusedError:
                    refused = True
            for key, _ in selector.select(0.02):
                key.data.read()
                if key.data.ended:
                    selector.unregister(key.fileobj)
            turn += 1
        assert server.process.wait(TIME_LIMIT) == -signal.SIGTERM
        exited = time.monotonic() - signalled

        accepted = {publisher.channel: publisher.accepted for publisher in publishers}
        print(f"exit after {exited:.2f} s; {sum(accepted.values())} messages accepted, {turn} turns")
        assert refused, "a new connection was taken"
        assert {member.close for member in members} == {b"\x03\xe9server is going away"}
        for member in members:
            if not member.publishes:
                assert member.bodies == [b"%d" % number for number in range(len(member.bodies))]
                assert len(member.bodies) >= accepted[member.channel], "an accepted message was not delivered"
