"""
Limits the connections of one address, and the connections without a WebSocket.

:mod:`lhttp_tx.service` makes one :class:`Admission` for a server. If an address is far beyond its limit, the server
closes its new connections as soon as it accepts them, which costs almost nothing. A connection just beyond the limit
gets status 429. If there are too many connections without a WebSocket, the server closes the one for which it has
waited longest, and keeps the new one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from lhttp_tx.errors import Refused
from lhttp_tx.guard.proxies import HEADER, TrustedProxies, address_key
from lhttp_tx.observe.escapes import printable

__all__ = ["Admission", "Place", "Seat", "peer_name"]

_log = Logger()

_GRACE = 16
"""Connections of one address beyond its limit that get a refusal with a reason. Further ones are closed at once."""

_PER_SEAT = 2
"""The connections of a client without a WebSocket: one fetches, one sends."""

_REPORT_INTERVAL = 10.0
"""Seconds between two log lines about refused connections."""

_PATIENCE = 2.0
"""The fewest seconds that a connection has for its first or next request, even if there are too many others."""

_MAX_REASONS = 16
"""The most reasons for refusals that are counted separately."""

_OF_ONE_ADDRESS = "too many of one address (--max-per-address; if it is a proxy, name it with --trusted-proxy)"
_PENDING = "too many that are no WebSocket yet (--max-pending)"
_IDLE = "idle and no WebSocket, closed to make room for others"


class Admission:
    """
    Counts connections, and decides which ones may stay.

    :ivar pending: the number of connections that have not opened a WebSocket.
    :ivar refused: the number of refused connections, by reason.
    :ivar proxies: the trusted proxies.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        *,
        max_per_address: int = 0,
        max_pending: int = 0,
        proxies: TrustedProxies | None = None,
    ) -> None:
        """
        :param reactor: the reactor, for the time.
        :param max_per_address: connections of one address, 0 for no limit. Loopback addresses and trusted proxies have
            no limit. Clients behind a proxy are counted by the address that the proxy reports.
        :param max_pending: connections that have not opened a WebSocket; 0 for no limit.
        :param proxies: the trusted proxies.
        """
        self.pending = 0
        self.refused: Counter[str] = Counter()
        self.proxies = TrustedProxies() if proxies is None else proxies
        self._reactor = reactor
        self._max_per_address = max_per_address
        self._max_pending = max_pending
        self._connections: dict[str, int] = {}
        self._websockets: dict[str, int] = {}
        self._seats: dict[str, int] = {}
        self._resting: dict[Place, None] = {}
        self._awaited: dict[Place, float] = {}
        self._unreported: Counter[str] = Counter()
        self._reporting: IDelayedCall | None = None

    def admits(self, address: Any) -> bool:
        """
        Return whether a connection that was just accepted may stay. Count it as refused if not.

        :param address: the client's address.
        """
        if 0 < self._max_pending <= self.pending and not self.make_room():
            self.refuse(peer_name(address), _PENDING)
            return False
        key = self._key(getattr(address, "host", None))
        if key is not None and self._connections.get(key, 0) >= self._most(key):
            self.refuse(peer_name(address), _OF_ONE_ADDRESS)
            return False
        return True

    def check_pending(self) -> None:
        """
        Check whether there is room for a session without WebSocket.

        :raises Refused: with status 503 if there are too many pending connections and sessions, and none can be closed.
        """
        if 0 < self._max_pending <= self.pending and not self.make_room():
            raise Refused(503, "too many clients have connected and fetch nothing yet")

    def _most(self, key: str) -> int:
        """Return how many connections of an address the server accepts at one time."""
        return self._max_per_address + _GRACE + _PER_SEAT * self._seats.get(key, 0)

    def enter(self, address: Any) -> Place:
        """Return the place of a new connection. It counts until it leaves."""
        return Place(self, getattr(address, "host", None))

    def make_room(self) -> bool:
        """
        Close a connection without a WebSocket that waits for its client. Return whether there was one.

        The first choice is a connection that has got its answer and has sent nothing since. The second choice is the
        connection for whose request the server has waited longest, if this is two seconds or more.
        """
        place = next(iter(self._resting), None)
        if place is None:
            place = next(iter(self._awaited), None)
            if place is None or self._reactor.seconds() - self._awaited[place] < _PATIENCE:
                return False
        self.refuse(place.client or "a UNIX socket", _IDLE)
        place.give_up()
        return True

    def refuse(self, peer: str, why: str) -> None:
        """
        Count a refused connection. The log gets a line for the first one, a summary every ten seconds, and a line at
        the end.

        :param peer: the client's address.
        :param why: the reason.
        """
        peer, why = printable(peer), printable(why)
        if why not in self.refused and len(self.refused) >= _MAX_REASONS:
            why = "other reasons"
        self.refused[why] += 1
        if self._reporting is None:
            _log.warn("refusing connections, such as that of {peer}: {why}", peer=peer, why=why)
            self._reporting = self._reactor.callLater(_REPORT_INTERVAL, self._report)
        else:
            self._unreported[why] += 1

    def stop(self) -> None:
        """Stop reporting."""
        if self._reporting is not None and self._reporting.active():
            self._reporting.cancel()
        self._reporting = None

    def _report(self) -> None:
        if not self._unreported:
            _log.info("no connection was refused for {seconds:g} s", seconds=_REPORT_INTERVAL)
            self._reporting = None
            return
        for why, count in self._unreported.items():
            _log.warn(
                "refused {count} more connections within {seconds:g} s: {why}",
                count=count,
                seconds=_REPORT_INTERVAL,
                why=why,
            )
        self._unreported.clear()
        self._reporting = self._reactor.callLater(_REPORT_INTERVAL, self._report)

    def _key(self, host: str | None) -> str | None:
        """Return the key under which *host* is counted; ``None`` if it is not counted."""
        if not self._max_per_address or host is None or self.proxies.trusts(host):
            return None
        return address_key(host)


class Place:
    """
    The place of one connection in the counts.

    :ivar client: the address of the client, known once its handshake was checked; ``None`` if it has none.
    """

    __slots__ = ("_admission", "_client_key", "_close", "_host", "_is_pending", "_key", "_taken", "client")

    def __init__(self, admission: Admission, host: str | None) -> None:
        self._admission = admission
        self._host = self.client = host
        self._key = self._client_key = key = admission._key(host)
        self._taken: str | None = None
        self._close: Callable[[], object] | None = None
        self._is_pending = True
        admission.pending += 1
        if key is not None:
            admission._connections[key] = admission._connections.get(key, 0) + 1

    def move(self, address: Any) -> bool:
        """
        Count as a connection from *address*, which a proxy has reported at its beginning.

        :returns: whether it may stay.
        """
        host = getattr(address, "host", None)
        if host == self._host:
            return True
        admission = self._admission
        _discard(admission._connections, self._key)
        self._host = self.client = host
        self._key = self._client_key = key = admission._key(host)
        if key is None:
            return True
        count = admission._connections[key] = admission._connections.get(key, 0) + 1
        if count <= admission._most(key):
            return True
        admission.refuse(peer_name(address), _OF_ONE_ADDRESS)
        return False

    # While the server waits for the client, it may close the connection to make room.

    def watch(self, close: Callable[[], object]) -> None:
        """Begin to wait for the first request. *close* closes the connection at once."""
        self._close = close
        self.wait()

    def wait(self) -> None:
        """Begin to wait for a request. A part of it may have arrived."""
        admission = self._admission
        if self._is_pending and self._close is not None and self not in admission._awaited:
            admission._resting.pop(self, None)
            admission._awaited[self] = admission._reactor.seconds()

    def rest(self) -> None:
        """Note that the client has got its answer, and has sent nothing since."""
        admission = self._admission
        if self._is_pending and self._close is not None and self not in admission._resting:
            admission._awaited.pop(self, None)
            admission._resting[self] = None

    def work(self) -> None:
        """Note that the server is handling a request, and does not wait for the client."""
        self._admission._awaited.pop(self, None)
        self._admission._resting.pop(self, None)

    def give_up(self) -> None:
        """Close the connection, and stop counting it."""
        close = self._close
        self.leave()
        if close is not None:
            close()

    @property
    def forwarded(self) -> bool:
        """Whether a proxy has reported :attr:`client`."""
        return self.client != self._host

    def check(self, headers: Mapping[str, str]) -> None:
        """
        Check the headers of a handshake.

        :raises Refused: with status 429 if the client's address has too many WebSockets.
        """
        admission = self._admission
        if admission.proxies:
            self.client = admission.proxies.client_of(self._host, headers.get(HEADER))
            self._client_key = admission._key(self.client)
        key = self._client_key
        if key is not None and admission._websockets.get(key, 0) >= admission._max_per_address:
            raise Refused(429, "too many connections of your address")

    def take(self) -> None:
        """Count as a WebSocket of the client from now on, because its handshake is valid."""
        key = self._client_key
        if key is not None and self._taken is None:
            self._taken = key
            self._admission._websockets[key] = self._admission._websockets.get(key, 0) + 1

    def open(self) -> None:
        """Note that the connection is a WebSocket now."""
        if self._is_pending:
            self._is_pending = False
            self._admission.pending -= 1
            self.work()
            self._close = None

    def suspend(self) -> None:
        """Do not count as pending while the connection waits for messages of a session, which counts itself."""
        if self._is_pending:
            self._is_pending = False
            self._admission.pending -= 1
            self.work()

    def resume(self) -> None:
        """Count as pending again, after :meth:`suspend`. Does nothing if the connection has ended."""
        if not self._is_pending and self._close is not None:
            self._is_pending = True
            self._admission.pending += 1

    def leave(self) -> None:
        """Stop counting the connection, which has ended."""
        self.open()
        self._close = None
        _discard(self._admission._connections, self._key)
        _discard(self._admission._websockets, self._taken)
        self._key = self._taken = None


class Seat(Place):
    """
    The place of a session that has no connection of its own: its client comes with requests.

    It counts as a WebSocket of the client, and it is pending until :meth:`Place.open`.
    """

    __slots__ = ()

    def __init__(self, place: Place) -> None:
        """:param place: the place of the request that begins the session."""
        super().__init__(place._admission, None)
        self.client = place.client
        self._client_key = place._client_key

    def take(self) -> None:
        """Count as a WebSocket of the client, and allow its address two more connections."""
        was_taken = self._taken is not None
        super().take()
        if self._taken is not None and not was_taken:
            seats = self._admission._seats
            seats[self._taken] = seats.get(self._taken, 0) + 1

    def leave(self) -> None:
        """Stop counting the session, which has ended."""
        _discard(self._admission._seats, self._taken)
        super().leave()


def _discard(counts: dict[str, int], key: str | None) -> None:
    if key is not None:
        if counts[key] == 1:
            del counts[key]
        else:
            counts[key] -= 1


def peer_name(address: Any) -> str:
    """
    Return the name of a client at *address* for the log, such as ``tcp4:192.0.2.1:54321``.

    :param address: an address of Twisted's.
    """
    if isinstance(address, IPv4Address):
        return printable(f"tcp4:{address.host}:{address.port}")
    if isinstance(address, IPv6Address):
        return printable(f"tcp6:{address.host}:{address.port}")
    if isinstance(address, UNIXAddress):
        return f"unix:{address.name!r}" if address.name else "unix"
    return "unknown"
