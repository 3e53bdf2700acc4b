"""The prompt inside a running server, with the ssh command of the system."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from shutil import which

import pytest

from integration._server import ServerProcess, message, open_client, recv_bytes, script

pytestmark = pytest.mark.skipif(not which("ssh-keygen"), reason="ssh and ssh-keygen are missing (openssh-client)")


@pytest.fixture
def key(tmp_path: Path) -> Path:
    """A key pair; the public one is in ``authorized_keys``."""
    path = tmp_path / "id"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True)
    (tmp_path / "authorized_keys").write_bytes(path.with_suffix(".pub").read_bytes())
    return path


@pytest.fixture
def server(serve: Callable[..., ServerProcess], key: Path) -> ServerProcess:
    found = serve("--manhole", "0", "--manhole-keys", "authorized_keys", "--manhole-host-key", "host")
    found.wait_for_log("manhole on")
    return found


def ssh(server: ServerProcess, key: Path, *options: str) -> subprocess.Popen[bytes]:
    """Start a session."""
    port = re.search(r"manhole on IPv4Address\(type='TCP', host='127.0.0.1', port=(\d+)\)", server.log)
    assert port is not None
    arguments = ["-tt", "-F", "none", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"]
    arguments += ["-o", "IdentitiesOnly=yes", "-o", "LogLevel=ERROR", *options, "-i", str(key), "-p", port[1]]
    command = ["ssh", *arguments, "operator@127.0.0.1"]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def type_lines(session: subprocess.Popen[bytes], lines: str, expected: str) -> None:
    """Type *lines*, and return when *expected* has been printed."""
    assert session.stdin is not None
    assert session.stdout is not None
    session.stdin.write(lines.encode())
    session.stdin.flush()
    output = ""
    while expected not in output:
        more = os.read(session.stdout.fileno(), 65_536).decode("utf-8", "replace")
        assert more, f"{expected!r} is not in {output!r}"
        output = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", output + more)


def test_who_has_a_key_can_look_inside(server: ServerProcess, key: Path) -> None:
    with open_client(server.port) as client:
        client.send(message("x", {"subscribe": "room", "receipt": "1"}))
        recv_bytes(client)
        with ssh(server, key) as session:
            type_lines(session, "engine.hub.channels\n", "{'room': 1}")


def test_a_profile_is_made_on_demand(server: ServerProcess, key: Path) -> None:
    with ssh(server, key) as session:
        type_lines(session, "profile(0.2, 5)\n", "function calls")


def test_the_window_may_change_its_size(server: ServerProcess, key: Path) -> None:
    with ssh(server, key) as session:
        type_lines(session, "6 * 7\n", "42")
        session.send_signal(signal.SIGWINCH)
        type_lines(session, "6 * 8\n", "48")


def test_who_has_no_key_stays_outside(server: ServerProcess, key: Path, tmp_path: Path) -> None:
    stranger = tmp_path / "stranger"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", stranger], check=True)
    with ssh(server, stranger, "-o", "BatchMode=yes") as session:
        output = session.communicate(timeout=30)
    assert session.returncode == 255
    assert b"Permission denied (publickey)" in b"".join(output)


def test_the_host_key_is_kept_to_its_owner(server: ServerProcess, tmp_path: Path) -> None:
    assert (tmp_path / "host").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--manhole", "2222"], "--manhole-keys"),
        (["--manhole", "2222", "--manhole-keys", "missing"], "No such file"),
        (["--manhole", "nowhere", "--manhole-keys", "authorized_keys"], "--manhole 'nowhere'"),
        (["--manhole", "2222", "--manhole-keys", "authorized_keys", "--workers", "2"], "--workers"),
    ],
)
def test_a_manhole_that_cannot_be_is_refused(key: Path, tmp_path: Path, arguments: list[str], text: str) -> None:
    command = [script("twistd"), "-n", "--pidfile=", "lhttp", *arguments]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=30)
    assert done.returncode == 1
    assert text in done.stdout + done.stderr
