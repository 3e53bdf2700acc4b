"""The JavaScript client in Node: its own tests, its npm package, and what the server serves of it."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest

import lhttp_tx
from integration._server import ServerProcess, http_request, script

ROOT = Path(__file__).resolve().parents[2]
STATIC = ROOT / "lhttp_tx" / "web" / "static"
TESTS = sorted((ROOT / "tests" / "javascript").glob("*.test.mjs"))
TIME_LIMIT = 120.0


def node_version() -> int:
    """Return the major version of Node, 0 without Node."""
    node = shutil.which("node")
    if node is None:
        return 0
    return int(subprocess.check_output([node, "--version"], text=True).strip().lstrip("v").split(".")[0])


VERSION = node_version()
needs_node = pytest.mark.skipif(VERSION < 20, reason="Node 20 or later is not installed")
needs_npm = pytest.mark.skipif(VERSION < 20 or shutil.which("npm") is None, reason="Node and npm are not installed")


def run(*command: str, cwd: Path) -> str:
    """Run a program and return what it prints; fail if it fails."""
    environment = {**os.environ, "LHTTP_TWISTD": script("twistd"), "NO_COLOR": "1"}
    with subprocess.Popen(
        command,
        cwd=cwd,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        start_new_session=True,
    ) as process:
        try:
            printed, _ = process.communicate(timeout=TIME_LIMIT)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # servers that a test which hangs has left
    assert process.returncode == 0, f"{' '.join(command)}\n{printed}"
    return printed


def node(*arguments: str, cwd: Path) -> str:
    """Run Node with a WebSocket: a global one is behind an option before version 22."""
    options = ["--experimental-websocket"] if VERSION < 22 else []
    return run("node", *options, "--no-warnings", *arguments, cwd=cwd)


@needs_node
@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.name)
def test_client_passes_its_own_tests(path: Path) -> None:
    printed = node("--test", "--test-reporter=tap", "--test-timeout=30000", str(path), cwd=ROOT)
    assert int(re.findall(r"^# pass (\d+)", printed, re.MULTILINE)[-1]) > 10


@needs_npm
def test_npm_package_installs_and_runs_in_an_empty_directory(server: ServerProcess, tmp_path: Path) -> None:
    packed = tmp_path / "packed"
    user = tmp_path / "user"
    packed.mkdir()
    user.mkdir()
    run("npm", "pack", "--silent", "--pack-destination", str(packed), str(STATIC), cwd=tmp_path)
    (archive,) = packed.iterdir()
    (user / "package.json").write_text('{"name": "user", "private": true}')
    run("npm", "install", "--offline", "--no-audit", "--no-fund", str(archive), cwd=user)
    installed = sorted(path.name for path in (user / "node_modules" / "lhttp-tx").iterdir())
    assert installed == ["README.md", "lhttp.d.ts", "lhttp.js", "lhttp.mjs", "package.json"]
    talk = """
        const client = new LhttpClient(process.argv[2]);
        client.connect().then(async () => {
          console.log((await client.request("echo", "hello")).text, lhttp.LhttpClient === LhttpClient);
          await client.close();
        });
    """
    (user / "esm.mjs").write_text(
        'import { createRequire } from "node:module"; import { LhttpClient } from "lhttp-tx";\n'
        'const lhttp = createRequire(import.meta.url)("lhttp-tx");' + talk
    )
    (user / "cjs.cjs").write_text('const lhttp = require("lhttp-tx"); const { LhttpClient } = lhttp;' + talk)
    for name in ("esm.mjs", "cjs.cjs"):
        assert node(name, f"ws://127.0.0.1:{server.port}/", cwd=user) == "hello true\n"


def test_npm_package_has_the_version_of_the_server() -> None:
    assert json.loads((STATIC / "package.json").read_bytes())["version"] == lhttp_tx.__version__
    for name in ("lhttp.js", "lhttp.mjs"):
        assert f'Symbol.for("lhttp-tx {lhttp_tx.__version__}")' in (STATIC / name).read_text("utf-8")


def test_module_script_and_declarations_name_the_same_things() -> None:
    script_text, module, declarations = (
        (STATIC / name).read_text("utf-8") for name in ("lhttp.js", "lhttp.mjs", "lhttp.d.ts")
    )
    exported = re.search(r"const exported = Object\.freeze\(\{([^}]*)\}", script_text)
    imported = re.search(r"export const \{([^}]*)\}", module)
    assert exported is not None
    assert imported is not None
    names = {name for name in re.split(r"[\s,]+", exported[1]) if name}
    assert names == {name for name in re.split(r"[\s,]+", imported[1]) if name}
    assert names == set(re.findall(r"^export (?:class|function|const) (\w+)", declarations, re.MULTILINE))


@pytest.mark.parametrize("name", ["lhttp.js", "lhttp.mjs"])
def test_server_serves_the_client(server: ServerProcess, name: str) -> None:
    status, headers, body = http_request(server.port, "GET", f"/{name}")
    assert (status, body) == (200, (STATIC / name).read_bytes())
    assert headers["content-type"] == "text/javascript; charset=utf-8"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "no-cache"
    assert headers["access-control-allow-origin"] == "*"
    assert "server" not in headers
    again, _, nothing = http_request(server.port, "GET", f"/{name}", headers={"If-None-Match": headers["etag"]})
    assert (again, nothing) == (304, b"")


def test_without_demo_there_is_no_page(server: ServerProcess) -> None:
    for path in ("/", "/chat.js", "/chat.css", "/lhttp.d.ts"):
        assert http_request(server.port, "GET", path)[0] == 426
