"""
The options for an application's own code in the server.

A part of :mod:`lhttp_tx.twistd.options`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from twisted.python import usage

from lhttp_tx.engine.processors import Registry
from lhttp_tx.interfaces import IBus, IHeaderFilter, IProcessor
from lhttp_tx.twistd.loading import load_object, load_plugins
from lhttp_tx.twistd.topics.topic import Topic, usage_errors

__all__ = ["PluginOptions"]


class PluginOptions(Topic):
    """
    ``--processor``, ``--filter``, ``--bus``, ``--reload`` and ``--no-plugins``.

    :ivar processors: the processors of ``--processor``. After the command line is parsed, also the installed plugins.
    :ivar named: the names in ``--processor``, each with its processor.
    :ivar filters: the filters of ``--filter``, and later also the installed plugins.
    :ivar bus: the bus of ``--bus``; ``None``: the built-in one, or NATS.
    """

    optParameters = [["bus", None, None, "Bus to load: package.module:Name or path/to/file.py:Name"]]

    bus: IBus | None = None

    optFlags = [
        ["reload", None, "Load the file of a processor again when it changes, for development."],
        ["no-plugins", None, "Do not load processors, filters, hooks and authenticators from plugins."],
    ]

    def __init__(self) -> None:
        super().__init__()
        self.processors: list[IProcessor] = []
        self.named: list[tuple[str, IProcessor]] = []
        self.filters: list[IHeaderFilter] = []

    def opt_processor(self, name: str) -> None:
        """Processor to load: package.module:Name or path/to/file.py:Name (repeatable)"""
        with usage_errors():
            self.processors.append(load_object(name, IProcessor))
        self.named.append((name, self.processors[-1]))

    def opt_filter(self, name: str) -> None:
        """Header filter to load: package.module:Name or path/to/file.py:Name (repeatable)"""
        with usage_errors():
            self.filters.append(load_object(name, IHeaderFilter))

    def check_reload(self) -> None:
        """:raises UsageError: if ``--reload`` has nothing to load again, or if there are several processes."""
        if self["reload"]:
            if not any(name.rpartition(":")[0].endswith(".py") for name, _ in self.named):
                raise usage.UsageError("--reload is for processors of a file: --processor path/to/file.py:Name")
            if self["workers"] > 1:
                raise usage.UsageError("--reload is for one process: leave out --workers")

    def load_bus(self, *, nats: bool) -> None:
        """
        Load the bus of ``--bus``.

        :param nats: whether the options also name a NATS server.
        :raises UsageError: if the bus cannot be loaded, or if there is a NATS server, too.
        """
        name = self["bus"]
        if name is None:
            return
        if nats:
            raise usage.UsageError("--bus takes the place of NATS: leave out --bus or --nats")
        if self["workers"] > 1:
            raise usage.UsageError("--workers share their channels through NATS, and --bus takes its place")
        with usage_errors():
            self.bus = load_object(name, IBus)

    def plugins(self, interface: Any) -> Iterable[Any]:
        """
        Return the installed plugins with *interface*; nothing if plugins are turned off.

        :raises UsageError: if a plugin is unusable.
        """
        if self["no-plugins"]:
            return ()
        with usage_errors():
            return load_plugins(interface)

    def register(self) -> Registry:
        """
        Return the processors by their commands.

        :raises UsageError: if two processors have the same command.
        """
        registry = Registry()
        for processor in self.processors:
            try:
                registry.add(processor)
            except ValueError as error:
                raise usage.UsageError(
                    f"{error}; leave one out (--no-plugins leaves out those that are installed)"
                ) from None
        return registry
