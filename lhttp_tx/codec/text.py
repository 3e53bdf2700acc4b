"""
Checks whether a payload can be a text message.

Part of the codec; imports nothing of the project.
"""

from __future__ import annotations

__all__ = ["is_text"]


def is_text(payload: bytes) -> bool:
    """Return whether *payload* can be a text message, that is, whether it is UTF-8."""
    if payload.isascii():
        return True
    try:
        payload.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
