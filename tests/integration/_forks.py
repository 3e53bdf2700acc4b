"""
Real ``twistd`` processes that start fast: forked from a process that has imported everything and run nothing.

A server imports for most of a second before it does anything, and the tests start more than a thousand of them. What a
fork runs is what the command ``twistd`` runs, with its arguments, folder, environment and output, up to the exit.
Tests about the start itself use the command.
"""

from __future__ import annotations

import atexit
import functools
import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

__all__ = ["ForkedProcess", "fits"]

_MAX_REQUEST = 131_072
"""The most bytes of a request to fork: an environment is the largest part of it."""

_SETTINGS = {"PYTHONUNBUFFERED": "1"}
"""What the environment of every fork contains."""


def fits(environment: Mapping[str, str]) -> bool:
    """Return whether a fork can have *environment*: what Python itself reads it has read before."""
    mine = os.environ | _SETTINGS
    changed = {name for name in {*environment, *mine} if environment.get(name) != mine.get(name)}
    return os.name == "posix" and not any(
        name.startswith(("PYTHON", "AUTOBAHN", "LD_", "COVERAGE", "OPENSSL", "SSL")) for name in changed
    )


class ForkedProcess:
    """A ``twistd`` process; like :class:`subprocess.Popen`, as far as tests need it."""

    def __init__(self, arguments: Sequence[str], *, cwd: Path, environment: Mapping[str, str]) -> None:
        """
        :param arguments: the arguments of the command ``twistd``.
        :param cwd: its folder.
        :param environment: its environment.
        """
        self.args = ["twistd", *arguments]
        self.returncode: int | None = None
        output, output_end = os.pipe()
        self._status, status_end = os.pipe()
        request = json.dumps({"arguments": self.args, "cwd": str(cwd), "environment": dict(environment)})
        mother = _mother()
        try:
            socket.send_fds(mother, [request.encode()], [output_end, status_end])
            self.pid = int(mother.recv(64))
        finally:
            os.close(output_end)
            os.close(status_end)
        self.stdout: Any = os.fdopen(output, encoding="utf-8", errors="backslashreplace")

    def poll(self) -> int | None:
        """Return the exit status, as Popen has it; ``None`` while it runs."""
        if self.returncode is None and select.select([self._status], [], [], 0)[0]:
            self._finish()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit status once it has exited."""
        if self.returncode is None:
            if not select.select([self._status], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
            self._finish()
        assert self.returncode is not None
        return self.returncode

    def _finish(self) -> None:
        told = os.read(self._status, 64)
        os.close(self._status)
        assert told, "the process that forks has died"
        self.returncode = int(told)

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has exited."""
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)


@functools.cache
def _mother() -> socket.socket:
    """Return the connection to the process that forks, which is started now and ends with this one."""
    mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in (mine, theirs):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _MAX_REQUEST)
    process = subprocess.Popen(
        [sys.executable, "-u", __file__, str(theirs.fileno())],
        pass_fds=[theirs.fileno()],
        stdin=subprocess.DEVNULL,
        env=os.environ | _SETTINGS,
    )
    theirs.close()

    def end() -> None:
        mine.close()
        process.wait()

    atexit.register(end)
    return mine


def _fork_on_demand(connection: socket.socket) -> None:
    """Fork for each request on *connection*, and tell how each fork ends, until the tests' process is gone."""
    wake, waker = os.pipe()
    os.set_blocking(waker, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(waker)
    running: dict[int, int] = {}
    while True:
        readable, _, _ = select.select([connection, wake], [], [])
        if wake in readable:
            os.read(wake, 4096)
        for pid in tuple(running):
            found, status = os.waitpid(pid, os.WNOHANG)
            if found:
                end = running.pop(pid)
                with suppress(BrokenPipeError):  # nobody asks any more
                    os.write(end, b"%d" % os.waitstatus_to_exitcode(status))
                os.close(end)
        if connection not in readable:
            continue
        request, descriptors, _, _ = socket.recv_fds(connection, _MAX_REQUEST, 2)
        if not request:
            return
        output, status_end = descriptors
        pid = os.fork()
        if pid:
            running[pid] = status_end
            os.close(output)
            connection.send(b"%d" % pid)
            continue
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        connection.close()
        for descriptor in (wake, waker, status_end, *running.values()):
            os.close(descriptor)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.close(output)
        _become(**json.loads(request))


def _become(arguments: list[str], cwd: str, environment: dict[str, str]) -> None:
    """Do what the command ``twistd`` does."""
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    sys.argv = arguments
    from twisted.scripts.twistd import run

    sys.exit(run())


def _main() -> None:
    connection = socket.socket(fileno=int(sys.argv[1]))
    connection.set_inheritable(False)
    sys.path[0] = str(Path(sys.executable).parent)  # where the command stands

    import twisted.scripts.twistd
    from twisted.application.service import IServiceMaker
    from twisted.plugin import getPlugins

    import lhttp_tx.twistd.tap

    assert [maker for maker in getPlugins(IServiceMaker) if maker.tapname == "lhttp"]
    assert "twisted.internet.reactor" not in sys.modules, "each server chooses its own"
    del lhttp_tx, twisted
    _fork_on_demand(connection)


if __name__ == "__main__":
    _main()
