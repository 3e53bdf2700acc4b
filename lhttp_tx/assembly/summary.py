"""The log lines that describe a server when it starts."""

from __future__ import annotations

from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.logger import Logger

from lhttp_tx.assembly.parts import Assembly
from lhttp_tx.guard.access import is_loopback
from lhttp_tx.guard.proxies import TrustedProxies

__all__ = ["log_summary", "tell_listening"]

_log = Logger(namespace="lhttp_tx.service")


def log_summary(parts: Assembly, proxies: TrustedProxies) -> None:
    """
    Log the parts and the main settings of a server, one line each.

    :param proxies: the trusted proxies.
    """
    config = parts.config
    commands = ", ".join(sorted(processor.command for processor in parts.engine.registry)) or "none"
    gate, rules = parts.gate, parts.rules
    _log.info("bus: {bus}", bus=parts.bus.description)
    if parts.histories.is_active:
        _log.info("history: {store}", store=parts.histories.store.description)
    _log.info("processors: {commands}", commands=commands)
    _log.info("clients: {who}", who="anybody" if gate is None else gate.description)
    if proxies:
        _log.info("trusted proxies: {proxies}", proxies=proxies)
    if config.demo:
        _log.info("demo: a chat page at /")
    if config.publish_token is None:
        _log.info("POST /publish: programs on this machine only (set a token with --publish-token-file)")
    else:
        _log.info("POST /publish: callers with the token")
    if isinstance(config.trace, str):
        _log.info(
            "traces: to {url}, of messages whose traceparent is sampled, and of {ratio:g} of those without",
            url=config.trace,
            ratio=config.trace_ratio,
        )
    if rules is not None:
        _log.info("channel rules: {count}", count=len(rules))
    backends = [*config.upstream_allow, *(f"{url} (original)" for url in config.upstream_original)]
    _log.info("upstream: {targets}", targets=", ".join(backends) or "off (--upstream-allow)")


def tell_listening(host: Any, description: str, *, is_open: bool) -> None:
    """
    Log that a port listens.

    :param host: the address of the port.
    :param is_open: whether clients need no login there. This causes a warning, except on the loopback interface.
    """
    _log.info("listening on {address} ({description})", address=_shown(host), description=description)
    if is_open and isinstance(host, IPv4Address | IPv6Address) and not is_loopback(host.host):
        _log.warn(
            "anyone who can reach {address} can connect without login: require one with --auth, --jwt-key-file or "
            "--authenticator, or listen on this machine only with tcp:{port}:interface=127.0.0.1",
            address=_shown(host),
            port=host.port,
        )


def _shown(address: Any) -> str:
    if isinstance(address, IPv6Address):
        return f"[{address.host}]:{address.port}"
    if isinstance(address, IPv4Address):
        return f"{address.host}:{address.port}"
    return str(address)
