"""The command line: what it makes of itself, and what it says of mistakes."""

from pathlib import Path

import pytest
from twisted.python.usage import UsageError

from lhttp_tx.config import Config
from lhttp_tx.limits import Limits
from lhttp_tx.options import Options


def parse(*arguments: str) -> Options:
    options = Options()
    options.parseOptions(["--no-plugins", *arguments])
    return options


@pytest.fixture(autouse=True)
def no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LHTTP_PUBLISH_TOKEN", raising=False)


def test_the_defaults_are_those_of_the_config() -> None:
    assert parse().config == Config(listen=("tcp:8081:backlog=1024",))


@pytest.mark.parametrize(
    ("arguments", "listen"),
    [
        (["--port", "80"], ("tcp:80:backlog=1024",)),
        (["-p", "80"], ("tcp:80:backlog=1024",)),
        (["--port", "tcp:80:interface=127.0.0.1"], ("tcp:80:interface=127.0.0.1",)),
        (["--listen", "unix:x"], ("unix:x",)),
        (["--port", "80", "--listen", "unix:x", "--listen", "tcp:81"], ("tcp:80:backlog=1024", "unix:x", "tcp:81")),
    ],
)
def test_endpoints(arguments: list[str], listen: tuple[str, ...]) -> None:
    assert parse(*arguments).config.listen == listen


def test_every_bound_can_be_set() -> None:
    config = parse(
        *("--max-message-size", "1000", "--max-head-size", "500", "--max-headers", "5", "--max-queue", "6"),
        *("--max-subscriptions", "7", "--max-unsent", "8", "--processor-timeout", "9", "--max-connections", "0"),
        *("--ping-interval", "0", "--ping-timeout", "11", "--handshake-timeout", "12", "--close-timeout", "13"),
        *("--drain-timeout", "14", "--upstream-timeout", "15", "--upstream-max-response", "16"),
        *("--upstream-max-in-flight", "17", "--upstream-public-only", "--upstream-allow", "http://b/x", "--demo"),
        *("--allow-origin", "https://App.example/", "--allow-origin", "*", "--server-name", "Chat.example:80"),
    ).config
    assert config == Config(
        listen=("tcp:8081:backlog=1024",),
        limits=Limits(1000, 500, 5, 6, 7, 8, 9.0),
        max_connections=0,
        ping_interval=0,
        ping_timeout=11,
        handshake_timeout=12,
        close_timeout=13,
        drain_timeout=14,
        upstream_timeout=15,
        upstream_max_response=16,
        upstream_max_in_flight=17,
        upstream_public_only=True,
        upstream_allow=("http://b/x",),
        allow_origins=("https://App.example", "*"),
        server_names=("chat.example",),
        demo=True,
    )


def test_the_token_is_read_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("0123456789abcdef\n")
    assert parse("--publish-token-file", str(tmp_path / "token")).config.publish_token == b"0123456789abcdef"


def test_the_token_is_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LHTTP_PUBLISH_TOKEN", "fedcba9876543210")
    assert parse().config.publish_token == b"fedcba9876543210"


def test_the_token_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LHTTP_PUBLISH_TOKEN", "fedcba9876543210")
    assert "fedcba" not in repr(parse().config)


def test_processors_and_filters_are_loaded(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(
        "from lhttp_tx import HeaderFilter, Processor\n"
        "class P(Processor):\n    command = 'p'\n"
        "class F(HeaderFilter):\n    pass\n"
    )
    options = parse("--processor", f"{path}:P", "--filter", f"{path}:F")
    assert [found.command for found in options.processors] == ["p"]
    assert len(options.filters) == 1
    with pytest.raises(UsageError, match="has a processor already"):
        parse("--processor", f"{path}:P", "--processor", f"{path}:P")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--port", "65536"], "from 0 to 65535"),
        (["--port", "http"], "tcp:8081"),
        (["--port", "nonsense:1"], "Unknown endpoint type"),
        (["--listen", "ssl:443:privateKey=/no/such/file"], "No such file"),
        (["--max-message-size", "0"], "not from 1"),
        (["--max-message-size", "many"], "not a number"),
        (["--ping-interval", "-1"], "not from 0"),
        (["--processor-timeout", "nan"], "not from"),
        (["--max-message-size", "100"], "--max-head-size is larger"),
        (["--allow-origin", "app.example"], "https://app.example"),
        (["--server-name", "a b/c"], "host name"),
        (["--upstream-allow", "backend/record"], "upstream URL"),
        (["--upstream-allow", "http://b/x?y=1"], "query"),
        (["--upstream-allow", "http://b/../x"], "dot segment"),
        (["--publish-token-file", "/no/such/file"], "No such file"),
        (["--processor", "nothing"], "package.module:Name"),
        (["--filter", "no_such_module:Name"], "PYTHONPATH"),
    ],
)
def test_mistakes_are_explained(arguments: list[str], text: str) -> None:
    with pytest.raises(UsageError, match=text):
        parse(*arguments)


def test_a_short_token_is_refused(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("short")
    with pytest.raises(UsageError, match="make a longer one"):
        parse("--publish-token-file", str(tmp_path / "token"))


def test_every_option_is_explained() -> None:
    lines = str(Options()).splitlines()
    options = [line for line in lines if line.lstrip().startswith("-")]
    assert len(options) > 25
    assert all(len(line.split()) > 2 for line in options)
