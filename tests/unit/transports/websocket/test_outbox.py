"""The outbox: one write for each connection and read, in order."""

from collections.abc import Callable

import pytest
from twisted.internet.task import Clock

from lhttp_tx.bus.memory import MemoryBus
from lhttp_tx.engine.delivery import Delivery
from lhttp_tx.engine.hub import Hub
from lhttp_tx.transports.websocket import outbox as outbox_module
from lhttp_tx.transports.websocket.frames import PLAIN, build_frame
from lhttp_tx.transports.websocket.outbox import Outbox


@pytest.fixture(autouse=True)
def still(monkeypatch: pytest.MonkeyPatch) -> None:
    """No time passes, however slow the machine is; a test may let it."""
    monkeypatch.setattr(outbox_module, "perf_counter", lambda: 0.0)


class Connection:
    def __init__(self, outbox: Outbox) -> None:
        self.writes: list[bytes] = []
        self._outbox = outbox

    def deliver(self, delivery: Delivery) -> None:
        self.send_frame(delivery.encoded(PLAIN))

    def send_frame(self, frame: bytes) -> None:
        if self._outbox.corked:
            self._outbox.add(self, frame)
        else:
            self.write_frames(frame)

    def write_frames(self, frames: bytes) -> None:
        self.writes.append(frames)


def make() -> tuple[Hub, Outbox, Connection]:
    hub = Hub(bus=MemoryBus())
    outbox = Outbox(hub, Clock())
    connection = Connection(outbox)
    hub.subscribe(connection, "room", connection.deliver)
    return hub, outbox, connection


def test_what_one_read_causes_is_one_write() -> None:
    _, outbox, connection = make()
    outbox.cork()
    connection.send_frame(b"1")
    connection.send_frame(b"2")
    assert connection.writes == []
    outbox.uncork()
    assert connection.writes == [b"12"]


def test_a_run_of_publications_follows_what_was_gathered_before_it() -> None:
    hub, outbox, connection = make()
    outbox.cork()
    connection.send_frame(b"1")
    hub.publish(["room"], b"2", False)
    outbox.uncork()
    assert connection.writes == [b"1" + build_frame(b"2", False)]


def test_a_run_alone_is_written_without_a_copy() -> None:
    hub, outbox, connection = make()
    other = Connection(outbox)
    hub.subscribe(other, "room", other.deliver)
    outbox.cork()
    hub.publish(["room"], b"1", False)
    outbox.uncork()
    assert connection.writes[0] is other.writes[0]


def test_a_read_within_a_read_writes_when_the_outer_one_is_used_up() -> None:
    _, outbox, connection = make()
    outbox.cork()
    connection.send_frame(b"1")
    outbox.cork()
    connection.send_frame(b"2")
    outbox.uncork()
    assert connection.writes == []
    outbox.uncork()
    assert connection.writes == [b"12"]
    assert outbox.corked == 0


def test_what_is_gathered_is_bounded() -> None:
    _, outbox, connection = make()
    outbox.cork()
    for _ in range(10):
        connection.send_frame(bytes(100_000))
    assert sum(map(len, connection.writes)) >= 700_000
    outbox.uncork()
    assert sum(map(len, connection.writes)) == 1_000_000


def test_flushing_early_keeps_the_order() -> None:
    _, outbox, connection = make()
    outbox.cork()
    connection.send_frame(b"1")
    outbox.flush()
    connection.send_frame(b"2")
    outbox.uncork()
    assert connection.writes == [b"1", b"2"]


class Crowd:
    """A room, and reads of connections that publish there, all in one turn of the reactor until :meth:`turn`."""

    def __init__(self, count: int) -> None:
        self.clock = Clock()
        self.hub = Hub(bus=MemoryBus())
        self.outbox = Outbox(self.hub, self.clock)
        self.members = [Connection(self.outbox) for _ in range(count)]
        for member in self.members:
            self.hub.subscribe(member, "room", member.deliver)

    def read(self, body: bytes) -> None:
        self.outbox.cork()
        self.hub.publish(["room"], body, False)
        self.outbox.uncork()

    def turn(self) -> None:
        self.clock.advance(0)

    @property
    def writes(self) -> set[int]:
        return {len(member.writes) for member in self.members}


def test_the_reads_of_a_turn_are_one_write_where_many_listen() -> None:
    crowd = Crowd(32)
    for number in range(50):
        crowd.read(b"%d" % number)
    assert crowd.writes == {1}, "the first one is not held up"
    crowd.turn()
    assert crowd.writes == {2}
    expected = b"".join(build_frame(b"%d" % number, False) for number in range(50))
    assert {b"".join(member.writes) for member in crowd.members} == {expected}
    assert crowd.outbox.corked == 0
    crowd.read(b"next")
    crowd.turn()
    assert crowd.writes == {3}
    assert not crowd.clock.getDelayedCalls()


def test_where_few_listen_each_read_is_written_at_its_end() -> None:
    crowd = Crowd(31)
    for number in range(5):
        crowd.read(b"%d" % number)
        assert crowd.writes == {number + 1}
    assert not crowd.clock.getDelayedCalls()


def test_reads_to_several_rooms_stay_in_order_while_they_are_held() -> None:
    crowd = Crowd(32)
    for member in crowd.members:
        crowd.hub.subscribe(member, "other", member.deliver)
    expected = b""
    for number in range(10):
        body = b"%d" % number
        crowd.outbox.cork()
        crowd.hub.publish(["room" if number % 3 else "other"], body, False)
        crowd.outbox.uncork()
        expected += build_frame(body, False)
    crowd.turn()
    assert {b"".join(member.writes) for member in crowd.members} == {expected}


def test_frames_are_held_for_a_short_time_only(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(outbox_module, "perf_counter", lambda: now[0])
    crowd = Crowd(32)
    crowd.read(b"first")
    crowd.read(b"held")
    now[0] += 0.0019
    crowd.read(b"held, too")
    assert crowd.writes == {1}
    now[0] += 0.0002
    crowd.read(b"after two milliseconds")
    assert crowd.writes == {2}
    crowd.turn()
    assert crowd.writes == {3}


def test_a_read_long_after_one_to_many_is_written_at_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(outbox_module, "perf_counter", lambda: now[0])
    crowd = Crowd(32)
    for number in range(1, 6):
        crowd.read(b"%d" % number)
        assert crowd.writes == {number}
        now[0] += 0.0003
    assert not crowd.clock.getDelayedCalls()
    crowd.read(b"at once")
    crowd.read(b"after it")
    assert crowd.writes == {6}
    crowd.turn()
    assert crowd.writes == {7}


def test_frames_that_many_share_are_bounded_by_what_they_take() -> None:
    crowd = Crowd(100)
    crowd.read(b"first")
    body = b"x" * 10_000
    for _ in range(60):
        crowd.read(body)
    assert min(crowd.writes) >= 3, "600,000 bytes are not gathered"
    assert 200_000 < max(len(piece) for member in crowd.members for piece in member.writes) < 300_000


def test_to_ask_what_waits_costs_no_more_the_more_waits() -> None:
    class Counted(bytes):
        looks = 0

        def __len__(self) -> int:
            Counted.looks += 1
            return super().__len__()

    _, outbox, connection = make()
    outbox.cork()
    for number in range(1, 1001):
        connection.send_frame(Counted(b"12345678"))
        assert outbox.size_of(connection) == 8 * number
    assert Counted.looks <= 3 * 1000
    outbox.uncork()
    assert outbox.size_of(connection) == 0
    outbox.cork()
    connection.send_frame(b"again")
    assert outbox.size_of(connection) == 5
    outbox.uncork()


def test_a_read_without_publications_after_many_is_not_held() -> None:
    crowd = Crowd(32)
    crowd.read(b"first")
    crowd.read(b"held")
    crowd.turn()
    for _ in range(2):
        crowd.outbox.cork()
        crowd.outbox.uncork()
        crowd.turn()
    crowd.outbox.cork()
    crowd.outbox.uncork()
    assert not crowd.clock.getDelayedCalls()


class Dying(Connection):
    """A connection that does something else when it is written to, such as a hook does that is told about its end."""

    def __init__(self, outbox: Outbox, act: Callable[[], None]) -> None:
        super().__init__(outbox)
        self._act = act

    def write_frames(self, frames: bytes) -> None:
        super().write_frames(frames)
        self._act()


def test_what_a_write_publishes_comes_behind_the_frames_that_others_still_wait_for() -> None:
    hub, outbox, first = make()
    published: list[bytes] = []

    def publish() -> None:
        if not published:
            published.append(b"late")
            hub.publish(["room"], b"late", False)

    dying = Dying(outbox, publish)
    last = Connection(outbox)
    for connection in (dying, last):
        hub.subscribe(connection, "room", connection.deliver)
    outbox.cork()
    for connection in (first, dying, last):
        connection.send_frame(b"1")
    outbox.uncork()
    late = build_frame(b"late", False)
    assert [b"".join(each.writes) for each in (first, dying, last)] == [b"1" + late] * 3


def test_a_connection_that_a_write_closes_gets_what_waits_for_it_first() -> None:
    _, outbox, first = make()
    last = Connection(outbox)

    def close() -> None:
        outbox.write(last)
        last.writes.append(b"close")

    dying = Dying(outbox, close)
    outbox.cork()
    for connection in (first, dying, last):
        connection.send_frame(b"1")
        connection.send_frame(b"2")
    outbox.uncork()
    assert last.writes == [b"12", b"close"]
    assert first.writes == dying.writes == [b"12"]


def test_a_thousand_connections_that_close_at_once_need_no_deep_stack() -> None:
    _, outbox, _ = make()
    answers = Connection(outbox)

    def answer() -> None:
        answers.send_frame(b"a")
        outbox.flush()

    many = [Dying(outbox, answer) for _ in range(1_000)]
    outbox.cork()
    for connection in many:
        connection.send_frame(b"1")
    outbox.uncork()
    assert [each.writes for each in many] == [[b"1"]] * len(many)
    assert b"".join(answers.writes) == b"a" * len(many)


def test_what_is_gathered_is_counted_while_other_frames_are_written() -> None:
    _, outbox, first = make()
    last = Connection(outbox)
    sizes: list[int] = []

    def look() -> None:
        last.send_frame(b"22")
        sizes.append(outbox.size_of(last))

    dying = Dying(outbox, look)
    outbox.cork()
    for connection in (first, dying, last):
        connection.send_frame(b"1")
    outbox.uncork()
    assert sizes == [3]
    assert b"".join(last.writes) == b"122"
