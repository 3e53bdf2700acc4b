"""
The corpus to begin with: what the golden vectors hold, in the form that each target reads.
"""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from fuzz.targets import ALLOWED, HANDSHAKE
from lhttp_tx.codec.json_view import encode_json
from lhttp_tx.codec.protobuf_view import encode_protobuf
from lhttp_tx.errors import RemoteProtocolError
from lhttp_tx.observe.methods import METHODS

__all__ = ["payloads", "seeds"]

_VECTORS = Path(__file__).parent.parent / "vectors"
_MASK = b"\x37\xfa\x21\x3d"
_SMALL = 4_096
"""Bytes of a seed: larger ones only slow the fuzzer down."""


def _entries(*names: str) -> Iterator[dict[str, Any]]:
    for name in names:
        yield from json.loads((_VECTORS / f"{name}.json").read_bytes())


def _octets(entry: dict[str, Any]) -> bytes:
    if "raw" in entry:
        return str(entry["raw"]).encode("utf-8")
    if "raw_base64" in entry:
        return base64.b64decode(entry["raw_base64"], validate=True)
    return "".join(text * times for text, times in entry["raw_repeat"]).encode("utf-8")


def payloads() -> list[tuple[bytes, bool]]:
    """Return every message of the vectors, well-formed or not, and whether it travels as binary."""
    found = [(_octets(entry), entry.get("binary", False)) for entry in _entries("messages", "malformed", "publish")]
    for exchange in _entries("exchanges"):
        found += [(_octets(step["send"]), step["send"].get("binary", False)) for step in exchange["steps"]]
    return list(dict.fromkeys(found))


def _frame(payload: bytes, first: int) -> bytes:
    size = len(payload)
    head = struct.pack("!BB", first, 0x80 | size) if size < 126 else struct.pack("!BBH", first, 0xFE, size)
    return head + _MASK + bytes(byte ^ _MASK[index % 4] for index, byte in enumerate(payload))


def _values(raw: bytes, name: bytes) -> Iterator[bytes]:
    for line in raw.partition(b"\r\n\r\n")[0].split(b"\r\n"):
        found, colon, value = line.partition(b":")
        if colon and found.strip().lower() == name:
            yield value.strip(b" \t")


def _lane() -> Iterator[bytes]:
    frames = [_frame(raw, 0x82 if binary else 0x81) for raw, binary in payloads() if len(raw) < _SMALL]
    for index, frame in enumerate(frames):
        yield bytes((index % 256, index * 7 % 256)) + frame
        yield bytes((0, 128)) + b"".join(frames[index : index + 4])
    for first in (0x01, 0x80, 0x88, 0x89, 0x8A, 0xC1, 0x83):
        yield b"\1\x80" + _frame(b"hello", 0x81) + _frame(b"hello", first)


def _connection() -> Iterator[bytes]:
    for seed in _lane():
        yield seed[1:]
    hello = b"LHTTP/1.0 echo\r\nsubscribe:a\r\npublish:a\r\n\r\nhello"
    for cut in (0, 5, 20):
        first, second = _frame(hello[:cut], 0x01), _frame(hello[cut:], 0x80)
        yield b"\3" + first + _frame(b"ping", 0x89) + second + _frame(hello, 0x81)
    yield b"\2" + _frame(hello, 0x81) + _frame(b"\x03\xe8bye", 0x88) + _frame(hello, 0x81)
    for length in (b"\xff" + b"\x7f" + bytes(7), b"\xfe\x00\x05", b"\x05"):
        yield b"\1" + _frame(hello, 0x82) + b"\x82" + length + _MASK + b"hello"


def _framed(messages: Iterable[bytes]) -> bytes:
    return b"".join(b"%d\n%b" % (len(raw), raw) for raw in messages)


def _plain() -> Iterator[bytes]:
    raws = [raw for raw, _ in payloads() if len(raw) < _SMALL]
    for index, raw in enumerate(raws):
        yield bytes((index % 256,)) + _framed([raw])
        yield b"\3" + _framed(raws[index : index + 4])
    hello = b"LHTTP/1.0 echo\r\nsubscribe:a\r\npublish:a\r\n\r\nhello"
    lines = (b"0\n" * 9, b"00\n", b"01\nx", b"9999999999\n", b"99999999999\n", b"-1\n", b"1", b"\n", b"131073\nx")
    for line in (*lines, b"\xc2\xb2\n"):
        yield b"\1" + _framed([hello]) + line + _framed([hello])
        yield b"\1" + line


def _bodies() -> Iterator[bytes]:
    raws = [raw for raw, _ in payloads() if len(raw) < _SMALL]
    for index, raw in enumerate(raws):
        yield bytes((index % 4,)) + raw
        yield b"\0" + _framed(raws[index : index + 4])
    for raw in _json():
        yield b"\1" + raw
        yield b"\1[" + raw + b"," + raw + b"]"
    yield from (b"\0" + line for line in (b"0\n0\n", b"007\nx", b"5\nhello", b"99999999\n", b"1\n\xff1\nx1\n\xff"))


def _handshakes() -> Iterator[bytes]:
    yield HANDSHAKE
    extra = (
        b"Origin: https://server.example:8443",
        b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits",
        b"Sec-WebSocket-Protocol: lhttp",
        b"Content-Length: 0",
        b"X-Forwarded-For: 192.0.2.1",
        b"Connection: keep-alive, Upgrade",
        b"Host: [::1]:8081",
    )
    for line in extra:
        yield HANDSHAKE[:-2] + line + b"\r\n\r\n"
        name = line.partition(b":")[0] + b":"
        kept = [known for known in HANDSHAKE[:-4].split(b"\r\n") if not known.startswith(name)]
        yield b"\r\n".join([*kept, line]) + b"\r\n\r\nbehind"
    for line in HANDSHAKE[:-4].split(b"\r\n")[1:]:
        for other in (line.partition(b" ")[0] + b" x", line + b"x", line.upper(), line.replace(b": ", b" : ")):
            yield HANDSHAKE.replace(line, other)
    yield HANDSHAKE.replace(b"/echo", b"/a%20b/..;c?x=%41&y")
    yield HANDSHAKE.replace(b": ", b":\t")


def _messages() -> Iterator[bytes]:
    for raw, _ in payloads():
        yield raw
    for number in range(256):
        for begin in (b"LHTTP/1.0 c", b"LHTTP/1.0 c\r\nh", b"LHTTP/1.0 c\r\nh:v"):
            yield begin + bytes((number,)) + (b"x\r\n\r\n" if begin.endswith((b"c", b"v")) else b":\r\n\r\n")


def _upstreams() -> Iterator[bytes]:
    host = b"http://backend.example/"
    for raw, _ in payloads():
        for value in _values(raw, b"upstream"):
            yield value
            yield value.replace(host, host[:-1] + b":8000/")
    for rest in ("", "/", "s", "/x?y=1", "/%2e%2e", "/..%2f", "/%252e%252e/", "/.;x/../", "/%5c..", "//", "@x", "#x"):
        yield f"GET {ALLOWED}{rest}".encode("ascii")
    yield from (b"GET http://[:::1]/record", b"127.0.0.1", b"::ffff:169.254.1.1", b"64:ff9b::a00:1", b"fe80::1%lo")


def _accesses() -> Iterator[bytes]:
    for peer in (b"127.0.0.1", b"::1", b"192.0.2.1", b""):
        for host in (b"127.0.0.1:8081", b"localhost", b"[::1]:8081", b"chat.example", b"u@localhost", b""):
            for origin in (b"", b"http://localhost:3000", b"https://evil.example", b"null"):
                yield b"\n".join((peer, host, origin, b"same-origin", b"Bearer 0123456789abcdef", b"via"))
                yield b"\n".join((peer, host, origin, b"", b""))


def _json() -> Iterator[bytes]:
    for entry in _entries("malformed_json"):
        if "json" in entry:
            yield entry["json"].encode("utf-8")
        elif "json_base64" in entry:
            yield base64.b64decode(entry["json_base64"])
    for entry in _entries("views"):
        yield json.dumps(entry["json"]).encode("ascii")
        yield from (text.encode("utf-8") for text in entry.get("also", ()))
    for raw, _ in payloads():
        with suppress(RemoteProtocolError):
            yield encode_json(raw)


def _protobuf() -> Iterator[bytes]:
    for entry in _entries("malformed_protobuf", "views"):
        if "protobuf_base64" in entry:
            yield base64.b64decode(entry["protobuf_base64"])
    for raw, binary in payloads():
        with suppress(RemoteProtocolError):
            yield encode_protobuf(raw, binary)


def _events() -> Iterator[bytes]:
    queries = (
        b"channel=a",
        b"channel=a&channel=%C3%BC&last=5",
        b"channel=a+b&data=body&since=a%3De-1",
        b"channel=..",
        b"x",
    )
    for query in queries:
        for identifier in (b"", b"e-1", b"a=e-1 b=e-2", b"a=e-1 a=e-1", b"%41=e-1"):
            yield b"\n".join((query, identifier, b"LHTTP/1.0 missed\r\npublish:a\r\n\r\nid: 1\r\rdata: x"))
    for raw, _ in payloads():
        yield b"\n".join((queries[0], b"e-1", raw))


def _calls() -> Iterator[bytes]:
    texts = (
        '"a"',
        '"news.*"',
        '"$x"',
        '""',
        "1",
        "1.0",
        "1e400",
        "true",
        "null",
        "[]",
        '["a","b"]',
        '{"a":"b"}',
        '"\\ud800"',
    )
    for method in METHODS:
        yield method.name.encode("ascii") + b"\n{}"
        for text in texts:
            pairs = ",".join(f'"{parameter.name}":{text}' for parameter in method.parameters)
            yield f"{method.name}\n{{{pairs}}}".encode("ascii")
    yield b'publish\n{"channel":"a","command":"c","headers":{"a":"b"},"body":"x","store":false,"message_id":"m"}'
    yield b'batch\n{"calls":[{"method":"publish","params":{"channel":"a"}}]}'


def seeds(target: str) -> list[bytes]:
    """Return the corpus that *target* begins with."""
    raws = [raw for raw, _ in payloads()]
    found: Iterable[bytes]
    if target == "multipart":
        found = [value + b"\n" + raw.partition(b"\r\n\r\n")[2] for raw in raws for value in _values(raw, b"multipart")]
    elif target == "channels":
        names = (b"subscribe", b"publish", b"unsubscribe")
        found = [b"\n".join(_values(raw, name)) for raw in raws for name in names]
    else:
        found = _MAKERS[target]()
    return [seed for seed in dict.fromkeys(found) if len(seed) <= _SMALL]


_MAKERS = {
    "message": _messages,
    "upstream": _upstreams,
    "lane": _lane,
    "connection": _connection,
    "stream": _plain,
    "bodies": _bodies,
    "handshake": _handshakes,
    "access": _accesses,
    "json": _json,
    "protobuf": _protobuf,
    "events": _events,
    "admin": _calls,
}
