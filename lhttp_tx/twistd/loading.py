"""
Finds processors, filters, hooks and authenticators, by name and as Twisted plugins.

The options use it. It is the only module that imports users' code. If an object cannot be imported, it raises an error
and does not skip the object, which might be an authenticator.
"""

import importlib
import importlib.util
import inspect
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from pkgutil import iter_modules
from types import ModuleType
from typing import Any

from twisted.plugin import IPlugin
from zope.interface.interface import InterfaceClass

from lhttp_tx.engine.attributes import check_instance
from lhttp_tx.engine.processors import MethodProcessor

__all__ = ["load_object", "load_plugins"]

_PLUGINS = "twisted.plugins"


def load_object(name: str, interface: InterfaceClass) -> Any:
    """
    Return the object that *name* stands for.

    :param name: ``package.module:Name``, or ``path/to/file.py:Name``. Modules may also be in the current directory. A
        file may also import modules of its own directory. *Name* is an object that provides *interface*, or a class
        that makes such an object when called without arguments.
    :param interface: the interface that the object must provide.
    :raises ValueError: if there is no such object. The text says what to do, and where the user's code has failed.
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
        found = _run(found, f"{name!r}: calling the class without arguments failed; name an instance instead")
    if not interface.providedBy(found):
        raise ValueError(f"{name!r} {_refusal(found, interface)}")
    _check(found, interface, repr(name))
    return found


def load_plugins(interface: InterfaceClass) -> Iterable[Any]:
    """
    Return the Twisted plugins that provide *interface*.

    This imports every file in every ``twisted/plugins``. It does not use Twisted's cache, which does not show files
    that have become unusable.

    :raises ValueError: if a file cannot be imported, or contains an object that looks like a plugin but is not one. The
        text names the file.
    """
    found: dict[int, Any] = {}
    for name in _plugin_names():
        module = _import_plugin(name)
        for plugin in _plugins_in(module, interface):
            found[id(plugin)] = plugin
    return list(found.values())


def _plugin_names() -> list[str]:
    """Return the names of all modules of the package of plugins."""
    paths = list(dict.fromkeys(importlib.import_module(_PLUGINS).__path__))
    for path in paths:
        try:
            if Path(path).is_dir():
                os.listdir(path)  # noqa: PTH208 - it is done for its error, which iter_modules would pass over
        except OSError as error:
            raise ValueError(f"cannot look for plugins in {path}: {error.strerror}; {_without_plugins()}") from None
    return [found.name for found in iter_modules(paths)]


def _import_plugin(name: str) -> ModuleType:
    full = f"{_PLUGINS}.{name}"
    found = importlib.util.find_spec(full) if full not in sys.modules else sys.modules[full].__spec__
    path = found.origin if found is not None and found.origin else full
    failed = f"the plugin {path} cannot be imported: mend or remove it, or {_without_plugins()}"
    module: ModuleType = _run(lambda: importlib.import_module(full), failed)
    return module


def _without_plugins() -> str:
    return "start without any plugins (--no-plugins)"


def _plugins_in(module: ModuleType, interface: InterfaceClass) -> Iterator[Any]:
    """
    Return the plugins of a module.

    :raises ValueError: if the module contains an object that looks like a plugin but is not one.
    """
    kind = interface.__name__.removeprefix("I")
    for name, found in tuple(vars(module).items()):
        where = f"the plugin {module.__file__}: {name}"
        if isinstance(found, type):
            if interface.implementedBy(found) and _is_lonely(name, found, module):
                raise ValueError(f"{where} is a class, and there is no instance of it: write {name.lower()} = {name}()")
            continue
        plugin = IPlugin(found, None)
        if plugin is not None:
            adapted = interface(plugin, None)
            if adapted is not None:
                _check(adapted, interface, where)
                yield adapted
        elif interface.providedBy(found):
            raise ValueError(f"{where} does not provide twisted.plugin.IPlugin: subclass lhttp_tx.{kind}")


def _check(found: object, interface: InterfaceClass, where: str) -> None:
    try:
        check_instance(found, interface)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def _is_lonely(name: str, kind: type, module: ModuleType) -> bool:
    """
    Return whether a class was defined or named in *module*, and the module has neither instances nor subclasses of it.
    """
    if kind.__module__ != module.__name__ and kind.__name__ == name:
        return False  # it was imported
    others = [other for other in vars(module).values() if other is not kind]
    return not any(isinstance(other, kind) or (isinstance(other, type) and issubclass(other, kind)) for other in others)


def _refusal(found: object, interface: InterfaceClass) -> str:
    """Return the end of an error text about an object that does not provide *interface*: what it is, and what to do."""
    base = interface.__name__.removeprefix("I")
    if isinstance(found, MethodProcessor):
        return f"is a {found!r}: name one of an instance, as in open = Desk().open"
    if inspect.isroutine(found) and base == "Processor":
        return "is a plain function; decorate it with @lhttp_tx.processor('the command')"
    if base == "Bus":
        return f"is no {interface.__name__}; it must provide lhttp_tx.interfaces.IBus"
    what = "a plain function" if inspect.isroutine(found) else f"no {interface.__name__}"
    return f"is {what}; subclass lhttp_tx.{base}, or use an instance of one"


def _load_module(name: str) -> ModuleType:
    with _Path(Path.cwd()):
        try:
            missing = importlib.util.find_spec(name) is None
        except ModuleNotFoundError as error:  # the missing module may be a parent package, or a module imported by one
            missing = error.name is not None and (name + ".").startswith(error.name + ".")
        except Exception:
            missing = False
        if missing:
            advice = "run the server where it is, or set PYTHONPATH"
            raise ValueError(f"cannot import {name!r}: there is no such module; {advice}")
        module: ModuleType = _run(lambda: importlib.import_module(name), f"importing {name!r} failed")
        return module


def _load_file(path: str) -> ModuleType:
    name = str(Path(path).resolve())
    if name in sys.modules:  # two processors of one file share its module
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None or not Path(path).is_file():
        raise ValueError(f"there is no file {path!r}")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    loader = spec.loader
    try:
        with _Path(Path(name).parent):
            _run(lambda: loader.exec_module(module), f"loading {path!r} failed")
    except ValueError:
        del sys.modules[name]
        raise
    return module


class _Path:
    """
    Lets users' code import modules of a directory.

    While the users' file is loaded, the directory comes before all others, as for a script. Afterwards it comes last,
    for imports at run time.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = str(directory)

    def __enter__(self) -> None:
        sys.path.insert(0, self._directory)

    def __exit__(self, *_: object) -> None:
        sys.path.remove(self._directory)
        if self._directory not in sys.path:
            sys.path.append(self._directory)


def _run(call: Callable[[], Any], what: str) -> Any:
    """
    Return the result of *call*, which runs users' code.

    :param what: the first line of the error.
    :raises ValueError: if the code fails, or tries to end the process. The text has the traceback, which begins in the
        user's code.
    """
    try:
        return call()
    except (Exception, SystemExit) as error:
        raise ValueError(f"{what}\n{_traced(error)}") from error


def _traced(error: BaseException) -> str:
    """Return a traceback as text, without the frames of this module and of Python's imports."""
    told = traceback.TracebackException.from_exception(error)
    hidden = (__file__, importlib.__file__)
    frames = [found for found in told.stack if found.filename not in hidden and "<frozen" not in found.filename]
    lines = ["Traceback (most recent call last):\n", *traceback.format_list(frames)] if frames else []
    return "".join([*lines, *told.format_exception_only()]).rstrip()
