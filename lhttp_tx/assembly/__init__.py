"""
The parts of one server, wired once.

:mod:`lhttp_tx.assembly.parts` has all of them, and :mod:`lhttp_tx.assembly.histories` those for history.
"""

from lhttp_tx.assembly.parts import Assembly

__all__ = ["Assembly"]
