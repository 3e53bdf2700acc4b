"""
The names that the scope of a key may contain.
"""

from __future__ import annotations

from lhttp_tx.observe.methods import METHODS

__all__ = ["SCOPES"]

SCOPES: frozenset[str] = frozenset({"metrics", "trace_bodies", *(method.name for method in METHODS)})
"""The methods of the API, and the other permissions: ``metrics`` and ``trace_bodies``."""
