"""Clients that ask for compression, with a real server."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable
from contextlib import ExitStack

from integration._server import BINARY, TEXT, RawClient, ServerProcess, client_frame, message, open_client, recv_bytes

LONG = message("chat", {"publish": "room"}, "hello " * 2000)
SUBSCRIBE = message("x", {"subscribe": "room", "receipt": "1"})
RECEIPT = message("receipt", {"receipt-id": "1"}).encode()


def test_who_asks_for_gzip_gets_it_and_others_do_not(server: ServerProcess) -> None:
    with open_client(server.port, "/?support_gzip=1") as zipped, open_client(server.port) as plain:
        zipped.send(SUBSCRIBE)
        reply, binary = recv_bytes(zipped)
        assert (gzip.decompress(reply), binary) == (RECEIPT, True)
        plain.send(SUBSCRIBE)
        assert recv_bytes(plain) == (RECEIPT, False)
        plain.send(LONG)
        published, binary = recv_bytes(zipped)
        assert (gzip.decompress(published), binary) == (LONG.encode(), True)
        assert len(published) < 200
        assert recv_bytes(plain) == (LONG.encode(), False)


def test_who_asks_for_gzip_may_send_it(server: ServerProcess) -> None:
    with open_client(server.port, "/?support_gzip=1") as zipped, open_client(server.port) as plain:
        plain.send(SUBSCRIBE)
        recv_bytes(plain)
        zipped.send(gzip.compress(LONG.encode()))
        assert recv_bytes(plain) == (LONG.encode(), False)
        zipped.send(gzip.compress(b"LHTTP/1.0 chat\r\npublish:room\r\n\r\n\xff\xfe"))
        assert recv_bytes(plain) == (b"LHTTP/1.0 chat\r\npublish:room\r\n\r\n\xff\xfe", True)
        zipped.send(LONG)
        assert recv_bytes(plain) == (LONG.encode(), False)


def test_order_is_kept_for_many_messages(server: ServerProcess) -> None:
    with ExitStack() as stack:
        zipped = RawClient(server.port, "/?support_gzip=1")
        stack.callback(zipped.sock.close)
        stack.callback(zipped.stream.close)
        zipped.send(SUBSCRIBE)
        zipped.receive()
        sender = stack.enter_context(open_client(server.port))
        for number in range(500):
            sender.send(message("chat", {"publish": "room"}, f"{number} " * 50))
        bodies = [gzip.decompress(zipped.receive()[1]).rpartition(b"\r\n\r\n")[2] for _ in range(500)]
    assert bodies == [f"{number} ".encode() * 50 for number in range(500)]


def test_a_bomb_is_413_and_the_connection_lives(server: ServerProcess) -> None:
    bomb = gzip.compress(b"LHTTP/1.0 chat\r\n\r\n" + b"\0" * 50_000_000)
    before = server.resident_size()
    with open_client(server.port, "/?support_gzip=1") as client:
        client.send(bomb)
        assert b"status:413" in gzip.decompress(recv_bytes(client)[0])
        client.send(gzip.compress(SUBSCRIBE.encode()))
        assert gzip.decompress(recv_bytes(client)[0]) == RECEIPT
    assert server.resident_size() - before < 20_000_000


def test_broken_gzip_is_400_and_the_connection_lives(server: ServerProcess) -> None:
    with open_client(server.port, "/?support_gzip=1") as client:
        client.send(gzip.compress(LONG.encode())[:-4])
        assert b"status:400" in gzip.decompress(recv_bytes(client)[0])
        client.send(SUBSCRIBE)
        assert gzip.decompress(recv_bytes(client)[0]) == RECEIPT


def test_gzip_may_be_switched_off(serve: Callable[..., ServerProcess]) -> None:
    server = serve("--no-gzip")
    with open_client(server.port, "/?support_gzip=1") as client:
        client.send(SUBSCRIBE)
        assert recv_bytes(client) == (RECEIPT, False)


def test_deflate_is_off_until_it_is_asked_for(server: ServerProcess) -> None:
    client = RawClient(server.port, headers=["Sec-WebSocket-Extensions: permessage-deflate"])
    client.sock.close()
    client.stream.close()
    assert not [header for header in client.headers if b"xtensions" in header]


def test_deflate_shrinks_publications_for_those_who_offer_it(serve: Callable[..., ServerProcess]) -> None:
    server = serve("--deflate")
    offer = "permessage-deflate; client_no_context_takeover; client_max_window_bits"
    client = RawClient(server.port, headers=[f"Sec-WebSocket-Extensions: {offer}"])
    (answer,) = [header for header in client.headers if b"xtensions" in header]
    assert b"client_no_context_takeover" in answer
    assert b"client_max_window_bits=10" in answer
    client.send(SUBSCRIBE)
    assert client.receive() == (TEXT, RECEIPT)
    with open_client(server.port, compression="deflate") as other:
        other.send(SUBSCRIBE)
        assert recv_bytes(other) == (RECEIPT, False)
        other.send(LONG)
        assert recv_bytes(other) == (LONG.encode(), False)
    first, size = client.stream.read(2)
    assert first == 0xC1
    payload = client.stream.read(size)
    assert size < 126
    assert zlib.decompressobj(-15).decompress(payload + b"\0\0\xff\xff") == LONG.encode()
    client.stream.close()
    client.sock.close()


def test_deflate_bomb_closes_its_connection_alone(serve: Callable[..., ServerProcess]) -> None:
    server = serve("--deflate")
    before = server.resident_size()
    client = RawClient(server.port, headers=["Sec-WebSocket-Extensions: permessage-deflate"])
    compressor = zlib.compressobj(wbits=-15)
    bomb = compressor.compress(b"\0" * 100_000_000) + compressor.flush(zlib.Z_SYNC_FLUSH)
    client.sock.sendall(client_frame(bomb[:-4], BINARY | 0x40))
    assert client.receive_close()[0] in (1007, 1009)
    client.stream.close()
    client.sock.close()
    with open_client(server.port) as other:
        other.send(SUBSCRIBE)
        assert recv_bytes(other) == (RECEIPT, False)
    assert server.resident_size() - before < 20_000_000
