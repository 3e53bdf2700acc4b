"""
The entry point of the ``lhttp`` command.

The command needs the extra ``cli``. Without it, the command says what to install. ``lhttp check-config`` belongs to the
server, and works without the extra. So this module imports optional packages only when it knows the subcommand.
"""

from __future__ import annotations

import sys
from importlib import import_module

from lhttp_tx.observe.extras import install_command

__all__ = ["main"]

_EXTRA = frozenset({"click", "prompt_toolkit"})

_CHECK = "check-config"


def main() -> None:
    """Run the command with the arguments of the process, and exit."""
    if sys.argv[1:2] == [_CHECK]:
        sys.exit(import_module("lhttp_tx.twistd.checking").main(sys.argv[2:]))  # imports the server
    try:
        from lhttp_tx.client.command.cli import run
    except ModuleNotFoundError as error:
        if error.name not in _EXTRA:
            raise
        sys.stderr.write(f"lhttp: {error.name} is not installed; run: {install_command('cli')}\n")
        sys.exit(1)
    sys.exit(run(sys.argv[1:]))
