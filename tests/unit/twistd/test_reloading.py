"""lhttp_tx.twistd.reloading: other channel rules without a restart."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.task import Clock
from twisted.logger import formatEvent, globalLogPublisher

from lhttp_tx.codec.defaults import DefaultHeaders
from lhttp_tx.rules.model import Rules
from lhttp_tx.twistd.options import Options
from lhttp_tx.twistd.reloading import RulesReloader
from lhttp_tx.twistd.settings import SettingsFile, settings_of

GOOD = 'max-queue = 5\n[[channel]]\nmatch = "a"\n'


class Stage:
    """A reloader, the rules that it puts in force, and what it logs."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "my.toml"
        self.path.write_text(GOOD, "utf-8")
        file = self.file = SettingsFile.load(str(self.path), settings_of(Options))
        self.rules = file.rules
        self.log: list[str] = []
        self.clock: Any = Clock()
        self.clock.callFromThread = lambda call: self.clock.callLater(0, call)
        self.reloader = RulesReloader(file, self.use, reactor=self.clock, identities=False)

    def use(self, rules: Rules) -> None:
        self.rules = rules

    def observe(self, event: dict[str, Any]) -> None:
        if event["log_namespace"] == "lhttp_tx.twistd.reloading":
            self.log.append(formatEvent(event).replace(str(self.path), "my.toml"))

    def reload(self, text: str) -> None:
        self.path.write_text(text, "utf-8")
        self.reloader.reload()


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    found = Stage(tmp_path)
    globalLogPublisher.addObserver(found.observe)
    yield found
    globalLogPublisher.removeObserver(found.observe)


def test_rules_of_a_changed_file_are_put_in_force(stage: Stage) -> None:
    stage.reload('max-queue = 5\n[[channel]]\nmatch = "b"\n[[channel]]\nmatch = "c"\n')
    assert [rule.match for rule in stage.rules] == ["b", "c"]
    assert stage.log == ["my.toml: active channel rules: 2"]


def test_a_bad_file_leaves_the_old_rules_in_force_and_says_which_line(stage: Stage) -> None:
    stage.reload('max-queue = 5\n\n[[channel]]\nmatch = "b*"\necho = 1\n')
    assert [rule.match for rule in stage.rules] == ["a"]
    assert [line.partition(" ")[0] for line in stage.log] == ["my.toml:4:", "my.toml:5:", "my.toml:"]
    assert stage.log[-1] == "my.toml: not applied, the old channel rules stay active"


def test_a_file_that_is_gone_leaves_the_old_rules_in_force(stage: Stage) -> None:
    stage.path.unlink()
    stage.reloader.reload()
    assert [rule.match for rule in stage.rules] == ["a"]
    assert stage.log[0] == "my.toml: No such file or directory"


def test_rules_that_ask_who_clients_are_need_one_who_knows(stage: Stage) -> None:
    stage.reload('[[channel]]\nmatch = "b"\npublish = "authenticated"\n')
    assert [rule.match for rule in stage.rules] == ["a"]
    assert stage.log[0].startswith("my.toml:2: the rule for 'b' depends on the user, but there is no")


def test_rules_that_the_server_cannot_keep_leave_the_old_ones_in_force(stage: Stage) -> None:
    def refuse(rules: Rules) -> None:
        raise ValueError("no server can do that")

    stage.reloader = RulesReloader(stage.file, refuse, reactor=stage.clock, identities=False)
    stage.reload('[[channel]]\nmatch = "b"\n')
    assert stage.log == [
        "my.toml: no server can do that",
        "my.toml: not applied, the old channel rules stay active",
    ]


def test_options_that_need_a_restart_are_named(stage: Stage) -> None:
    stage.reload('max-queue = 6\ndemo = true\n[[channel]]\nmatch = "b"\n')
    assert stage.log[-1] == "my.toml: restart the server to apply these options: demo, max-queue"
    stage.reload(GOOD)
    assert stage.log[-1] == "my.toml: active channel rules: 1"


def test_a_braces_in_a_problem_is_no_format(stage: Stage) -> None:
    stage.reload('[[channel]]\nmatch = "{x}"\n')
    assert "'{x}': the only name in braces is {user}" in stage.log[0]


def test_the_signal_reads_the_file_in_the_next_turn_of_the_reactor(stage: Stage) -> None:
    before = signal.getsignal(signal.SIGHUP)
    stage.reloader.startService()
    try:
        stage.path.write_text("", "utf-8")
        signal.raise_signal(signal.SIGHUP)
        assert len(stage.rules) == 1
        stage.clock.advance(0)
        assert len(stage.rules) == 0
    finally:
        stage.reloader.stopService()
    assert signal.getsignal(signal.SIGHUP) == before


def test_default_headers_of_a_changed_file_are_put_in_force(tmp_path: Path) -> None:
    path = tmp_path / "my.toml"
    path.write_text('[default-headers.c]\na = "1"\n', "utf-8")
    file = SettingsFile.load(str(path), settings_of(Options))
    used: list[DefaultHeaders] = []
    clock: Any = Clock()
    reloader = RulesReloader(file, lambda rules: None, reactor=clock, identities=False, use_defaults=used.append)
    path.write_text('[default-headers.c]\na = "2"\n', "utf-8")
    reloader.reload()
    path.write_text("[default-headers.c]\na = 2\n", "utf-8")
    reloader.reload()
    path.write_text("", "utf-8")
    reloader.reload()
    assert used == [DefaultHeaders({"c": {"a": "2"}}), DefaultHeaders()]


def test_a_signal_before_the_start_counts(stage: Stage) -> None:
    """The start may wait for the end of a previous process."""
    before = signal.getsignal(signal.SIGHUP)
    stage.reloader.privilegedStartService()
    try:
        stage.path.write_text('max-queue = 5\n[[channel]]\nmatch = "b"\n', "utf-8")
        signal.raise_signal(signal.SIGHUP)
        stage.reloader.startService()
        stage.clock.advance(0)
        assert [rule.match for rule in stage.rules] == ["b"]
    finally:
        stage.reloader.stopService()
    assert signal.getsignal(signal.SIGHUP) == before
