"""The command line, as an operator meets it."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from websockets.exceptions import InvalidStatus

from integration._server import (
    PROCESSORS,
    TIME_LIMIT,
    RawClient,
    ServerProcess,
    http_request,
    message,
    open_client,
    processor_arguments,
    script,
    wait_until,
)

OPTIONS = (
    *("port", "listen", "processor", "filter", "no-plugins", "allow-origin", "server-name", "publish-token-file"),
    *("max-message-size", "max-head-size", "max-headers", "max-connections", "max-subscriptions", "max-queue"),
    *("max-unsent", "processor-timeout", "ping-interval", "ping-timeout", "handshake-timeout", "close-timeout"),
    *("drain-timeout", "upstream-allow", "upstream-timeout", "upstream-max-response", "upstream-max-in-flight"),
    *("upstream-public-only", "version", "help"),
)


def run(*arguments: str, cwd: Path, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command that ends by itself; return its status and all that it wrote."""
    name, *rest = arguments
    inherited = {key: value for key, value in os.environ.items() if key != "LHTTP_PUBLISH_TOKEN"}
    return subprocess.run(
        [script(name), *rest],
        cwd=cwd,
        env=inherited | {"COLUMNS": "200"} | (environment or {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        timeout=TIME_LIMIT,
        check=False,
    )


@pytest.mark.parametrize("command", ["twistd", "twist"])
def test_help_lists_every_option_with_its_meaning(command: str, tmp_path: Path) -> None:
    done = run(command, "lhttp", "--help", cwd=tmp_path)
    assert done.returncode == 0
    for option in OPTIONS:
        assert re.search(rf"--{option}\b=?\s+\S", done.stdout), option
    assert "[default: 65536]" in done.stdout
    assert "ws://HOST:8081/" in done.stdout


@pytest.mark.parametrize("command", ["twistd", "twist"])
def test_plugin_is_listed(command: str, tmp_path: Path) -> None:
    told = run(command, "--help", cwd=tmp_path).stdout
    assert re.search(r"^\s+lhttp\s+A publish/subscribe server", told, re.MULTILINE)


def test_version_is_told(tmp_path: Path) -> None:
    done = run("twistd", "lhttp", "--version", cwd=tmp_path)
    assert done.returncode == 0
    assert re.match(r"lhttp_tx \d+\.\d+", done.stdout)


MISTAKES = {
    "port is no number": (["--port", "eighty"], "write a number, or an endpoint such as tcp:8081"),
    "port is too large": (["--port", "65536"], "a port is a number from 0 to 65535"),
    "port is an unknown endpoint": (["--port", "carrier-pigeon:1"], "carrier-pigeon"),
    "listen is an unknown endpoint": (["--listen", "carrier-pigeon:1"], "carrier-pigeon"),
    "token file is missing": (["--publish-token-file", "no-such-file"], "No such file or directory: 'no-such-file'"),
    "token is short": (["--publish-token-file", "short"], "shorter than 16 bytes; make a longer one"),
    "processor has no name": (["--processor", "echo"], "not of the form package.module:Name or path/to/file.py:Name"),
    "processor module is missing": (["--processor", "no.such:Name"], "cannot import 'no.such'"),
    "processor file is missing": (["--processor", "no_such.py:Name"], "there is no file 'no_such.py'"),
    "processor is missing": (["--processor", f"{PROCESSORS}:nobody"], "has no 'nobody'"),
    "processor is none": (["--processor", f"{PROCESSORS}:log"], "decorate it with @lhttp_tx.processor("),
    "filter is none": (["--filter", f"{PROCESSORS}:echo"], "subclass lhttp_tx.HeaderFilter"),
    "processor file is broken": (["--processor", "broken.py:Name"], "SyntaxError"),
    "two processors": (
        [*processor_arguments("echo"), *processor_arguments("echo")],
        "command 'echo' has a processor already",
    ),
    "upstream is no URL": (["--upstream-allow", "backend.example"], "is not a plain http or https URL"),
    "upstream has a query": (["--upstream-allow", "http://backend.example/?a"], "list the path alone"),
    "upstream has dots": (["--upstream-allow", "http://backend.example/../"], "dot segment"),
    "origin has no scheme": (["--allow-origin", "app.example"], "such as https://app.example"),
    "server name is a URL": (["--server-name", "https://app.example"], "write a host name, such as chat.example"),
    "size is no number": (["--max-message-size", "64k"], "'64k' is not a number"),
    "size is zero": (["--max-message-size", "0"], "is not from 1 to"),
    "time is negative": (["--processor-timeout", "-1"], "is not from 0.1 to"),
    "time is not a number": (["--ping-interval", "nan"], "nan"),
    "head is larger than a message": (["--max-head-size", "70000"], "lower it, or raise the other"),
    "option is unknown": (["--colour", "red"], "option --colour not recognized"),
    "argument is left over": (["8081"], "8081"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistake_on_the_command_line_says_what_to_do(mistake: str, tmp_path: Path) -> None:
    arguments, advice = MISTAKES[mistake]
    (tmp_path / "short").write_text("secret\n", encoding="utf-8")
    (tmp_path / "broken.py").write_text("def (:\n", encoding="utf-8")
    done = run("twistd", "-n", "--pidfile=", "lhttp", *arguments, cwd=tmp_path)
    assert done.returncode == 1
    assert advice in done.stdout
    assert "Traceback" not in done.stdout


def test_short_token_in_the_environment_is_refused(tmp_path: Path) -> None:
    done = run("twistd", "-n", "--pidfile=", "lhttp", cwd=tmp_path, environment={"LHTTP_PUBLISH_TOKEN": "short"})
    assert done.returncode == 1
    assert "the token in $LHTTP_PUBLISH_TOKEN is shorter than 16 bytes; make a longer one" in done.stdout
    assert "Traceback" not in done.stdout


def test_processor_and_plugin_with_the_same_command_say_what_to_do(tmp_path: Path) -> None:
    plugins = tmp_path / "twisted" / "plugins"
    plugins.mkdir(parents=True)
    (plugins / "my_lhttp_plugin.py").write_text(
        "from lhttp_tx import processor\n\n\n@processor('echo')\ndef plugged(request):\n    request.reply('plugged')\n",
        encoding="utf-8",
    )
    done = run(
        *("twistd", "-n", "--pidfile=", "lhttp", "--port", "tcp:0:interface=127.0.0.1", *processor_arguments("echo")),
        cwd=tmp_path,
        environment={"PYTHONPATH": str(tmp_path)},
    )
    assert done.returncode == 1
    assert "command 'echo' has a processor already" in done.stdout
    assert "leave one out (--no-plugins" in done.stdout
    assert "Traceback" not in done.stdout


def test_an_authenticator_that_cannot_be_imported_opens_no_door(
    serve: Callable[..., ServerProcess], tmp_path: Path
) -> None:
    plugins = tmp_path / "twisted" / "plugins"
    plugins.mkdir(parents=True)
    (plugins / "my_lhttp_plugin.py").write_text(
        "import missing_module\n\nfrom lhttp_tx import Authenticator\n\n\n"
        "class Own(Authenticator):\n    pass\n\n\nown = Own()\n",
        encoding="utf-8",
    )
    environment = {"PYTHONPATH": str(tmp_path)}
    command = ("twistd", "-n", "--pidfile=", "lhttp", "--port", "tcp:0:interface=127.0.0.1")
    done = run(*command, cwd=tmp_path, environment=environment)
    assert done.returncode == 1
    assert "my_lhttp_plugin.py cannot be imported: mend or remove it" in done.stdout
    assert "listening on" not in done.stdout
    done = run(*command, "--no-plugins", "--require-auth", cwd=tmp_path, environment=environment)
    assert done.returncode == 1
    assert "--require-auth: there is no authenticator" in done.stdout
    server = serve("--no-plugins")
    server.wait_for_log("clients: anybody")


def test_plugin_is_found_unless_plugins_are_off(serve: Callable[..., ServerProcess], tmp_path: Path) -> None:
    plugins = tmp_path / "twisted" / "plugins"
    plugins.mkdir(parents=True)
    (plugins / "my_lhttp_plugin.py").write_text(
        "from lhttp_tx import processor\n\n\n@processor('plugged')\ndef plugged(request):\n    request.reply('in')\n",
        encoding="utf-8",
    )
    environment = {"PYTHONPATH": str(tmp_path)}
    with open_client(serve(environment=environment).port) as client:
        client.send(message("plugged"))
        assert client.recv(TIME_LIMIT) == message("plugged", {}, "in")
    server = serve("--no-plugins", *processor_arguments("echo"), environment=environment)
    with open_client(server.port) as client:
        client.send(message("plugged"))
        client.send(message("echo"))
        assert client.recv(TIME_LIMIT) == message("echo")


PLUGINS = """
from lhttp_tx import Authenticator, HeaderFilter, Hooks, Message, Refused


class Guests(Authenticator):
    def authenticate(self, attempt):
        return attempt.identify("guest") if attempt.parameters.get("invitation") == "x7Qk" else None


class Closed(HeaderFilter):
    headers = ("door",)

    def before(self, request):
        raise Refused(403, "closed")


class Welcome(Hooks):
    def on_connect(self, session):
        session.send(Message("welcome", {"user": session.identity.user}))


guests, closed, welcome = Guests(), Closed(), Welcome()
"""


def test_authenticators_filters_and_hooks_are_plugins_too(serve: Callable[..., ServerProcess], tmp_path: Path) -> None:
    plugins = tmp_path / "twisted" / "plugins"
    plugins.mkdir(parents=True)
    (plugins / "my_lhttp_plugins.py").write_text(PLUGINS, encoding="utf-8")
    server = serve(environment={"PYTHONPATH": str(tmp_path)})
    with open_client(server.port, "/?invitation=x7Qk") as client:
        assert client.recv(TIME_LIMIT) == message("welcome", {"user": "guest"})
        client.send(message("x", {"door": "front"}))
        assert client.recv(TIME_LIMIT) == message("error", {"status": "403", "reason": "closed"})
    with pytest.raises(InvalidStatus) as refused, open_client(server.port):
        pass
    assert refused.value.response.status_code == 401


@pytest.mark.parametrize("command", [["twistd", "-n", "--pidfile="], ["twist", "--log-format=text"]], ids=" ".join)
def test_port_in_use_is_told_in_one_line(command: list[str], tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = run(*command, "lhttp", "--port", f"tcp:{port}:interface=127.0.0.1", cwd=tmp_path)
    assert done.returncode not in (0, None)
    assert re.search(rf"cannot listen on tcp:{port}:interface=127.0.0.1: .*Address already in use", done.stdout)


def test_log_tells_what_it_serves(serve: Callable[..., ServerProcess], tmp_path: Path) -> None:
    (tmp_path / "token").write_text("a secret of more than sixteen bytes", encoding="utf-8")
    server = serve(
        *processor_arguments("echo", "boom"),
        *("--upstream-allow", "http://backend.example/record", "--publish-token-file", "token"),
    )
    for line in (
        f"listening on 127.0.0.1:{server.port} (tcp:0:interface=127.0.0.1:backlog=1024)",
        "bus: in memory (this process only)",
        "processors: boom, echo",
        "POST /publish: callers with the token",
        "upstream: http://backend.example/record",
    ):
        server.wait_for_log(line)


def test_log_tells_who_may_publish_and_that_upstream_is_off(serve: Callable[..., ServerProcess]) -> None:
    server = serve()
    server.wait_for_log("POST /publish: programs on this machine only (set a token with --publish-token-file)")
    server.wait_for_log("upstream: off (--upstream-allow)")
    server.wait_for_log("processors: none")


def test_what_clients_send_is_not_logged_as_it_is(serve: Callable[..., ServerProcess]) -> None:
    server = serve()
    with RawClient(server.port, "/?{peer}", headers=["Origin: http://evil\x1b[31m.example"]) as client:
        assert client.status in (400, 403)
    http_request(server.port, "POST", "/publish", "LHTTP/1.0 {x}\r\n\x1b[31m\r\n")
    with RawClient(server.port) as client:
        client.send("LHTTP/1.0 \x1b[31m{0}\r\n\r\n")
        client.receive()
        client.send(b"\x03\xe9\x1b[31m{peer}\n", 8)
        client.receive()
    assert server.stop() == -signal.SIGTERM
    assert "\x1b" not in server.log


def test_twist_serves_too(serve: Callable[..., ServerProcess]) -> None:
    server = serve(*processor_arguments("echo"), runner=["twist", "--log-format=text"])
    with open_client(server.port) as client:
        client.send(message("echo"))
        assert client.recv(TIME_LIMIT) == message("echo")


# Bounds


def test_limits_are_those_of_the_command_line(serve: Callable[..., ServerProcess]) -> None:
    server = serve(
        *processor_arguments("echo"),
        *("--max-message-size", "1000", "--max-head-size", "200", "--max-headers", "2", "--max-subscriptions", "2"),
    )
    with open_client(server.port) as client:

        def status_of(text: str) -> str:
            client.send(text)
            found = re.match(r"LHTTP/1.0 error\r\nstatus:(\d+)\r\n", str(client.recv(TIME_LIMIT)))
            return found[1] if found else "none"

        head = message("echo")
        assert status_of(head + "x" * (1000 - len(head))) == "none"
        assert status_of(head + "x" * (1001 - len(head))) == "413"
        assert status_of(message("echo", {"a": "b" * 180})) == "none"
        assert status_of(message("echo", {"a": "b" * 181})) == "413"
        assert status_of(message("echo", {"a": "1", "b": "2"})) == "none"
        assert status_of(message("echo", {"a": "1", "b": "2", "c": "3"})) == "413"
        assert status_of(message("chat", {"subscribe": "a b", "receipt": "1"})) == "none"
        assert status_of(message("chat", {"subscribe": "c", "receipt": "1"})) == "429"
        assert status_of(message("chat", {"subscribe": "b", "receipt": "1"})) == "none"
    assert http_request(server.port, "POST", "/publish", message("chat", {"publish": "a"}, "x" * 1000))[0] == 413


# As a daemon


def test_daemon_starts_serves_and_stops_by_its_pidfile(tmp_path: Path) -> None:
    done = run(
        *("twistd", "--pidfile=server.pid", "--logfile=server.log", "lhttp", "--port", "tcp:0:interface=127.0.0.1"),
        *("--processor", f"{PROCESSORS}:echo", "--processor", f"{PROCESSORS}:coroutine"),
        cwd=tmp_path,
    )
    assert (done.returncode, done.stdout) == (0, "")
    wait_until((tmp_path / "server.pid").exists, "the pidfile")
    pid = int((tmp_path / "server.pid").read_text(encoding="ascii"))
    try:
        log = tmp_path / "server.log"
        wait_until(lambda: "listening on" in log.read_text(encoding="utf-8"), "the log's line")
        found = re.search(r"listening on 127\.0\.0\.1:(\d+)", log.read_text(encoding="utf-8"))
        assert found is not None
        with open_client(int(found[1])) as client:
            for command in ("echo", "coroutine"):
                client.send(message(command))
                assert client.recv(TIME_LIMIT) == message(command)
            os.kill(pid, signal.SIGTERM)
        wait_until(lambda: not (tmp_path / "server.pid").exists(), "the pidfile to go")
        wait_until(lambda: not _runs(pid), "the daemon to end")
        assert "Traceback" not in log.read_text(encoding="utf-8")
    finally:
        if _runs(pid):
            os.kill(pid, signal.SIGKILL)


def _runs(pid: int) -> bool:
    """Return whether the process *pid* runs; one that has ended may wait for its parent still."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


@pytest.mark.parametrize("runner", [["twistd", "-n", "--pidfile="], ["twist", "--log-format=text"]])
def test_an_installation_that_is_read_only_is_nothing_to_log(
    runner: list[str], serve: Callable[..., ServerProcess], tmp_path: Path
) -> None:
    plugins = tmp_path / "path/twisted/plugins"
    (plugins / "dropin.cache/in-the-way").mkdir(parents=True)
    (plugins / "of_a_test.py").write_text("")
    server = serve(environment={"PYTHONPATH": str(tmp_path / "path")}, runner=runner)
    server.wait_for_log("upstream: off")
    assert "plugin cache" not in server.log


def test_a_port_for_everybody_without_a_login_is_warned_of(serve: Callable[..., ServerProcess]) -> None:
    warning = "can connect without login: require one with --auth"
    server = serve(listen=("--listen", "tcp:0:interface=0.0.0.0", "--listen", "tcp:0:interface=127.0.0.1"), endpoints=2)
    server.wait_for_log("upstream: off")
    assert server.log.count(warning) == 1
    server.wait_for_log(f"anyone who can reach {server.addresses[0]} {warning}")
    server = serve("--auth", "memory:jack:sesame", listen=("--listen", "tcp:0:interface=0.0.0.0"))
    server.wait_for_log("upstream: off")
    assert warning not in server.log


def test_a_variable_that_sets_nothing_is_warned_of(serve: Callable[..., ServerProcess]) -> None:
    serve(environment={"LHTTP_COLOUR": "red"}).wait_for_log("$LHTTP_COLOUR has no effect: there is no such option")
