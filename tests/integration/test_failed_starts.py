"""Starts that fail: one line that says what to do, no traceback, no help, and nothing left behind."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from integration._server import TIME_LIMIT, script, wait_until

RUNNERS = {"twistd": ("twistd", "-n", "--pidfile="), "twist": ("twist", "--log-format=text")}


def fail(directory: Path, *arguments: str) -> list[str]:
    """Run a command that fails; return the lines that it writes, without those about Twisted's own start."""
    name, *rest = arguments
    done = subprocess.run(
        [script(name), *rest],
        cwd=directory,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        timeout=TIME_LIMIT,
        check=False,
    )
    assert done.returncode == 1, done.stdout
    lines = done.stdout.splitlines()
    return [line for line in lines if "starting" not in line and "reactor class" not in line]


@pytest.fixture
def taken() -> Iterator[int]:
    """A port in use."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield sock.getsockname()[1]


@pytest.mark.parametrize("runner", RUNNERS)
def test_port_in_use_is_told_in_one_line_and_the_other_ports_are_closed(
    runner: str, taken: int, tmp_path: Path
) -> None:
    endpoints = ("--listen", "unix:other", "--listen", f"tcp:{taken}:interface=127.0.0.1")
    lines = fail(tmp_path, *RUNNERS[runner], "lhttp", *endpoints)
    (line,) = (line for line in lines if not any(told in line for told in ("Closed", "listening on")))
    assert line.endswith(
        f"cannot listen on tcp:{taken}:interface=127.0.0.1: Address already in use; "
        "stop what listens there, or choose another port"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--listen", "unix:missing/s"), "make the directory {}/missing, or name another"),
        (("--listen", "unix:barred/s"), "let the user of the server write there, or name another place"),
        (("--listen", "ssl:0:privateKey=missing.pem"), "missing.pem: No such file or directory; name a file that is"),
        (("--listen", "tcp:0:interface=192.0.2.1"), "this machine has no such address"),
        (("--prot", "8081"), "option --prot not recognized; do you mean --port? twistd lhttp --help lists all"),
        (("--colour", "red"), "option --colour not recognized; twistd lhttp --help lists all"),
        (("8081",), "'8081' is not an option; to listen there, write --port 8081"),
        (("--port",), "option --port requires argument"),
        (("--max-queue", "many"), "'many' is not a number"),
        (("--config", "missing.toml"), "missing.toml"),
    ],
)
def test_mistakes_are_told_in_one_line(options: tuple[str, ...], told: str, tmp_path: Path) -> None:
    if options[-1].startswith("unix:barred"):
        if os.geteuid() == 0:
            pytest.skip("root may write everywhere")
        (tmp_path / "barred").mkdir(0o500)
    (line,) = fail(tmp_path, *RUNNERS["twistd"], "lhttp", *options)
    assert told.format(tmp_path) in line.replace("directory missing,", f"directory {tmp_path}/missing,")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--logfile=missing/log",), "--logfile missing/log: there is no directory {}/missing; make it, or name"),
        (("--pidfile=missing/pid",), "there is no directory {}/missing; make it, or name another file"),
        (("--logfile=.", "--pidfile="), "it is a directory; name a file"),
        (("--rundir=missing", "--pidfile="), "--rundir missing: there is no such directory; make it, or name another"),
    ],
)
@pytest.mark.parametrize("foreground", [("-n",), ()], ids=["foreground", "daemon"])
def test_files_of_twistd_that_cannot_be_are_told_in_one_line(
    options: tuple[str, ...], told: str, foreground: tuple[str, ...], tmp_path: Path
) -> None:
    (line,) = fail(tmp_path, "twistd", *foreground, *options, "lhttp", "--port", "tcp:0:interface=127.0.0.1")
    assert line.startswith("twistd lhttp: ")
    assert told.format(tmp_path) in line
    assert list(tmp_path.iterdir()) == []


def test_daemon_that_cannot_listen_leaves_one_line_in_its_log_and_no_pidfile(taken: int, tmp_path: Path) -> None:
    port = f"tcp:{taken}:interface=127.0.0.1"
    told = fail(tmp_path, "twistd", "--pidfile=pid", "--logfile=log", "lhttp", "--port", port)
    assert "Address a" in told[0]
    lines = (tmp_path / "log").read_text("utf-8").splitlines()
    assert [line.endswith("choose another port") for line in lines if "#info" not in line] == [True]
    assert "Traceback" not in "".join(lines)
    wait_until(lambda: not (tmp_path / "pid").exists(), "the daemon that has told removes its file")
    (line,) = fail(tmp_path, "twistd", "-n", "--pidfile=", "--logfile=log", "lhttp", "--port", port)
    assert line.startswith(f"twistd lhttp: cannot listen on {port}: Address already in use; stop what listens there")


def test_twist_tells_a_wrong_option_in_one_line(tmp_path: Path) -> None:
    told = "twist lhttp: option --prot not recognized; do you mean --port? twist lhttp --help lists all"
    assert fail(tmp_path, "twist", "lhttp", "--prot", "1") == [told]


@pytest.mark.parametrize("options", [(), ("--asyncio",)])
def test_a_processor_that_cannot_start_ends_the_process(options: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "pool.py").write_text(
        "from lhttp_tx import Processor\n"
        "class Pool(Processor):\n"
        "    command = 'pool'\n"
        "    async def on_start(self, server):\n"
        "        raise OSError(server.settings('pool')['database'] + ' is missing')\n"
    )
    (tmp_path / "lhttp.toml").write_text('listen = "unix:socket"\n[plugin.pool]\ndatabase = "rooms.db"\n')
    arguments = ("lhttp", "--config", "lhttp.toml", "--processor", "pool.py:Pool", *options)
    lines = fail(tmp_path, *RUNNERS["twistd"], *arguments)
    assert any(line.endswith("cannot start: Pool did not start: rooms.db is missing") for line in lines)
    assert not (tmp_path / "socket").exists()
