"""lhttp_tx.observe.reasons: what an operator is told of what the system does not do."""

from __future__ import annotations

import errno
import os

import pytest
from twisted.internet.error import CannotListenError

from lhttp_tx.observe.reasons import reason_of, tell_once, told_of

NO_PORT = (
    "Permission denied; choose a port from 1024 on, or start as root and give --uid, or allow CAP_NET_BIND_SERVICE"
)


def system_error(number: int, *paths: str) -> OSError:
    return OSError(number, os.strerror(number), *(paths[:1] or ()), *((None, *paths[1:]) if len(paths) > 1 else ()))


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (
            CannotListenError("", 80, system_error(errno.EADDRINUSE)),
            "Address already in use; stop what listens there, or choose another port",
        ),
        (
            CannotListenError("", 80, system_error(errno.EACCES)),
            NO_PORT,
        ),
        (
            CannotListenError("", "/run/s", system_error(errno.EACCES)),
            "Permission denied; let the user of the server write there, or name another place",
        ),
        (
            CannotListenError(None, "/run/s", "Cannot acquire lock"),  # type: ignore[arg-type]
            "another process listens there; stop it, or choose another path",
        ),
        (
            CannotListenError(None, "/run/s", OSError("AF_UNIX path too long")),  # type: ignore[arg-type]
            "the path is too long for a UNIX socket; choose a shorter path",
        ),
        (
            system_error(errno.ENOENT, "123", "/missing/s.lock"),
            "/missing/s.lock: No such file or directory; make the directory /missing, or name another",
        ),
        (
            system_error(errno.ENOENT, "/missing-file"),
            "/missing-file: No such file or directory; name a file that is there",
        ),
        (system_error(errno.EIO, "/dev/x"), "/dev/x: Input/output error"),
        (ValueError("so it is"), "so it is"),
        (ValueError(), "ValueError()"),
    ],
)
def test_reason_says_what_is_wrong_and_what_to_do(error: Exception, told: str) -> None:
    assert reason_of(error) == told


def test_what_was_told_is_known() -> None:
    error = ValueError()
    assert told_of(error) is None
    tell_once(error, "x")
    assert told_of(error) == "x"
