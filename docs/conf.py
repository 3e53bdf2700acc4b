"""
How Sphinx builds the documentation.

Two directives keep the reference true to the code: ``lhttp-options`` lists the options of ``twistd lhttp``, and
``lhttp-interface`` documents a zope interface, which autodoc does not know.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from zope.interface.interface import Attribute, InterfaceClass, Method

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from lhttp_tx import __version__
from lhttp_tx.options import Options

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

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_preserve_defaults = True

# A reference that leads nowhere is a warning, except to other projects and to fields that a class describes itself.
nitpicky = True
nitpick_ignore_regex = [
    ("py:.*", r"(collections|enum|twisted|zope|autobahn|treq)\..*"),
    ("py:.*", r"lhttp_tx(\.\w+)*\._\w+|lhttp_tx\.(sequence\.TimeLimited|outbox\.Writer)"),
    ("py:attr", ".*"),
    ("py:exc", "UsageError|CannotListenError"),
    ("py:func", r"lhttp_tx\.publish"),
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
    options = Options()
    for name, short, default, text, *coerce in options.optParameters:
        text, _, told = text.partition(" [default: ")
        shown = told.rstrip("]") or (f"{default:g}" if isinstance(default, float) else str(default))
        bounds = getattr(coerce[0], "coerceDoc", "") if coerce else ""
        yield _option(name, short, "VALUE"), f"``{shown}``", f"{text}. {bounds}".rstrip()
    for name, short, text in options.optFlags:
        yield _option(name, short, ""), "off", text
    for name, method in inspect.getmembers(Options, inspect.isfunction):
        if name.startswith("opt_") and name != "opt_help":
            value = "VALUE" if len(inspect.signature(method).parameters) == 2 else ""
            text = inspect.cleandoc(method.__doc__ or "").replace("\n", " ").rstrip(".")
            yield _option(name.removeprefix("opt_").replace("_", "-"), None, value), "" if value else "off", f"{text}."


def _option(name: str, short: str | None, value: str) -> str:
    long = f"--{name}={value}" if value else f"--{name}"
    return f"``-{short}``, ``{long}``" if short else f"``{long}``"


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


def _shorten(
    app: Sphinx, what: str, name: str, found: object, options: object, signature: str | None, returns: str | None
) -> tuple[str | None, str | None]:
    """Write zope interfaces in signatures as other types, by their names."""
    return tuple(text and re.sub(r"<InterfaceClass ([\w.]+)>", r"\1", text) for text in (signature, returns))


def setup(app: Sphinx) -> None:
    """Make the directives known."""
    app.connect("autodoc-process-signature", _shorten)
    app.add_directive("lhttp-options", OptionsDirective)
    app.add_directive("lhttp-interface", InterfaceDirective)
