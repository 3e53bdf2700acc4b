"""
The keys that verify tokens, read from files.

Only the type of a key decides the algorithm: a secret is for HS256, an RSA key for RS256, a key on the curve P-256 for
ES256, an Ed25519 key for EdDSA. The algorithm in a token is compared with it, and never used to choose one (RFC 8725,
section 3.1). Only this module and :mod:`lhttp_tx.auth.tokens` import PyJWT and cryptography.
"""

from __future__ import annotations

import binascii
import json
import re
from base64 import urlsafe_b64decode
from dataclasses import dataclass, field
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from cryptography.x509 import load_pem_x509_certificate
from jwt import PyJWK
from jwt.exceptions import PyJWTError

__all__ = ["Key", "KeySet", "read_jwks", "read_key"]

_MIN_SECRET_SIZE = 32
"""The fewest bytes of a secret for HS256 (RFC 7518, section 3.2)."""

_MIN_RSA_SIZE = 2048
"""The fewest bits of an RSA key (RFC 7518, section 3.3)."""

_NOT_A_SECRET = re.compile(rb"-----BEGIN |ssh-(rsa|dss|ed25519)|ecdsa-sha2-|sk-(ssh|ecdsa)-|\{")
"""The beginning of files that hold a key, often a public one. Such a file must not be used as a secret."""

_KINDS = {"RSA": "RS256", "EC": "ES256", "OKP": "EdDSA", "oct": "HS256"}
"""The algorithm for each type of key in a key set (RFC 7518, section 6.1; RFC 8037)."""


@dataclass(frozen=True, slots=True)
class Key:
    """
    A key and its only algorithm.

    :ivar algorithm: ``HS256``, ``RS256``, ``ES256`` or ``EdDSA``.
    :ivar material: the key as PyJWT takes it.
    """

    algorithm: str
    material: Any = field(repr=False)


@dataclass(frozen=True, slots=True)
class KeySet:
    """
    Several keys, each with a name.

    :ivar keys: the keys by ``kid``. A single key may have no name, and is then under ``None``.
    :ivar left_out: the reasons why keys of the file were left out, one line each.
    """

    keys: dict[str | None, Key]
    left_out: tuple[str, ...] = ()


def read_key(content: bytes) -> Key:
    """
    Return the key in a file: a PEM public key or certificate, else a secret of at least 32 bytes.

    Blanks and line breaks around it are ignored.

    :raises ValueError: if it is none of these, or is too weak. The text says what to do, and shows nothing of the key.
    """
    content = content.strip()
    if content.startswith(b"-----BEGIN "):
        return _read_pem(content)
    if b"-----BEGIN " in content or _NOT_A_SECRET.match(content):
        raise ValueError(
            "it contains a key in another format: write a public key as PEM, or pass a key set with --jwks-file"
        )
    if len(content) < _MIN_SECRET_SIZE:
        raise ValueError(f"the secret is shorter than {_MIN_SECRET_SIZE} bytes: make a longer one")
    return Key("HS256", content)


def _read_pem(content: bytes) -> Key:
    if b"PRIVATE KEY" in content:
        raise ValueError("it contains a private key: give the server only the public key")
    found: object
    try:
        if content.startswith(b"-----BEGIN CERTIFICATE"):
            found = load_pem_x509_certificate(content).public_key()
        else:
            found = load_pem_public_key(content)
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError("it contains no valid public key or certificate") from None
    return _public_key(found)


def _public_key(found: object) -> Key:
    if isinstance(found, RSAPublicKey):
        if found.key_size < _MIN_RSA_SIZE:
            raise ValueError(f"the RSA key has less than {_MIN_RSA_SIZE} bits: make a longer one")
        return Key("RS256", found)
    if isinstance(found, EllipticCurvePublicKey) and isinstance(found.curve, SECP256R1):
        return Key("ES256", found)
    if isinstance(found, Ed25519PublicKey):
        return Key("EdDSA", found)
    raise ValueError("the key is not for RS256, ES256 (curve P-256) or EdDSA (Ed25519)")


def read_jwks(content: bytes) -> KeySet:
    """
    Return the keys of a JSON Web Key Set (RFC 7517) that are for signatures in one of the four algorithms.

    :raises ValueError: if the set is malformed or holds a private key, if two keys have the same name, or if no key is
        left.
    """
    try:
        found = json.loads(content)["keys"]
    except (ValueError, KeyError, TypeError, RecursionError):
        found = None
    if not isinstance(found, list) or not all(isinstance(jwk, dict) for jwk in found):
        raise ValueError('it is not a JSON Web Key Set: {"keys": [...]}')
    keys: dict[str | None, Key] = {}
    left_out = []
    for number, jwk in enumerate(found, 1):
        kid = jwk.get("kid")
        if kid is not None and not isinstance(kid, str):
            raise ValueError(f"the kid of key {number} is not text")
        name = f"key {number}" if kid is None else f"key {kid!r}"
        why = _unfit(jwk)
        if why is not None:
            left_out.append(f"{name}: {why}")
            continue
        if kid in keys:
            raise ValueError("several keys without a kid" if kid is None else f"several keys with the kid {kid!r}")
        try:
            keys[kid] = _read_jwk(jwk)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
    if not keys:
        raise ValueError("; ".join(["it holds no key for RS256, ES256, EdDSA or HS256", *left_out]))
    if None in keys and len(keys) > 1:
        raise ValueError("there are several keys, and one has no kid: give each of them a kid")
    return KeySet(keys, tuple(left_out))


def _unfit(jwk: dict[str, Any]) -> str | None:
    """Return why a key cannot verify tokens, or ``None`` if it can."""
    algorithm = _KINDS.get(jwk["kty"]) if isinstance(jwk.get("kty"), str) else None
    if algorithm is None:
        return "its type is not supported"
    if jwk.get("alg", algorithm) != algorithm:
        return f"it is for another algorithm than {algorithm}"
    if algorithm in ("ES256", "EdDSA") and jwk.get("crv") not in ("P-256", "Ed25519"):
        return "its curve is not supported"
    if jwk.get("use", "sig") != "sig":
        return "it is not for signatures"
    operations = jwk.get("key_ops", ["verify"])
    return None if isinstance(operations, list) and "verify" in operations else "it is not for checking signatures"


def _read_jwk(jwk: dict[str, Any]) -> Key:
    if jwk["kty"] == "oct":
        return _read_secret(jwk.get("k"))
    if "d" in jwk:
        raise ValueError("it is a private key: give the server only public keys")
    try:
        return _public_key(PyJWK(jwk, algorithm=_KINDS[jwk["kty"]]).key)
    except (PyJWTError, ValueError, TypeError, KeyError, UnsupportedAlgorithm) as error:
        raise ValueError(str(error) if type(error) is ValueError else "it is malformed") from None


def _read_secret(encoded: object) -> Key:
    try:
        assert isinstance(encoded, str)
        secret = urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4))
    except (AssertionError, ValueError, binascii.Error):
        raise ValueError("it is malformed") from None
    if len(secret) < _MIN_SECRET_SIZE:
        raise ValueError(f"the secret is shorter than {_MIN_SECRET_SIZE} bytes")
    return Key("HS256", secret)
