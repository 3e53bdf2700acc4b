"""What a server counts of its publications and deliveries."""

from __future__ import annotations

from lhttp_tx import Message
from lhttp_tx.testing import Server


def test_deliveries_are_counted_with_their_bytes() -> None:
    server = Server(metrics=True)
    counters = server.assembly.counters
    assert counters is not None
    readers = [server.connect(), server.connect()]
    for reader in readers:
        reader.send(Message("x", {"subscribe": "room"}))
    session = server.connect().session
    run = [Message("chat", {"publish": "room"}, "x" * size).raw for size in (0, 1, 5, 90_000, 3)]
    server.engine.hub.cork()
    position = 0
    while position < len(run):
        position = session.receive_run(run, position, False)
    server.engine.hub.uncork()
    assert [len(reader.take()) for reader in readers] == [4, 4], "one is too large"
    passed = [payload for payload in run if len(payload) < 65_536]
    assert counters.publications == 4
    assert counters.deliveries == 2 * 4
    assert counters.delivered_bytes == 2 * sum(map(len, passed))
