"""
Connections that there may be: of one address, and of those that are no WebSocket yet.

:mod:`lhttp_tx.service` makes one :class:`Admission` for a server. One that can be told at once to be too many
is closed as soon as it is accepted, which costs next to nothing; one that is a little too many gets status 429.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from lhttp_tx.errors import Refused
from lhttp_tx.proxies import HEADER, TrustedProxies, address_key

__all__ = ["Admission", "Place"]

_log = Logger()

_GRACE = 16
"""Connections of one address beyond its limit that are told why they may not stay; more are closed unheard."""

_REPORT_INTERVAL = 10.0
"""Seconds between two lines in the log about connections that are refused."""

_MAX_REASONS = 16
"""Reasons for refusals that are told apart."""

_OF_ONE_ADDRESS = "too many of one address (--max-per-address; if it is a proxy, name it with --trusted-proxy)"
_PENDING = "too many that are no WebSocket yet (--max-pending)"


class Admission:
    """
    Counts connections and says which may stay.

    :ivar pending: connections that are no WebSocket, or not yet.
    :ivar refused: how many were refused, by reason.
    :ivar proxies: the proxies whose word is taken.
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
        :param reactor: keeps time.
        :param max_per_address: connections of one address, 0 for no limit. Loopback addresses and trusted proxies have
            none; behind a proxy, clients are counted by the address that it tells.
        :param max_pending: connections that are no WebSocket, or not yet; 0 for no limit.
        :param proxies: the proxies whose word is taken.
        """
        self.pending = 0
        self.refused: Counter[str] = Counter()
        self.proxies = TrustedProxies() if proxies is None else proxies
        self._reactor = reactor
        self._max_per_address = max_per_address
        self._max_pending = max_pending
        self._connections: dict[str, int] = {}
        self._websockets: dict[str, int] = {}
        self._unreported: Counter[str] = Counter()
        self._reporting: IDelayedCall | None = None

    def admits(self, address: Any) -> bool:
        """
        Return whether a connection that was just accepted may stay; one that may not is counted.

        :param address: where it comes from.
        """
        if 0 < self._max_pending <= self.pending:
            self.refuse(_shown(address), _PENDING)
            return False
        key = self._key(getattr(address, "host", None))
        if key is not None and self._connections.get(key, 0) >= self._max_per_address + _GRACE:
            self.refuse(_shown(address), _OF_ONE_ADDRESS)
            return False
        return True

    def enter(self, address: Any) -> Place:
        """Return the place of a connection that has been made; it counts until it leaves."""
        return Place(self, getattr(address, "host", None))

    def refuse(self, peer: str, why: str) -> None:
        """
        Count a connection that is refused. The log gets a line for the first, some every ten seconds, one at the end.

        :param peer: who it is.
        :param why: the reason.
        """
        if why not in self.refused and len(self.refused) >= _MAX_REASONS:
            why = "other reasons"
        self.refused[why] += 1
        if self._reporting is None:
            _log.warn("refusing connections, such as that of {peer}: {why}", peer=peer, why=why)
            self._reporting = self._reactor.callLater(_REPORT_INTERVAL, self._report)
        else:
            self._unreported[why] += 1

    def stop(self) -> None:
        """Report no more."""
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
        """Return what *host* is counted under; ``None`` if it is not."""
        if not self._max_per_address or host is None or self.proxies.trusts(host):
            return None
        return address_key(host)


class Place:
    """
    What one connection counts as.

    :ivar client: the address of the client, once its handshake has been looked at; ``None`` if it has none.
    """

    __slots__ = ("_admission", "_client_key", "_host", "_is_pending", "_key", "_taken", "client")

    def __init__(self, admission: Admission, host: str | None) -> None:
        self._admission = admission
        self._host = self.client = host
        self._key = self._client_key = key = admission._key(host)
        self._taken: str | None = None
        self._is_pending = True
        admission.pending += 1
        if key is not None:
            admission._connections[key] = admission._connections.get(key, 0) + 1

    @property
    def forwarded(self) -> bool:
        """Whether :attr:`client` is what a proxy says, and not where the connection comes from."""
        return self.client != self._host

    def check(self, headers: Mapping[str, str]) -> None:
        """
        Look at the headers of a handshake, and let it in or not.

        :raises Refused: with status 429 if its address has as many WebSockets as it may.
        """
        admission = self._admission
        if admission.proxies:
            self.client = admission.proxies.client_of(self._host, headers.get(HEADER))
            self._client_key = admission._key(self.client)
        key = self._client_key
        if key is not None and admission._websockets.get(key, 0) >= admission._max_per_address:
            raise Refused(429, "too many connections of your address")

    def take(self) -> None:
        """Count as a WebSocket of the client from now on: its handshake is in order."""
        key = self._client_key
        if key is not None and self._taken is None:
            self._taken = key
            self._admission._websockets[key] = self._admission._websockets.get(key, 0) + 1

    def open(self) -> None:
        """It is a WebSocket now."""
        if self._is_pending:
            self._is_pending = False
            self._admission.pending -= 1

    def leave(self) -> None:
        """The connection has ended."""
        self.open()
        _discard(self._admission._connections, self._key)
        _discard(self._admission._websockets, self._taken)
        self._key = self._taken = None


def _discard(counts: dict[str, int], key: str | None) -> None:
    if key is not None:
        if counts[key] == 1:
            del counts[key]
        else:
            counts[key] -= 1


def _shown(address: Any) -> str:
    return str(getattr(address, "host", None) or "a UNIX socket")
