"""
Spares the garbage collector what a server has loaded.

Used by :mod:`lhttp_tx.twistd.tap` and :mod:`lhttp_tx.twistd.worker`. The memory belongs to the process, so an embedded
server leaves it alone.
"""

from __future__ import annotations

import gc

from twisted.internet.defer import Deferred

__all__ = ["freeze_when"]


def freeze_when(started: Deferred[None]) -> None:
    """
    Let the garbage collector leave alone what there is once a server has started.

    The modules and what they made stay until the process ends. They have hundreds of thousands of objects. Each full
    collection would look at all of them, and the clients would wait for a tenth of a second meanwhile. Clients that
    come and go cause such collections.

    :param started: succeeds when the server has started.
    """

    def freeze(_: None) -> None:
        gc.collect()
        gc.freeze()

    started.addCallbacks(freeze, lambda _: None)  # others tell why it did not start
