"""Each metric of ``GET /metrics`` moves for the reason that it names, on a real server."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from integration._nats import NATSProcess, needs_nats
from integration._server import (
    TIME_LIMIT,
    Backend,
    RawClient,
    ServerProcess,
    http_request,
    message,
    open_client,
    recv_bytes,
    wait_until,
)

pytest.importorskip("prometheus_client", reason="prometheus-client is missing (the extra metrics)")

SECRET = "operator-secret-0123456789"
CONFIG = """
metrics = true
[admin]
listen = "tcp:0:interface=127.0.0.1"
[admin.keys.prometheus]
secret_file = "key"
methods = ["metrics", "mute", "unmute"]
"""
PROCESSORS = """
from lhttp_tx import Refused, processor

@processor("work")
def work(request):
    request.reply(b"done")

@processor("fail")
def fail(request):
    raise RuntimeError("a mistake")
"""


class Scraper:
    """Asks a server for its metrics."""

    def __init__(self, server: ServerProcess) -> None:
        server.wait_for_log("admin side on")
        found = re.search(r"admin side on 127\.0\.0\.1:(\d+)", server.log)
        assert found is not None
        self.port = int(found[1])
        self.server = server

    def text(self) -> str:
        status, headers, body = http_request(self.port, "GET", "/metrics", None, {"Authorization": f"Bearer {SECRET}"})
        assert status == 200
        assert headers["content-type"].startswith("text/plain")
        return body.decode("utf-8")

    def value(self, name: str) -> float:
        """Return the value of a sample, or 0 if there is none; labels are in the order of the names of labels."""
        found = re.search(rf"^{re.escape(name)} (\S+)$", self.text(), re.MULTILINE)
        return float(found[1]) if found else 0.0

    def wait(self, name: str, at_least: float = 1.0) -> None:
        wait_until(lambda: self.value(name) >= at_least, f"{name} is {at_least:g} or more")


@pytest.fixture
def start(serve: Callable[..., ServerProcess], tmp_path: Path) -> Callable[..., Scraper]:
    (tmp_path / "lhttp.toml").write_text(CONFIG, "utf-8")
    (tmp_path / "key").write_text(SECRET, "utf-8")
    (tmp_path / "key").chmod(0o600)
    (tmp_path / "plugins.py").write_text(PROCESSORS, "utf-8")
    return lambda *arguments: Scraper(serve("--config", "lhttp.toml", *arguments))


def test_every_transport_has_its_name(start: Callable[..., Scraper]) -> None:
    scraper = start("--tcp", "tcp:0:interface=127.0.0.1:backlog=64")
    port = scraper.server.port
    scraper.server.wait_for_log("listening on", count=2)
    (device_port,) = re.findall(r"listening on 127\.0\.0\.1:(\d+) \([^)]*backlog=64\)", scraper.server.log)
    assert http_request(port, "POST", "/connect")[0] == 200
    subscribe = message("x", {"subscribe": "room", "receipt": "1"}).encode()
    with (
        socket.create_connection(("127.0.0.1", port), TIME_LIMIT) as stream,
        socket.create_connection(("127.0.0.1", int(device_port)), TIME_LIMIT) as device,
        open_client(port) as client,
    ):
        stream.sendall(b"GET /events?channel=room HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        device.sendall(b"%d\n%b" % (len(subscribe), subscribe))
        client.send(subscribe.decode())
        for transport in ("events", "http", "tcp", "websocket"):
            scraper.wait(f'lhttp_connections{{codec="lhttp",state="idle",transport="{transport}"}}')
        assert 'transport="other"' not in scraper.text()


def test_messages_and_connections_are_counted(start: Callable[..., Scraper]) -> None:
    scraper = start("--presence", "room.>", "--login-parameter", "name")
    port = scraper.server.port
    with open_client(port, "/?name=jack") as one, open_client(port) as two:
        for client in (one, two):
            client.send(message("x", {"subscribe": "room.a", "receipt": "1"}))
            recv_bytes(client)
        scraper.wait('lhttp_connections{codec="lhttp",state="idle",transport="websocket"}', 2)
        scraper.wait("lhttp_connections_opened_total", 2)
        scraper.wait("lhttp_handshake_seconds_count", 2)
        scraper.wait("lhttp_channels")
        scraper.wait("lhttp_subscriptions", 2)
        scraper.wait("lhttp_presence_channels")
        scraper.wait("lhttp_presence_people", 2)
        scraper.wait("lhttp_presence_connections", 2)
        before = scraper.value("lhttp_publications_total")
        payload = message("x", {"publish": "room.a"}, "hello")
        one.send(payload)
        assert recv_bytes(one) == recv_bytes(two) == (payload.encode(), False)
        scraper.wait("lhttp_publications_total", before + 1)
        scraper.wait("lhttp_deliveries_total", 2)
        scraper.wait("lhttp_delivered_bytes_total", 2 * len(payload))
        scraper.wait("lhttp_received_messages_total", 3)
        scraper.wait("lhttp_received_bytes_total", len(payload))
        one.send(message("x", {"subscribe": "a..b"}))
        recv_bytes(one)
        scraper.wait('lhttp_errors_total{cause="RemoteProtocolError",status="400"}')
        two.close(1000)
        scraper.wait('lhttp_connections_closed_total{by="client",code="1000"}')
    assert http_request(port, "GET", "/nothing")[0] == 426
    scraper.wait('lhttp_http_requests_total{status="426"}')
    assert http_request(port, "GET", "/", headers={"Upgrade": "websocket", "Connection": "upgrade"})[0] == 400
    scraper.wait('lhttp_handshakes_refused_total{status="400"}')
    scraper.wait("lhttp_reactor_lag_seconds_count")
    scraper.wait("process_resident_memory_bytes", 1_000_000)
    assert scraper.value("lhttp_bus_up") == scraper.value("lhttp_history_up") == scraper.value("lhttp_nodes") == 1
    assert scraper.value("lhttp_connections_limit") == 10_000
    assert 'lhttp_build_info{python="' in scraper.text()


def test_mutes_and_what_they_refuse_are_counted(start: Callable[..., Scraper]) -> None:
    scraper = start("--login-parameter", "name")
    with open_client(scraper.server.port, "/?name=jack") as client:
        client.send(message("x", {"subscribe": "room", "receipt": "1"}))
        recv_bytes(client)
        assert (scraper.value('lhttp_muted{kind="user"}'), scraper.value('lhttp_muted{kind="connection"}')) == (0, 0)
        assert 'lhttp_muted{kind="user"} 0.0' in scraper.text()
        headers = {"Authorization": f"Bearer {SECRET}", "Content-Type": "application/json"}
        for user, seconds in (("jack", 600), ("jill", 600), ("gone", 1)):
            body = json.dumps({"user": user, "seconds": seconds})
            assert http_request(scraper.port, "POST", "/api/mute", body, headers)[0] == 200
        client.send(message("x", {"publish": "room"}))
        assert b"muted" in recv_bytes(client)[0]
        scraper.wait('lhttp_errors_total{cause="Muted",status="403"}')
        wait_until(lambda: scraper.value('lhttp_muted{kind="user"}') == 2, "the third mute has ended")


def test_what_clients_make_up_gets_no_label(start: Callable[..., Scraper]) -> None:
    scraper = start()
    with open_client(scraper.server.port) as client:
        client.send(message("made-up-command", {"made-up-header": "x", "publish": "made.up.channel"}))
        client.close(4242, "made-up-reason")
    scraper.wait('lhttp_connections_closed_total{by="client",code="other"}')
    text = scraper.text()
    for name in ("made", "4242", "127.0.0.1"):
        assert name not in text


def test_processors_and_backends_are_timed(start: Callable[..., Scraper], backend: Backend) -> None:
    allow = ("--upstream-allow", backend.url + "/")
    scraper = start("--processor", "plugins.py:work", "--processor", "plugins.py:fail", *allow)
    with open_client(scraper.server.port) as client:
        client.send(message("work"))
        recv_bytes(client)
        scraper.wait('lhttp_processor_seconds_count{command="work"}')
        client.send(message("fail"))
        recv_bytes(client)
        scraper.server.expect_traceback("RuntimeError: a mistake")
        scraper.wait('lhttp_errors_total{cause="internal",status="500"}')
        scraper.wait('lhttp_processor_seconds_count{command="fail"}')
        client.send(message("x", {"upstream": f"POST {backend.url}/", "receipt": "1"}))
        recv_bytes(client)
        scraper.wait('lhttp_upstream_requests_total{outcome="2xx"}')
        scraper.wait("lhttp_upstream_seconds_count")


def test_histories_are_measured(start: Callable[..., Scraper]) -> None:
    scraper = start("--history", "kept", "--history-store", "sqlite:history.db")
    with open_client(scraper.server.port) as client:
        client.send(message("x", {"publish": "kept", "receipt": "1"}, "hello"))
        recv_bytes(client)
        scraper.wait("lhttp_history_commit_seconds_count")
        scraper.wait("lhttp_history_bytes", 4096)
        client.send(message("x", {"subscribe": "kept", "since": "other-1", "receipt": "2"}))
        recv_bytes(client)
        scraper.wait('lhttp_recoveries_total{outcome="missed"}')
        client.send(message("history", {"channel": "kept"}))
        found = re.search(rb"position:(\S+)", recv_bytes(client)[0])
        assert found is not None
        client.send(message("x", {"subscribe": "kept", "since": found[1].decode(), "receipt": "3"}))
        recv_bytes(client)
        scraper.wait('lhttp_recoveries_total{outcome="recovered"}')


def test_clients_that_are_slowed_down_are_counted(start: Callable[..., Scraper]) -> None:
    scraper = start("--max-rate", "1")
    with RawClient(scraper.server.port) as fast:
        for _ in range(5):
            fast.send(message("x"))
        scraper.wait('lhttp_reading_pauses_total{reason="rate"}')


def test_what_a_client_does_not_read_is_counted(start: Callable[..., Scraper]) -> None:
    scraper = start("--max-unsent", "100000000")
    with RawClient(scraper.server.port, receive_buffer=4096) as slow, open_client(scraper.server.port) as fast:
        slow.subscribe("flood")
        text = message("x", {"publish": "flood"}, "x" * 60_000)
        for _ in range(200):
            fast.send(text)
        scraper.wait("lhttp_unsent_bytes", 1_000_000)
        scraper.wait('lhttp_reading_pauses_total{reason="unsent"}')


def test_messages_that_wait_are_counted(start: Callable[..., Scraper], tmp_path: Path) -> None:
    slow = (
        '\nfrom twisted.internet.defer import Deferred\n@processor("slow")\ndef slow(request):\n    return Deferred()\n'
    )
    (tmp_path / "plugins.py").write_text(PROCESSORS + slow, "utf-8")
    scraper = start("--processor", "plugins.py:slow", "--processor-timeout", "600")
    with RawClient(scraper.server.port) as client:
        for _ in range(4):
            client.send(message("slow"))
        scraper.wait("lhttp_queued_messages", 3)
        assert scraper.value("lhttp_queued_bytes") == 3 * len(message("slow"))
        assert scraper.value('lhttp_connections{codec="lhttp",state="busy",transport="websocket"}') == 1


def test_connections_that_are_no_websocket_are_counted(start: Callable[..., Scraper]) -> None:
    import socket

    scraper = start()
    with socket.create_connection(("127.0.0.1", scraper.server.port)):
        scraper.wait("lhttp_connections_pending")


@pytest.fixture
def nats() -> Iterator[NATSProcess]:
    process = NATSProcess()
    yield process
    process.stop()


@needs_nats
def test_the_bus_is_watched(start: Callable[..., Scraper], nats: NATSProcess) -> None:
    scraper = start("--nats", nats.url)
    scraper.wait("lhttp_bus_up")
    scraper.wait("lhttp_bus_round_trip_seconds_count")
    with open_client(scraper.server.port) as client:
        client.send(message("x", {"publish": "a", "receipt": "1"}))
        recv_bytes(client)
        scraper.wait("lhttp_bus_confirmation_seconds_count")
        os.kill(nats.pid, signal.SIGSTOP)
        try:
            client.send(message("x", {"publish": "a", "receipt": "2"}))
            while b"status:503" not in recv_bytes(client)[0]:  # NATS may have taken some before it stood still
                client.send(message("x", {"publish": "a", "receipt": "3"}))
        finally:
            os.kill(nats.pid, signal.SIGCONT)
        scraper.wait('lhttp_unconfirmed_total{cause="BusUnavailable"}')
        scraper.wait("lhttp_bus_gaps_total")
        scraper.wait("lhttp_bus_up")
        nats.stop()
        wait_until(lambda: scraper.value("lhttp_bus_up") == 0, "lhttp_bus_up is 0")


@needs_nats
def test_nodes_are_counted(start: Callable[..., Scraper], nats: NATSProcess) -> None:
    one, _ = start("--nats", nats.url), start("--nats", nats.url)
    one.wait("lhttp_nodes", 2)


def promtool() -> str | None:
    return os.environ.get("PROMTOOL") or shutil.which("promtool")


@pytest.mark.skipif(promtool() is None, reason="promtool is missing: it comes with Prometheus; or name it in $PROMTOOL")
def test_promtool_has_nothing_against_the_metrics(start: Callable[..., Scraper]) -> None:
    scraper = start("--history", "kept")
    with open_client(scraper.server.port) as client:
        client.send(message("x", {"subscribe": "kept", "receipt": "1"}))
        recv_bytes(client)
    command = [promtool() or "", "check", "metrics"]
    done = subprocess.run(command, input=scraper.text(), capture_output=True, check=False, text=True, timeout=120)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_metrics_take_a_key_with_their_scope(start: Callable[..., Scraper], tmp_path: Path) -> None:
    (tmp_path / "lhttp.toml").write_text(
        CONFIG + '[admin.keys.other]\nsecret_file = "other"\nmethods = ["info"]\n', "utf-8"
    )
    (tmp_path / "other").write_text("another-secret-0123456789", "utf-8")
    (tmp_path / "other").chmod(0o600)
    port = start().port
    assert http_request(port, "GET", "/metrics")[0] == 401
    told = {"Authorization": "Bearer another-secret-0123456789"}
    assert http_request(port, "GET", "/metrics", None, told)[0] == 403
    assert http_request(port, "POST", "/metrics", None, {"Authorization": f"Bearer {SECRET}"})[0] == 405


PROMETHEUS = Path(__file__).parents[2] / "examples" / "prometheus"
_NAME = re.compile(r"\b((?:lhttp|process)_[a-z_]+)")


@pytest.mark.skipif(promtool() is None, reason="promtool is missing: it comes with Prometheus; or name it in $PROMTOOL")
@pytest.mark.parametrize("arguments", [("check", "rules", "alerts.yml"), ("test", "rules", "alerts_test.yml")])
def test_promtool_has_nothing_against_the_alerts(arguments: tuple[str, ...]) -> None:
    command = [promtool() or "", *arguments]
    done = subprocess.run(command, cwd=PROMETHEUS, capture_output=True, check=False, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


def expressions() -> Iterator[tuple[str, str]]:
    """Yield what alerts and dashboard ask Prometheus for, each with the place."""
    rules = (PROMETHEUS / "alerts.yml").read_text("utf-8")
    for rule in rules.split("- alert: ")[1:]:
        yield rule.split()[0], rule.split("expr:", 1)[1].split("labels:", 1)[0].split("for:", 1)[0]
    dashboard = json.loads((PROMETHEUS / "grafana-dashboard.json").read_text("utf-8"))
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            yield panel["title"], target["expr"]


def test_alerts_and_dashboard_ask_for_metrics_that_exist(start: Callable[..., Scraper]) -> None:
    scraper = start("--history", "kept")
    known = set(re.findall(r"^# TYPE (\S+) ", scraper.text(), re.MULTILINE))
    for place, expression in expressions():
        for name in _NAME.findall(expression):
            assert {name, re.sub("_(?:bucket|sum|count)$", "", name)} & known, f"{place}: {name}"


def test_panels_of_the_dashboard_do_not_overlap() -> None:
    dashboard = json.loads((PROMETHEUS / "grafana-dashboard.json").read_text("utf-8"))
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in dashboard["panels"]]
    assert len(set(places)) == len(places)
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(places)
    assert all(panel["title"] and panel["targets"] for panel in dashboard["panels"])
