"""The Python client and the command ``lhttp`` with the histories of a real server."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from integration._client import Terminal, lhttp, run_program, start_lhttp, url_of
from integration._docs import Process, free_port
from integration._server import TIME_LIMIT, ServerProcess, wait_until
from lhttp_tx import PublishFailed, post_message
from lhttp_tx.client import FilePositions, aio, sync

HISTORY = ("--history", "room.*")


@pytest.fixture
def kept(serve: Callable[..., ServerProcess]) -> str:
    """The URL of a server with history."""
    return url_of(serve(*HISTORY).port)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Process]]:
    """Start the command in the background. It is stopped after the test."""
    started: list[Process] = []

    def start_command(*arguments: object) -> Process:
        started.append(start_lhttp(tmp_path, *arguments))
        return started[-1]

    yield start_command
    for process in started:
        process.stop()


def say(url: str, *texts: str, channel: str = "room.a") -> None:
    assert lhttp("publish", channel, "--url", url, "--lines", input="\n".join(texts)).returncode == 0


# The client


def test_a_client_whose_connection_is_cut_gets_everything_once_and_in_order(kept: str) -> None:
    program = """
async def main(reactor, url):
    told, got = [], []
    client = Client(url, reactor=reactor, on_recovered=lambda *what: told.append(what),
                    on_missed=lambda *what: told.append(None), retry_policy=lambda _: 0.05)
    other = Client(url, reactor=reactor)
    await gatherResults([client.connect(), other.connect()])
    await client.subscribe("room.a", lambda message: got.append(int(message.text)))
    for number in range(500):
        sent = other.publish("room.a", "chat", body=str(number))
        if number % 100 == 50:
            await client.when_connected()
            client._uplink.link.transport.abort()
        await sent
    await client.when_connected()
    while len(got) < 500:
        await deferLater(reactor, 0.05)
    print(got == list(range(500)), len(told) == 5, None in told)
    await gatherResults([client.close(), other.close()])
"""
    assert run_program(program, kept) == ["True True False"]


def test_publications_that_were_cut_off_are_there_once(kept: str) -> None:
    program = """
async def main(reactor, url):
    client = Client(url, reactor=reactor, retry_policy=lambda _: 0.05)
    await client.connect()
    sent = []
    for number in range(300):
        sent.append(client.publish("room.a", "chat", body=str(number)))
        if number % 100 == 50:
            await client.when_connected()
            client._uplink.link.transport.abort()
    await gatherResults(sent)
    found = await client.history("room.a", limit=500)
    print([int(message.text) for message in found] == list(range(300)))
    await client.close()
"""
    assert run_program(program, kept) == ["True"]


def test_a_server_that_has_lost_its_memory_is_told(serve: Callable[..., ServerProcess], tmp_path: Path) -> None:
    listen = ("--port", f"tcp:{free_port()}:interface=127.0.0.1")
    server = serve(*HISTORY, listen=listen)
    program = """
async def main(reactor, url, positions):
    told, got = [], []
    client = Client(url, reactor=reactor, on_recovered=lambda *what: told.append("recovered"),
                    on_missed=lambda channel, position: told.append("missed"), positions=FilePositions(positions))
    await client.connect()
    await client.subscribe("room.a", lambda message: got.append(message.text))
    await client.publish("room.a", "chat", body="now")
    await deferLater(reactor, 0.1)
    print(told, got)
    await client.close()
"""
    url = url_of(server.port)
    assert run_program(program, url, tmp_path / "positions") == ["[] ['now']"]
    say(url, "meanwhile")
    assert run_program(program, url, tmp_path / "positions") == ["['recovered'] ['meanwhile', 'now']"]
    server.crash()
    server = serve(*HISTORY, listen=listen)
    assert run_program(program, url, tmp_path / "positions") == ["['missed'] ['now']"]


def test_a_message_is_posted_once(kept: str) -> None:
    url = kept.replace("ws://", "http://") + "publish"
    first = post_message(url, "room.a", "chat", body="once", message_id="one")
    second = post_message(url, "room.a", "chat", body="once", message_id="one", attempts=3)
    assert (first.duplicate, second.duplicate, first.message_id) == (False, True, "one")
    assert list(first.positions) == ["room.a"]
    assert post_message(url, "lobby", "chat").message_id is None


def test_posting_is_tried_again_as_often_as_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("lhttp_tx.client.publisher.time.sleep", pauses.append)
    with pytest.raises(PublishFailed, match="cannot reach"):
        post_message(f"http://127.0.0.1:{free_port()}/publish", "room.a", "chat", attempts=3)
    assert pauses == [0.5, 1.0]
    with pytest.raises(ValueError, match="attempts"):
        post_message("http://127.0.0.1/publish", "room.a", "chat", attempts=0)


# The command


def test_the_history_is_printed_oldest_first(kept: str) -> None:
    say(kept, *map(str, range(5)))
    newest = lhttp("history", "room.a", "--url", kept, "--limit", "2")
    assert newest.stdout == "room.a\t3\nroom.a\t4\n"
    hint = newest.stderr.strip().partition("--before ")[2]
    older = lhttp("history", "room.a", "--url", kept, "--json", "--before", hint)
    found = [json.loads(line) for line in older.stdout.splitlines()]
    assert ([one["body"] for one in found], older.stderr) == (["0", "1", "2"], "")
    forward = lhttp("history", "room.a", "--url", kept, "--since", found[0]["position"], "--limit", "2")
    assert forward.stdout == "room.a\t1\nroom.a\t2\n"
    rest = lhttp("history", "room.a", "--url", kept, "--since", forward.stderr.strip().partition("--since ")[2])
    assert (rest.stdout, rest.stderr) == ("room.a\t3\nroom.a\t4\n", "")


def test_more_than_one_answer_holds_is_printed_whole(kept: str) -> None:
    say(kept, *map(str, range(700)))
    expected = "".join(f"room.a\t{number}\n" for number in range(700))
    assert lhttp("history", "room.a", "--url", kept, "--limit", "1000").stdout == expected


def test_a_channel_or_a_server_without_history_says_so(kept: str, server: ServerProcess) -> None:
    done = lhttp("history", "lobby", "--url", kept)
    assert (done.returncode, done.stderr) == (1, "lhttp: channel 'lobby' has no history (status 404)\n")
    done = lhttp("history", "lobby", "--url", url_of(server.port))
    assert done.returncode == 1
    assert "--history" in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["history", "room.a", "--since", "E-1", "--before", "E-2"],
        ["history", "room.a", "--before", "nonsense"],
        ["subscribe", "room.a", "--since", "nonsense"],
        ["subscribe", "room.a", "--since", "room.b=E-1"],
        ["subscribe", "room.a", "--since", "E-1", "--last", "3"],
        ["subscribe", "room.a", "--positions", "there/is/none"],
        ["publish", "room.a", "x", "--message-id", "two words"],
        ["publish", "room.a", "--lines", "--message-id", "one"],
    ],
)
def test_options_that_do_not_fit_are_refused(arguments: list[str]) -> None:
    done = lhttp(*arguments)
    assert (done.returncode, bool(done.stderr)) == (2, True)


def test_a_subscription_may_begin_in_the_past(kept: str) -> None:
    say(kept, *map(str, range(5)))
    done = lhttp("subscribe", "room.a", "--url", kept, "--last", "2", "--count", "2")
    assert done.stdout == "room.a\t3\nroom.a\t4\n"
    position = json.loads(lhttp("history", "room.a", "--url", kept, "--json").stdout.splitlines()[2])["position"]
    for since in (position, f"room.a={position}"):
        done = lhttp("subscribe", "room.a", "--url", kept, "--since", since, "--count", "2")
        assert done.stdout == "room.a\t3\nroom.a\t4\n"


def test_positions_in_a_file_lose_and_repeat_nothing(kept: str, tmp_path: Path) -> None:
    listen = ("subscribe", "room.a", "--url", kept, "--positions", tmp_path / "positions")
    assert lhttp(*listen, "--timeout", "1").returncode == 0
    say(kept, *map(str, range(5)))
    assert lhttp(*listen, "--count", "2").stdout == "room.a\t0\nroom.a\t1\n"
    done = lhttp(*listen, "--count", "3")
    assert done.stdout == "room.a\t2\nroom.a\t3\nroom.a\t4\n"
    (tmp_path / "positions").write_text("[]")
    done = lhttp(*listen)
    assert (done.returncode, "is not a file with positions" in done.stderr) == (2, True)


def test_a_subscriber_says_which_channels_have_no_history(kept: str) -> None:
    done = lhttp("subscribe", "room.a", "lobby", "--url", kept, "--last", "2", "--timeout", "1")
    assert done.returncode == 0
    assert done.stderr == "lhttp: lobby: the server keeps no history of this channel; only new messages are printed\n"
    done = lhttp("subscribe", "lobby", "--url", kept, "--timeout", "1")
    assert done.stderr == ""


def test_positions_that_cannot_be_saved_at_the_end_are_a_failure(
    kept: str, start: Callable[..., Process], tmp_path: Path
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    listening = start("subscribe", "room.a", "--url", kept, "--positions", folder / "positions", "--count", "1", "-v")
    listening.wait_for_output(" connected")
    wait_until((folder / "positions").exists, "the position of the receipt is saved")
    shutil.rmtree(folder)
    say(kept, "one")
    assert listening.wait() == 1
    assert f"cannot save the positions: {folder / 'positions'}: No such file or directory" in listening.output


def test_a_subscriber_says_what_it_recovered_and_what_is_missing(
    serve: Callable[..., ServerProcess], start: Callable[..., Process]
) -> None:
    listen = ("--port", f"tcp:{free_port()}:interface=127.0.0.1")
    server = serve(*HISTORY, listen=listen)
    url = url_of(server.port)
    listening = start("subscribe", "room.a", "--url", url, "--verbose")
    listening.wait_for_output(" connected")
    server.crash()
    listening.wait_for_output("trying again")
    serve(*HISTORY, listen=listen)
    listening.wait_for_output("lhttp: room.a: messages are missing")
    say(url, "again")
    listening.wait_for_output("room.a\tagain\n")


def test_a_publication_with_a_known_id_is_not_published_again(kept: str) -> None:
    for way in ((), ("--http",)):
        publish = ("publish", "room.a", "x", "--url", kept, "--message-id", f"id{way}".replace(" ", ""), *way)
        assert lhttp(*publish).stderr == ""
        done = lhttp(*publish)
        assert (done.returncode, "not published again" in done.stderr) == (0, True)
    assert lhttp("history", "room.a", "--url", kept).stdout == "room.a\tx\n" * 2


def test_chat_shows_the_last_messages_of_a_room(kept: str) -> None:
    say(kept, *map(str, range(60)))
    with Terminal("chat", kept, "--room", "room.a", "--name", "jack") as terminal:
        terminal.wait_for("jack>")
        shown = terminal.text
    assert "--:-- ?: 10" in shown
    assert "--:-- ?: 59" in shown
    assert "?: 9\r" not in shown


def test_chat_says_where_messages_are_missing(
    serve: Callable[..., ServerProcess], start: Callable[..., Process]
) -> None:
    listen = ("--port", f"tcp:{free_port()}:interface=127.0.0.1")
    server = serve(*HISTORY, listen=listen)
    jack = start("chat", url_of(server.port), "--name", "jack", "--room", "room.a")
    jack.wait_for_output("* you are jack in room.a\n")
    server.crash()
    jack.wait_for_output("trying to connect again")
    serve(*HISTORY, listen=listen)
    jack.wait_for_output("* messages of room.a are missing here\n")
    wait_until(lambda: "connected again" in jack.output, "a connection")


@pytest.mark.parametrize("face", ["aio", "sync"])
@pytest.mark.parametrize(
    ("error", "then"), [(None, ["three"]), (SystemExit, ["three"]), (ValueError, ["two", "three"])]
)
def test_a_program_gets_the_message_again_whose_handling_has_failed(
    kept: str, tmp_path: Path, face: str, error: type[BaseException] | None, then: list[str]
) -> None:
    """A message that a loop handles when an error ends its program must not be lost."""
    channel = "room.handled"

    async def handle_aio(count: int) -> list[str]:
        async with aio.Client(kept, positions=FilePositions(tmp_path / "positions")) as client:
            subscription = await client.subscribe(channel, last=2)
            async with asyncio.timeout(TIME_LIMIT):
                found = [(await subscription.next()).text for _ in range(count)]
            if error is not None and "three" not in found:
                raise error
        return found

    def handle_sync(count: int) -> list[str]:
        with sync.Client(kept, positions=FilePositions(tmp_path / "positions")) as client:
            subscription = client.subscribe(channel, last=2)
            found = [subscription.next(timeout=TIME_LIMIT).text for _ in range(count)]
            if error is not None and "three" not in found:
                raise error
        return found

    def handle(count: int) -> list[str]:
        return handle_sync(count) if face == "sync" else asyncio.run(handle_aio(count))

    with sync.Client(kept) as publisher:
        for text in ("one", "two"):
            publisher.publish(channel, text)
        with suppress(ValueError, SystemExit):
            handle(2)
        publisher.publish(channel, "three")
        assert handle(len(then)) == then
