"""
How Sphinx builds the documentation.

Directives keep the reference true to the code: ``lhttp-options`` lists the options of ``twistd lhttp``,
``lhttp-settings`` and ``lhttp-rule-keys`` what the configuration file may hold, and ``lhttp-interface`` documents a
zope interface, which autodoc does not know.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from zope.interface.interface import Attribute, InterfaceClass, Method

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from lhttp_tx import __version__
from lhttp_tx.rules.model import Rule
from lhttp_tx.twistd.options import Options
from lhttp_tx.twistd.settings import declared, settings_of

project = "lhttp_tx"
author = "the lhttp_tx contributors"
copyright = author  # noqa: A001 - Sphinx wants this name
release = version = __version__

extensions = ["sphinx.ext.autodoc"]
html_theme = "alabaster"
html_theme_options = {"description": "LHTTP over WebSocket, on Twisted", "fixed_sidebar": True}
html_copy_source = False
html_show_sphinx = False
exclude_patterns = ["_build"]
highlight_language = "text"

autodoc_mock_imports = [name for name in ("google", "grpc", "prometheus_client") if find_spec(name) is None]
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_preserve_defaults = True

# A reference that leads nowhere is a warning, except to other projects and to fields that a class describes itself.
nitpicky = True
nitpick_ignore_regex = [
    ("py:.*", r"(_asyncio|abc|asyncio|autobahn|collections|contextlib|enum|io|nats|os|pathlib|re|socket|ssl)\..*"),
    ("py:.*", r"(google|grpc|prometheus_client|sqlite3|treq|twisted|urllib|zope)\..*"),
    ("py:.*", r"lhttp_tx(\.\w+)*\._\w+|_[A-Z]\w*"),
    # inside the house: neither public nor described
    (
        "py:.*",
        r"lhttp_tx\.(engine\.sequence\.TimeLimited|bus\.nats\.owner\.LinkOwner|hooks\.HookRunner|running\.(Running|Parts))",
    ),
    ("py:.*", r"lhttp_tx\.(twistd\.relay\.Watched|client\.subscription\.Source)"),
    ("py:.*", r"lhttp_tx\.web\.admin\.managed\.(Community|Kept)"),
    ("py:.*", r"lhttp_tx\.(web\.channel\.BoundedChannel|transports\.websocket\.(outbox\.Writer|throttle\.Throttled))"),
    ("py:.*", r"lhttp_tx\.transports\.(tcp\.owner\.Owned|http\.session\.SessionOwner)"),
    ("py:attr", ".*"),
    ("py:exc", "UsageError|CannotListenError|CancelledError"),
    ("py:class", r"list\[<InterfaceClass .*"),
    ("py:class", r"tuple\[str"),  # what Sphinx leaves of nested tuples
    ("py:func", r"lhttp_tx\.publish"),
    ("py:mod", "tomllib"),
    ("py:class", "Deferred|Receiver"),
    # in modules that can be loaded without OpenTelemetry
    ("py:class", "AbstractContextManager|Attributes|IReactorTime|Span|TracerProvider"),
]


class OptionsDirective(SphinxDirective):
    """Lists every option of ``twistd lhttp``, with its default, as the program itself knows them."""

    def run(self) -> list[nodes.Node]:
        lines = [".. list-table::", "   :header-rows: 1", "   :widths: 32 13 55", ""]
        for row in [("Option", "Default", "Meaning"), *sorted(_option_rows())]:
            lines += [
                f"   {'-' if number else '* -'} {cell}".replace("   -", "     -") for number, cell in enumerate(row)
            ]
        return _parse(self, lines)


def _option_rows() -> Iterator[tuple[str, str, str]]:
    for name, short, default, text, coerce in declared(Options, "optParameters", 5):
        text, _, told = text.partition(" [default: ")
        shown = told.rstrip("]") or (f"{default:g}" if isinstance(default, float) else str(default))
        bounds = getattr(coerce, "coerceDoc", "")
        yield _option(name, short, "VALUE"), f"``{shown}``", f"{text}. {bounds}".rstrip()
    for name, short, text in declared(Options, "optFlags", 3):
        yield _option(name, short, ""), "off", text
    for name, method in inspect.getmembers(Options, inspect.isfunction):
        if name.startswith("opt_") and name != "opt_help":
            value = "VALUE" if len(inspect.signature(method).parameters) == 2 else ""
            text = inspect.cleandoc(method.__doc__ or "").replace("\n", " ").rstrip(".")
            yield _option(name.removeprefix("opt_").replace("_", "-"), None, value), "" if value else "off", f"{text}."


def _option(name: str, short: str | None, value: str) -> str:
    long = f"--{name}={value}" if value else f"--{name}"
    return f"``-{short}``, ``{long}``" if short else f"``{long}``"


class SettingsDirective(SphinxDirective):
    """Lists every key of the configuration file that sets an option, as the program itself knows them."""

    def run(self) -> list[nodes.Node]:
        rows = []
        for setting in sorted(settings_of(Options).values(), key=lambda found: found.name):
            kind = {"flag": "true or false", "number": "number", "text": "string", "list": "strings"}[setting.kind]
            meaning, _, told = setting.meaning.partition(" [default: ")
            default = "" if setting.default is None else str(setting.default).removesuffix(".0")
            shown = told.rstrip("]") or {"flag": "false"}.get(setting.kind, default)
            meaning = meaning.rstrip(".").replace(" (repeatable)", "")
            default = f"``{shown}``" if shown else ""
            rows.append((f"``{setting.name}``", kind, default, f"{meaning}. {setting.bounds}".rstrip()))
        return _parse(self, _table(("Key", "Value", "Default", "Meaning"), (26, 13, 15, 46), rows))


class RuleKeysDirective(SphinxDirective):
    """Lists every key of a channel rule."""

    def run(self) -> list[nodes.Node]:
        meanings = dict(re.findall(r":ivar (\w+): (.*?)(?=\n:|\Z)", inspect.cleandoc(Rule.__doc__ or ""), re.DOTALL))
        rows = []
        for key, value in Rule.keys().items():
            default = getattr(Rule(), key)
            shown = {True: "true", False: "false"}[default] if isinstance(default, bool) else str(default or "")
            meaning = " ".join(meanings[key].split())
            default = f"``{shown}``" if shown and key != "match" else ""
            rows.append((f"``{key}``", value, default, meaning[0].upper() + meaning[1:]))
        return _parse(self, _table(("Key", "Value", "Default", "Meaning"), (15, 22, 14, 49), rows))


def _table(head: tuple[str, ...], widths: tuple[int, ...], rows: list[tuple[str, ...]]) -> list[str]:
    lines = [".. list-table::", "   :header-rows: 1", f"   :widths: {' '.join(map(str, widths))}", ""]
    for row in (head, *rows):
        lines += [f"   {'  -' if number else '* -'} {cell}" for number, cell in enumerate(row)]
    return lines


class InterfaceDirective(SphinxDirective):
    """Documents the zope interface that the argument names."""

    required_arguments = 1
    option_spec: ClassVar[dict[str, Any]] = {}

    def run(self) -> list[nodes.Node]:
        module, _, name = self.arguments[0].rpartition(".")
        interface: InterfaceClass = getattr(import_module(module), name)
        lines = [f".. py:class:: {name}", f"   :module: {module}", ""]
        lines += _indented(interface.__doc__ or "", 3)
        for member_name in interface:
            member: Attribute = interface[member_name]
            if isinstance(member, Method):
                lines += [f"   .. py:method:: {member_name}{member.getSignatureString()}", ""]
            else:
                lines += [f"   .. py:attribute:: {member_name}", ""]
            lines += _indented(member.__doc__ or "", 6)
        return _parse(self, lines)


def _indented(text: str, width: int) -> list[str]:
    return [" " * width + line if line else "" for line in inspect.cleandoc(text).split("\n")] + [""]


def _parse(directive: SphinxDirective, lines: list[str]) -> list[nodes.Node]:
    parent = nodes.container()
    directive.state.nested_parse(StringList(lines, source=directive.get_source_info()[0]), 0, parent)
    return parent.children


def _plain_defaults(*event: Any) -> tuple[str | None, str | None]:
    """Write the default of a field with a factory as an expression, so that Sphinx can read the signature."""
    signature, returned = event[-2:]
    return signature and signature.replace("<factory>", "..."), returned


def setup(app: Sphinx) -> None:
    """Make the directives known."""
    # Autodoc writes an interface in a signature or a type as it writes itself: by its name, as other types.
    InterfaceClass.__repr__ = lambda interface: f"{interface.__module__}.{interface.__name__}"
    app.connect("autodoc-process-signature", _plain_defaults)
    app.add_directive("lhttp-options", OptionsDirective)
    app.add_directive("lhttp-interface", InterfaceDirective)
    app.add_directive("lhttp-settings", SettingsDirective)
    app.add_directive("lhttp-rule-keys", RuleKeysDirective)
