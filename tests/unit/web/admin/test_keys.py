"""lhttp_tx.web.admin.keys: secrets, scopes, and the tables that they are read from."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from lhttp_tx.web.admin.keys import MAX_KEYS, AdminKey, Keyring, digest_of, read_keys

SECRET = b"0123456789abcdef"
KNOWN = ("publish", "history", "info")


def key(name: str = "k", secret: bytes = SECRET, methods: tuple[str, ...] = ("*",), *channels: str) -> AdminKey:
    return AdminKey(name, digest_of(secret), frozenset(methods), channels or (">",))


def read(directory: Path, table: Any) -> tuple[list[AdminKey], list[str]]:
    keys, problems, _ = read_keys({"k": table}, known=KNOWN, base=directory)
    return keys, [problem for _, problem in problems]


def test_a_secret_finds_its_key_alone() -> None:
    ring = Keyring([key("a"), key("b", b"another secret of b")])
    found = ring.find(b"another secret of b")
    assert found is not None
    assert found.name == "b"
    assert ring.find(b"") is None
    assert ring.find("secret \xe9".encode()) is None


def test_keys_are_replaced_together_or_not_at_all() -> None:
    ring = Keyring([key("a")])
    ring.replace([key("b", b"another secret of b")])
    assert ring.find(SECRET) is None
    for wrong in ([key("a"), key("a", b"x")], [key("a"), key("b")], [key(str(n), b"%d" % n) for n in range(101)]):
        with pytest.raises(ValueError, match="key"):
            ring.replace(wrong)
    assert len(ring) == 1
    assert MAX_KEYS == 100


def test_no_representation_shows_a_hash() -> None:
    assert digest_of(SECRET).hex()[:8] not in repr(key())
    assert "digest" not in repr(key())


@pytest.mark.parametrize(
    ("patterns", "channel", "allowed"),
    [
        ((">",), "a.b", True),
        (("news.>",), "news.de", True),
        (("news.>",), "news", False),
        (("news.*",), "news.de.x", False),
        (("a", "b"), "b", True),
        (("a",), "a.b", False),
        (("news.>",), "news.*", True),
        (("news.*",), "news.>", False),
        (("news.de",), "*.de", False),
    ],
)
def test_a_scope_contains_channels(patterns: tuple[str, ...], channel: str, allowed: bool) -> None:
    assert key("k", SECRET, ("*",), *patterns).may_use(channel) is allowed


def test_a_scope_contains_methods() -> None:
    assert key(methods=("*",)).may_call("info")
    assert key(methods=("info",)).may_call("info")
    assert not key(methods=("info",)).may_call("publish")


def test_a_table_names_a_file_or_a_hash(tmp_path: Path) -> None:
    (tmp_path / "s").write_bytes(SECRET + b"\n")
    from_file, problems = read(tmp_path, {"secret_file": "s", "methods": ["publish"], "channels": ["a.>"]})
    assert not problems
    from_hash, problems = read(tmp_path, {"hash": "sha256:" + sha256(SECRET).hexdigest(), "methods": ["*"]})
    assert not problems
    assert from_file[0].digest == from_hash[0].digest == digest_of(SECRET)
    assert from_file[0].channels == ("a.>",)


@pytest.mark.parametrize(
    ("table", "why"),
    [
        ({"methods": ["*"]}, "needs secret_file"),
        ({"hash": "x", "secret_file": "s", "methods": ["*"]}, "and not both"),
        ({"hash": "a" * 63, "methods": ["*"]}, "64 hexadecimal digits"),
        ({"secret_file": "none", "methods": ["*"]}, "No such file"),
        ({"secret_file": "short", "methods": ["*"]}, "shorter than 16 bytes"),
        ({"secret_file": 5, "methods": ["*"]}, "are strings"),
        ({"hash": "a" * 64}, "say what it may do"),
        ({"hash": "a" * 64, "methods": "publish"}, "array of strings"),
        ({"hash": "a" * 64, "methods": ["publsh"]}, "did you mean publish?"),
        ({"hash": "a" * 64, "methods": ["*"], "channels": ["a.>.b"]}, "last token"),
        ({"hash": "a" * 64, "methods": ["*"], "channels": ["{user}"]}, "has no user"),
        ({"hash": "a" * 64, "methods": ["*"], "scope": 1}, "there is no key scope"),
        ("x", "is a table"),
    ],
)
def test_a_mistake_in_a_table_is_told(tmp_path: Path, table: Any, why: str) -> None:
    (tmp_path / "short").write_bytes(b"secret")
    keys, problems = read(tmp_path, table)
    assert not keys
    assert why in problems[0]


def test_no_mistake_shows_a_secret(tmp_path: Path) -> None:
    (tmp_path / "short").write_bytes(b"hunter2")
    _, problems = read(tmp_path, {"secret_file": "short", "methods": ["*"]})
    assert "hunter2" not in problems[0]
