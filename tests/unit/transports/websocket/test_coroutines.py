"""lhttp_tx.transports.websocket.coroutines: what Autobahn asks about its callbacks warns of nothing, on any Python."""

import warnings

import txaio

from lhttp_tx.transports.websocket.coroutines import ask_inspect


def test_calling_a_callback_through_txaio_warns_of_nothing() -> None:
    ask_inspect()
    txaio.use_twisted()
    results: list[object] = []

    async def coroutine() -> str:
        return "from a coroutine"

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for callback in (coroutine, lambda: "from a function"):
            txaio.as_future(callback).addCallback(results.append)
    assert results == ["from a coroutine", "from a function"]
    assert caught == []
