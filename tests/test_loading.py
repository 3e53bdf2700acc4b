"""Finding a user's processors and filters."""

from pathlib import Path

import pytest

from lhttp_tx import Processor
from lhttp_tx.interfaces import IHeaderFilter, IProcessor
from lhttp_tx.loading import load_object, load_plugins

SOURCE = """
from lhttp_tx import HeaderFilter, Processor, processor

class Class(Processor):
    command = "class"

instance = Class()

@processor("function")
def function(request):
    request.reply()

class Filter(HeaderFilter):
    pass

number = 7
"""


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "found_by_loading.py").write_text(SOURCE)
    (tmp_path / "broken_by_loading.py").write_text("1 / 0")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", ["Class", "instance", "function"])
def test_processors_are_found_in_modules_of_the_current_directory(directory: Path, name: str) -> None:
    assert IProcessor.providedBy(load_object(f"found_by_loading:{name}", IProcessor))


def test_processors_are_found_in_files(directory: Path) -> None:
    found = load_object(f"{directory / 'found_by_loading.py'}:Class", IProcessor)
    assert found.command == "class"


def test_a_class_is_called(directory: Path) -> None:
    assert not isinstance(load_object("found_by_loading:Class", IProcessor), type)


def test_filters_are_found(directory: Path) -> None:
    assert IHeaderFilter.providedBy(load_object("found_by_loading:Filter", IHeaderFilter))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("found_by_loading", "package.module:Name"),
        (":Name", "package.module:Name"),
        ("found_by_loading:", "package.module:Name"),
        ("found_by_loading:nothing", "has no 'nothing'"),
        ("no_such_module_at_all:Name", "set PYTHONPATH"),
        ("broken_by_loading:Name", "ZeroDivisionError"),
        ("missing.py:Name", "no file"),
        ("broken_by_loading.py:Name", "ZeroDivisionError"),
        ("found_by_loading:number", "is no IProcessor"),
        ("found_by_loading:Filter", "is no IProcessor"),
    ],
)
def test_what_cannot_be_loaded_is_explained(directory: Path, name: str, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        load_object(name, IProcessor)


def test_plugins_are_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import twisted.plugins

    (tmp_path / "loading_test_plugin.py").write_text(SOURCE)
    monkeypatch.setattr(twisted.plugins, "__path__", [str(tmp_path)])
    commands = sorted(found.command for found in load_plugins(IProcessor))
    assert commands == ["class", "function"]
    assert all(isinstance(found, Processor) for found in load_plugins(IProcessor))
