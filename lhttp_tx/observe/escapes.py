"""
Makes untrusted text safe for the log.

Every module may import this one; it imports nothing of the project.
"""

from __future__ import annotations

__all__ = ["printable"]


def printable(text: str) -> str:
    """
    Return *text* unchanged if all of it is printable; else escape all characters except printable ASCII.

    Control characters could move the cursor of the log's reader. Other characters could reverse a line's direction.
    """
    return text if text.isprintable() else ascii(text)[1:-1]
