"""The options about connections as a whole, and what is said of mistakes."""

from __future__ import annotations

from pathlib import Path

import pytest
from twisted.python.usage import UsageError

from lhttp_tx.twistd.options import Options

SOURCE = """
from lhttp_tx import Hooks, Processor, processor

class Mine(Hooks):
    pass

@processor("presence")
def presence(request):
    pass
"""


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "passwords").write_text("alice:sesame\n")
    (tmp_path / "our_hooks.py").write_text(SOURCE)
    (tmp_path / "rules.toml").write_text('[[channel]]\nmatch = "room"\npresence = true\n')
    (tmp_path / "all.toml").write_text(
        'presence = ["room.*"]\nsingle-login = true\nlogin-parameter = "name"\nhooks = ["our_hooks.py:Mine"]\n'
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path


def parse(arguments: str) -> Options:
    options = Options()
    options.parseOptions(["--no-plugins", *arguments.split()])
    return options


def test_by_default_nothing_is_asked_for() -> None:
    config = parse("").config
    assert (config.presence, config.presence_grace, config.max_per_user) == ((), 3.0, 0)
    assert (config.login_parameter, config.wait_timeout) == (None, 0.0)


def test_every_setting_arrives() -> None:
    options = parse(
        "--presence a.* --presence > --presence-grace 1.5 --max-per-user 3 --login-parameter name --wait-timeout 2.5"
        " --hooks our_hooks.py:Mine --hooks our_hooks:Mine"
    )
    config = options.config
    assert (config.presence, config.presence_grace, config.max_per_user) == (("a.*", ">"), 1.5, 3)
    assert (config.login_parameter, config.wait_timeout) == ("name", 2.5)
    assert [type(found).__name__ for found in options.hooks] == ["Mine", "Mine"]


def test_a_file_sets_them_too() -> None:
    options = parse("--config all.toml")
    config = options.config
    assert (config.presence, config.max_per_user, config.login_parameter) == (("room.*",), 1, "name")
    assert len(options.hooks) == 1


def test_a_single_login_is_one_connection_per_user() -> None:
    assert parse("--single-login --auth file:passwords").config.max_per_user == 1


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("--presence a..b", "--presence 'a..b': no channel has such a name: channel 'a..b' has an empty token"),
        (
            "--single-login",
            (
                "--single-login needs users: add --auth, --jwt-key-file or --authenticator, "
                "or name a query parameter with --login-parameter"
            ),
        ),
        (
            "--max-per-user 2",
            (
                "--max-per-user needs users: add --auth, --jwt-key-file or --authenticator, "
                "or name a query parameter with --login-parameter"
            ),
        ),
        (
            "--single-login --max-per-user 2 --login-parameter name",
            "--single-login means --max-per-user 1: leave out one of them",
        ),
        (
            "--login-parameter name --auth file:passwords",
            (
                "--login-parameter is for servers without authentication: leave it out, "
                "or leave out --auth, --jwt-key-file, --jwks-file and --authenticator"
            ),
        ),
        ("--login-parameter a&b", "--login-parameter 'a&b': use letters, digits and - . _ ~"),
        ("--wait-timeout -1", "--wait-timeout: -1 is not from 0.01 to 86400, nor 0"),
        ("--presence-grace x", "--presence-grace: 'x' is not a number"),
        ("--hooks nowhere", "'nowhere' is not of the form package.module:Name or path/to/file.py:Name"),
        (
            "--hooks our_hooks.py:presence",
            "'our_hooks.py:presence' is no IHooks; subclass lhttp_tx.Hooks, or use an instance of one",
        ),
        (
            "--presence room --processor our_hooks.py:presence",
            "<processor presence> has the command 'presence', which the server handles if channels have presence",
        ),
        (
            "--config rules.toml --processor our_hooks.py:presence",
            "<processor presence> has the command 'presence', which the server handles if channels have presence",
        ),
    ],
)
def test_a_mistake_is_told_with_what_to_do(arguments: str, expected: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(arguments)
    assert str(caught.value) == expected


def test_without_presence_the_command_is_free() -> None:
    assert len(parse("--processor our_hooks.py:presence").processors) == 1
