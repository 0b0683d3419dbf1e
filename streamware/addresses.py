"""Where an IP address leads: the open Internet, a network of one's own, or nowhere a member should come from.

The rule of this file: pure, and the verdict is by the tables below, never by ``ipaddress.is_global``, whose answers
changed between patch releases of Python (CVE-2024-4032). Whatever no table calls public is not.

Sources: the IANA special-purpose registries (RFC 6890), RFC 6052 and 8215 (NAT64), RFC 3056 (6to4), RFC 4380 (Teredo),
RFC 6761 and 8375 (names), and the cloud providers' own pages.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Literal

__all__ = ["Address", "Kind", "Network", "embedded", "kind_of", "kinds_named", "literal", "parse", "parse_network"]

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
Kind = Literal["public", "private", "loopback", "link-local", "metadata", "wrapped", "reserved"]

# Machines of cloud providers that give credentials to whoever can ask. Some lie inside of networks that operators have
# good reasons to allow, one inside of the public Internet: so each is known by itself.
_METADATA = frozenset(
    map(
        ip_address,
        (
            "169.254.169.254",  # AWS, Azure, Google, and most others
            "169.254.170.2",  # AWS ECS
            "169.254.170.23",  # AWS EKS
            "168.63.129.16",  # Azure's wire server
            "192.0.0.192",  # Oracle
            "100.100.100.200",  # Alibaba
            "fd00:ec2::254",  # AWS
            "fd00:ec2::23",  # AWS EKS
            "fd20:ce::254",  # Google
            "fd00:c1::a9fe:a9fe",  # Oracle
            "fd00:42::42",  # Scaleway
        ),
    )
)

_IPV4_KINDS: tuple[tuple[str, Kind], ...] = (
    ("0.0.0.0/8", "reserved"),  # this network; Linux takes 0.0.0.0 for loopback
    ("10.0.0.0/8", "private"),
    ("100.64.0.0/10", "private"),  # behind a provider's NAT, and the pods of some clusters
    ("127.0.0.0/8", "loopback"),
    ("169.254.0.0/16", "link-local"),
    ("172.16.0.0/12", "private"),
    ("192.0.0.0/24", "reserved"),  # protocol assignments
    ("192.0.2.0/24", "reserved"),  # documentation
    ("192.88.99.0/24", "reserved"),  # 6to4 relays
    ("192.168.0.0/16", "private"),
    ("198.18.0.0/15", "reserved"),  # benchmarks
    ("198.51.100.0/24", "reserved"),  # documentation
    ("203.0.113.0/24", "reserved"),  # documentation
    ("224.0.0.0/4", "reserved"),  # multicast
    ("240.0.0.0/4", "reserved"),  # never given out; broadcast
    ("0.0.0.0/0", "public"),
)

_IPV6_KINDS: tuple[tuple[str, Kind], ...] = (
    ("::1/128", "loopback"),
    ("::/128", "reserved"),  # Linux takes it for loopback
    ("::/96", "wrapped"),  # IPv4-compatible
    ("::ffff:0:0/96", "wrapped"),  # IPv4-mapped
    ("::ffff:0:0:0/96", "wrapped"),  # IPv4-translated (RFC 2765)
    ("64:ff9b::/96", "wrapped"),  # NAT64
    ("64:ff9b:1::/48", "wrapped"),  # NAT64 of one network
    ("fc00::/7", "private"),
    ("fe80::/10", "link-local"),
    ("2001::/32", "wrapped"),  # Teredo
    ("2001::/23", "reserved"),  # protocol assignments, benchmarks, ORCHID
    ("2001:db8::/32", "reserved"),  # documentation
    ("2002::/16", "wrapped"),  # 6to4
    ("3ffe::/16", "reserved"),  # the 6bone's, given back
    ("3fff::/20", "reserved"),  # documentation
    ("2000::/3", "public"),
    ("::/0", "reserved"),  # multicast, site-local, discard-only, and all that is not given out
)

# The first network of its table that holds an address decides.
_IPV4 = tuple((IPv4Network(text), kind) for text, kind in _IPV4_KINDS)
_IPV6 = tuple((IPv6Network(text), kind) for text, kind in _IPV6_KINDS)

# Where an IPv4 address stands inside of an IPv6 one: bits below it, and what it is XORed with.
_EMBEDDED = (
    (IPv6Network("::/96"), 0, 0),
    (IPv6Network("::ffff:0:0/96"), 0, 0),
    (IPv6Network("::ffff:0:0:0/96"), 0, 0),
    (IPv6Network("64:ff9b::/96"), 0, 0),
    (IPv6Network("2001::/32"), 0, 0xFFFFFFFF),
    (IPv6Network("2002::/16"), 80, 0),
)

_NETWORK = re.compile(r"[0-9A-Fa-f.:]+(?:/[0-9]{1,3})?\Z")
_NUMBER = re.compile(r"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)\Z", re.IGNORECASE)
_LOOPBACK_NAME = re.compile(r"(?:.*\.)?localhost\Z")
_PRIVATE_NAME = re.compile(r"[^.:]+\Z|.*\.(?:internal|local|lan|home\.arpa|svc|intranet|corp|private)\Z")


def parse(text: str | bytes) -> Address:
    """An address as ``getaddrinfo`` writes it, or its 4 or 16 bytes. A scope ("%eth0") says through which interface,
    not where to, and is left out.

    :raises ValueError: it is none.
    """
    return ip_address(text.partition("%")[0] if isinstance(text, str) else text)


def kind_of(address: Address) -> Kind:
    """Which sort of place an address leads to. Only "public" is global unicast; "wrapped" ones lead to an IPv4 address
    by way of some gateway, see ``embedded``.
    """
    if address in _METADATA:
        return "metadata"
    table = _IPV4 if isinstance(address, IPv4Address) else _IPV6
    return next(kind for network, kind in table if address in network)


def embedded(address: Address) -> IPv4Address | None:
    """The IPv4 address that a "wrapped" one stands for; None if nobody outside its network can tell, or it is not."""
    if kind_of(address) == "wrapped":
        for network, shift, mask in _EMBEDDED:
            if address in network:
                return IPv4Address((int(address) >> shift & 0xFFFFFFFF) ^ mask)
    return None


def parse_network(text: str) -> Network:
    """A network such as "10.0.0.0/8" or "fd00::/8"; an address alone is a network of one.

    :raises ValueError: with a text for the operator: no network, a netmask in place of a length, or bits behind the
        length that are not 0, which may be a slip.
    """
    if not _NETWORK.match(text):
        raise ValueError("it is no network such as 10.0.0.0/8 or fd00::/8")
    try:
        return ip_network(text)
    except ValueError as error:
        raise ValueError(str(error).removeprefix(f"{text!r} ").removeprefix(f"{text} ")) from error


def literal(host: str) -> Address | None:
    """The address that the host of a URL is, brackets taken off; None for a name.

    :raises ValueError: a number in one of the forms that programs read differently: decimal, hexadecimal, octal or
        short (127.1), or an IPv4 address in the clothes of IPv6.
    """
    if ":" in host:
        address = IPv6Address(host)
        if address.ipv4_mapped is not None:
            raise ValueError(f"write {address.ipv4_mapped} instead")
        return address
    if not _NUMBER.match(host):
        return None
    try:
        return IPv4Address(host)
    except ValueError as error:
        raise ValueError("an IPv4 address is four decimal numbers without leading zeros") from error


def kinds_named(host: str) -> frozenset[Kind]:
    """The sorts of places, besides public ones, that a name in lower case promises by its form.

    Names that only a network of one's own can resolve promise private addresses, localhost (RFC 6761 section 6.3)
    promises loopback. None of them promises link-local addresses or metadata.
    """
    if _LOOPBACK_NAME.match(host):
        return frozenset({"loopback"})
    return frozenset({"private"} if _PRIVATE_NAME.match(host) else ())
