"""What all tests share: a failure that is logged and that no test asked for fails the test."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import pytest
import txaio
from hypothesis import HealthCheck, settings
from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher

settings.register_profile("quick", max_examples=100, deadline=None)
settings.register_profile("thorough", max_examples=20_000, deadline=None, suppress_health_check=list(HealthCheck))
settings.load_profile("quick")  # or: pytest --hypothesis-profile=thorough

ATTACKS = frozenset(
    {
        *("test_hazards.py", "test_hazards_cost.py", "test_hazards_ends.py", "test_hazards_history.py"),
        *("test_hazards_slow.py", "test_hazards_tcp.py", "test_hazards_views.py"),
        *("test_exhaustion.py", "test_failed_starts.py", "test_fuzz.py", "test_limits.py", "test_soak.py"),
        "test_history_sqlite.py",
    }
)
"""Modules of ``integration`` that attack a server or use it for long: they wait more than they work."""

PAGES = frozenset(
    {
        *("test_browser.py", "test_dashboard.py", "test_docs.py", "test_events_browser.py", "test_examples.py"),
        *("test_dashboard_mute.py", "test_fallback_browser.py", "test_javascript.py"),
    }
)
"""Modules of ``integration`` that are about pages in browsers, the manual, and the examples."""

PROGRAMS = frozenset(
    {
        *(
            "test_admin.py",
            "test_admin_api.py",
            "test_grpc.py",
            "test_c_client.py",
            "test_cleanup.py",
            "test_client_history.py",
        ),
        *("test_client_fallback.py", "test_client_login.py"),
        *("test_command.py", "test_community.py", "test_config.py", "test_connect.py", "test_events.py"),
        *("test_logs.py", "test_manhole.py", "test_metrics.py", "test_options.py", "test_renewal.py"),
        *("test_mute.py", "test_upgrade_fails.py"),
        *("test_systemd.py", "test_tcp.py", "test_upgrade.py", "test_upstream_dead.py"),
        *("test_wildcards.py", "test_tracing.py"),
        *("test_container.py", "test_helm.py", "test_proxies.py"),
    }
)
"""Modules of ``integration`` that are about commands and options, each with programs of its own."""

ONCE = {
    "tests": {"test_benchmarks.py", "test_figures.py", "test_fuzz.py", "test_regular.py", "test_troubleshooting.py"},
    "integration": ATTACKS | PAGES | PROGRAMS | {"test_auth.py", "test_bursts.py", "test_http.py"},
    "cluster": {
        *("test_cluster_access.py", "test_cluster_nodes.py", "test_cluster_outages.py", "test_cluster_start.py"),
        *("test_cluster_cut_off.py", "test_departure.py", "test_returning.py"),
        *("test_bus_nats.py", "test_link_nats.py", "test_presence_cluster.py", "test_workers.py"),
        *("test_cluster_receipts.py", "test_cluster_rules.py", "test_link_confirm.py", "test_workers_rules.py"),
        *("test_jetstream.py", "test_jetstream_cluster.py", "test_jetstream_contract.py"),
        "test_jetstream_space.py",
        *("test_connect_cluster.py", "test_tracing_cluster.py"),
    },
}
"""
Modules, by folder, for which one Python is enough: their tests look at the same files and pages whichever runs them, or
take long and are about other processes.
"""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """
    Mark what the environments of tox run apart, and leave out what needs another reactor.

    Tests of the modules in :data:`ATTACKS`, :data:`PAGES`, :data:`PROGRAMS` and :data:`ONCE` get a marker of that name.
    """
    other = pytest.mark.skip(reason="needs Twisted's asyncio reactor: pytest --reactor=asyncio")
    for item in items:
        folder, name = item.path.parent.name, item.path.name
        if name in ONCE.get(folder, ()):
            item.add_marker("once")
        if folder == "integration" and name in ATTACKS:
            item.add_marker("attack")
        if folder == "integration" and name in PAGES:
            item.add_marker("page")
        if folder == "integration" and name in PROGRAMS:
            item.add_marker("program")
        if item.get_closest_marker("asyncio_reactor") and config.getoption("reactor") != "asyncio":
            item.add_marker(other)


@pytest.fixture
def clock() -> Iterator[Clock]:
    """A clock that stands still, for Autobahn's timers too: these use one for the process, which is put back."""
    before, txaio.config.loop = txaio.config.loop, Clock()
    yield txaio.config.loop
    txaio.config.loop = before


@pytest.fixture
def failures() -> Iterator[list[Any]]:
    """The exceptions that are logged while a test runs; a test that causes some asks for this and looks at them."""
    found: list[Any] = []

    def observe(event: dict[str, Any]) -> None:
        if "log_failure" in event:
            found.append(event["log_failure"].value)

    globalLogPublisher.addObserver(observe)
    yield found
    globalLogPublisher.removeObserver(observe)


@pytest.fixture(autouse=True)
def _no_unexpected_failures(request: pytest.FixtureRequest, failures: list[Any]) -> Iterator[None]:
    """Fail a test that logs a failure without asking for :func:`failures`."""
    expected = "failures" in inspect.signature(request.function).parameters
    yield
    if not expected:
        assert failures == []
