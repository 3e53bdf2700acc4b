"""
The structure of the package in numbers: rooms, arrows, floors and circles, long files and large classes.

A *room* is what stands directly in a folder: a module or a subfolder. An *arrow* goes from a room to one whose code it
imports, at once or when it is called; imports for type annotations alone do not count. The *floors* of a folder are the
rooms on the longest way along its arrows. A *circle* is a group of rooms that import each other, directly or round
about. Run it as ``python tests/house.py``, with ``-v`` for the arrows and the floors; ``tests/test_house.py`` holds the
numbers to their bounds.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

__all__ = ["Folder", "folders", "large_classes", "long_files", "modules"]

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "lhttp_tx"


@dataclass(frozen=True)
class Folder:
    """
    One folder of the package.

    :ivar name: its dotted name.
    :ivar rooms: the modules and subfolders that stand in it.
    :ivar arrows: which room imports which other one.
    """

    name: str
    rooms: frozenset[str]
    arrows: frozenset[tuple[str, str]]

    @property
    def circles(self) -> list[list[str]]:
        """The groups of rooms that import each other."""
        below = {room: self._below(room) for room in self.rooms}
        groups = {frozenset(other for other in below[room] if room in below[other]) for room in self.rooms}
        return sorted(sorted(group) for group in groups if group)

    @property
    def plan(self) -> list[list[str]]:
        """The rooms on each floor, the uppermost first; each is as low as the rooms below it allow."""

        @cache
        def height(room: str) -> int:
            return 1 + max((height(to) for start, to in self.arrows if start == room), default=0)

        if self.circles:
            raise ValueError(f"{self.name} has circles: {self.circles}")
        floors = max(map(height, self.rooms), default=0)
        return [sorted(room for room in self.rooms if height(room) == floor) for floor in range(floors, 0, -1)]

    @property
    def floors(self) -> int:
        """How many floors the folder has."""
        return len(self.plan)

    def _below(self, room: str) -> set[str]:
        found: set[str] = set()
        waiting = [room]
        while waiting:
            here = waiting.pop()
            new = {to for start, to in self.arrows if start == here} - found
            found |= new
            waiting += new
        return found


@cache
def modules() -> dict[str, Path]:
    """Return the modules of the package by their dotted names; a folder has the name of its ``__init__``."""
    found = {}
    for path in sorted((ROOT / PACKAGE).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def _imports(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """Yield the modules and names that are imported, less those for annotations alone."""
    if isinstance(tree, ast.If) and "TYPE_CHECKING" in ast.unparse(tree.test):
        for child in tree.orelse:
            yield from _imports(child)
        return
    if isinstance(tree, ast.Import):
        yield from ((alias.name, "") for alias in tree.names)
    elif isinstance(tree, ast.ImportFrom) and tree.module is not None:
        yield from ((tree.module, alias.name) for alias in tree.names)
    for child in ast.iter_child_nodes(tree):
        yield from _imports(child)


@cache
def arrows() -> frozenset[tuple[str, str]]:
    """Return which module imports which other module of the package."""
    known = modules()
    found = set()
    for name, path in known.items():
        for module, attribute in _imports(ast.parse(path.read_text(encoding="utf-8"))):
            whole = f"{module}.{attribute}"
            target = whole if whole in known else module
            if target in known and target != name:
                found.add((name, target))
    return frozenset(found)


def folders() -> list[Folder]:
    """Return every folder of the package, the uppermost first."""
    found = []
    for name, path in modules().items():
        if path.name == "__init__.py":
            depth = name.count(".") + 2
            rooms = {
                module: ".".join(module.split(".")[:depth])
                for module in modules()
                if f"{module}.".startswith(f"{name}.") and module != name
            }
            pairs = {(rooms.get(start, ""), rooms.get(to, "")) for start, to in arrows()}
            inner = frozenset((start, to) for start, to in pairs if start and to and start != to)
            found.append(Folder(name, frozenset(rooms.values()), inner))
    return found


def long_files(lines: int = 400) -> dict[str, int]:
    """Return the modules with more than *lines* lines, and how many they have."""
    sizes = {name: path.read_text(encoding="utf-8").count("\n") for name, path in modules().items()}
    return {name: size for name, size in sizes.items() if size > lines}


def large_classes(methods: int = 25) -> dict[str, int]:
    """Return the classes with more than *methods* methods of their own, and how many they have."""
    found = {}
    for name, path in modules().items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                names = {child.name for child in node.body if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)}
                if len(names) > methods:
                    found[f"{name}.{node.name}"] = len(names)
    return found


def main() -> None:
    """Print the numbers."""
    write = sys.stdout.write
    write(f"{'folder':<28} rooms  arrows  floors  circles\n")
    for folder in folders():
        circles = folder.circles
        floors = "-" if circles else str(folder.floors)
        write(f"{folder.name:<28} {len(folder.rooms):5} {len(folder.arrows):7} {floors:>7} {len(circles):8}\n")
        for circle in circles:
            write(f"    circle: {' '.join(circle)}\n")
        if "-v" in sys.argv:
            for start, to in sorted(folder.arrows):
                write(f"    {start} -> {to}\n")
            for floor in () if circles else folder.plan:
                write(f"    floor: {' | '.join(room.rpartition('.')[2] for room in floor)}\n")
    for what, found in (("file over 400 lines", long_files()), ("class over 25 methods", large_classes())):
        for name, size in found.items():
            write(f"{what}: {name} ({size})\n")


if __name__ == "__main__":
    main()
