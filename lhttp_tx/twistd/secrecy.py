"""
Finds secrets in a server's options that other users of the machine can see.

Used by :mod:`lhttp_tx.twistd.options`. The results are only warnings. They do not stop a server, because the
permissions of a file do not fully decide who can read it, and existing servers should still start.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

__all__ = ["exposed", "find_exposures"]

_SECRET_FILES = (
    *("publish-token-file", "nats-password-file", "nats-token-file", "nats-credentials", "nats-tls-key"),
    *("manhole-host-key", "trace-headers-file"),
)
"""Options that name a file with a secret."""

_PRIVATE_KEY = re.compile(r"(?<!\\):privateKey=((?:\\.|[^:\\])*)")
"""Finds the file with the private key in the description of an endpoint."""

_PROXY = "haproxy:"
"""The prefix of an endpoint's description for the PROXY protocol."""

_DEFAULT_KEY = "server.pem"
"""The file with the private key of an endpoint that names none."""


def find_exposures(
    options: Mapping[str, Any],
    *,
    nats: Sequence[str],
    auth: Sequence[str],
    listen: Sequence[str],
    arguments: Sequence[str],
    config: str | None,
    origins: Mapping[str, str],
    secret_keys: Sequence[tuple[str, str]],
    admin: Sequence[tuple[str, str]] = (),
) -> list[str]:
    """
    Return the warnings, one line each, without the secrets.

    :param options: the options with values.
    :param nats: the URLs of NATS servers.
    :param auth: the descriptions of checkers.
    :param listen: the descriptions of endpoints.
    :param arguments: the command line.
    :param config: the configuration file.
    :param origins: where each option was set (:class:`lhttp_tx.twistd.sources.Sources`).
    :param secret_keys: options that name files with keys that sign tokens, and these files.
    :param admin: the files with secrets of the admin side, each with the name of its key.
    """
    files = [(f"--{name}", options[name]) for name in _SECRET_FILES]
    if not options["nats-tls-key"]:
        files.append(("--nats-tls-certificate", options["nats-tls-certificate"]))
    files += [*secret_keys, *((f"[admin.keys.{name}] secret_file", path) for name, path in admin)]
    files += [("--auth file", found.partition(":")[2]) for found in auth if found.startswith("file:")]
    files += [("--listen", key) for found in listen for key in _keys_of(found)]
    held = [(f"--nats {_shown(url)}", url, "--nats-password-file or --nats-token-file") for url in nats if _login(url)]
    held += [("--auth memory", found, "--auth file:PATH") for found in auth if found.startswith("memory:")]
    told = []
    for name, value, other in held:
        if any(value in argument for argument in arguments):
            told.append(
                f"{name}: other users of this machine can see its password in the list of processes; use {other}"
            )
        elif config is not None and origins.get(name.split()[0].lstrip("-"), "").startswith(f"{config}:"):
            files.append(("--config (a password is in it)", config))
    told += [text for name, path in files if path and (text := exposed(name, path)) is not None]
    return list(dict.fromkeys(told))


def exposed(name: str, path: str) -> str | None:
    """Return the warning about a file with a secret; ``None`` if others can neither read nor change it."""
    try:
        mode = Path(path).stat().st_mode
    except OSError:
        return None
    if not stat.S_ISREG(mode) or not mode & (stat.S_IROTH | stat.S_IWOTH):
        return None
    what = "read" if mode & stat.S_IROTH else "change"
    return f"{name}: other users of this machine can {what} {path}; forbid this with chmod o-rwx"


def _login(url: str) -> bool:
    return urlsplit(url).username is not None


def _shown(url: str) -> str:
    return url.partition("://")[0] + "://...@" + url.rpartition("@")[2]


def _keys_of(description: str) -> Iterator[str]:
    """Yield the file with the private key of an endpoint with TLS, also if it uses the PROXY protocol."""
    while description.startswith(_PROXY):
        description = description.removeprefix(_PROXY)
    if description.startswith("ssl:"):
        found = _PRIVATE_KEY.search(description)
        yield re.sub(r"\\(.)", r"\1", found[1]) if found else _DEFAULT_KEY
