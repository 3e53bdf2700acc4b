"""The examples of nginx, HAProxy and Caddy in ``contrib``, run in front of two real servers."""

from __future__ import annotations

import http.client
import re
import shutil
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from event_source import Parser
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Origin

from integration._docs import ROOT, Process, free_port, wait_for_port
from integration._server import TIME_LIMIT, ServerProcess, message, processor_arguments, wait_until

TOKEN = "a-token-of-the-tests-0123456789"
CLIENT = "127.0.0.2"
"""The address that clients have here: proxies have 127.0.0.1."""

NGINX = """
error_log stderr warn;
pid nginx.pid;
worker_processes 1;
events {{ worker_connections 512; }}
http {{
    access_log off;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    include {example};
}}
"""
"""What ``/etc/nginx/nginx.conf`` is on a machine; the example is included by it."""


def needs(program: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(program) is None, reason=f"{program} is not installed")


PROXIES = [
    pytest.param("nginx/lhttp.conf", marks=needs("nginx"), id="nginx"),
    pytest.param("haproxy/haproxy.cfg", marks=needs("haproxy"), id="haproxy"),
    pytest.param("haproxy/haproxy-tcp.cfg", marks=needs("haproxy"), id="haproxy-tcp"),
    pytest.param("caddy/Caddyfile", marks=needs("caddy"), id="caddy"),
]


NOTICED = {
    "haproxy": "/a is DOWN, reason: Layer7 wrong status, code: 503",
    "caddy": "status code out of tolerances",
}
"""What proxies that ask for /ready write when a server stops. nginx does not ask."""


@dataclass
class Site:
    """Two servers behind a proxy; clients have an address of their own."""

    port: int
    servers: list[ServerProcess]
    proxy: Process

    @contextmanager
    def client(self) -> Iterator[ClientConnection]:
        """Connect a client over WebSocket."""
        with (
            socket.create_connection(("127.0.0.1", self.port), TIME_LIMIT, (CLIENT, 0)) as sock,
            connect(
                f"ws://chat.example:{self.port}/",
                sock=sock,
                proxy=None,
                origin=Origin(f"http://chat.example:{self.port}"),
            ) as client,
        ):
            yield client

    @contextmanager
    def request(self, method: str, path: str, body: str = "", **headers: str) -> Iterator[http.client.HTTPResponse]:
        """Make a request; the caller reads the answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, TIME_LIMIT, (CLIENT, 0))
        with closing(connection):
            connection.request(method, path, body, {"Host": "chat.example", **headers})
            with closing(connection.getresponse()) as answer:
                yield answer

    def publish(self, body: str, **headers: str) -> int:
        """Publish to ``room.a``; return the status of the answer."""
        with self.request("POST", "/publish", message("chat", {"publish": "room.a"}, body), **headers) as answer:
            return answer.status


@pytest.fixture(params=PROXIES)
def site(
    request: pytest.FixtureRequest, tmp_path: Path, serve: Callable[..., ServerProcess]
) -> Iterator[Callable[..., Site]]:
    """Start two servers as the example says, and the proxy with the example."""
    example = ROOT / "contrib" / request.param
    text = example.read_text("utf-8")
    (tmp_path / "token").write_text(TOKEN, "ascii")
    stated = re.search(r"# Start each server with:\n((?:#   .*\n)+)", text)
    assert stated is not None
    options = stated[1].replace("#", "").split()
    at = options.index("--listen") + 1
    endpoint, others = options[at], [*options[: at - 1], *options[at + 1 :]]

    with ExitStack() as stack:

        def start(*more: str, delay: float = 0) -> Site:
            more = (*more, "--drain-delay", str(delay))
            arguments = [
                *others,
                *processor_arguments("echo"),
                "--log-connections",
                "info",
                "--log-format",
                "text",
                *more,
            ]
            servers = [serve(*arguments, listen=("--listen", endpoint.replace("8081", "0"))) for _ in range(2)]
            port = free_port()
            here = {"8081": str(servers[0].port), "8082": str(servers[1].port), "8080": str(port)}
            config = re.sub(r"(?<=:)808[12]\b", lambda found: here[found[0]], text)
            config = re.sub(r"(listen |bind ):?8080\b", rf"\g<1>127.0.0.1:{port}", config)
            config = re.sub(r"(http://:)8080 \{", rf"\g<1>{port} {{\n\tbind 127.0.0.1", config)
            config = config.replace("maxconn 20000", "maxconn 200")  # more may take more descriptors than a test has
            path = tmp_path / example.name
            path.write_text(config, "utf-8")
            if example.suffix == ".conf":
                (tmp_path / "nginx.conf").write_text(NGINX.format(example=path), "utf-8")
                command = ["nginx", "-p", str(tmp_path), "-c", "nginx.conf", "-g", "daemon off;"]
            elif example.name == "Caddyfile":
                command = ["caddy", "run", "--adapter", "caddyfile", "--config", str(path)]
            else:
                command = ["haproxy", "-db", "-f", str(path)]
            proxy = stack.enter_context(Process(command, tmp_path))
            wait_for_port(port, proxy)
            return Site(port, servers, proxy)

        yield start


def test_websockets_pass_with_the_address_of_their_client(site: Callable[..., Site]) -> None:
    started = site()
    with ExitStack() as stack:
        for number in range(4):
            client = stack.enter_context(started.client())
            client.send(message("echo", {}, f"number {number}"))
            assert client.recv(TIME_LIMIT) == message("echo", {}, f"number {number}")
        for server in started.servers:  # each has half of the clients
            server.wait_for_log(CLIENT, 2)
            assert len(re.findall(r"127\.0\.0\.2(?::\d+)?: opened, user", server.log)) == 2


def test_an_event_stream_is_not_held_back_and_publish_needs_its_token(site: Callable[..., Site]) -> None:
    started = site("--demo")
    # One server only, so that publisher and reader meet: the two share no channels here.
    started.servers[1].stop()
    parser = Parser()
    with started.request("GET", "/events?channel=room.a", Accept="text/event-stream") as stream:
        assert stream.status == 200
        while parser.retry is None:
            parser.feed(stream.read1(4096))
        assert started.publish("without the token") == 401
        for number in range(3):
            assert started.publish(f"number {number}", Authorization=f"Bearer {TOKEN}") == 200
            while len(parser.events) <= number:
                data = stream.read1(4096)
                assert data, parser.events
                parser.feed(data)
    assert [event.body for event in parser.events] == ["number 0", "number 1", "number 2"]


def test_clients_of_a_server_that_stops_reach_the_other_one(site: Callable[..., Site]) -> None:
    started = site(delay=600)
    first, second = started.servers
    noticed = next((text for name, text in NOTICED.items() if started.proxy.command.startswith(name)), None)
    try:
        with ExitStack() as stack:
            clients = [stack.enter_context(started.client()) for _ in range(2)]
            second.wait_for_log(": opened, user")
            first.process.send_signal(signal.SIGTERM)
            first.wait_for_log("stopping: serving for 600 s more")
            if noticed is not None:
                started.proxy.wait_for_output(noticed)
            else:
                first.process.send_signal(signal.SIGTERM)  # nginx notices when it does not listen any more
                wait_until(lambda: not listens(first.port), "the first server does not listen")
            clients += [stack.enter_context(started.client()) for _ in range(4)]
            second.wait_for_log(": opened, user", 5)
            for client in clients if noticed else clients[2:]:
                client.send(message("echo"))
                assert client.recv(TIME_LIMIT) == message("echo")
    finally:
        for server in started.servers:
            if server.process.poll() is None:
                server.process.send_signal(signal.SIGTERM)
                server.wait_for_log("stopping: serving for 600 s more")
                server.stop()  # a second signal ends the delay


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
