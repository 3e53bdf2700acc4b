"""The keys of tokens: their kind decides the algorithm, and what is no key for a server is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from token_makers import SECRET, jwk, pem_of, private_key, private_pem, public_pem

from lhttp_tx.auth.keys import Key, read_jwks, read_key


def key_set(*keys: Any) -> bytes:
    return json.dumps({"keys": keys}).encode("ascii")


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
def test_the_kind_of_a_public_key_decides_the_algorithm(algorithm: str) -> None:
    assert read_key(public_pem(algorithm)).algorithm == algorithm


def test_a_file_that_is_no_pem_is_a_secret() -> None:
    assert read_key(SECRET + b"\n") == Key("HS256", SECRET)


def test_a_key_does_not_show_itself() -> None:
    assert "secret" not in repr(read_key(SECRET))


def open_ssh() -> bytes:
    found: bytes = private_key("RS256").public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    return found


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (lambda: b"0123456789abcdef0123456789abcde", "shorter than 32 bytes"),
        (lambda: b"", "shorter than 32 bytes"),
        (lambda: private_pem("RS256"), "contains a private key"),
        (lambda: private_pem("EdDSA"), "contains a private key"),
        (lambda: pem_of(rsa.generate_private_key(65_537, 1024).public_key()), "less than 2048 bits"),
        (lambda: pem_of(ec.generate_private_key(ec.SECP384R1()).public_key()), "not for RS256, ES256"),
        (lambda: pem_of(ed448.Ed448PrivateKey.generate().public_key()), "not for RS256, ES256"),
        (lambda: pem_of(dsa.generate_private_key(1024).public_key()), "not for RS256, ES256"),
        (open_ssh, "another format"),
        (lambda: key_set(jwk("RS256")), "another format"),
        (lambda: b"# the key\n" + public_pem("RS256"), "another format"),
        (
            lambda: b"-----BEGIN PUBLIC KEY-----\nnonsense\n-----END PUBLIC KEY-----",
            "no valid public key or certificate",
        ),
        (
            lambda: b"-----BEGIN CERTIFICATE-----\nnonsense\n-----END CERTIFICATE-----",
            "no valid public key or certificate",
        ),
    ],
)
def test_what_is_no_key_for_a_server_is_refused(content: Any, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        read_key(content())


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA", "HS256"])
def test_a_key_set_holds_keys_of_every_kind(algorithm: str) -> None:
    keys = read_jwks(key_set(jwk(algorithm, kid="a"))).keys
    assert [(kid, key.algorithm) for kid, key in keys.items()] == [("a", algorithm)]


def test_keys_for_something_else_are_left_out() -> None:
    found = read_jwks(
        key_set(
            jwk("RS256", kid="a"),
            jwk("RS256", 1, kid="b", use="enc"),
            jwk("RS256", 1, kid="c", alg="RS512"),
            jwk("RS256", 1, kid="d", key_ops=["encrypt"]),
            jwk("ES256", kid="e", crv="P-521"),
            {"kty": "AKP", "kid": "f"},
        )
    )
    assert list(found.keys) == ["a"]
    assert found.left_out == (
        "key 'b': it is not for signatures",
        "key 'c': it is for another algorithm than RS256",
        "key 'd': it is not for checking signatures",
        "key 'e': its curve is not supported",
        "key 'f': its type is not supported",
    )


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (lambda: b"{}", "not a JSON Web Key Set"),
        (lambda: b"[]", "not a JSON Web Key Set"),
        (lambda: b"\xff", "not a JSON Web Key Set"),
        (lambda: b'{"keys": [1]}', "not a JSON Web Key Set"),
        (lambda: b"[" * 100_000, "not a JSON Web Key Set"),
        (lambda: key_set(), "holds no key"),
        (lambda: key_set({"kty": []}), "holds no key"),
        (lambda: key_set(jwk("RS256", use="enc")), "holds no key.*not for signatures"),
        (lambda: key_set(jwk("RS256", kid="a"), jwk("ES256", kid="a")), "several keys with the kid 'a'"),
        (lambda: key_set(jwk("RS256"), jwk("ES256")), "several keys without a kid"),
        (lambda: key_set(jwk("RS256"), jwk("ES256", kid="a")), "one has no kid"),
        (lambda: key_set(jwk("RS256", kid=7)), "kid of key 1 is not text"),
        (lambda: key_set(jwk("EdDSA", d="AAAA")), "private key"),
        (lambda: key_set(jwk("ES256", kid="a", x="!")), "key 'a': it is malformed"),
        (lambda: key_set(jwk("RS256", n="")), "key 1: "),
        (lambda: key_set(jwk("RS256", n="AQAB")), "key 1: "),
        (lambda: key_set({"kty": "oct"}), "key 1: it is malformed"),
        (lambda: key_set({"kty": "oct", "k": "c2hvcnQ"}), "shorter than 32 bytes"),
    ],
)
def test_a_key_set_that_makes_no_sense_is_refused(content: Any, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        read_jwks(content())
