"""
The nodes of a cluster: they find each other, and send each other messages.

Nodes find each other through the bus, on channels that clients cannot use. Every node sends a heartbeat every few
seconds. A node without heartbeats for some time counts as dead. On a bus within one process, a node is alone. Used by
:mod:`lhttp_tx.cluster.roster` and :mod:`lhttp_tx.cluster.control`.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

from twisted.internet.defer import Deferred, DeferredList, fail, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from lhttp_tx.cluster.clocks import Clocks
from lhttp_tx.cluster.peers import DEAD_AFTER, Peers
from lhttp_tx.cluster.pieces import in_pieces, send_pieces
from lhttp_tx.cluster.questions import Answer, Questions
from lhttp_tx.errors import BusUnavailable, MessageTooLarge
from lhttp_tx.interfaces import IBus

__all__ = ["DEAD_AFTER", "HELLO_INTERVAL", "Answer", "Nodes"]

_log = Logger()

HELLO_INTERVAL = 2.5
"""Seconds between a node's heartbeats."""

SETTLED_AFTER = 1.0
"""Seconds within which the other nodes answer the first heartbeat of a new node."""

_EVERYBODY = "$nodes"
_ONE = "$node."

Handler: TypeAlias = Callable[[str, Any], Answer]
"""Called with the sender's name and the data. Returns the answer, a JSON value or a Deferred that succeeds with one."""

_Greeting: TypeAlias = tuple[Callable[[], Any], Callable[[str, Any], None]]
"""A function that returns data for this node's heartbeats, and one that takes those of others."""

Publish: TypeAlias = Callable[[str, bytes, bool], Any]
"""Publishes to a channel, as :meth:`lhttp_tx.interfaces.IBus.publish` does."""


class Nodes:
    """
    The nodes of a cluster, as seen by one of them.

    :ivar name: the name of this node. It is random, and new for each object.
    :ivar shortfall: see :meth:`lhttp_tx.cluster.peers.Peers.shortfall`.
    :ivar on_join: functions that are called with the name of each node that appears. It has missed earlier messages.
    :ivar listens: whether this node gets the messages of other nodes. Before that, it would not get answers.
    :ivar on_leave: functions that are called with the name of each node that has stopped or died.
    :ivar on_missing: functions that are called when :attr:`missing` has changed.
    :ivar on_hole: functions that are called when messages of another node are missing, and publications may be, too.
    :ivar on_loss: functions that are called when another node has lost a link to the bus, and perhaps publications.
    :ivar hear_losses: see :meth:`lhttp_tx.cluster.peers.Peers.hear_losses`.
    :ivar reset_numbers: see :meth:`lhttp_tx.cluster.peers.Peers.reset_numbers`.
    :ivar clocks: the clocks of the nodes.
    :ivar running: whether this node looks for other nodes, and can send to them.
    """

    def __init__(self, bus: IBus, clock: IReactorTime, now: Callable[[], float] = time.time) -> None:
        """
        :param bus: carries the messages between nodes.
        :param clock: the reactor.
        :param now: returns the time of day, in seconds since 1970.
        """
        self.clocks = Clocks(clock, now)
        self.clocks.ask = lambda name: self.tell(name, "clock", self._clock.seconds())
        self.name = secrets.token_hex(8)
        self._peers = Peers(clock)
        self.shortfall = self._peers.shortfall
        self.on_join = self._peers.on_join
        self.on_leave = self._peers.on_leave
        self.on_missing = self._peers.on_missing
        self.on_hole: list[Callable[[], None]] = []
        self.on_loss = self._peers.on_loss
        self.hear_losses = self._peers.hear_losses
        self.reset_numbers = self._peers.reset_numbers
        self._number = 0
        self._begun: float | None = None
        self._bus = bus
        self._clock = clock
        self._due = 0.0
        self._settled = False
        self.listens = False
        self._unsettled: list[tuple[Deferred[Any], IDelayedCall]] = []
        self._settling: IDelayedCall | None = None
        self._greetings: dict[str, _Greeting] = {}
        self._handlers: dict[str, Handler] = {"hello": partial(_hear, self._greetings)}
        self._questions = Questions(clock)
        self.on_leave.append(self._questions.left)
        self._timer: IDelayedCall | None = None
        self.running = False
        self._subscribed = False
        on_open: list[Callable[[], None]] | None = getattr(bus, "on_open", None)
        if on_open is not None:
            # All nodes must learn of the new link before anything else comes over it.
            on_open.append(lambda: self._greet_all(fresh=True) if self.listens else None)

    @property
    def others(self) -> frozenset[str]:
        """The names of the other nodes that are alive, as far as this node knows."""
        return self._peers.others

    @property
    def missing(self) -> frozenset[str]:
        """The names of nodes that no longer send heartbeats, although they did not announce that they leave."""
        return self._peers.missing

    @property
    def complete(self) -> bool:
        """Whether this node hears all other nodes, as far as it knows; true before the start."""
        if not self.running:
            return True
        return self._settled and not self._peers.missing and self._bus.available

    def handle(self, kind: str, handler: Handler) -> None:
        """
        Pass data of *kind* from other nodes to *handler*.

        The handler must not raise. If the sender asks for an answer, the handler returns the answer, or a Deferred that
        succeeds with it.
        """
        self._handlers[kind] = handler

    def greet(self, kind: str, say: Callable[[], Any], hear: Callable[[str, Any], None]) -> None:
        """
        Add data of *kind* to the heartbeats.

        :param say: returns the data for this node's heartbeats, a JSON value.
        :param hear: called with the name of another node, and the data in its heartbeat.
        """
        self._greetings[kind] = (say, hear)

    def start(self) -> None:
        """Begin to look for the other nodes."""
        self.running = True
        self._due = self._clock.seconds()
        self._beat()

    def stop(self) -> None:
        """Tell the other nodes that this node leaves, and stop."""
        self.running = False
        for timer in (self._timer, self._settling):
            if timer is not None and timer.active():
                timer.cancel()
        self.tell_all("bye", None)
        self._begun = None
        for channel in (_EVERYBODY, _ONE + self.name):
            self._bus.unsubscribe(channel, self._receive)
        self._subscribed = False
        self._peers.forget_missing()
        self._settle()
        self._settled = self.listens = False
        self._questions.end_all()

    def tell_all(self, kind: str, data: Any, publish: Publish | None = None) -> bool:
        """
        Send data to every other node.

        :param kind: selects the handler.
        :param data: a JSON value.
        :param publish: sends the message; by default, the bus does.
        :returns: whether the bus has taken it.
        """
        return self._send(_EVERYBODY, {"kind": kind, "data": data}, publish)

    def tell(self, name: str, kind: str, data: Any, publish: Publish | None = None) -> bool:
        """Send data to the node *name*, like :meth:`tell_all`."""
        return self._send(_ONE + name, {"kind": kind, "data": data}, publish)

    def ask_all(self, kind: str, data: Any, timeout: float = 2.0) -> Deferred[dict[str, Answer]]:
        """
        Ask every other node.

        :param kind: selects the handler that answers.
        :param data: a JSON value.
        :param timeout: the most seconds to wait for answers.
        :returns: a Deferred that succeeds with the answers by the nodes' names. It does not fail: a node that does not
            answer is missing in the result. If this node has just started, it first waits for the others.
        """
        if not self.running or self._settled or not self._bus.available:
            return self._ask(kind, data, timeout)
        waiting: Deferred[Any] = Deferred()
        limit = self._clock.callLater(timeout, waiting.callback, None)
        self._unsettled.append((waiting, limit))
        return waiting.addCallback(lambda _: self._ask(kind, data, timeout))

    def _ask(self, kind: str, data: Any, timeout: float) -> Deferred[dict[str, Answer]]:
        others = self.others
        if not others or not self._questions.has_room():
            return succeed({})
        number, answers = self._questions.open(others, timeout)
        if not self._send(_EVERYBODY, {"kind": kind, "data": data, "ask": number, "pieces": True}):
            self._questions.end(number)
        return answers

    def ask(self, name: str, kind: str, data: Any, timeout: float) -> Deferred[Answer | None]:
        """
        Ask one node.

        :param name: the node; for *kind* and *data* see :meth:`ask_all`.
        :param timeout: the most seconds to wait for the answer.
        :returns: a Deferred that succeeds with the answer; or with ``None`` if there is no such node, if it does not
            answer in time, or if the bus is unavailable. It fails with :exc:`~lhttp_tx.errors.MessageTooLarge` if the
            bus cannot carry the question.
        """
        if name not in self.others or not self._questions.has_room(is_private=True):
            return succeed(None)
        number, answers = self._questions.open(frozenset((name,)), timeout, is_private=True)
        question = {"kind": kind, "data": data, "ask": number, "pieces": True}
        try:
            is_sent = self._send(_ONE + name, question, raises=MessageTooLarge)
        except MessageTooLarge:
            self._questions.end(number)
            return fail()
        if not is_sent:
            self._questions.end(number)
        return answers.addCallback(lambda found: found.get(name))

    # Heartbeats

    def _beat(self) -> None:
        if not self._subscribed:
            self._subscribe()
        now = self._clock.seconds()
        # Silence means nothing if the bus was unavailable or this process was paused.
        self._peers.look(blind=not self._bus.available or now - self._due > HELLO_INTERVAL)
        for name in self.others:
            if not self.clocks.knows(name):
                self.clocks.ask(name)
        if self.listens:  # an answer to an earlier heartbeat would be lost
            self._greet_all()
        self._due = now + HELLO_INTERVAL
        self._timer = self._clock.callLater(HELLO_INTERVAL, self._beat)

    def _subscribe(self) -> None:
        """Listen to the other nodes, then send a heartbeat. If the bus is unavailable, :meth:`_beat` tries again."""
        self._subscribed = True
        waiting: list[Deferred[Any]] = []
        for channel in (_EVERYBODY, _ONE + self.name):
            try:
                result = self._bus.subscribe(channel, self._receive)
            except Exception as error:
                if not isinstance(error, BusUnavailable):
                    _log.failure("cannot listen to the other nodes")
                self._subscribed = False
                return
            if result is not None:
                waiting.append(result)
        if not waiting:
            self.listens = True
            self.reset_numbers()
            self._settle()
            return
        done: Deferred[Any] = DeferredList(waiting, fireOnOneErrback=True, consumeErrors=True)
        done.addCallbacks(lambda _: self._listening(), lambda _: setattr(self, "_subscribed", False))

    def _listening(self) -> None:
        """Send the first heartbeat, because the bus has the subscriptions now."""
        self.listens = True
        self.reset_numbers()
        self._greet_all(fresh=True)
        if not self._settled and self.running:
            self._settling = self._clock.callLater(SETTLED_AFTER, self._settle)

    def _settle(self) -> None:
        self._settled = True
        unsettled, self._unsettled = self._unsettled, []
        for waiting, limit in unsettled:
            if limit.active():
                limit.cancel()
                waiting.callback(None)

    def _greeting(self) -> dict[str, Any]:
        return {kind: say() for kind, (say, _) in self._greetings.items()}

    def _greet_all(self, fresh: bool = False) -> None:
        """
        Send a heartbeat.

        :param fresh: whether all nodes must answer, even those that know this node. So this node learns what it has
            missed.
        """
        hello = {"kind": "hello", "data": self._greeting()}
        self._send(_EVERYBODY, {**hello, "fresh": True} if fresh else hello)

    # Messages

    def _send(
        self,
        channel: str,
        message: dict[str, Any],
        publish: Publish | None = None,
        raises: type[Exception] | tuple[()] = (),
    ) -> bool:
        now = self._clock.seconds()
        numbered = channel == _EVERYBODY and publish is None
        if publish is None:  # a message on another path may overtake those on the bus
            if self._begun is None:
                self._begun = now
            number = ("n", self._number + 1) if numbered else ("last", self._number)
            message = {number[0]: number[1], "age": round(now - self._begun, 1), **message}
        at, shared = round(now, 6), self.clocks.shared()
        told = {"from": self.name, "at": at, "time": shared, **message}
        payload = json.dumps(told, separators=(",", ":")).encode("ascii")
        try:
            result = (publish or self._bus.publish)(channel, payload, False)
        except raises:
            raise
        except BusUnavailable:
            return False
        except Exception:
            _log.failure("a message to other nodes was not sent")
            return False
        if result is not None:
            result.addErrback(lambda failure: None)
        self._number += numbered
        return True

    def _receive(self, channel: str, payloads: list[bytes], binary: bool) -> None:
        for payload in payloads:
            self._read(payload)

    def _read(self, payload: bytes) -> None:
        try:
            message = json.loads(payload)
            sender, kind = str(message["from"]), str(message["kind"])
        except (ValueError, LookupError, TypeError, RecursionError):
            _log.warn("cannot read a message from another node")
            return
        if sender == self.name or not self.running:
            return
        if kind == "bye":
            self._peers.left(sender)
            return
        if self._peers.has_hole(sender, message):
            _log.warn("messages of node {name} were lost, so publications may be missing, too", name=sender)
            for tell in self.on_hole:
                tell()
        self.clocks.heard(sender, message.get("at"))
        self.clocks.follow(message.get("time"))
        if self._peers.heard(sender):
            self.clocks.ask(sender)
            self.tell(sender, "hello", self._greeting())
            for call in self.on_join:
                call(sender)
        elif message.get("fresh") is True:
            self.tell(sender, "hello", self._greeting())
        if kind == "clock":
            self.tell(sender, "clock-is", message.get("data"))
        elif kind == "clock-is":
            self.clocks.answered(sender, message.get("data"))
        elif "answer" in message or "piece" in message:
            self._questions.take(sender, message)
        else:
            self._handle(sender, kind, message)

    def _handle(self, sender: str, kind: str, message: dict[str, Any]) -> None:
        handler = self._handlers.get(kind)
        if handler is None:
            return
        try:
            answer = handler(sender, message.get("data"))
        except Exception:
            _log.failure("a message of another node could not be handled: {kind}", kind=kind)
            answer = None
        if isinstance(answer, Deferred):
            answer.addErrback(lambda failure: _log.failure("answering another node failed", failure))
            answer.addCallback(self._answer, sender, kind, message)
        else:
            self._answer(answer, sender, kind, message)

    def _answer(self, answer: Answer, sender: str, kind: str, message: dict[str, Any]) -> None:
        if "ask" not in message:
            return
        about = {"kind": kind, "to": message["ask"]}
        pieces = in_pieces(answer) if message.get("pieces") is True else []
        if pieces:
            channel = _ONE + sender
            send_pieces(pieces, lambda piece: self.running and self._send(channel, about | piece), self._bus.confirm)
        else:
            self._send(_ONE + sender, {**about, "answer": answer})


def _hear(greetings: dict[str, _Greeting], sender: str, data: Any) -> None:
    for kind, said in dict(data or {}).items():
        if kind in greetings:
            greetings[kind][1](sender, said)
