"""Passwords, asked of checkers of twisted.cred."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from twisted.cred.checkers import ANONYMOUS, AllowAnonymousAccess, FilePasswordDB, ICredentialsChecker
from twisted.cred.credentials import IUsernamePassword
from twisted.cred.strcred import makeChecker
from twisted.internet.defer import Deferred
from zope.interface import implementer
from zope.interface.verify import verifyObject

from lhttp_tx import Identity, Message, Refused
from lhttp_tx.auth.attempts import LoginAttempt
from lhttp_tx.auth.cred import CredAuthenticator, Password


def ask(authenticator: CredAuthenticator, user: str, password: str) -> Any:
    attempt = LoginAttempt("192.0.2.1", "c", message=Message("login", {"user": user, "password": password}))
    outcome: list[Any] = []
    Deferred.fromCoroutine(authenticator.authenticate(attempt)).addBoth(outcome.append)
    (found,) = outcome
    return found if isinstance(found, Identity) else found.value


@implementer(ICredentialsChecker)
class Checker:
    """Answers with what it is told to."""

    credentialInterfaces = (IUsernamePassword,)

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def requestAvatarId(self, credentials: Any) -> Any:
        return self.answer


@pytest.fixture
def file(tmp_path: Path) -> FilePasswordDB:
    path = tmp_path / "passwords"
    path.write_bytes("alice:sesame\nzoë:ünlock\n".encode())
    return FilePasswordDB(str(path))


@pytest.mark.parametrize(("user", "password"), [("alice", "sesame"), ("zoë", "ünlock")])
def test_the_right_password(file: FilePasswordDB, user: str, password: str) -> None:
    assert ask(CredAuthenticator([file]), user, password).user == user


@pytest.mark.parametrize(("user", "password"), [("alice", "Sesame"), ("alice", ""), ("eve", "sesame"), ("", "")])
def test_a_wrong_one_is_refused_without_saying_what_was_wrong(file: FilePasswordDB, user: str, password: str) -> None:
    refused = ask(CredAuthenticator([file]), user, password)
    assert isinstance(refused, Refused)
    assert (refused.status, refused.reason) == (401, "wrong user or password")


def test_the_checker_of_the_command_line_that_keeps_text_knows_its_users() -> None:
    authenticator = CredAuthenticator([makeChecker("memory:alice:sesame")])
    assert ask(authenticator, "alice", "sesame").user == "alice"
    assert ask(authenticator, "alice", "other").status == 401


def test_the_first_checker_that_accepts_decides(file: FilePasswordDB) -> None:
    authenticator = CredAuthenticator([file, Checker("somebody"), Checker("else")])
    assert ask(authenticator, "alice", "sesame").user == "alice"
    assert ask(authenticator, "eve", "x").user == "somebody"


def test_the_checker_names_the_user() -> None:
    assert ask(CredAuthenticator([Checker("Ållice".encode())]), "alice", "x").user == "Ållice"


@pytest.mark.parametrize("answer", [ANONYMOUS, None, b"", 7])
def test_an_answer_that_names_nobody_is_refused(answer: Any) -> None:
    assert ask(CredAuthenticator([Checker(answer)]), "alice", "x").status == 401


def test_a_checker_that_fails_is_not_passed_over() -> None:
    class Broken(Checker):
        def requestAvatarId(self, credentials: Any) -> Any:
            raise ZeroDivisionError

    assert isinstance(ask(CredAuthenticator([Broken(None), Checker("eve")]), "eve", "x"), ZeroDivisionError)


def test_who_has_no_password_is_unknown() -> None:
    assert CredAuthenticator([Checker("alice")]).authenticate(LoginAttempt("", "")) is None


def test_a_checker_that_takes_no_passwords_is_refused() -> None:
    with pytest.raises(ValueError, match="does not accept passwords"):
        CredAuthenticator([AllowAnonymousAccess()])


def test_a_password_is_what_checkers_take() -> None:
    assert verifyObject(IUsernamePassword, Password("a", "b"))
    assert Password("a", "é").checkPassword("é")
    assert Password("a", "é").checkPassword("é".encode())
    assert not Password("a", "é").checkPassword(b"e")


def test_a_password_does_not_show_itself() -> None:
    assert repr(Password("alice", "sesame")) == "<Password>"
