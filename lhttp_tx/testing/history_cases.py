"""
The contract tests for history stores that are about keeping, losing and reading messages.

Imported only by :mod:`lhttp_tx.testing.history`.
"""

from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred

from lhttp_tx.codec.positions import offsets_of, parse_position, unmarked
from lhttp_tx.history.values import Page, Placing, Retention
from lhttp_tx.testing.bus import done
from lhttp_tx.testing.history_model import RETENTIONS, payload_of

__all__ = ["PLAIN", "Keeping", "Losing", "Reading", "Stores", "plain"]

PLAIN, FEW, SMALL, SHORT = RETENTIONS


def plain(page: Page) -> list[bytes]:
    """Return the payloads of a page as they were published, without the headers of the store."""
    return [unmarked(stored.payload) for stored in page.messages]


async def page_of(result: Page | Deferred[Page]) -> Page:
    """Return the page of a read, which a store may return immediately or later."""
    return await result if isinstance(result, Deferred) else result


class Stores:
    """The base class of the contract tests of a store."""

    window = 2.0
    """The seconds for which a store must remember message ids."""

    outlives = False
    """Whether a store still has its messages after :meth:`restart`."""

    knows_gone = True
    """Whether the oldest message of a channel has the offset of the one before it, even though that one is gone."""

    bounds_bytes = True
    """Whether the store bounds the bytes of each channel."""

    def make_store(self) -> Any:
        """Return a new empty store that has not started. Its history classes are ``RETENTIONS``."""
        raise NotImplementedError

    async def pass_time(self, seconds: float) -> None:
        """Wait until *seconds* have passed for every store that was made."""
        raise NotImplementedError

    async def settle(self, store: Any) -> None:
        """Wait until all messages that *store* has confirmed can be read."""

    async def restart(self, store: Any) -> Any:
        """Stop *store*, and return a started store with the same contents. Only called if ``outlives`` is set."""
        await store.stop()
        await store.start()
        return store

    @pytest_twisted.async_yield_fixture
    async def store(self) -> Any:
        store = self.make_store()
        await store.start()
        yield store
        await store.stop()

    async def put(
        self, store: Any, channel: str, retention: Retention, payloads: list[bytes], binary: bool = False
    ) -> list[int]:
        """Append payloads, wait until they are confirmed, and return their offsets."""
        if store.spreads:
            placings = [Placing(channel) for _ in payloads]
            for payload, placing in zip(payloads, placings, strict=True):
                store.append(channel, retention, [payload], binary, placing)
            await done(store.confirm())
            await self.settle(store)
            return [parse_position(str(placing.position))[1] for placing in placings]
        marked = store.append(channel, retention, payloads, binary)
        await done(store.confirm())
        return [offsets_of(payload)[0] for payload in marked]

    async def place(self, store: Any, channel: str, retention: Retention, message_id: str, payload: bytes) -> Placing:
        """Append a payload with a message id, wait until it is confirmed, and return its placing."""
        placing = Placing(channel, message_id)
        marked = store.append(channel, retention, [payload], False, placing)
        assert not (store.spreads and marked)
        await done(store.confirm())
        await self.settle(store)
        assert store.spreads or bool(marked) is not placing.duplicate
        return placing

    async def read(
        self, store: Any, channel: str, retention: Retention, after: int = 0, limit: int = 10_000, size: int = 2**30
    ) -> Page:
        return await page_of(store.read(channel, retention, after=after, limit=limit, size=size))

    async def newest(
        self, store: Any, channel: str, retention: Retention, before: int = 0, limit: int = 10_000, size: int = 2**30
    ) -> Page:
        return await page_of(store.newest(channel, retention, before=before, limit=limit, size=size))


class Keeping(Stores):
    """A store keeps appended messages, in order and with their offsets."""

    @pytest_twisted.ensureDeferred
    async def test_what_is_appended_is_read_in_order(self, store: Any) -> None:
        payloads = [payload_of(number) for number in range(100)]
        for payload in payloads:
            store.append("room", PLAIN, [payload], False)
        await self.settle(store)
        await done(store.confirm())
        page = await self.read(store, "room", PLAIN)
        assert plain(page) == payloads
        assert page.reaches and not page.more and page.total == 100

    @pytest_twisted.ensureDeferred
    async def test_offsets_rise_and_each_message_names_the_one_before(self, store: Any) -> None:
        offsets = {
            channel: [
                *await self.put(store, channel, PLAIN, [payload_of(1), payload_of(2)]),
                *await self.put(store, "other", PLAIN, [payload_of(3)]),
                *await self.put(store, channel, PLAIN, [payload_of(4)]),
            ]
            for channel in ("a", "b")
        }
        for channel, (first, second, _, third) in offsets.items():
            page = await self.read(store, channel, PLAIN)
            assert [stored.offset for stored in page.messages] == [first, second, third]
            marks = [offsets_of(stored.payload) for stored in page.messages]
            assert 0 < first < second < third
            assert marks == [(first, 0), (second, first), (third, second)]

    @pytest_twisted.ensureDeferred
    async def test_subscribers_get_what_is_kept(self, store: Any) -> None:
        marked = store.append("room", PLAIN, [payload_of(1), payload_of(2)], False)
        await done(store.confirm())
        await self.settle(store)
        page = await self.read(store, "room", PLAIN)
        assert marked == ([] if store.spreads else [stored.payload for stored in page.messages])

    @pytest_twisted.ensureDeferred
    async def test_marks_that_a_publication_brings_are_taken_out(self, store: Any) -> None:
        payload = b"LHTTP/1.0 chat\r\na:1\r\nOffset:77\r\nAFTER:9\r\n\r\noffset:5\r\n"
        (offset,) = await self.put(store, "room", PLAIN, [payload])
        (stored,) = (await self.read(store, "room", PLAIN)).messages
        assert unmarked(stored.payload) == b"LHTTP/1.0 chat\r\na:1\r\n\r\noffset:5\r\n"
        assert offsets_of(stored.payload) == (offset, 0)

    @pytest_twisted.ensureDeferred
    async def test_appended_payloads_are_not_changed(self, store: Any) -> None:
        payloads = [payload_of(1), payload_of(2)]
        await self.put(store, "room", PLAIN, payloads)
        assert payloads == [payload_of(1), payload_of(2)]

    @pytest_twisted.ensureDeferred
    async def test_a_run_is_kept_whole(self, store: Any) -> None:
        run = [payload_of(number, size=number) for number in range(300)]
        offsets = await self.put(store, "room", PLAIN, run)
        page = await self.read(store, "room", PLAIN)
        assert plain(page) == run
        assert [stored.offset for stored in page.messages] == offsets
        assert [offsets_of(stored.payload)[1] for stored in page.messages] == [0, *offsets[:-1]]

    @pytest_twisted.ensureDeferred
    async def test_binary_stays_binary(self, store: Any) -> None:
        payload = b"LHTTP/1.0 chat\r\n\r\n\xff\x00"
        await self.put(store, "room", PLAIN, [payload], binary=True)
        await self.put(store, "room", PLAIN, [payload_of(1)])
        page = await self.read(store, "room", PLAIN)
        assert plain(page) == [payload, payload_of(1)]
        assert [stored.binary for stored in page.messages] == [True, False]

    @pytest.mark.parametrize("channel", ["a.b.c", "é.日本", "with:colon", "a" * 255, "*x", "x>", "a,b;c", "100%"])
    @pytest_twisted.ensureDeferred
    async def test_every_valid_channel_name_works(self, store: Any, channel: str) -> None:
        await self.put(store, channel, PLAIN, [payload_of(1)])
        assert plain(await self.read(store, channel, PLAIN)) == [payload_of(1)]

    @pytest_twisted.ensureDeferred
    async def test_channels_that_differ_in_case_are_different(self, store: Any) -> None:
        await self.put(store, "Room", PLAIN, [payload_of(1)])
        assert plain(await self.read(store, "room", PLAIN)) == []

    @pytest_twisted.ensureDeferred
    async def test_classes_have_their_own_bounds(self, store: Any) -> None:
        for number in range(FEW.messages + 1):
            await self.put(store, "few", FEW, [payload_of(number)])
            await self.put(store, "plain", PLAIN, [payload_of(number)])
        assert (await self.read(store, "few", FEW)).total == FEW.messages
        assert (await self.read(store, "plain", PLAIN)).total == FEW.messages + 1


class Losing(Stores):
    """A store keeps its bounds, and reports lost messages."""

    @pytest.mark.parametrize("run", [1, 3, 25])
    @pytest_twisted.ensureDeferred
    async def test_the_oldest_of_too_many_go(self, store: Any, run: int) -> None:
        offsets: list[int] = []
        while len(offsets) < FEW.messages * 2:
            numbers = range(len(offsets), len(offsets) + run)
            offsets += await self.put(store, "room", FEW, [payload_of(number) for number in numbers])
        page = await self.read(store, "room", FEW)
        kept = offsets[-FEW.messages :]
        assert [stored.offset for stored in page.messages] == kept
        assert not page.reaches and page.total == FEW.messages
        lost = offsets[-FEW.messages - 1]
        assert (await self.read(store, "room", FEW, lost)).reaches
        assert not (await self.read(store, "room", FEW, lost - 1)).reaches

    @pytest_twisted.ensureDeferred
    async def test_the_oldest_of_too_many_bytes_go(self, store: Any) -> None:
        if not self.bounds_bytes:
            pytest.skip("this store does not bound the bytes of each channel")
        offsets: list[int] = []
        for number in range(10):
            offsets += await self.put(store, "room", SMALL, [payload_of(number, size=SMALL.size // 4)])
        page = await self.read(store, "room", SMALL)
        found = [stored.offset for stored in page.messages]
        assert found and found == offsets[-len(found) :]
        assert sum(len(stored.payload) for stored in page.messages) <= SMALL.size
        assert not page.reaches
        assert (await self.read(store, "room", SMALL, found[0] - 1)).reaches

    @pytest_twisted.ensureDeferred
    async def test_what_is_too_old_goes(self, store: Any) -> None:
        (old,) = await self.put(store, "room", SHORT, [payload_of(1)])
        await self.pass_time(SHORT.age * 0.75)
        (new,) = await self.put(store, "room", SHORT, [payload_of(2)])
        await self.pass_time(SHORT.age * 0.5)
        page = await self.read(store, "room", SHORT)
        assert [stored.offset for stored in page.messages] == [new]
        assert not page.reaches and page.total == 1
        assert (await self.read(store, "room", SHORT, old)).reaches
        assert [stored.offset for stored in (await self.newest(store, "room", SHORT)).messages] == [new]

    @pytest_twisted.ensureDeferred
    async def test_a_channel_whose_messages_are_all_too_old_is_empty(self, store: Any) -> None:
        offsets = await self.put(store, "room", SHORT, [payload_of(1), payload_of(2)])
        await self.pass_time(SHORT.age * 2)
        for after in (0, offsets[0]):
            page = await self.read(store, "room", SHORT, after)
            assert page.messages == [] and page.total == 0 and not page.reaches
        page = await self.read(store, "room", SHORT, offsets[1])
        assert page.messages == [] and page.reaches
        assert (await self.newest(store, "room", SHORT)).total == 0

    @pytest_twisted.ensureDeferred
    async def test_what_is_removed_is_gone_and_missed(self, store: Any) -> None:
        offsets = await self.put(store, "room", PLAIN, [payload_of(1), payload_of(2)])
        await self.put(store, "other", PLAIN, [payload_of(3)])
        await done(store.remove("room", PLAIN))
        page = await self.read(store, "room", PLAIN, offsets[0])
        assert page.messages == [] and not page.reaches and page.total == 0
        assert (await self.read(store, "room", PLAIN, offsets[1])).reaches
        assert plain(await self.read(store, "other", PLAIN)) == [payload_of(3)]

    @pytest_twisted.ensureDeferred
    async def test_offsets_go_on_behind_what_was_removed(self, store: Any) -> None:
        (first,) = await self.put(store, "room", PLAIN, [payload_of(1)])
        await done(store.remove("room", PLAIN))
        await done(store.remove("never", PLAIN))
        (second,) = await self.put(store, "room", PLAIN, [payload_of(2)])
        assert second > first
        page = await self.read(store, "room", PLAIN, first)
        assert plain(page) == [payload_of(2)] and page.reaches
        assert offsets_of(page.messages[0].payload) == (second, first)


class Reading(Stores):
    """A page begins and ends at the requested positions."""

    @pytest_twisted.ensureDeferred
    async def test_reading_begins_behind_an_offset(self, store: Any) -> None:
        offsets: list[int] = []
        for number in range(10):
            offsets += await self.put(store, "room", PLAIN, [payload_of(number)])
            await self.put(store, "other", PLAIN, [payload_of(number)])
        for index, after in enumerate(offsets, 1):
            page = await self.read(store, "room", PLAIN, after)
            assert [stored.offset for stored in page.messages] == offsets[index:]
            assert page.reaches and not page.more and page.total == 10 - index and page.tip >= offsets[-1]

    @pytest_twisted.ensureDeferred
    async def test_reading_goes_page_by_page(self, store: Any) -> None:
        offsets = await self.put(store, "room", PLAIN, [payload_of(number) for number in range(10)])
        found: list[int] = []
        for total in (10, 7, 4, 1):
            page = await self.read(store, "room", PLAIN, found[-1] if found else 0, limit=3)
            assert page.total == total and page.more is (total > 3) and page.reaches
            found += [stored.offset for stored in page.messages]
        assert found == offsets

    @pytest_twisted.ensureDeferred
    async def test_a_page_ends_with_the_message_that_fills_it(self, store: Any) -> None:
        offsets = await self.put(store, "room", PLAIN, [payload_of(number, size=1000) for number in range(10)])
        for size, count in ((1, 1), (1000, 1), (2500, 3), (2**30, 10)):
            page = await self.read(store, "room", PLAIN, size=size)
            assert [stored.offset for stored in page.messages] == offsets[:count]
            assert page.total == 10
            page = await self.newest(store, "room", PLAIN, size=size)
            assert [stored.offset for stored in page.messages] == offsets[10 - count :]
            assert page.total == 10

    @pytest_twisted.ensureDeferred
    async def test_the_newest_come_oldest_first(self, store: Any) -> None:
        offsets = await self.put(store, "room", PLAIN, [payload_of(number) for number in range(10)])
        page = await self.newest(store, "room", PLAIN, limit=3)
        assert [stored.offset for stored in page.messages] == offsets[-3:]
        assert page.total == 10 and page.tip >= offsets[-1]
        page = await self.newest(store, "room", PLAIN, before=offsets[-3], limit=5)
        assert [stored.offset for stored in page.messages] == offsets[2:7]
        assert page.total == 7
        page = await self.newest(store, "room", PLAIN, before=offsets[0])
        assert page.messages == [] and page.total == 0 and not page.more

    @pytest_twisted.ensureDeferred
    async def test_what_was_appended_just_now_is_read(self, store: Any) -> None:
        for number in range(1, 20):
            store.append("room", PLAIN, [payload_of(number)], False)
            page = await (self.newest if number % 2 else self.read)(store, "room", PLAIN)
            assert plain(page) == [payload_of(each) for each in range(1, number + 1)]
            assert page.tip >= page.messages[-1].offset

    @pytest_twisted.ensureDeferred
    async def test_the_last_position_of_another_channel_is_good_at_once(self, store: Any) -> None:
        await self.put(store, "room", PLAIN, [payload_of(1)])
        placing = Placing("other")
        store.append("other", PLAIN, [payload_of(2)], False, placing)
        if placing.position is None:
            await done(store.confirm())
        page = await self.read(store, "room", PLAIN, parse_position(str(placing.position))[1])
        assert page.reaches and page.messages == []

    @pytest_twisted.ensureDeferred
    async def test_what_was_removed_just_now_is_not_read(self, store: Any) -> None:
        await self.put(store, "room", PLAIN, [payload_of(1)])
        removing = store.remove("room", PLAIN)
        page = await self.read(store, "room", PLAIN)
        assert page.messages == [] and not page.reaches
        await done(removing)

    @pytest_twisted.ensureDeferred
    async def test_a_channel_that_never_had_a_message_is_complete(self, store: Any) -> None:
        await self.put(store, "other", PLAIN, [payload_of(1)])
        page = await self.read(store, "room", PLAIN)
        assert page.messages == [] and page.reaches and page.total == 0
        page = await self.newest(store, "room", PLAIN)
        assert page.messages == [] and page.total == 0

    @pytest_twisted.ensureDeferred
    async def test_a_quiet_channel_is_complete_from_its_tip_on(self, store: Any) -> None:
        await self.put(store, "room", PLAIN, [payload_of(1)])
        tips = [(await self.newest(store, "room", PLAIN)).tip]
        for number in range(20):
            await self.put(store, "other", PLAIN, [payload_of(number)])
            tips.append((await self.read(store, "room", PLAIN, tips[-1])).tip)
        await self.put(store, "room", PLAIN, [payload_of(2)])
        for tip in tips:
            page = await self.read(store, "room", PLAIN, tip)
            assert page.reaches and plain(page) == [payload_of(2)]

    @pytest_twisted.ensureDeferred
    async def test_what_is_not_there_yet_cannot_be_reached(self, store: Any) -> None:
        await self.put(store, "room", PLAIN, [payload_of(1)])
        tip = (await self.read(store, "room", PLAIN)).tip
        assert not (await self.read(store, "room", PLAIN, tip + 1_000_000)).reaches
