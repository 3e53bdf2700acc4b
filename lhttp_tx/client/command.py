"""
The ``lhttp`` command: where it begins.

What it needs beyond the library is the extra ``cli``; without it, it says what to install. Imports nothing but the
standard library before that is known.
"""

from __future__ import annotations

import sys

__all__ = ["main"]

_EXTRA = {"click": "click", "prompt_toolkit": "prompt_toolkit"}


def main() -> None:
    """Run the command with the arguments of the process, and exit."""
    try:
        from lhttp_tx.client.cli import run
    except ModuleNotFoundError as error:
        if error.name not in _EXTRA:
            raise
        sys.stderr.write(f"lhttp: {_EXTRA[error.name]} is not installed; run: pip install 'lhttp_tx[cli]'\n")
        sys.exit(1)
    sys.exit(run(sys.argv[1:]))
