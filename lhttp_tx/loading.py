"""
Finding processors and filters by name and as Twisted plugins.

Used by the service and the options; the only place that imports a user's code.
"""

import importlib
import importlib.util
import sys
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

from twisted.plugin import getPlugins
from zope.interface.interface import InterfaceClass

__all__ = ["load_object", "load_plugins"]


def load_object(name: str, interface: InterfaceClass) -> Any:
    """
    Return the object *name* stands for.

    :param name: ``package.module:Name``, or ``path/to/file.py:Name``. Modules are also looked for in the current
        directory. *Name* is an object that provides *interface*, or a class of such objects that is called without
        arguments.
    :param interface: what it must provide.
    :raises ValueError: if there is no such object; the text says what to do.
    """
    module_name, colon, attribute = name.rpartition(":")
    if not (colon and module_name and attribute):
        raise ValueError(f"{name!r} is not of the form package.module:Name or path/to/file.py:Name")
    module = _load_file(module_name) if module_name.endswith(".py") else _load_module(module_name)
    try:
        found = getattr(module, attribute)
    except AttributeError:
        raise ValueError(f"{name!r}: {module_name} has no {attribute!r}") from None
    if isinstance(found, type) and interface.implementedBy(found):
        found = found()
    if not interface.providedBy(found):
        base = interface.__name__.removeprefix("I")
        raise ValueError(f"{name!r} is no {interface.__name__}; subclass lhttp_tx.{base}, or use an instance of one")
    return found


def load_plugins(interface: InterfaceClass) -> Iterable[Any]:
    """Return the Twisted plugins that provide *interface*."""
    return list(getPlugins(interface))  # type: ignore[arg-type]


def _load_module(name: str) -> ModuleType:
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise ValueError(f"cannot import {name!r}: {error}; run the server where it is, or set PYTHONPATH") from error
    except Exception as error:
        raise ValueError(f"importing {name!r} failed: {type(error).__name__}: {error}") from error
    finally:
        sys.path.remove(here)


def _load_file(path: str) -> ModuleType:
    name = str(Path(path).resolve())
    if name in sys.modules:  # two processors of one file share its module
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None or not Path(path).is_file():
        raise ValueError(f"there is no file {path!r}")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise ValueError(f"loading {path!r} failed: {type(error).__name__}: {error}") from error
    return module
