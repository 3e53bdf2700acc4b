"""
Checks whether a server could make its files and sockets at the paths that its options name.

It creates nothing. The checks apply to the user and the directory of this process.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from lhttp_tx.ports.sockets import check_socket_path, unix_path
from lhttp_tx.ports.taken import TakeoverFailed, check_takeover

__all__ = ["folder_problem", "problem_of", "socket_problems", "upgrade_problem"]


def problem_of(name: str) -> str | None:
    """Return why the server cannot write a file, and what to do; ``None`` if it can."""
    path = Path(name).absolute()
    if not path.parent.is_dir():
        return f"there is no directory {path.parent}; make it, or name another file"
    if path.is_dir():
        return "it is a directory; name a file"
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        return "it may not be written; let the user of the server do so, or name another file"
    return None


def folder_problem(name: str) -> str | None:
    """Return why the server cannot use a directory, which is made if it is missing; ``None`` if it can."""
    path = Path(name).absolute()
    found = next(each for each in (path, *path.parents) if each.exists())
    if not found.is_dir():
        return f"{found} is no directory; name another"
    if not os.access(found, os.W_OK | os.X_OK):
        return f"the server may not make files in {found}; let its user do so, or name another directory"
    return None


def socket_problems(endpoints: Iterable[tuple[str, str]]) -> Iterator[str]:
    """
    Yield the problems of UNIX sockets.

    :param endpoints: options, and descriptions of endpoints. Other endpoints than UNIX sockets have no problem here.
    """
    for option, description in endpoints:
        path = unix_path(description)
        if path is None:
            continue
        try:
            check_socket_path(path)
        except ValueError as error:
            yield f"{option} {description}: {error}"


def upgrade_problem(path: str) -> str | None:
    """Return why a server cannot listen at the path of ``--upgrade``; ``None`` if it can."""
    try:
        check_takeover(Path(path), None)
    except TakeoverFailed as failed:
        return str(failed)
    return None
