"""Scripts that were dear once, or held much; each must stay within the bounds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from random import Random

from fuzz.world import HISTORIES, Script, Step, handshake

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


HOSTILE: dict[str, Script] = {
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
