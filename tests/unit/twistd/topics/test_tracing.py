"""The options for traces."""

from __future__ import annotations

from pathlib import Path

import pytest
from twisted.python.usage import UsageError

from lhttp_tx.twistd import checking
from lhttp_tx.twistd.options import Options
from lhttp_tx.twistd.topics import tracing

SECRET = "secret-0123456789"


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tracing, "is_installed", lambda: True)  # options make no spans
    (tmp_path / "headers").write_text(f"authorization: Bearer {SECRET}\n\nx-team : chat \n")
    (tmp_path / "headers").chmod(0o600)
    return tmp_path


def parse(arguments: str) -> Options:
    options = Options()
    options.parseOptions(["--no-plugins", *arguments.split()])
    return options


def test_by_default_there_are_no_traces() -> None:
    config = parse("").config
    assert (config.trace, config.trace_ratio, config.trace_rate, config.trace_headers) == (None, 0.0, 100, {})


def test_every_setting_arrives() -> None:
    options = parse("--trace http://c.example:4318 --trace-ratio 0.25 --trace-rate 7 --trace-headers-file headers")
    config = options.config
    assert (config.trace, config.trace_ratio, config.trace_rate) == ("http://c.example:4318", 0.25, 7)
    assert config.trace_headers == {"authorization": f"Bearer {SECRET}", "x-team": "chat"}
    assert options.exposures == []


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ("--trace-ratio 0.1", "--trace-ratio needs a collector: add --trace URL"),
        ("--trace-headers-file headers", "--trace-headers-file needs a collector: add --trace URL"),
        ("--trace http://c --trace-ratio 1.5", "1.5 is not from 0 to 1"),
        ("--trace http://c --trace-ratio nan", "nan is not from 0 to 1"),
        ("--trace http://c --trace-rate 0", "0 is not from 1 to 1000000"),
        ("--trace c.example:4318", "--trace: this is no http or https URL; write one such as http://127.0.0.1:4318"),
        ("--trace http://", "--trace: this is no http or https URL"),
        ("--trace http://c:0", "--trace: this is no http or https URL"),
        ("--trace http://c:99999", "--trace: the URL is malformed"),
        ("--trace http://u:pass@c", "--trace: the URL has a user, a query or a fragment; secrets belong in headers"),
        ("--trace http://c/?key=pass", "--trace: the URL has a user, a query or a fragment"),
        ("--trace http://c --trace-headers-file missing", "--trace-headers-file: [Errno 2]"),
        ("--trace http://c --trace-headers-file no-colon", "line 2 of no-colon has no colon; write NAME: VALUE"),
        ("--trace http://c --trace-headers-file no-name", "no-name: 'a b' is no name of a header"),
        ("--trace http://c --trace-headers-file no-value", "no-value: the value of a is not visible ASCII characters"),
    ],
)
def test_a_mistake_is_told_without_secrets(directory: Path, arguments: str, text: str) -> None:
    (directory / "no-colon").write_text("a: 1\npass\n")
    (directory / "no-name").write_text("a b: pass\n")
    (directory / "no-value").write_text("a: pass\N{EURO SIGN}\n", "utf-8")
    with pytest.raises(UsageError) as caught:
        parse(arguments)
    assert text in str(caught.value)
    assert "pass" not in str(caught.value)


def test_what_to_install_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing, "is_installed", lambda: False)
    with pytest.raises(UsageError, match="--trace needs OpenTelemetry: pip install '"):
        parse("--trace http://c")


def test_headers_that_others_can_read_are_told_of(directory: Path) -> None:
    (directory / "headers").chmod(0o644)
    (told,) = parse("--trace http://c --trace-headers-file headers").exposures
    assert told.startswith("--trace-headers-file: other users of this machine can read headers")


def test_the_configuration_is_shown_without_secrets(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (directory / "lhttp.toml").write_text(
        'trace = "https://c.example"\ntrace-ratio = 0.5\ntrace-headers-file = "headers"\n'
    )
    assert checking.main(["lhttp.toml"]) == 0
    told = capsys.readouterr().out
    assert 'trace = "https://c.example"  # lhttp.toml:1' in told
    assert "trace-ratio = 0.5  # lhttp.toml:2" in told
    assert 'trace-headers-file = "headers"  # lhttp.toml:3' in told
    assert SECRET not in told
