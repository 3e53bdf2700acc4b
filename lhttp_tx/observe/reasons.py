"""
Explains errors of the operating system to the operator in one line: why it failed, and what to do.

Used where a server starts: :mod:`lhttp_tx.ports.listening`, :mod:`lhttp_tx.twistd.mishaps`. Imports nothing of the
project.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

from twisted.internet.error import CannotListenError

__all__ = ["reason_of", "tell_once", "told_of"]

_ADVICE = {
    errno.EADDRINUSE: "stop what listens there, or choose another port",
    errno.EADDRNOTAVAIL: "this machine has no such address; name one of its own, or leave out the interface",
    errno.ENAMETOOLONG: "choose a shorter path",
    errno.EMFILE: "raise the limit on open files (ulimit -n, LimitNOFILE)",
    errno.ENOSPC: "make room on the disk",
    errno.EROFS: "choose a directory that can be written to",
    errno.EEXIST: "choose another path",
    errno.EISDIR: "name a file",
    errno.ENOTDIR: "name a file in a directory",
}
_BARRED = (errno.EACCES, errno.EPERM)


def reason_of(error: BaseException) -> str:
    """Return the cause of an error, and advice for the operator."""
    inner: object = getattr(error, "socketError", None) if isinstance(error, CannotListenError) else error
    if inner == "Cannot acquire lock":
        return "another process listens there; stop it, or choose another path"
    if isinstance(inner, OSError) and str(inner) == "AF_UNIX path too long":  # without a number
        return f"the path is too long for a UNIX socket; {_ADVICE[errno.ENAMETOOLONG]}"
    if not isinstance(inner, OSError) or inner.errno is None:
        return str(error) or repr(error)
    paths = [os.fsdecode(path) for path in (inner.filename2, inner.filename) if isinstance(path, str | bytes)]
    path = paths[0] if paths else ""
    told = f"{path}: {inner.strerror}" if path else str(inner.strerror)
    advice = _ADVICE.get(inner.errno, "")
    if inner.errno == errno.ENOENT:
        folder = Path(path).parent
        advice = "name a file that is there" if folder.is_dir() else f"make the directory {folder}, or name another"
    elif inner.errno in _BARRED:
        advice = "let the user of the server write there, or name another place"
        if isinstance(error, CannotListenError) and isinstance(error.port, int):
            advice = "choose a port from 1024 on, or start as root and give --uid, or allow CAP_NET_BIND_SERVICE"
    return f"{told}; {advice}" if advice else told


def tell_once(error: BaseException, text: str) -> None:
    """Note that the log has *text* about *error*."""
    error.__dict__["_told"] = text


def told_of(error: BaseException) -> str | None:
    """Return the log's text about *error*; ``None`` if there is none yet."""
    told: str | None = error.__dict__.get("_told")
    return told
