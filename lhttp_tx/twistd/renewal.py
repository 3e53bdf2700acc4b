"""
Reads secrets, keys and certificates again on SIGHUP, without closing connections.

If a file cannot be used, the old contents remain valid, and the log names the file.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from twisted.logger import Logger

from lhttp_tx.guard.files import check_file
from lhttp_tx.ports.certificates import Certificates, tls_files

if TYPE_CHECKING:
    from lhttp_tx.service import LHTTPService
    from lhttp_tx.web.admin.service import AdminService

__all__ = ["Renewal", "renewal_of"]

_log = Logger()


class Renewal:
    """The secrets, keys and certificates that can be read again."""

    def __init__(self) -> None:
        self._entries: list[tuple[str, Callable[[], bool]]] = []
        self._certificates: list[Certificates] = []

    def add(self, name: str, renew: Callable[[], bool]) -> None:
        """
        Add an entry.

        :param name: its name for the log, with the name of its file.
        :param renew: reads it and applies it. It returns whether it has changed, and raises if it is not valid.
        """
        self._entries.append((name, renew))

    def add_value(self, name: str, read: Callable[[], Any], use: Callable[[Any], None], current: Any) -> None:
        """
        Add a value.

        :param name: its name for the log, with the name of its file.
        :param read: reads and returns it. It raises if the value is not valid.
        :param use: called with a new value.
        :param current: the current value.
        """
        known = [current]

        def renew() -> bool:
            found = read()
            if found == known[0]:
                return False
            use(found)
            known[0] = found
            return True

        self.add(name, renew)

    def add_certificates(self, certificates: Certificates) -> None:
        """Add the certificates of the server's endpoints. Endpoints may be added to *certificates* later."""
        self._certificates.append(certificates)

    def add_admin(self, admin: AdminService, certificates: Certificates, grpc: str | None) -> None:
        """
        Add the certificates of an admin side.

        :param admin: the admin side.
        :param certificates: those of its endpoint for HTTP, if they are not yet added.
        :param grpc: the description of its endpoint for gRPC, if it has one.
        """
        if certificates not in self._certificates:
            self._certificates.append(certificates)
        if admin.renew_grpc is not None and grpc is not None and tls_files(grpc):
            self.add(f"certificate of {grpc} for gRPC", partial(_renew_checked, grpc, admin.renew_grpc))

    def renew(self) -> bool:
        """
        Read everything again, and log what has changed, in one line.

        :returns: whether there was anything to read.
        """
        certificates: list[tuple[str, Callable[[], bool]]] = [
            (f"certificate of {name}", partial(_renew_checked, name, renew))
            for each in self._certificates
            for name, renew in each.renewals()
        ]
        changed: list[str] = []
        same: list[str] = []
        for name, renew in (*self._entries, *certificates):
            try:
                (changed if renew() else same).append(name)
            except Exception as error:  # of OpenSSL, the system, or a wrong value
                why = str(error) or type(error).__name__
                _log.error("SIGHUP: {name} stays as it was: {why}", name=name, why=why, event="reload.kept")
        if changed or same:
            told = "; ".join(
                f"{what}: {', '.join(names)}" for what, names in (("renewed", changed), ("unchanged", same)) if names
            )
            _log.info("SIGHUP: {told}", told=told, event="reload.renewed")
        return bool(self._entries or certificates)


def _renew_checked(description: str, renew: Callable[[], bool]) -> bool:
    """Renew the certificate of an endpoint. Raise :exc:`ValueError` if reading one of its files could block."""
    for path in tls_files(description):
        check_file(path)
    return renew()


def renewal_of(options: Any, server: LHTTPService, certificates: Certificates) -> Renewal:
    """
    Return the secrets, keys and certificates of *server* that can be read again.

    :param options: the options of the server. From now on, reading their files does not wait for pipes.
    :param certificates: the certificates of its endpoints.
    """
    options.wait = 0.0
    renewal = Renewal()
    renewal.add_certificates(certificates)
    path = options["publish-token-file"]
    if path is not None:
        policy = server.factory.policy
        renewal.add_value(
            f"publish token ({path})",
            options.publish_token,
            lambda token: setattr(policy, "publish_token", token),
            policy.publish_token,
        )
    keys = options["jwt-key-file"] or options["jwks-file"]
    if keys is not None:
        authenticator = options.token_authenticator
        renewal.add_value(f"keys of tokens ({keys})", options.read_keys, authenticator.set_keys, authenticator.keys)
    path, tracer = options["trace-headers-file"], server.parts.tracer
    if path is not None and tracer is not None and tracer.use_headers is not None:
        current = dict(server.config.trace_headers)
        renewal.add_value(f"headers for the collector ({path})", options.trace_headers, tracer.use_headers, current)
    files = [options[f"nats-{name}"] for name in ("password-file", "token-file", "credentials")]
    found = [file for file in files if file is not None]
    if found:
        from lhttp_tx.bus.nats.bus import NATSBus, use_servers  # loads nats-py

        bus = server._parts.bus
        assert isinstance(bus, NATSBus)  # only this bus has these options
        name = f"credentials for NATS ({', '.join(found)})"
        renewal.add_value(name, options.nats_servers, partial(use_servers, bus), bus.servers)
    return renewal
