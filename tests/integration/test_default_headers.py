"""``[default-headers.COMMAND]``: with clients of all codecs, over HTTP, and after SIGHUP."""

from __future__ import annotations

import signal
import urllib.request
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from integration._server import ServerProcess, message, open_client, recv_bytes, send_bytes, wait_until
from integration.test_codecs import CODECS, Member

FILE = """
[default-headers.chat]
kind = "{kind}"

[default-headers.say]
publish = "room"
"""


def post(server: ServerProcess, body: bytes, kind: str) -> None:
    request = urllib.request.Request(
        f"http://127.0.0.1:{server.port}/publish", body, {"content-type": kind, "accept": kind}
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        assert answer.status == 200


def test_messages_of_every_codec_get_them(serve: Callable[..., ServerProcess], tmp_path: Path) -> None:
    (tmp_path / "lhttp.toml").write_text(FILE.format(kind="talk"), "utf-8")
    server = serve("--config", "lhttp.toml")
    with ExitStack() as stack:
        reader = stack.enter_context(open_client(server.port, subprotocols=["lhttp"]))
        send_bytes(reader, message("x", {"subscribe": "room", "receipt": "in"}).encode(), False)
        recv_bytes(reader)
        for name in CODECS:
            sender = Member(stack.enter_context(open_client(server.port, subprotocols=[name])), name)
            sender.send("chat", {"publish": "room"}, b"1")
            assert recv_bytes(reader)[0] == b"LHTTP/1.0 chat\r\nkind:talk\r\npublish:room\r\n\r\n1"
            sender.send("chat", {"publish": "room", "kind": "own"}, b"2")
            assert recv_bytes(reader)[0] == b"LHTTP/1.0 chat\r\npublish:room\r\nkind:own\r\n\r\n2"
            sender.send("say", {"receipt": "1"}, b"3")
            assert recv_bytes(reader)[0] == b"LHTTP/1.0 say\r\npublish:room\r\n\r\n3"
            assert sender.take() == ("receipt", "1", b"")
        for write, kind in (("lhttp", "text/plain"), ("lhttp.json", "application/json"),
                            ("lhttp.protobuf", "application/protobuf")):  # fmt: skip
            post(server, CODECS[write][0]("chat", {"publish": "room"}, b"4")[0], kind)
            assert recv_bytes(reader)[0] == b"LHTTP/1.0 chat\r\nkind:talk\r\npublish:room\r\n\r\n4"
            post(server, CODECS[write][0]("say", {}, b"5")[0], kind)
            assert recv_bytes(reader)[0] == b"LHTTP/1.0 say\r\npublish:room\r\n\r\n5"


@pytest.mark.parametrize("workers", [1, 2])
def test_sighup_puts_others_in_force(serve: Callable[..., ServerProcess], tmp_path: Path, workers: int) -> None:
    (tmp_path / "lhttp.toml").write_text(FILE.format(kind="talk"), "utf-8")
    server = serve("--config", "lhttp.toml", "--workers", str(workers))
    with open_client(server.port) as client:

        def kind() -> str:
            send_bytes(client, message("chat", {"publish": "room"}).encode(), False)
            return recv_bytes(client)[0].split(b"\r\n")[1].decode()

        send_bytes(client, message("x", {"subscribe": "room", "receipt": "in"}).encode(), False)
        recv_bytes(client)
        wait_until(lambda: kind() == "kind:talk", "the default header is there")
        (tmp_path / "lhttp.toml").write_text(FILE.format(kind="other"), "utf-8")
        server.process.send_signal(signal.SIGHUP)
        wait_until(lambda: kind() == "kind:other", "the new default headers are in force")
        (tmp_path / "lhttp.toml").write_text(FILE.format(kind="a\\nb"), "utf-8")
        server.process.send_signal(signal.SIGHUP)
        server.wait_for_log("lhttp.toml:3: value 'a\\nb' of header kind holds a control character")
        assert kind() == "kind:other"
