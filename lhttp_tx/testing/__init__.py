"""
Test processors, filters, hooks and authenticators without sockets and without waiting. Also has the contract tests for
buses and history stores.

>>> from lhttp_tx import Message, processor
>>> from lhttp_tx.testing import Server
>>> @processor("echo")
... def echo(request):
...     request.reply()
>>> client = Server(processors=[echo]).connect()
>>> client.send(Message("echo", body="hello"))
>>> client.take()
[<Message echo Headers([]) 23 bytes text>]

The parts of the server are the real ones. Only connections and backends are in memory, and the clock moves only when
you advance it. :func:`lhttp_tx.publish <lhttp_tx.running.publish>`, ``running.control()`` and ``running.presence()``
use the :class:`Server` that was made or used last, unless a real server runs in the process.
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

from lhttp_tx.testing.client import Client
from lhttp_tx.testing.server import Server

if TYPE_CHECKING:
    from lhttp_tx.testing.bus import BusContract
    from lhttp_tx.testing.history import HistoryContract

__all__ = ["BusContract", "Client", "HistoryContract", "Server"]

_CONTRACTS = {"BusContract": ("bus",), "HistoryContract": ("bus", "history_model", "history_cases", "history")}
"""The modules of each contract. The last module defines the contract."""


def __getattr__(name: str) -> Any:
    """
    Import a contract on first use, because only contracts need pytest, and only the one of stores needs hypothesis.
    """
    if name not in _CONTRACTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import pytest

    modules = [f"lhttp_tx.testing.{module}" for module in _CONTRACTS[name]]
    pytest.register_assert_rewrite(*(module for module in modules if module not in sys.modules))
    return getattr(importlib.import_module(modules[-1]), name)
