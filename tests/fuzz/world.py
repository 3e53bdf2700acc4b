"""
A whole server in one process, without sockets, and what clients do to it: for the fuzzer that looks for cost.

A :class:`World` is the real service, listening at an endpoint in memory, with rules, presence, a crowd and both kinds
of compression. A :class:`Script` is what a few clients do, one :class:`Step` after the other; it is a value that can be
written down. The clock stands still, but for steps that let time pass.
"""

from __future__ import annotations

import gzip
import json
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, cast

import txaio
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IListeningPort, IPushProducer, IStreamServerEndpoint, ITransport
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface import implementer

from lhttp_tx.auth import Authenticator
from lhttp_tx.bus.memory import MemoryBus
from lhttp_tx.codec.cache import Generations
from lhttp_tx.codec.json_view import encode_json
from lhttp_tx.codec.protobuf_view import encode_protobuf
from lhttp_tx.config import Config
from lhttp_tx.engine.delivery import Delivery
from lhttp_tx.engine.engine import Engine
from lhttp_tx.engine.processors import processor
from lhttp_tx.engine.request import Request
from lhttp_tx.engine.session import Session
from lhttp_tx.engine.watchers import SessionWatcher
from lhttp_tx.history.archive import Archive
from lhttp_tx.history.memory import MemoryHistory
from lhttp_tx.history.turns import cost_of
from lhttp_tx.history.values import Page, Retention
from lhttp_tx.interfaces import IHistoryStore, ITransport as IConnection, MaybeDeferred
from lhttp_tx.rules.filters import RuledPublishFilter
from lhttp_tx.rules.grants import NOBODY
from lhttp_tx.rules.model import Rule, Rules
from lhttp_tx.service import LHTTPService
from lhttp_tx.web.admin.keys import AdminKey, digest_of
from lhttp_tx.web.admin.service import AdminService

__all__ = [
    "ALONE",
    "CLIENTS",
    "CROWD",
    "ENDED",
    "EPOCH",
    "FEW",
    "HISTORIES",
    "KINDS",
    "MADE",
    "NUMBER",
    "PAID",
    "SECRET",
    "SESSION",
    "STREAMS",
    "Script",
    "Step",
    "World",
    "handshake",
]

CROWD, FEW = 3_000, 50
"""Members of ``room.crowd``, and in worlds with history."""

EPOCH = "e"
"""The epoch of the positions in histories."""

HISTORIES = ("", "memory", "later")
"""What the server remembers: nothing; in memory; in a store that answers later, as those on disk and in NATS do."""

KEPT = 1_500
"""Messages of the channel ``kept.full``: more than it keeps, and small; a few of ``kept.large`` are large."""

MADE, ENDED, BEGUN = 0.75, 0.5, 0.25
"""
What a subscription that is made, or ends, counts as, and a recovery that begins; in ordinary publications. The last one
counts in its turn of the reactor only, for what it asks of the history counts in later ones.
"""

PAID = 4_096
"""
For how many bytes of histories, as :class:`~lhttp_tx.history.turns.Turns` counts them, a client that takes them
compressed or in another form may cause the work of one ordinary publication: three small messages have as many, or a
quarter of one with 60 headers.
"""

_CALL, _MESSAGE = 32, 16
"""
Bytes of a call of a batch, and of a message among others in a body or on a stream, at least, if it is to count as one
of its own: so many have the smallest messages.
"""

NUMBER = b"{n}"
"""What stands for a number in a step: another one each time."""

CLIENTS = 5
"""Clients that a script may have."""

KINDS = ("text", "binary", "gzip", "frame", "raw", "tcp", "stream", "http", "admin", "open", "stall", "time", "shut",
         "end")  # fmt: skip
ALONE = ("http", "admin")
"""Kinds of steps that come on connections of their own."""

STREAMS = ("tcp", "stream", "shut")
"""Kinds of steps that come on a plain stream."""

SESSION = b"{session}"
"""What stands for the secret of the client's session over HTTP, which is begun if it has none."""

_PIECE = 65_536
"""Bytes that one read brings in at most, as with Twisted; and what a transport holds before it asks to pause."""

_TURNS = 10_000
"""Turns of the reactor in which the server must have done what it does at once."""

_LENGTH = re.compile(rb"([0-9]{1,10})\n")
_MASK = b"\x37\xfa\x21\x3d"
_TARGETS = {
    1: b"/\r\nSec-WebSocket-Extensions: permessage-deflate",
    2: b"/?support_gzip=1",
    3: b"/\r\nSec-WebSocket-Protocol: lhttp.json",
    4: b"/\r\nSec-WebSocket-Protocol: lhttp.protobuf",
}
"""
What clients ask for when they open their WebSockets: the second one is sent compressed messages, the third gzip; the
last two speak JSON and Protocol Buffers.
"""

_CONVERTED = (3, 4)
"""The clients that get each message in another form."""

SECRET = b"a key of the admin side"
"""The secret of a key that may publish, ask for histories, and count."""

_SCOPE = frozenset({"publish", "broadcast", "batch", "subscribe", "history", "presence_stats"})
_KEY = AdminKey("fuzzer", digest_of(SECRET), _SCOPE, ("ordinary", "viewed", "kept.>", "room.>"))

_ENDED = Failure(ConnectionDone())
_HERE = IPv4Address("TCP", "127.0.0.1", 8081)


@dataclass(frozen=True)
class Step:
    """
    What one client does.

    :ivar kind: ``text``, ``binary`` and ``gzip``: a WebSocket message. ``frame``: one frame, the payload's first byte
        is its first byte. ``raw``: bytes on the WebSocket. ``tcp``: a message on the plain stream, behind its length.
        ``stream``: bytes there. ``shut``: it sends nothing more there. ``http``: bytes on a connection of its own that
        is no WebSocket. ``admin``: the same at the admin side. ``open``: another WebSocket; the payload is its target
        and further header lines. ``stall``: it reads no more. ``time``: a second passes. ``end``: its WebSocket and its
        stream end.
    :ivar payload: what is sent; :data:`NUMBER` in it is another number each time, :data:`SESSION` the secret of the
        client's session.
    :ivar client: which of the clients.
    :ivar times: how often.
    :ivar width: bytes of a fragment; 0: whole. Where there are none: bytes that a read brings in.
    """

    kind: str
    payload: bytes = b""
    client: int = 0
    times: int = 1
    width: int = 0

    def units(self) -> Iterator[bytes]:
        """Return the bytes of each time as they go over the wire."""
        for number in range(self.times):
            payload = self.payload.replace(NUMBER, b"%d" % number)
            if self.kind in ("text", "binary"):
                yield b"".join(_fragments(payload, 0x81 if self.kind == "text" else 0x82, self.width))
            elif self.kind == "gzip":
                yield b"".join(_fragments(gzip.compress(payload, 9, mtime=0), 0x82, self.width))
            elif self.kind == "frame":
                yield _frame(payload[1:], payload[0] if payload else 0x81)
            elif self.kind == "open":
                yield handshake(payload)
            elif self.kind == "tcp":
                yield b"%d\n%b" % (len(payload), payload)
            else:
                yield payload

    def data(self) -> list[bytes]:
        """Return what :meth:`World.play` sends: each time by itself where it opens a connection, else all at once."""
        return [*self.units()] if self.kind in ("open", *ALONE) else [b"".join(self.units())]

    @property
    def pieces(self) -> int:
        """How many frames, reads, requests, or chunks of a body one time has: the least that somebody must look at."""
        size = len(handshake(self.payload) if self.kind == "open" else self.payload)
        reads = 1 if not self.width else max(1, -(-size // self.width))
        if self.kind == "raw":
            return max(reads, _count_frames(self.payload))
        if self.kind == "stream":
            return max(reads, min(_count_messages(self.payload), size // _MESSAGE))
        if self.kind in ALONE:
            reads = max(reads, self.payload.count(b" HTTP/1."))
        head, _, body = self.payload.partition(b"\r\n\r\n")
        if self.kind == "admin":  # a batch has a call for each
            reads = max(reads, min(body.count(b'"method"'), len(body) // _CALL))
        if self.kind == "http" and (b"/send" in head or b"/connect" in head):
            found = max(_count_messages(body), body.count(b'{"COMMAND"'))
            reads = max(reads, min(found, len(body) // _MESSAGE))
        chunked = self.kind in ALONE and b"chunked" in head.lower()
        return max(reads, body.count(b"\r\n") // 2 if chunked else 1)


@dataclass(frozen=True)
class Script:
    """
    What a few clients do.

    :ivar closed: whether the server asks who they are.
    :ivar history: one of :data:`HISTORIES`. A server that asks who clients are has none.
    """

    steps: tuple[Step, ...]
    closed: bool = False
    history: str = ""

    @property
    def world(self) -> tuple[bool, str]:
        """The world that it is played in."""
        return self.closed, "" if self.closed else self.history

    def dump(self) -> str:
        """Return it as JSON; a byte is written as the character of its number."""
        steps = [{**asdict(step), "payload": step.payload.decode("latin-1")} for step in self.steps]
        return json.dumps({"closed": self.closed, "history": self.history, "steps": steps}, indent=1)

    @classmethod
    def load(cls, text: str) -> Script:
        """Return what was written down."""
        found = json.loads(text)
        steps = (Step(**{**step, "payload": step["payload"].encode("latin-1")}) for step in found["steps"])
        return cls(tuple(steps), found["closed"], found.get("history", ""))


def _frame(payload: bytes, first: int) -> bytes:
    size = len(payload)
    if size < 126:
        head = bytes((first, 0x80 | size))
    elif size < 65_536:
        head = bytes((first, 0xFE)) + size.to_bytes(2, "big")
    else:
        head = bytes((first, 0xFF)) + size.to_bytes(8, "big")
    key = int.from_bytes((_MASK * (size // 4 + 1))[:size], "little")
    return head + _MASK + (int.from_bytes(payload, "little") ^ key).to_bytes(size, "little")


def _count_frames(data: bytes) -> int:
    """Return how many frames there are in what a client sends, the last one whole or not."""
    count = position = 0
    while len(data) - position >= 2:
        count += 1
        size = data[position + 1] & 0x7F
        if size == 126:
            size = 2 + int.from_bytes(data[position + 2 : position + 4], "big")
        elif size == 127:
            size = 8 + int.from_bytes(data[position + 2 : position + 10], "big")
        position += size + (6 if data[position + 1] & 0x80 else 2)
    return count


def _count_messages(data: bytes) -> int:
    """Return how many messages with their lengths there are in *data*."""
    count = position = 0
    while found := _LENGTH.match(data, position):
        count += 1
        position = found.end() + int(found[1])
    return count


def _fragments(payload: bytes, first: int, width: int) -> Iterator[bytes]:
    if not width or len(payload) <= width:
        yield _frame(payload, first)
        return
    starts = range(0, len(payload), width)
    for start in starts:
        opcode = (first & 0x0F if start == 0 else 0) | (0x80 if start == starts[-1] else 0)
        yield _frame(payload[start : start + width], opcode)


def handshake(payload: bytes = b"/") -> bytes:
    """Return an opening handshake; *payload* is its target, and further header lines."""
    target, _, lines = payload.partition(b"\r\n")
    return (
        b"GET " + (target or b"/") + b" HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        + (lines.rstrip(b"\r\n") + b"\r\n" if lines else b"")
        + b"\r\n"
    )


@implementer(IPushProducer, ITransport)
class Wire:
    """
    A connection, as its transport: what was written is read at once, unless the client has stalled.

    What the server holds for a client that does not read counts as the server's; what it does not read as the client's.
    """

    def __init__(self, factory: Any) -> None:
        self.protocol: Any = None
        self.producer: Any = None
        self.streaming = False
        self.stalled = self.paused = self.lost = False
        self.disconnecting = False
        self.written = 0
        self._asked = False
        self._held = bytearray()  # Twisted joins what waits, so equal answers do not share their bytes
        self._coming: deque[tuple[bytes, int]] = deque()
        self._begun = 0  # bytes of the first of these that were read
        self.protocol = factory.buildProtocol(self.getPeer())
        self.protocol.makeConnection(self)

    # The client

    def bring(self, data: bytes, width: int = 0) -> None:
        """Let *data* arrive, *width* bytes at a time."""
        if data:
            self._coming.append((data, min(width or _PIECE, _PIECE)))
        self._pump()

    def _pump(self) -> None:
        while self._coming and not (self.paused or self.disconnecting or self.lost):
            data, width = self._coming[0]
            piece = data[self._begun : self._begun + width]
            self._begun += width
            if self._begun >= len(data):
                self._begun = 0
                self._coming.popleft()
            self.protocol.dataReceived(piece)
            self._drain()
        if self.disconnecting or self.lost:
            self._coming.clear()

    def shut(self) -> None:
        """The client sends nothing more, but goes on reading."""
        if not self.lost:
            self.protocol.readConnectionLost()
            self._drain()

    def _drain(self) -> None:
        for _ in range(1_000):
            if self.stalled or self.lost:
                return
            self._held = bytearray()
            if self.producer is None or (self.streaming and not self._asked):
                break
            self._asked = False
            self.producer.resumeProducing()
        if self.disconnecting:
            self.end()

    def end(self) -> None:
        """The connection is lost."""
        if not self.lost:
            self.lost = True
            self._coming.clear()
            self._held = bytearray()
            if self.producer is not None:
                self.producer.stopProducing()
            self.protocol.connectionLost(_ENDED)

    # The transport

    def write(self, data: bytes) -> None:
        self.written += len(data)
        if self.lost:
            return
        self._held += data
        if len(self._held) > _PIECE and self.producer is not None and self.streaming and not self._asked:
            self._asked = True
            self.producer.pauseProducing()

    def writeSequence(self, pieces: Iterable[bytes]) -> None:
        self.write(b"".join(pieces))

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        self.producer, self.streaming = producer, streaming
        if not streaming:
            producer.resumeProducing()

    def unregisterProducer(self) -> None:
        self.producer = None

    def pauseProducing(self) -> None:
        self.paused = True

    def resumeProducing(self) -> None:
        self.paused = False

    def stopProducing(self) -> None:
        self.loseConnection()

    def loseConnection(self) -> None:
        self.disconnecting = True

    def abortConnection(self) -> None:
        self.disconnecting = True
        self.end()

    def setTcpNoDelay(self, enabled: bool) -> None:
        """There is no TCP."""

    def getPeer(self) -> IPv4Address:
        return IPv4Address("TCP", "127.0.0.1", 50_000)

    def getHost(self) -> IPv4Address:
        return _HERE

    def settle(self) -> None:
        """Take what is left when the server has had its turn."""
        self._drain()
        self._pump()


@implementer(IListeningPort)
class _Port:
    def startListening(self) -> None:
        """It does."""

    def stopListening(self) -> Deferred[None]:
        return succeed(None)

    def getHost(self) -> IPv4Address:
        return _HERE


@implementer(IStreamServerEndpoint)
class _Endpoint:
    def __init__(self) -> None:
        self.factory: Any = None

    def listen(self, factory: Any) -> Deferred[Any]:
        self.factory = factory
        return succeed(_Port())


@processor("echo")
def _echo(request: Request) -> None:
    request.reply()


@processor("wait")
def _wait(request: Request) -> Deferred[None]:
    return Deferred()


class _Tokens(Authenticator):
    def authenticate(self, attempt: Any) -> Any:
        return attempt.identify("somebody") if attempt.token == "open sesame" else None


_KEEPING = [
    Rule(match="kept.few.*", history=Retention("few", messages=20, size=20_000, recovery=5)),
    Rule(match="kept.>", wildcards=True, presence=True, history=Retention("kept")),
]

_RULES = Rules(
    [
        Rule(match="secret.>", subscribe=Rule(match="x").subscribe, publish=Rule(match="x").publish, max_size=1_000),
        Rule(match="rated.>", max_rate=1.0, echo=False, wildcards=True),
        Rule(match="room.crowd", presence=True, publish=NOBODY),  # what all of them get is theirs, and not dear
        Rule(match="room.>", wildcards=True, presence=True),
        *(Rule(match=f"topic.{number}.*", max_size=60_000) for number in range(20)),
    ]
)


@implementer(IConnection)
class _Member:
    """One of the crowd: it takes what comes, and keeps nothing."""

    peer = "crowd"
    unsent = 0

    def deliver(self, delivery: Delivery) -> None:
        """Read it."""

    def send(self, payload: bytes, binary: bool) -> None:
        """Read it."""

    def call_when_drained(self, call: Callable[[], None]) -> None:
        """Nothing is ever unsent."""
        call()

    def close(self, code: int, reason: str) -> None:
        """Nobody closes it."""

    def pause_reading(self) -> None:
        """It sends nothing."""

    def resume_reading(self) -> None:
        """It sends nothing."""


class _Reactor(Clock):
    """A clock with turns as a reactor has them."""

    def turn(self) -> None:
        """Make the calls that are due, but not those that are scheduled meanwhile: they come in the next turn."""
        for call in [call for call in self.calls if call.getTime() <= self.rightNow]:
            if call.active():
                self.calls.remove(call)
                call.called = 1
                call.func(*call.args, **call.kw)


@implementer(IHistoryStore)
class _Store:
    """
    A history in memory that may answer in another turn of the reactor.

    :ivar asked: how many questions it was asked, and how many it has answered later.
    """

    def __init__(self, store: MemoryHistory, clock: Clock, *, later: bool) -> None:
        self.asked = 0
        self._store = store
        self._clock = clock
        self._is_late = later
        self._asked: list[tuple[Deferred[Any], Callable[[], Any]]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def read(self, *args: Any, **kwargs: Any) -> Page | Deferred[Page]:
        return self._ask(partial(self._store.read, *args, **kwargs))

    def newest(self, *args: Any, **kwargs: Any) -> Page | Deferred[Page]:
        return self._ask(partial(self._store.newest, *args, **kwargs))

    def confirm(self) -> MaybeDeferred:
        return self._later(self._store.confirm) if self._is_late else self._store.confirm()

    def _ask(self, call: Callable[[], Page]) -> Page | Deferred[Page]:
        self.asked += 1
        return self._later(partial(self._told, call)) if self._is_late else call()

    def _told(self, call: Callable[[], Page]) -> Page:
        self.asked += 1
        return call()

    def _later(self, call: Callable[[], Any]) -> Deferred[Any]:
        if not self._asked:
            self._clock.callLater(0, self._answer)
        result: Deferred[Any] = Deferred()
        self._asked.append((result, call))
        return result

    def _answer(self) -> None:
        asked, self._asked = self._asked, []
        for result, call in asked:
            if not result.called:
                result.callback(call())


def _caches(engine: Engine) -> list[Generations[Any, Any]]:
    """Return the caches of a server: of its plans, of what rules say, and of what wildcards match."""
    rulings = [found._rulings for found in engine.filters if isinstance(found, RuledPublishFilter)]
    bus = cast(MemoryBus, engine.hub._bus)
    return [engine._plans, *rulings, bus._wildcards._cache]


class _Subscriptions(SessionWatcher):
    """
    Counts the subscriptions that are made, and those that end.

    :ivar made: how many were made.
    :ivar ended: how many have ended.
    """

    def __init__(self) -> None:
        self.made = self.ended = 0

    def session_opened(self, session: Session) -> None:
        """It counts none; what the parent would do counts as the server's."""

    def session_closed(self, session: Session) -> None:
        """It counts none."""

    def subscribed(self, session: Session, channel: str) -> None:
        """See :class:`lhttp_tx.engine.watchers.SessionWatcher`."""
        self.made += 1

    def unsubscribed(self, session: Session, channel: str) -> None:
        """See :class:`lhttp_tx.engine.watchers.SessionWatcher`."""
        self.ended += 1


class World:
    """
    A server that runs, with its admin side, a subscriber of ``ordinary``, a crowd in ``room.crowd``, and subscribers of
    ``viewed`` in all the forms of messages.

    :ivar clients: the WebSockets that a script has opened, by their numbers.
    :ivar handed: how many messages of histories were handed over.
    :ivar on_turn: called at the end of each turn of the reactor in which a step is played.
    """

    def __init__(self, *, closed: bool = False, history: str = "", crowd: int = CROWD) -> None:
        """
        :param closed: whether it asks who clients are.
        :param history: one of :data:`HISTORIES`.
        :param crowd: members of ``room.crowd``.
        """
        self.clock = _Reactor()
        txaio.config.loop = self.clock
        self._store = MemoryHistory(self.clock)
        self._store.epoch = EPOCH
        self._asked = _Store(self._store, self.clock, later=history == "later")
        endpoint, plain = _Endpoint(), _Endpoint()
        config = Config(
            listen=("memory",),
            tcp=("plain",),
            rules=Rules([*_KEEPING, *_RULES]) if history else _RULES,
            deflate=True,
            login_timeout=10.0 if closed else 0.0,
            ping_interval=0.0,
        )
        self.service = LHTTPService(
            config,
            reactor=self.clock,
            processors=[_echo, _wait],
            authenticators=[_Tokens()] if closed else [],
            make_endpoint=lambda reactor, description: plain if description == "plain" else endpoint,
            history_store=self._asked,
        )
        self.service.startService()
        self._factory, self._stream_factory = endpoint.factory, plain.factory
        inner = _Endpoint()
        self._admin = AdminService(
            reactor=self.clock,
            parts=self.service.parts,
            listen="memory",
            keys=[_KEY],
            make_endpoint=lambda reactor, description: inner,
        )
        self._admin.startService()
        self._admin_factory = inner.factory
        self._turns = self.service.parts.histories.archive.turns
        self._spend, self._turns.spend = self._turns.spend, self._count_spent
        self._recoveries = 0
        recovery: Any = self.service.parts.histories._recovery
        self._catch, recovery._catch = recovery._catch, self._count_catch
        self._caches = _caches(self.service.engine)
        self._subscriptions = _Subscriptions()
        self.service.engine.watchers.append(self._subscriptions)
        self.clients: dict[int, Wire] = {}
        self._streams: dict[int, Wire] = {}
        self._secrets: dict[int, str] = {}
        self._log_in = b"\r\nAuthorization: Bearer open sesame" if closed else b""
        self._others: list[Wire] = []
        self.handed = self._paid = 0
        self.on_turn: Callable[[], object] = lambda: None
        self._reworks = False
        for _ in range(crowd):
            self.service.engine.open_session(_Member()).subscribe("room.crowd")
        self._readers = [*self._viewers()]
        self._readers.append(self.client(0))
        messages = [
            b"LHTTP/1.0 chat\r\nsubscribe:ordinary room.7 room.crowd.7\r\n\r\n",
            b"LHTTP/1.0 presence\r\nchannel:room.crowd\r\n\r\n",  # who comes to it pays for that
        ]
        if history:
            messages[0] = messages[0].replace(b"ordinary", b"ordinary kept.full kept.a")
        if closed:
            messages.insert(0, b"LHTTP/1.0 login\r\ntoken:open sesame\r\n\r\n")
        for message in messages:
            step = Step("text", message)
            self.play(step, step.data())
        del self.clients[0]
        if history:
            self._fill()

    def _viewers(self) -> Iterator[Wire]:
        """Return those who have subscribed to ``viewed``: in each codec, and over each transport."""
        raw = b"LHTTP/1.0 chat\r\nsubscribe:viewed\r\n\r\n"
        login = self._log_in
        for number in (3, 4):
            wire = Wire(self._factory)
            wire.bring(handshake(_TARGETS[number] + login))
            view, kind = (encode_json(raw), "text") if number == 3 else (encode_protobuf(raw), "binary")
            wire.bring(b"".join(Step(kind, view).data()))
            yield wire
        for query in (b"channel=viewed", b"channel=viewed&data=body", b"channel=viewed&channel=room.8"):
            wire = Wire(self._factory)
            wire.bring(b"GET /events?%b HTTP/1.1\r\nHost: localhost%b\r\n\r\n" % (query, login))
            yield wire
        for number in (0, 3):
            self.secret(number)
            self._post(b"/send", raw, number)
            wire = Wire(self._factory)
            get = b"GET /connect HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %b\r\n\r\n"
            wire.bring(get % self.secret(number))
            yield wire
        self._secrets.clear()
        stream = Wire(self._stream_factory)
        message = b"LHTTP/1.0 login\r\ntoken:open sesame\r\n\r\n"
        for one in (message, raw) if login else (raw,):
            stream.bring(b"%d\n%b" % (len(one), one))
        yield stream

    def _fill(self) -> None:
        """Publish to channels with history."""
        for number in range(KEPT):
            self.service.engine.publish(["kept.full"], "chat", [("n", str(number))], "hello")
            if not number % 50:
                self.service.engine.publish(["kept.large"], "chat", [], "x" * 40_000)
                self.service.engine.publish(["kept.few.a"], "chat", [], "x" * 400)
            self.service.engine.publish([f"kept.turns.{number % 2}"], "chat", [], "hello")
            if not number % 15:
                heads = [("h", f"\xe9{number}")] * 60
                self.service.engine.publish(["kept.heads"], "chat", heads, "hello")
        self._settle()

    @property
    def counted(self) -> float:
        """
        What clients have done that is no small thing by itself, as ordinary publications: what they have subscribed to
        and left, how often a history was read for them, and what was handed over of it in another form, or compressed.
        """
        return self.counted_here + self._paid / PAID

    @property
    def counted_here(self) -> float:
        """The same without what was handed over of a history."""
        return MADE * self._subscriptions.made + ENDED * self._subscriptions.ended + self._asked.asked

    @property
    def begun(self) -> float:
        """What counts as done in this turn, beside :attr:`counted_here`, for recoveries whose questions come later."""
        return BEGUN * self._recoveries

    def _count_spent(self, size: int, count: int, reader: object = None) -> None:
        """Count what is handed over of histories; in the place of :meth:`lhttp_tx.history.turns.Turns.spend`."""
        self.handed += count if size else 0
        if size and self._reworks:  # else it is read, and counts as that; or it goes out as it is
            self._paid += cost_of(size, count)
        self._spend(size, count, reader)

    def _count_catch(self, *args: Any) -> Any:
        """Count a recovery that begins; in the place of the method of :class:`lhttp_tx.history.recovery.Recovery`."""
        self._recoveries += 1
        return self._catch(*args)

    @property
    def wires(self) -> list[Wire]:
        """All connections that the script has opened and that have not ended."""
        return [*self.clients.values(), *self._streams.values(), *self._others]

    @property
    def connections(self) -> int:
        """How many connections and sessions the script has."""
        return len(self.wires) + len(self._sessions)

    @property
    def kept(self) -> int:
        """
        Bytes that the server keeps for all clients together, as it counts them: its caches, which have bounds of
        their own, and tests of what their entries take; and its history, with the ids of messages.
        """
        ids = (self._store._ids, cast(Archive, self.service.engine.hub.archive)._ids)
        return (
            sum(cache.cost for cache in self._caches)
            + sum(found._size - found._room for found in ids)
            + self._store.size
        )

    def client(self, number: int) -> Wire:
        """Return a client's WebSocket, which is opened if it is not."""
        wire = self.clients.get(number)
        if wire is None or wire.lost:
            wire = self.clients[number] = Wire(self._factory)
            wire.bring(handshake(_TARGETS.get(number, b"/")))
        return wire

    def lacks(self, step: Step) -> bool:
        """Return whether the client of *step* needs a WebSocket that it does not have; :meth:`play` would open it."""
        found = self.clients.get(step.client)
        if SESSION in step.payload and step.kind in ALONE:
            return not self._is_known(step.client)
        return step.kind not in ("time", "open", *ALONE, *STREAMS) and (found is None or found.lost)

    def supply(self, step: Step) -> None:
        """Open what the client of *step* lacks."""
        if step.kind in ALONE:
            self.secret(step.client)
        else:
            self.client(step.client)

    def stream(self, number: int) -> Wire:
        """Return a client's plain stream, which is opened if it is not."""
        wire = self._streams.get(number)
        if wire is None or wire.lost:
            wire = self._streams[number] = Wire(self._stream_factory)
        return wire

    @property
    def _sessions(self) -> Any:
        return self.service.resource.sessions

    def _is_known(self, number: int) -> bool:
        secret = self._secrets.get(number, "..")
        return secret.split(".")[1] in self._sessions._known

    def secret(self, number: int) -> bytes:
        """Return the secret of a client's session, which is begun if it is not; or none, if it is refused."""
        if not self._is_known(number):
            before = {*self._sessions._known}
            self._post(b"/connect?protocol=lhttp.json" if number in _CONVERTED else b"/connect", b"", number)
            for name in self._sessions._known.keys() - before:
                self._secrets[number] = self._sessions.secret_of(self._sessions._known[name])
        return self._secrets.get(number, "").encode("ascii")

    def _post(self, target: bytes, body: bytes, number: int) -> None:
        head = b"POST %b HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d%b\r\n\r\n"
        session = b"\r\nAuthorization: Bearer " + self.secret(number) if target == b"/send" else self._log_in
        wire = Wire(self._factory)
        wire.bring(head % (target, len(body), session) + body)
        wire.end()

    def play(self, step: Step, units: list[bytes]) -> None:
        """Let a client do something; *units* are its :meth:`Step.data`, made before anything is measured."""
        txaio.config.loop = self.clock
        self._reworks = step.kind in ALONE or step.client > 0
        if step.kind == "time":
            self.clock.pump([1.0] * step.times)
        elif step.kind in ("end", "stall"):
            for wire in (self._streams.get(step.client), self.client(step.client)):
                if wire is not None and step.kind == "end":
                    wire.end()
                elif wire is not None:
                    wire.stalled = True
        elif step.kind == "shut":
            self.stream(step.client).shut()
        elif step.kind in STREAMS:
            for unit in units:
                self.stream(step.client).bring(unit, step.width)
        elif step.kind == "open":
            for unit in units:
                wire = Wire(self._factory)
                self._others.append(wire)
                wire.bring(unit, step.width)
        elif step.kind in ALONE:
            wire = Wire(self._factory if step.kind == "http" else self._admin_factory)
            wire.stalled = step.client == 1
            self._others.append(wire)
            for unit in units:
                wire.bring(unit.replace(SESSION, self.secret(step.client)) if SESSION in unit else unit, step.width)
        else:
            wire = self.client(step.client)
            for unit in units:
                wire.bring(unit, step.width if step.kind == "raw" else 0)
        self._settle()

    def _settle(self) -> None:
        """Let the server do all that it does without any time passing, so that no other step pays for it."""
        self.on_turn()
        for _ in range(_TURNS):
            self.clock.turn()
            self.on_turn()
            for wire in self.wires:
                wire.settle()
            for wire in self._readers:
                wire.settle()
            self.clients = {number: wire for number, wire in self.clients.items() if not wire.lost}
            self._streams = {number: wire for number, wire in self._streams.items() if not wire.lost}
            self._others = [wire for wire in self._others if not wire.lost]
            if not any(call.getTime() <= self.clock.seconds() for call in self.clock.getDelayedCalls()):
                return
        raise RuntimeError("the server does not come to rest")

    def end(self) -> None:
        """All connections end, and two minutes pass."""
        for wire in self.wires:
            wire.end()
        self.clients.clear()
        self._streams.clear()
        self._others.clear()
        self._secrets.clear()
        self.clock.pump([1.0] * 5 + [5.0] * 5 + [90.0])
