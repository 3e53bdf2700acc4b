"""Scripts that were dear once, or held much; each must stay within the bounds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from random import Random

from fuzz.world import HISTORIES, SECRET, SESSION, Script, Step, handshake
from lhttp_tx.codec.json_view import encode_json
from lhttp_tx.codec.plain import protobuf_size
from lhttp_tx.codec.protobuf_view import encode_protobuf

__all__ = ["HOSTILE"]

_GET = b"GET / HTTP/1.1\r\nHost: localhost\r\n"
_MULTIPART = b"multipart:"
_OFFSETS = b" ".join(b"%d" % (6 * part) for part in range(1_300))
_CHAT = b"LHTTP/1.0 chat\r\n"
_WORDS = [bytes(pair) for pair in product(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ", repeat=2)]


def _names(count: int, begin: bytes = b"n{n}") -> bytes:
    return b" ".join([begin, *_WORDS[: count - 1]])


def _patterns(tokens: int) -> tuple[Step, ...]:
    """128 wildcard subscriptions whose tokens are ``a`` or a star, sixteen at a time."""
    chosen = Random(1)
    names = [b".".join([b"room", *(chosen.choice((b"a", b"*")) for _ in range(tokens)), b"x"]) for _ in range(128)]
    size = max(1, 8_000 // len(names[0]))
    lists = [names[start : start + size] for start in range(0, len(names), size)]
    return tuple(Step("text", _CHAT + b"subscribe:" + b" ".join(some) + b"\r\n\r\n", client=1) for some in lists)


def _get(path: bytes, method: bytes = b"GET") -> bytes:
    return method + b" " + path + b" HTTP/1.1\r\nHost: localhost\r\n\r\n"


def _header(name: bytes, value: bytes) -> Step:
    return Step("text", _CHAT + name + b":" + value + b"\r\n\r\n", times=3)


def _once(name: bytes, value: bytes) -> Step:
    return replace(_header(name, value), times=1)


def _script(*steps: Step, closed: bool = False, history: str = "") -> Script:
    return Script(steps, closed, history)


def _histories() -> Iterator[tuple[str, tuple[Step, ...]]]:
    """Return what is dear, or would be, where channels have history."""
    names = [b"kept.%s" % word for word in _WORDS[:128]]
    listed = b" ".join(names)
    ask = b"LHTTP/1.0 history\r\nchannel:kept.full\r\n"
    full = b"subscribe:kept.full\r\n"
    yield (
        "positions of a channel again and again",
        (
            _header(b"subscribe", b"kept.a\r\nsince:" + b" ".join(b"kept.a=e-%d" % number for number in range(600))),
            _header(b"subscribe", b"kept.a\r\nsince:" + b"kept.a=e-1 " * 600),
        ),
    )
    yield (
        "positions of many channels",
        (
            _once(b"subscribe", listed + b"\r\nreceipt:r\r\nsince:" + b" ".join(b"%s=e-0" % name for name in names)),
            _once(b"subscribe", listed + b"\r\nreceipt:r\r\nsince:e-0"),
            _once(b"subscribe", listed + b"\r\ngaps:tell\r\nlast:9"),
            _once(b"unsubscribe", listed),
        ),
    )
    yield (
        "questions to a history",
        (
            Step("text", ask + b"limit:500\r\n\r\n", times=3),
            Step("text", ask + b"limit:500\r\norder:newest\r\n\r\n", times=3),
            Step("text", ask.replace(b"full", b"large") + b"\r\n", times=3),
        ),
    )
    yield (
        "a history in one answer in another form",
        (
            Step("text", encode_json(ask + b"limit:500\r\n\r\n"), client=3),
            Step("text", encode_json(ask + b"limit:500\r\norder:newest\r\n\r\n"), client=3),
            Step("binary", encode_protobuf(ask + b"limit:499\r\n\r\n"), client=4),
            Step("binary", encode_protobuf(ask.replace(b"full", b"heads") + b"limit:500\r\n\r\n"), client=4),
            Step("text", encode_json(_CHAT + b"subscribe:kept.heads\r\nsince:e-0\r\n\r\n"), client=3),
            Step("binary", encode_protobuf(_CHAT + b"subscribe:kept.heads\r\nlast:900\r\n\r\n"), client=4),
        ),
    )
    yield (
        "a history whose messages came one by one",
        (
            Step("text", ask.replace(b"full", b"turns.1") + b"limit:1\r\n\r\n", times=3),
            Step("text", _CHAT + b"subscribe:kept.turns.1\r\nlast:1\r\nreceipt:r\r\n\r\n", times=3),
        ),
    )
    yield (
        "all of a history again and again",
        (
            Step("text", _CHAT + full + b"last:1000\r\nreceipt:{n}\r\n\r\n", times=3),
            Step("text", _CHAT + full + b"since:e-0\r\n\r\n", times=3),
            Step("text", _CHAT + full + b"since:e-9\r\nunsubscribe:kept.full\r\n\r\n", times=3),
            Step("text", _CHAT + full + b"since:e-1200\r\n\r\n", times=3),
        ),
    )
    yield (
        "all of a history, compressed",
        tuple(
            Step("text", _CHAT + full + b"since:e-%d\r\nreceipt:{n}\r\n\r\n" % offset, client=client)
            for client in (1, 2)
            for offset in (1040, 1060)
        ),
    )
    yield (
        "all channels at once, compressed",
        (Step("gzip", _CHAT + b"subscribe:" + listed + b"\r\nreceipt:r\r\nsince:e-0\r\n\r\n", client=2, times=3),),
    )
    yield (
        "channels subscribed and left in one message",
        (
            Step("text", _CHAT + full + b"unsubscribe:kept.full\r\nsince:e-0\r\n\r\n", times=10),
            Step("text", _CHAT + full + b"since:e-0\r\n\r\n"),
            Step("text", _CHAT + b"unsubscribe:kept.full\r\n\r\n"),
            Step("time", times=5),
        ),
    )
    yield (
        "all of a history, unread",
        (
            Step("stall", client=1),
            Step("text", _CHAT + b"subscribe:kept.large kept.full\r\nlast:1000\r\n\r\n", client=1, times=3),
            Step("text", _CHAT + b"publish:kept.large\r\n\r\n" + b"x" * 60_000, times=5),
            Step("text", _CHAT + b"subscribe:kept.large\r\nsince:e-0\r\n\r\n", client=1, times=3),
            Step("time", times=5),
        ),
    )
    yield (
        "message ids that are never the same",
        (
            Step("text", _CHAT + b"publish:kept.a\r\nmessage-id:{n}\r\nreceipt:{n}\r\n\r\n", times=30),
            Step("text", _CHAT + b"publish:ordinary\r\nmessage-id:" + b"m" * 90 + b"{n}\r\n\r\n", times=30),
        ),
    )
    yield (
        "message ids in many channels",
        (
            Step("text", _CHAT + b"publish:" + listed + b"\r\nmessage-id:{n}\r\nreceipt:{n}\r\n\r\n", times=5),
            Step("text", _CHAT + b"publish:" + _names(128) + b"\r\nmessage-id:{n}\r\nreceipt:{n}\r\n\r\n", times=5),
        ),
    )
    yield (
        "forged offsets",
        (
            _header(b"publish", b"kept.a\r\n" + b"offset:1\r\n" * 60),
            _header(b"publish", listed + b"\r\n" + b"after:1\r\n" * 60),
            Step("text", _CHAT + b"publish:kept.a\r\noffset:{n}\r\n\r\nx", times=30),
        ),
    )
    yield (
        "channels with history that are never the same",
        (Step("text", _CHAT + b"publish:kept.{n}." + b"x" * 200 + b"\r\n\r\n", times=3),),
    )


def _request(path: bytes, method: bytes = b"GET", body: bytes = b"", *lines: bytes) -> bytes:
    length = (b"Content-Length: %d" % len(body),) if body else ()
    head = b"\r\n".join((method + b" " + path + b" HTTP/1.1", b"Host: localhost", *length, *lines))
    return head + b"\r\n\r\n" + body


def _field(tag: int, value: bytes) -> bytes:
    return b"%c%b%b" % (tag, protobuf_size(len(value)), value)


def _json(*pieces: bytes) -> Step:
    return Step("text", b'{"COMMAND":"chat",' + b"".join(pieces) + b"}", client=3, times=5)


def _protobuf(*pieces: bytes) -> Step:
    return Step("binary", b"\x12\x04chat" + b"".join(pieces), client=4, times=5)


def _parts(count: int, part: bytes) -> bytes:
    """Return a message to those who take each message in another form, with as many equal parts."""
    offsets = b" ".join(b"%d" % (number * len(part)) for number in range(count))
    return _CHAT + b"publish:viewed\r\nmultipart:" + offsets + b"\r\n\r\n" + part * count


def _forms() -> Iterator[tuple[str, Script]]:
    """Return what is dear, or would be, in JSON and in Protocol Buffers."""
    header, odd = b"\x0a\x01a\x12\x01b", b"\x12\x01b\x7a\0\x7a\0\x0a\x01a"
    viewed = _CHAT + b"publish:viewed\r\n"
    yield (
        "structure in JSON",
        _script(
            _json(b'"HEADERS":[' + b",".join([b'["",""]'] * 480) + b"]"),
            _json(b'"HEADERS":{"a":[' + b",".join([b'"x"'] * 64) + b"]}"),
            _json(b",".join(b'"%b":0' % word for word in _WORDS[:550])),
            _json(b",".join([b'"BODY":""'] * 400)),
            _json(b'"BODYS":[' + b",".join([b"{}"] * 1_300) + b"]"),
            _json(b'"BODYS":[' + b",".join([b'{"HEADERS":{"a":"","b":""}}'] * 128) + b"]"),
            _json(b'"BODYS":[' + b",".join([b'{"HEADERS":{"a":""}}'] * 128) + b"]"),
        ),
    )
    yield (
        "texts in JSON",
        _script(
            Step("text", b"[" * 4_000, client=3, times=5),
            Step("text", b'{"receipt":"a",' * 900, client=3, times=5),
            _json(b'"BODY":"' + b"\\u0001" * 9_000 + b'"'),
            _json(b'"BODY":"' + b"\\ud800" * 9_000 + b'"'),
            _json(b'"BODY":"' + b'[\\"' * 15_000 + b'"'),
            _json(b'"BODY_BASE64":"' + b"====" * 15_000 + b'"'),
            _json(b'"BODY":' + b"9" * 60_000),
        ),
    )
    yield (
        "fields in Protocol Buffers",
        _script(
            _protobuf(b"\x7a\0" * 30_000),
            _protobuf((b"\x78" + b"\xff" * 9 + b"\x01") * 5_000),
            _protobuf(_field(0x2A, b"\x12\0" * 250) * 125),
            _protobuf(_field(0x2A, b"\x7a\0" * 250) * 125),
            _protobuf(_field(0x1A, header) * 64),
            _protobuf(_field(0x1A, odd) * 64),
            _protobuf(_field(0x2A, _field(0x0A, header)) * 128),
            _protobuf(_field(0x2A, _field(0x0A, header) * 2) * 128),
            _protobuf(_field(0x2A, _field(0x0A, odd) * 2) * 128),
        ),
    )
    yield (
        "messages in all forms",
        _script(
            Step("text", viewed + b"a:\r\n" * 63 + b"\r\n", times=3),
            Step("text", viewed + b"".join(b'%b:"\\ {n}\r\n' % word for word in _WORDS[:63]) + b"\r\n", times=3),
            *(
                Step("text", viewed + b"\r\n" + one * 20_000, times=5)
                for one in (b"\x01", b"\r", b"\xe2\x80\xa8", b'"')
            ),
            Step("binary", viewed + b"\r\n" + b"\xff" * 60_000, times=5),
            Step("text", _parts(20, b"a:\r\n" * 10 + b"\r\n"), times=3),
            Step("text", _parts(128, b"a:\r\n\r\n"), times=3),
        ),
    )
    yield (
        "parts over HTTP",
        _script(
            Step("http", _request(b"/publish", b"POST", _parts(500, b"a:b\r\n\r\nxyz")), times=3),
            Step("http", _request(b"/publish", b"POST", _parts(500, b"a:\r\n" * 10 + b"\r\n")), times=3),
            Step("http", _request(b"/publish", b"POST", _parts(20, b"a:\r\n" * 10 + b"\r\n")), times=3),
        ),
    )
    ask = b"LHTTP/1.0 history\r\nchannel:kept.full\r\nlimit:500\r\n\r\n"
    since = _CHAT + b"subscribe:kept.full kept.a\r\nsince:e-1400\r\n\r\n"
    for history in HISTORIES[1:]:
        yield (
            f"all of a history in all forms, {history}",
            _script(
                *(Step("text", encode_json(raw), client=3) for raw in (ask, since)),
                *(Step("binary", encode_protobuf(raw), client=4) for raw in (ask, since)),
                Step("http", _request(b"/events?channel=kept.full&since=e-1400")),
                Step("http", _request(b"/events?channel=kept.full&channel=kept.a&since=e-1400&data=body")),
                history=history,
            ),
        )


def _streams() -> Iterator[tuple[str, Script]]:
    """Return what is dear, or would be, of event streams."""
    names = [b"kept." + word for word in _WORDS[:60]]
    known = b"Last-Event-ID: " + b" ".join(word + b"=e-1" for word in _WORDS[:1_000])
    yield (
        "a stream of many names",
        _script(
            Step("http", _request(b"/events?channel=" + b"+".join(_WORDS[:2_600]))),
            Step("http", _request(b"/events?" + b"&".join([b"channel=" + b"a+" * 55] * 64))),
            Step("http", _request(b"/events?channel=" + b"+".join(_WORDS[:1_000]), b"GET", b"", known)),
            Step("http", _request(b"/events?channel=" + b"+".join(_WORDS[:120]), b"GET", b"", known[:900])),
            Step("http", _request(b"/events?channel=" + b"%41" * 2_600)),
            Step("http", _request(b"/events?channel=a", b"GET", b"", b"Last-Event-ID: " + b"a=e-1 " * 2_500)),
            Step("http", _request(b"/events?channel=a", b"GET", b"", b"Last-Event-ID: " + b"%41" * 4_800 + b"=e-1")),
            history="memory",
        ),
    )
    yield (
        "ids of many channels",
        _script(
            Step("http", _request(b"/events?channel=" + b"+".join(names) + b"&last=99")),
            Step("http", _request(b"/events?channel=" + b"+".join(names) + b"&data=body")),
            Step("text", _CHAT + b"publish:" + names[7] + b"\r\n\r\nhello", times=30),
            history="memory",
        ),
    )
    yield (
        "streams that hold",
        _script(
            *(
                Step("http", _request(b"/events?channel=a%d" % number, b"GET", b"", b"a: " + b"x" * 15_000))
                for number in range(3)
            ),
            *(
                Step(
                    "http",
                    _request(b"/events?channel=a&" + b"&".join(b"%b=%b" % (word, b"v" * 100) for word in _WORDS[:60])),
                )
                for _ in range(3)
            ),
            Step("http", _request(b"/events?channel=ordinary"), client=1),
            Step("text", _CHAT + b"publish:ordinary\r\n\r\n" + b"\x01" * 60_000, times=9),
            Step("time", times=9),
        ),
    )
    log_in = b"Authorization: Bearer open sesame"
    yield (
        "tickets",
        _script(
            Step("http", _request(b"/events/ticket", b"POST", b"", log_in), times=30),
            Step("http", _request(b"/events?channel=a&ticket=x{n}"), times=30),
            closed=True,
        ),
    )


def _calls() -> Iterator[tuple[str, Script]]:
    """Return what comes to the admin side: what is dear, or would be, or holds much, without a key and with one."""
    lines = b"Content-Type: application/json", b"Authorization: Bearer " + SECRET
    one = b'{"method":"publish","params":{"channel":"viewed","command":"c"}}'
    listed = b",".join(b'"kept.%b"' % word for word in _WORDS[:100])
    many = b'{"method":"broadcast","params":{"channels":[' + listed + b'],"command":"c"}}'

    def call(method: bytes, body: bytes, *more: bytes) -> Step:
        return Step("admin", _request(b"/api/" + method, b"POST", body, *lines, *more))

    yield (
        "strangers at the admin side",
        _script(
            Step("admin", _request(b"/api/publish", b"POST", b"x" * 2_000_000, lines[0])[:-9]),
            Step("admin", _request(b"/api/publish", b"POST", b"{}", lines[0], b"Authorization: Bearer x"), times=30),
            Step("admin", _request(b"/live"), times=30),
        ),
    )
    yield (
        "batches",
        _script(
            call(b"batch", b'{"calls":[' + b",".join([one] * 100) + b"]}"),
            call(b"batch", b'{"calls":[' + b",".join([b'{"method":"x"}'] * 100) + b"]}"),
            call(b"batch", b'{"calls":[' + b",".join([many] * 20) + b"]}", b"Idempotency-Key: k"),
            call(b"broadcast", b'{"command":"c","channels":[' + listed + b"]}"),
        ),
    )
    yield (
        "JSON of the admin side",
        _script(
            call(b"batch", b"[" * 100_000),
            call(
                b"batch",
                b'{"calls":[{"method":"publish","params":{"x":' + b"[" * 900 + b"]" * 900 + b"}}]}",
                b"Idempotency-Key: k",
            ),
            call(b"batch", b"[" + b",".join([b"9" * 4_300] * 20) + b"]"),
            call(b"publish", b"[" + b",".join([b"{}"] * 50_000) + b"]"),
        ),
    )
    yield (
        "history of the admin side",
        _script(
            call(b"history", b'{"channel":"kept.full","limit":500}'),
            call(
                b"batch",
                b'{"calls":['
                + b",".join([b'{"method":"history","params":{"channel":"kept.full","limit":500}}'] * 9)
                + b"]}",
            ),
            history="memory",
        ),
    )


def _framed(raw: bytes, times: int) -> bytes:
    return (b"%d\n%b" % (len(raw), raw)) * times


def _plain() -> Iterator[tuple[str, Script]]:
    """Return what is dear, or would be, or holds much, on a plain stream."""
    chat = _CHAT + b"\r\n"
    listed = b" ".join(b"kept.%s" % word for word in _WORDS[:128])
    yield (
        "tiny messages on a stream",
        _script(
            Step("stream", b"1\nx" * 20_000, client=1),
            Step("stream", _framed(b"\r\n", 10_000), client=2),
            Step("stream", _framed(chat, 2_000), client=3),
            Step("stream", _framed(b"LHTTP/1.0 echo\r\n\r\n", 2_000), client=3),
            Step("stream", _framed(_CHAT + b"publish:viewed\r\n\r\n", 1_000), client=3),
        ),
    )
    yield (
        "heartbeats on a stream",
        _script(
            Step("stream", b"0\n" * 30_000),
            Step("stream", b"0\n" * 500, width=1),
            Step("stream", b"0\n15\n" + chat, times=100),
        ),
    )
    yield (
        "lengths on a stream",
        _script(
            Step("stream", b"9" * 60_000, client=1),
            Step("stream", b"00\n", client=1, times=30),
            Step("stream", b"131072\n" + b"x" * 60_000, client=2),
            Step("stream", b"x" * 300, client=2, width=1),
            Step("shut", client=2),
            Step("stream", b"1\n" * 9 + b"GET / HTTP/1.1\r\n", client=3, times=30),
        ),
    )
    yield (
        "a stream that nobody reads",
        _script(
            Step("tcp", _CHAT + b"subscribe:ordinary\r\n\r\n", client=1),
            Step("stall", client=1),
            Step("tcp", b"LHTTP/1.0 echo\r\n\r\n" + b"x" * 20_000, client=1, times=9),
            Step("text", _CHAT + b"publish:ordinary\r\n\r\n" + b"x" * 60_000, times=6),
            Step("time", times=9),
        ),
    )
    yield (
        "a stream behind one that waits",
        _script(
            Step("tcp", b"LHTTP/1.0 wait\r\n\r\n", client=1),
            Step("stream", _framed(chat + b"x" * 3_000, 80), client=1),
            Step("time", times=9),
        ),
    )
    yield (
        "errors on a stream before a login",
        _script(
            Step("tcp", b"x", times=300),
            Step("tcp", b"LHTTP/1.0 login\r\ntoken:x{n}\r\n\r\n", client=1, times=30),
            closed=True,
        ),
    )
    for history in HISTORIES[1:]:
        yield (
            f"all of a history on a stream, {history}",
            _script(
                Step("tcp", _CHAT + b"subscribe:" + listed + b"\r\nreceipt:r\r\nsince:e-0\r\n\r\n", client=1),
                Step("tcp", _CHAT + b"subscribe:kept.full\r\nsince:e-1400\r\n\r\n", times=3),
                Step("tcp", b"LHTTP/1.0 history\r\nchannel:kept.full\r\nlimit:500\r\n\r\n", times=3),
                history=history,
            ),
        )


def _sessions() -> Iterator[tuple[str, Script]]:
    """Return what is dear, or would be, or holds much, of clients without WebSocket."""
    known, named = b"Authorization: Bearer " + SESSION, b"Content-Type: application/json"
    listed = b" ".join(b"kept.%s" % word for word in _WORDS[:128])
    full = b"subscribe:kept.full\r\nsince:e-1400\r\n\r\n"
    everything = _CHAT + b"subscribe:" + listed + b"\r\nreceipt:r\r\nsince:e-0\r\n\r\n"

    def send(body: bytes, *lines: bytes, client: int = 0, times: int = 1) -> Step:
        return Step("http", _request(b"/send", b"POST", body, known, *lines), client, times)

    def fetch(query: bytes, client: int = 0, times: int = 1) -> Step:
        return Step("http", _request(b"/connect" + query, b"GET", b"", known), client, times)

    yield (
        "bodies of tiny messages",
        _script(
            send(b"1\nx" * 1_000),
            send(b"0\n" * 1_000, client=2),
            send(_framed(b"LHTTP/1.0 echo\r\n\r\n", 1_000), client=2),
            send(_framed(_CHAT + b"publish:viewed\r\n\r\n", 1_000), client=2),
            send(b"[" + b",".join([b'{"COMMAND":"c"}'] * 1_000) + b"]", named, client=3),
            send(b"[" + b",".join([b"{}"] * 1_000) + b"]", named, client=3),
            send(b"[" * 60_000, named, client=3),
            send(b"9" * 60_000, client=3),
        ),
    )
    yield (
        "sessions that nobody fetches from",
        _script(
            Step("http", _request(b"/connect", b"POST", _CHAT + b"subscribe:ordinary\r\n\r\n"), times=30),
            send(_CHAT + b"subscribe:ordinary\r\n\r\n"),
            Step("text", _CHAT + b"publish:ordinary\r\n\r\n" + b"\x01" * 20_000, times=15),
            Step("time", times=60),
        ),
    )
    yield (
        "the same messages fetched again and again",
        _script(
            send(_CHAT + b"subscribe:ordinary\r\n\r\n"),
            Step("text", _CHAT + b"publish:ordinary\r\n\r\nx", times=500),
            fetch(b"?poll=1&after=0", times=30),
            fetch(b"?poll=1&after=0", times=3),
            fetch(b"?after=0", times=30),
        ),
    )
    yield (
        "requests that take each other's place",
        _script(
            fetch(b"?poll=1", times=60),
            fetch(b"", times=30),
            Step("http", _request(b"/connect", b"DELETE", b"", known), times=30),
            Step("http", _request(b"/connect", b"GET", b"", b"Authorization: Bearer x"), times=30),
            Step("http", _request(b"/send?number={n}", b"POST", b"", known), times=30),
        ),
    )
    yield (
        "bodies behind one that waits",
        _script(
            send(b"LHTTP/1.0 wait\r\n\r\n"),
            *(send(_framed(_CHAT + b"\r\n" + b"x" * 600, 100)) for _ in range(3)),
            Step("time", times=9),
        ),
    )
    yield (
        "sessions of those who are to log in",
        _script(
            Step("http", _request(b"/connect", b"POST"), times=30),
            Step("http", _request(b"/connect", b"POST", b"", b"Authorization: Bearer x"), times=30),
            send(b"x", times=30),
            closed=True,
        ),
    )
    for history in HISTORIES[1:]:
        yield (
            f"all of a history without WebSocket, {history}",
            _script(
                *(send(everything, client=client) for client in (1, 3)),
                *(send(_CHAT + full, client=client) for client in (0, 2)),
                send(encode_json(_CHAT + full), named, client=3),
                *(fetch(b"?poll=1", client=client) for client in (0, 3)),
                fetch(b"", client=2),
                send(b"LHTTP/1.0 history\r\nchannel:kept.full\r\nlimit:500\r\n\r\n", times=3),
                Step("time", times=90),
                history=history,
            ),
        )


HOSTILE: dict[str, Script] = {
    "time that passes": _script(Step("time", times=300)),
    "two event streams of a history in one read": _script(
        Step("http", _get(b"/events?channel=kept.full&since=e-1400")),
        Step("http", _get(b"/events?channel=kept.full&channel=kept.a&since=e-1400&dta=body")),
        history="later",
    ),
    "answers that nobody reads": _script(Step("http", _get(b"/lhttp.js"), client=1, times=150)),
    "answers that nobody reads, without a body": _script(
        Step("http", _get(b"/lhttp.mjs", b"HEAD"), client=1, times=500)
    ),
    "a request after the other": _script(Step("http", _get(b"/health"), times=100)),
    "wildcards of many tokens": _script(
        *_patterns(122), _header(b"publish", b".".join([b"room", *[b"a"] * 122, b"b"])), Step("time")
    ),
    "wildcards of some tokens": _script(
        *_patterns(14), _header(b"publish", b".".join([b"room", *[b"a"] * 14, b"b"])), Step("time")
    ),
    "wildcards of many tokens, and many names": _script(
        *_patterns(14), _header(b"publish", b" ".join(b"room" + b".a" * 14 + b".%d" % n for n in range(200)))
    ),
    "names in a rate": _script(
        Step(
            "text",
            _CHAT + b"publish:" + b" ".join(b"rated." + word for word in _WORDS[:880]) + b" {n}\r\n\r\n",
            times=30,
        )
    ),
    "a name among many that only varies": _script(
        Step("text", _CHAT + b"publish:" + _names(2_600) + b"\r\n\r\n", times=60), Step("time")
    ),
    "many names to publish to": _script(_header(b"publish", _names(2_600))),
    "many names to subscribe to": _script(_header(b"subscribe", _names(2_600))),
    "many names to unsubscribe from": _script(_header(b"unsubscribe", _names(2_600))),
    "many patterns to unsubscribe from": _script(
        _header(b"unsubscribe", b" ".join(b"room.%s.*" % word for word in _WORDS[:800]))
    ),
    "one name many times": _script(_header(b"subscribe", b"a " * 4_000), _header(b"publish", b"a " * 4_000)),
    "who is in a crowd": _script(Step("text", b"LHTTP/1.0 presence\r\nchannel:room.crowd\r\n\r\n", times=100)),
    "a message of fragments": _script(Step("binary", b"x" * 3_000, width=1)),
    "empty fragments": _script(Step("frame", b"\x01x"), Step("frame", b"\x00", times=2_000)),
    "a handshake of parameters": _script(
        Step("open", b"/?" + b"&".join(word + b"=" for word in _WORDS)[:15_700], times=20)
    ),
    "a handshake of headers": _script(Step("open", b"/\r\n" + b"".join(b"%s: x\r\n" % word for word in _WORDS[:400]))),
    "a header with a long name": _script(Step("http", b"GET / HTTP/1.1\r\n" + b"x" * 8_000 + b": y\r\n\r\n")),
    "a long method": _script(Step("http", b"x" * 8_000 + b" / HTTP/1.1\r\nHost: localhost\r\n\r\n")),
    "a body of tiny chunks": _script(
        Step(
            "http",
            b"POST /publish HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
            + b"1\r\nx\r\n" * 5_000
            + b"0\r\n\r\n",
        )
    ),
    "a handshake of headers of one name": _script(Step("open", b"/\r\n" + b"a:\r\n" * 490)),
    "as many tiny headers as there may be": _script(
        Step("open", b"/\r\n" + b"a:\r\n" * 57),
        Step("open", b"/\r\n" + b"aa: x\r\n" * 57),
        Step("stall"),
        Step("end"),
    ),
    "clients that come and go": _script(
        Step("open", b"/\r\n" + b"a:\r\n" * 50), *(Step("end", client=number % 3, times=5) for number in range(12))
    ),
    "a handshake in many reads": _script(Step("open", width=1, times=50)),
    "as many headers as there may be": _script(
        Step("open", b"/\r\n" + b"".join(b"%s-%s: x\r\n" % (word, word * 8) for word in _WORDS[:57]) + b"a:\r\na:\r\n"),
        Step("http", _GET + b"".join(b"%s-%s: x\r\n" % (word, word * 8) for word in _WORDS[:60]) + b"\r\n"),
    ),
    "a path of escapes": _script(
        Step("open", b"/" + b"%41" * 5_000),
        Step("open", b"/" + b"%/" * 5_000 + b"\r\na:\r\na:"),
        Step("http", b"GET /" + b"a/" * 7_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    ),
    "a query of escapes": _script(
        Step("open", b"/?a=" + b"%41" * 2_500),
        Step("open", b"/?" + b"&".join(b"%%41%d=%%41" % number for number in range(64)) + b"\r\na:\r\na:"),
        Step("http", b"GET /?a=" + b"%41" * 2_500 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    ),
    "lists in a head": _script(
        Step("http", _GET + b"Connection: " + b"a " * 7_000 + b"\r\n\r\n"),
        Step("http", handshake().replace(b"Connection: ", b"Connection: " + b"," * 15_000)),
        Step("http", handshake(b"/\r\na:\r\na:").replace(b"Connection: ", b"Connection: " + b"a," * 7_000)),
        Step("http", handshake().replace(b"Upgrade: ", b"Upgrade: " + b"a," * 7_000)),
    ),
    "extensions": _script(
        Step("open", b"/\r\nSec-WebSocket-Extensions: permessage-deflate" + b"; a" * 4_500),
        Step("open", b"/\r\nSec-WebSocket-Extensions: " + b",".join([b"permessage-deflate"] * 63)),
    ),
    "gzip that inflates": _script(
        Step("gzip", _CHAT + b"publish:ordinary\r\n\r\n" + b"x" * 65_000, client=2, times=20)
    ),
    "gzip that inflates to names": _script(
        Step("gzip", _CHAT + b"publish:" + b"a " * 4_000 + b"\r\n\r\n", client=2, times=20)
    ),
    "errors before a login": _script(
        Step("open", b"/"), Step("text", b"x", times=2_000), Step("time", times=20), closed=True
    ),
    "blanks in a value": _script(_header(b"a", b"x" + b" " * 7_900 + b"x"), _header(b"publish", b" " * 7_900 + b"a")),
    "offsets that lead nowhere": _script(_header(b"multipart", b" ".join(b"%d" % number for number in range(1_600)))),
    "offsets of empty parts": _script(
        Step(
            "text",
            _CHAT
            + b"multipart:"
            + b" ".join(b"%d" % (2 * part) for part in range(1_500))
            + b"\r\n\r\n"
            + b"\r\n" * 1_500,
        )
    ),
    "parts with headers": _script(
        Step("text", _CHAT + _MULTIPART + _OFFSETS + b"\r\n\r\n" + b"a:\r\n\r\n" * 1_300),
        Step("text", _CHAT + _MULTIPART + b"0\r\n\r\n" + b"a:\r\n" * 10_000 + b"\r\n"),
    ),
    "cookies": _script(Step("http", _GET + b"Cookie: " + b";" * 16_000 + b"\r\n\r\n")),
    "a long target": _script(Step("http", b"GET /?" + b"a" * 8_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n")),
    "a folded header": _script(Step("http", _GET + b"X: a\r\n" + b" \r\n" * 5_000 + b"\r\n")),
    "messages in two fragments": _script(
        Step("raw", b"".join(Step("text", _CHAT + b"publish:ordinary\r\n\r\n", width=30).units()) * 100)
    ),
    "behind a failure": _script(Step("frame", b"\x83"), Step("binary", b"x" * 100_000, width=1)),
    "tokens in a name": _script(
        _header(b"publish", b" ".join(b".".join([word, *[b"a"] * 120]) for word in _WORDS[:32]))
    ),
    "queued behind one that waits": _script(
        Step("text", b"LHTTP/1.0 wait\r\n\r\n"), Step("text", _CHAT + b"\r\n" + b"x" * 60_000, times=16)
    ),
    "a head of receipts": _script(
        Step("text", _CHAT + b"publish:ordinary\r\n" + b"receipt:{n}\r\n" * 4_000 + b"\r\n", times=3),
        Step("text", _CHAT + b"receipt:r\r\n" * 5_400 + b"\r\n", times=3),
        Step("text", _CHAT + b"publish:ordinary\r\n" + b"message-id:{n}\r\n" * 3_000 + b"\r\n", times=3),
    ),
    "heads that are never the same": _script(
        Step("text", _CHAT + b"publish:n{n}\r\na{n}:" + b"x" * 400 + b"\r\n\r\n", times=500)
    ),
}
"""The scripts by name."""
HOSTILE |= {
    f"{name}, {history}": _script(*steps, history=history) for name, steps in _histories() for history in HISTORIES[1:]
}
HOSTILE |= {name: script for found in (_forms, _streams, _plain, _sessions, _calls) for name, script in found()}
