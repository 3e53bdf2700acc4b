"""What a stream tells of itself, and what is made of it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from lhttp_tx.bus.nats.jetstream import streams
from lhttp_tx.bus.nats.jetstream.settings import StreamSettings, wanted_config
from lhttp_tx.bus.nats.jetstream.streams import Stream
from lhttp_tx.errors import HistoryUnavailable
from lhttp_tx.history.values import DEFAULT_RETENTION

SETTINGS = StreamSettings()


class JetStream:
    """Answers questions about one stream, of which a test says how far it is."""

    def __init__(self) -> None:
        self.last = 0
        self.config: dict[str, Any] = wanted_config("lhttp.", DEFAULT_RETENTION, SETTINGS)
        self.updates = 0

    async def ask(self, _: object, what: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        if what.startswith("STREAM.UPDATE"):
            assert body is not None
            self.updates += 1
            self.config = body
        state = {"last_seq": self.last, "first_seq": 1, "messages": self.last}
        times = {"created": "2026-11-28T10:00:00Z", "ts": "2026-11-28T10:01:00Z"}
        return {"config": self.config, "state": state, **times}


def look(world: JetStream, *lasts: int, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the epoch at each look, or why there is none."""

    async def found() -> list[str]:
        stream = Stream(DEFAULT_RETENTION, "lhttp.", SETTINGS, lambda: None, lambda *_: None)
        told = []
        for world.last in lasts:
            try:
                told.append((await stream.look()).epoch)
            except HistoryUnavailable as error:
                told.append(error.reason)
        return told

    monkeypatch.setattr(streams, "ask", world.ask)
    return asyncio.run(found())


def test_a_leader_that_was_stopped_and_tells_less_for_a_moment_is_not_believed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = JetStream()
    first, second, third = look(world, 5, 3, 6, monkeypatch=monkeypatch)
    assert "reports less than before" in second
    assert first == third
    assert world.updates == 0


def test_a_stream_that_goes_on_telling_less_has_a_new_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "_SUSPICION", 0.0)
    world = JetStream()
    first, second = look(world, 5, 3, monkeypatch=monkeypatch)
    assert second == f"{first}_1"
    assert world.updates == 1
