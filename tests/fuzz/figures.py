"""
What a message of a history costs in each form: the figures behind the allowances of :mod:`fuzz.meter`.

    python -m fuzz.cost --figures

A client asks for most of a history of a thousand small messages, from another position each time, so that nothing was
made for another one. Beside it stands what an ordinary publication costs with one subscriber. The least of some times
counts: a machine may be busy.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from fuzz.world import EPOCH, FEW, SECRET, Step, World
from lhttp_tx.codec.json_view import encode_json
from lhttp_tx.codec.protobuf_view import encode_protobuf

__all__ = ["figures"]

_TIMES = 9
_ORDINARY = Step("text", b"LHTTP/1.0 chat\r\npublish:ordinary\r\n\r\nhello")
_STEP = 5
"""Offsets by which two positions differ."""

Lines = Callable[[Callable[[], object]], int]


def _message(position: int) -> bytes:
    return b"LHTTP/1.0 chat\r\nsubscribe:kept.full\r\nsince:%b-%d\r\n\r\n" % (EPOCH.encode("ascii"), position)


def _request(target: bytes, method: bytes = b"GET", body: bytes = b"") -> bytes:
    return (
        b"%b %b HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %b\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n%b" % (method, target, SECRET, len(body), body)
    )


def _forms() -> dict[str, Callable[[int], Step]]:
    return {
        "as it is": lambda at: Step("text", _message(at)),
        "permessage-deflate": lambda at: Step("text", _message(at), client=1),
        "gzip": lambda at: Step("text", _message(at), client=2),
        "JSON": lambda at: Step("text", encode_json(_message(at)), client=3),
        "Protocol Buffers": lambda at: Step("binary", encode_protobuf(_message(at)), client=4),
        "events of JSON": lambda at: Step("http", _request(b"/events?channel=kept.full&since=e-%d" % at)),
        "events of bodies": lambda at: Step("http", _request(b"/events?data=body&channel=kept.full&since=e-%d" % at)),
        "admin side": lambda at: Step(
            "admin", _request(b"/api/history", b"POST", b'{"channel":"kept.full","since":"e-%d","limit":500}' % at)
        ),
    }


def figures(lines: Lines) -> Iterator[str]:
    """
    Return a line for each form.

    :param lines: counts the lines of Python that a call executes.
    """
    world = World(history="memory", crowd=FEW)
    ordinary, counted = min(_least(world, lambda _: _ORDINARY, lines)[:2] for _ in range(50))
    yield f"{'an ordinary publication':24} {1e6 * ordinary:6.2f} us {counted:7.1f} lines"
    for name, make in _forms().items():
        seconds, counted, messages = _least(world, make, lines)
        each, one = seconds / messages, counted / messages
        yield (
            f"{name:24} {1e6 * each:6.2f} us {one:7.1f} lines for each of {messages} messages: {each / ordinary:.2f} "
            f"ordinary ones in time"
        )


def _least(world: World, make: Callable[[int], Step], lines: Lines) -> tuple[float, float, int]:
    """Return seconds and lines of a step at least, and how many messages were handed over."""
    found, handed, counted = [], 1, 0
    for number in range(_TIMES + 1):
        step = make(1_100 + _STEP * number)
        units = step.data()
        world.clock.pump([1.0] * 3)
        before = world.handed
        if number == _TIMES:
            counted = lines(lambda step=step, units=units: world.play(step, units))
        else:
            begin = time.perf_counter()
            world.play(step, units)
            found.append(time.perf_counter() - begin)
        handed = max(1, world.handed - before)
    return min(found), counted, handed
