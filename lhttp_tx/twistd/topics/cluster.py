"""
The options for NATS, which the nodes of a cluster and the workers of a machine share.

A part of :mod:`lhttp_tx.twistd.options`.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

from twisted.python import usage

from lhttp_tx.bus.nats.servers import NATSServers, check_credentials, check_server
from lhttp_tx.codec.bounds import COUNT_OR_NONE, DELAY, HANG, SECONDS_OR_NONE, WORKERS
from lhttp_tx.config import Config
from lhttp_tx.observe.extras import install_command
from lhttp_tx.twistd.broker import Broker, BrokerSettings, find_server
from lhttp_tx.twistd.topics.topic import Topic, read_secret, usage_errors

__all__ = ["ClusterOptions", "use_asyncio_reactor"]

_OPTIONS = (
    *("nats-user", "nats-password-file", "nats-token-file", "nats-credentials"),
    *("nats-tls-ca", "nats-tls-certificate", "nats-tls-key", "nats-local-delivery", "require-nodes"),
    *("close-after-gap", "nats-max-delay"),
)
_PAIRS = (
    ("nats-user", "nats-password-file"),
    ("nats-password-file", "nats-user"),
    ("nats-tls-key", "nats-tls-certificate"),
)


_OWN = ("nats-local-delivery", "nats-max-delay", "require-nodes", "close-after-gap")
"""Options that workers may have also without ``--nats``."""

_SOMEWHERE = "nats://127.0.0.1"
"""A placeholder for the nats-server of the workers, whose port is not known yet."""


class ClusterOptions(Topic):
    """The options ``--nats...``, ``--require-nodes``, and those of workers."""

    optFlags = [
        ["nats-local-delivery", None, "While NATS is unavailable, deliver on this node only instead of refusing."]
    ]

    optParameters = [
        ["workers", None, 1, "Number of processes that serve the same port and the same channels", WORKERS],
        ["worker-timeout", None, 30.0, "Seconds without a heartbeat before a worker is replaced, 0: never", HANG],
        ["workers-store", None, None, "Directory for the history of workers that have their own NATS"],
        [
            "require-nodes",
            None,
            0,
            "Number of nodes that should be connected; if fewer are, receipts say so",
            COUNT_OR_NONE,
        ],
        ["close-after-gap", None, 0.0, "Seconds to close clients after a gap, 0: never", SECONDS_OR_NONE],
        ["nats-max-delay", None, 0.0, "Seconds after which messages of other nodes are dropped, 0: never", DELAY],
        ["nats-prefix", None, "lhttp.", "Prefix of NATS subjects in front of the channel name, may be empty"],
        ["nats-user", None, None, "User name for NATS"],
        ["nats-password-file", None, None, "File with the password of --nats-user"],
        ["nats-token-file", None, None, "File with a token for NATS"],
        ["nats-credentials", None, None, "File with a JWT and a seed (.creds) for NATS"],
        ["nats-tls-ca", None, None, "File with the certificates of authorities to trust for NATS"],
        ["nats-tls-certificate", None, None, "File with the client certificate for NATS"],
        ["nats-tls-key", None, None, "File with the key of --nats-tls-certificate"],
    ]

    installs_reactor = True
    """Whether the options may install the reactor that they need."""

    def __init__(self) -> None:
        super().__init__()
        self._nats: list[str] = []

    def opt_nats(self, url: str) -> None:
        """NATS server that connects the nodes of a cluster, such as nats://127.0.0.1:4222 (repeatable)"""
        with usage_errors("--nats"):
            self._nats.append(check_server(url))

    def nats_servers(self) -> NATSServers | None:
        """
        Return the settings of NATS, and install the reactor that it needs; ``None`` without NATS.

        :raises UsageError: if the options contradict each other, a file cannot be read, or nats-py is missing.
        """
        if not self._nats:
            for name in _OPTIONS:
                if self[name] and not (self.has_own_broker and name in _OWN):
                    raise usage.UsageError(f"--{name} is for NATS: name a server with --nats")
            if not self.has_own_broker:
                return None
        for name, other in _PAIRS:
            if self[name] and not self[other]:
                raise usage.UsageError(f"--{name} needs --{other}: give both")
        for name in ("nats-credentials", "nats-tls-ca", "nats-tls-certificate", "nats-tls-key"):
            if self[name]:
                content = read_secret(f"--{name}", self[name], wait=0)  # each connection to NATS reads it again
                if name == "nats-credentials":
                    with usage_errors(f"--{name} {self[name]}:"):
                        check_credentials(content or "")
        password = read_secret("--nats-password-file", self["nats-password-file"], wait=self.wait)
        token = read_secret("--nats-token-file", self["nats-token-file"], wait=self.wait)
        with usage_errors("--nats-prefix"):
            servers = NATSServers(
                tuple(self._nats or [_SOMEWHERE]),
                prefix=self["nats-prefix"],
                user=self["nats-user"],
                password=password,
                token=token,
                credentials_file=self["nats-credentials"],
                tls_ca=self["nats-tls-ca"],
                tls_certificate=self["nats-tls-certificate"],
                tls_key=self["nats-tls-key"],
                name=self["node-name"] or "lhttp_tx",
                local_delivery=bool(self["nats-local-delivery"]),
                max_delay=self["nats-max-delay"],
            )
        if importlib.util.find_spec("nats") is None:
            option, extra = ("--nats", "nats") if self._nats else ("--workers", "workers")
            raise usage.UsageError(f"{option} needs nats-py: {install_command(extra)}")
        if not self._nats and find_server() is None:
            raise usage.UsageError(
                f"--workers needs a nats-server, which it starts by itself: {install_command('workers')}; "
                "or name one that runs with --nats"
            )
        if self.installs_reactor:
            use_asyncio_reactor("--nats" if self._nats else "--workers")
        return servers

    @property
    def has_own_broker(self) -> bool:
        """Whether there are workers without ``--nats``. They get a nats-server of their own."""
        return not self._nats and self["workers"] > 1

    def shares(self, config: Config, *, has_bus: bool) -> bool:
        """
        Return whether two processes with these settings can serve together: they share channels and history.

        :param has_bus: whether the operator has named a bus of another package.
        """
        own_store = config.history_store is not None and config.history_store.startswith("sqlite:")
        return (bool(self._nats) or has_bus) and not own_store

    def check_store(self, config: Config) -> None:
        """
        Check that a nats-server of the workers has a directory for histories.

        :param config: the settings.
        :raises UsageError: if there is none.
        """
        directory = self["workers-store"]
        if directory and self["workers"] == 1:
            raise usage.UsageError("--workers-store is for the history of workers: add --workers, or leave it out")
        if not self.has_own_broker or directory or config.history_in_memory:
            return
        if config.history_store == "jetstream" or config.history or any(rule.history for rule in config.rules or ()):
            raise usage.UsageError(
                "workers keep their history in a nats-server of their own: name a directory for it with "
                "--workers-store, or add --history-in-memory"
            )

    def make_broker(self, reactor: Any) -> Broker | None:
        """Return the nats-server of the workers, not started; ``None`` if they do not need one."""
        program = find_server() if self.has_own_broker else None
        if program is None:
            return None
        directory = self["workers-store"]
        settings = BrokerSettings(
            program,
            directory=None if directory is None else str(Path(directory).absolute()),
            in_memory=bool(self["history-in-memory"]),
            message_size=self["max-message-size"],
        )
        return Broker(settings, reactor=reactor, hang_timeout=self["worker-timeout"])


def use_asyncio_reactor(option: str) -> None:
    """
    Install the reactor that *option* needs, unless it is installed. twistd imports its default reactor only after this.
    """
    from twisted.internet import asyncioreactor

    installed = sys.modules.get("twisted.internet.reactor")
    if installed is None:
        asyncioreactor.install()
    elif not isinstance(installed, asyncioreactor.AsyncioSelectorReactor):
        raise usage.UsageError(f"{option} needs the asyncio reactor: twistd --reactor=asyncio lhttp {option} ...")
