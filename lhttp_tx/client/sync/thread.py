"""
The thread that runs the connection of a client of :mod:`lhttp_tx.client.sync`.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Coroutine
from concurrent.futures import CancelledError
from typing import Any, TypeVar, final

from lhttp_tx.client.errors import ClientClosed

__all__ = ["LoopThread"]

Result = TypeVar("Result")


@final
class LoopThread:
    """A thread that runs a loop."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._lock = threading.Lock()
        self._has_ended = False
        self._process = os.getpid()
        self._thread = threading.Thread(target=self._loop.run_forever, name="lhttp client", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        """
        Run *work* in the thread, and return its result. An exception in the waiting thread, such as Ctrl-C, cancels it.

        :raises ClientClosed: if the client is closed, or was made before a fork.
        :raises RuntimeError: if a callback calls this in the thread itself.
        """
        if os.getpid() != self._process:
            work.close()
            raise ClientClosed("the client was made before a fork: make one in each process")
        if threading.current_thread() is self._thread:
            work.close()
            raise RuntimeError("a callback of the client cannot wait for the client: use another thread")
        with self._lock:
            if self._has_ended:
                work.close()
                raise ClientClosed("the client was closed")
            future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except CancelledError:
            raise ClientClosed("the client was closed") from None
        except BaseException:
            future.cancel()
            raise

    def stop(self) -> None:
        """End the thread. Work that still runs in it is cancelled."""
        with self._lock:
            self._has_ended = True
            ending = asyncio.run_coroutine_threadsafe(_end_others(), self._loop)
        ending.result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()


async def _end_others() -> None:
    """Cancel all tasks except this one, and wait for them."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
