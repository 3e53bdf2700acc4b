"""
Checks the arguments of a client, so that a wrong one raises an exception at once, and not when the client uses it.

Imports nothing of the client.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from twisted.internet.interfaces import IStreamClientEndpoint

from lhttp_tx.codec.bounds import Bound
from lhttp_tx.codec.channels import check_channel

__all__ = [
    "COUNT",
    "SECONDS",
    "check_callbacks",
    "check_codec",
    "check_numbers",
    "check_positions",
    "check_target",
    "check_text",
    "check_texts",
    "loaded",
    "names_of",
    "takes",
    "transports_of",
]

SECONDS = Bound(float, 0, 2**31 - 1)
"""The bounds of times in seconds, for which a reactor can wait."""

COUNT = Bound(int, 0, 2**63 - 1)
"""The bounds of sizes and numbers."""


def check_callbacks(*arguments: str, **callbacks: object) -> None:
    """
    Check functions that the client will call.

    :param arguments: the names of the arguments with which the client will call them.
    :raises TypeError: if one of *callbacks* is neither callable nor ``None``, or cannot take these arguments.
    """
    for name, callback in callbacks.items():
        if callback is None:
            continue
        if not callable(callback):
            raise TypeError(f"{name} is a function or None, not {type(callback).__name__}")
        if not takes(callback, len(arguments)):
            raise TypeError(f"{name} is called with ({', '.join(arguments)}), and {callback!r:.80} cannot take that")


def takes(callback: Callable[..., object], count: int) -> bool:
    """
    Return whether *callback* can be called with *count* arguments.

    A callable of C without a signature counts as one that can.
    """
    try:
        signature = inspect.signature(callback)
    except ValueError:
        return True
    try:
        signature.bind(*range(count))
    except TypeError:
        return False
    return True


def check_text(name: str, text: object) -> None:
    """:raises TypeError: if *text*, the argument *name*, is not a str."""
    if not isinstance(text, str):
        raise TypeError(f"{name} is a str, not {text!r:.80}")


def check_texts(**texts: object) -> None:
    """:raises TypeError: if one of *texts* is neither a str nor ``None``."""
    for name, text in texts.items():
        if text is not None:
            check_text(name, text)


def names_of(channels: str | Iterable[str]) -> list[str]:
    """
    Return the names of *channels*, one or several, as a list.

    :raises TypeError: if one of them is not a str.
    :raises RemoteProtocolError: if one is malformed or reserved.
    """
    if isinstance(channels, bytes) or not isinstance(channels, Iterable):
        raise TypeError(f"channels is a str, or several in a list, not {channels!r:.80}")
    names = [channels] if isinstance(channels, str) else [*channels]
    for name in names:
        check_text("channel", name)
        check_channel(name)
    return names


def check_numbers(**numbers: object) -> None:
    """:raises TypeError: if one of *numbers* is neither an int nor ``None``."""
    for name, number in numbers.items():
        if number is not None and (not isinstance(number, int) or isinstance(number, bool)):
            raise TypeError(f"{name} is a number, not {number!r:.80}")


def check_target(target: object) -> None:
    """:raises TypeError: if *target* is neither a str nor a client endpoint."""
    if not isinstance(target, str) and not IStreamClientEndpoint.providedBy(target):
        raise TypeError(f"target is a URL, an endpoint or its description, not {target!r}")


def check_codec(codec: object) -> None:
    """:raises ValueError: if *codec* is not ``text``, ``json`` or ``protobuf``."""
    if codec not in ("text", "json", "protobuf"):
        raise ValueError(f"codec is text, json or protobuf, not {codec!r:.80}")


def transports_of(transports: Any, allowed: Sequence[str], is_url: bool) -> list[Any]:
    """
    Return the transports that a client may use.

    :param transports: the argument of the program; ``None``: all for a URL, and a WebSocket alone for an endpoint.
    :param allowed: the names of all transports.
    :raises ValueError: if *transports* does not list some of *allowed*, each once.
    """
    if transports is None:
        return list(allowed if is_url else allowed[:1])
    found = list(transports) if isinstance(transports, Sequence) and not isinstance(transports, str) else []
    if not found or len(set(found)) < len(found) or not set(found) <= set(allowed):
        raise ValueError(f"transports lists some of {', '.join(allowed)}, not {transports!r:.80}")
    return found


def check_positions(store: object) -> None:
    """:raises TypeError: if *store* is neither ``None`` nor an object with the methods ``load`` and ``save``."""
    if store is None:
        return
    if isinstance(store, type) or not all(callable(getattr(store, name, None)) for name in ("load", "save")):
        raise TypeError(f"positions is an object with the methods load and save, such as FilePositions, not {store!r}")


def loaded(found: Any) -> Mapping[str, str]:
    """
    Check the result of ``load`` of a store of positions, and return it.

    :raises ValueError: if it is not a mapping of str to str.
    """
    if not isinstance(found, Mapping) or not all(isinstance(each, str) for pair in found.items() for each in pair):
        raise ValueError(f"load of the positions did not return a mapping of channels to positions: {found!r:.80}")
    return found
