"""
The protocol fuzzer: what clients may do, and what they may not, against a real server, beside an honest client.

    python -m fuzz.protocol [--seconds N] [--seed N] [--attackers N] [-- OPTION OF THE SERVER...]

Attackers open connections and do random things with them: handshakes good and bad, frames, fragments and control
frames legal and illegal, lengths that lie, messages of the golden vectors and their mutations, HTTP pipelined and
broken, and every way to hang up. Each has a random generator of its own, made from the seed and its number, so the
same seed makes the same attacks, though not at the same moments. An honest client publishes numbered messages all the
while, and newcomers connect. At the end the server must hold nothing of anybody.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import socket
import sys
import tempfile
import threading
import time
import zlib
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from integration._honest import Figures, HonestClient
from integration._server import (
    BINARY,
    CLOSE,
    PING,
    PONG,
    PROCESSORS,
    RESET,
    TEXT,
    RawClient,
    ServerProcess,
    client_frame,
    handshake_head,
    http_request,
    message,
)

from fuzz.seeds import payloads

__all__ = ["Outcome", "run"]

_ATTACKERS = 6
_PATIENCE = 0.2
"""Seconds that an attacker waits for an answer, or for room to send, before it goes on."""

_WARM_UP = 3.0
"""Seconds of attacks before the server's memory is looked at, so that it has loaded what it needs."""

_GROWTH = 20 * 2**20
"""Bytes by which the server's memory may grow under attack."""

_KEPT_PLANS = 16 * 2**20
"""Bytes of what the server keeps about heads that it has seen: attacked for long, it has seen enough of them."""

_LONG = 600.0
"""Seconds of attacks that are long."""

_LATENCY = 1.0
"""Seconds in which 99 of 100 honest messages must arrive; the attackers share the machine with the server."""

_NEWCOMER = 5.0
"""Seconds in which a newcomer must have connected, subscribed, and got what it published."""

_NEWCOMER_PAUSE = 0.5
_LAST_WAIT = 20.0
"""Seconds after which nothing may be left of the attackers."""

_KEPT = 40
"""What each attacker did last, for whoever looks for the cause of a finding."""

_FAILURE = re.compile(r"Traceback|Unhandled")
_CENSUS = Path(__file__).parent.parent / "integration" / "_census.py"
_COMMANDS = ("echo", "deferred", "coroutine", "refuse", "parts", "veto", "rewrite", "chat", "hang-up", "upload", "x")
_CHANNELS = ("attack.a", "attack.b", "attack.é", "attack.long." + "x" * 200, "$SYS", "_x", "a..b", "*", "attack.>")
_PIECES = (
    b"\r\n",
    b"\r\n\r\n",
    b"\r",
    b"\n",
    b":",
    b" ",
    b"\x00",
    b"\xff",
    b"\xed\xa0\x80",
    b"LHTTP/1.0 ",
    b"%s{peer}",
)
_BAD_HANDSHAKES = (
    *("mutate", "drop", "double", "version", "method", "huge", "many"),
    *("line feeds", "noise", "half", "foreign"),
)
_CLOSE_CODES = (0, 999, 1000, 1001, 1004, 1005, 1006, 1007, 1011, 1015, 1016, 2999, 3000, 4999, 5000, 65_535)
_SIZES = (0, 5, 125, 126, 127, 65_535, 65_536, 131_072, 131_073, 2**31, 2**40, 2**63 - 1, 2**63, 2**64 - 1)


class _Gone(Exception):
    """The server has hung up, or does not take more: the connection is of no use any more."""


class _Connection:
    """An attacker's socket, which notes what is done with it and waits for nothing long."""

    def __init__(self, attacker: _Attacker) -> None:
        self.attacker = attacker
        self.sock = socket.create_connection(("127.0.0.1", attacker.port), 5.0, (attacker.address, 0))
        self.sock.settimeout(_PATIENCE)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, data: bytes, what: str) -> None:
        """Send *data*; what the server does not take in time is left out."""
        self.attacker.note(f"{what}: {data[:80]!r}{f' ... {len(data)} bytes' if len(data) > 80 else ''}")
        try:
            self.sock.sendall(data)
        except OSError as error:
            raise _Gone from error

    def dribble(self, data: bytes, what: str) -> None:
        """Send *data* in small pieces."""
        rng, position = self.attacker.rng, 0
        while position < len(data):
            end = position + rng.choice((1, 1, 2, 7))
            self.send(data[position:end], what)
            position = end
            if rng.random() < 0.1:
                time.sleep(0.001)

    def read(self) -> bytes:
        """Return what has come, nothing if nothing comes soon."""
        try:
            data = self.sock.recv(65_536)
        except TimeoutError:
            return b""
        except OSError as error:
            raise _Gone from error
        if not data:
            raise _Gone
        return data

    def end(self) -> None:
        """Hang up in one of the ways that there are."""
        way = self.attacker.rng.choice(("close", "reset", "half"))
        self.attacker.note(f"hang up: {way}")
        try:
            if way == "reset":
                self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            elif way == "half":
                self.sock.shutdown(socket.SHUT_WR)
                self.read()
        except (OSError, _Gone):
            pass
        finally:
            self.sock.close()


class _Attacker(threading.Thread):
    """
    One source of random connections.

    :ivar address: where it connects from: not from where the honest clients do.
    :ivar counts: how often it did what.
    :ivar last: what it did last.
    :ivar error: what went wrong with itself; ``None``, or the fuzzer is broken.
    """

    def __init__(self, port: int, seed: int, number: int, stop: threading.Event) -> None:
        super().__init__(name=f"attacker {number}", daemon=True)
        self.port = port
        self.address = f"127.0.1.{number + 1}"
        self.rng = random.Random(f"{seed}:{number}")
        self.counts: Counter[str] = Counter()
        self.last: deque[str] = deque(maxlen=_KEPT)
        self.error: BaseException | None = None
        self._stop_event = stop
        self._payloads = payloads()
        self._lives: tuple[tuple[Callable[[_Connection], None], int], ...] = (
            (self._websocket, 10),
            (self._bad_handshake, 4),
            (self._http, 3),
            (self._publish, 3),
            (self._silence, 1),
        )

    def note(self, text: str) -> None:
        self.last.append(text)

    def run(self) -> None:
        lives, weights = zip(*self._lives, strict=True)
        try:
            while not self._stop_event.is_set():
                (life,) = self.rng.choices(lives, weights)
                self.note(f"connect for {life.__name__.strip('_')}")
                try:
                    connection = _Connection(self)
                except OSError:
                    self.counts["refused"] += 1
                    time.sleep(0.01)
                    continue
                self.counts[life.__name__.strip("_")] += 1
                try:
                    life(connection)
                except _Gone:
                    pass
                finally:
                    connection.end()
        except BaseException as error:
            self.error = error

    # Messages

    def _lhttp(self) -> tuple[bytes, bool]:
        """Return a message, well-formed or not, and whether it is to be sent as binary."""
        rng = self.rng
        kind = rng.random()
        if kind < 0.4:
            return self._good_message().encode("utf-8"), rng.random() < 0.2
        raw, binary = rng.choice(self._payloads)
        if kind < 0.6:
            return raw[:70_000], binary
        return self._mutated(raw[:2_000]), rng.random() < 0.5

    def _good_message(self) -> str:
        rng = self.rng
        headers: dict[str, str] = {}
        for name in ("subscribe", "publish", "unsubscribe"):
            if rng.random() < 0.3:
                headers[name] = " ".join(rng.choices(_CHANNELS, k=rng.randint(1, 3)))
        if rng.random() < 0.3:
            headers["receipt"] = rng.choice(("1", "x" * 100, "é"))
        if rng.random() < 0.1:
            headers["upstream"] = rng.choice(
                ("GET http://127.0.0.1:1/", "POST http://[::1]/", "nonsense", "GET file:///")
            )
        if rng.random() < 0.1:
            headers["multipart"] = rng.choice(("0", "0 4", "0 4 4", "-1", "9" * 20))
        if rng.random() < 0.1:
            headers.update({f"h{number}": "v" for number in range(rng.choice((3, 63, 64, 65)))})
        body = rng.choice(("", "hello", "k:v\r\n\r\nbody", "é" * 100, "x" * rng.choice((1_000, 20_000, 66_000))))
        return message(rng.choice(_COMMANDS), headers, body)

    def _mutated(self, raw: bytes) -> bytes:
        rng = self.rng
        for _ in range(rng.randint(1, 4)):
            start = rng.randint(0, len(raw))
            piece = rng.choice((*_PIECES, rng.randbytes(rng.randint(0, 8))))
            raw = raw[:start] + piece + raw[start + rng.randint(0, 4) :]
        return raw

    # WebSocket

    def _open(self, connection: _Connection) -> None:
        rng = self.rng
        headers = rng.choice(
            (
                (),
                (f"Origin: http://127.0.0.1:{self.port}",),
                ("Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits",),
                ("Sec-WebSocket-Protocol: chat, lhttp",),
                ("X-Forwarded-For: 192.0.2.1",),
            )
        )
        head = handshake_head(self.port, rng.choice(("/", "/echo", "/x/y?z=%00", "/?support_gzip=1")), headers)
        behind = b"".join(self._frame()[1] for _ in range(rng.choice((0, 0, 1, 3))))
        if rng.random() < 0.1:
            connection.dribble(head, "handshake, dribbled")
        else:
            connection.send(head + behind, "handshake")
        answer = b""
        while b"\r\n\r\n" not in answer:
            piece = connection.read()
            if not piece:
                raise _Gone
            answer += piece

    def _frame(self) -> tuple[str, bytes]:
        """Return a frame, or several that belong together, and what it is called."""
        rng = self.rng
        makers: tuple[tuple[Callable[[], bytes], int], ...] = (
            (self._whole, 12),
            (self._run, 3),
            (self._fragments, 4),
            (self._control, 4),
            (self._control_in_fragments, 2),
            (self._close, 1),
            (self._bad_opcode, 1),
            (self._compressed, 1),
            (self._bad_mask, 1),
            (self._bad_length, 2),
            (self._bad_text, 1),
            (self._bad_fragments, 2),
            (self._bad_control, 1),
            (self._bare_noise, 1),
            (self._flood, 1),
        )
        found, weights = zip(*makers, strict=True)
        (maker,) = rng.choices(found, weights)
        name = maker.__name__.strip("_")
        self.counts[name] += 1
        return name, maker()

    def _mask(self) -> bytes:
        return self.rng.choice((b"\0\0\0\0", self.rng.randbytes(4)))

    def _whole(self) -> bytes:
        payload, binary = self._lhttp()
        return client_frame(payload, BINARY if binary else TEXT, mask=self._mask())

    def _run(self) -> bytes:
        text = message("chat", {"publish": self.rng.choice(_CHANNELS[:4])}, "run").encode("utf-8")
        return client_frame(text, mask=self._mask()) * self.rng.choice((2, 10, 200))

    def _fragments(self) -> bytes:
        payload, binary = self._lhttp()
        cuts = sorted(self.rng.randint(0, len(payload)) for _ in range(self.rng.randint(1, 6)))
        pieces = [payload[start:end] for start, end in zip([0, *cuts], [*cuts, len(payload)], strict=True)]
        opcodes = [BINARY if binary else TEXT, *[0] * (len(pieces) - 1)]
        last = len(pieces) - 1
        return b"".join(
            client_frame(piece, opcode, final=index == last, mask=self._mask())
            for index, (piece, opcode) in enumerate(zip(pieces, opcodes, strict=True))
        )

    def _control(self) -> bytes:
        size = self.rng.choice((0, 1, 125))
        return client_frame(self.rng.randbytes(size), self.rng.choice((PING, PONG)), mask=self._mask())

    def _control_in_fragments(self) -> bytes:
        text = self._good_message().encode("utf-8")
        middle = self._control() * self.rng.randint(1, 3)
        return client_frame(text[:9], TEXT, final=False) + middle + client_frame(text[9:], 0, mask=self._mask())

    def _close(self) -> bytes:
        code = self.rng.choice(_CLOSE_CODES).to_bytes(2, "big")
        payload = self.rng.choice((b"", b"\x03", code, code + b"bye", code + b"\xff", code + b"x" * 123))
        return client_frame(payload, CLOSE, mask=self._mask()) + self.rng.choice((b"", self._whole()))

    def _bad_opcode(self) -> bytes:
        frame = bytearray(self._whole())
        frame[0] = self.rng.choice((0x83, 0x87, 0x8B, 0x8F, 0xC1, 0xA1, 0x91, 0xF1, 0x03))
        return bytes(frame)

    def _compressed(self) -> bytes:
        """A compressed message, a bomb, or noise in place of one, whether or not compression was agreed on."""
        deflate = zlib.compressobj(wbits=-self.rng.choice((9, 10, 15)))
        payload = self.rng.choice((self._lhttp()[0], b"LHTTP/1.0 echo\r\n\r\n" + bytes(2**21)))
        packed = (deflate.compress(payload) + deflate.flush(zlib.Z_SYNC_FLUSH)).removesuffix(b"\0\0\xff\xff")
        if self.rng.random() < 0.3:
            packed = self._mutated(packed[:2_000])
        frame = bytearray(client_frame(packed, self.rng.choice((TEXT, BINARY)), mask=self._mask()))
        frame[0] |= 0x40
        return bytes(frame)

    def _bad_mask(self) -> bytes:
        return bytes((0x81, 5)) + b"hello"

    def _bad_length(self) -> bytes:
        size = self.rng.choice(_SIZES)
        if self.rng.random() < 0.5 and size < 65_536:
            length = b"\xfe" + size.to_bytes(2, "big")
        else:
            length = b"\xff" + size.to_bytes(8, "big")
        return (
            self.rng.choice((b"\x81", b"\x82", b"\x01")) + length + self._mask() + b"x" * self.rng.choice((0, 5, 200))
        )

    def _bad_text(self) -> bytes:
        tail = self.rng.choice((b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xf4\x90\x80\x80"))
        return client_frame(b"LHTTP/1.0 chat\r\n\r\n" + tail, TEXT, mask=self._mask())

    def _bad_fragments(self) -> bytes:
        first, other = client_frame(b"LHTTP", TEXT, final=False), client_frame(b"x", 0)
        return self.rng.choice((other, first + first, first + self._whole(), other + first, first * 2 + other))

    def _bad_control(self) -> bytes:
        long, cut = client_frame(bytes(126), PING), client_frame(b"ping", PING, final=False)
        return self.rng.choice((long, cut, cut + client_frame(b"", 0), client_frame(b"", 0x0B)))

    def _bare_noise(self) -> bytes:
        return self.rng.randbytes(self.rng.randint(1, 300))

    def _flood(self) -> bytes:
        return self.rng.choice((client_frame(b"p" * 100, PING), client_frame(b"", 0, final=False))) * 500

    def _websocket(self, connection: _Connection) -> None:
        rng = self.rng
        self._open(connection)
        reads = rng.random() < 0.8
        for _ in range(rng.randint(1, 20)):
            if self._stop_event.is_set():
                return
            name, frame = self._frame()
            way = rng.random()
            if way < 0.1:
                connection.dribble(frame[:2_000], f"{name}, dribbled")
            elif way < 0.15:
                connection.send(frame[: rng.randint(0, len(frame))], f"{name}, cut off")
                if rng.random() < 0.5:
                    return
            else:
                connection.send(frame, name)
            if reads and rng.random() < 0.3:
                connection.read()
        if rng.random() < 0.3:
            connection.send(client_frame(b"\x03\xe8", CLOSE), "close")
            connection.read()

    # HTTP

    def _bad_handshake(self, connection: _Connection) -> None:
        rng = self.rng
        head = handshake_head(self.port)
        lines = head[:-4].split(b"\r\n")
        way = rng.choice(
            ("mutate", "drop", "double", "version", "method", "huge", "many", "lf", "noise", "half", "foreign")
        )
        if way == "mutate":
            head = self._mutated(head)
        elif way == "drop":
            del lines[rng.randint(0, len(lines) - 1)]
            head = b"\r\n".join(lines) + b"\r\n\r\n"
        elif way == "double":
            line = rng.choice(lines[1:])
            head = b"\r\n".join([*lines, line, line.lower()]) + b"\r\n\r\n"
        elif way == "version":
            version = rng.choice((b"0", b"12", b"99999999999", b"-1", b"13, 8", b"\xb2", b""))
            head = head.replace(b"Version: 13", b"Version: " + version)
        elif way == "method":
            head = head.replace(b"GET", rng.choice((b"POST", b"CONNECT", b"get", b"G" * 9_000, b"")), 1)
        elif way == "huge":
            head = head[:-2] + b"X: " + b"y" * rng.choice((8_000, 17_000, 70_000)) + b"\r\n\r\n"
        elif way == "many":
            head = head[:-2] + b"X: y\r\n" * rng.choice((100, 501, 5_000)) + b"\r\n"
        elif way == "line feeds":
            head = head.replace(b"\r\n", b"\n")
        elif way == "noise":
            head = rng.randbytes(rng.randint(1, 2_000))
        elif way == "half":
            head = head[: rng.randint(1, len(head) - 1)]
        else:
            origin = rng.choice((b"https://evil.example", b"null", b"\xff"))
            head = head[:-2] + b"Origin: " + origin + b"\r\n\r\n"
            if rng.random() < 0.5:
                head = head.replace(b"Host: 127.0.0.1", b"Host: " + rng.choice((b"evil.example", b"[", b"a b", b"@")))
        connection.send(head + rng.choice((b"", self._whole())), f"handshake, {way}")
        connection.read()

    def _request(self) -> bytes:
        rng = self.rng
        target = rng.choice((b"/", b"/publish", b"/health", b"/lhttp.js", b"/../etc/passwd", b"*", b"//x/", b"/%ff%00"))
        method = rng.choice((b"GET", b"HEAD", b"OPTIONS", b"DELETE", b"TRACE", b"POST"))
        return method + b" " + target + b" HTTP/1." + rng.choice((b"1", b"0", b"9")) + b"\r\nHost: 127.0.0.1\r\n\r\n"

    def _http(self, connection: _Connection) -> None:
        rng = self.rng
        requests = b"".join(self._request() for _ in range(rng.choice((1, 2, 10, 50))))
        if rng.random() < 0.3:
            requests += handshake_head(self.port) + self._whole()
        if rng.random() < 0.2:
            requests = self._mutated(requests)
        connection.send(requests, "requests, pipelined")
        for _ in range(rng.randint(0, 3)):
            connection.read()

    def _publish(self, connection: _Connection) -> None:
        rng = self.rng
        body, _ = self._lhttp()
        length = b"%d" % rng.choice((len(body), len(body), len(body), 0, 1, len(body) + 10, 10**12))
        lines = [b"POST /publish HTTP/1.1", b"Host: 127.0.0.1"]
        lies = rng.random()
        if lies < 0.1:
            length = rng.choice((b"-1", b"+5", b"5, 6", b"0x5", b"", b"9" * 5_000))
        if lies < 0.8:
            lines.append(b"Content-Length: " + length)
        if lies > 0.7:
            lines.append(b"Transfer-Encoding: " + rng.choice((b"chunked", b"gzip, chunked", b"identity", b"x")))
            size = rng.choice((b"%x" % len(body), b"ffffffffffffffff", b"-5", b"5;x=" + b"y" * 5_000, b""))
            body = size + b"\r\n" + body + rng.choice((b"\r\n0\r\n\r\n", b"", b"\r\n0\r\nX: y\r\n\r\n"))
        if rng.random() < 0.1:
            lines.append(rng.choice((b"Expect: 100-continue", b"Authorization: Bearer \xc3\xa9", b"Via: x")))
        head = b"\r\n".join(lines) + b"\r\n\r\n"
        if rng.random() < 0.1:
            connection.dribble(head + body[:500], "POST, dribbled")
        else:
            connection.send((head + body) * rng.choice((1, 1, 3)), "POST")
        connection.read()

    def _silence(self, connection: _Connection) -> None:
        time.sleep(self.rng.random() * _PATIENCE)


@dataclass(frozen=True)
class Outcome:
    """
    What a run has shown.

    :ivar seed: what it was made from.
    :ivar counts: how often the attackers did what.
    :ivar figures: what the honest client has seen.
    :ivar newcomers: seconds that each newcomer took.
    :ivar memory: bytes by which the server's memory grew from the end of the warm-up to the end of it all.
    :ivar findings: what must not be; nothing, if all is well.
    """

    seed: int
    counts: Counter[str]
    figures: Figures
    newcomers: list[float]
    memory: int
    findings: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lives = ("websocket", "bad_handshake", "http", "publish", "silence")
        done = ", ".join(f"{name} {count}" for name, count in sorted(self.counts.items()) if name not in lives)
        slowest = max(self.newcomers, default=0.0)
        return (
            f"seed {self.seed}: {sum(self.counts[name] for name in lives)} connections "
            f"({', '.join(f'{name} {self.counts[name]}' for name in lives)})\n"
            f"in them: {done}\n"
            f"honest client: {self.figures}\n"
            f"newcomers: {len(self.newcomers)}, slowest {1000 * slowest:.0f} ms; "
            f"memory at the end {self.memory / 2**20:+.1f} MiB\n"
            + "\n".join(f"FOUND: {finding}" for finding in self.findings or ["nothing"])
        )


def _come_once(port: int) -> float:
    """Connect, subscribe, publish by WebSocket and by HTTP, get both; return the seconds that it took."""
    begin = time.monotonic()
    with RawClient(port) as client:
        assert client.status == 101, client.status
        client.subscribe("newcomer")
        text = message("chat", {"publish": "newcomer"}, "hello")
        for publish in (client.send, lambda sent: http_request(port, "POST", "/publish", sent)):
            publish(text)
            assert client.receive() == (TEXT, text.encode("ascii"))
        client.send(b"\x03\xe8", CLOSE)
        assert client.receive() == (CLOSE, b"\x03\xe8")
    return time.monotonic() - begin


def _census(port: int) -> dict[str, Any]:
    with RawClient(port) as client:
        client.send(message("census"))
        return json.loads(client.receive()[1].partition(b"\r\n\r\n")[2])


def _leftovers(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Return what a server holds now that it did not hold before."""
    held = [f"channels {now['channels']}"] if now["channels"] else []
    if now["files"] > before["files"]:
        held.append(f"{now['files'] - before['files']} files")
    for name, count in now["objects"].items():
        if count > before["objects"].get(name, 0) and name != "Deferred":
            held.append(f"{count - before['objects'].get(name, 0)} {name}")
    return held


def run(
    server: ServerProcess, *, seconds: float, seed: int, attackers: int = _ATTACKERS, warm_up: float = _WARM_UP
) -> Outcome:
    """
    Attack *server*, which runs the processor ``census``, for some *seconds*; return what it has shown.

    :param seed: what the attacks are made from.
    :param attackers: how many connections are made at a time.
    :param warm_up: seconds of attacks before its memory is looked at.
    """
    findings: list[str] = []
    newcomers: list[float] = []
    stop = threading.Event()
    for _ in range(2):
        _come_once(server.port)
        before = _census(server.port)
    threads = [_Attacker(server.port, seed, number, stop) for number in range(attackers)]
    for thread in threads:
        thread.start()
    time.sleep(warm_up)
    middle = server.resident_size()
    figures = Figures(0, 0, 0, 0.0, 0.0, 0)
    end = time.monotonic() + seconds
    try:
        with HonestClient(server) as honest:
            while time.monotonic() < end and server.process.poll() is None:
                newcomers.append(_come_once(server.port))
                time.sleep(_NEWCOMER_PAUSE)
        figures = honest.figures
    except Exception as error:
        findings.append(f"an honest client was disturbed: {error!r}")
    last = {thread.name: list(thread.last) for thread in threads}
    stop.set()
    for thread in threads:
        thread.join(_LAST_WAIT)
        if thread.error is not None or thread.is_alive():
            findings.append(f"{thread.name} itself has failed: {thread.error!r}")
    memory = 0
    if server.process.poll() is None:
        findings += _look_at_the_rest(server, before)
        memory = server.resident_size() - middle
    else:
        findings.append(f"the server has ended with status {server.process.returncode}")
    if figures.lost or figures.strange or not figures.sent:
        findings.append(f"honest messages lost {figures.lost}, strange {figures.strange}, of {figures.sent}")
    if figures.p99 > _LATENCY:
        findings.append(f"99 of 100 honest messages took {figures.p99:.1f} s")
    if max(newcomers, default=0.0) > _NEWCOMER:
        findings.append(f"a newcomer took {max(newcomers):.1f} s")
    if max(memory, figures.growth) > _GROWTH + _KEPT_PLANS * min(1.0, seconds / _LONG):
        findings.append(f"memory grew by {max(memory, figures.growth) / 2**20:.1f} MiB")
    findings += [
        f"in the log: {line}" for line in server.log.splitlines() if "Traceback" in line or "Unhandled" in line
    ]
    if findings:
        findings += [f"{name}, last: {text}" for name, texts in last.items() for text in texts]
    return Outcome(seed, sum((thread.counts for thread in threads), Counter()), figures, newcomers, memory, findings)


def _look_at_the_rest(server: ServerProcess, before: dict[str, Any]) -> list[str]:
    """Wait until nothing is left of the attackers; return what is left too long."""
    end = time.monotonic() + _LAST_WAIT
    while True:
        try:
            held = _leftovers(before, _census(server.port))
        except (OSError, IndexError, ValueError) as error:
            held = [f"no answer: {error!r}"]
        if not held or time.monotonic() > end:
            return [f"left {_LAST_WAIT:g} s after the attackers have gone: {', '.join(held)}"] if held else []
        time.sleep(0.2)


def arguments() -> list[str]:
    """Return the options of a server that can be attacked and looked at."""
    names = ("echo", "deferred", "coroutine", "refuse", "parts", "veto", "rewrite", "hang_up")
    loaded = [*(f"{PROCESSORS}:{name}" for name in names), f"{_CENSUS}:census"]
    return ["--deflate", *(argument for name in loaded for argument in ("--processor", name))]


def main() -> int:
    """Read the command line, run, print the outcome, and return the exit status."""
    parser = argparse.ArgumentParser(prog="fuzz.protocol", description="Attack a server beside honest clients.")
    parser.add_argument("--seconds", type=float, default=600, help="how long (default 600)")
    parser.add_argument("--seed", type=int, default=None, help="what the attacks are made from (default: random)")
    parser.add_argument("--attackers", type=int, default=_ATTACKERS, help=f"how many at a time (default {_ATTACKERS})")
    parser.add_argument("options", nargs="*", metavar="OPTION", help="options for twistd lhttp, behind --")
    options = parser.parse_args()
    seed = random.SystemRandom().randrange(2**32) if options.seed is None else options.seed
    print(f"seed {seed}; the same again: python -m fuzz.protocol --seed {seed}", flush=True)
    with tempfile.TemporaryDirectory() as directory:
        server = ServerProcess(*arguments(), *options.options, cwd=Path(directory))
        try:
            outcome = run(server, seconds=options.seconds, seed=seed, attackers=options.attackers)
            print(outcome, flush=True)
            if outcome.findings:
                lines = [line for line in server.log.splitlines() if "#info]" not in line]
                print("the last of the server's log, without what is information alone:", *lines[-200:], sep="\n")
            server.check()
        finally:
            server.kill()
    return 1 if outcome.findings else 0


if __name__ == "__main__":
    sys.exit(main())
