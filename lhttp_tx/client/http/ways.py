"""
Chooses the transport of a client: a WebSocket, or HTTP requests if a network breaks WebSockets.

:class:`Ways` is the endpoint of a client that may use several. If a transport fails although the server can be reached,
it changes to the next one. It returns to WebSocket when that works again. The rules and the numbers are those of the
JavaScript client. Made by :class:`~lhttp_tx.client.client.Client`; it imports neither that nor the uplink.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, Protocol, final

from twisted.internet import protocol
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall, IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from lhttp_tx.client.errors import ClientClosed, LoginFailed
from lhttp_tx.codec.message import Message

__all__ = ["TRANSPORTS", "TRIAL", "Line", "Transport", "Ways"]

_log = Logger()

Transport = Literal["websocket", "stream", "poll"]

TRANSPORTS: tuple[Transport, ...] = ("websocket", "stream", "poll")
"""All transports, in the order in which they are tried."""

TRIAL = "lhttp.trial"
"""The subprotocol of a WebSocket without a session. It does not count as another connection of the user."""

_DEAF = 3.0
"""Seconds of silence after the opening, after which a ping tests whether messages come through."""

_CUTS = 2
"""After this number of connections in a row that are cut early, the client uses another transport."""

_STABLE = 5.0
"""Seconds after which a connection counts as good."""

_MAX_COME_BACK = 16
"""The longest wait before a test of WebSocket, as a multiple of the first one."""

_TURN, _TURNS = 0.25, 20
"""Seconds to wait until no message is under way before the client returns to WebSocket, and how often to wait."""

_ABNORMAL = (None, 1006)
"""Close codes of connections that neither side has closed."""


class Line(Protocol):
    """A connection, such as a :class:`~lhttp_tx.client.websocket.link.ClientLink`."""

    heard: bool
    transport: Any

    def abort(self, reason: str) -> None:
        """Drop the connection."""


@final
@implementer(IStreamClientEndpoint)
class Ways:
    """
    An endpoint that connects by the first transport that works.

    :ivar transport: the transport of the current connection; ``None`` without one.
    """

    def __init__(
        self,
        endpoints: Mapping[Transport, IStreamClientEndpoint],
        trial: IStreamClientEndpoint,
        *,
        reactor: Any,
        ping: Callable[[float], Deferred[Any]],
        is_idle: Callable[[], bool],
        reaches: Callable[[], Deferred[object]],
        come_back: float,
        timeout: float,
    ) -> None:
        """
        :param endpoints: the transports that may be used, in this order.
        :param trial: opens WebSockets that only test whether WebSockets work.
        :param ping: pings the server over the connection. It takes the most seconds to wait for the answer.
        :param is_idle: returns whether the client waits for no answer.
        :param reaches: makes an HTTP request. Its Deferred succeeds with any answer, and fails without one.
        :param come_back: seconds over HTTP until the client tests WebSocket; 0: never.
        :param timeout: the most seconds until a WebSocket under test has got an answer.
        """
        self.transport: Transport | None = None
        self._endpoints = dict(endpoints)
        self._order = list(endpoints)
        self._trial = trial
        self._reactor = reactor
        self._ping = ping
        self._is_idle = is_idle
        self._reaches = reaches
        self._come_back = come_back
        self._timeout = timeout
        self._way = self._bad = self._returns = 0
        self._made: Transport | None = None
        self._opened_at = 0.0
        self._deaf = False
        self._line: Line | None = None
        self._timers: list[IDelayedCall] = []
        self._trying: Deferred[Any] | None = None
        self._judging: Deferred[Any] | None = None

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """
        Connect. If a transport fails, try the next one at once.

        :returns: a Deferred that fails with the error of the first transport if none connects.
        """
        given_up: list[bool] = []

        def give_up(_: object) -> None:
            given_up.append(True)
            connecting.cancel()

        connected: Deferred[IProtocol] = Deferred(give_up)
        connecting = Deferred.fromCoroutine(self._connect(protocolFactory, given_up))
        connecting.chainDeferred(connected)
        return connected

    async def _connect(self, protocolFactory: IProtocolFactory, given_up: list[bool]) -> IProtocol:
        if self._judging is not None:
            await self._judging
        first: Exception | None = None
        for _ in self._order:
            if given_up:
                raise CancelledError
            mode = self._order[self._way]
            try:
                made: IProtocol = await self._endpoints[mode].connect(protocolFactory)
            except Exception as error:
                first = first or error
                if given_up or len(self._order) == 1 or not _is_bad(error) or not await self._is_reached():
                    raise first from None
                self._next_way(mode)
            else:
                self._made = mode
                return made
        assert first is not None
        raise first

    async def _is_reached(self) -> bool:
        try:
            await self._reaches()
        except CancelledError:
            raise
        except Exception:
            return False
        return True

    def _next_way(self, mode: Transport) -> None:
        self._way = (self._way + 1) % len(self._order)
        self._bad = 0
        _log.info("{old} does not work in this network: going on with {new}", old=mode, new=self._order[self._way])

    # What happens to the connection

    def up(self, line: Line) -> None:
        """Note that the new connection is in use, and that the client has logged in."""
        self.transport, self._line, self._deaf = self._made, line, False
        self._opened_at = self._reactor.seconds()
        if len(self._order) > 1:
            self._later(_DEAF, self._listen)
        self._come_back_later()

    def down(self, code: int | None, *, wanted: bool) -> None:
        """
        Note that the connection has ended, and judge its transport.

        :param code: the close code.
        :param wanted: whether this side has ended it on purpose.
        """
        mode, self.transport, self._line = self.transport, None, None
        for timer in self._timers:
            if timer.active():
                timer.cancel()
        self._timers.clear()
        if self._trying is not None:
            self._trying.cancel()
        if mode is None or wanted:
            return
        is_young = self._reactor.seconds() - self._opened_at < _STABLE
        if not is_young and mode == "websocket":
            self._returns = 0
        if not self._deaf and not (code in _ABNORMAL and is_young):
            self._bad = 0
        elif len(self._order) > 1 and mode == self._order[self._way]:
            self._judging = Deferred.fromCoroutine(self._judge(mode, _CUTS if self._deaf else 1))
            self._judging.addErrback(lambda failure: failure.trap(CancelledError) and None)
            self._judging.addBoth(self._judged)

    async def _judge(self, mode: Transport, weight: int) -> None:
        if await self._is_reached():
            self._bad += weight
            if self._bad >= _CUTS:
                self._next_way(mode)

    def _judged(self, _: object) -> None:
        self._judging = None

    def _later(self, seconds: float, call: Callable[[], object]) -> None:
        self._timers = [timer for timer in self._timers if timer.active()]
        self._timers.append(self._reactor.callLater(seconds, call))

    def _listen(self) -> None:
        """If nothing has come over the connection yet, ping the server. Without an answer, drop the connection."""
        line = self._line
        if line is None or line.heard:
            return

        def pinged(_: object) -> None:
            if line is self._line and not line.heard:
                self._deaf = True
                line.abort("nothing comes through")

        self._ping(_DEAF).addBoth(pinged)

    # Back to WebSocket

    def _come_back_later(self) -> None:
        if self._come_back and self.transport != "websocket" and "websocket" in self._order:
            self._later(self._come_back * min(2**self._returns, _MAX_COME_BACK), self._try_websocket)

    def _try_websocket(self) -> None:
        self._returns = min(self._returns + 1, 10)
        self._trying = Deferred.fromCoroutine(self._try())
        self._trying.addErrback(lambda failure: failure.trap(CancelledError) and None)
        self._trying.addErrback(lambda failure: _log.failure("trying a WebSocket failed", failure))
        self._trying.addBoth(self._tried)

    def _tried(self, _: object) -> None:
        self._trying = None
        if self._line is not None:
            self._come_back_later()

    async def _try(self) -> None:
        """Return to WebSocket if a test connection gets an answer and is not cut."""
        if not await self._is_good():
            return
        for _ in range(_TURNS):
            line = self._line
            if line is None:
                return
            if self._is_idle() and not line.transport.unsent:
                self._way = self._order.index("websocket")
                self._bad = 0
                line.abort("coming back to WebSocket")
                return
            await deferLater(self._reactor, _TURN, lambda: None)  # until nothing is under way

    async def _is_good(self) -> bool:
        trial = _Trial(self._reactor, self._timeout)
        made: protocol.Factory = protocol.Factory.forProtocol(lambda: trial)
        try:
            await self._trial.connect(made)
            return await trial.outcome
        except CancelledError:
            raise
        except Exception:
            return False
        finally:
            trial.end()

    def __repr__(self) -> str:
        return repr(self._endpoints[self._order[self._way]])


@final
class _Trial(protocol.Protocol):
    """
    Tests a WebSocket.

    :ivar outcome: succeeds with whether an answer has come in time, and the WebSocket has then lasted for
        :data:`_STABLE` seconds.
    """

    transport: Any

    def __init__(self, reactor: Any, timeout: float) -> None:
        self.outcome: Deferred[bool] = Deferred(lambda _: None)
        self._reactor = reactor
        self._timeout = timeout
        self._is_answered = False
        self._timer: IDelayedCall | None = None

    def connectionMade(self) -> None:
        """Send a message to which the server returns some answer."""
        self._timer = self._reactor.callLater(self._timeout, self._conclude, False)
        self.transport.send_message(Message("ping", {"receipt": "trial"}).raw, False)

    def message_received(self, payload: bytes, binary: bool) -> None:
        """See :class:`~lhttp_tx.client.websocket.connection.Link`."""
        if not self._is_answered and self._timer is not None and self._timer.active():
            self._is_answered = True
            self._timer.cancel()
            self._timer = self._reactor.callLater(_STABLE, self._conclude, True)

    def writable(self) -> None:
        """See :class:`~lhttp_tx.client.websocket.connection.Link`."""

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        """Part of ``IProtocol``."""
        self._conclude(False)

    def _conclude(self, is_good: bool) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        if not self.outcome.called:
            self.outcome.callback(is_good)

    def end(self) -> None:
        """Close the WebSocket."""
        self._conclude(False)
        if self.transport is not None:
            self.transport.loseConnection()


def _is_bad(error: Exception) -> bool:
    """
    Return whether the network may have caused a failure to connect.

    It has not if the server has answered a login, or if the program has failed to log in.
    """
    if isinstance(error, LoginFailed):
        return error.unanswered
    return not isinstance(error, ClientClosed | CancelledError)
