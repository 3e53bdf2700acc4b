"""
Patterns of channel names, as NATS writes them: ``chat.*``, ``room.>``; and ``user.{user}``.

Used by :mod:`lhttp_tx.rules`. Belongs to the codec: pure functions.
"""

import re

from lhttp_tx.channels import check_channel
from lhttp_tx.errors import LHTTPError

__all__ = ["USER", "check_pattern", "compile_pattern", "covers", "overlap", "split_pattern"]

USER = "{user}"
"""The token of a pattern that stands for a user's name."""


def split_pattern(pattern: str) -> list[str]:
    """Return the tokens of a pattern, ``*`` for any one."""
    return ["*" if token == USER else token for token in pattern.split(".")]


def compile_pattern(pattern: str) -> re.Pattern[str]:
    """Return what matches the whole of a name as *pattern* does."""
    tokens = {"*": r"[^.]+", ">": r".+"}
    parts = (tokens.get(token) or re.escape(token) for token in split_pattern(pattern))
    return re.compile(r"\.".join(parts), re.DOTALL)


def covers(general: list[str], special: list[str]) -> bool:
    """Return whether the tokens of *general* match every channel that those of *special* match."""
    for number, wanted in enumerate(general):
        if wanted == ">":
            return number < len(special)
        if number >= len(special) or special[number] == ">":
            return False
        if wanted not in ("*", special[number]):
            return False
    return len(general) == len(special)


def overlap(one: list[str], other: list[str]) -> bool:
    """Return whether there is a channel that the tokens of both match."""
    for mine, theirs in zip(one, other, strict=False):
        if ">" in (mine, theirs):
            return True
        if mine != theirs and "*" not in (mine, theirs):
            return False
    return len(one) == len(other)


def check_pattern(pattern: str) -> None:
    """:raises ValueError: if it is no pattern of channel names."""
    tokens = pattern.split(".")
    if ">" in tokens[:-1]:
        raise ValueError("> stands for the rest of a name: it must be the last token")
    for token in tokens:
        if token in ("*", ">", USER):
            continue
        if "*" in token or ">" in token:
            raise ValueError(f"* and > stand for whole tokens, between dots; {token!r} would match that name alone")
        if "{" in token or "}" in token:
            raise ValueError(f"{token!r}: the only name in braces is {USER}, and it is a token of its own")
    if tokens.count(USER) > 1:
        raise ValueError(f"{USER} may stand there once")
    try:
        check_channel(".".join("x" if token in ("*", ">", USER) else token for token in tokens))
    except LHTTPError as error:
        raise ValueError(f"no channel has such a name: {error.reason}") from None
