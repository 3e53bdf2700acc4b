"""
A Python prompt inside a running server, over SSH, and profiles on demand.

It is off by default. A user of the prompt can do everything that the process can do. It accepts only keys, no
passwords. Needs the extra ``manhole``. Used by :mod:`lhttp_tx.twistd.tap`.
"""

from __future__ import annotations

import cProfile
import io
import os
import pstats
import tracemalloc
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, cast

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519
from twisted.application.service import Service
from twisted.conch.checkers import IAuthorizedKeysDB, SSHPublicKeyChecker, readAuthorizedKeyFile
from twisted.conch.insults.insults import ServerProtocol
from twisted.conch.manhole import ColoredManhole
from twisted.conch.manhole_ssh import ConchFactory, TerminalRealm, TerminalSession
from twisted.conch.ssh.keys import Key
from twisted.cred.portal import Portal
from twisted.internet.defer import Deferred, fail, maybeDeferred, succeed
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IListeningPort, IReactorTime, IStreamServerEndpoint
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from lhttp_tx.guard.files import read_file
from lhttp_tx.observe.reasons import reason_of

__all__ = ["MAX_SECONDS", "ManholeService", "Profiler", "Report"]

_log = Logger()

MAX_SECONDS = 300.0
"""The longest time of a profile, in seconds."""


class Report(str):
    """A text that the prompt shows unchanged, without quotes."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


class Profiler:
    """Profiles on demand, one at a time."""

    def __init__(self, clock: IReactorTime) -> None:
        """:param clock: the reactor."""
        self._clock = clock
        self._busy = False

    def profile(self, seconds: float = 10.0, top: int = 30) -> Deferred[Report]:
        """
        Find out which functions take the most time.

        :param seconds: how long to measure, at most :data:`MAX_SECONDS`. The server is slower during this time.
        :param top: how many functions to list. Those with the most time of their own come first.
        :returns: a Deferred that

            - succeeds with the report;
            - fails with :exc:`ValueError` if the time is out of bounds;
            - fails with :exc:`RuntimeError` if another profile is running.
        """
        profile = cProfile.Profile()

        def report() -> Report:
            profile.disable()
            output = io.StringIO()
            pstats.Stats(profile, stream=output).sort_stats("tottime").print_stats(top)
            return Report(output.getvalue())

        return self._look(seconds, profile.enable, report)

    def allocations(self, seconds: float = 10.0, top: int = 20) -> Deferred[Report]:
        """
        Find out which lines allocate memory and keep it; otherwise like :meth:`profile`.

        :param seconds: how long to measure, at most :data:`MAX_SECONDS`. The server is much slower during this time.
        :param top: how many lines to list.
        """

        def report() -> Report:
            snapshot = tracemalloc.take_snapshot()
            tracemalloc.stop()
            found = snapshot.filter_traces([tracemalloc.Filter(False, tracemalloc.__file__)]).statistics("lineno")
            return Report("\n".join(map(str, found[:top])) + "\n")

        return self._look(seconds, tracemalloc.start, report)

    def _look(self, seconds: float, begin: Callable[[], object], end: Callable[[], Report]) -> Deferred[Report]:
        if not 0 < seconds <= MAX_SECONDS:
            return fail(ValueError(f"{seconds} is not from 0 to {MAX_SECONDS:g} seconds"))
        if self._busy:
            return fail(RuntimeError("another profile is being made"))
        self._busy = True
        done: Deferred[Report] = Deferred()

        def finish() -> None:
            self._busy = False
            done.callback(end())

        self._clock.callLater(seconds, finish)
        begin()
        return done


@implementer(IAuthorizedKeysDB)
class _AuthorizedKeys:
    """The keys of a file in the format of ``authorized_keys``, read again for each login. Any user name is accepted."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def getAuthorizedKeys(self, username: bytes) -> Iterable[Key]:
        return list(readAuthorizedKeyFile(io.BytesIO(read_file(self._path))))


class _Terminal(TerminalSession):
    """A prompt whose window may change its size. It ends when there is no more input."""

    def windowChanged(self, newWindowSize: tuple[int, ...]) -> None:
        """Do nothing. The prompt keeps its lines."""

    def openShell(self, proto: Any) -> None:
        """Start the prompt."""
        self._channel = proto
        super().openShell(proto)

    def eofReceived(self) -> None:
        """Close the session at the end of the input."""
        self._channel.loseConnection()


class ManholeService(Service):
    """Listens for SSH while it runs."""

    def __init__(
        self,
        *,
        reactor: Any,
        listen: str,
        authorized_keys: str,
        host_key: str | None,
        namespace: dict[str, Any],
        make_endpoint: Callable[[Any, str], IStreamServerEndpoint] = serverFromString,
    ) -> None:
        """
        :param reactor: the running reactor.
        :param listen: an endpoint description.
        :param authorized_keys: a file with the public keys of users who may log in.
        :param host_key: a file with this server's private key, made if it is missing; ``None``: a new key for each
            start.
        :param namespace: the variables of the prompt.
        :param make_endpoint: takes the reactor and a description, and returns the endpoint.
        """
        self._reactor = reactor
        self._make_endpoint = make_endpoint
        self._listen = listen
        self._authorized_keys = Path(authorized_keys)
        self._host_key = host_key
        profiler = Profiler(reactor)
        self._namespace = {"profile": profiler.profile, "allocations": profiler.allocations, **namespace}
        self._port: IListeningPort | None = None
        self._listening: Deferred[Any] | None = None

    def startService(self) -> None:
        """Listen."""
        super().startService()
        key = _load_host_key(self._host_key)
        realm: Any = TerminalRealm()
        realm.sessionFactory = _Terminal
        realm.chainedProtocolFactory = lambda: ServerProtocol(ColoredManhole, dict(self._namespace))
        portal = Portal(realm, [SSHPublicKeyChecker(_AuthorizedKeys(self._authorized_keys))])
        factory: Any = ConchFactory(portal)
        factory.publicKeys = {key.sshType(): key.public()}
        factory.privateKeys = {key.sshType(): key}
        listening = self._listening = self._make_endpoint(self._reactor, self._listen).listen(factory)
        listening.addCallbacks(self._listens, self._failed, callbackArgs=(key, listening))

    def _listens(self, port: IListeningPort, key: Key, listening: Deferred[Any]) -> object:
        if listening is not self._listening:  # it was stopped in the meantime
            return port.stopListening()
        self._port = port
        _log.warn(
            "manhole on {address}: anyone with a key in {keys} can do anything in this process; host key {print}",
            address=port.getHost(),
            keys=str(self._authorized_keys),
            print=key.fingerprint(),
        )
        return None

    def _failed(self, failure: Failure) -> None:
        assert failure.value is not None
        _log.critical("the manhole did not start: {why}", why=reason_of(failure.value))

    def stopService(self) -> Deferred[None]:
        """Stop listening."""
        super().stopService()
        port, self._port = self._port, None
        self._listening = None
        return succeed(None) if port is None else maybeDeferred(port.stopListening).addCallback(lambda _: None)


def _load_host_key(path: str | None) -> Key:
    if path is not None and Path(path).exists():
        return cast(Key, Key.fromString(read_file(path)))
    made = ed25519.Ed25519PrivateKey.generate()
    if path is not None:
        content = made.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
        )
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
    return Key(made)
