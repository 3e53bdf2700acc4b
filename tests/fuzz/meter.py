"""
What a script costs: lines that Python executes, seconds of the processor, and memory held.

Each script is played in a fork of a process whose world is made already, so one cannot change what the next one costs.
Lines are counted by a trace function: they are the same each time, but what is written in C counts as one line,
however long it takes. So seconds are told too, though only where there are many of them; they are a hint, and no
bound, for they depend on the machine and on what else it does.

The measure of all is an ordinary publication with one subscriber. A message, a frame, a request or a handshake is a
*unit*; its *price* is what it costs, divided by what an ordinary publication of its size costs. Each fragment of a
message, each chunk of a body and each read is a unit: small publications are as many. So is the handshake of a client
that has no WebSocket yet when a step needs one.

A message may list many channels, and one that asks for a history may be answered with much. What is taken off for that:

* For each subscription that is made, three quarters of what the smallest publication costs, and a half for each that
  ends. Its channel gets a place in the hub and in the bus, and its client in the presence, or they lose it; with
  presence, this takes about as many lines. A connection has 128 of them at most, so it ends with 128 at most. Nothing
  is taken off for a subscription that was there before, or was refused.
* For each question that a history has answered, what the smallest publication costs; twice if its answer came later.
  It is one for each channel of a list, and one for each page of 131,072 bytes.
* For what is handed over of a history as JSON, as Protocol Buffers, as events, compressed or in an answer of the admin
  side, what the smallest publication costs for each :data:`~fuzz.world.PAID` bytes: three small messages, or a part of
  a large one. For a client that takes messages as they are, nothing.

The last one is no bound on what one message may ask for: whoever asks for a history of a million messages gets a
million. It is the work of writing what the client itself must take, and the server bounds it in other ways. Nothing
more is read for a client while 131,072 bytes wait for it. All clients together get about 131,072 bytes in one turn of
the reactor, where each message counts 256 bytes more than it has, and far more where it is compressed or written in
another form, so others wait for no more than that. And each client has an account of 8 MiB a second: whoever asks for
more waits, and nobody else does (see :mod:`lhttp_tx.history.turns`). ``python -m fuzz.cost --figures`` tells what a
message costs in each form: less than an ordinary publication.

That others wait for no more is measured, too: in one *turn* of the reactor a unit may cost no more than its price, and
there nothing is taken off for what is handed over. So whatever is written of a history in one go has a bound. What is
taken off for questions falls into the turns in which they are asked, so a quarter is taken off for each channel whose
recovery begins.

Each call of a batch counts as a request of its own, as far as the body has 32 bytes for each: so many has the smallest
message on a WebSocket. Each of them is made in another turn of the reactor.
"""

from __future__ import annotations

import gc
import os
import pickle
import signal
import sys
import time
import tracemalloc
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from types import CodeType, FrameType
from typing import Any, TypeVar

from fuzz.world import CROWD, FEW, HISTORIES, SECRET, Script, Step, World, handshake

__all__ = ["HELD", "LEFT", "PRICE", "Cost", "Meter", "count_lines"]

PRICE = 50.0
"""Ordinary publications of its size that a unit may cost."""

HELD = 2_359_296
"""Bytes that one connection may hold: 2.25 MiB, what the production how-to gives."""

LEFT, LEFT_SHARE = 2**20, 8
"""
Bytes that may be left when all have gone, and how many for each that was sent. The caches that count their bytes do not
count here.
"""

_FEW_SECONDS = 0.05
"""Seconds of one step from which on they say something: a fork is slow at first."""

_OURS = ("fuzz/world", "internet/task.py:Clock", "internet/base.py:DelayedCall.getTime")
"""What the clients do, and the clock, which sorts its calls each time; neither is the server's."""

_WITHOUT_BYTES = ("time", "end", "stall", "shut")
"""Steps in which nothing is sent: what they cost counts with all the others."""

_LIMIT = 60.0
"""Seconds of the processor that what is played in a fork may take: far more than it does, for what has no end."""


def _request(method: bytes, body: bytes) -> bytes:
    return (
        b"POST /api/%b HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %b\r\n"
        b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (method, SECRET, len(body), body)
    )


_USUAL = (
    Step("open", b"/a%20b?c=%20\r\nOrigin: http://localhost\r\nSec-WebSocket-Extensions: permessage-deflate"),
    Step("http", b"GET / HTTP/1.1\r\nHost: localhost\r\nCookie: a=b\r\nConnection: keep-alive\r\n\r\n"),
    Step("http", b"POST /publish HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nx"),
    Step("admin", _request(b"subscribe", b'{"user":"nobody","channels":["room.a"]}')),
    Step("http", b"GET /connect?poll=1&wait=0 HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {session}\r\n\r\n"),
    Step("tcp", b"LHTTP/1.0 echo\r\n\r\n"),
)
"""What clients have done before the first script: tables that a process makes once are no client's cost."""

_IDLE = 100
"""Seconds for which a server is looked at to which nobody comes."""

_OPENING = handshake()
_SIZES = (40, 125, 500, 2_000, 8_000, 65_000)
_ENOUGH = 0.1
"""Seconds for which ordinary publications are measured."""

Result = TypeVar("Result")


@dataclass
class Cost:
    """
    What a script costs.

    :ivar price: that of the dearest step, in lines.
    :ivar function: where most of these lines are.
    :ivar turn_price: that of the dearest turn of the reactor in a step, in lines.
    :ivar turning: the number of that step.
    :ivar whole_price: that of all steps and the end of all connections, in lines, for what was sent in all.
    :ivar whole_function: where most of these lines are.
    :ivar seconds_price: that of the dearest step in seconds; 0 if these are too few to tell.
    :ivar held: bytes of memory that were held at most, for each connection that was open, without what the server
        keeps for all of them: see :attr:`fuzz.world.World.kept`.
    :ivar left: bytes that were left when all had gone, without that.
    :ivar sent: bytes that the clients sent.
    :ivar dearest: the number of the dearest step; that after which most was held.
    :ivar fattest: the number of the step after which most was held.
    :ivar failure: what went wrong, if something did: an exception that nobody caught, or no end in sight.
    """

    price: float = 0.0
    function: str = ""
    turn_price: float = 0.0
    turning: int = 0
    whole_price: float = 0.0
    whole_function: str = ""
    seconds_price: float = 0.0
    held: int = 0
    left: int = 0
    sent: int = 0
    dearest: int = 0
    fattest: int = 0
    failure: str = ""

    def excesses(self) -> list[str]:
        """Return what passes its bound."""
        found = {
            "lines": self.price > PRICE,
            "turn": self.turn_price > PRICE,
            "all": self.whole_price > PRICE >= self.price,
            "held": self.held > HELD,
            "left": self.left > LEFT + LEFT_SHARE * self.sent,
            "failure": bool(self.failure),
        }
        return [name for name, passes in found.items() if passes]

    def __str__(self) -> str:
        return (
            f"a unit costs {self.price:.1f} ordinary ones ({self.function}), in a turn "
            f"{self.turn_price:.1f}, all together {self.whole_price:.1f} "
            f"({self.whole_function}), in seconds {self.seconds_price:.1f}; held {self.held / 1024:.0f} KiB a "
            f"connection, left {self.left / 1024:.0f} KiB, sent {self.sent / 1024:.0f} KiB"
            + (f"; failed: {self.failure}" if self.failure else "")
        )


@dataclass
class _Counting:
    """What was counted in one play."""

    steps: list[Counter[str]] = field(default_factory=list)
    turns: list[float] = field(default_factory=list)
    end: Counter[str] = field(default_factory=Counter)
    held: list[int] = field(default_factory=list)
    connections: list[int] = field(default_factory=list)
    opened: list[Counter[str]] = field(default_factory=list)
    counted: list[float] = field(default_factory=list)
    ended: float = 0.0
    left: int = 0


class Meter:
    """Measures scripts."""

    def __init__(self) -> None:
        self._lines: list[float] = []
        self._worlds = {(True, ""): World(closed=True)}
        for history in HISTORIES:
            self._worlds[False, history] = World(history=history, crowd=FEW if history else CROWD)
        play = Script((*_USUAL, *(_ordinary(size) for size in _SIZES)))
        for world in self._worlds.values():
            for step in play.steps:
                world.play(step, step.data())
            world.end()
        gc.collect()
        gc.freeze()
        self._idle = {place: self._idle_lines(world) for place, world in self._worlds.items()}
        ones = Script(tuple(_ordinary(size) for size in _SIZES for _ in range(2)))
        self._lines = [float(counted.total()) for counted in self._counted(ones).steps[1::2]]
        self._seconds = [self._usual_seconds(size) for size in _SIZES]

    def __str__(self) -> str:
        told = zip(_SIZES, self._lines, self._seconds, strict=True)
        return "; ".join(f"{size} bytes: {lines:.0f} lines, {1e6 * took:.0f} us" for size, lines, took in told)

    def _idle_lines(self, world: World) -> float:
        """Return the lines that a server executes in a second while nobody does anything: these are no client's."""
        step = Step("time", times=_IDLE)
        return _in_fork(lambda: _lines(lambda: world.play(step, [])).total()) / _IDLE

    def _usual_seconds(self, size: int) -> float:
        """Return the seconds that an ordinary publication takes; clocks of processors may be coarse."""
        world, step = self._worlds[False, ""], _ordinary(size)
        units = step.data()

        def play() -> float:
            count, begin = 0, time.process_time()
            while time.process_time() < begin + _ENOUGH:
                for _ in range(20):
                    world.play(step, units)
                count += 20
            return (time.process_time() - begin) / count

        return _in_fork(play)

    def measure(self, script: Script) -> Cost:
        """Return what *script* costs."""
        try:
            times, counting = self._timed(script), self._counted(script)
            cost = self._judge(script, counting, times)
        except _Failed as failed:
            return Cost(failure=str(failed))
        if cost.seconds_price > PRICE:  # the machine may have been busy with something else
            plays = zip(times, *(self._timed(script) for _ in range(4)), strict=True)
            cost.seconds_price = self._seconds_price(script, counting, [min(found) for found in plays])
        return cost

    def survey(self, scripts: Sequence[Script]) -> list[Cost]:
        """Return about what *scripts* cost, played one after the other in one world; it is quick."""

        def play() -> list[tuple[_Counting, list[float]]]:
            return [self._count(script) for script in scripts]

        try:
            found = _in_fork(play)
        except _Failed:
            return [self.measure(script) for script in scripts]
        # A trace function makes Python's own work ten times as slow, and what is written in C not at all.
        judged = zip(scripts, found, strict=True)
        return [self._judge(script, counting, [took / 10 for took in times]) for script, (counting, times) in judged]

    def _judge(self, script: Script, counting: _Counting, times: list[float]) -> Cost:
        cost = Cost(sent=sum(len(unit) for step in script.steps for unit in step.units()), left=max(0, counting.left))
        cost.sent += sum(map(bool, counting.opened)) * len(_OPENING)
        whole = sum(counting.steps, start=Counter(counting.end))
        all_allowed = 0.0
        plays = zip(script.steps, counting.steps, counting.opened, counting.counted, strict=True)
        for number, (step, counted, opened, further) in enumerate(plays):
            if opened:
                all_allowed += _at(len(_OPENING), self._lines)
                whole += opened
            if step.kind not in _WITHOUT_BYTES:
                allowed = self._allowed(step, self._lines)
                all_allowed += allowed
                if counting.turns[number] / allowed > cost.turn_price:
                    cost.turn_price, cost.turning = counting.turns[number] / allowed, number
                price = (counted.total() - further * self._lines[0]) / allowed
                if price > cost.price:
                    cost.price, cost.dearest, cost.function = price, number, _top(counted)
        idle = self._idle[script.world] * sum(step.times for step in script.steps if step.kind == "time")
        lines = max(0.0, whole.total() - idle - (sum(counting.counted) + counting.ended) * self._lines[0])
        cost.whole_price, cost.whole_function = lines / max(all_allowed, self._lines[0]), _top(whole)
        cost.seconds_price = self._seconds_price(script, counting, times)
        each = [held / max(1, count) for held, count in zip(counting.held, counting.connections, strict=True)]
        cost.held = max(0, int(max(each, default=0)))
        cost.fattest = each.index(max(each)) if each else 0
        return cost

    def _allowed(self, step: Step, figures: list[float]) -> float:
        """Return what ordinary publications cost that are as many and as large as what *step* sends."""
        sizes = [len(unit) for unit in step.units()]
        count = step.pieces * max(1, len(sizes))
        return count * _at(sum(sizes) / count, figures)

    def _seconds_price(self, script: Script, counting: _Counting, times: list[float]) -> float:
        dear = zip(script.steps, times, counting.counted, strict=True)
        prices = (
            (took - further * self._seconds[0]) / self._allowed(step, self._seconds)
            for step, took, further in dear
            if took > _FEW_SECONDS and step.kind not in _WITHOUT_BYTES
        )
        return max(prices, default=0.0)

    def holders(self, script: Script, count: int = 5) -> list[str]:
        """Return the lines that have allocated most of what is held when *script* is played, with their bytes."""
        world = self._worlds[script.world]
        units = [step.data() for step in script.steps]

        def play() -> list[str]:
            tracemalloc.start(4)
            for step, found in zip(script.steps, units, strict=True):
                world.play(step, found)
            gc.collect()
            taken = tracemalloc.take_snapshot().statistics("traceback")[:count]
            return [f"{found.size} bytes: " + " < ".join(_frames(found.traceback)) for found in taken]

        return _in_fork(play)

    def _timed(self, script: Script) -> list[float]:
        """Return the seconds of the processor that each step takes."""
        world = self._worlds[script.world]
        units = [step.data() for step in script.steps]

        def play() -> list[float]:
            times = []
            for step, found in zip(script.steps, units, strict=True):
                begin = time.process_time()
                world.play(step, found)
                times.append(time.process_time() - begin)
            return times

        return _in_fork(play)

    def _counted(self, script: Script) -> _Counting:
        """Return the lines that each step takes, and the memory."""
        return _in_fork(lambda: self._count(script)[0])

    def _count(self, script: Script) -> tuple[_Counting, list[float]]:
        world = self._worlds[script.world]
        units = [step.data() for step in script.steps]
        counting = _Counting()
        times = []
        gc.disable()
        tracemalloc.start()
        begin = tracemalloc.get_traced_memory()[0] - world.kept
        for step, found in zip(script.steps, units, strict=True):
            opening = partial(world.supply, step) if world.lacks(step) else None
            counting.opened.append(Counter() if opening is None else _lines(opening))
            began = time.process_time()
            before = world.counted
            turns = _Turns(world, self._lines[0] if self._lines else 0.0)
            counting.steps.append(_lines(lambda step=step, found=found: world.play(step, found), turns))
            counting.turns.append(turns.most)
            counting.counted.append(world.counted - before)
            times.append(time.process_time() - began)
            if tracemalloc.get_traced_memory()[0] - begin > HELD // 4:
                gc.collect()
            counting.held.append(tracemalloc.get_traced_memory()[0] - begin - world.kept)
            counting.connections.append(world.connections)
        before = world.counted
        counting.end = _lines(world.end)
        counting.ended = world.counted - before
        gc.collect()
        counting.left = tracemalloc.get_traced_memory()[0] - begin - world.kept
        tracemalloc.stop()
        return counting, times


def _ordinary(size: int, times: int = 1) -> Step:
    head = b"LHTTP/1.0 chat\r\npublish:ordinary\r\n\r\n"
    return Step("text", head + b"x" * max(0, size - len(head) - 8), times=times)


def _at(size: float, figures: list[float]) -> float:
    """Return the figure for a size between two sizes; for smaller and larger ones that of the nearest."""
    for index in range(1, len(_SIZES)):
        small, large = _SIZES[index - 1], _SIZES[index]
        if size <= large:
            share = max(0.0, size - small) / (large - small)
            return figures[index - 1] + share * (figures[index] - figures[index - 1])
    return figures[-1] * max(1.0, size / _SIZES[-1])


class _Turns:
    """
    What is done in each turn of the reactor.

    :ivar most: lines of the dearest one.
    """

    def __init__(self, world: World, each: float) -> None:
        """:param each: lines of the smallest publication: for each one that clients have done, they are taken off."""
        self.most = 0.0
        self._world = world
        self._each = each
        self._before = 0.0
        self._servers: dict[CodeType, bool] = {}

    def watch(self, counts: dict[CodeType, int]) -> None:
        """Begin to look at *counts*, the lines by code."""
        self._before = -self._each * (self._world.counted_here + self._world.begun)
        self._world.on_turn = lambda: self._look(counts)

    def end(self, counts: dict[CodeType, int]) -> None:
        """Look for the last time."""
        self._look(counts)
        self._world.on_turn = lambda: None

    def _look(self, counts: dict[CodeType, int]) -> None:
        found = -self._each * (self._world.counted_here + self._world.begun)
        for code, count in [*counts.items()]:
            if code not in self._servers:
                self._servers[code] = _is_counted(code)
            found += count if self._servers[code] else 0
        self.most = max(self.most, found - self._before)
        self._before = found


def _is_counted(code: CodeType) -> bool:
    return code.co_filename != __file__ and not _name(code).startswith(_OURS)


def _name(code: CodeType) -> str:
    return f"{_short(code.co_filename)}:{code.co_qualname}"


def _lines(call: Callable[[], object], turns: _Turns | None = None) -> Counter[str]:
    """
    Return the lines that *call* executes, by function.

    :param turns: is told of each turn of the reactor.
    """
    counts: dict[CodeType, int] = defaultdict(int)

    def local(frame: FrameType, event: str, argument: Any) -> Any:
        if event == "line":
            counts[frame.f_code] += 1
        return local

    if turns is not None:
        turns.watch(counts)
    sys.settrace(lambda frame, event, argument: local)
    try:
        call()
    finally:
        sys.settrace(None)
    if turns is not None:
        turns.end(counts)
    found: Counter[str] = Counter()
    for code, count in counts.items():
        if _is_counted(code):
            found[_name(code)] += count
    return found


def count_lines(call: Callable[[], object]) -> int:
    """Return how many lines *call* executes, without those of the clients."""
    return _lines(call).total()


def _short(path: str) -> str:
    return "/".join(path.rsplit("/", 2)[-2:])


def _frames(traceback: Any) -> list[str]:
    return [f"{_short(frame.filename)}:{frame.lineno}" for frame in reversed(traceback)]


def _top(counted: Counter[str]) -> str:
    return counted.most_common(1)[0][0] if counted else ""


class _Failed(Exception):
    """What was played has failed."""


def _in_fork(play: Callable[[], Result]) -> Result:
    """Return what *play* returns in a copy of this process."""
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        status = 1
        try:
            os.close(reading)
            signal.setitimer(signal.ITIMER_PROF, _LIMIT)
            with os.fdopen(writing, "wb") as stream:
                try:
                    outcome: tuple[bool, object] = (True, play())
                except BaseException as error:
                    outcome = (False, f"{type(error).__name__}: {error}")
                pickle.dump(outcome, stream)
            status = 0
        finally:
            os._exit(status)
    os.close(writing)
    with os.fdopen(reading, "rb") as stream:
        told = stream.read()
    _, status = os.waitpid(pid, 0)
    if status or not told:
        raise _Failed(
            f"it did not end within {_LIMIT:g} seconds of the processor"
            if os.WIFSIGNALED(status)
            else "it ended the process"
        )
    passed, outcome = pickle.loads(told)
    if not passed:
        raise _Failed(str(outcome))
    result: Result = outcome
    return result
