"""
Lets a client send its requests to any node: they are passed on to the node that has its session.

The secret of a session names the node. Nodes ask each other through the bus, as they do for control and presence. The
sessions of a node that sends no heartbeats count as ended.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.python.failure import Failure

from lhttp_tx.cluster.nodes import Nodes
from lhttp_tx.errors import LHTTPError, MessageTooLarge, Refused
from lhttp_tx.observe.rationing import RationedLogger
from lhttp_tx.transports.http.bodies import Run
from lhttp_tx.transports.http.outlet import Fetched
from lhttp_tx.transports.http.session import ENDED
from lhttp_tx.transports.http.sessions import Sessions, node_of

__all__ = ["LONGEST_WAIT", "MOST", "Relay"]

_log = RationedLogger(__name__)

_KIND = "http"

LONGEST_WAIT = 20.0
"""Seconds for which a request may wait for messages. Proxies often drop requests after 30 seconds."""

MOST = 65_536
"""The most bytes of messages in one fetch. A single message may be larger."""

_ANSWER_TIME = 10.0
"""Seconds within which another node must answer, in addition to the wait of the request."""


class Relay:
    """
    Passes requests to sessions on this node and on others.

    The Deferreds of its methods fail with :exc:`~lhttp_tx.errors.Refused`: with status 504 if the node with the session
    does not answer, 413 if the bus cannot carry the messages to it, and in the cases of
    :class:`~lhttp_tx.transports.http.session.HTTPSession`.
    """

    def __init__(self, sessions: Sessions, nodes: Nodes | None) -> None:
        """
        :param sessions: the sessions of this node.
        :param nodes: the other nodes; ``None`` if there are none.
        """
        self._sessions = sessions
        self._nodes = nodes
        if nodes is not None:
            nodes.handle(_KIND, self._asked)

    def fetch(self, secret: str, fetcher: str, after: int, *, wait: float, begins: bool) -> Deferred[Fetched]:
        """
        Get messages. Cancel the Deferred if the request has ended.

        :param secret: the client's secret.
        :param fetcher: the name of the request, which nobody else knows.
        :param after: see :meth:`lhttp_tx.transports.http.outlet.Outlet.fetch`, also for the other parameters.
        """
        asked = {"do": "fetch", "secret": secret, "fetcher": fetcher, "after": after, "wait": wait, "begins": begins}
        return self._do(secret, lambda: self._fetch(asked), asked, wait).addCallback(_read_fetched)

    def send(self, secret: str, runs: list[Run], number: int | None, size: int, after: int) -> Deferred[None]:
        """Pass on messages of the client; see :meth:`lhttp_tx.transports.http.session.HTTPSession.take`."""

        def take() -> Deferred[None]:
            return self._sessions.find(secret).take(runs, number, size, after)

        asked: dict[str, Any] = {"do": "send", "secret": secret, "number": number, "size": size, "after": after}
        if self._is_here(secret):
            return maybeDeferred(take)
        asked["runs"] = [
            [[b64encode(message).decode("ascii") for message in messages], binary] for messages, binary in runs
        ]
        return self._do(secret, take, asked, 0.0).addCallback(lambda _: None)

    def end(self, secret: str) -> Deferred[None]:
        """End the session of the client, because the client wants to leave."""
        asked = {"do": "end", "secret": secret}
        return self._do(secret, lambda: self._sessions.find(secret).end(1000), asked, 0.0).addCallback(lambda _: None)

    def _is_here(self, secret: str) -> bool:
        try:
            return self._nodes is None or node_of(secret) == self._sessions.name
        except Refused:
            return True  # where it is not found

    def _do(self, secret: str, here: Callable[[], Any], asked: dict[str, Any], wait: float) -> Deferred[Any]:
        """Do something here, or ask the node that has the session to do it."""
        nodes = self._nodes
        if nodes is None or self._is_here(secret):
            return maybeDeferred(here)
        name = node_of(secret)
        if name not in nodes.others:
            return maybeDeferred(_refuse, 404, ENDED)
        # A Deferred of its own can be cancelled, although the other node still answers.
        outcome: Deferred[Any] = Deferred(lambda _: None)
        answered = nodes.ask(name, _KIND, asked, wait + _ANSWER_TIME)
        answered.addCallback(lambda answer: _conclude(outcome, answer, name in nodes.others))
        answered.addErrback(_too_large, outcome)
        return outcome

    # What other nodes ask

    def _asked(self, sender: str, data: Any) -> Deferred[dict[str, Any]]:
        doing: Deferred[Any] = maybeDeferred(self._do_here, data)
        return doing.addErrback(_as_answer)

    def _do_here(self, data: dict[str, Any]) -> Deferred[dict[str, Any]]:
        if data["do"] == "fetch":
            return self._fetch(data).addCallback(_write_fetched)
        session = self._sessions.find(data["secret"])
        if data["do"] == "end":
            session.end(1000)
            return succeed({})
        runs = [([b64decode(message) for message in messages], bool(binary)) for messages, binary in data["runs"]]
        taking = session.take(runs, data["number"], data["size"], data["after"])
        return taking.addCallback(lambda _: {})

    def _fetch(self, asked: dict[str, Any]) -> Deferred[Fetched]:
        session = self._sessions.find(asked["secret"])
        wait = min(asked["wait"], LONGEST_WAIT)
        return session.fetch(asked["fetcher"], asked["after"], wait=wait, most=MOST, begins=asked["begins"])


def _refuse(status: int, reason: str) -> None:
    raise Refused(status, reason)


def _conclude(outcome: Deferred[Any], answer: Any, is_there: bool) -> None:
    if outcome.called:
        return
    if isinstance(answer, dict) and "status" not in answer:
        outcome.callback(answer)
    elif isinstance(answer, dict):
        outcome.errback(Failure(Refused(answer["status"], answer["reason"])))
    elif is_there:
        outcome.errback(Failure(Refused(504, "the node with this session does not answer")))
    else:
        outcome.errback(Failure(Refused(404, ENDED)))


def _too_large(failure: Failure, outcome: Deferred[Any]) -> None:
    failure.trap(MessageTooLarge)
    if not outcome.called:
        outcome.errback(Failure(Refused(413, "too large to be passed on to the node with this session: send less")))


def _as_answer(failure: Failure) -> dict[str, Any]:
    error: Any = failure.value
    if isinstance(error, LHTTPError):
        return {"status": error.status, "reason": error.reason}
    _log.failure("a request from another node failed", failure)
    return {"status": 500, "reason": "internal error"}


def _write_fetched(fetched: Fetched) -> dict[str, Any]:
    return {
        "last": fetched.last,
        "entries": [entry.decode("utf-8") for entry in fetched.entries],
        "over": fetched.over,
    }


def _read_fetched(found: Fetched | dict[str, Any]) -> Fetched:
    if isinstance(found, Fetched):
        return found
    return Fetched(found["last"], [entry.encode("utf-8") for entry in found["entries"]], found["over"])
