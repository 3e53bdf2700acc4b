"""
The Autobahn Testsuite against the server's own WebSocket protocol.

An echo server is started that is the real protocol class and factory, with permessage-deflate and with a session that
echoes, and the testsuite's fuzzing client runs against it::

    tests/conformance/install.sh DIR
    python tests/conformance/run.py DIR/env/bin/wstest

It prints the number of cases by outcome and each case that failed, and exits with 1 if one did.
"""

from __future__ import annotations

import argparse
import collections
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from twisted.internet import error, protocol, task
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.logger import (
    FilteringLogObserver,
    LogLevel,
    LogLevelFilterPredicate,
    globalLogBeginner,
    textFileLogObserver,
)
from twisted.python.failure import Failure

from lhttp_tx.bus.memory import MemoryBus
from lhttp_tx.codec.limits import Limits
from lhttp_tx.engine.engine import Engine
from lhttp_tx.engine.hub import Hub
from lhttp_tx.engine.session import Session
from lhttp_tx.transports.websocket.factory import LHTTPServerFactory
from lhttp_tx.transports.websocket.protocol import LHTTPServerProtocol
from lhttp_tx.web.site import LHTTPSite
from lhttp_tx.web.websocket import WebSocketResource

MESSAGE_SIZE = 8 * 2**20
"""The server takes WebSocket messages of twice this size; the largest case sends 16 MiB."""

SLOW_CASES = tuple(f"{group}.{kind}.{size}" for group in (12, 13) for kind in range(1, 8) for size in range(4, 19))
"""Cases that measure the speed of compression: nine tenths of the time, and no other rule of the protocol."""

EXPECTED_COUNT = {"quick": 337, "full": 517}

TIME_LIMIT = {"quick": 300, "full": 3_600}


class EchoSession:
    """Sends messages back as they came, the way a session sends."""

    def __init__(self, transport: Any) -> None:
        self._transport = transport

    def receive(self, data: bytes, binary: bool) -> None:
        self._transport.send(data, binary)

    def receive_run(self, messages: list[bytes], first: int, binary: bool) -> int:
        self.receive(messages[first], binary)
        return first + 1

    def connection_lost(self) -> None:
        pass


class Echo(LHTTPServerProtocol):
    """The server's protocol with a session that echoes."""

    def onOpen(self) -> None:
        super().onOpen()
        assert isinstance(self.session, Session)
        self.session.connection_lost()
        self.session = EchoSession(self)  # type: ignore[assignment]


def make_factory(reactor: Any, via: str) -> protocol.Factory:
    """Return a factory of echo connections: bare, or behind the HTTP parser of twisted.web."""
    engine = Engine(hub=Hub(bus=MemoryBus()), clock=reactor, limits=Limits(message_size=MESSAGE_SIZE))
    factory = LHTTPServerFactory(engine=engine, reactor=reactor, deflate=True)
    factory.protocol = Echo
    if via == "factory":
        return factory
    return LHTTPSite(WebSocketResource(factory), max_body_size=MESSAGE_SIZE, reactor=reactor)


class Client(protocol.ProcessProtocol):
    """
    The testsuite's process.

    :ivar ended: fires when it has exited.
    :ivar output: what it printed.
    """

    def __init__(self) -> None:
        self.ended: Deferred[None] = Deferred(lambda _: self.transport.signalProcess("KILL"))
        self.output = b""

    def outReceived(self, data: bytes) -> None:
        self.output += data

    errReceived = outReceived

    def processEnded(self, reason: Failure) -> None:
        if reason.check(error.ProcessDone):
            self.ended.callback(None)
        elif not self.ended.called:
            self.ended.errback(reason)


async def run_cases(reactor: Any, options: argparse.Namespace, directory: Path) -> dict[str, dict[str, str]]:
    """Return the outcome of every case, by its number."""
    port = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(make_factory(reactor, options.via))
    specification = {
        "outdir": str(directory / "report"),
        "servers": [{"agent": "lhttp_tx", "url": f"ws://127.0.0.1:{port.getHost().port}/"}],
        "cases": options.case or ["*"],
        "exclude-cases": SLOW_CASES if options.extent == "quick" else [],
        "exclude-agent-cases": {},
    }
    path = directory / "specification.json"
    path.write_text(json.dumps(specification))
    client = Client()
    command = [str(options.wstest), "-m", "fuzzingclient", "-s", str(path)]
    reactor.spawnProcess(client, command[0], command, env=None, path=str(directory))
    try:
        await client.ended.addTimeout(TIME_LIMIT[options.extent], reactor)
    except Exception:
        print(client.output.decode("utf-8", "replace"))
        raise
    await port.stopListening()
    outcomes: dict[str, dict[str, str]] = json.loads((directory / "report" / "index.json").read_text())["lhttp_tx"]
    return outcomes


def summarize(outcomes: dict[str, dict[str, str]], options: argparse.Namespace) -> bool:
    """Print how many cases ended how, and whether all is well."""
    failed = {
        number: f"{outcome['behavior']}, close {outcome['behaviorClose']}"
        for number, outcome in outcomes.items()
        if outcome["behavior"] not in ("OK", "INFORMATIONAL") or outcome["behaviorClose"] not in ("OK", "INFORMATIONAL")
    }
    counts = collections.Counter(outcome["behavior"] for outcome in outcomes.values())
    shown = ", ".join(f"{count} {behavior}" for behavior, count in counts.most_common())
    print(f"Autobahn Testsuite, {options.extent}, via {options.via}: {len(outcomes)} cases: {shown}")
    for number in sorted(failed, key=lambda text: [int(part) for part in text.split(".")]):
        print(f"  {number}: {failed[number]}")
    if not options.case and len(outcomes) != EXPECTED_COUNT[options.extent]:
        print(f"  {EXPECTED_COUNT[options.extent]} cases were expected")
        return False
    return not failed


async def main(reactor: Any, options: argparse.Namespace) -> None:
    predicate = LogLevelFilterPredicate(defaultLogLevel=LogLevel.error)
    globalLogBeginner.beginLoggingTo(
        [FilteringLogObserver(textFileLogObserver(sys.stdout), [predicate])], redirectStandardIO=False
    )
    with tempfile.TemporaryDirectory(prefix="conformance-") as name:
        directory = options.report or Path(name)
        directory.mkdir(parents=True, exist_ok=True)
        outcomes = await run_cases(reactor, options, directory.resolve())
    if not summarize(outcomes, options):
        raise SystemExit(1)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").strip().partition("\n")[0])
    parser.add_argument("wstest", type=Path, help="the testsuite's program; install.sh installs it")
    parser.add_argument("--via", choices=["factory", "site"], default="site", help="bare, or behind twisted.web")
    parser.add_argument("--extent", choices=["quick", "full"], default="quick", help="337 cases, or 517 (13 minutes)")
    parser.add_argument("--case", action="append", help="only this case, such as 6.4.1 or 6.* (repeatable)")
    parser.add_argument("--report", type=Path, help="directory for the testsuite's report in HTML and JSON")
    options = parser.parse_args()
    options.wstest = options.wstest.resolve()
    if not options.wstest.is_file():
        parser.error(f"there is no {options.wstest}; run install.sh first")
    return options


if __name__ == "__main__":
    arguments = parse_arguments()
    task.react(lambda reactor: Deferred.fromCoroutine(main(reactor, arguments)))
