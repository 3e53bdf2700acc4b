"""Readers that do not read: they are closed, and nobody else notices."""

from __future__ import annotations

import selectors
import socket
import ssl
import time
import zlib
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from integration._hazards import THOROUGH
from integration._honest import percentile, resident_size, waited
from integration._server import (
    CLOSE,
    TIME_LIMIT,
    RawClient,
    ServerProcess,
    client_frame,
    handshake_head,
    message,
    server_frame,
)

pytestmark = pytest.mark.once

READERS = 100
SIZE = 16_384
RATE = 2 * 2**20
"""Bytes published a second."""

VOLUME = 64 * 2**20 if THOROUGH else 8 * 2**20
"""Bytes published while one reader stalls; a socket's buffers may take 5 MiB of it."""

BASELINE = VOLUME // 4
MAX_GROWTH = 10 * 2**20

ATTEMPTS = 3
"""The machine may have been busy with something else: what takes too long must do so each time."""


def published(number: int) -> bytes:
    """Return message *number*; all have one size."""
    head = message("chat", {"publish": "flood"}, f"{number:08d} ")
    return head.encode("ascii") + b"x" * (SIZE - len(head))


FRAME_SIZE = len(server_frame(published(0)))


@dataclass
class Reader:
    """A reader that reads all it gets: how much, and a checksum of it."""

    client: RawClient
    size: int = 0
    checksum: int = 0


@dataclass
class Crowd:
    """Readers that read, one publisher, and what was seen."""

    server: ServerProcess
    publisher: RawClient
    readers: list[Reader]
    buffer: bytearray = field(default_factory=lambda: bytearray(262_144))

    def publish(self, volume: int, watch: Callable[[], None] = lambda: None) -> list[float]:
        """Publish *volume* bytes at the rate; return how long each message took to each reader, when all have all."""
        latencies: list[float] = []
        sent: list[float] = []
        paused: list[float] = []
        count = volume // SIZE
        for reader in self.readers:
            reader.size = reader.checksum = 0
        step, begin = SIZE / RATE, time.monotonic()
        end = begin + count * step + TIME_LIMIT
        with selectors.DefaultSelector() as selector:
            for reader in self.readers:
                selector.register(reader.client.sock, selectors.EVENT_READ, reader)
            while selector.get_map():
                now = time.monotonic()
                assert now < end, "not all has come"
                if len(sent) < count and now >= begin + len(sent) * step:
                    paused.append(waited(self.server.pid))
                    sent.append(now)
                    self.publisher.sock.sendall(client_frame(published(len(sent) - 1)))
                    watch()
                wait = begin + len(sent) * step - time.monotonic() if len(sent) < count else 1.0
                ready = selector.select(max(0.0, wait))
                gone = waited(self.server.pid)
                for key, _ in ready:
                    now = time.monotonic()
                    latencies += (max(0.0, now - sent[i] - gone + paused[i]) for i in self._read(key.data))
                    if key.data.size == count * FRAME_SIZE:
                        selector.unregister(key.fileobj)
        checksum = 0
        for number in range(count):
            checksum = zlib.crc32(server_frame(published(number)), checksum)
        assert [reader.checksum for reader in self.readers] == [checksum] * len(self.readers)
        return latencies

    def _read(self, reader: Reader) -> range:
        """Take what has come to *reader*; return the numbers of the messages that are whole by it."""
        size = reader.client.sock.recv_into(self.buffer)
        assert size, "the server has hung up on a reader that reads"
        reader.checksum = zlib.crc32(memoryview(self.buffer)[:size], reader.checksum)
        whole = reader.size // FRAME_SIZE
        reader.size += size
        return range(whole, reader.size // FRAME_SIZE)


def test_one_of_a_hundred_readers_stalls_and_the_others_do_not_notice(serve: Callable[..., ServerProcess]) -> None:
    server = serve("--ping-interval", "0")  # nobody here would answer
    with ExitStack() as stack:
        publisher, *clients = (stack.enter_context(RawClient(server.port)) for _ in range(READERS))
        for client in clients:
            client.subscribe("flood")
        crowd = Crowd(server, publisher, [Reader(client) for client in clients])
        for attempt in range(ATTEMPTS):
            baseline = percentile(crowd.publish(BASELINE), 0.99)
            stalled = stack.enter_context(RawClient(server.port, receive_buffer=8192))
            stalled.subscribe("flood")
            before, begin = resident_size(server.pid), time.monotonic()
            closed_after, peak = 0.0, 0

            def watch(attempt: int = attempt, begin: float = begin) -> None:
                nonlocal closed_after, peak
                peak = max(peak, resident_size(server.pid))
                if not closed_after and server.log.count("it does not read") > attempt:
                    closed_after = time.monotonic() - begin

            p99 = percentile(crowd.publish(VOLUME, watch), 0.99)
            print(
                f"p99 {1000 * p99:.1f} ms, {1000 * baseline:.1f} ms before; closed after {closed_after:.1f} s; "
                f"memory +{(peak - before) / 2**20:.1f} MiB"
            )
            assert 0 < closed_after < 10
            assert server.log.count("it does not read") == attempt + 1, "one line for each that was closed"
            assert peak - before < MAX_GROWTH
            # What it finds when it reads at last: whole messages in order, then the reason, unless time was up.
            try:
                for number in range(VOLUME // SIZE):
                    opcode, payload = stalled.receive()
                    if opcode == CLOSE:
                        assert payload[:2] == (1013).to_bytes(2, "big")
                        break
                    assert payload == published(number)
                else:
                    pytest.fail("it lost nothing")
            except ConnectionError:
                pass
            if p99 <= 2 * baseline or p99 < 0.005:
                break
            assert attempt < ATTEMPTS - 1, f"p99 {p99:.3f} s, {baseline:.3f} s before"


def test_tls_reader_that_does_not_read_is_closed(
    serve: Callable[..., ServerProcess], certificate: tuple[Path, Path]
) -> None:
    key_file, certificate_file = certificate
    endpoint = f"ssl:0:interface=127.0.0.1:privateKey={key_file}:certKey={certificate_file}"
    server = serve("--listen", "tcp:0:interface=127.0.0.1", listen=["--listen", endpoint], endpoints=2)
    trust = ssl.create_default_context(cafile=str(certificate_file))
    plain = int(server.addresses[1].rpartition(":")[2])
    with (
        socket.create_connection(("127.0.0.1", server.port), TIME_LIMIT) as sock,
        trust.wrap_socket(sock, server_hostname="127.0.0.1") as tls,
        RawClient(plain) as publisher,
    ):
        subscribe = message("chat", {"subscribe": "flood", "receipt": "in"}).encode("ascii")
        tls.sendall(handshake_head(server.port) + client_frame(subscribe))
        received = b""
        while b"receipt-id:in" not in received:
            received += tls.recv(65_536)
        before, end = resident_size(server.pid), time.monotonic() + TIME_LIMIT
        number = 0
        while "it does not read" not in server.log:
            assert time.monotonic() < end, "it was not closed"
            publisher.sock.sendall(client_frame(published(number)))
            number += 1
            time.sleep(0.001)
        assert resident_size(server.pid) - before < MAX_GROWTH
