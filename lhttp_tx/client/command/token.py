"""
``lhttp token``: makes JSON Web Tokens (RFC 7519) with a secret, and shows their content. It needs no server.

It supports only HS256 (RFC 7518, section 3.2), which needs only the standard library.
"""

from __future__ import annotations

import binascii
import hmac
import json
import re
import sys
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from pathlib import Path
from typing import Any

import click

from lhttp_tx.client.command.running import Exit
from lhttp_tx.client.command.text import escaped, say, write_line

__all__ = ["token_command"]

_MIN_SECRET_SIZE = 32
_MAX_SIZE = 65_536
_TIME = re.compile(r"([1-9][0-9]{0,8})([smhd]?)")
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3_600, "d": 86_400}


class _TokenError(click.ClickException):
    """Raised for a token or a secret that cannot be used."""


def _seconds(_: click.Context, __: click.Parameter, value: str) -> int:
    found = _TIME.fullmatch(value)
    if found is None:
        raise click.BadParameter("it is a number of seconds, or a text such as 90s, 15m, 24h or 7d")
    return int(found[1]) * _UNITS[found[2]]


def _claims(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> dict[str, Any]:
    claims: dict[str, Any] = {}
    for value in values:
        name, equals, text = value.partition("=")
        if not name or not equals:
            raise click.BadParameter("a claim is written NAME=VALUE")
        try:
            claims[name] = json.loads(text)
        except (ValueError, RecursionError):
            claims[name] = text
    return claims


def _secret(path: Path) -> bytes:
    secret = path.read_bytes().rstrip(b"\r\n")
    if secret.startswith(b"-----BEGIN"):
        raise _TokenError(f"{path} contains a PEM key; this command supports only secrets for HS256")
    if len(secret) < _MIN_SECRET_SIZE:
        raise _TokenError(f"the secret in {path} is shorter than {_MIN_SECRET_SIZE} bytes")
    return secret


def _encode(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def _decode(text: str) -> bytes:
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _sign(signed: str, secret: bytes) -> bytes:
    return hmac.digest(secret, signed.encode("ascii"), "sha256")


@click.group("token")
def token_command() -> None:
    """Make and read JSON Web Tokens, for servers with --jwt-key-file."""


_key_file = click.Path(exists=True, dir_okay=False, path_type=Path)


@token_command.command("make")
@click.argument("user", metavar="USER")
@click.option("--key-file", metavar="FILE", type=_key_file, required=True, help="File with the secret for HS256.")
@click.option(
    "--expires",
    metavar="TIME",
    default="1h",
    show_default=True,
    callback=_seconds,
    help="Time until the token expires: seconds, or 90s, 15m, 24h, 7d.",
)
@click.option("--audience", metavar="NAME", help="The claim aud, for a server with --jwt-audience.")
@click.option("--issuer", metavar="NAME", help="The claim iss, for a server with --jwt-issuer.")
@click.option(
    "--claim", "claims", metavar="NAME=VALUE", multiple=True, callback=_claims, help="Add a claim; VALUE may be JSON."
)
def make_command(
    user: str, key_file: Path, expires: int, audience: str | None, issuer: str | None, claims: dict[str, Any]
) -> int:
    """
    Make a token for USER, and print it.

    The secret is the one of the server's --jwt-key-file. Until the token expires, anyone who has it can log in as USER.
    """
    now = int(time.time())
    payload = {"sub": user, "iat": now, "exp": now + expires, "aud": audience, "iss": issuer}
    payload = {name: value for name, value in payload.items() if value is not None} | claims
    parts = [{"alg": "HS256", "typ": "JWT"}, payload]
    signed = ".".join(_encode(json.dumps(part, separators=(",", ":")).encode("utf-8")) for part in parts)
    write_line(f"{signed}.{_encode(_sign(signed, _secret(key_file)))}")
    return Exit.OK


@token_command.command("read")
@click.argument("file", metavar="[FILE]", required=False, type=click.Path(dir_okay=False, path_type=Path))
@click.option("--key-file", metavar="FILE", type=_key_file, help="Check the signature with the secret in FILE.")
def read_command(file: Path | None, key_file: Path | None) -> int:
    """
    Print the contents of the token in FILE, or on the standard input: the header, then the claims, as JSON.

    Without --key-file, the command does not check the signature, and says so. It fails if the token has expired, is not
    valid yet, or has a wrong signature.
    """
    if file is None:
        text = sys.stdin.read(_MAX_SIZE)
    else:
        with file.open(encoding="utf-8", errors="replace") as stream:
            text = stream.read(_MAX_SIZE)
    try:
        first, second, third = text.strip().split(".")
        header, payload, signature = json.loads(_decode(first)), json.loads(_decode(second)), _decode(third)
    except (ValueError, RecursionError, binascii.Error):
        raise _TokenError("this is not a token: a token is three parts of base64 with dots between them") from None
    if not isinstance(header, dict) or not isinstance(payload, dict):
        raise _TokenError("this is not a token: its parts are not JSON objects")
    for part in (header, payload):
        write_line(json.dumps(part, ensure_ascii=True, indent=2))
    problems = list(_times(payload, time.time()))
    if key_file is None:
        say("the signature was not checked; give --key-file")
    elif header.get("alg") != "HS256":
        problems.append(f"the algorithm {escaped(str(header.get('alg')))[:40]} cannot be checked, only HS256")
    elif not hmac.compare_digest(signature, _sign(f"{first}.{second}", _secret(key_file))):
        problems.append("the signature is wrong")
    for problem in problems:
        say(problem)
    return Exit.FAILED if problems else Exit.OK


def _times(payload: dict[str, Any], now: float) -> list[str]:
    told = []
    for name, what, wrong in (("exp", "expired", -1), ("nbf", "is not valid yet: it begins", 1)):
        value = payload.get(name)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float):
            told.append(f"the claim {name} is not a number")
        elif (value - now) * wrong > 0:
            told.append(f"the token {what} {abs(now - value):.0f} seconds {'ago' if wrong < 0 else 'from now'}")
    if "exp" not in payload:
        told.append("the token has no claim exp: a server refuses it")
    return told
