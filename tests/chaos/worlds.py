"""The servers of a run, and what can happen to them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import re
import shutil
import signal
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

from free_ports import free_port

__all__ = ["WORLDS", "Bus", "Cluster", "Link", "Process", "Rolling", "Single", "World", "free_port", "is_ready"]

Fault = Callable[[], Awaitable[str]]

_HEARTBEAT = 2.5
"""Seconds between two heartbeats of a node."""

_SCRIPTS = Path(sys.executable).parent
_READY_LIMIT = 30.0
_COMPLAINT = re.compile(r"Traceback|Unhandled|never retrieved|never awaited|was destroyed but")


class Process:
    """One server that is started again and again with the same command."""

    def __init__(
        self, name: str, command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        """:param environment: what is added to that of this process."""
        self.name = name
        self._command = command
        self._log = log
        self._environment = {**os.environ, **(environment or {})}
        self._process: asyncio.subprocess.Process | None = None
        self._is_stopped = False

    @property
    def ended(self) -> str:
        """How it has ended by itself, with its last line; empty if it runs, or has never run."""
        if self._process is None or self._process.returncode in (None, -signal.SIGKILL, -signal.SIGTERM):
            return ""
        lines = self._log.read_text("utf-8", "replace").splitlines() if self._log.exists() else []
        return f"{self.name} has ended with {self._process.returncode}: {lines[-1] if lines else ''}"

    def complaints(self) -> list[str]:
        """Return the last lines of tracebacks, and what asyncio and Twisted say of errors that nobody took."""
        lines = self._log.read_text("utf-8", "replace").splitlines() if self._log.exists() else []
        return [f"{self.name}: {line}" for line in lines if _COMPLAINT.search(line)]

    async def start(self) -> None:
        """Start it, unless it runs."""
        if self._process is None or self._process.returncode is not None:
            with self._log.open("ab") as log:
                self._process = await asyncio.create_subprocess_exec(
                    *self._command,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=self._environment,
                )

    async def end(self, number: int) -> None:
        """Send a signal that ends it, and wait for that."""
        self.resume()
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(number)
            try:
                await asyncio.wait_for(self._process.wait(), 15)
            except TimeoutError:
                self._process.kill()
                await self._process.wait()

    def signal(self, number: int) -> None:
        """Send a signal that does not end it at once."""
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(number)

    def pause(self) -> None:
        """Stop it in its tracks."""
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(signal.SIGSTOP)
            self._is_stopped = True

    def resume(self) -> None:
        """Let it go on."""
        if self._is_stopped and self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGCONT)
        self._is_stopped = False


class Link:
    """
    A TCP proxy in front of one NATS server, for one node.

    :ivar is_held: for each direction, towards NATS and back, whether nothing passes.
    :ivar is_discarding: for each direction, whether what comes is thrown away.
    """

    def __init__(self, target: int) -> None:
        self.port = free_port()
        self._target = target
        self.is_held = [False, False]
        self.is_discarding = [False, False]
        self.is_cut = False
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def start(self) -> None:
        """Listen."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            if self.is_cut:
                return
            inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", self._target)
            self._writers.add(inner_writer)
            try:
                await asyncio.gather(self._pump(reader, inner_writer, 0), self._pump(inner_reader, writer, 1))
            finally:
                self._writers.discard(inner_writer)
                inner_writer.transport.abort()
        except OSError:
            pass
        finally:
            self._writers.discard(writer)
            writer.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, direction: int) -> None:
        while data := await reader.read(65_536):
            while self.is_held[direction]:
                await asyncio.sleep(0.02)
            if self.is_discarding[direction]:
                continue
            writer.write(data)
            await writer.drain()
        raise ConnectionResetError

    def cut(self) -> None:
        """Lose all connections, and take no new one until :meth:`heal`."""
        self.is_cut = True
        for writer in tuple(self._writers):
            writer.transport.abort()

    def heal(self) -> None:
        """Let everything pass again."""
        self.is_cut = False
        self.is_held = [False, False]
        self.is_discarding = [False, False]

    def stop(self) -> None:
        """Listen no more."""
        self.cut()
        if self._server is not None:
            self._server.close()


class World:
    """
    Servers, and what can happen to them.

    :ivar may_miss: whether the store forgets when a server ends.
    :ivar subscribers: how many there are.
    :ivar cuts: how often it is a subscriber's connection that is lost.
    :ivar may_double: whether a crash may lose what was shown and had no receipt, so that it is sent again.
    :ivar keeping: options of the nodes for what they keep of channels.
    """

    may_miss = may_double = False
    subscribers = 8
    cuts = 0.3
    keeping: tuple[str, ...] = ("--history", "room.*", "--history-messages", "1000000")

    def __init__(self, directory: Path, rng: random.Random) -> None:
        self.directory = directory
        self.rng = rng
        self._which = random.Random(rng.random())  # clients ask in no fixed sequence; what happens is fixed by the seed
        self.nodes: list[Process] = []
        self.ports: list[int] = []

    def node(self, *options: str, environment: Mapping[str, str] | None = None) -> None:
        """Add a node of lhttp_tx."""
        port, number = free_port(), len(self.nodes)
        command = [
            *(str(_SCRIPTS / "twistd"), "-n", f"--pidfile={self.directory}/node{number}.pid", "lhttp", "--no-plugins"),
            *("--listen", f"tcp:{port}:interface=127.0.0.1", "--ping-interval", "2", "--ping-timeout", "2"),
            *(*self.keeping, *options),
        ]
        self.nodes.append(Process(f"node{number}", command, self.directory / f"node{number}.log", environment))
        self.ports.append(port)

    def url(self) -> str:
        """Return the address of some node."""
        return f"ws://127.0.0.1:{self._which.choice(self.ports)}/"

    async def start(self) -> None:
        """Start everything."""
        for node in self.nodes:
            await node.start()
        await self.ready()

    async def ready(self) -> None:
        """Wait until every node serves."""
        for number, port in enumerate(self.ports):
            try:
                async with asyncio.timeout(_READY_LIMIT):
                    while not await asyncio.to_thread(is_ready, port):
                        await asyncio.sleep(0.1)
            except TimeoutError:
                said = [await asyncio.to_thread(answer, each, "/health") for each in self.ports]
                raise RuntimeError(f"node{number} is not ready: {'; '.join(said)}") from None

    async def heal(self) -> None:
        """Let everything run again."""
        for node in self.nodes:
            node.resume()
            await node.start()
        await self.ready()

    def complaints(self) -> list[str]:
        """Return what the logs of the nodes say that should be in none."""
        return [line for node in self.nodes for line in node.complaints()]

    async def stop(self) -> None:
        """End everything."""
        for node in self.nodes:
            await node.end(signal.SIGKILL)

    def faults(self) -> list[Fault]:
        """Return what can happen."""
        return [self.kill_node, self.kill_node, self.pause_node, self.restart_node]

    async def kill_node(self) -> str:
        """kill -9, and a start a moment later."""
        node = self.rng.choice(self.nodes)
        await node.end(signal.SIGKILL)
        await asyncio.sleep(self.rng.random())
        await node.start()
        return f"killed {node.name}"

    async def restart_node(self) -> str:
        """An orderly restart."""
        node = self.rng.choice(self.nodes)
        await node.end(signal.SIGTERM)
        await node.start()
        return f"restarted {node.name}"

    async def pause_node(self) -> str:
        """SIGSTOP for some seconds."""
        node, seconds = self.rng.choice(self.nodes), 0.5 + 5 * self.rng.random()
        node.pause()
        await asyncio.sleep(seconds)
        node.resume()
        return f"stopped {node.name} for {seconds:.1f} s"


class Single(World):
    """One node."""

    def __init__(self, directory: Path, rng: random.Random, store: str) -> None:
        super().__init__(directory, rng)
        self.may_miss = True  # memory forgets; a file does not know positions of what was shown and not yet written
        self.may_double = True
        self.node("--history-store", store)


class Cluster(World):
    """Three nodes, and three NATS servers that keep each message three times."""

    keeping: tuple[str, ...] = (*World.keeping, "--history-replicas", "3")

    def __init__(self, directory: Path, rng: random.Random) -> None:
        super().__init__(directory, rng)
        self.links: list[list[Link]] = []
        self.routes: list[Link] = []
        self.servers: list[Process] = []
        clients, routes = ([free_port() for _ in range(3)] for _ in range(2))
        for number in range(3):
            config = directory / f"nats{number}.conf"
            self.routes.append(Link(routes[(number + 1) % 3]))  # one of each two connects to the other
            config.write_text(
                f'server_name: n{number}\nlisten: "127.0.0.1:{clients[number]}"\nping_interval: "2s"\n'
                f'jetstream {{ store_dir: "{directory}/nats{number}" }}\n'
                f'cluster {{ name: chaos, listen: "127.0.0.1:{routes[number]}", no_advertise: true, '
                f'routes: ["nats-route://127.0.0.1:{self.routes[-1].port}"] }}\n',
                "ascii",
            )
            command = [shutil.which("nats-server", path=f"{_SCRIPTS}{os.pathsep}{os.environ['PATH']}") or "nats-server"]
            self.servers.append(
                Process(f"nats{number}", [*command, "-c", str(config)], directory / f"nats{number}.log")
            )
        for number in range(3):
            links = [Link(port) for port in clients]
            self.links.append(links)
            first = links[number:] + links[:number]
            options = [word for link in first for word in ("--nats", f"nats://127.0.0.1:{link.port}")]
            self.node(*options, environment=self.environment(number))

    def environment(self, number: int) -> dict[str, str]:
        """Return what is added to the environment of a node."""
        return {}

    @property
    def ways(self) -> list[Link]:
        """All links, those between NATS servers included."""
        return [*self.routes, *(link for links in self.links for link in links)]

    async def start(self) -> None:
        for link in self.ways:
            await link.start()
        for server in self.servers:
            await server.start()
        await super().start()

    async def heal(self) -> None:
        for server in self.servers:
            server.resume()
            await server.start()
        for link in self.ways:
            link.heal()
        await super().heal()

    async def stop(self) -> None:
        await super().stop()
        for server in self.servers:
            await server.end(signal.SIGKILL)
        for link in self.ways:
            link.stop()

    def faults(self) -> list[Fault]:
        nats = [self.kill_nats, self.pause_nats, self.drain_nats, self.cut_route, self.hold_route]
        return [*super().faults(), *nats, self.cut_link, self.hold_link]

    async def kill_nats(self) -> str:
        """kill -9 of one NATS server, and a start a moment later."""
        server = self.rng.choice(self.servers)
        await server.end(signal.SIGKILL)
        await asyncio.sleep(3 * self.rng.random())
        await server.start()
        return f"killed {server.name}"

    async def pause_nats(self) -> str:
        """SIGSTOP of one NATS server for some seconds."""
        server, seconds = self.rng.choice(self.servers), 1 + 8 * self.rng.random()
        server.pause()
        await asyncio.sleep(seconds)
        server.resume()
        return f"stopped {server.name} for {seconds:.1f} s"

    async def drain_nats(self) -> str:
        """Lame-duck mode of one NATS server, and its end some seconds later."""
        server = self.rng.choice(self.servers)
        server.signal(signal.SIGUSR2)
        await asyncio.sleep(1 + 5 * self.rng.random())
        await server.end(signal.SIGKILL)
        await server.start()
        return f"drained {server.name}"

    async def cut_route(self) -> str:
        """The connections between two NATS servers are lost for some seconds."""
        link, seconds = self.rng.choice(self.routes), 6 * self.rng.random()
        link.cut()
        await asyncio.sleep(seconds)
        link.heal()
        return f"cut route {self.routes.index(link)} for {seconds:.1f} s"

    async def hold_route(self) -> str:
        """They carry nothing for some seconds."""
        link, seconds = self.rng.choice(self.routes), 8 * self.rng.random()
        link.is_held = [True, True]
        await asyncio.sleep(seconds)
        link.heal()
        return f"held route {self.routes.index(link)} for {seconds:.1f} s"

    async def cut_link(self) -> str:
        """All links of a node to NATS are lost for some seconds."""
        number, seconds = self.rng.randrange(3), 4 * self.rng.random()
        for link in self.links[number]:
            link.cut()
        await asyncio.sleep(seconds)
        for link in self.links[number]:
            link.heal()
        return f"cut node{number} off for {seconds:.1f} s"

    async def hold_link(self) -> str:
        """The links of a node carry nothing in one direction for some seconds."""
        number, direction, seconds = self.rng.randrange(3), self.rng.randrange(2), 1 + 9 * self.rng.random()
        for link in self.links[number]:
            link.is_held[direction] = True
        await asyncio.sleep(seconds)
        for link in self.links[number]:
            link.heal()
        return f"held node{number} {'back' if direction else 'forth'} for {seconds:.1f} s"


class Bus(Cluster):
    """
    The same without history, with presence and logins. The clock of the first node is an hour ahead.

    :ivar short_cuts: when a route was cut for less than the time between two heartbeats.
    """

    keeping = (*("--presence", "room.*", "--presence-grace", "0.5", "--single-login", "--login-parameter", "name"),)

    def __init__(self, directory: Path, rng: random.Random) -> None:
        self.short_cuts: list[tuple[float, float]] = []
        super().__init__(directory, rng)

    def environment(self, number: int) -> dict[str, str]:
        if number:
            return {}
        skew = self.directory / "skew"
        skew.mkdir(exist_ok=True)
        (skew / "sitecustomize.py").write_text("import time\n\n_time = time.time\ntime.time = lambda: _time() + 3600\n")
        return {"PYTHONPATH": os.pathsep.join([str(skew), *filter(None, [os.environ.get("PYTHONPATH")])])}

    def faults(self) -> list[Fault]:
        return [*super().faults(), self.discard_link]

    async def cut_route(self) -> str:
        begin = time.monotonic()
        told = await super().cut_route()
        if time.monotonic() - begin < _HEARTBEAT:
            self.short_cuts.append((begin, time.monotonic()))
        return told

    async def discard_link(self) -> str:
        """What a node and NATS send in one direction is thrown away for some seconds, until the links are lost."""
        number, direction, seconds = self.rng.randrange(3), self.rng.randrange(2), 1 + 9 * self.rng.random()
        for link in self.links[number]:
            link.is_discarding[direction] = True
        await asyncio.sleep(seconds)
        for link in self.links[number]:
            link.cut()
            link.heal()
        return f"discarded what node{number} {'reads' if direction else 'sends'} for {seconds:.1f} s"


class Rolling(Cluster):
    """The same with 300 subscribers, and one thing that happens: all nodes are restarted, one after another."""

    subscribers = 300
    cuts = 0.0

    def faults(self) -> list[Fault]:
        return [self.roll]

    async def roll(self) -> str:
        """An orderly restart of each node; the next one goes when the last one serves."""
        for node in self.nodes:
            await node.end(signal.SIGTERM)
            await node.start()
            await self.ready()
        return "restarted all nodes"


WORLDS: dict[str, Callable[[Path, random.Random], World]] = {
    "memory": lambda directory, rng: Single(directory, rng, "memory"),
    "sqlite": lambda directory, rng: Single(directory, rng, f"sqlite:{directory}/history.db"),
    "cluster": Cluster,
    "rolling": Rolling,
}


def is_ready(port: int) -> bool:
    """Return whether the node at *port* says that it is ready."""
    # Not /health: other nodes that were killed are missing there for a while.
    return '"ready"' in answer(port, "/ready")


def answer(port: int, path: str) -> str:
    """Return what the node at *port* answers, or why it does not."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"http://127.0.0.1:{port}{path}", timeout=2) as found:
            return str(found.read(), "utf-8", "replace")
    except urllib.error.HTTPError as error:
        return f"{error.code} {error.read()!r}"
    except OSError as error:
        return repr(error)
