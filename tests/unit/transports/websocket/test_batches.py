"""What comes from another node in one piece is written to each subscriber in one piece."""

from __future__ import annotations

import pytest

from lhttp_tx.testing import Server
from lhttp_tx.transports.websocket.factory import LHTTPServerFactory
from unit.transports.websocket.test_protocol import connected, messages

pytest.importorskip("nats")


def test_publications_to_several_channels_that_arrive_together_are_one_write_in_their_order() -> None:
    from fake_nats import FakeNATS

    nats = FakeNATS()
    link = nats.start()
    server = Server(bus=nats.bus, clock=nats.clock)
    factory = LHTTPServerFactory(engine=server.engine, reactor=server.clock)
    both, one = connected(factory), connected(factory)
    both.send("LHTTP/1.0 chat\r\nsubscribe:a b\r\n\r\n")
    one.send("LHTTP/1.0 chat\r\nsubscribe:b\r\n\r\n")
    for peer in (both, one):
        peer.take()
    link.owner.begin_batch()
    for subject, payloads in (("a", [b"1", b"2"]), ("b", [b"3"]), ("a", [b"4"]), ("b", [b"5"])):
        link.owner.receive(link, f"lhttp.{subject}", payloads, False)
    assert both.transport.writes == one.transport.writes == []
    link.owner.end_batch()
    assert len(both.transport.writes) == len(one.transport.writes) == 1
    assert (messages(both.take()), messages(one.take())) == ([b"1", b"2", b"3", b"4", b"5"], [b"3", b"5"])
    link.receive("lhttp.b", b"6")
    assert [messages(peer.take()) for peer in (both, one)] == [[b"6"]] * 2
