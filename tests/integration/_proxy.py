"""A proxy on a thread that breaks WebSockets, and streams, in the ways in which proxies do."""

from __future__ import annotations

import select
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from integration._server import ServerProcess

__all__ = ["Proxy", "proxy_of"]


class Proxy:
    """
    Passes the bytes of connections on, and breaks some of them.

    :ivar blocks: whether handshakes of WebSockets are refused.
    :ivar cuts: seconds after which WebSockets are cut; 0: never.
    :ivar swallows: whether what comes back over WebSockets is held back, behind the handshake.
    :ivar buffers: whether streams are held back until they end.
    :ivar cut: how many WebSockets were cut.
    """

    def __init__(self, target: int) -> None:
        self.blocks = self.swallows = self.buffers = False
        self.cuts = 0.0
        self.cut = 0
        self._target = target
        self._over = False
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while not self._over:
                client, _ = self._listener.accept()
                threading.Thread(target=self._pass_on, args=(client,), daemon=True).start()

    def _pass_on(self, client: socket.socket) -> None:
        with suppress(OSError), client, socket.create_connection(("127.0.0.1", self._target)) as server:
            end, held, is_websocket, is_stream, size = float("inf"), b"", False, False, 0
            while not self._over and time.monotonic() < end:
                for ready in select.select([client, server], [], [], 0.05)[0]:
                    data = ready.recv(65_536)
                    if not data:
                        client.sendall(held)
                        return
                    if ready is server:
                        size += len(data)
                        if (is_stream and self.buffers) or (is_websocket and self.swallows and size > len(data)):
                            held += data
                        else:
                            client.sendall(data)
                        continue
                    if b"upgrade: websocket" in data.lower():
                        if self.blocks:
                            client.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
                            return
                        is_websocket = True
                        end = time.monotonic() + self.cuts if self.cuts else end
                    is_stream = is_stream or (data.startswith(b"GET /connect?") and b"poll=1" not in data[:100])
                    server.sendall(data)
            self.cut += is_websocket

    def close(self) -> None:
        self._over = True
        self._listener.close()


@contextmanager
def proxy_of(server: ServerProcess) -> Iterator[Proxy]:
    proxy = Proxy(server.port)
    try:
        yield proxy
    finally:
        proxy.close()
