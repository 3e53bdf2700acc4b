"""
Avoids a deprecated function in Autobahn on CPython 3.14 and later.

Autobahn calls ``onConnect`` and similar methods through txaio, which calls ``asyncio.iscoroutinefunction``. CPython
3.14 and later warn at each call of it, so once for each connection, and 3.16 will remove it. ``inspect`` has the same
function without the warning. Used by :mod:`lhttp_tx.transports.websocket.factory` and
:mod:`lhttp_tx.client.websocket.protocol`. Imports nothing of the project.
"""

from __future__ import annotations

import inspect
import sys
from typing import Any

from txaio import tx

__all__ = ["ask_inspect"]


def ask_inspect() -> None:
    """Make txaio use ``inspect``, in this process. Does nothing before CPython 3.14, or if txaio already uses it."""
    module: Any = tx
    if sys.version_info >= (3, 14) and hasattr(module, "iscoroutinefunction"):
        module.iscoroutinefunction = inspect.iscoroutinefunction
