"""What users write passes the type checkers that they use, without a plugin for zope.interface."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SAMPLES = [Path(__file__).parent / "typing" / name for name in ("sample_client.py", "sample_plugin.py")]
CLIENT = Path(__file__).parent / "typing" / "client.mts"
STATIC = Path(__file__).parents[1] / "lhttp_tx" / "web" / "static"
TIME_LIMIT = 600


def run(directory: Path, *command: str) -> str:
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=TIME_LIMIT, check=False)
    return done.stdout + done.stderr


def test_mypy_has_nothing_to_say(tmp_path: Path) -> None:
    pytest.importorskip("mypy", reason="mypy is not installed: pip install -e '.[lint]'")
    (tmp_path / "mypy.ini").write_text("[mypy]\nstrict = true\n")
    told = run(tmp_path, sys.executable, "-m", "mypy", *map(str, SAMPLES))
    assert told == "Success: no issues found in 2 source files\n"


def test_pyright_has_nothing_to_say(tmp_path: Path) -> None:
    pyright = shutil.which("pyright")
    if pyright is None:
        pytest.skip("pyright is not installed: npm install --global pyright")
    for sample in SAMPLES:
        shutil.copy(sample, tmp_path)
    settings = {
        "include": [sample.name for sample in SAMPLES],
        "typeCheckingMode": "standard",
        "reportUnnecessaryTypeIgnoreComment": True,
        "enableTypeIgnoreComments": False,
    }
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(settings))
    told = json.loads(run(tmp_path, pyright, "--outputjson", "--pythonpath", sys.executable))
    assert [f"{each['range']['start']['line'] + 1}: {each['message']}" for each in told["generalDiagnostics"]] == []
    assert told["summary"]["filesAnalyzed"] == 2


def test_the_types_of_the_javascript_client_are_exact(tmp_path: Path) -> None:
    tsc = shutil.which("tsc")
    if tsc is None:
        pytest.skip("TypeScript is not installed: npm install --global typescript")
    package = tmp_path / "node_modules" / "lhttp-tx"
    package.mkdir(parents=True)
    for name in ("lhttp.d.ts", "lhttp.d.mts", "lhttp.mjs", "package.json"):
        shutil.copy(STATIC / name, package)
    shutil.copy(CLIENT, tmp_path)
    options = ("--noEmit", "--strict", "--target", "es2022", "--lib", "es2022,dom", "--skipLibCheck", "false")
    modules = ("--module", "nodenext", "--moduleResolution", "nodenext")
    assert run(tmp_path, tsc, *options, *modules, CLIENT.name) == ""
