"""
The nodes of a cluster: how they find each other, and how they talk to each other.

Nodes find each other through the bus, on channels that clients cannot name. Every node sends a sign of life every few
seconds. A node that is silent for longer counts as dead. On a bus within one process, a node is simply alone. Used by
:mod:`lhttp_tx.cluster.roster` and :mod:`lhttp_tx.cluster.control`.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable
from typing import Any, TypeAlias

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from lhttp_tx.errors import BusUnavailable
from lhttp_tx.interfaces import IBus

__all__ = ["DEAD_AFTER", "HELLO_INTERVAL", "Answer", "Nodes"]

_log = Logger()

HELLO_INTERVAL = 2.5
"""Seconds between a node's signs of life."""

DEAD_AFTER = 8.0
"""Seconds without a sign of life after which a node counts as dead."""

_MAX_ASKED = 10_000
"""How many questions may wait for answers at one time."""

_EVERYBODY = "$nodes"
_ONE = "$node."

Answer: TypeAlias = Any
"""A JSON value."""

Handler: TypeAlias = Callable[[str, Any], Answer]
"""Called with the sender's name and data. Returns the answer, a JSON value or a Deferred that succeeds with one."""


class _Question:
    """A question to all other nodes."""

    def __init__(self, missing: set[str]) -> None:
        self.missing = missing
        self.answers: dict[str, Answer] = {}
        self.done: Deferred[dict[str, Answer]] = Deferred()
        self.limit: IDelayedCall | None = None


class Nodes:
    """
    The nodes of a cluster, as one of them sees them.

    :ivar name: this node's name, new for each start of the process.
    :ivar on_join: called with the name of each node that appears. That node does not know what happened before.
    :ivar on_leave: called with the name of each node that has stopped or died.
    """

    def __init__(self, bus: IBus, clock: IReactorTime) -> None:
        """
        :param bus: carries the messages between nodes.
        :param clock: the reactor.
        """
        self.name = secrets.token_hex(8)
        self.on_join: list[Callable[[str], None]] = []
        self.on_leave: list[Callable[[str], None]] = []
        self._bus = bus
        self._clock = clock
        self._seen: dict[str, float] = {}
        self._handlers: dict[str, Handler] = {}
        self._greetings: dict[str, tuple[Callable[[], Any], Callable[[str, Any], None]]] = {}
        self._questions: dict[int, _Question] = {}
        self._number = 0
        self._timer: IDelayedCall | None = None
        self._running = False
        self._subscribed = False
        on_open: list[Callable[[], None]] | None = getattr(bus, "on_open", None)
        if on_open is not None:
            # All are to know that it is another link before anything else comes over it.
            on_open.append(lambda: self._greet_all() if self._subscribed else None)

    @property
    def others(self) -> frozenset[str]:
        """The names of the other nodes that are alive, as far as this one knows."""
        return frozenset(self._seen)

    @property
    def running(self) -> bool:
        """Whether this node looks for others, and can send to them."""
        return self._running

    def handle(self, kind: str, handler: Handler) -> None:
        """
        Let *handler* take the data that other nodes send as *kind*.

        It must not raise. If the sender asks for an answer, the handler returns it, or a Deferred that succeeds with
        it.
        """
        self._handlers[kind] = handler

    def greet(self, kind: str, say: Callable[[], Any], hear: Callable[[str, Any], None]) -> None:
        """
        Add data of *kind* to the signs of life.

        :param say: returns the data for this node's signs of life, a JSON value.
        :param hear: called with the name of another node, and the data in its sign of life.
        """
        self._greetings[kind] = (say, hear)

    def start(self) -> None:
        """Start to look for the other nodes."""
        self._running = True
        self._beat()

    def stop(self) -> None:
        """Tell the other nodes that this one leaves, and stop."""
        self._running = False
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self.tell_all("bye", None)
        for channel in (_EVERYBODY, _ONE + self.name):
            self._bus.unsubscribe(channel, self._receive)
        self._subscribed = False
        for question in tuple(self._questions.values()):
            self._finish(question)

    def tell_all(self, kind: str, data: Any) -> bool:
        """
        Send data to every other node.

        :param kind: selects the handler.
        :param data: a JSON value.
        :returns: whether the bus has taken it.
        """
        return self._send(_EVERYBODY, {"kind": kind, "data": data})

    def tell(self, name: str, kind: str, data: Any) -> bool:
        """Send data to the node *name*; otherwise like :meth:`tell_all`."""
        return self._send(_ONE + name, {"kind": kind, "data": data})

    def ask_all(self, kind: str, data: Any, timeout: float = 2.0) -> Deferred[dict[str, Answer]]:
        """
        Ask every other node.

        :param kind: selects the handler that answers.
        :param data: a JSON value.
        :param timeout: seconds to wait for answers.
        :returns: a Deferred that succeeds with the answers by the nodes' names. It does not fail: a node that cannot be
            reached is missing.
        """
        if not self._seen or len(self._questions) >= _MAX_ASKED:
            return succeed({})
        self._number += 1
        question = self._questions[self._number] = _Question(set(self._seen))
        number = self._number
        question.done.addCallback(self._forget, number)
        question.limit = self._clock.callLater(timeout, self._finish, question)
        if not self._send(_EVERYBODY, {"kind": kind, "data": data, "ask": number}):
            self._finish(question)
        return question.done

    def _forget(self, answers: dict[str, Answer], number: int) -> dict[str, Answer]:
        del self._questions[number]
        return answers

    def _finish(self, question: _Question) -> None:
        if question.limit is not None and question.limit.active():
            question.limit.cancel()
        if not question.done.called:
            question.done.callback(question.answers)

    # Signs of life

    def _beat(self) -> None:
        if not self._subscribed:
            self._subscribe()
        now = self._clock.seconds()
        if not self._bus.available:
            # Without the bus, silence proves nothing. When it is back, the other nodes get time for a sign of life.
            self._seen = dict.fromkeys(self._seen, now)
        for name in [name for name, seen in self._seen.items() if now - seen > DEAD_AFTER]:
            self._left(name)
        self._greet_all()
        self._timer = self._clock.callLater(HELLO_INTERVAL, self._beat)

    def _subscribe(self) -> None:
        """Listen to the other nodes, then greet them. If the bus is not available yet, the next beat tries again."""
        self._subscribed = True
        for channel in (_EVERYBODY, _ONE + self.name):
            try:
                result = self._bus.subscribe(channel, self._receive)
            except Exception as error:
                if not isinstance(error, BusUnavailable):
                    _log.failure("cannot listen to the other nodes")
                self._subscribed = False
                return
            if result is not None:
                result.addCallbacks(lambda _: self._greet_all(), self._not_subscribed)

    def _greeting(self) -> dict[str, Any]:
        return {kind: say() for kind, (say, _) in self._greetings.items()}

    def _greet_all(self) -> None:
        self.tell_all("hello", self._greeting())

    def _not_subscribed(self, _: object) -> None:
        self._subscribed = False

    def _left(self, name: str) -> None:
        if self._seen.pop(name, None) is None:
            return
        for question in tuple(self._questions.values()):
            question.missing.discard(name)
            if not question.missing:
                self._finish(question)
        _log.info("node {name} has left", name=name)
        for call in self.on_leave:
            call(name)

    # Messages

    def _send(self, channel: str, message: dict[str, Any]) -> bool:
        payload = json.dumps({"from": self.name, **message}, separators=(",", ":")).encode("ascii")
        try:
            result = self._bus.publish(channel, payload, False)
        except BusUnavailable:
            return False
        except Exception:
            _log.failure("a message to other nodes was not sent")
            return False
        if result is not None:
            result.addErrback(lambda failure: None)
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
        if sender == self.name or not self._running:
            return
        if kind == "bye":
            self._left(sender)
            return
        known = sender in self._seen
        self._seen[sender] = self._clock.seconds()
        if not known:
            _log.info("node {name} has joined", name=sender)
            self.tell(sender, "hello", self._greeting())
            for call in self.on_join:
                call(sender)
        if "answer" in message:
            self._answered(sender, message)
        else:
            self._handle(sender, kind, message)

    def _handle(self, sender: str, kind: str, message: dict[str, Any]) -> None:
        handler = self._hear if kind == "hello" else self._handlers.get(kind)
        if handler is None:
            return
        try:
            answer = handler(sender, message.get("data"))
        except Exception:
            _log.failure("a message of another node could not be handled: {kind}", kind=kind)
            answer = None
        if isinstance(answer, Deferred):
            answer.addErrback(lambda failure: _log.failure("a question of another node has no answer", failure))
            answer.addCallback(self._answer, sender, kind, message)
        else:
            self._answer(answer, sender, kind, message)

    def _answer(self, answer: Answer, sender: str, kind: str, message: dict[str, Any]) -> None:
        if "ask" in message:
            self._send(_ONE + sender, {"kind": kind, "answer": answer, "to": message["ask"]})

    def _hear(self, sender: str, data: Any) -> None:
        for kind, said in dict(data or {}).items():
            if kind in self._greetings:
                self._greetings[kind][1](sender, said)

    def _answered(self, sender: str, message: dict[str, Any]) -> None:
        asked = message.get("to")
        question = self._questions.get(asked) if isinstance(asked, int) else None
        if question is None or sender not in question.missing:
            return
        question.missing.discard(sender)
        question.answers[sender] = message["answer"]
        if not question.missing:
            self._finish(question)
