"""lhttp_tx.upstream.targets: nothing that the operator did not list, and nothing that could be read in two ways."""

import ipaddress
import posixpath
from urllib.parse import unquote, unquote_to_bytes, urlsplit

import pytest
from hypothesis import example, given, strategies as st

from lhttp_tx.errors import LHTTPError, RemoteProtocolError, UpstreamForbidden
from lhttp_tx.upstream.targets import METHODS, Target, TargetPolicy, parse_upstream

ALLOWED = "http://backend.example:8000/record"
POLICY = TargetPolicy([ALLOWED])


def status_of(url: str, policy: TargetPolicy = POLICY) -> int | None:
    """Return the status with which *url* is refused, or ``None`` if it is allowed."""
    try:
        policy.check(Target.parse(url))
    except LHTTPError as error:
        return error.status
    return None


# The list


@pytest.mark.parametrize(
    "rest", ["", "/", "/x", "/x/y.z", "?a=b", "/x?a=/../b", "//", "/%20", "/a%25b", "/x;p=1", "/...", "/.x", "/x.."]
)
def test_path_below_the_listed_one_is_allowed(rest: str) -> None:
    assert status_of(ALLOWED + rest) is None


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost:8000/record",
        "http://127.0.0.1:8000/record",
        "http://127.1:8000/record",
        "http://2130706433:8000/record",
        "http://0x7f000001:8000/record",
        "http://0177.0.0.1:8000/record",
        "http://[::1]:8000/record",
        "http://[::ffff:127.0.0.1]:8000/record",
        "http://169.254.169.254/latest/meta-data/",
        "http://evil.example:8000/record",
        "http://backend.example.evil.example:8000/record",
        "http://x.backend.example:8000/record",
        "http://BACKEND.example:8000/record",
        "http://backend.example/record",
        "http://backend.example:80/record",
        "http://backend.example:8001/record",
        "http://backend.example:18000/record",
        "https://backend.example:8000/record",
        "http://backend.example:8000",
        "http://backend.example:8000/",
        "http://backend.example:8000/recordings",
        "http://backend.example:8000/record;x",
        "http://backend.example:8000/Record",
        "http://backend.example:8000//record",
        "http://backend.example:8000/%72ecord",
        "http://backend.example:8000/record%3fx",
        "http://backend.example:8000?/record",
        "http://backend.example:8000/x/record",
    ],
)
def test_target_that_is_not_listed_is_forbidden(url: str) -> None:
    assert status_of(url) == 403


@pytest.mark.parametrize(
    "url",
    [
        "http://user@backend.example:8000/record",
        "http://user:secret@backend.example:8000/record",
        "http://backend.example:8000@evil.example/record",
        "http://@backend.example:8000/record",
        "http://backend.example:8000\\@evil.example/record",
        "http://backend.example:8000#@evil.example/record",
        "http://backend.example:8000/record#x",
        "http://backend.example.:8000/record",
        "http://backend%2eexample:8000/record",
        "http://backend\u3002example:8000/record",
        "http://\uff42ackend.example:8000/record",
        "http://backend.example:08000/record",
        "http://backend.example:\uff18000/record",
        "http://backend.example:/record",
        "http://backend.example:0/record",
        "http://backend.example:65536/record",
        "http://backend.example:8000/record/../admin",
        "http://backend.example:8000/record/..",
        "http://backend.example:8000/record/.",
        "http://backend.example:8000/record/./x",
        "http://backend.example:8000/record/%2e%2e/admin",
        "http://backend.example:8000/record/.%2E/admin",
        "http://backend.example:8000/record/..;x/admin",
        "http://backend.example:8000/record/..%3Bx/admin",
        "http://backend.example:8000/record%2F..%2fadmin",
        "http://backend.example:8000/record/..%5Cadmin",
        "http://backend.example:8000/record/x%00",
        "http://backend.example:8000/record/%",
        "http://backend.example:8000/record/%g0",
        "http://backend.example:8000/record\\..\\admin",
        "http://backend.example:8000/record/a b",
        "http://backend.example:8000/record/\r\nX: y",
        "http://backend.example:8000/record/\u00e9",
        "http://backend.example:8000/record?\u00e9",
        "http://backend.example:8000/record\n",
        " http://backend.example:8000/record",
        "HTTP://backend.example:8000/record",
        "ftp://backend.example:8000/record",
        "file:///record",
        "//backend.example:8000/record",
        "http:/backend.example:8000/record",
        "http:///record",
        "http://[::1/record",
        "http://[fe80::1%25eth0]/record",
        "/record",
        "",
        ALLOWED + "/" + "a" * 2_048,
    ],
)
def test_url_that_is_no_plain_one_is_malformed(url: str) -> None:
    assert status_of(url) == 400


HIDING = {
    "dots, twice": "%252e%252e/admin",
    "dots, twice, piece by piece": "%25%32%65%25%32%65/admin",
    "dots, twice, only the second digit": "%252%65%252%65/admin",
    "dots, twice, only the first digit": "%25%32e./admin",
    "dots, three times": "%25252e%25252e/admin",
    "a dot segment behind a parameter, twice": "..%253bx/admin",
    "a dot segment before a question mark": "..%3fx/admin",
    "a dot segment before a number sign, twice": "..%2523x",
    "a dot segment with blanks around it": "%20..%20/admin",
    "slash, twice": "x%25%32fadmin",
    "slash, twice, the last digit": "x%252%66admin",
    "slash, three times": "x%25252fadmin",
    "backslash, twice": "x%255%63admin",
    "NUL, twice": "x%250%30",
    "line break": "x%0d%0aX:%20y",
    "line break, twice": "x%250d%250a",
    "overlong, two bytes": "%c0%ae%c0%ae/admin",
    "overlong, three bytes": "%e0%80%ae%e0%80%ae/admin",
    "overlong, four bytes": "%f0%80%80%af",
    "overlong, twice": "%25c0%25ae",
    "of old": "%25u002e%25u002e/admin",
    "wide dots": "%ef%bc%8e%ef%bc%8e/admin",
    "wide dots, twice": "%25ef%25bc%258e./admin",
    "two dot leader": "%e2%80%a5/admin",
    "wide slash": "x%ef%bc%8fadmin",
    "wide backslash": "x%ef%bc%bcadmin",
    "more often than anybody": "%" + "25" * 9 + "41",
    "as often as the length allows": "%" + "25" * 900 + "2e",
}


@pytest.mark.parametrize("hiding", HIDING)
def test_path_that_hides_something_is_malformed(hiding: str) -> None:
    assert status_of(f"{ALLOWED}/{HIDING[hiding]}") == 400


@pytest.mark.parametrize("rest", ["a%2525b", "%25", "%25zz", "%C3%A9", "%25C3%25A9", "%E9", "a%20b", "100%25", "x%3fy"])
def test_path_that_hides_nothing_is_allowed(rest: str) -> None:
    assert status_of(f"{ALLOWED}/{rest}") is None


def test_a_path_is_decoded_a_few_times_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    decoded = []

    def counted(data: bytes) -> bytes:
        decoded.append(len(data))
        return unquote_to_bytes(data)

    monkeypatch.setattr("lhttp_tx.upstream.targets.unquote_to_bytes", counted)
    assert status_of(f"{ALLOWED}/%{'25' * 900}41") == 400
    assert len(decoded) <= 8


@given(
    st.lists(st.sampled_from([*"./\\;?#%025cefx", "..", "\0", "\n", "%2e", "%2f", "\uff0e"]), max_size=6).map("".join),
    st.lists(st.sets(st.integers(0, 40)), max_size=4),
)
def test_whatever_is_allowed_has_the_same_segments_for_whoever_decodes_it(text: str, layers: list[set[int]]) -> None:
    data = text.encode()
    for layer in layers:  # any of its bytes encoded, any number of times
        data = b"".join(b"%%%02X" % byte if place in layer else bytes([byte]) for place, byte in enumerate(data))
    path = "/record/" + data.decode("utf-8", "replace")
    if status_of("http://backend.example:8000" + path) is not None:
        return
    read = path.partition("?")[0].encode()
    for _ in range(12):
        assert read.count(b"/") == path.partition("?")[0].count("/")
        assert not {b".", b".."} & {segment.split(b";")[0] for segment in read.split(b"/")}
        assert not set(b"\\\0\n") & set(read)
        read = unquote_to_bytes(read)


def test_nothing_is_allowed_without_a_list() -> None:
    policy = TargetPolicy()
    assert not policy
    assert status_of(ALLOWED, policy) == 403
    assert status_of("http://localhost/", policy) == 403


def test_each_of_the_list_is_allowed() -> None:
    policy = TargetPolicy(["http://one.example/a", "https://two.example"])
    assert policy
    allowed = ["http://one.example/a/b", "https://two.example", "https://two.example/x", "https://two.example?x"]
    assert [status_of(url, policy) for url in allowed] == [None] * 4
    assert [status_of(url, policy) for url in ("https://one.example/a", "http://two.example/")] == [403, 403]


@pytest.mark.parametrize("url", ["http://one.example/", "http://one.example:80/", "http://one.example:80"])
def test_port_may_be_left_out_where_it_is_the_schemes_own(url: str) -> None:
    policy = TargetPolicy([url])
    assert [status_of(f"http://one.example{port}/x", policy) for port in ("", ":80", ":443")] == [None, None, 403]


def test_slash_at_the_end_of_a_listed_path_changes_nothing() -> None:
    policy = TargetPolicy([ALLOWED + "/"])
    assert [status_of(ALLOWED + rest, policy) for rest in ("/x", "s", "")] == [None, 403, None]


def test_literal_address_is_allowed_as_it_is_written() -> None:
    policy = TargetPolicy(["http://127.0.0.1:8000/", "http://[::1]:8000/"])
    assert [status_of(f"http://{host}:8000/x", policy) for host in ("127.0.0.1", "[::1]")] == [None, None]
    assert [status_of(f"http://{host}:8000/x", policy) for host in ("127.1", "localhost", "[0::1]")] == [403] * 3


@pytest.mark.parametrize(
    "url",
    ["", "backend.example", "http://", "ftp://x/", "http://x/?q", "http://x/a/../b", "http://u@x/", "http://x:0/", "*"],
)
def test_url_that_cannot_be_listed_is_refused_with_a_reason(url: str) -> None:
    with pytest.raises(ValueError, match=r"upstream"):
        TargetPolicy([url])


hosts = ["backend.example", "localhost", "127.1", "[::1]", "http://", "https://", ":8000", ":80", "@", "é", "。"]
segments = ["/record", "/", "//", "..", ".", ";", "%2e", "%2F", "%5c", "%00", "%25", "%72", "\\", "x", "s"]
pieces = st.sampled_from([*hosts, *segments, "#", "?", " ", "\t", "\r\n"])


@given(
    st.lists(pieces, max_size=6).map("".join),
    st.sampled_from(["", "http://", "http://backend.example:8000", "http://backend.example:8000/record"]),
)
@example("/%2e%2e/admin", ALLOWED)
@example("@localhost/record", "http://backend.example:8000")
def test_whatever_is_allowed_is_below_the_listed_target_for_other_readers_too(rest: str, start: str) -> None:
    url = start + rest
    if status_of(url) is not None:
        return
    read = urlsplit(url)
    assert (read.scheme, read.hostname, read.port, read.username) == ("http", "backend.example", 8000, None)
    assert read.fragment == ""
    assert not {"\\", "\x00"} & set(unquote(read.path))
    normal = posixpath.normpath(unquote(read.path))
    assert normal == "/record" or normal.startswith("/record/")
    assert read.path.count("/") == unquote(read.path).count("/")


@given(st.lists(pieces | st.text(max_size=3), max_size=6).map("".join))
def test_parsing_raises_nothing_but_its_own_errors(url: str) -> None:
    try:
        target = Target.parse(url)
    except RemoteProtocolError as error:
        assert error.status == 400
        assert error.reason.isprintable()
    else:
        assert Target.parse(target.url) == target


# Backends that were written for the original


def test_of_several_the_longest_path_says_what_a_backend_gets() -> None:
    policy = TargetPolicy(["http://b/x/whole", "http://b/x/old/whole"], original=["http://b/x/old", "http://c"])
    told = {
        "http://b/x/whole": False,
        "http://b/x/old": True,
        "http://b/x/old/y": True,
        "http://b/x/old/whole": False,
        "http://b/x/old/whole/y": False,
        "http://b/x/older": None,
        "http://c/": True,
        "http://c:81/": None,
    }
    for url, expected in told.items():
        assert status_of(url, policy) == (403 if expected is None else None)
        assert policy.is_original(Target.parse(url)) == bool(expected)
    assert policy


def test_a_backend_cannot_be_both() -> None:
    with pytest.raises(ValueError, match="upstream http://b/x is listed as both kinds"):
        TargetPolicy(["http://b/x"], original=["http://b:80/x"])
    with pytest.raises(ValueError, match="is not a plain http or https URL"):
        TargetPolicy(original=["b"])


# The header


@pytest.mark.parametrize("method", sorted(METHODS))
def test_method_and_target_are_read(method: str) -> None:
    target = Target("http", "backend.example", 8000, "/record", "?a=b")
    assert parse_upstream(f"{method} {ALLOWED}?a=b") == (method, target)


@pytest.mark.parametrize("port", [80, 443, 8000])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_url_of_a_target_names_the_same_target(scheme: str, port: int) -> None:
    target = Target(scheme, "one.example", port, "/x", "?y")
    assert Target.parse(target.url) == target
    assert (f":{port}" in target.url) == ((scheme, port) not in {("http", 80), ("https", 443)})


@pytest.mark.parametrize("host", ["[:::1]", "[1.2.3.4]", "[:]", "[::1::]", "[12345::]"])
def test_brackets_hold_an_ipv6_address(host: str) -> None:
    with pytest.raises(RemoteProtocolError, match=r"is not an IPv6 address$"):
        Target.parse(f"http://{host}:8000/")


def test_url_without_a_path_names_the_root() -> None:
    assert Target.parse("http://one.example?a").url == "http://one.example/?a"


@pytest.mark.parametrize("value", ["", "POST", ALLOWED, f"post {ALLOWED}", f"HEAD {ALLOWED}", f"POST\t{ALLOWED}"])
def test_header_without_a_known_method_is_malformed(value: str) -> None:
    with pytest.raises(RemoteProtocolError, match=r"upstream (header|method)"):
        parse_upstream(value)


@pytest.mark.parametrize("value", [f"POST  {ALLOWED}", f"POST {ALLOWED} ", "POST ", f"POST {ALLOWED} HTTP/1.1"])
def test_header_without_a_plain_url_is_malformed(value: str) -> None:
    with pytest.raises(RemoteProtocolError, match="not a plain http or https URL"):
        parse_upstream(value)


def test_refusal_does_not_show_what_is_allowed() -> None:
    with pytest.raises(UpstreamForbidden) as caught:
        POLICY.check(Target.parse("http://evil.example/"))
    assert "backend" not in caught.value.reason


# Addresses

NEVER = [
    "0.0.0.0",
    "::",
    "169.254.0.1",
    "169.254.169.254",
    "fe80::1",
    "fe80::1%eth0",
    "febf::1",
    "224.0.0.1",
    "239.255.255.250",
    "ff02::1",
    "ff0e::1",
    "255.255.255.255",
    "240.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b::808:808",
    "64:ff9b:1::1",
    "2002:7f00:1::",
    "2002:808:808::1",
    "::ffff:169.254.169.254",
    "::ffff:0.0.0.0",
    "::ffff:224.0.0.1",
    "::127.0.0.1",
    "::ffff:0:127.0.0.1",
]
PRIVATE = [
    "127.0.0.1",
    "127.1.2.3",
    "::1",
    "::ffff:127.0.0.1",
    "::ffff:7f00:1",
    "10.0.0.1",
    "172.16.0.1",
    "172.31.255.255",
    "192.168.0.1",
    "::ffff:192.168.0.1",
    "100.64.0.1",
    "198.18.0.1",
    "192.0.2.1",
    "fc00::1",
    "fd12:3456::1",
    "fec0::1",
    "2001:db8::1",
]
PUBLIC = ["8.8.8.8", "1.1.1.1", "172.32.0.1", "128.0.0.1", "::ffff:8.8.8.8", "2606:4700:4700::1111", "2a00:1450::1"]


@pytest.mark.parametrize("public_only", [False, True])
@pytest.mark.parametrize(
    "address", [*NEVER, "", "localhost", "127.1", "2130706433", "0x7f000001", "1.2.3.4:80", "[::1]"]
)
def test_address_is_never_connected_to(address: str, public_only: bool) -> None:
    assert not TargetPolicy(public_only=public_only).allows_address(address)


@pytest.mark.parametrize("address", PRIVATE)
def test_private_address_is_refused_where_public_ones_are_asked_for(address: str) -> None:
    assert TargetPolicy().allows_address(address)
    assert not TargetPolicy(public_only=True).allows_address(address)


@pytest.mark.parametrize("public_only", [False, True])
@pytest.mark.parametrize("address", PUBLIC)
def test_public_address_is_connected_to(address: str, public_only: bool) -> None:
    assert TargetPolicy(public_only=public_only).allows_address(address)


@given(st.integers(0, 2**32 - 1), st.booleans())
def test_mapped_address_counts_as_the_one_inside(number: int, public_only: bool) -> None:
    inner = ipaddress.IPv4Address(number)
    policy = TargetPolicy(public_only=public_only)
    assert policy.allows_address(f"::ffff:{inner}") == policy.allows_address(str(inner))


@given(st.ip_addresses())
def test_public_only_allows_no_address_more(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    if TargetPolicy(public_only=True).allows_address(str(address)):
        assert TargetPolicy().allows_address(str(address))
        assert address.is_global or address in ipaddress.ip_network("::ffff:0:0/96")
