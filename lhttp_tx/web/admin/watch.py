"""
Keeps incidents, samples and traces of one node, for operators at any node of the cluster.

:mod:`lhttp_tx.web.admin.service` has a :class:`Watch`. A worker without an admin side has one, too, because the first
worker asks all workers.
"""

from __future__ import annotations

import time
from typing import Any

from twisted.application.service import Service

from lhttp_tx.web.admin.incidents import Incidents
from lhttp_tx.web.admin.managed import Parts
from lhttp_tx.web.admin.rates import Rates
from lhttp_tx.web.admin.sampler import Sampler
from lhttp_tx.web.admin.traces import Traces

__all__ = ["Watch"]


class Watch(Service):
    """Watches one node while it runs, and answers the requests of other nodes."""

    def __init__(self, parts: Parts, reactor: Any) -> None:
        """
        :param parts: the server's parts. With ``Config(metrics=True)``, the times of reactor and bus are also sampled.
        :param reactor: the running reactor.
        """
        control = parts.control
        self._engine = parts.engine
        self._incidents = Incidents(reactor, time.time, control.name_of)
        self._rates = Rates(parts.engine, self._incidents, parts.counters, reactor, time.time)
        self._traces = Traces(parts.engine, lambda: parts.nodes.name, time.time, control.name_of)
        self._sampler = None if parts.counters is None else Sampler(parts.counters, parts.bus, reactor)
        control.questions |= {
            "incidents": self._incidents.newest,
            "rates": self._rates.newest,
            "trace": self._traces.ask,
        }

    def startService(self) -> None:
        """Begin to watch."""
        super().startService()
        self._incidents.start(self._engine)
        self._rates.start()
        if self._sampler is not None:
            self._sampler.start()

    def stopService(self) -> None:
        """Stop watching. Keep the data so far."""
        super().stopService()
        self._incidents.stop(self._engine)
        self._rates.stop()
        self._traces.stop()
        if self._sampler is not None:
            self._sampler.stop()
