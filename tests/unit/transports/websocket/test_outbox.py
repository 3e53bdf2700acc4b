"""The outbox: one write for each connection and read, in order."""

from lhttp_tx.bus.memory import MemoryBus
from lhttp_tx.engine.delivery import Delivery
from lhttp_tx.engine.hub import Hub
from lhttp_tx.transports.websocket.frames import PLAIN, build_frame
from lhttp_tx.transports.websocket.outbox import Outbox


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
    outbox = Outbox(hub)
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
