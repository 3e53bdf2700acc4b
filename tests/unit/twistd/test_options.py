"""The command line: what it makes of itself, and what it says of mistakes."""

from pathlib import Path

import pytest
from twisted.python.usage import UsageError

from lhttp_tx.codec.limits import Limits
from lhttp_tx.config import Config
from lhttp_tx.rules.model import Rule, Rules
from lhttp_tx.twistd.options import Options


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
        (["--listen", "haproxy:unix:x", "--unix-mode", "600"], ("haproxy:unix:x",)),
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
        *("--body-timeout", "27", "--http-lifetime", "28"),
        *("--drain-delay", "32", "--drain-time", "33"),
        *("--drain-timeout", "14", "--upstream-timeout", "15", "--upstream-max-response", "16"),
        *("--upstream-max-in-flight", "17", "--upstream-public-only", "--upstream-allow", "http://b/x", "--demo"),
        *("--upstream-max-failures", "20", "--upstream-cool-down", "21"),
        *("--max-rate", "22.5", "--max-burst", "23", "--max-byte-rate", "24", "--max-errors", "0"),
        *("--max-list", "27", "--max-tokens", "28", "--max-wildcard-tokens", "29", "--max-wildcards", "30"),
        *("--max-subscribe-rate", "31.5"),
        *("--max-per-address", "25", "--max-pending", "26", "--trusted-proxy", "10.0.0.0/8", "--trusted-proxy", "unix"),
        *("--allow-origin", "https://App.example/", "--allow-origin", "*", "--server-name", "Chat.example:80"),
    ).config
    assert config == Config(
        listen=("tcp:8081:backlog=1024",),
        limits=Limits(1000, 500, 5, 6, 7, 8, 9.0, 22.5, 23, 24, 0, 27, 28, 29, 30, 31.5),
        max_connections=0,
        max_per_address=25,
        max_pending=26,
        trusted_proxies=("10.0.0.0/8", "unix"),
        ping_interval=0,
        ping_timeout=11,
        handshake_timeout=12,
        body_timeout=27,
        http_lifetime=28,
        close_timeout=13,
        drain_timeout=14,
        drain_delay=32,
        drain_time=33,
        upstream_timeout=15,
        upstream_max_response=16,
        upstream_max_in_flight=17,
        upstream_max_failures=20,
        upstream_cool_down=21,
        upstream_public_only=True,
        upstream_allow=("http://b/x",),
        allow_origins=("https://app.example", "*"),
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
        (["--port", "9" * 5_000], "from 0 to 65535"),
        (["--max-rate", "9" * 5_000], "is not from 0.1 to 1000000, nor 0"),
        (["--max-queue", "9" * 5_000], "^--max-queue: 9+ is not from 1 to"),
        (["--max-rate", "-1"], "^--max-rate: -1 is not from 0.1 to 1000000, nor 0$"),
        (["--max-rate", "-1", "--max-unsent", "x"], "^--max-rate: -1 .*\n--max-unsent: 'x' is not a number$"),
        (["--unix-mode", "999", "--listen", "unix:x"], "^--unix-mode: '999' is not a mode for a socket"),
        (["--max-queue", "1" + "0" * 400], "is not from 1 to"),
        (["--max-burst", "5"], "set --max-rate, too"),
        (["--max-rate", "0.05"], "is not from 0.1 to 1000000, nor 0"),
        (["--max-rate", "fast"], "is not a number"),
        (["--trusted-proxy", "proxy.example"], "write an address, a network such as 10.0.0.0/8, or unix"),
        (["--trusted-proxy", "0.0.0.0/0"], "name the addresses of your proxies"),
        (["--port", "http"], "tcp:8081"),
        (["--port", "nonsense:1"], "Unknown endpoint type"),
        (["--listen", "ssl:443:privateKey=/no/such/file"], "No such file"),
        (["--listen", f"ssl:443:privateKey={__file__}"], "OpenSSL cannot read it; privateKey= and certKey= name files"),
        (["--max-message-size", "0"], "not from 1"),
        (["--max-message-size", "many"], "not a number"),
        (["--ping-interval", "-1"], "not from 1 to 86400, nor 0"),
        (["--processor-timeout", "nan"], "not from"),
        (["--max-message-size", "100"], "--max-head-size is larger"),
        (["--allow-origin", "app.example"], "https://app.example"),
        (["--server-name", "a b/c"], "host name"),
        (["--server-name", "*.example"], r"^--server-name '\*.example': write a host name"),
        (["--server-name", "a.example, b.example"], "each name is listed by itself"),
        (["--allow-origin", "https://app.example/chat"], "^--allow-origin .*write nothing but scheme, host and port"),
        (["--upstream-allow", "backend/record"], "upstream URL"),
        (["--upstream-allow", "http://b/x?y=1"], "query"),
        (["--upstream-allow", "http://b/../x"], "dot segment"),
        (["--upstream-original", "b"], "--upstream-original: upstream URL 'b' is not a plain"),
        (
            ["--upstream-original", "http://b", "--upstream-allow", "http://b/"],
            "is listed as both kinds; leave one out",
        ),
        (["--unix-mode", "660"], "--unix-mode is for UNIX sockets: add --listen unix:PATH"),
        (["--unix-group", "0"], "--unix-group is for UNIX sockets: add --listen unix:PATH"),
        (["--unix-mode", "432", "--listen", "unix:x"], "write it in octal digits, such as 660"),
        (["--unix-group", "no such group", "--listen", "unix:x"], "--unix-group: there is no group 'no such group'"),
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


# The configuration file and the environment


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path / "lhttp.toml"


def test_the_file_the_environment_and_the_command_line_win_in_this_order(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write_text('port = 81\nlisten = "unix:x"\nmax-queue = 1\nmax-unsent = 1\nmax-headers = 1\ndemo = true\n')
    monkeypatch.setenv("LHTTP_MAX_UNSENT", "2")
    monkeypatch.setenv("LHTTP_MAX_HEADERS", "2")
    config = parse("--config", "lhttp.toml", "--max-headers", "3").config
    assert config.listen == ("tcp:81:backlog=1024", "unix:x")
    assert (config.limits.queue_length, config.limits.unsent_size, config.limits.header_count) == (1, 2, 3)
    assert config.demo


def test_rules_of_the_file_are_those_of_the_config(file: Path) -> None:
    file.write_text('[[channel]]\nmatch = "a"\n')
    assert parse("--config", "lhttp.toml").config.rules == Rules([Rule("a")])


def test_a_file_without_rules_may_have_some_later(file: Path) -> None:
    file.write_text("")
    assert parse("--config", "lhttp.toml").config.rules == Rules()
    assert parse().config.rules is None


def test_rules_may_ask_who_clients_are_where_that_is_known(file: Path) -> None:
    (file.parent / "users").write_text("jack:secret\n")
    file.write_text('auth = "file:users"\n[[channel]]\nmatch = "a"\npublish = "authenticated"\n')
    config = parse("--config", "lhttp.toml").config
    assert config.rules is not None
    assert len(config.rules) == 1


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("max-unsent = 0", "lhttp.toml:1: max-unsent: 0 is not from 1 to 2147483647"),
        ("demo = true\nport = 65536", "lhttp.toml:2: --port 65536: a port is a number from 0 to 65535"),
        ("max-head-size = 70000", "lhttp.toml:1: --max-head-size is larger than --max-message-size; lower it"),
        ('server-name = ["a", "a b/c"]', "lhttp.toml:1: --server-name 'a b/c': write a host name"),
        ('processor = "nothing"', "lhttp.toml:1: processor: .*package.module:Name"),
        (
            '\n[[channel]]\nmatch = "a"\npublish = "authenticated"',
            "lhttp.toml:3: the rule for 'a' depends on the user",
        ),
        ('colour = "red"', "lhttp.toml:1: there is no option colour"),
    ],
)
def test_mistakes_in_the_file_are_explained(text: str, problem: str, file: Path) -> None:
    file.write_text(text)
    with pytest.raises(UsageError, match=problem):
        parse("--config", "lhttp.toml")


def test_the_token_of_the_environment_wins_over_that_of_the_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("one", "two"):
        (file.parent / name).write_text(f"a token of {name}, long enough")
    file.write_text('publish-token-file = "one"')
    assert parse("--config", "lhttp.toml").config.publish_token == b"a token of one, long enough"
    monkeypatch.setenv("LHTTP_PUBLISH_TOKEN", "fedcba9876543210")
    assert parse("--config", "lhttp.toml").config.publish_token == b"fedcba9876543210"
    arguments = ("--config", "lhttp.toml", "--publish-token-file", "two")
    assert parse(*arguments).config.publish_token == b"a token of two, long enough"
