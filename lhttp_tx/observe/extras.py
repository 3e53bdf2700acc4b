"""
Tells what to install for an option that needs optional packages.

The project may have been installed from anywhere, so a package index may not have its extras. It does have the
libraries in the extras. Imports nothing of the project.
"""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, requires

__all__ = ["install_command"]

_REQUIREMENT = re.compile(r"""([^;]+);[^=;]*\bextra *== *["']([\w.-]+)["']""")
"""A requirement of an extra (the specification of dependency specifiers)."""


def install_command(extra: str) -> str:
    """
    Return the command that installs the libraries of an extra.

    :param extra: one of ``setup.cfg``, such as ``cli``.
    """
    try:
        found = [_REQUIREMENT.fullmatch(line) for line in requires("lhttp_tx") or ()]
    except PackageNotFoundError:
        found = []
    needed = [match[1].strip() for match in found if match is not None and match[2] == extra]
    return " ".join(["pip install", *(f"'{name}'" for name in needed or [f"lhttp_tx[{extra}]"])])
