"""
What `tox -e package` does with a built wheel: look into it, install it into an empty environment, and run it there.

    python tests/packaging/check.py DIRECTORY

DIRECTORY holds one wheel and one sdist.
"""

from __future__ import annotations

import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

PLUGIN = "twisted/plugins/lhttp_plugin.py"

SERVED = ("lhttp.js", "lhttp.mjs", "lhttp-http.js", "demo/index.html", "demo/chat.css", "demo/chat.js")
"""What the server hands to browsers, below ``lhttp_tx/web/static``."""

SUBCOMMANDS = ("publish", "subscribe", "chat", "upload", "bench")

READ_SERVED = """
from importlib.resources import files
from sys import argv
static = files("lhttp_tx.web").joinpath("static")
print(sum(len(static.joinpath(name).read_bytes()) > 0 for name in argv[1:]))
"""


def expected_files() -> set[str]:
    """Return the files of the source tree that an installation consists of."""
    found = (ROOT / "lhttp_tx").rglob("*")
    files = {path.relative_to(ROOT).as_posix() for path in found if path.is_file() and path.suffix != ".pyc"}
    return {*files, PLUGIN}


def check_wheel(path: Path) -> None:
    """Fail unless the wheel holds the package and the plugin, and nothing else but its metadata."""
    with zipfile.ZipFile(path) as wheel:
        names = set(wheel.namelist())
    metadata = {name for name in names if name.split("/")[0].endswith(".dist-info")}
    served = {f"lhttp_tx/web/static/{name}" for name in SERVED}
    missing, foreign = (expected_files() | served) - names, names - metadata - expected_files()
    if missing or foreign:
        sys.exit(f"{path.name}: missing {sorted(missing)}, foreign {sorted(foreign)}")
    if not any(name.endswith("/LICENSE") for name in metadata):
        sys.exit(f"{path.name}: no LICENSE")
    print(f"{path.name}: {len(names)} files, as they should be")


def check_sdist(path: Path) -> None:
    """Fail unless the sdist holds what the wheel is built from, and the texts of the project."""
    with tarfile.open(path) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    missing = {*expected_files(), "LICENSE", "README.md", "CHANGELOG.rst", "setup.cfg", "pyproject.toml"} - names
    if missing:
        sys.exit(f"{path.name}: missing {sorted(missing)}")
    print(f"{path.name}: {len(names)} files")


def check_installed(wheel: Path) -> None:
    """Fail unless the installed wheel works: the plugin in both of Twisted's commands, what is served, ``lhttp``."""
    with tempfile.TemporaryDirectory() as name:
        environment = Path(name) / "environment"
        venv.create(environment, with_pip=True)
        run(environment, "python", "-m", "pip", "install", "--quiet", str(wheel))
        run(environment, "python", "-m", "pip", "check")
        version = run(environment, "python", "-c", "import lhttp_tx; print(lhttp_tx.__version__, lhttp_tx.__file__)")
        if str(environment) not in version:
            sys.exit(f"not the installed package was imported: {version}")
        for command in ("twistd", "twist"):
            text = run(environment, command, "lhttp", "--help")
            for option in ("--port", "--listen", "--processor", "--publish-token-file"):
                if option not in text:
                    sys.exit(f"{command} lhttp --help does not name {option}:\n{text}")
            print(f"{command} lhttp --help: {len(text.splitlines())} lines")
        if run(environment, "python", "-c", READ_SERVED, *SERVED) != f"{len(SERVED)}\n":
            sys.exit("a file that browsers get is empty")
        check_command(environment, wheel)


def check_command(environment: Path, wheel: Path) -> None:
    """
    Fail unless ``lhttp`` checks a configuration and says what else to install while its extra is missing, and shows its
    help afterwards.
    """
    if "valid, with" not in run(environment, "lhttp", "check-config"):
        sys.exit("lhttp check-config does not do without the extra")
    told = run(environment, "lhttp", "--help", status=1)
    if "pip install 'click" not in told or len(told.splitlines()) != 1:
        sys.exit(f"lhttp --help without its extra does not say what to install:\n{told}")
    print(told.rstrip())
    run(environment, "python", "-m", "pip", "install", "--quiet", f"lhttp_tx[cli] @ {wheel.as_uri()}")
    text = run(environment, "lhttp", "--help")
    for subcommand in SUBCOMMANDS:
        if f"  {subcommand} " not in text:
            sys.exit(f"lhttp --help does not name {subcommand}:\n{text}")
        run(environment, "lhttp", subcommand, "--help")
    print(f"lhttp --help: {len(text.splitlines())} lines")


def run(environment: Path, command: str, *arguments: str, status: int = 0) -> str:
    """
    Run a program of *environment* in an empty directory.

    :param status: the exit status that it must have.
    :returns: what it prints; what it says of errors if *status* is not 0.
    """
    with tempfile.TemporaryDirectory() as directory:
        result = subprocess.run(
            [environment / "bin" / command, *arguments], cwd=directory, capture_output=True, text=True, check=False
        )
    if result.returncode != status or "Traceback" in result.stderr:
        sys.exit(f"{command} {' '.join(arguments)} exits with {result.returncode}:\n{result.stdout}{result.stderr}")
    return result.stderr if status else result.stdout


def only(directory: Path, pattern: str) -> Path:
    """Return the one file of *directory* that matches."""
    found = list(directory.glob(pattern))
    if len(found) != 1:
        sys.exit(f"{directory} holds {len(found)} files {pattern}; one was expected")
    return found[0].resolve()


if __name__ == "__main__":
    built = Path(sys.argv[1])
    check_sdist(only(built, "*.tar.gz"))
    check_wheel(only(built, "*.whl"))
    check_installed(only(built, "*.whl"))
