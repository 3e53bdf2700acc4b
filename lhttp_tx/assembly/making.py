"""
Makes the parts of a server that depend on its settings, and checks the bus that the program has passed.

Used by :mod:`lhttp_tx.assembly.parts`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from twisted.internet.asyncioreactor import AsyncioSelectorReactor

from lhttp_tx.auth.gate import Gate
from lhttp_tx.bus.memory import MemoryBus
from lhttp_tx.config import Config
from lhttp_tx.engine.attributes import check_instance
from lhttp_tx.interfaces import IAuthenticator, IBus

__all__ = ["check_bus", "make_bus", "make_gate"]


def make_gate(authenticators: Iterable[IAuthenticator], config: Config, clock: Any, now: Callable[[], float]) -> Gate:
    """Return the gate, which identifies clients. For the parameters, see :class:`~lhttp_tx.assembly.parts.Assembly`."""
    return Gate(
        authenticators,
        clock=clock,
        allow_anonymous=config.allow_anonymous,
        login_timeout=config.login_timeout,
        timeout=config.auth_timeout,
        max_in_flight=config.auth_max_in_flight,
        max_failures=config.max_failed_logins,
        now=now,
    )


def check_bus(bus: object) -> None:
    """:raises ValueError: if *bus* is not a bus."""
    if not isinstance(bus, type) and not IBus.providedBy(bus):
        raise ValueError(f"{bus!r} is not a bus: it must provide lhttp_tx.interfaces.IBus")
    check_instance(bus, IBus)


def make_bus(config: Config, clock: Any) -> IBus:
    """
    Return the bus that *config* chooses. It is not started yet.

    :raises ValueError: if the bus needs Twisted's asyncio reactor, and *clock* is another one.
    """
    if config.nats is None:
        return MemoryBus()
    if not isinstance(clock, AsyncioSelectorReactor):
        raise ValueError("NATS needs Twisted's asyncio reactor: call twisted.internet.asyncioreactor.install() first")
    from lhttp_tx.bus.nats.bus import NATSBus

    return NATSBus(config.nats, clock=clock)
