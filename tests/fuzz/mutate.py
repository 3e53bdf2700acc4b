"""Changes of scripts: what the fuzzer that looks for cost tries next."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from random import Random

from fuzz.seeds import payloads, seeds
from fuzz.world import CLIENTS, HISTORIES, KINDS, NUMBER, SECRET, SESSION, Script, Step
from lhttp_tx.codec.json_view import encode_json
from lhttp_tx.codec.protobuf_view import encode_protobuf
from lhttp_tx.errors import RemoteProtocolError

__all__ = ["beginnings", "change"]

_SHARE = 3
"""One in so many of the golden messages is tried: most differ in what is wrong with them, not in what they cost."""

_MAX_STEPS = 10
_MAX_PAYLOAD = 131_072
_MAX_SENT = 400_000
"""Bytes that a script sends."""

_MAX_UNITS = 600
"""Messages, frames or requests of a script, and fragments or reads of them."""

_MAX_ASKED = 60
"""The same, where there is a history: each may ask for all of it, which takes long to measure."""

_MAX_OPEN = 50
"""WebSockets that a script opens beside those of its clients."""

_TIMES = (*(1,) * 12, *(2, 2, 2, 3, 3, 3, 10, 10, 10, 64, 64, 128, 300))
_WIDTHS = (0, 0, 0, 1, 2, 7, 100, 1_000, 8_192)
_SIZES = (10, 100, 1_000, 8_000, 16_000, 60_000, 130_000)

_TOKENS = (
    b"*",
    b">",
    b"a",
    b"room",
    b"rated",
    b"$presence",
    b"secret",
    b"topic",
    b"kept",
    b"few",
    b"crowd",
    b"7",
    NUMBER,
    b"x" * 60,
)
_PIECES = (
    *(b"\r\n", b"\r\n\r\n", b":", b" ", b"\t", b".", b",", b"&", b"=", b"%41", b"%2f", b"/", b"?", b";", b'"', b"\x00"),
    *(b"\xff", b"\xc3\xa9", b"\x81\x80", b"\x89\x80", b"\x01\x80", b"\x00\x80", b"\xc1\x80", NUMBER, b"b" + NUMBER),
    *(b"publish:", b"subscribe:", b"unsubscribe:", b"multipart:", b"receipt:r", b"upstream:GET http://x.example/"),
    *(b"channel:room.crowd", b"LHTTP/1.0 echo", b"LHTTP/1.0 wait", b"LHTTP/1.0 presence", b"LHTTP/1.0 login"),
    *(b"ordinary", b"room.crowd", b"room.>", b"room.*", b"rated.a", b"$presence.room.crowd", b"token:open sesame"),
    *(b"since:e-0", b"last:1000", b"gaps:tell", b"message-id:m", b"message-id:" + NUMBER, b"receipt:" + NUMBER),
    *(b"LHTTP/1.0 history", b"channel:kept.full", b"limit:500", b"order:newest", b"before:e-999", b"store:no"),
    *(b"kept.full", b"kept.large", b"kept.few.a", b"kept.*", b"kept.full=e-700", b"offset:1", b"after:1", b"e-99"),
    *(b"Content-Length: 5", b"Transfer-Encoding: chunked", b"Expect: 100-continue", b"Connection: keep-alive"),
    *(b"X-Forwarded-For: 192.0.2.1", b"Cookie: a=b", b"Range: bytes=0-1,2-3", b"Accept-Encoding: gzip"),
    *(b"Sec-WebSocket-Extensions: permessage-deflate", b"Sec-WebSocket-Protocol: lhttp", b"GET ", b"POST ", b"HEAD "),
    *(b"Accept: text/event-stream", b"Last-Event-ID: viewed=e-1", b"data=body", b"channel=viewed", b"channel=kept.a"),
    *(b"Idempotency-Key: k" + NUMBER, b"Content-Type: application/json", b"Content-Type: application/protobuf"),
    *(
        b'"HEADERS":',
        b'"BODY":"',
        b'"BODYS":[',
        b'{"BODY":""},',
        b'"a":["b","c"],',
        b"[]",
        b"{}",
        b'["a","b"],',
        b"null",
    ),
    *(
        b"\\u0000",
        b"\\ud800",
        b"1e400",
        b"9" * 400,
        b"\x1a\x00",
        b"\x2a\x02\x12\x00",
        b"\x12\x00",
        b"\x30\x01",
        b"\x78\x00",
    ),
    *(b"0\n", b"1\nx", b"15\n", b"9999999999\n", b"00", b"26\nLHTTP/1.0 chat\r\npublish:a\r\n", SESSION, b"after=1"),
    *(b"POST /send", b"GET /connect", b"DELETE /connect", b"poll=1", b"wait=0", b"number={n}", b"Last-Event-ID: 1"),
    *(b"a", b"\x7a\x00", b"\xff\xff\xff\xff\x0f", b'"calls":[', b'{"method":"x"},', b'"channels":["kept.a","kept.b"]'),
)
_PATHS = (b"/", b"/publish", b"/health", b"/lhttp.js", b"/lhttp.mjs", b"/nothing", b"/%70ublish", b"/a/b/c/d", b"*")
_KEY = b"Authorization: Bearer " + SECRET
_KNOWN = b"Authorization: Bearer " + SESSION
_ASKED = (b"/events", b"/connect", b"/send")
_NAMED = (b"application/json", b"application/protobuf")


def _message(*lines: bytes, body: bytes = b"") -> bytes:
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def _request(path: bytes, method: bytes = b"GET", body: bytes = b"", *lines: bytes) -> bytes:
    length = (b"Content-Length: %d" % len(body),) if body else ()
    return _message(method + b" " + path + b" HTTP/1.1", b"Host: localhost", *length, *lines, body=body)


def beginnings() -> Iterator[Script]:
    """Return the scripts to begin with: the golden vectors, and one of each kind of thing that a client can do."""
    chat = b"LHTTP/1.0 chat"
    messages = [(raw, binary) for raw, binary in payloads() if len(raw) < 4_096]
    steps = [Step("binary" if binary else "text", raw) for raw, binary in messages[::_SHARE]]
    steps += [
        Step("text", _message(chat, b"subscribe:room.a room.b", b"receipt:r")),
        Step("text", _message(chat, b"subscribe:room.* room.>")),
        Step("text", _message(chat, b"unsubscribe:room.a")),
        Step("text", _message(chat, b"publish:rated.a rated.b", body=b"hello")),
        Step("text", _message(chat, b"publish:topic.1.a", body=b"hello")),
        Step("text", _message(chat, b"subscribe:$presence.room.crowd")),
        Step("text", _message(b"LHTTP/1.0 presence", b"channel:room.crowd")),
        Step("text", _message(b"LHTTP/1.0 wait")),
        Step("text", _message(b"LHTTP/1.0 login", b"token:open sesame")),
        Step("gzip", _message(chat, b"publish:ordinary", body=b"hello"), client=2),
        *(Step("frame", bytes((first,)) + b"hello") for first in (0x88, 0x89, 0x8A, 0x01, 0x00, 0x80, 0xC1, 0x83)),
        Step("open", b"/?support_gzip=1&user=anna"),
        Step("open", b"/\r\nSec-WebSocket-Extensions: permessage-deflate; client_max_window_bits"),
        *(Step("http", _request(path)) for path in _PATHS),
        Step("http", _request(b"/publish", b"POST", _message(chat, b"publish:ordinary", body=b"hello"))),
        Step(
            "http",
            b"POST /publish HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        ),
        *(Step("http", raw) for raw in seeds("handshake")[:40]),
        Step("raw", b"\x81\x85\0\0\0\0hello"),
    ]
    steps += [*_forms(messages), *_streams(), *_plain(messages), *_sessions(messages), *_calls()]
    for step in steps:
        yield Script((step,))
        if step.kind in ("text", "open", "tcp", "stream") or any(path in step.payload for path in _ASKED):
            yield Script((step,), closed=True)
    for step in _histories():
        for history in HISTORIES[1:]:
            yield Script((step,), history=history)
    yield Script((steps[-1], Step("stall"), *(replace(step, times=100) for step in steps[:2])))


def _forms(messages: list[tuple[bytes, bool]]) -> Iterator[Step]:
    """Return messages in JSON and in Protocol Buffers, over WebSocket and over HTTP."""
    chat = b"LHTTP/1.0 chat"
    some = [
        *messages[:: 2 * _SHARE],
        (_message(chat, b"publish:viewed", b"a:b", b"a:c", body=b"hello"), False),
        (_message(chat, b"publish:viewed", b"multipart:0 5", body=b"a:b\r\n\r\nx\r\ny"), True),
        (_message(chat, b"subscribe:room.9", b"receipt:r"), False),
        (_message(b"LHTTP/1.0 echo", body=b"\xff\x00"), True),
    ]
    for raw, binary in some:
        with suppress(RemoteProtocolError):
            views = (encode_json(raw), encode_protobuf(raw, binary))
            for number, (kind, view, named) in enumerate(zip(("text", "binary"), views, _NAMED, strict=True)):
                yield Step(kind, view, client=3 + number)
                yield Step("http", _request(b"/publish", b"POST", view, b"Content-Type: " + named))
    for raw in (*seeds("json")[:40], b'{"COMMAND":"chat","BODYS":[{"BODY":""},{"HEADERS":{"a":"b"},"BODY":"c"}]}'):
        yield Step("text", raw, client=3)
    for raw in seeds("protobuf")[:40]:
        yield Step("binary", raw, client=4)
    for raw, _ in some[-4:]:
        yield Step("http", _request(b"/publish", b"POST", raw, b"Accept: application/x-protobuf"))


def _streams() -> Iterator[Step]:
    """Return requests for event streams, and for tickets."""
    log_in = b"Authorization: Bearer open sesame"
    for target in (
        b"channel=ordinary",
        b"channel=viewed&data=body",
        b"channel=viewed&channel=room.7",
        b"channel=room.a+room.b%20room.c&since=x-1",
        b"channel=room.*&last=5",
        b"channel=viewed&ticket=abc",
        b"channel=%FF",
    ):
        yield Step("http", _request(b"/events?" + target))
        yield Step("http", _request(b"/events?" + target, b"GET", b"", log_in, b"Accept: text/event-stream"))
    yield Step("http", _request(b"/events?channel=viewed&channel=room.a", b"GET", b"", b"Last-Event-ID: viewed=e-5"))
    yield Step("http", _request(b"/events?channel=viewed", b"OPTIONS", b"", b"Origin: http://localhost"))
    yield Step("http", _request(b"/events?channel=viewed", b"HEAD"))
    yield Step("http", _request(b"/events/ticket", b"POST", b"", log_in))


def _framed(messages: list[bytes]) -> bytes:
    return b"".join(b"%d\n%b" % (len(raw), raw) for raw in messages)


def _plain(messages: list[tuple[bytes, bool]]) -> Iterator[Step]:
    """Return what clients do on plain streams."""
    chat = b"LHTTP/1.0 chat"
    for raw, _ in messages[:: 3 * _SHARE]:
        yield Step("tcp", raw)
    yield Step("tcp", _message(chat, b"subscribe:room.a room.b", b"receipt:r"))
    yield Step("tcp", _message(chat, b"publish:viewed", body=b"hello"))
    yield Step("tcp", _message(b"LHTTP/1.0 login", b"token:open sesame"))
    yield Step("stream", _framed([raw for raw, _ in messages[:: 2 * _SHARE]]))
    for raw in seeds("stream")[::40]:
        yield Step("stream", raw[1:])
    yield Step("stream", b"0\n" * 500)
    yield Step("stream", b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    yield Step("shut")


def _sessions(messages: list[tuple[bytes, bool]]) -> Iterator[Step]:
    """Return what clients do without WebSocket."""
    chat, log_in = b"LHTTP/1.0 chat", b"Authorization: Bearer open sesame"
    subscribing = _message(chat, b"subscribe:room.9 viewed", b"receipt:r")
    some = [raw for raw, _ in messages[:: 4 * _SHARE]]
    for target in (b"/connect", b"/connect?protocol=lhttp.json&a=b", b"/connect?protocol=x"):
        yield Step("http", _request(target, b"POST"))
        yield Step("http", _request(target, b"POST", subscribing, log_in))
    for body in (subscribing, _framed(some), _message(chat, b"publish:viewed", body=b"hello"), b"5\nhello", b"x"):
        yield Step("http", _request(b"/send", b"POST", body, _KNOWN))
        yield Step("http", _request(b"/send?number=1&after=0", b"POST", body, _KNOWN))
    for found in (encode_json(subscribing), b'[{"COMMAND":"chat"},{"COMMAND":"echo"}]'):
        yield Step("http", _request(b"/send", b"POST", found, _KNOWN, b"Content-Type: application/json"), client=3)
    yield Step("http", _request(b"/send", b"POST", some[0], b"Authorization: Bearer x"))
    for query in (b"", b"?poll=1", b"?poll=1&wait=0&after=1", b"?after=3"):
        yield Step("http", _request(b"/connect" + query, b"GET", b"", _KNOWN))
    yield Step("http", _request(b"/connect", b"GET", b"", _KNOWN, b"Last-Event-ID: 1"), client=3)
    yield Step("http", _request(b"/connect", b"DELETE", b"", _KNOWN))
    yield Step("http", _request(b"/connect", b"OPTIONS", b"", b"Origin: http://localhost"))


def _calls() -> Iterator[Step]:
    """Return what comes to the admin side, with a key and without."""
    message = b'"command":"chat","headers":{"a":"b"},"body":"hello"'
    calls = (
        (b"publish", b'{"channel":"viewed",' + message + b"}"),
        (b"publish", b'{"channel":"ordinary","command":"c","body_base64":"/wA=","store":false}'),
        (b"broadcast", b'{"channels":["ordinary","viewed"],' + message + b"}"),
        (
            b"batch",
            b'{"calls":[{"method":"presence_stats"},{"method":"publish","params":{"channel":"viewed","command":"c"}}]}',
        ),
        (b"subscribe", b'{"user":"somebody","channels":["room.a"]}'),
        (b"history", b'{"channel":"kept.full","limit":20}'),
        (b"history", b'{"channel":"kept.full","since":"e-1400"}'),
        (b"presence_stats", b'{"channel":"room.crowd"}'),
    )
    for method, body in calls:
        request = _request(b"/api/" + method, b"POST", body, b"Content-Type: application/json")
        yield Step("admin", request)
        yield Step("admin", request.replace(b"\r\n", b"\r\n" + _KEY + b"\r\n", 1))
        yield Step("admin", request.replace(b"\r\n", b"\r\n" + _KEY + b"\r\nIdempotency-Key: k{n}\r\n", 1))
    for path in (b"/live", b"/metrics", b"/api/openapi.json", b"/nothing"):
        yield Step("admin", _request(path))
        yield Step("admin", _request(path, b"GET", b"", _KEY))


def _histories() -> Iterator[Step]:
    """Return what clients do with histories."""
    chat, ask = b"LHTTP/1.0 chat", b"LHTTP/1.0 history"
    messages = [
        _message(chat, b"subscribe:kept.full", b"receipt:r"),
        _message(chat, b"subscribe:kept.full", b"since:e-1400", b"receipt:r"),
        _message(chat, b"subscribe:kept.a kept.large", b"since:kept.a=e-0 kept.large=e-1400", b"gaps:tell"),
        _message(chat, b"subscribe:kept.few.a kept.full ordinary", b"since:x-7", b"receipt:r", b"gaps:tell"),
        _message(chat, b"subscribe:kept.few.a", b"last:10", b"receipt:r"),
        _message(chat, b"subscribe:kept.*", b"gaps:tell"),
        _message(chat, b"subscribe:$presence.kept.a"),
        _message(chat, b"unsubscribe:kept.full"),
        _message(chat, b"publish:kept.a", body=b"hello"),
        _message(chat, b"publish:kept.a kept.b ordinary", b"message-id:m{n}", b"receipt:r{n}", body=b"hello"),
        _message(chat, b"publish:ordinary", b"message-id:m{n}", b"receipt:r{n}", body=b"hello"),
        _message(chat, b"publish:kept.few.a", b"offset:1", b"after:0", b"store:no", body=b"hello"),
        _message(ask, b"channel:kept.full", b"limit:20"),
        _message(ask, b"channel:kept.full", b"since:e-1400", b"receipt:r"),
        _message(ask, b"channel:kept.large", b"order:newest", b"limit:2"),
        _message(ask, b"channel:kept.full", b"before:e-1400", b"limit:20"),
    ]
    for raw in messages:
        yield Step("text", raw)
    for raw in messages[1:4]:
        yield Step("tcp", raw)
        yield Step("http", _request(b"/send", b"POST", raw, _KNOWN))
        yield Step("http", _request(b"/send", b"POST", encode_json(raw), _KNOWN, b"Content-Type: application/json"), 3)
    yield Step("http", _request(b"/publish", b"POST", messages[9]))
    for query in (b"kept.full&since=e-1400", b"kept.a&channel=kept.large&last=3", b"kept.full&channel=kept.few.a"):
        yield Step("http", _request(b"/events?channel=" + query))
    yield Step("http", _request(b"/events?channel=kept.a+kept.b", b"GET", b"", b"Last-Event-ID: kept.a=e-5 kept.b=e-9"))


def change(script: Script, others: Callable[[], Script], random: Random) -> Script:
    """Return *script* with one to four things changed; *others* returns another script that proved dear."""
    steps, closed, history = list(script.steps), script.closed, script.history
    for _ in range(random.choice((1, 1, 2, 2, 3, 4))):
        what = random.randrange(12)
        index = random.randrange(len(steps))
        if what == 0 and len(steps) > 1:
            del steps[index]
        elif what == 1:
            steps[index:index] = random.choice(([steps[index]], others().steps))
        elif what == 2:
            steps.append(
                Step(random.choice(("stall", "time", "end", "shut")), client=random.randrange(CLIENTS), times=5)
            )
        elif what == 3:
            steps[index] = replace(steps[index], times=random.choice(_TIMES))
        elif what == 4:
            steps[index] = replace(steps[index], client=random.randrange(CLIENTS), width=random.choice(_WIDTHS))
        elif what == 5 and not random.randrange(4):
            steps[index] = replace(steps[index], kind=random.choice(KINDS[:11]))
        elif what == 6 and not random.randrange(4):
            closed = not closed
        elif what == 6 and not random.randrange(3):
            history = random.choice(HISTORIES)
        else:
            steps[index] = replace(steps[index], payload=_change_payload(steps[index], others, random))
    return Script(_bounded(steps, _MAX_ASKED if history else _MAX_UNITS), closed, history)


def _bounded(steps: list[Step], max_units: int) -> tuple[Step, ...]:
    sent = units = opened = 0
    taken = []
    for step in steps[:_MAX_STEPS]:
        payload = step.payload[:_MAX_PAYLOAD]
        most = min(
            (_MAX_SENT - sent) // (len(payload) + 30),
            (max_units - units) // replace(step, payload=payload).pieces,
            _MAX_OPEN - opened if step.kind == "open" else max_units,
        )
        if most < 1:
            continue
        bounded = replace(step, payload=payload, times=min(step.times, most))
        sent += bounded.times * (len(payload) + 30)
        units += bounded.times * bounded.pieces
        opened += bounded.times if step.kind == "open" else 0
        taken.append(bounded)
    return tuple(taken) or (Step("text"),)


def _change_payload(step: Step, others: Callable[[], Script], random: Random) -> bytes:
    data = step.payload
    start = random.randrange(len(data) + 1)
    end = min(len(data), start + random.choice((0, 1, 2, 4, 8, 30)))
    what = random.randrange(9)
    if what == 0:
        return data[:start] + random.choice(_PIECES) + data[end:]
    if what == 1:
        return data[:start] + random.randbytes(random.choice((1, 2, 4))) + data[end:]
    if what == 2:
        return data[:start] + data[end:]
    if what == 3:  # something again and again
        repeated = data[start:end] or random.choice(_PIECES)
        count = random.choice(_SIZES) // len(repeated) if random.randrange(2) else random.choice((2, 4, 16, 64, 128))
        return data[:start] + repeated * count + data[end:]
    if what == 4:  # a line again, or another one
        lines = data.split(b"\r\n")
        index = random.randrange(len(lines))
        line = random.choice((lines[index], random.choice(_PIECES)))
        lines[index:index] = [line] * random.choice((1, 1, 3, 30, 60, 400))
        return b"\r\n".join(lines)
    if what in (5, 6):  # names in a list
        return _change_names(data, random)
    if what == 7:
        other = random.choice(others().steps).payload
        return data[:start] + other[random.randrange(len(other) + 1) :]
    head, blank, body = data.partition(b"\r\n\r\n")
    return (
        head
        + (blank or b"\r\n\r\n")
        + random.choice((b"x", b"\r", b" ", b"\xc3\xa9", body[:9] or b"y")) * (random.choice(_SIZES) // 2)
    )


def _change_names(data: bytes, random: Random) -> bytes:
    """Put another list of names, parameters or values in the place of that of one line."""
    lines = data.split(b"\r\n")
    places = [index for index, line in enumerate(lines) if b":" in line or b"?" in line] or [0]
    index = random.choice(places)
    mark = b":" if b":" in lines[index] else b"?"
    name, _, value = lines[index].partition(mark)
    blank = random.choice((b" ", b" ", b" ", b"&", b", ", b"; "))
    names = value.split(blank)
    what = random.randrange(5)
    if what == 0:  # one more token
        at = random.randrange(len(names))
        names[at] += b"." + random.choice(_TOKENS)
    elif what == 1:  # many tokens
        at = random.randrange(len(names))
        token = random.choice(_TOKENS)
        names[at] += (b"." + token) * random.choice((2, 8, 30, 100))
    elif what == 2:  # many names
        count = random.choice((2, 16, 100, 128, 500, 2_000))
        seed = random.choice(names)[:40]
        names += [b"%s%s%x" % (seed, random.choice((b"", b".", NUMBER)), number) for number in range(count)]
    elif what == 3:  # names that differ in a token, of a few kinds
        count = random.choice((4, 16, 64, 128))
        length = random.choice((2, 8, 30, 100))
        kinds = random.sample(_TOKENS, 2)
        begin = random.choice(names).partition(b".")[0][:20]
        names = [
            b".".join([begin, *(random.choice(kinds) for _ in range(length)), random.choice((b"x", b"{n}"))])
            for _ in range(count)
        ]
    else:
        names = [random.choice((b"room.crowd", b"room.>", b"rated." + NUMBER, NUMBER, b"$presence.room.crowd"))]
    lines[index] = name + mark + blank.join(names)
    return b"\r\n".join(lines)
