"""What ``streamware serve`` is told: one frozen value, checked before anything listens.

The rule of this file: no default opens more than asked for - loopback only, no network upstreams.
"""

from __future__ import annotations

import os
import platform
import re
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from typing import NamedTuple

from streamware.checksums import engines
from streamware.policy import Policy
from streamware.server.tokens import Tokens

__all__ = ["VERSION", "Address", "Settings", "about", "parse_address", "parse_seconds", "parse_size"]

try:
    VERSION = version("streamware")
except PackageNotFoundError:  # run from a source tree that was never installed
    VERSION = "0+source"

_ADDRESS = re.compile(
    r"(?:\[(?P<six>[0-9A-Fa-f:.]+(?:%[\w.-]+)?)\]|(?P<host>[^\s:\[\]]+)):(?P<port>[0-9]{1,5})\Z", re.ASCII
)
_SIZE = re.compile(r"([0-9]{1,15})\s*([KMGT]?)(?:iB|B)?\Z", re.ASCII | re.IGNORECASE)
_SPAN = re.compile(r"([0-9]{1,12})\s*([smhdw]?)\Z", re.ASCII | re.IGNORECASE)
_SPANS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 24 * 3600, "w": 7 * 24 * 3600}


def about() -> str:
    """This version, and those of what computes with it, in a line for people."""
    return f"streamware {VERSION} (Python {platform.python_version()}; {engines()})"


class Address(NamedTuple):
    """Where to listen. ``port`` 0 lets the system pick one."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(text: str) -> Address:
    """Read ``HOST:PORT`` or ``[IPv6]:PORT``.

    A host is always needed: that everybody may connect is said with 0.0.0.0 or [::], never by leaving something out.

    :raises ValueError: with a text for the operator.
    """
    match = _ADDRESS.match(text)
    if match is None:
        raise ValueError(f"{text!r} is not HOST:PORT, such as 127.0.0.1:8080 or [::1]:8080")
    port = int(match["port"])
    if port > 65535:
        raise ValueError(f"{text!r}: a port is at most 65535")
    return Address(match["six"] or match["host"], port)


def parse_size(text: str) -> int:
    """Bytes, from a number and perhaps one of K, M, G and T, each 1,024 times the one before.

    :raises ValueError: with a text for the operator.
    """
    match = _SIZE.match(text.strip())
    if match is None or not int(match[1]):
        raise ValueError(f"a size is a number of bytes, or one with K, M, G or T behind it, such as 20G, not {text!r}")
    return int(match[1]) << (10 * " KMGT".index(match[2].upper() or " "))


def parse_seconds(text: str) -> int:
    """Seconds, from a number and perhaps one of s, m, h, d and w.

    :raises ValueError: with a text for the operator.
    """
    match = _SPAN.match(text.strip())
    if match is None or not int(match[1]):
        raise ValueError(
            f"a time is a number of seconds, or one with m, h, d or w behind it, such as 30d, not {text!r}"
        )
    return int(match[1]) * _SPANS[match[2].lower()]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """One run of the server.

    :param root: the directory to serve; made absolute here.
    :param allow: URL prefixes that manifests may name, as in ``Policy.allow``; none by default.
    :param allow_networks: where their names may lead besides public addresses, as in ``Policy.allow_networks``.
    :param workers: processes that share the listening socket.
    :param grace_seconds: how long running downloads may go on after the first signal.
    :param access_log: one line per request on stderr.
    :param ledger: URL of the database for checksums and links; None for this process's memory.
    :param link_key: signs links; None for a new one in every worker.
    :param hidden: paths that are not served, wherever ROOT is.
    :param store: URL of the object store for uploads; None to take none.
    :param rows: URL of the database that knows the files in ``store``.
    :param no_uploads: why there is none, for the log.
    :param tokens: who may use the server; None for everybody who can connect.
    :param allow_delete: let stored files be deleted.
    :param max_upload: the largest file that is taken, in bytes; None for the policy's own limit.
    :param keep_seconds: how long a stored file is kept; None until somebody deletes it.
    :raises ValueError: with a text for the operator.
    """

    root: str = "."
    address: Address = Address("127.0.0.1", 8080)
    allow: tuple[str, ...] = ()
    allow_networks: tuple[str, ...] = ()
    workers: int = 1
    grace_seconds: int = 30
    access_log: bool = False
    ledger: str | None = field(default=None, repr=False)
    link_key: bytes | None = field(default=None, repr=False)
    hidden: tuple[str, ...] = ()
    store: str | None = field(default=None, repr=False)
    rows: str = field(default="", repr=False)
    no_uploads: str = ""
    tokens: Tokens | None = None
    allow_delete: bool = False
    max_upload: int | None = None
    keep_seconds: int | None = None

    def __post_init__(self) -> None:
        if not os.path.isdir(self.root):
            what = "is not a directory" if os.path.exists(self.root) else "does not exist"
            raise ValueError(f"ROOT {self.root!r} {what}")
        if not os.access(self.root, os.R_OK | os.X_OK):
            raise ValueError(f"ROOT {self.root!r} may not be read by this user")
        object.__setattr__(self, "root", os.path.realpath(self.root))
        if self.workers < 1:
            raise ValueError("--workers must be at least 1")
        if self.workers > 1 and not hasattr(os, "fork"):
            raise ValueError("--workers above 1 needs a POSIX system")
        if self.grace_seconds < 0:
            raise ValueError("--grace must not be negative")
        self.policy()

    def policy(self) -> Policy:
        """The limits and permissions that follow from these settings."""
        try:
            policy = Policy(
                allow=self.allow,
                allow_networks=self.allow_networks,
                link_key=self.link_key,
                authorize=None if self.tokens is None else self.tokens.authorize,
                allow_delete=self.allow_delete,
                file_seconds=self.keep_seconds,
            )
            return policy if self.max_upload is None else replace(policy, max_upload_bytes=self.max_upload)
        except ValueError as error:
            text = str(error).replace("Policy.allow_networks", "--allow-network").replace("Policy.allow", "--allow")
            raise ValueError(text) from error
