"""
The contract tests for history stores, for all implementations of :class:`~lhttp_tx.interfaces.IHistoryStore`.

A subclass makes the stores, and makes time pass::

    from lhttp_tx.testing import HistoryContract

    class TestMyHistory(HistoryContract):
        clock = Clock()

        def make_store(self):
            return MyHistory(self.clock, window=self.window)

        async def pass_time(self, seconds):
            self.clock.advance(seconds)

The tests need pytest, pytest-twisted and hypothesis. Nothing else in :mod:`lhttp_tx.testing` needs hypothesis, so this
module is imported only on first use.
"""

from typing import Any, cast

import pytest
import pytest_twisted
from hypothesis import HealthCheck, given, settings
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.threads import blockingCallFromThread, deferToThread
from zope.interface.verify import verifyObject

from lhttp_tx.codec.positions import format_position, offsets_of, parse_position
from lhttp_tx.errors import HistoryUnavailable
from lhttp_tx.history.values import Placing
from lhttp_tx.interfaces import IHistoryStore
from lhttp_tx.testing.bus import done
from lhttp_tx.testing.history_cases import PLAIN, Keeping, Losing, Reading, Stores, plain
from lhttp_tx.testing.history_model import RETENTIONS, Model, payload_of, stories

__all__ = ["RETENTIONS", "HistoryContract"]


class _Placing(Stores):
    """A publisher gets the position of its publication. A duplicate is not stored again."""

    @pytest_twisted.ensureDeferred
    async def test_a_placing_tells_the_position(self, store: Any) -> None:
        placing = await self.place(store, "room", PLAIN, "m1", payload_of(1))
        (stored,) = (await self.read(store, "room", PLAIN)).messages
        assert placing.position == format_position(store.epoch_of(PLAIN), stored.offset)
        assert not placing.duplicate and placing.failure is None

    @pytest_twisted.ensureDeferred
    async def test_a_message_id_is_taken_once_in_a_channel(self, store: Any) -> None:
        first = await self.place(store, "room", PLAIN, "m1", payload_of(1))
        await self.put(store, "room", PLAIN, [payload_of(2)])
        again = await self.place(store, "room", PLAIN, "m1", payload_of(3))
        assert again.duplicate and again.position == first.position
        others = [
            await self.place(store, *where, payload_of(4)) for where in (("a", PLAIN, "m1"), ("room", PLAIN, "M1"))
        ]
        assert [other.duplicate for other in others] == [False, False]
        assert plain(await self.read(store, "room", PLAIN)) == [payload_of(1), payload_of(2), payload_of(4)]

    @pytest_twisted.ensureDeferred
    async def test_a_message_id_is_known_before_it_is_safe(self, store: Any) -> None:
        placings = [Placing("room", "m1") for _ in range(3)]
        for placing in placings:
            store.append("room", PLAIN, [payload_of(1)], False, placing)
        await done(store.confirm())
        await self.settle(store)
        assert [placing.duplicate for placing in placings] == [False, True, True]
        assert len({placing.position for placing in placings}) == 1
        assert (await self.read(store, "room", PLAIN)).total == 1

    @pytest_twisted.ensureDeferred
    async def test_a_message_id_is_known_when_its_message_is_gone(self, store: Any) -> None:
        first = await self.place(store, "room", PLAIN, "m1", payload_of(1))
        await done(store.remove("room", PLAIN))
        again = await self.place(store, "room", PLAIN, "m1", payload_of(1))
        assert again.duplicate and again.position == first.position

    @pytest_twisted.ensureDeferred
    async def test_a_message_id_may_come_again_after_the_window(self, store: Any) -> None:
        await self.place(store, "room", PLAIN, "m1", payload_of(1))
        await self.pass_time(self.window / 2)
        assert (await self.place(store, "room", PLAIN, "m1", payload_of(1))).duplicate
        await self.pass_time(self.window)
        assert not (await self.place(store, "room", PLAIN, "m1", payload_of(2))).duplicate
        assert plain(await self.read(store, "room", PLAIN)) == [payload_of(1), payload_of(2)]

    @pytest_twisted.ensureDeferred
    async def test_a_placing_without_message_id_is_never_a_duplicate(self, store: Any) -> None:
        placings = [Placing("room"), Placing("room")]
        for placing in placings:
            store.append("room", PLAIN, [payload_of(1)], False, placing)
        await done(store.confirm())
        assert len({placing.position for placing in placings}) == 2
        assert [placing.duplicate for placing in placings] == [False, False]


class _Living(Stores):
    """A store has a description, starts, and stops."""

    def test_provides_the_interface(self) -> None:
        assert verifyObject(IHistoryStore, self.make_store())

    def test_describes_itself_for_the_log(self) -> None:
        store = self.make_store()
        assert store.description and "\n" not in store.description

    @pytest_twisted.ensureDeferred
    async def test_a_store_that_runs_is_available_and_has_an_epoch(self, store: Any) -> None:
        assert store.available and store.trouble == ""
        assert parse_position(format_position(store.epoch_of(PLAIN), 1)) == (store.epoch_of(PLAIN), 1)

    @pytest_twisted.ensureDeferred
    async def test_many_may_ask_for_confirmation_at_once(self, store: Any) -> None:
        asked: list[Deferred[None] | None] = []
        for number in range(100):
            store.append("room", PLAIN, [payload_of(number)], False)
            asked.append(store.confirm())
        for each in asked:
            await done(each)
        await self.settle(store)
        assert (await self.read(store, "room", PLAIN)).total == 100

    @pytest_twisted.ensureDeferred
    async def test_nothing_has_to_be_appended_to_be_confirmed(self, store: Any) -> None:
        await done(store.confirm())

    @pytest_twisted.ensureDeferred
    async def test_cancelling_one_confirmation_does_not_affect_others(self, store: Any) -> None:
        store.append("room", PLAIN, [payload_of(1)], False)
        first, second = store.confirm(), store.confirm()
        if first is not None:
            first.addErrback(lambda failure: None)
            first.cancel()
        await done(second)

    @pytest_twisted.ensureDeferred
    async def test_a_stopped_store_refuses_publications(self) -> None:
        store = self.make_store()
        await store.start()
        await store.stop()
        with pytest.raises(HistoryUnavailable):
            store.append("room", PLAIN, [payload_of(1)], False)

    @pytest_twisted.ensureDeferred
    async def test_a_store_that_was_never_started_can_be_stopped(self) -> None:
        await self.make_store().stop()

    @pytest_twisted.ensureDeferred
    async def test_a_store_that_is_started_anew_goes_on(self) -> None:
        store = self.make_store()
        await store.start()
        epoch, before = store.epoch_of(PLAIN), await self.put(store, "room", PLAIN, [payload_of(1), payload_of(2)])
        await store.stop()
        await store.start()
        assert store.available
        (after,) = await self.put(store, "room", PLAIN, [payload_of(3)])
        assert store.epoch_of(PLAIN) != epoch or after > before[-1]
        await store.stop()

    @pytest_twisted.ensureDeferred
    async def test_what_is_kept_outlives_the_process(self) -> None:
        if not self.outlives:
            pytest.skip("this store is gone with its process")
        store = self.make_store()
        await store.start()
        offsets = await self.put(store, "room", PLAIN, [payload_of(1), payload_of(2)])
        placing = await self.place(store, "other", PLAIN, "m1", payload_of(3))
        store.append("room", PLAIN, [payload_of(4)], False)
        epoch = store.epoch_of(PLAIN)
        store = await self.restart(store)
        assert store.epoch_of(PLAIN) == epoch
        again = await self.place(store, "other", PLAIN, "m1", payload_of(5))
        assert again.duplicate and again.position == placing.position
        (last,) = await self.put(store, "room", PLAIN, [payload_of(6)])
        page = await self.read(store, "room", PLAIN, offsets[0])
        assert plain(page) == [payload_of(2), payload_of(4), payload_of(6)] and page.reaches
        assert last == page.messages[-1].offset
        assert offsets_of(page.messages[-1].payload)[1] == page.messages[-2].offset
        await store.stop()


class _Modelled(Stores):
    """After any operations, a store has the same contents as the model, which is a list of all appended messages."""

    examples = 60
    """How many stories (lists of operations) are tried."""

    @pytest_twisted.ensureDeferred
    async def test_a_store_is_never_wrong_about_what_it_has(self) -> None:
        from twisted.internet import reactor  # noqa: TID251 - the one that runs the test

        def play(story: list[tuple[Any, ...]]) -> Any:
            return ensureDeferred(self._play(story))

        @settings(max_examples=self.examples, deadline=None, suppress_health_check=list(HealthCheck))
        @given(stories(self.outlives))
        def try_all(story: list[tuple[Any, ...]]) -> None:
            blockingCallFromThread(cast(Any, reactor), play, story)

        await deferToThread(try_all)

    async def _play(self, story: list[tuple[Any, ...]]) -> None:
        model = Model(self.window, self.knows_gone)
        store = self.make_store()
        await store.start()
        try:
            for name, *values in [*story, *(("read", index, 0.0, 10_000, 2**30) for index in range(len(RETENTIONS)))]:
                if name == "restart":
                    store = await self.restart(store)
                elif name == "pass_time":
                    await self.pass_time(*values)
                    model.now += values[0]
                else:
                    await getattr(self, f"_{name}")(store, model, *values)
        finally:
            await store.stop()

    async def _append(self, store: Any, model: Model, index: int, count: int, size: int) -> None:
        payloads = model.payloads(count, size)
        model.append(index, await self.put(store, f"room.{index}", RETENTIONS[index], payloads), payloads)

    async def _place(self, store: Any, model: Model, index: int, number: int) -> None:
        known = model.known(index, f"m{number}")
        payloads = model.payloads(1)
        placing = await self.place(store, f"room.{index}", RETENTIONS[index], f"m{number}", payloads[0])
        epoch, offset = parse_position(str(placing.position))
        assert epoch == store.epoch_of(RETENTIONS[index])
        assert placing.duplicate is (known is not None)
        if known is None:
            model.append(index, [offset], payloads)
            model.note(index, f"m{number}", offset)
        else:
            assert offset == known

    async def _read(self, store: Any, model: Model, index: int, place: float, limit: int, size: int) -> None:
        after = int(place * model.last(index))
        page = await self.read(store, f"room.{index}", RETENTIONS[index], after, limit, size)
        model.check_read(index, page, after, limit, size)

    async def _newest(self, store: Any, model: Model, index: int, place: float, limit: int, size: int) -> None:
        before = int(place * model.last(index))
        page = await self.newest(store, f"room.{index}", RETENTIONS[index], before, limit, size)
        model.check_newest(index, page, before, limit, size)

    async def _remove(self, store: Any, model: Model, index: int) -> None:
        await done(store.remove(f"room.{index}", RETENTIONS[index]))
        model.remove(index)


class HistoryContract(Keeping, Losing, Reading, _Placing, _Living, _Modelled):
    """
    The contract of every history store, as tests.

    Override :meth:`make_store` and :meth:`pass_time`. If confirmed messages can be read only some time later, override
    :meth:`settle`. If messages outlive the process, set ``outlives`` and override :meth:`restart`.
    """
