"""Clients that get histories in another form, or compressed: pages are short, and the work is paid for."""

from __future__ import annotations

from typing import Any

import pytest

from lhttp_tx.client.results import history_page
from lhttp_tx.codec.limits import Limits
from lhttp_tx.codec.views import JSON, PROTOBUF
from lhttp_tx.engine.delivery import Delivery
from lhttp_tx.transports.websocket.coded import CodedFraming
from lhttp_tx.transports.websocket.frames import PLAIN
from unit.history.test_query import answer_of, ask
from unit.history.test_recovery import a_server, at, publish, subscribe, told


@pytest.mark.parametrize(("headers", "newest"), [({}, False), ({"order": "newest"}, True)])
def test_a_client_of_another_form_gets_short_pages_and_goes_on(headers: dict[str, str], newest: bool) -> None:
    server = a_server()
    publish(server, "room.a", *range(200))
    client = server.connect()
    client.transport.converts = True
    got: list[str] = []
    pages = 0
    while True:
        ask(client, limit="500", **headers)
        page = history_page(answer_of(client), "room.a")
        assert len(page) <= 64
        got += [message.text for message in page]
        pages += 1
        if not page.more:
            break
        headers = {**headers, "before": page.start} if newest else {"since": page.position}
    assert got == [str(number) for number in (range(199, -1, -1) if newest else range(200))]
    assert pages == 4


def test_many_headers_make_the_page_of_another_form_shorter() -> None:
    server = a_server()
    for number in range(60):
        server.engine.publish("room.a", "say", [(f"h{name}", "x") for name in range(50)], str(number))
    client = server.connect()
    ask(client)
    assert len(history_page(answer_of(client), "room.a")) == 60
    client.transport.converts = True
    ask(client)
    page = history_page(answer_of(client), "room.a")
    assert 0 < len(page) < 20
    assert page.more
    ask(client, order="newest")
    assert [message.text for message in history_page(answer_of(client), "room.a")][:2] == ["59", "58"]


def test_one_message_with_very_many_headers_comes_alone() -> None:
    server = a_server(limits=Limits(header_count=2_000))
    for number in range(2):
        server.engine.publish("room.a", "say", [(f"h{name}", "x") for name in range(900)], str(number))
    client = server.connect()
    client.transport.converts = True
    ask(client)
    page = history_page(answer_of(client), "room.a")
    assert [message.text for message in page] == ["0"]
    assert page.more


@pytest.mark.parametrize("form", ["converts", "compresses"])
def test_each_form_of_a_recovery_pays_for_its_work(form: str) -> None:
    server = a_server()
    publish(server, "room.a", *range(400))
    turns = server.assembly.histories.archive.turns
    spent: list[int] = []
    for encodings in ([], [PLAIN], [CodedFraming(JSON, PLAIN)], [CodedFraming(PROTOBUF, PLAIN)]):
        client = server.connect()
        setattr(client.transport, form, bool(encodings))
        deliver = client.transport.deliver

        def take(delivery: Delivery, encodings: list[Any] = encodings, deliver: Any = deliver) -> None:
            for encoding in encodings:
                delivery.encoded(encoding)
            deliver(delivery)

        client.transport.deliver = take  # type: ignore[method-assign]
        before = server.clock.seconds()
        subscribe(client, "room.a", since=at(server, 0))
        while "399" not in told(client):
            server.clock.advance(0)
        assert server.clock.seconds() == before
        spent.append(int(turns._accounts[client.session]._burst - turns._accounts[client.session]._level))
    assert spent[1] > 2 * spent[0]
    assert spent[2] > 2 * spent[0]
    assert spent[3] > 2 * spent[0]
