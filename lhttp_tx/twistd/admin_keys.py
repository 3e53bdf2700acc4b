"""
The table ``[admin]`` of a configuration file: the endpoints of the admin side, and its keys.

Used by :mod:`lhttp_tx.twistd.settings`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lhttp_tx.twistd.toml_lines import Place
from lhttp_tx.web.admin.keys import AdminKey, read_keys
from lhttp_tx.web.admin.scopes import SCOPES

__all__ = ["MOVED", "AdminKeys"]

_ADMIN = "admin"
_KNOWN = ("grpc", "keys", "listen")

MOVED: Mapping[str, Place] = {"admin": (_ADMIN, "listen"), "grpc": (_ADMIN, "grpc")}
"""Options, and where they are in the table."""


@dataclass(frozen=True, slots=True)
class AdminKeys:
    """
    The keys of the admin side.

    :ivar base: the directory to which names of files are relative: the one in which the process was started.
    :ivar keys: the keys.
    :ivar files: the files with secrets, each with the name of its key.
    """

    base: Path
    keys: tuple[AdminKey, ...] = ()
    files: tuple[tuple[str, str], ...] = ()

    @classmethod
    def take(cls, table: dict[str, Any], base: Path, complain: Callable[[Place, str], None]) -> AdminKeys:
        """
        Take the table ``admin`` out of *table*, and leave its endpoints there as the options ``admin`` and ``grpc``.

        :param table: the file as :mod:`tomllib` reads it.
        :param base: the directory to which names of files are relative.
        :param complain: called with each mistake.
        """
        found = table.get(_ADMIN)
        if not isinstance(found, dict):
            return cls(base)
        del table[_ADMIN]
        for name in found:
            if name not in _KNOWN:
                complain((_ADMIN, name), f"there is no key {name} in [admin]; those that exist: {', '.join(_KNOWN)}")
        for option, (_, name) in MOVED.items():
            if name in found:
                table[option] = found[name]
        keys, problems, files = read_keys(found.get("keys", {}), known=SCOPES, base=base)
        for place, problem in problems:
            complain((_ADMIN, "keys", *place), problem)
        return cls(base, tuple(keys), tuple(files))
