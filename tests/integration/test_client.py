"""The Python client as programs use it, against a real server."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from integration._client import PROLOGUE, run_program, url_of
from integration._docs import ROOT, Process, environment, free_port
from integration._server import TIME_LIMIT, Backend, ServerProcess, wait_until

EXAMPLES = ROOT / "examples"


def test_two_clients_chat(server: ServerProcess) -> None:
    program = """
async def main(reactor, url):
    jack, mike = Client(url, reactor=reactor), Client(url, reactor=reactor)
    await gatherResults([jack.connect(), mike.connect()])
    heard = await jack.subscribe("room.a")
    said = []
    await mike.subscribe("room.a", lambda message: said.append(message.text))
    await jack.publish("room.a", "chat", {"from": "jack"}, "hello mike")
    await mike.publish("room.a", "chat", {"from": "mike"}, "hello jack")
    for _ in range(2):
        message = await heard.next()
        print(message.headers.get("from"), message.text)
    print(said)
    await gatherResults([jack.close(), mike.close()])
"""
    assert run_program(program, url_of(server.port)) == [
        "jack hello mike",
        "mike hello jack",
        "['hello mike', 'hello jack']",
    ]


def test_receipts_replies_errors_and_parts(server: ServerProcess) -> None:
    program = """
async def main(reactor, url):
    client = Client(url, reactor=reactor)
    await client.connect()
    print((await client.confirm(Message("chat", {"subscribe": "room.a"}))).command)
    print((await client.request("echo", body="hello")).text)
    for asked in (client.request("refuse"), client.request("nobody"), client.confirm(Message("boom"))):
        try:
            await asked
        except ReplyError as error:
            print(type(error).__name__, error.status)
    reply = await client.request(multipart_message("parts", [Part(body=b"one"), Part(body=b"two")]))
    print(reply.command)
    await client.close()
"""
    lines = run_program(program, url_of(server.port))
    server.expect_traceback("RuntimeError: boom went the processor")
    assert lines[:3] == ["receipt", "hello", "ReplyError 409"]
    assert lines[3:] == ["NoReply 404", "ReplyError 500", "parts"]


def test_the_receipt_of_an_upstream_message_holds_the_answer(
    serve: Callable[..., ServerProcess], backend: Backend
) -> None:
    url = f"http://127.0.0.1:{backend.port}/record"
    server = serve("--upstream-allow", url)
    program = """
async def main(reactor, url, backend):
    client = Client(url, reactor=reactor)
    await client.connect()
    receipt = await client.confirm(Message("chat", {"upstream": "POST " + backend}, "hello"))
    print(receipt.headers.get("upstream-status"))
    await client.close()
"""
    assert run_program(program, url_of(server.port), url) == ["200"]


def test_ten_thousand_messages_arrive_in_order(server: ServerProcess) -> None:
    program = """
async def main(reactor, url):
    client = Client(url, reactor=reactor)
    await client.connect()
    got = []
    await client.subscribe("burst", lambda message: got.append(int(message.body)))
    for start in range(0, 10_000, 500):
        for number in range(start, start + 499):
            await client.publish("burst", "chat", body=str(number), receipt=False)
        await client.publish("burst", "chat", body=str(start + 499))
    print(got == list(range(10_000)))
    await client.close()
"""
    assert run_program(program, url_of(server.port)) == ["True"]


def test_a_client_goes_on_when_the_server_is_killed_and_started_again(
    serve: Callable[..., ServerProcess], tmp_path: Path
) -> None:
    port = free_port()
    listen = ("--port", f"tcp:{port}:interface=127.0.0.1")
    program = (
        PROLOGUE
        + """
async def main(reactor, url):
    client = Client(url, reactor=reactor, on_state=states, retry_policy=lambda attempt: 0.1)
    await client.connect()
    async for message in client.subscribe("room.a"):
        print(message.text, flush=True)
        if message.text == "end":
            break
        await client.publish("room.b", "chat", body="heard")
    await client.close()
react(main, sys.argv[1:])
"""
    )
    first = serve(listen=listen)
    with Process([sys.executable, "-c", program, url_of(port)], tmp_path) as client:
        client.wait_for_output("connected\n")
        first.crash()
        client.wait_for_output("waiting\n")
        serve(listen=listen)
        for _ in client.moments("connect again"):
            if client.output.count("connected\n") == 2:
                break
        for body in ("one", "end"):
            run_program(
                """
async def main(reactor, url, body):
    client = Client(url, reactor=reactor)
    await client.connect()
    await client.publish("room.a", "chat", body=body)
    await client.close()
""",
                url_of(port),
                body,
            )
        wait_until(lambda: client.output.endswith("one\nend\nclosing\nclosed\n"), client.output)


def test_tls_with_a_certificate_that_signs_itself(
    serve: Callable[..., ServerProcess], certificate: tuple[Path, Path]
) -> None:
    key_file, certificate_file = certificate
    server = serve(listen=("--port", f"ssl:0:interface=127.0.0.1:privateKey={key_file}:certKey={certificate_file}"))
    program = """
from twisted.internet.ssl import Certificate, optionsForClientTLS

async def main(reactor, url, path):
    trust = Certificate.loadPEM(Path(path).read_bytes())
    client = Client(url, reactor=reactor, tls=optionsForClientTLS("127.0.0.1", trustRoot=trust))
    await client.connect()
    subscription = await client.subscribe("room.a")
    await client.publish("room.a", "chat", body="secret")
    print((await subscription.next()).text)
    await client.close()
    try:
        await Client(url, reactor=reactor).connect()
    except ConnectFailed as error:
        print("certificate verify failed" in error.reason)
"""
    lines = run_program(program, f"wss://127.0.0.1:{server.port}/", certificate_file)
    assert lines == ["secret", "True"]


def test_a_unix_socket_by_its_endpoint(serve: Callable[..., ServerProcess], tmp_path: Path) -> None:
    serve(listen=("--port", f"unix:{tmp_path}/socket"))
    program = """
async def main(reactor, endpoint):
    client = Client(endpoint, reactor=reactor)
    await client.connect()
    await client.confirm(Message("chat", {"subscribe": "room.a"}))
    print(client.state.value)
    await client.close()
"""
    assert run_program(program, f"unix:{tmp_path}/socket") == ["connected"]


def test_what_is_no_websocket_server_is_told(backend: Backend) -> None:
    program = """
async def main(reactor, url):
    try:
        await Client(url, reactor=reactor).connect()
    except ConnectFailed as error:
        print(error.reason.partition(": ")[2])
"""
    (line,) = run_program(program, url_of(backend.port))
    assert line.startswith("the server refuses") or "HTTP version" in line


def test_the_twisted_example_goes_on_across_a_restart(serve: Callable[..., ServerProcess], tmp_path: Path) -> None:
    port = free_port()
    listen = ("--port", f"tcp:{port}:interface=127.0.0.1")
    server = serve(listen=listen)
    with Process([sys.executable, str(EXAMPLES / "client_twisted.py"), url_of(port), "clock", "3"], tmp_path) as clock:
        clock.wait_for_output("connected: ")
        server.stop()
        clock.wait_for_output("waiting: ")
        serve(listen=listen)
        wait_until(lambda: "closed: " in clock.output, clock.output)
    assert clock.output.count("connected: ") == 2


def test_the_asyncio_example_listens_and_asks(serve: Callable[..., ServerProcess]) -> None:
    server = serve("--processor", f"{EXAMPLES}/echo.py:echo")
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / "client_asyncio.py"), url_of(server.port), "room.a"],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=TIME_LIMIT,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == ["message 0", "message 1", "message 2", "echo: hello"]


def test_processors_that_reply_later_are_waited_for(server: ServerProcess) -> None:
    program = """
async def main(reactor, url):
    client = Client(url, reactor=reactor)
    await client.connect()
    asked = [client.request(command, body=str(n)) for n, command in enumerate(["deferred", "echo", "coroutine"])]
    print([(await one).command for one in asked])
    await client.close()
"""
    assert run_program(program, url_of(server.port)) == ["['deferred', 'echo', 'coroutine']"]
