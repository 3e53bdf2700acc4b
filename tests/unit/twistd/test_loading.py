"""Finding a user's processors and filters."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.task import Clock
from twisted.plugin import getPlugins
from twisted.python.usage import UsageError

from lhttp_tx import Authenticator, HeaderFilter, Hooks, Processor
from lhttp_tx.interfaces import IAuthenticator, IHeaderFilter, IHooks, IProcessor
from lhttp_tx.service import LHTTPService
from lhttp_tx.twistd.loading import load_object, load_plugins
from lhttp_tx.twistd.options import Options

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
    monkeypatch.setattr(sys, "path", list(sys.path))
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


@pytest.fixture
def plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory of plugins, the only one that there is."""
    import twisted.plugins

    directory = tmp_path / "twisted" / "plugins"
    directory.mkdir(parents=True)
    monkeypatch.setattr(twisted.plugins, "__path__", [str(directory)])
    yield directory
    for name in [name for name in sys.modules if name.startswith("twisted.plugins.of_test")]:
        del sys.modules[name]


EVERY = pytest.mark.parametrize("interface", [IProcessor, IHeaderFilter, IHooks, IAuthenticator])

UNUSABLE = {
    "import": ("import missing_module_of_test\n", "No module named 'missing_module_of_test'"),
    "syntax": ("def (:\n", "SyntaxError"),
    "failure": ("1 / 0\n", "ZeroDivisionError"),
    "exit": ("raise SystemExit\n", "SystemExit"),
}


@EVERY
@pytest.mark.parametrize("broken", UNUSABLE)
def test_a_plugin_that_cannot_be_imported_is_not_left_out(plugins: Path, interface: Any, broken: str) -> None:
    source, why = UNUSABLE[broken]
    (plugins / "of_test_broken.py").write_text(source)
    with pytest.raises(ValueError, match=why) as caught:
        load_plugins(interface)
    assert str(plugins / "of_test_broken.py") in str(caught.value)
    assert "--no-plugins" in str(caught.value)


def test_what_twisted_remembers_of_a_plugin_does_not_count(plugins: Path) -> None:
    source = "from lhttp_tx import Authenticator\n\n\nclass Own(Authenticator):\n    pass\n\n\nown = Own()\n"
    (plugins / "of_test_cached.py").write_text(source)
    assert len(list(getPlugins(IAuthenticator))) == 1  # writes Twisted's cache
    (plugins / "of_test_cached.py").write_text("import missing_module_of_test\n" + source)
    del sys.modules["twisted.plugins.of_test_cached"]
    importlib.invalidate_caches()
    with pytest.raises(ValueError, match="missing_module_of_test"):
        load_plugins(IAuthenticator)


@EVERY
def test_a_class_in_the_place_of_a_plugin_is_told(plugins: Path, interface: Any) -> None:
    base = interface.__name__[1:]
    (plugins / "of_test_class.py").write_text(f"from lhttp_tx import {base}\n\n\nclass Own({base}):\n    pass\n")
    with pytest.raises(ValueError, match=r"Own is a class, and there is no instance of it: write own = Own\(\)"):
        load_plugins(interface)
    (plugins / "of_test_class.py").unlink()
    (plugins / "of_test_alias.py").write_text(f"from lhttp_tx import {base}\n\nown = {base}\n")
    with pytest.raises(ValueError, match="own is a class"):
        load_plugins(interface)


def test_an_object_that_twisted_would_pass_over_is_told(plugins: Path) -> None:
    (plugins / "of_test_bare.py").write_text(
        "from zope.interface import implementer\nfrom lhttp_tx.interfaces import IAuthenticator\n\n\n"
        "@implementer(IAuthenticator)\nclass Own:\n    pass\n\n\nown = Own()\n"
    )
    with pytest.raises(ValueError, match=r"own does not provide .*IPlugin: subclass lhttp_tx"):
        load_plugins(IAuthenticator)


def test_classes_that_others_are_made_of_are_no_mistake(plugins: Path) -> None:
    (plugins / "of_test_base.py").write_text(
        "from lhttp_tx import Authenticator\n\n\nclass Base(Authenticator):\n    pass\n\n\n"
        "class Own(Base):\n    pass\n\n\nown = also = Own()\n"
    )
    assert len(list(load_plugins(IAuthenticator))) == 1


def test_a_directory_of_plugins_that_cannot_be_read_is_told(plugins: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(path: object) -> list[str]:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("lhttp_tx.twistd.loading.os.listdir", denied)
    with pytest.raises(ValueError, match=f"cannot look for plugins in {plugins}: Permission denied"):
        load_plugins(IAuthenticator)


def test_a_plugin_that_fails_stops_the_start(plugins: Path) -> None:
    (plugins / "of_test_broken.py").write_text("import missing_module_of_test\n")
    with pytest.raises(UsageError, match=r"of_test_broken\.py cannot be imported"):
        Options().parseOptions([])
    Options().parseOptions(["--no-plugins"])


# A file that an option names


def test_a_file_that_fails_shows_where(directory: Path) -> None:
    (directory / "failing.py").write_text("def go():\n    return 1 / 0\n\n\ngo()\n")
    with pytest.raises(ValueError, match=r"loading 'failing\.py' failed") as caught:
        load_object("failing.py:Name", IProcessor)
    told = str(caught.value).splitlines()
    assert told[1] == "Traceback (most recent call last):"
    assert told[2].endswith('failing.py", line 5, in <module>')
    assert told[-1] == "ZeroDivisionError: division by zero"
    assert "loading.py" not in str(caught.value)
    assert "importlib" not in str(caught.value)


def test_a_module_whose_own_import_fails_shows_where(directory: Path) -> None:
    (directory / "importing_by_loading.py").write_text("import missing_module_of_test\n")
    with pytest.raises(ValueError, match="No module named 'missing_module_of_test'") as caught:
        load_object("importing_by_loading:Name", IProcessor)
    assert 'importing_by_loading.py", line 1' in str(caught.value)
    assert "PYTHONPATH" not in str(caught.value)


def test_a_program_that_ends_the_process_is_told(directory: Path) -> None:
    (directory / "ending.py").write_text("import sys\nsys.exit()\n")
    with pytest.raises(ValueError, match="SystemExit"):
        load_object("ending.py:Name", IProcessor)


def test_a_file_imports_what_lies_beside_it(directory: Path) -> None:
    beside = directory / "beside"
    beside.mkdir()
    (beside / "helper_of_loading_test.py").write_text("command = 'helped'\n")
    (beside / "later_of_loading_test.py").write_text("value = 7\n")
    (beside / "own.py").write_text(
        "from lhttp_tx import Processor\nimport helper_of_loading_test\n\n\nclass Own(Processor):\n"
        "    command = helper_of_loading_test.command\n\n    def on_message(self, request):\n"
        "        import later_of_loading_test\n        return later_of_loading_test.value\n"
    )
    before = list(sys.path)
    found = load_object("beside/own.py:Own", IProcessor)
    assert found.command == "helped"
    assert found.on_message(None) == 7
    assert sys.path[: len(before)] == before  # it does not go before anything once it is loaded


@pytest.mark.parametrize(
    ("interface", "text"),
    [
        (IProcessor, r"is a plain function; decorate it with @lhttp_tx.processor\('the command'\)"),
        (IHeaderFilter, "is a plain function; subclass lhttp_tx.HeaderFilter"),
        (IHooks, "is a plain function; subclass lhttp_tx.Hooks"),
        (IAuthenticator, "is a plain function; subclass lhttp_tx.Authenticator"),
    ],
)
def test_a_plain_function_is_told(directory: Path, interface: Any, text: str) -> None:
    (directory / "plain.py").write_text("def answer(request):\n    request.reply()\n")
    with pytest.raises(ValueError, match=text):
        load_object("plain.py:answer", interface)


@EVERY
def test_a_class_that_wants_arguments_is_told(directory: Path, interface: Any) -> None:
    base = interface.__name__[1:]
    (directory / f"wanting_{base}.py").write_text(
        f"from lhttp_tx import {base}\n\n\nclass Own({base}):\n"
        "    def __init__(self, name):\n        self.name = name\n"
    )
    with pytest.raises(ValueError, match="calling the class without arguments failed; name an instance instead"):
        load_object(f"wanting_{base}.py:Own", interface)


KINDS = {"processors": Processor, "filters": HeaderFilter, "hooks": Hooks, "authenticators": Authenticator}


@pytest.mark.parametrize("kind", KINDS)
def test_an_embedder_who_gives_a_class_or_a_function_is_told(kind: str) -> None:
    name = KINDS[kind].__name__
    with pytest.raises(ValueError, match=rf"{name} is a class: pass an instance, {name}\(\)"):
        LHTTPService(reactor=Clock(), **{kind: [KINDS[kind]]})  # type: ignore[arg-type]

    def plain(request: object) -> None:
        """No object of any kind."""

    with pytest.raises(ValueError, match="plain is a plain function"):
        LHTTPService(reactor=Clock(), **{kind: [plain]})  # type: ignore[arg-type]
