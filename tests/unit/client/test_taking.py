"""A coroutine of asyncio takes the items of a subscription, and is cancelled."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from lhttp_tx.client.subscription import Subscription, taken
from lhttp_tx.codec.message import Message


class Owner:
    def asked(self) -> None:
        pass


@pytest.mark.parametrize("order", ["cancelled first", "delivered first", "closed"])
def test_a_message_that_comes_in_the_turn_of_the_cancellation_stays(order: str) -> None:
    """The loop handles timers and sockets in one turn, and calls what waits for a future in the next."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        complaints: list[Any] = []
        loop.set_exception_handler(lambda _, context: complaints.append(context))
        subscription = Subscription(cast(Any, Owner()), "a", None, 10)
        first, second = Message("chat", body="1"), Message("chat", body="2")
        if order == "closed":
            reading: Any = taken(subscription, loop)
            reading.send(None)
            reading.close()
            subscription.deliver(first, "a", ("e", 0))
        else:
            reading = asyncio.create_task(taken(subscription, loop))
            await asyncio.sleep(0)
            steps = [reading.cancel, lambda: subscription.deliver(first, "a", ("e", 0))]
            for step in steps if order == "cancelled first" else reversed(steps):
                step()
            with pytest.raises(asyncio.CancelledError):
                await reading
        assert subscription.behind(in_hand=True) == ("e", 0)
        subscription.deliver(second, "a", ("e", 1))
        async with asyncio.timeout(5):
            assert [await taken(subscription, loop), await taken(subscription, loop)] == [first, second]
        await asyncio.sleep(0)
        assert complaints == []

    asyncio.run(main())
