"""
A second SIGTERM or SIGINT, while the first one is obeyed.

:mod:`lhttp_tx.tap` and :mod:`lhttp_tx.worker` use it: signals belong to the process, so a server that is embedded in
another program leaves them alone.
"""

from __future__ import annotations

import signal
from types import FrameType
from typing import Any

from twisted.logger import Logger

__all__ = ["stop_once"]

_log = Logger()


def stop_once(reactor: Any) -> None:
    """
    Let the first signal stop *reactor*, and further ones change nothing.

    Twisted would take each of them for a fault: the log would have a traceback about a reactor that does not run.
    """

    def again(number: int, frame: FrameType | None) -> None:
        # A signal can come in the middle of anything, such as writing to the log.
        reactor.callFromThread(_log.info, "stopping already; SIGKILL ends it at once")

    def stopping() -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, again)

    reactor.addSystemEventTrigger("before", "shutdown", stopping)
