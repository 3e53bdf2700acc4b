"""
Checks the attributes of users' objects: missing members, names of headers, time limits, and misspelled methods.

Every part that takes a user's object calls :func:`check_instance`. Without it, such a mistake would go unnoticed: a
filter with ``headers = ("token")`` would see no message at all, and let everybody pass. Imports only the interfaces.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection
from inspect import isroutine
from math import isfinite

from zope.interface.interface import InterfaceClass, Method

from lhttp_tx.interfaces import IHooks, IProcessor

__all__ = ["check_attributes", "check_instance"]

_HEADER = re.compile(r"[!-9;-@\[-~]+")
"""Matches the name of a header. The name has no upper-case letters."""

_OPTIONAL = frozenset(("trusted", "on_start", "on_stop", "is_immediate"))
"""Members of interfaces that an object need not have."""

_LIKE = 0.85
"""The lowest similarity, from 0 to 1, at which one name is probably a misspelling of the other."""


def check_instance(found: object, interface: InterfaceClass) -> None:
    """
    Check that *found* is an instance that has the attributes and methods of *interface*.

    :raises ValueError: if *found* is a class or a plain function, if it lacks an attribute or a method, or if an
        attribute is wrong (:func:`check_attributes`). The text says what to do.
    """
    if isinstance(found, type):
        raise ValueError(f"{found.__name__} is a class: pass an instance, {found.__name__}()")
    if isroutine(found):
        name = getattr(found, "__name__", repr(found))
        if interface is IProcessor:
            raise ValueError(f"{name} is a plain function: decorate it with @lhttp_tx.processor('the command')")
        raise ValueError(f"{name} is a plain function: pass an instance of lhttp_tx.{interface.__name__[1:]}")
    check_attributes(found, interface)
    _check_members(found, interface)


def check_attributes(found: object, interface: InterfaceClass) -> None:
    """
    Check an object's attributes, and look for methods whose names are misspellings of methods of *interface*.

    :raises ValueError: if an attribute or method would have no effect, or not the intended one. The text says what to
        do.
    """
    try:
        _check_timeout(getattr(found, "timeout", None))
        if not isinstance(getattr(found, "trusted", False), bool):
            raise ValueError(f"trusted is True or False, not {found.trusted!r}")  # type: ignore[attr-defined]
        if "headers" in interface:
            _check_headers(getattr(found, "headers", None))
        for name in ("challenges", "secret_parameters"):
            if name in interface:
                _check_texts(name, getattr(found, name, ()))
        _check_methods(type(found), interface)
    except ValueError as error:
        raise ValueError(f"{type(found).__name__}: {error}") from None


def _check_timeout(timeout: object) -> None:
    if timeout is None:
        return
    if not isinstance(timeout, int | float) or isinstance(timeout, bool) or not isfinite(timeout) or timeout <= 0:
        raise ValueError(f"timeout is a number of seconds above 0, or None, not {timeout!r}")


def _check_headers(headers: object) -> None:
    if headers is None:
        return
    _check_texts("headers", headers)
    for name in headers:  # type: ignore[attr-defined]
        if _HEADER.fullmatch(name) is None:
            raise ValueError(f"headers has {name!r}: write names of headers in lower case")


def _check_texts(name: str, texts: object) -> None:
    if isinstance(texts, str):
        raise ValueError(f"{name} is a tuple, not a str: write ({texts!r},)")
    if not isinstance(texts, Collection) or not all(isinstance(text, str) for text in texts):
        raise ValueError(f"{name} is a tuple of str, not {texts!r}")


def _check_members(found: object, interface: InterfaceClass) -> None:
    """:raises ValueError: if *found* lacks an attribute or a method that the server uses."""
    name = f"lhttp_tx.interfaces.{interface.__name__}"
    members = [(each, kind) for each, kind in interface.namesAndDescriptions(all=True) if each not in _OPTIONAL]
    methods = [each for each, kind in members if isinstance(kind, Method)]
    lacking = [each for each, kind in members if not isinstance(kind, Method) and not _has(found, each)]
    if interface is not IHooks:
        lacking += [f"{each}()" for each in methods if not callable(getattr(found, each, None))]
    elif not any(callable(getattr(found, each, None)) for each in methods):
        raise ValueError(f"{found!r} has none of the methods of {name}")
    if lacking:
        raise ValueError(f"{found!r} has no {', '.join(lacking)}: it must provide {name}")


def _has(found: object, name: str) -> bool:
    """Return whether an object has an attribute. A property of its class is not called."""
    return hasattr(type(found), name) or hasattr(found, name)


def _check_methods(kind: type, interface: InterfaceClass) -> None:
    called = {name for name, each in interface.namesAndDescriptions(all=True) if isinstance(each, Method)}
    for name in dir(kind):
        if name.startswith("_") or name in interface or not callable(getattr(kind, name)):
            continue
        for guess in difflib.get_close_matches(name, called, 1, _LIKE):
            if not _is_written(kind, guess):
                raise ValueError(f"nothing calls a method {name}; did you mean {guess}?")


def _is_written(kind: type, name: str) -> bool:
    """
    Return whether a user's class defines the method, rather than only this project's base class, which does nothing.
    """
    owner = next((each for each in kind.__mro__ if name in vars(each)), None)
    return owner is not None and not owner.__module__.startswith("lhttp_tx.")
