"""The benchmarks' own arithmetic: statistics, frames, counting, targets, tables, plots; and that one of them runs."""

from __future__ import annotations

import io
import json
import socket
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).resolve().parent.parent
pytestmark = pytest.mark.skipif(not (ROOT / "benchmarks").is_dir(), reason="a source distribution has no benchmarks")
if (ROOT / "benchmarks").is_dir():
    sys.path.insert(0, str(ROOT))
    from benchmarks import history, parts, scenarios, svg
    from benchmarks.__main__ import is_broken
    from benchmarks.dialects import CENTRIFUGO, CENTRIFUGO_PLAIN, LHTTP, NATS, SOCKET_IO
    from benchmarks.figures import Case, Curve, Results, percentile, ratio, slope, spread
    from benchmarks.load import Lost, Readers, burst
    from benchmarks.report import Terminal, case_table, curve_table, number, targets_table
    from benchmarks.scenarios import SCENARIOS
    from benchmarks.servers import Peers
    from benchmarks.targets import judge
    from benchmarks.watched import PLAIN, WATCHED
    from benchmarks.wire import MarkCounter, PayloadMeter, client_frame, frame_size, handshake
    from lhttp_tx.codec.message import parse
    from lhttp_tx.transports.websocket.frames import build_frame, build_frames
    from lhttp_tx.transports.websocket.reader import take_messages


# Statistics


@pytest.mark.parametrize(("share", "expected"), [(0.5, 2), (0.51, 3), (0.99, 4), (1.0, 4), (0.01, 1)])
def test_percentile_is_the_nearest_rank(share: float, expected: float) -> None:
    assert percentile([4, 1, 3, 2], share) == expected


def test_percentile_of_nothing_is_an_error() -> None:
    with pytest.raises(ValueError, match="no values"):
        percentile([], 0.5)


def test_ratio_compares_medians_so_that_one_outlier_changes_nothing() -> None:
    assert ratio([10, 11, 1_000], [5, 5.5, 0.1]) == pytest.approx(11 / 5)


def test_spread_is_a_share_of_the_median() -> None:
    assert spread([9, 10, 12]) == pytest.approx(0.3)


def test_slope_finds_the_line_through_points_on_a_line() -> None:
    assert slope([(0, 1), (1, 3), (2, 5)]) == pytest.approx((1, 2))


def test_slope_of_one_point_is_level() -> None:
    assert slope([(3, 7)]) == (7, 0)


# Frames


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65_535])
@pytest.mark.parametrize("binary", [False, True])
def test_client_frame_is_what_the_server_takes_for_one_message(size: int, binary: bool) -> None:
    payload = (b"0123456789" * 6_554)[:size]
    frame = client_frame(payload, binary=binary)
    assert take_messages(frame, 0, 100_000) == ([payload], binary, len(frame), False)


@pytest.mark.parametrize("size", [0, 125, 126, 65_535, 65_536])
def test_frame_size_is_that_of_a_frame_of_the_server(size: int) -> None:
    assert frame_size(size) == len(build_frame(b"x" * size, False))


def test_handshake_names_its_path_and_ends_with_an_empty_line() -> None:
    assert handshake("/x?y").startswith(b"GET /x?y HTTP/1.1\r\n")
    assert handshake().endswith(b"\r\n\r\n")


@pytest.mark.parametrize("piece", [1, 2, 3, 5, 7, 64, 1_000, 200_000])
def test_payload_meter_counts_payload_however_the_stream_is_cut(piece: int) -> None:
    sizes = [0, 1, 125, 126, 300, 65_535, 70_000, 2]
    stream = b"".join(build_frame(b"\x82" * size, True) for size in sizes)
    meter = PayloadMeter()
    counted = sum(meter.feed(memoryview(stream)[start : start + piece]) for start in range(0, len(stream), piece))
    assert counted == sum(sizes)


@pytest.mark.parametrize("piece", [1, 2, 3, 7, 64, 10_000])
def test_payload_meter_counts_the_same_however_messages_are_joined(piece: int) -> None:
    messages = [b"x" * size for size in (10, 20, 100, 40, 300, 1, 70)]
    for joined in (messages, [b"\n".join(messages)], [b"\n".join(messages[:3]), b"\n".join(messages[3:])]):
        stream = b"".join(build_frame(payload, False) for payload in joined)
        meter = PayloadMeter(separator=1)
        counted = sum(meter.feed(memoryview(stream)[start : start + piece]) for start in range(0, len(stream), piece))
        assert counted == sum(len(message) + 1 for message in messages)


@pytest.mark.parametrize("piece", range(1, 25))
def test_mark_counter_misses_no_mark_that_is_cut_in_two(piece: int) -> None:
    stream = b"".join(b"LHTTP/1.0 receipt\r\nreceipt-id:%d\r\n\r\n" % number for number in range(20))
    counter = MarkCounter(LHTTP.receipt)
    assert sum(counter.feed(stream[start : start + piece]) for start in range(0, len(stream), piece)) == 20


# Load


def test_publisher_of_a_burst_reads_what_it_is_answered() -> None:
    reader, subscriber = socket.socketpair()
    writer, publisher = socket.socketpair()
    with reader, subscriber, writer, publisher:
        writer.setblocking(False)
        publisher.sendall(b"an answer")
        subscriber.sendall(b"12345")
        assert burst(Readers([reader]), writer, b"published", 1, 5).messages == 1
        assert publisher.recv(100) == b"published"
        with pytest.raises(BlockingIOError):
            writer.recv(100)


def test_burst_is_lost_when_the_server_closes_the_connection_of_the_publisher() -> None:
    reader, subscriber = socket.socketpair()
    writer, publisher = socket.socketpair()
    with reader, subscriber, writer:
        publisher.close()
        with pytest.raises((Lost, BrokenPipeError)):
            burst(Readers([reader]), writer, b"published", 1, 5)


def test_publications_with_receipts_have_tokens_of_their_own() -> None:
    data = b"".join(history._batches(LHTTP, 3, 4))
    messages = [parse(payload) for payload in take_messages(data, 0, 10_000)[0]]
    assert [message.headers.get("receipt") for message in messages] == [str(number) for number in range(1, 13)]


# Dialects


def test_lhttp_dialect_says_how_large_a_delivery_is() -> None:
    payload = take_messages(LHTTP.publish("room", b"hello"), 0, 1_000)[0][0]
    assert parse(payload).head.channels("publish") == ("room",)
    assert LHTTP.delivery_size("room", b"hello") == len(build_frame(payload, False))


def test_lhttp_dialect_says_how_large_an_echo_is() -> None:
    payload = take_messages(LHTTP.echo(b"hello", "echo-deferred"), 0, 1_000)[0][0]
    assert LHTTP.echo_size(b"hello", "echo-deferred") == len(build_frame(payload, False))


def test_nats_dialect_numbers_all_subscriptions_in_the_same_width() -> None:
    channels = [f"c{index}" for index in range(100)]
    lines = take_messages(NATS.subscribe(channels), 0, 10_000)[0][0].split(b"\r\n")
    assert lines[0] == b"SUB c0 001"
    assert lines[99:] == [b"SUB c99 100", b"PING", b""]
    assert NATS.delivery_size("c", b"xy", 100) == len(b"MSG c 001 2\r\nxy\r\n")


def test_socket_io_dialect_quotes_room_and_body() -> None:
    assert take_messages(SOCKET_IO.publish("r", b"b"), 0, 100)[0][0] == b'42["publish","r","b"]'


def test_centrifugo_dialect_numbers_its_commands() -> None:
    frames = take_messages(CENTRIFUGO.burst("room", b"hello", 3), 0, 1_000)[0]
    assert [json.loads(frame) for frame in frames] == [
        {"publish": {"channel": "room", "data": "hello"}, "id": number} for number in (1, 2, 3)
    ]


def test_centrifugo_dialect_says_how_large_a_delivery_is() -> None:
    push = (
        b'{"push":{"channel":"room","pub":{"data":"hello",'
        b'"info":{"user":"","client":"adc30b0b-9649-44fa-b70f-b7ce7d65f2d6"},"offset":1000}}}'
    )
    first = push.replace(b"1000", b'1,"epoch":"EgPimfRB"')
    assert CENTRIFUGO.kept_size("room", b"hello", 1_000) == len(push) + 1
    assert CENTRIFUGO.kept_size("room", b"hello", 1) == len(first) + 1
    assert CENTRIFUGO.delivery_size("room", b"hello") == len(push) + 1 - len(',"offset":1000')


def test_centrifugo_keeps_no_history_of_plain_channels() -> None:
    frames = take_messages(CENTRIFUGO_PLAIN.subscribe(["room"]) + CENTRIFUGO_PLAIN.publish("room", b"hello"), 0, 1_000)[
        0
    ]
    assert [json.loads(frame) for frame in frames] == [
        {"subscribe": {"channel": "plain:room"}, "id": 2},
        {"publish": {"channel": "plain:room", "data": "hello"}, "id": 1},
    ]
    assert CENTRIFUGO_PLAIN.delivery_size("room", b"hello") == CENTRIFUGO.delivery_size("plain:room", b"hello")
    config = json.loads((ROOT / "benchmarks/peers/centrifugo.json").read_text("utf-8"))
    (namespace,) = config["channel"]["namespaces"]
    assert namespace["name"] == "plain"
    assert not [key for key in namespace if key.startswith(("history", "force"))]


@pytest.mark.parametrize(
    ("answer", "offset"),
    [
        (b'{"id":2,"subscribe":{"recoverable":true,"epoch":"EgPimfRB","positioned":true}}', 0),
        (b'{"id":2,"subscribe":{"recoverable":true,"epoch":"EgPimfRB","offset":17,"positioned":true}}', 17),
    ],
)
def test_centrifugo_dialect_goes_on_where_the_channel_stood(answer: bytes, offset: int) -> None:
    found = CENTRIFUGO.position.search(answer)
    assert found is not None
    (command,) = take_messages(CENTRIFUGO.resume("room", found.groups()), 0, 1_000)[0]
    wanted = {"channel": "room", "recover": True, "epoch": "EgPimfRB", "offset": offset}
    assert json.loads(command)["subscribe"] == wanted


# Servers


def test_centrifugo_is_missing_until_it_is_on_the_path_or_in_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert "go install" in Peers(tmp_path, wanted=["centrifugo"]).missing["centrifugo"]
    for directory in ("bin", "lhttp_tx-benchmarks"):
        path = tmp_path / directory / "centrifugo"
        path.parent.mkdir()
        path.touch(0o755)
        assert "centrifugo" not in Peers(tmp_path, wanted=["centrifugo"]).missing
        path.unlink()


# Results


def filled_results() -> Results:
    case = Case("a.10000", "a burst", "deliveries")
    for turn in range(3):
        case.add("lhttp", {"rate": 400.0 + turn, "cpu": 2.0})
        case.add("autobahn", {"rate": 100.0, "cpu": 9.0})
    case.lost["nats"] = "7 of 10 bytes did not come"
    level = Curve(
        "j.channels", "A publish", "other channels", "times", {"lhttp": [(0, 1.0), (100, 1.1)]}, untouched=True
    )
    return Results({"command": "x"}, [case], [level], {"k": "no bus"})


def test_results_survive_json() -> None:
    results = filled_results()
    assert Results.from_json(json.loads(json.dumps(results.to_json()))) == results


def test_targets_are_judged_by_ratios_of_medians() -> None:
    burst, level = judge(filled_results())
    assert (burst.measured, burst.reached) == (pytest.approx(4.01), True)
    assert (level.measured, level.reached) == (pytest.approx(1.1), True)


def test_target_is_missed_when_a_level_line_rises() -> None:
    results = filled_results()
    results.curves[0].series["lhttp"][-1] = (100, 8.0)
    assert [verdict.reached for verdict in judge(results)] == [True, False]
    assert "MISSED" in targets_table(results)


def test_a_server_that_is_watched_is_judged_turn_by_turn() -> None:
    case = Case("r.burst", "burst", "deliveries")
    for plain, seen in ((1.0, 1.01), (5.0, 5.05), (1.0, 1.01), (9.0, 90.0)):  # the machine was busy at times
        case.add(PLAIN, {"cpu": plain})
        case.add(WATCHED, {"cpu": seen})
    results = Results(cases=[case])
    (verdict,) = judge(results)
    assert verdict.measured == pytest.approx(1 / 1.01)
    assert verdict.reached
    case.rows[WATCHED]["cpu"] = [1.1, 5.5, 1.1, 9.9]
    assert "MISSED" in targets_table(results)
    del case.rows[PLAIN]
    assert judge(results) == []


def test_run_that_measured_no_target_has_no_table_of_targets() -> None:
    assert targets_table(Results()) == ""


def test_case_table_shows_medians_ratios_and_what_was_lost() -> None:
    table = case_table(filled_results().cases[0])
    assert "deliveries/s" in table
    assert "4.01x" in table
    assert "7 of 10 bytes did not come" in table


def test_curve_table_shows_points_and_the_best_line() -> None:
    table = curve_table(filled_results().curves[0])
    assert "1.10" in table
    assert "1 + 0.001 x" in table


@pytest.mark.parametrize(("value", "text"), [(1234.5, "1,234"), (12.34, "12.3"), (1.234, "1.23"), (0, "0.00")])
def test_number_shows_three_digits_that_count(value: float, text: str) -> None:
    assert number(value) == text


def test_parts_handle_the_publications_that_they_are_measured_with(capsys: pytest.CaptureFixture[str]) -> None:
    payloads = parts.publications(scenarios.MIXED_BODIES)
    data = parts.masked(payloads)
    assert take_messages(data, 0, parts.READ_SIZE)[0] == payloads
    assert parts.READ_SIZE * 0.9 < len(data) <= parts.READ_SIZE * 1.1
    frames: list[bytes] = []
    parts.through_the_server(payloads, frames.append)()
    assert b"".join(frames) == build_frames(payloads, False)
    function = parts.compiled()
    if function is not None:
        assert function(data) == payloads
    parts.main(["--seconds", "0"])
    assert "from the session to a subscriber" in capsys.readouterr().out


def test_progress_is_silent_where_there_is_no_terminal() -> None:
    out, err = io.StringIO(), io.StringIO()
    terminal = Terminal(out, err)
    terminal.step("measuring")
    terminal.finished(filled_results().cases[0])
    assert err.getvalue() == ""
    assert "a burst" in out.getvalue()


# Plots


@pytest.mark.parametrize("top", [0.003, 0.9, 1, 7, 10, 999, 100_000])
def test_ticks_begin_at_zero_and_reach_the_top(top: float) -> None:
    found = svg.ticks(top)
    assert found[0] == 0
    assert found[-1] >= top * 0.999_999
    assert 3 <= len(found) <= 8


def test_plots_are_xml_with_labels_on_their_axes(tmp_path: Path) -> None:
    paths = svg.write_plots(filled_results(), tmp_path)
    assert {path.name for path in paths} == {"throughput.svg", "cpu.svg", "channels.svg"}
    texts = {path.name: "".join(ElementTree.parse(path).getroot().itertext()) for path in paths}
    assert "rate of lhttp_tx / rate of the peer" in texts["throughput.svg"]
    assert "other channels" in texts["channels.svg"]


def test_plots_escape_what_they_show() -> None:
    text = svg.lines(Curve("j.x", "a < b & 'c'", "x", "y", {"lhttp": [(1, 1)]}))
    assert "a < b & 'c'" in "".join(ElementTree.fromstring(text).itertext())


# The command


@pytest.mark.parametrize(
    ("row", "broken"), [("lhttp", True), ("memory", True), ("SQLite", True), ("centrifugo", False), ("nats", False)]
)
def test_run_is_broken_when_the_server_loses_something_with_whatever_options_it_runs(row: str, broken: bool) -> None:
    results = filled_results()
    assert not is_broken(results)
    results.cases[0].lost[row] = "7 of 10 bytes did not come"
    assert is_broken(results) == broken


def test_run_is_broken_when_a_scenario_is_broken_off() -> None:
    assert is_broken(Results(skipped={"o": "broken off: it did not start"}))


def test_every_scenario_has_a_letter_of_the_alphabet() -> None:
    assert list(SCENARIOS) == list("abcdefghijklmnopqr")


@pytest.mark.skipif(sys.platform != "linux", reason="CPU time of other processes is read as Linux has it")
def test_quick_burst_runs_and_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    arguments = ["--quick", "--scenario", "a", "--peers", "autobahn", "--rounds", "1", "--json", str(path)]
    subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments], cwd=ROOT, check=True, timeout=300, stdout=subprocess.DEVNULL
    )
    results = Results.from_json(json.loads(path.read_text("utf-8")))
    case = results.case("a.2000")
    assert case is not None
    assert set(case.rows) == {"lhttp", "autobahn"}
    assert case.lost == {}
    assert {"rate", "cpu", "load"} <= set(case.rows["lhttp"])


@pytest.mark.parametrize(("file", "words"), [("lhttp_tx/__init__.py", "it has the same lhttp_tx"), ("setup.cfg", None)])
def test_a_state_before_that_is_this_state_is_not_measured(tmp_path: Path, file: str, words: str | None) -> None:
    """An environment variable brought this state in, and both rows were the same."""
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\n[ -z "$PYTHONPATH" ] && echo "{ROOT / file}"\n', encoding="utf-8")
    python.chmod(0o755)
    reason = Peers(tmp_path, wanted=("lhttp", "before"), before=tmp_path).missing.get("before")
    assert (reason or "").startswith(words or "") and (reason is None) == (words is None)


@pytest.mark.skipif(sys.platform != "linux", reason="CPU time of other processes is read as Linux has it")
def test_every_reader_of_centrifugo_gets_what_is_counted(tmp_path: Path) -> None:
    if "centrifugo" in Peers(tmp_path, wanted=["centrifugo"]).missing:
        pytest.skip("centrifugo is not installed")
    path = tmp_path / "figures.json"
    arguments = ["--quick", "--scenario", "p", "--peers", "centrifugo", "--rounds", "1", "--json", str(path)]
    subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments], cwd=ROOT, check=True, timeout=300, stdout=subprocess.DEVNULL
    )
    case = Results.from_json(json.loads(path.read_text("utf-8"))).case("p.centrifugo")
    assert case is not None
    assert (set(case.rows), case.lost) == ({"lhttp", "centrifugo"}, {})
