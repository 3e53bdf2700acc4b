"""What the tests of guards share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from twisted.logger import LogEvent, formatEvent, globalLogPublisher


@pytest.fixture
def lines() -> Iterator[list[str]]:
    """What is written to the log."""
    found: list[str] = []

    def observe(event: LogEvent) -> None:
        found.append(f"{event['log_level'].name}: {formatEvent(event)}")

    globalLogPublisher.addObserver(observe)
    yield found
    globalLogPublisher.removeObserver(observe)
