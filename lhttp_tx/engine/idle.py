"""
Finds out which methods a filter, a processor or a set of hooks overrides.

The base classes mark their methods that do nothing. The server does not call marked methods, and does not need to know
the base classes. Imports nothing of the project.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

__all__ = ["idle", "overrides"]

_Method = TypeVar("_Method", bound=Callable[..., Any])


def idle(method: _Method) -> _Method:
    """Mark the decorated method as one that does nothing."""
    # The mark is the method itself. So a wrapper that copies the attributes does not count as marked.
    vars(method)["idle"] = method
    return method


def overrides(found: object, name: str) -> bool:
    """Return whether *found* has a method *name* that is not marked as doing nothing."""
    method = getattr(found, name, None)
    function = getattr(method, "__func__", method)
    return function is not None and getattr(function, "idle", None) is not function
