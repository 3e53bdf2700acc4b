"""
The names that the scope of a key may contain.
"""

from __future__ import annotations

__all__ = ["SCOPES"]

SCOPES: frozenset[str] = frozenset({"info", "metrics"})
"""The methods of the API, and what else needs a scope."""
