"""The unit in ``contrib/systemd``: what its command does with a socket of systemd, and how little it may do."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from integration._server import TIME_LIMIT, script

UNITS = Path(__file__).parents[2] / "contrib" / "systemd"

ACTIVATE = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1", LISTEN_FDNAMES="lhttp.socket")
os.execv(sys.argv[2], sys.argv[2:])
"""
"""Starts a command with a socket, as systemd does."""


def unit() -> dict[str, str]:
    """Return the settings of the unit that are given once."""
    text = (UNITS / "lhttp.service").read_text("utf-8").replace("\\\n", " ")
    return dict(re.findall(r"(?m)^(\w+)=(.*)$", text))


def test_the_command_of_the_unit_serves_the_socket_of_systemd_and_tells_it(tmp_path: Path) -> None:
    settings = unit()
    command = shlex.split(settings["ExecStart"])
    assert command[0].endswith("/twistd")
    command[0] = script("twistd")
    with (
        socket.socket(socket.AF_INET6) as listening,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager,
        (tmp_path / "log").open("wb") as log,
    ):
        listening.bind(("::1", 0))
        listening.listen()
        port = listening.getsockname()[1]
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(TIME_LIMIT)
        stream = os.fstat(log.fileno())
        process = subprocess.Popen(
            [sys.executable, "-c", ACTIVATE, str(listening.fileno()), *command],
            cwd=tmp_path,
            env={
                **os.environ,
                "NOTIFY_SOCKET": str(tmp_path / "notify"),
                "WATCHDOG_USEC": "30000000",
                "JOURNAL_STREAM": f"{stream.st_dev}:{stream.st_ino}",
            },
            pass_fds=[listening.fileno()],
            stderr=log,
            stdout=log,
        )
        try:
            while b"READY=1" not in manager.recv(4096).split(b"\n"):
                pass
            with socket.create_connection(("::1", port), TIME_LIMIT) as client:
                client.sendall(b"GET /ready HTTP/1.0\r\n\r\n")
                assert client.recv(12).endswith(b"200")
            process.send_signal(signal.SIGTERM)
            while b"STOPPING=1" not in manager.recv(4096).split(b"\n"):
                pass
            process.send_signal(signal.SIGTERM)
            assert process.wait(TIME_LIMIT) == -signal.SIGTERM
        finally:
            process.kill()
            process.wait()


def test_the_unit_waits_for_as_long_as_a_stop_may_take() -> None:
    settings = unit()
    options = dict(re.findall(r"--(drain-\w+) (\S+)", settings["ExecStart"]))
    least = sum(map(float, options.values())) + 3.0 + 1.5
    assert float(settings["TimeoutStopSec"]) > least
    assert settings["KillMode"] == "mixed" and settings["Type"] == "notify"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is missing")
def test_the_unit_may_do_little() -> None:
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=yes", "--threshold=20", "lhttp.service"],
        cwd=UNITS,
        env={**os.environ, "SYSTEMD_UNIT_PATH": f"{UNITS}:"},
        capture_output=True,
        text=True,
        timeout=TIME_LIMIT,
        check=False,
    )
    if "Failed to" in done.stderr or "unrecognized option" in done.stderr:
        pytest.skip(done.stderr.strip())
    exposure = re.search(r"Overall exposure level for lhttp.service: ([\d.]+)", done.stdout)
    assert exposure is not None and float(exposure[1]) <= 2.0, done.stdout
