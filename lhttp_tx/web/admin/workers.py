"""
Joins the metrics of several workers: each worker reports its own, and the first one gathers them.

Every sample gets a label ``worker`` with the number of its worker. Needs the extra ``metrics`` (prometheus-client).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.samples import Sample
from twisted.internet.defer import Deferred

from lhttp_tx.cluster.control import Control
from lhttp_tx.web.admin.managed import Siblings

__all__ = ["gather", "tell"]

_DO = "metrics"


def tell(control: Control, registry: CollectorRegistry, siblings: Siblings) -> None:
    """Report the metrics of this worker when one of *siblings* asks for them."""

    def answer(order: dict[str, Any]) -> Any:
        if order.get("group") != siblings.group:
            return None
        families = [
            [
                found.name,
                found.documentation,
                found.type,
                [[each.name, each.labels, each.value] for each in found.samples],
            ]
            for found in registry.collect()
        ]
        return {"worker": siblings.number, "families": families}

    control.add_answer(_DO, answer)


def gather(control: Control, siblings: Siblings) -> Deferred[CollectorRegistry]:
    """Return a Deferred that succeeds with the metrics of all of *siblings* that answer in time."""

    def merge(found: tuple[dict[str, Any], tuple[str, ...]]) -> CollectorRegistry:
        registry = CollectorRegistry()
        registry.register(_Gathered(found[0].values(), siblings.count))
        return registry

    return control.survey(_DO, group=siblings.group).addCallback(merge)


class _Gathered:
    """Yields the metrics that workers have reported."""

    def __init__(self, answers: Iterable[dict[str, Any]], count: int) -> None:
        self._answers = sorted(answers, key=lambda answer: int(answer["worker"]))
        self._count = count

    def collect(self) -> Iterator[Metric]:
        merged: dict[str, Metric] = {}
        for answer in self._answers:
            worker = str(answer["worker"])
            for name, documentation, kind, samples in answer["families"]:
                family = merged.setdefault(name, Metric(name, documentation, kind))
                family.samples += [Sample(each, {**labels, "worker": worker}, value) for each, labels, value in samples]
        yield from merged.values()
        yield GaugeMetricFamily("lhttp_workers", "Workers that told their metrics.", value=len(self._answers))
        yield GaugeMetricFamily("lhttp_workers_limit", "Workers that there should be.", value=self._count)
