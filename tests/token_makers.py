"""Keys and tokens for tests; nothing here uses the project."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from functools import cache
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

__all__ = [
    "FAR",
    "SECRET",
    "confused_token",
    "jwk",
    "make_token",
    "private_key",
    "private_pem",
    "public_pem",
    "unsigned",
]

SECRET = b"a secret of thirty-two bytes, or more"

FAR = 4_102_444_800
"""The year 2100: a time at which tokens expire that are to last."""


@cache
def private_key(algorithm: str, number: int = 0) -> Any:
    """Return a private key for *algorithm*, the same for the same *number*."""
    if algorithm == "RS256":
        return rsa.generate_private_key(65_537, 2048)
    return ec.generate_private_key(ec.SECP256R1()) if algorithm == "ES256" else ed25519.Ed25519PrivateKey.generate()


def public_pem(algorithm: str, number: int = 0) -> bytes:
    """Return the public key of :func:`private_key`."""
    return pem_of(private_key(algorithm, number).public_key())


def pem_of(public_key: Any) -> bytes:
    """Return a public key as PEM."""
    found: bytes = public_key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return found


def private_pem(algorithm: str) -> bytes:
    """Return the private key itself, which no server should have."""
    found: bytes = private_key(algorithm).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return found


def jwk(algorithm: str, number: int = 0, **fields: Any) -> dict[str, Any]:
    """Return a key as a member of a key set."""
    if algorithm == "HS256":
        found: dict[str, Any] = {"kty": "oct", "k": base64.urlsafe_b64encode(SECRET).rstrip(b"=").decode("ascii")}
    else:
        kind = jwt.get_algorithm_by_name(algorithm)
        found = json.loads(kind.to_jwk(private_key(algorithm, number).public_key()))
        found.pop("key_ops", None)
    return found | fields


def make_token(
    algorithm: str = "HS256", *, number: int = 0, headers: dict[str, Any] | None = None, key: Any = None, **claims: Any
) -> str:
    """Return a token of alice that lasts, with other claims; a claim that is ``None`` is left out."""
    found = {"sub": "alice", "exp": FAR} | claims
    found = {name: value for name, value in found.items() if value is not None}
    if key is None:
        key = SECRET if algorithm == "HS256" else private_key(algorithm, number)
    return jwt.encode(found, key, algorithm=algorithm, headers=headers)


def unsigned(**claims: Any) -> str:
    """Return a token with the algorithm none."""
    return jwt.encode({"sub": "alice", "exp": FAR} | claims, None, algorithm="none")


def confused_token(public: bytes) -> str:
    """Return a token whose secret for HS256 is a public key: the attack that is called key confusion."""
    parts = [json.dumps(part).encode("ascii") for part in ({"alg": "HS256", "typ": "JWT"}, {"sub": "eve", "exp": FAR})]
    signed = b".".join(_encode(part) for part in parts)
    return (signed + b"." + _encode(hmac.digest(public, signed, hashlib.sha256))).decode("ascii")


def _encode(part: bytes) -> bytes:
    return base64.urlsafe_b64encode(part).rstrip(b"=")
