"""The JavaScript client in Node: its own tests, its npm package, and what the server serves of it."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

import lhttp_tx
from integration._docs import free_port
from integration._server import ServerProcess, http_request, script

ROOT = Path(__file__).resolve().parents[2]
STATIC = ROOT / "lhttp_tx" / "web" / "static"
TESTS = sorted((ROOT / "tests" / "javascript").glob("*.test.mjs"))
TIME_LIMIT = 240.0


def node_version() -> int:
    """Return the major version of Node, 0 without Node."""
    node = shutil.which("node")
    if node is None:
        return 0
    return int(subprocess.check_output([node, "--version"], text=True).strip().lstrip("v").split(".")[0])


VERSION = node_version()
needs_node = pytest.mark.skipif(VERSION < 20, reason="Node 20 or later is not installed")
needs_tsc = pytest.mark.skipif(shutil.which("tsc") is None, reason="TypeScript is not installed")
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
    printed = node("--test", "--test-reporter=tap", "--test-timeout=200000", str(path), cwd=ROOT)
    assert int(re.findall(r"^# pass (\d+)", printed, re.MULTILINE)[-1]) > 10


@needs_node
@pytest.mark.parametrize("codec", ["json", "protobuf"])
def test_client_passes_its_own_tests_with_other_codecs(monkeypatch: pytest.MonkeyPatch, codec: str) -> None:
    monkeypatch.setenv("LHTTP_CODEC", codec)
    test_client_passes_its_own_tests(ROOT / "tests" / "javascript" / "client.test.mjs")


SUBPROTOCOLS = """
const [url, ...offer] = process.argv.slice(1);
const socket = new WebSocket(url, offer);
socket.onopen = () => { console.log(`open ${socket.protocol}`); socket.close(); };
socket.onerror = () => console.log("refused");
"""


@needs_node
@pytest.mark.parametrize(
    ("offer", "printed"),
    [([], "open "), (["chat"], "open chat"), (["chat", "lhttp"], "open lhttp"), (["chat", "other"], "refused")],
    ids=["none", "one", "known", "unknown"],
)
def test_a_websocket_that_offers_subprotocols_opens(
    server: ServerProcess, tmp_path: Path, offer: list[str], printed: str
) -> None:
    found = node("-e", SUBPROTOCOLS, "--", f"ws://127.0.0.1:{server.port}/", *offer, cwd=tmp_path)
    assert found.splitlines()[0] == printed


@pytest.fixture
def user(tmp_path: Path) -> Path:
    """A directory with the npm package installed, as it is packed."""
    packed = tmp_path / "packed"
    user = tmp_path / "user"
    packed.mkdir()
    user.mkdir()
    run("npm", "pack", "--silent", "--pack-destination", str(packed), str(STATIC), cwd=tmp_path)
    (archive,) = packed.iterdir()
    (user / "package.json").write_text('{"name": "user", "private": true}')
    run("npm", "install", "--offline", "--no-audit", "--no-fund", str(archive), cwd=user)
    return user


@needs_npm
def test_npm_package_installs_and_runs_in_an_empty_directory(server: ServerProcess, user: Path) -> None:
    installed = sorted(path.name for path in (user / "node_modules" / "lhttp-tx").iterdir())
    files = [
        "LICENSE",
        "README.md",
        "lhttp-http.js",
        "lhttp.d.mts",
        "lhttp.d.ts",
        "lhttp.js",
        "lhttp.mjs",
        "lhttp.proto",
        "package.json",
    ]
    assert installed == files
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


FORGETFUL = """
const client = new LhttpClient(process.argv[2], { reconnect: { initialDelay: 1, attempts: 1 } });
client.connect();
client.subscribe("room.a", (message) => console.log(message.text));
client.publish("room.a", "hello");
"""


@needs_npm
def test_program_that_waits_for_nothing_ends_in_good_order_where_no_server_is(user: Path) -> None:
    (user / "forgetful.mjs").write_text('import { LhttpClient } from "lhttp-tx";' + FORGETFUL)
    assert node("forgetful.mjs", f"ws://127.0.0.1:{free_port()}/", cwd=user) == "lhttp: no connection\n" * 2


@needs_npm
def test_program_that_waits_for_nothing_is_told_what_the_server_refuses(
    serve: Callable[..., ServerProcess], user: Path, tmp_path: Path
) -> None:
    (tmp_path / "rules.toml").write_text('[[channel]]\nmatch = "room.*"\nsubscribe = "nobody"\npublish = "nobody"\n')
    server = serve("--config", str(tmp_path / "rules.toml"))
    program = FORGETFUL + 'client.request("echo").catch(() => client.close());'
    (user / "forgetful.mjs").write_text('import { LhttpClient } from "lhttp-tx";' + program)
    printed = node("forgetful.mjs", f"ws://127.0.0.1:{server.port}/", cwd=user)
    assert [line.startswith("lhttp: ") for line in printed.splitlines()] == [True, True]


TYPED = {
    "module.mts": """
        import { LhttpClient, NoReply, type LhttpMessage, type Subscription } from "lhttp-tx";
        import { parse } from "lhttp-tx/lhttp.mjs";
        const client: LhttpClient = new LhttpClient("ws://127.0.0.1/");
        const one: Promise<Subscription> = client.subscribe("a.*", (message: LhttpMessage, channel: string) => {});
        const other: Promise<LhttpMessage> = client.upload("upload", [{ body: parse("x").text }], { reply: "done" });
        const kind: typeof NoReply = NoReply;
        const kept = new LhttpClient("ws://127.0.0.1/", { positions: localStorage, resend: { time: 1000 } });
        kept.on("missed", ({ channel, position }: { channel: string; position: string | null }) => {});
        kept.on("recovered", ({ count }) => count + 1);
        const last: Promise<Subscription> = kept.subscribe("a", { last: 20, onMissed: ({ channel }) => channel });
        const since: Promise<Subscription> = kept.subscribe(["a", "b"], null, { since: { a: "E-1" } });
        kept.publish("a", "x", { id: "1" }).then(({ positions, duplicate }) => [positions["a"].length, !duplicate]);
        // @ts-expect-error: without a receipt there is null
        kept.publish("a", "x", { receipt: false }).then(({ positions }) => positions);
        kept.history("a", { limit: 5, order: "newest" }).then(({ messages, next }) => next && kept.history("a", next));
        // @ts-expect-error: there is no such order
        kept.history("a", { order: "other" });
        // @ts-expect-error: the module has no default export
        import whole from "lhttp-tx";
        // @ts-expect-error: there is no such thing
        import { Nothing } from "lhttp-tx";
    """,
    "script.cts": """
        import lhttp = require("lhttp-tx");
        const client: lhttp.LhttpClient = new lhttp.LhttpClient("ws://127.0.0.1/");
        // @ts-expect-error: there is no such thing
        lhttp.nothing;
    """,
}


@needs_npm
@needs_tsc
def test_declarations_fit_the_module_and_the_script(user: Path) -> None:
    for name, text in TYPED.items():
        (user / name).write_text(text)
    options = ("--noEmit", "--strict", "--target", "es2022", "--lib", "es2022,dom", "--skipLibCheck", "false")
    run("tsc", *options, "--module", "nodenext", "--moduleResolution", "nodenext", *TYPED, cwd=user)
    shutil.copy(user / "module.mts", user / "bundled.ts")
    run("tsc", *options, "--module", "esnext", "--moduleResolution", "bundler", "bundled.ts", cwd=user)


def test_npm_package_names_types_of_the_kind_that_each_way_loads() -> None:
    package = json.loads((STATIC / "package.json").read_bytes())
    for name, way in (("import", "lhttp.mjs"), ("require", "lhttp.js")):
        types = {"lhttp.mjs": "lhttp.d.mts", "lhttp.js": "lhttp.d.ts"}[way]
        assert package["exports"]["."][name] == {"types": f"./{types}", "default": f"./{way}"}
        assert package["exports"][f"./{way}"] == {"types": f"./{types}", "default": f"./{way}"}
        assert {types, way} <= set(package["files"])
    assert package["sideEffects"] == ["./lhttp.js", "./lhttp-http.js"]  # others take what these have set


def test_npm_package_has_the_licence_of_the_project() -> None:
    assert json.loads((STATIC / "package.json").read_bytes())["license"] == "MIT"
    assert (STATIC / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()


def test_npm_package_has_the_version_of_the_server() -> None:
    assert json.loads((STATIC / "package.json").read_bytes())["version"] == lhttp_tx.__version__
    versions = (STATIC / "lhttp.js", STATIC / "lhttp-http.js")
    assert all(f"lhttp-tx HttpSocket {lhttp_tx.__version__}" in path.read_text("utf-8") for path in versions)
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


@pytest.mark.parametrize("name", ["lhttp.js", "lhttp.mjs", "lhttp-http.js"])
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
