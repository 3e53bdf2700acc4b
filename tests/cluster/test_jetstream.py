"""History in NATS JetStream: streams that come and go, nodes that see one order, and holes that are closed."""

from __future__ import annotations

import json
import signal
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import pytest_twisted
from integration._nats import NATSProcess, needs_nats
from twisted.internet.defer import Deferred

from cluster._cluster import pause, until
from cluster._jetstream import ROOM, JetStreamProcess, Node, jetstream, prefix, publication
from lhttp_tx.codec.positions import offsets_of, parse_position
from lhttp_tx.errors import HistoryUnavailable, MessageTooLarge, StartFailed
from lhttp_tx.history.values import Placing, Retention
from lhttp_tx.testing.bus import done, into

pytestmark = [needs_nats, pytest.mark.asyncio_reactor]

UNKNOWN = "the history store has not confirmed the publication: it is not known whether it is stored"


@pytest.fixture(scope="module")
def nats() -> Iterator[JetStreamProcess]:
    process = jetstream()
    yield process
    process.stop()


@pytest_twisted.async_yield_fixture
async def nodes(nats: JetStreamProcess) -> AsyncIterator[list[Node]]:
    subjects = prefix()
    made = [await Node([nats.url], subjects).start() for _ in range(2)]
    yield made
    for node in made:
        await node.stop()


async def ask(url: str, subject: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """Ask the JetStream API as some other program would."""
    import asyncio

    import nats

    async def ask() -> dict[str, Any]:
        client = await nats.connect(url)
        answer = await client.request(f"$JS.API.{subject}", json.dumps(body).encode() if body else b"", timeout=10)
        await client.close()
        found: dict[str, Any] = json.loads(answer.data)
        return found

    answer: dict[str, Any] = await Deferred.fromFuture(asyncio.ensure_future(ask()))
    return answer


def stream_of(node: Node, retention: Retention = ROOM) -> Any:
    return node.history._classes.stream(retention)


# Two nodes


@pytest_twisted.ensureDeferred
async def test_all_nodes_see_one_order_and_each_publication_once(nodes: list[Node]) -> None:
    received = [await node.subscribe("room") for node in nodes]
    for number in range(0, 1000, 10):
        nodes[0].append("room", *range(number, number + 5))
        nodes[1].append("room", *range(number + 5, number + 10))
        if number % 100 == 0:
            await pause(0.001)
    for each in received:
        await each.wait(1000)
        assert sorted(each.numbers) == list(range(1000))
        assert each.is_chain
    assert received[0].marks == received[1].marks
    assert received[0].numbers == received[1].numbers


@pytest_twisted.ensureDeferred
async def test_a_wildcard_and_a_channel_bring_each_subscriber_everything_once(nodes: list[Node]) -> None:
    both = [await nodes[0].subscribe(name) for name in ("room.a", "room.*", ">")]
    alone = await nodes[1].subscribe("room.>")
    for number in range(100):
        nodes[number % 2].append("room.a", number)
    for each in (*both, alone):
        await each.wait(100)
        assert sorted(each.numbers) == list(range(100)) and each.is_chain
    assert both[0].marks == alone.marks


@pytest_twisted.ensureDeferred
async def test_channels_without_history_are_as_they_were(nodes: list[Node]) -> None:
    received = [await node.subscribe("lobby") for node in nodes]
    nodes[0].bus.publish("lobby", publication(1), False)
    nodes[1].bus.publish("lobby", publication(2), False)
    for each in received:
        await each.wait(2)
        assert sorted(each.numbers) == [1, 2] and each.marks == [(0, 0)] * 2


@pytest_twisted.ensureDeferred
async def test_what_is_not_to_be_stored_passes_the_stream_by(nodes: list[Node]) -> None:
    received = [await node.subscribe("room") for node in nodes]
    nodes[0].bus.publish("room", publication(1), False)
    nodes[0].append("room", 2)
    for each in received:
        await each.wait(2)
        assert sorted(each.numbers) == [1, 2] and (0, 0) in each.marks
    assert (await nodes[0].history.read("room", ROOM, after=0, limit=10, size=10_000)).total == 1


@pytest_twisted.ensureDeferred
async def test_who_publishes_is_told_where_it_went_and_what_was_there_before(nodes: list[Node]) -> None:
    received = await nodes[1].subscribe("room")
    placings = [Placing("room", "m"), Placing("room", "m"), Placing("room", "n")]
    for number, (node, placing) in enumerate(zip((nodes[0], nodes[1], nodes[0]), placings, strict=True)):
        node.history.append("room", ROOM, [publication(number)], False, placing)
        await node.confirm()
    await received.wait(2)
    assert received.numbers == [0, 2]
    assert [placing.duplicate for placing in placings] == [False, True, False]
    assert placings[0].position == placings[1].position
    positions = [parse_position(str(placing.position)) for placing in placings]
    assert {epoch for epoch, _ in positions} == {nodes[1].history.epoch_of(ROOM)}
    assert [offset for _, offset in positions] == [1, 1, 2]


@pytest_twisted.ensureDeferred
async def test_a_long_run_goes_out_piece_by_piece_and_arrives_whole(nodes: list[Node]) -> None:
    received = await nodes[1].subscribe("room")
    nodes[0].append("room", *range(10_000))
    await nodes[0].confirm()
    await received.wait(10_000)
    assert received.numbers == list(range(10_000)) and received.is_chain


@pytest_twisted.ensureDeferred
async def test_what_nobody_could_keep_up_with_is_refused(nodes: list[Node]) -> None:
    with pytest.raises(HistoryUnavailable, match="does not keep up"):
        for _ in range(100):
            nodes[0].append("room", *range(1_000))
    with pytest.raises(MessageTooLarge):
        nodes[0].history.append("room", ROOM, [publication(0, 1_048_576)], False)
    await nodes[0].confirm()
    assert nodes[0].history.available


@pytest_twisted.ensureDeferred
async def test_those_who_ask_for_the_same_share_one_answer(nodes: list[Node]) -> None:
    nodes[0].append("room", *range(50))
    await nodes[0].confirm()
    pages = [nodes[0].history.read("room", ROOM, after=0, limit=100, size=100_000) for _ in range(100)]
    found = [await page for page in pages]
    assert len({id(page) for page in found}) < 10
    assert all(page.total == 50 for page in found)


@pytest_twisted.ensureDeferred
async def test_history_removed_is_gone_for_all_and_subscribers_go_on(nodes: list[Node]) -> None:
    received = [await node.subscribe("room") for node in nodes]
    nodes[0].append("room", 1, 2)
    await nodes[0].confirm()
    await done(nodes[1].history.remove("room", ROOM))
    nodes[0].append("room", 3)
    for each in received:
        await each.wait(3)
        assert each.numbers == [1, 2, 3] and each.is_chain
    page = await nodes[0].history.newest("room", ROOM, before=0, limit=10, size=10_000)
    assert page.total == 1


@pytest_twisted.ensureDeferred
async def test_what_is_appended_while_history_is_removed_is_kept_or_known_to_be_removed(nodes: list[Node]) -> None:
    for number in range(50):
        nodes[0].append("room", number)
        if number % 10 == 5:
            nodes[0].history.remove("room", ROOM).addErrback(lambda failure: failure.trap(HistoryUnavailable))
    await nodes[0].confirm()
    await done(nodes[0].history.remove("room", ROOM))
    nodes[0].append("room", 50)
    await nodes[0].confirm()
    page = await nodes[0].history.read("room", ROOM, after=0, limit=100, size=100_000)
    assert [stored.payload[-8:] for stored in page.messages] == [b"00000050"] and not page.reaches
    offset, after = offsets_of(page.messages[0].payload)
    for position, reaches in ((after, True), (after - 1, False)):
        page = await nodes[1].history.read("room", ROOM, after=position, limit=100, size=100_000)
        assert page.reaches is reaches and page.tip == offset


# Streams


@pytest_twisted.ensureDeferred
async def test_a_stream_says_whose_it_is_and_is_what_was_asked_for(nats: JetStreamProcess) -> None:
    short = Retention("short", messages=7, age=60.0)
    node = await Node([nats.url], "Some.where.", classes=[ROOM, short], size=1_000_000, window=30.0).start()
    config = (await ask(nats.url, f"STREAM.INFO.{stream_of(node, short).name}"))["config"]
    assert config["subjects"] == ["Some.where-history.short.>"]
    assert config["republish"] == {"src": "Some.where-history.short.>", "dest": "Some.where.>"}
    assert (config["max_msgs_per_subject"], config["max_age"], config["max_bytes"]) == (8, 60 * 10**9, 1_000_000)
    assert (config["duplicate_window"], config["storage"]) == (30 * 10**9, "file")
    assert config["metadata"]["lhttp-tx-prefix"] == "Some.where."
    assert node.history.epoch_of(ROOM) != node.history.epoch_of(short)
    await node.stop()


@pytest_twisted.ensureDeferred
async def test_a_stream_that_differs_is_changed_and_keeps_what_it_has(nats: JetStreamProcess) -> None:
    subjects = prefix()
    node = await Node([nats.url], subjects).start()
    node.append("room", 1)
    await node.confirm()
    epoch = node.history.epoch_of(ROOM)
    await node.stop()
    more = Retention(ROOM.name, messages=500, age=3600.0)
    node = await Node([nats.url], subjects, classes=[more]).start()
    config = (await ask(nats.url, f"STREAM.INFO.{stream_of(node, more).name}"))["config"]
    assert (config["max_msgs_per_subject"], config["max_age"]) == (501, 3600 * 10**9)
    assert node.history.epoch_of(more) == epoch
    assert (await node.history.read("room", more, after=0, limit=10, size=10_000)).total == 1
    await node.stop()


@pytest_twisted.ensureDeferred
async def test_a_stream_that_cannot_be_changed_is_explained(nats: JetStreamProcess) -> None:
    subjects = prefix()
    node = await Node([nats.url], subjects, storage="memory").start()
    await node.stop()
    for settings, words in (
        ({"storage": "file"}, "kept in memory"),
        ({"storage": "memory", "replicas": 3}, "replicas"),
    ):
        node = Node([nats.url], subjects, **settings)
        await node.bus.start()
        await node.history.start()
        await until(lambda node=node, words=words: words in node.history.trouble)
        assert not node.history.available
        with pytest.raises(HistoryUnavailable, match=words):
            node.append("room", 1)
        await node.stop()


@pytest_twisted.ensureDeferred
async def test_a_stream_of_somebody_else_is_left_alone(nats: JetStreamProcess) -> None:
    subjects = prefix()
    node = Node([nats.url], subjects)
    name = f"{subjects[:-1].upper()}_rooms"
    await ask(nats.url, f"STREAM.CREATE.{name}", {"name": name, "subjects": [f"{subjects}other.>"]})
    before = await ask(nats.url, f"STREAM.INFO.{name}")
    received = await start_in_trouble(node, "was not created by lhttp_tx")
    with pytest.raises(HistoryUnavailable, match="was not created by lhttp_tx"):
        node.append("room", 1)
    node.bus.publish("lobby", publication(1), False)
    await received.wait(1)
    assert (await ask(nats.url, f"STREAM.INFO.{name}"))["config"] == before["config"]
    await ask(nats.url, f"STREAM.DELETE.{name}")
    await until(lambda: node.history.available)
    node.append("room", 1)
    await node.confirm()
    await node.stop()


@pytest_twisted.ensureDeferred
async def test_a_stream_of_somebody_else_with_the_subjects_is_told(nats: JetStreamProcess) -> None:
    subjects = prefix()
    node = Node([nats.url], subjects)
    name = f"OTHER_{subjects[:-1]}"
    await ask(nats.url, f"STREAM.CREATE.{name}", {"name": name, "subjects": [f"{subjects[:-1]}-history.>"]})
    await start_in_trouble(node, "another stream of NATS has subjects in")
    assert "-history.rooms.>" in node.history.trouble
    await ask(nats.url, f"STREAM.DELETE.{name}")
    await until(lambda: node.history.available)
    await node.stop()


@pytest_twisted.ensureDeferred
async def test_a_stream_of_another_prefix_is_left_alone(nats: JetStreamProcess) -> None:
    subjects = prefix()
    first = await Node([nats.url], subjects).start()
    config = (await ask(nats.url, f"STREAM.INFO.{stream_of(first).name}"))["config"]
    await first.stop()
    config["metadata"]["lhttp-tx-prefix"] = "elsewhere."
    await ask(nats.url, f"STREAM.UPDATE.{config['name']}", config)
    node = Node([nats.url], subjects)
    await start_in_trouble(node, "elsewhere.")
    await node.stop()


async def start_in_trouble(node: Node, words: str) -> Any:
    """Start a node whose history tells of its trouble in *words*, and subscribe to a channel without history."""
    await node.bus.start()
    await node.history.start()
    await until(lambda: node.bus.available and words in node.history.trouble)
    return await node.subscribe("lobby")


@pytest_twisted.ensureDeferred
async def test_a_stream_that_is_deleted_is_made_anew_and_subscribers_are_told(
    nats: JetStreamProcess, nodes: list[Node]
) -> None:
    received = [await node.subscribe("room") for node in nodes]
    nodes[0].append("room", *range(10))
    for each in received:
        await each.wait(10)
    epoch = nodes[0].history.epoch_of(ROOM)
    await ask(nats.url, f"STREAM.DELETE.{stream_of(nodes[0]).name}")
    placing = Placing("room")
    nodes[0].history.append("room", ROOM, [publication(10)], False, placing)
    await nodes[0].confirm()
    assert placing.failure is not None and placing.position is None
    await until(lambda: all(node.missed for node in nodes))
    new = nodes[0].history.epoch_of(ROOM)
    assert new != epoch
    assert all(parse_position(node.missed[0][1])[0] == new for node in nodes)
    await until(lambda: all(node.history.available for node in nodes))
    nodes[1].append("room", 11)
    for each in received:
        await each.wait(11)
        assert each.numbers == [*range(10), 11]
    page = await nodes[0].history.read("room", ROOM, after=0, limit=10, size=10_000)
    assert [stored.offset for stored in page.messages] == [1]


@pytest_twisted.ensureDeferred
async def test_offsets_that_restart_are_noticed_though_the_stream_was_not_looked_at(
    nats: JetStreamProcess, nodes: list[Node]
) -> None:
    received = await nodes[0].subscribe("room")
    nodes[1].append("room", *range(10))
    await received.wait(10)
    config = (await ask(nats.url, f"STREAM.INFO.{stream_of(nodes[0]).name}"))["config"]
    await ask(nats.url, f"STREAM.DELETE.{config['name']}")
    await ask(nats.url, f"STREAM.CREATE.{config['name']}", config)
    nodes[1].append("room", 10)
    await until(lambda: nodes[0].missed)
    epoch, offset = parse_position(nodes[0].missed[0][1])
    assert epoch == nodes[0].history.epoch_of(ROOM) and offset <= 1
    nodes[1].append("room", 11)
    await until(lambda: 11 in received.numbers)


@pytest_twisted.ensureDeferred
async def test_nats_without_jetstream_takes_nothing_until_it_has_it(tmp_path: Any) -> None:
    server = NATSProcess()
    node = Node([server.url], prefix())
    received = await start_in_trouble(node, "JetStream")
    assert not node.history.available
    with pytest.raises(HistoryUnavailable, match="JetStream"):
        node.append("room", 1)
    with pytest.raises(HistoryUnavailable, match="JetStream"):
        await node.history.read("room", ROOM, after=0, limit=1, size=1)
    node.bus.publish("lobby", publication(1), False)
    await received.wait(1)
    in_room = await node.subscribe("room")
    server.kill()
    server._arguments += ["-js", "-sd", str(tmp_path)]
    server.start()
    await until(lambda: node.history.available)
    node.append("room", 1)
    await in_room.wait(1)
    await node.stop()
    server.stop()


@pytest.mark.parametrize("subjects", ["", "none."])
@pytest_twisted.ensureDeferred
async def test_without_a_class_nothing_is_asked_of_nats(nats: JetStreamProcess, subjects: str) -> None:
    node = await Node([nats.url], subjects, classes=[], retention_of=lambda channel: None).start()
    received = [await node.subscribe(name) for name in ("lobby", "lobb.*", "*")]
    node.bus.publish("lobby", publication(1), False)
    await received[0].wait(1)
    assert not node.bus._keeper.link.inbox.open
    names = (await ask(nats.url, "STREAM.NAMES"))["streams"] or []
    assert not any(name.startswith("NONE") for name in names)
    if subjects:
        placing = Placing("lobby")
        node.history.append("lobby", ROOM, [publication(2)], False, placing)
        await node.confirm()
        assert placing.position is not None
        assert (await node.history.read("lobby", ROOM, after=0, limit=10, size=10_000)).total == 1
    else:
        with pytest.raises(HistoryUnavailable, match="prefix"):
            node.append("lobby", 2)
    await node.stop()


@pytest.mark.parametrize(
    ("subjects", "classes", "words"),
    [
        ("", [ROOM], "prefix"),
        ("x.", [Retention("small", size=4096)], "bytes of a channel"),
        ("x.", [ROOM, Retention(ROOM.name, messages=7)], "different bounds"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_what_nats_cannot_do_ends_the_start(subjects: str, classes: list[Retention], words: str) -> None:
    node = Node(["nats://127.0.0.1:1"], subjects, classes=classes)
    with pytest.raises(StartFailed, match=words):
        await node.history.start()


# NATS that is away, and holes


@pytest_twisted.ensureDeferred
async def test_what_was_published_while_a_link_was_lost_is_read_before_anything_newer(nodes: list[Node]) -> None:
    received = [await nodes[0].subscribe(name) for name in ("room.a", "room.*")]
    nodes[1].append("room.a", *range(10))
    for each in received:
        await each.wait(10)
    link = nodes[0].bus._keeper.link
    link._client.ignore_all()  # nothing arrives from now on
    nodes[1].append("room.a", *range(10, 20))
    nodes[1].append("room.b", *range(100, 105))
    await nodes[1].confirm()
    await pause(0.1)
    link.lose("by the test")
    assert not nodes[0].history.available
    nodes[1].append("room.a", *range(20, 30))
    await until(lambda: nodes[0].history.available)
    nodes[1].append("room.a", *range(30, 40))
    await received[0].wait(40)
    await received[1].wait(45)
    assert received[0].numbers == list(range(40)) and received[0].is_chain
    assert [number for number in received[1].numbers if number < 100] == list(range(40))
    assert [number for number in received[1].numbers if number >= 100] == list(range(100, 105))
    await until(lambda: nodes[0].gaps)
    assert nodes[0].missed == [] and nodes[0].gaps == 1


@pytest_twisted.ensureDeferred
async def test_a_hole_is_read_before_what_is_behind_it(nodes: list[Node]) -> None:
    received = await nodes[0].subscribe("room")
    nodes[1].append("room", 0)
    await received.wait(1)
    take, drop = nodes[0].history.take, True

    def lossy(channel: str, heads: list[bytes], payloads: list[bytes]) -> list[int]:
        return [] if drop else take(channel, heads, payloads)

    nodes[0].bus._history.take = lossy
    nodes[1].append("room", *range(1, 50))
    await nodes[1].confirm()
    await pause(0.1)
    drop = False
    nodes[1].append("room", *range(50, 60))
    await received.wait(60)
    assert received.numbers == list(range(60)) and received.is_chain
    assert nodes[0].missed == []


@pytest_twisted.ensureDeferred
async def test_the_last_one_that_is_missing_is_found_though_nothing_follows(nodes: list[Node]) -> None:
    received = await nodes[0].subscribe("room")
    take = nodes[0].history.take
    nodes[0].bus._history.take = lambda *_: []
    nodes[1].append("room", 1)
    await nodes[1].confirm()
    await pause(0.1)
    nodes[0].bus._history.take = take
    await received.wait(1)  # a moment after the subscription, or when the channel has been quiet for a while
    assert received.numbers == [1]


@pytest_twisted.ensureDeferred
async def test_a_hole_that_history_does_not_reach_is_told(nodes: list[Node]) -> None:
    received = await nodes[0].subscribe("room")
    nodes[1].append("room", 0)
    await received.wait(1)
    watch = nodes[0].history._watch
    await until(lambda: not watch._fresh and not watch.order.sequences["room"].queued)  # it has looked once more
    take = nodes[0].history.take
    nodes[0].bus._history.take = lambda *_: []
    nodes[1].append("room", *range(1, ROOM.messages * 2))
    await nodes[1].confirm()
    await pause(0.1)
    nodes[0].bus._history.take = take
    nodes[1].append("room", 1_000)
    await until(lambda: nodes[0].missed)
    nodes[1].append("room", 1_001)
    await until(lambda: 1_001 in received.numbers)
    ((channel, position),) = nodes[0].missed
    assert channel == "room"
    behind = [number for number, (offset, _) in zip(received.numbers, received.marks, strict=True) if offset > 1]
    assert parse_position(position)[1] in (ROOM.messages * 2, ROOM.messages * 2 + 1)
    assert behind in ([1_000, 1_001], [1_001])


@pytest_twisted.ensureDeferred
async def test_a_nats_that_stops_and_starts_loses_nothing_that_was_confirmed() -> None:
    server = jetstream()
    subjects = prefix()
    nodes = [await Node([server.url], subjects).start() for _ in range(2)]
    received = [await node.subscribe("room") for node in nodes]
    safe: list[int] = []
    for number in range(60):
        placing = Placing("room", f"m{number}")
        try:
            nodes[0].history.append("room", ROOM, [publication(number)], False, placing)
            await nodes[0].confirm()
        except HistoryUnavailable:
            placing.failure = HistoryUnavailable("refused")
        if placing.failure is None:
            safe.append(number)
        if number == 20:
            server.kill()
            await until(lambda: not nodes[0].history.available)
            with pytest.raises(HistoryUnavailable):
                nodes[0].append("room", 1_000)
            server.start()
            await until(lambda: all(node.history.available for node in nodes))
    assert len(safe) > 50
    for each in received:
        await until(lambda each=each: set(safe) <= set(each.numbers))
        assert each.is_chain and len(set(each.numbers)) == len(each.numbers)
    assert [node.missed for node in nodes] == [[], []]
    await until(lambda: [node.gaps for node in nodes] == [1, 1])
    for node in nodes:
        await node.stop()
    server.stop()


@pytest_twisted.ensureDeferred
async def test_a_nats_that_does_not_answer_leaves_it_open_whether_it_was_stored(failures: list[Any]) -> None:
    server = jetstream()
    node = await Node([server.url], prefix()).start()
    server.send_signal(signal.SIGSTOP)
    await pause(0.1)
    placings = [Placing("room"), Placing("room", "m")]
    for number, placing in enumerate(placings):
        node.history.append("room", ROOM, [publication(number)], False, placing)
    node.append("room", 2)
    with pytest.raises(HistoryUnavailable, match="not known"):
        await node.confirm()
    assert [str(placing.failure) for placing in placings] == [UNKNOWN] * 2
    server.send_signal(signal.SIGCONT)
    await until(lambda: node.history.available)
    again = Placing("room", "m")
    node.history.append("room", ROOM, [publication(1)], False, again)
    await node.confirm()
    assert again.position is not None
    page = await node.history.read("room", ROOM, after=0, limit=10, size=10_000)
    assert sum(b"00000001" in stored.payload for stored in page.messages) == 1
    await node.stop()
    server.stop()


@pytest_twisted.ensureDeferred
async def test_what_a_move_could_not_hold_is_a_gap_and_is_read_again(nodes: list[Node]) -> None:
    received = await nodes[0].subscribe("room")
    nodes[1].append("room", 0)
    await received.wait(1)
    link = nodes[0].bus._keeper.link
    (number,) = (number for subject, number in link._orders._numbers.items() if subject.endswith("room"))
    link._client.ignore(number)
    nodes[1].append("room", 1)
    await nodes[1].confirm()
    nodes[0].bus._gaps.flooded()
    await until(lambda: nodes[0].gaps)
    await received.wait(2)
    assert received.numbers == [0, 1] and nodes[0].missed == []


@pytest_twisted.ensureDeferred
async def test_a_hole_that_the_store_does_not_tell_is_given_up_after_a_while(
    nodes: list[Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    from lhttp_tx.bus.nats.jetstream import order

    monkeypatch.setattr(order, "_PATIENCE", 0.3)
    received = await nodes[0].subscribe("room")
    nodes[1].append("room", 0)
    await received.wait(1)
    take = nodes[0].history.take
    nodes[0].bus._history.take = lambda *_: []
    nodes[1].append("room", 1)
    await nodes[1].confirm()
    await pause(0.1)
    nodes[0].bus._history.take = take

    async def unavailable(*_: Any) -> Any:
        raise HistoryUnavailable("not now")

    monkeypatch.setattr(nodes[0].history._reader, "read", unavailable)
    nodes[1].append("room", 2)
    await received.wait(2)
    assert received.numbers == [0, 2] and received.marks == [(1, 0), (3, 2)]
    assert [parse_position(position)[1] for _, position in nodes[0].missed] == [2]


@pytest_twisted.ensureDeferred
async def test_a_wildcard_gets_nothing_twice_when_a_channel_comes_and_goes(nodes: list[Node]) -> None:
    wide = await nodes[0].subscribe("room.*")
    nodes[1].append("room.a", 0)
    await wide.wait(1)
    narrow: list[bytes] = []
    receiver = into(narrow)
    for number in range(1, 4):
        await done(nodes[0].bus.subscribe("room.a", receiver))
        nodes[1].append("room.a", number)
        await wide.wait(number + 1)
        nodes[0].bus.unsubscribe("room.a", receiver)
        await until(lambda: "room.a" not in nodes[0].bus.channels)
    nodes[1].append("room.a", 4)
    await wide.wait(5)
    assert wide.numbers == list(range(5)) and wide.is_chain
    assert len(narrow) == 3


@pytest_twisted.ensureDeferred
async def test_rules_that_change_are_followed_by_those_who_are_subscribed(nats: JetStreamProcess) -> None:
    rules: dict[str, Retention] = {}
    other = Retention("other")
    node = await Node([nats.url], prefix(), classes=[ROOM, other], retention_of=rules.get).start()
    received = await node.subscribe("a")
    node.bus.publish("a", publication(0), False)
    for number, retention in enumerate((ROOM, other), 1):
        rules["a"] = retention
        node.history.reconsider()
        node.append("a", number, retention=retention)
        await received.wait(number + 1)
        assert "a" in node.history._watch.order.sequences
    rules.clear()
    node.history.reconsider()
    node.bus.publish("a", publication(3), False)
    await received.wait(4)
    assert received.numbers == [0, 1, 2, 3] and received.marks == [(0, 0), (1, 0), (1, 0), (0, 0)]
    assert node.history._watch.order.sequences == {}
    await node.stop()


@pytest_twisted.ensureDeferred
async def test_many_channels_are_looked_at_after_a_lost_link(nodes: list[Node]) -> None:
    received = [await nodes[0].subscribe(f"room.{number}") for number in range(300)]
    link = nodes[0].bus._keeper.link
    link._client.ignore_all()
    for number in range(300):
        nodes[1].append(f"room.{number}", number)
    await nodes[1].confirm()
    link.lose("by the test")
    for number, each in enumerate(received):
        await until(lambda each=each: each.numbers)
        assert each.numbers == [number]
    assert nodes[0].missed == []
