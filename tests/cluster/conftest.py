"""The fixtures of the integration tests serve here too."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from integration._nats import NATSProcess
from integration.conftest import certificate, serve

__all__ = ["certificate", "nats", "serve"]


@pytest.fixture(scope="module")
def nats() -> Iterator[NATSProcess]:
    """One NATS server for all tests of a module."""
    process = NATSProcess()
    yield process
    process.stop()
