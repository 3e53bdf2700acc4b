"""Tokens: whose they are, and every way in which they are not good."""

from __future__ import annotations

import base64
import hmac
import json
from typing import Any

import pytest
from token_makers import FAR, SECRET, confused_token, jwk, make_token, public_pem, unsigned

from lhttp_tx import Identity, Message, Refused
from lhttp_tx.auth.attempts import LoginAttempt
from lhttp_tx.auth.keys import KeySet, read_jwks, read_key
from lhttp_tx.auth.tokens import TokenAuthenticator

NOW = 1_000_000.0


def bearer(token: str) -> LoginAttempt:
    return LoginAttempt("192.0.2.1", "c1", headers={"authorization": f"Bearer {token}"})


def secret(**options: Any) -> TokenAuthenticator:
    return TokenAuthenticator(read_key(SECRET), now=lambda: NOW, **options)


def reason(authenticator: TokenAuthenticator, token: str) -> str:
    with pytest.raises(Refused) as caught:
        authenticator.authenticate(bearer(token))
    assert caught.value.status == 401
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    return caught.value.reason


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
def test_a_token_of_the_right_key_is_good(algorithm: str) -> None:
    found = TokenAuthenticator(read_key(public_pem(algorithm))).authenticate(bearer(make_token(algorithm)))
    assert found is not None
    assert found.user == "alice"


def test_the_identity_has_the_claims_and_ends_with_the_token() -> None:
    found = secret(leeway=5).authenticate(bearer(make_token(role="admin")))
    assert found == Identity("alice", "c1", {"sub": "alice", "exp": FAR, "role": "admin"}, {}, "192.0.2.1", FAR + 5)


def test_who_has_no_token_is_unknown() -> None:
    assert secret().authenticate(LoginAttempt("", "")) is None
    assert secret().authenticate(LoginAttempt("", "", headers={"authorization": "Basic YTpi"})) is None


@pytest.mark.parametrize(
    ("options", "attempt"),
    [
        ({}, {"headers": {"authorization": "bearer TOKEN"}}),
        ({}, {"message": Message("login", {"token": "TOKEN"})}),
        ({"cookie": "session"}, {"headers": {"cookie": 'theme=dark; session="TOKEN"'}}),
        ({"parameter": "access_token"}, {"parameters": {"access_token": "TOKEN"}}),
    ],
)
def test_a_token_is_found_where_it_may_be(options: Any, attempt: Any) -> None:
    token = make_token()
    if "message" in attempt:
        attempt = {"message": Message("login", {"token": token})}
    else:
        attempt = json.loads(json.dumps(attempt).replace("TOKEN", token))
    assert secret(**options).authenticate(LoginAttempt("", "", **attempt)) is not None


@pytest.mark.parametrize("attempt", [{"headers": {"cookie": "session=x"}}, {"parameters": {"access_token": "x"}}])
def test_cookies_and_queries_are_not_looked_at_unless_asked_for(attempt: Any) -> None:
    assert secret().authenticate(LoginAttempt("", "", **attempt)) is None


def test_a_login_message_is_not_helped_out_by_the_handshake() -> None:
    attempt = LoginAttempt("", "", parameters={"t": make_token()}, message=Message("login"))
    assert secret(parameter="t").authenticate(attempt) is None


@pytest.mark.parametrize(
    "token",
    ["x", "a.b.c", "a.b.c.d.e", "é.é.é", "..", make_token() + ".x", "." + make_token(), "eyJhbGciOiJIUzI1NiJ9.e30"],
)
def test_malformed(token: str) -> None:
    assert reason(secret(), token) == "token is malformed"


def test_a_wrong_signature() -> None:
    token = make_token(key=b"another secret of thirty-two bytes or more")
    assert reason(secret(), token) == "token has a wrong signature"


def test_a_changed_claim() -> None:
    head, _, signature = make_token().split(".")
    body = base64.urlsafe_b64encode(json.dumps({"sub": "root", "exp": FAR}).encode()).rstrip(b"=").decode()
    assert reason(secret(), f"{head}.{body}.{signature}") == "token has a wrong signature"


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
def test_a_token_of_another_key_of_the_same_kind(algorithm: str) -> None:
    authenticator = TokenAuthenticator(read_key(public_pem(algorithm)))
    assert reason(authenticator, make_token(algorithm, number=1)) == "token has a wrong signature"


def test_an_unsigned_token() -> None:
    assert reason(secret(), unsigned()) == "token is signed with 'none', its key is for HS256"


@pytest.mark.parametrize("alg", ["None", "NONE", "nOnE", "", None, 1, ["HS256"], "HS512"])
def test_an_algorithm_that_the_key_is_not_for(alg: Any) -> None:
    _, body, signature = make_token().split(".")
    head = base64.urlsafe_b64encode(json.dumps({"alg": alg}).encode()).rstrip(b"=").decode()
    told = reason(secret(), f"{head}.{body}.{signature}")
    assert told in (f"token is signed with {alg!r}, its key is for HS256", "token is malformed")


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
def test_key_confusion(algorithm: str) -> None:
    public = public_pem(algorithm)
    authenticator = TokenAuthenticator(read_key(public))
    expected = f"token is signed with 'HS256', its key is for {algorithm}"
    assert {reason(authenticator, confused_token(secret)) for secret in (public, public.strip())} == {expected}


def test_what_an_error_repeats_is_short_and_plain() -> None:
    head = base64.urlsafe_b64encode(json.dumps({"alg": "\r\nx\u202e" * 50}).encode()).rstrip(b"=").decode()
    told = reason(secret(), f"{head}.e30.AAAA")
    assert told.isascii()
    assert told.isprintable()
    assert len(told) < 150


def test_expired() -> None:
    assert reason(secret(), make_token(exp=NOW)) == "token has expired"
    assert reason(secret(leeway=5), make_token(exp=NOW - 5)) == "token has expired"


def raw_token(claims: str, head: str = '{"alg":"HS256"}') -> str:
    """Return a signed token whose JSON is as it is written: numbers that no library would write."""
    parts = [base64.urlsafe_b64encode(part.encode()).rstrip(b"=") for part in (head, claims)]
    signature = hmac.digest(SECRET, b".".join(parts), "sha256")
    return b".".join([*parts, base64.urlsafe_b64encode(signature).rstrip(b"=")]).decode()


NUMBERS = {
    "huge": "1" + "0" * 400,
    "huge and negative": "-1" + "0" * 400,
    "more digits than Python reads": "9" * 5_000,
    "an exponent": "1e400",
    "NaN": "NaN",
    "infinite": "Infinity",
    "infinite and negative": "-Infinity",
    "beyond all calendars": "253402300800",
    "a large float": "1e308",
    "true": "true",
    "text": '"4102444800"',
    "null": "null",
    "array": "[4102444800]",
    "object": "{}",
    "nested": "[" * 5_000 + "]" * 5_000,
}


@pytest.mark.parametrize("name", ["exp", "nbf"])
@pytest.mark.parametrize("number", NUMBERS)
def test_a_time_that_is_none(name: str, number: str) -> None:
    claims = {"sub": '"alice"', "exp": str(FAR), name: NUMBERS[number]}
    token = raw_token("{" + ",".join(f'"{key}":{value}' for key, value in claims.items()) + "}")
    assert reason(secret(), token) in ("token is malformed", f"token is malformed: {name} is not a time")


@pytest.mark.parametrize("number", ["-1", "-0.0", "0", "1e-400", "-253402300799", "999999.999"])
def test_a_time_long_ago(number: str) -> None:
    assert reason(secret(), raw_token(f'{{"sub":"alice","exp":{number}}}')) == "token has expired"


@pytest.mark.parametrize("number", ["4102444800.5", "4.1024448e9", "253402300799"])
def test_a_time_to_come_may_be_written_in_any_way(number: str) -> None:
    found = secret().authenticate(bearer(raw_token(f'{{"sub":"alice","exp":{number}}}')))
    assert found is not None
    assert found.expires == float(number)


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("name", ["alg", "kid", "typ", "crit", "b64"])
def test_numbers_in_the_head(name: str, number: str) -> None:
    head = {"alg": '"HS256"', name: NUMBERS[number]}
    token = raw_token(
        f'{{"sub":"alice","exp":{FAR}}}', "{" + ",".join(f'"{key}":{value}' for key, value in head.items()) + "}"
    )
    for keys in (read_key(SECRET), read_jwks(json.dumps({"keys": [jwk("HS256", kid="a")]}).encode())):
        try:
            TokenAuthenticator(keys, now=lambda: NOW).authenticate(bearer(token))
        except Refused as error:
            assert error.status == 401


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("name", ["sub", "aud", "iss", "iat", "jti"])
def test_numbers_in_other_claims(name: str, number: str) -> None:
    claims = {"sub": '"alice"', "exp": str(FAR), "aud": '"chat"', "iss": '"us"', name: NUMBERS[number]}
    token = raw_token("{" + ",".join(f'"{key}":{value}' for key, value in claims.items()) + "}")
    try:
        secret(audience="chat", issuer="us").authenticate(bearer(token))
    except Refused as error:
        assert error.status == 401


def test_a_clock_that_is_a_little_wrong() -> None:
    authenticator = secret(leeway=5)
    assert authenticator.authenticate(bearer(make_token(exp=NOW - 4, nbf=NOW + 4))) is not None


def test_not_valid_yet() -> None:
    assert reason(secret(), make_token(nbf=NOW + 1)) == "token is not valid yet"


def test_a_token_must_expire() -> None:
    assert reason(secret(), make_token(exp=None)) == "token has no exp"


@pytest.mark.parametrize("aud", ["other", ["other", "more"], "cha", ["chat2"]])
def test_another_audience(aud: Any) -> None:
    assert reason(secret(audience="chat"), make_token(aud=aud)) == "token is for another audience"


@pytest.mark.parametrize("aud", [None, "", []])
def test_a_token_without_audience_where_one_is_asked_for(aud: Any) -> None:
    assert reason(secret(audience="chat"), make_token(aud=aud)) == "token has no aud"


def test_a_token_for_an_audience_where_the_server_is_none() -> None:
    assert reason(secret(), make_token(aud="chat")) == "token is for another audience"


@pytest.mark.parametrize("aud", ["chat", ["other", "chat"]])
def test_the_right_audience(aud: Any) -> None:
    assert secret(audience="chat").authenticate(bearer(make_token(aud=aud))) is not None


def test_another_issuer() -> None:
    authenticator = secret(issuer="https://id.example")
    assert reason(authenticator, make_token(iss="https://id.example.evil")) == "token is from another issuer"
    assert reason(authenticator, make_token(iss="https://id")) == "token is from another issuer"
    assert reason(authenticator, make_token()) == "token has no iss"
    assert authenticator.authenticate(bearer(make_token(iss="https://id.example"))) is not None


def test_an_extension_that_must_be_understood() -> None:
    told = reason(secret(), make_token(headers={"crit": ["x"], "x": 1}))
    assert told in ("token has a crit header", "token is malformed")  # newer versions of PyJWT find it, too


@pytest.mark.parametrize("sub", [None, 7, ["alice"]])
def test_a_token_without_a_user(sub: Any) -> None:
    assert reason(secret(), make_token(sub=sub)) == "token has no user: the claim 'sub' is missing, or is not text"


def test_another_claim_may_name_the_user() -> None:
    found = secret(user_claim="email").authenticate(bearer(make_token(email="a@b.example", sub=7)))
    assert found is not None
    assert found.user == "a@b.example"


@pytest.fixture
def keys() -> KeySet:
    content = {"keys": [jwk("RS256", kid="a"), jwk("ES256", kid="b"), jwk("HS256", kid="c")]}
    return read_jwks(json.dumps(content).encode("ascii"))


@pytest.mark.parametrize(("kid", "algorithm"), [("a", "RS256"), ("b", "ES256"), ("c", "HS256")])
def test_the_kid_chooses_the_key(keys: KeySet, kid: str, algorithm: str) -> None:
    token = make_token(algorithm, headers={"kid": kid})
    assert TokenAuthenticator(keys).authenticate(bearer(token)) is not None


def test_the_kid_does_not_choose_the_algorithm(keys: KeySet) -> None:
    token = make_token("HS256", headers={"kid": "a"}, key=public_pem("RS256")[27:80])
    assert reason(TokenAuthenticator(keys), token) == "token is signed with 'HS256', its key is for RS256"


def test_an_unknown_kid(keys: KeySet) -> None:
    told = reason(TokenAuthenticator(keys), make_token("RS256", headers={"kid": "z"}))
    assert told == "token has the kid 'z', which no key has"


def test_new_keys_are_looked_for_now_and_then(keys: KeySet) -> None:
    now, asked = [0.0], []
    newer = read_jwks(json.dumps({"keys": [jwk("ES256", 1, kid="z")]}).encode("ascii"))

    def refresh() -> KeySet | None:
        asked.append(now[0])
        return newer if now[0] >= 10 else None

    authenticator = TokenAuthenticator(keys, refresh=refresh, now=lambda: now[0])
    token = make_token("ES256", number=1, headers={"kid": "z"})
    assert "which no key has" in reason(authenticator, token)
    now[0] = 9.9
    assert "which no key has" in reason(authenticator, token)
    now[0] = 10.0
    assert authenticator.authenticate(bearer(token)) is not None
    assert asked == [0.0, 10.0]


def test_no_kid_among_several_keys(keys: KeySet) -> None:
    told = reason(TokenAuthenticator(keys), make_token("RS256"))
    assert told == "token has no kid, and there are several keys"


def test_one_key_needs_no_kid() -> None:
    keys = read_jwks(json.dumps({"keys": [jwk("ES256", kid="b")]}).encode("ascii"))
    assert TokenAuthenticator(keys).authenticate(bearer(make_token("ES256"))) is not None


def test_a_kid_says_nothing_to_a_key_without_a_name() -> None:
    assert secret().authenticate(bearer(make_token(headers={"kid": "any"}))) is not None
