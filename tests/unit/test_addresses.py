"""Which addresses are public, on both sides of every boundary, and what the names and networks of an operator allow."""

from __future__ import annotations

import ipaddress
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamware.addresses import embedded, kind_of, literal, parse, parse_network
from streamware.errors import NotAllowed
from streamware.policy import Policy

# First and last address of each network that is not public, and its kind; the addresses beside it are tried too.
NETWORKS = [
    ("0.0.0.0", "0.255.255.255", "reserved"),
    ("10.0.0.0", "10.255.255.255", "private"),
    ("100.64.0.0", "100.127.255.255", "private"),
    ("127.0.0.0", "127.255.255.255", "loopback"),
    ("169.254.0.0", "169.254.255.255", "link-local"),
    ("172.16.0.0", "172.31.255.255", "private"),
    ("192.0.0.0", "192.0.0.255", "reserved"),
    ("192.0.2.0", "192.0.2.255", "reserved"),
    ("192.88.99.0", "192.88.99.255", "reserved"),
    ("192.168.0.0", "192.168.255.255", "private"),
    ("198.18.0.0", "198.19.255.255", "reserved"),
    ("198.51.100.0", "198.51.100.255", "reserved"),
    ("203.0.113.0", "203.0.113.255", "reserved"),
    ("224.0.0.0", "255.255.255.255", "reserved"),
    ("::", "::", "reserved"),
    ("::1", "::1", "loopback"),
    ("::2", "::ffff:ffff", "wrapped"),
    ("::ffff:0.0.0.0", "::ffff:255.255.255.255", "wrapped"),
    ("::ffff:0:0:0", "::ffff:0:ffff:ffff", "wrapped"),
    ("64:ff9b::", "64:ff9b::ffff:ffff", "wrapped"),
    ("64:ff9b:1::", "64:ff9b:1:ffff:ffff:ffff:ffff:ffff", "wrapped"),
    ("100::", "100::ffff:ffff:ffff:ffff", "reserved"),
    ("1fff::", "1fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "reserved"),
    ("2001::", "2001:0:ffff:ffff:ffff:ffff:ffff:ffff", "wrapped"),
    ("2001:1::", "2001:1ff:ffff:ffff:ffff:ffff:ffff:ffff", "reserved"),
    ("2001:db8::", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", "reserved"),
    ("2002::", "2002:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "wrapped"),
    ("3ffe::", "3ffe:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "reserved"),
    ("3fff::", "3fff:fff:ffff:ffff:ffff:ffff:ffff:ffff", "reserved"),
    ("4000::", "fbff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "reserved"),
    ("5f00::", "5f00:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "reserved"),
    ("fc00::", "fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "private"),
    ("fe80::", "febf:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "link-local"),
    ("fec0::", "feff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "reserved"),
    ("ff00::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "reserved"),
]
METADATA = [
    "169.254.169.254",
    "169.254.170.2",
    "169.254.170.23",
    "168.63.129.16",
    "192.0.0.192",
    "100.100.100.200",
    "fd00:ec2::254",
    "fd00:ec2::23",
    "fd20:ce::254",
    "fd00:c1::a9fe:a9fe",
    "fd00:42::42",
]


@pytest.mark.case(39)
@pytest.mark.parametrize(("first", "last", "kind"), NETWORKS)
def test_networks_that_are_not_public(first: str, last: str, kind: str) -> None:
    low, high = parse(first), parse(last)
    assert kind_of(low) == kind_of(high) == kind
    middle = type(low)((int(low) + int(high)) // 2)
    assert kind_of(middle) == kind
    assert kind_of(parse(low.packed)) == kind


@pytest.mark.parametrize(
    "beside",
    [
        *("1.0.0.0", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0", "126.255.255.255", "128.0.0.0"),
        *("169.253.255.255", "169.255.0.0", "172.15.255.255", "172.32.0.0", "191.255.255.255", "192.0.1.0"),
        *("192.0.1.255", "192.0.3.0", "192.88.98.255", "192.88.100.0", "192.167.255.255", "192.169.0.0"),
        *("198.17.255.255", "198.20.0.0", "198.51.99.255", "198.51.101.0", "203.0.112.255", "203.0.114.0"),
        *("223.255.255.255", "168.63.129.15", "168.63.129.17", "8.8.8.8"),
        *("2000::", "2001:200::", "2001:db7:ffff::", "2001:db9::", "2001:ffff:ffff::", "2003::", "3ffd:ffff::"),
        *("3fff:1000::", "3fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "2606:4700:4700::1111"),
    ],
)
def test_what_is_right_beside_them_is_public(beside: str) -> None:
    assert kind_of(parse(beside)) == "public"


@pytest.mark.case(39)
@pytest.mark.parametrize("address", METADATA)
def test_metadata_is_known_by_itself(address: str) -> None:
    assert kind_of(parse(address)) == "metadata"


@given(st.ip_addresses())
def test_python_calls_nothing_private_that_is_public_here(address: ipaddress.IPv4Address) -> None:
    if kind_of(address) == "public":
        assert not any((address.is_private, address.is_loopback, address.is_link_local, address.is_multicast))


@pytest.mark.parametrize(
    ("text", "inner"),
    [
        ("::ffff:127.0.0.1", "127.0.0.1"),
        ("::7f00:1", "127.0.0.1"),
        ("::ffff:0:7f00:1", "127.0.0.1"),
        ("64:ff9b::a9fe:a9fe", "169.254.169.254"),
        ("2002:7f00:1::", "127.0.0.1"),
        ("2002:a00:1:ffff:ffff:ffff:ffff:ffff", "10.0.0.1"),
        ("2001:0:808:808:0:0:f5ff:fffe", "10.0.0.1"),
        ("64:ff9b:1::7f00:1", None),
        ("2606:4700::1", None),
        ("127.0.0.1", None),
    ],
)
def test_the_address_inside(text: str, inner: str | None) -> None:
    assert embedded(parse(text)) == (None if inner is None else parse(inner))


def test_a_scope_says_nothing_of_where_to() -> None:
    assert parse("fe80::1%eth0") == parse("fe80::1")
    assert kind_of(parse("fe80::1%eth0")) == "link-local"
    assert kind_of(parse("::1%1")) == "loopback"
    assert parse(socket.inet_pton(socket.AF_INET6, "::1")) == parse("::1")
    for text in ("", "localhost", "127.1", "%eth0", b"12345"):
        with pytest.raises(ValueError, match=r".*"):
            parse(text)


# --- what the operator writes ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", ["10.0.0.0/8", "127.0.0.2", "127.0.0.2/32", "0.0.0.0/0", "fd00::/8", "::1", "64:ff9b::/96", "FD00::/8"]
)
def test_networks(text: str) -> None:
    assert str(parse_network(text)) == str(ipaddress.ip_network(text))
    assert Policy(allow_networks=text).allow_networks == (text,)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "no network"),
        ("internal", "no network"),
        ("10.0.0.0/", "no network"),
        ("10.0.0.0/8/8", "no network"),
        ("10.0.0.0/255.0.0.0", "no network"),
        ("10.0.0.0/0.255.255.255", "no network"),
        (" 10.0.0.0/8", "no network"),
        ("10.0.0.0/-1", "no network"),
        ("10.0.0.0/८", "no network"),
        ("fe80::%eth0/64", "no network"),
        ("http://10.0.0.0/8", "no network"),
        ("10.0.0.1/8", "host bits"),
        ("fd00::1/8", "host bits"),
        ("10.0.0.0/33", "does not appear"),
        ("10.0/8", "does not appear"),
        ("10/8", "does not appear"),
        ("010.0.0.0/8", "does not appear"),
        ("fd00::/129", "does not appear"),
    ],
)
def test_what_is_no_network(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=f"^Policy.allow_networks: {text!r}: .*{why}"):
        Policy(allow_networks=("192.168.0.0/16", text))


@pytest.mark.parametrize(
    "host",
    [
        *("127.1", "127.0.1", "0", "1", "2130706433", "0x7f000001", "0X7F000001", "0x", "017700000001", "0177.0.0.1"),
        *("127.0.0.01", "0x7f.0.0.1", "127.0.0.0x1", "127.0.0.256", "1.2.3.4.5", "a.1", "a.0x7f", "[::ffff:10.0.0.1]"),
        *("[::ffff:a00:1]", "[1::2::3]", "[::1.2.3]"),
    ],
)
def test_a_prefix_names_an_address_in_one_way_only(host: str) -> None:
    with pytest.raises(ValueError, match=r"^Policy\.allow: "):
        Policy(allow=f"http://{host}/")


def test_literals() -> None:
    assert literal("10.0.0.7") == parse("10.0.0.7")
    assert literal("::1") == parse("::1")
    assert literal("10.0.0.7.example") is None
    assert literal("0x7f.example") is None


# --- where a prefix lets its name lead ---------------------------------------------------------------------------


def leads(prefix: str, address: str, *networks: str) -> bool:
    host = prefix.strip("[]")
    policy = Policy(allow=f"http://{prefix}:8080/logs/", allow_networks=networks)
    try:
        policy.admit_address(host, address)
    except NotAllowed:
        return False
    return True


def test_the_refusal_says_what_would_allow_it() -> None:
    policy = Policy(allow="http://a.example/")
    for address, words in (
        ("10.0.0.1", r"a\.example leads to 10\.0\.0\.1, .*\(private\).*--allow-network 10\.0\.0\.1 on"),
        ("64:ff9b::a00:1", r"--allow-network 64:ff9b::a00:1 --allow-network 10\.0\.0\.1 on"),
    ):
        with pytest.raises(NotAllowed, match=words) as refused:
            policy.admit_address("a.example", address)
        assert not refused.value.detail_is_public


EVERYWHERE = ["10.0.0.1", "100.64.0.1", "fd00::1", "127.0.0.1", "::1", "169.254.0.1", "fe80::1", "0.0.0.0", *METADATA]


@pytest.mark.case(39)
@pytest.mark.parametrize("address", EVERYWHERE)
def test_a_public_name_leads_to_public_addresses(address: str) -> None:
    assert not leads("files.example.com", address)
    assert leads("files.example.com", "8.8.8.8")
    assert leads("files.example.com", "2606:4700::1")
    # names that only look like private ones
    for name in ("xlocalhost.com", "localhost.com", "internal.com", "a.xlocal", "home.arpa.com", "a.arpa", "a.b"):
        assert not leads(name, address)


@pytest.mark.parametrize(
    "name",
    [
        *("db", "node-7", "a.internal", "a.local", "a.lan", "a.home.arpa", "ns.svc", "a.ns.svc.cluster.local"),
        *("a.intranet", "a.corp", "a.private", "A.B.Internal"),
    ],
)
def test_a_private_name_leads_to_private_addresses_too(name: str) -> None:
    name = name.lower()
    for address in ("10.0.0.1", "172.31.0.1", "192.168.9.9", "100.64.0.1", "fd00::1", "8.8.8.8"):
        assert leads(name, address)
    for address in ("127.0.0.1", "::1", "169.254.0.1", "fe80::1%eth0", "0.0.0.0", "::ffff:10.0.0.1", *METADATA):
        assert not leads(name, address)


def test_localhost_leads_to_loopback() -> None:
    for name in ("localhost", "a.localhost"):
        assert leads(name, "127.0.0.1")
        assert leads(name, "::1")
        for address in EVERYWHERE:
            assert leads(name, address) == (address in ("127.0.0.1", "::1"))


@pytest.mark.parametrize("address", EVERYWHERE)
def test_an_address_leads_to_itself(address: str) -> None:
    host = f"[{address}]" if ":" in address else address
    for other in EVERYWHERE:
        assert leads(host, other) == (other == address)
    if ":" not in address:
        assert not leads(host, f"::ffff:{address}")


def test_networks_open_what_they_hold() -> None:
    assert leads("a.example", "10.1.2.3", "192.168.0.0/16", "10.0.0.0/8")
    assert not leads("a.example", "192.168.1.1", "10.0.0.0/8")
    assert leads("a.example", "127.0.0.2", "127.0.0.2")
    assert not leads("a.example", "127.0.0.1", "127.0.0.2")
    assert leads("a.example", "fe80::1%eth0", "fe80::/10")
    assert leads("a.example", "::1", "::/0")
    assert not leads("a.example", "::1", "0.0.0.0/0")


@pytest.mark.parametrize("address", METADATA)
def test_the_networks_around_metadata_do_not_open_it(address: str) -> None:
    assert not leads("a.example", address, "0.0.0.0/0", "::/0", "169.254.0.0/16", "100.64.0.0/10", "fd00::/8")
    assert leads("a.example", address, address)


def test_a_gateway_does_not_make_up_for_where_it_leads() -> None:
    assert not leads("a.example", "64:ff9b::808:808")
    assert leads("a.example", "64:ff9b::808:808", "64:ff9b::/96")
    assert not leads("a.example", "64:ff9b::a00:1", "64:ff9b::/96")
    assert leads("a.example", "64:ff9b::a00:1", "64:ff9b::/96", "10.0.0.0/8")
    assert not leads("a.example", "64:ff9b::a00:1", "10.0.0.0/8")
    assert not leads("a.example", "64:ff9b::a9fe:a9fe", "::/0", "0.0.0.0/0")
    assert not leads("10.0.0.1", "::ffff:10.0.0.1", "10.0.0.0/8")
    assert leads("db", "64:ff9b::a00:1", "64:ff9b::/96")


def test_a_host_that_no_prefix_names_leads_nowhere() -> None:
    policy = Policy(allow="http://a.example/")
    for host in ("b.example", "A.example", "a.example.", ""):
        with pytest.raises(NotAllowed):
            policy.admit_address(host, "8.8.8.8")
