"""What the operator allows, as one frozen value, checked before anything is fetched.

The rule of this file: each limit carries its unit in its name and its reason beside it, and nothing outside this file
decides whether a URL may be asked.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from inspect import iscoroutinefunction
from typing import get_args
from urllib.parse import SplitResult, unquote, urlsplit

from streamware.addresses import Address, Kind, Network, embedded, kind_of, kinds_named, literal, parse, parse_network
from streamware.errors import InvalidTarget, LimitExceeded, NotAllowed
from streamware.file_request import FileRequest
from streamware.model import Bundle, Names, Url

__all__ = ["Authorize", "Policy"]

Authorize = Callable[[str, FileRequest], "bool | str | None"]

_NETLOC = re.compile(
    r"(?:[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?|\[[0-9A-Fa-f.]*:[0-9A-Fa-f:.]*\])(?::[0-9]{1,5})?\Z"
)
# ";" because servers in Java cut off what follows it, the rest because other systems do.
_CLIMBS = re.compile(r"(?:\A|[/\\])\.\.(?:\Z|[/\\;\x00-\x20])")
_UNSAFE = re.compile(r"[\x00-\x20\x7f-\xff\\^`{|}<>\"]")
_PLAIN = re.compile(r"[A-Za-z0-9_~-]+(?:[./][A-Za-z0-9_~-]+)*\Z")
_MAX_URL = 8192  # characters; servers take no longer request line
_DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class _Prefix:
    text: str
    scheme: str
    host: str
    port: int
    path: str


@dataclass(frozen=True, slots=True)
class _Host:
    """Where, besides public addresses, the host of an allowed prefix may lead."""

    address: Address | None  # the one it is itself
    kinds: frozenset[Kind]  # those that its form promises


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """Limits and permissions of one Archiver.

    :raises ValueError: an ``allow`` entry is no absolute http(s) URL prefix, an ``allow_networks`` entry no network, a
        limit is not positive, ``names`` is neither "clean" nor "strict", ``link_key`` is empty, or ``authorize`` cannot
        be called, or only be awaited.
    """

    # URL prefixes that manifests may name; compared by parsed scheme, host, port and path. None by default.
    allow: Sequence[str] = ()
    # Networks ("10.0.0.0/8", "fd00::/8") where the names of allowed prefixes may lead besides public addresses. A
    # prefix that itself names a private host or address needs no entry here; a cloud's metadata address needs one of
    # its own, as the networks around it do not cover it.
    allow_networks: Sequence[str] = ()
    # Bundles without an exact length are refused where the host or client could not tell a broken one from a whole one
    # (docs/hosts.md); True takes that risk.
    allow_unframed: bool = False
    # Client headers that ``X-Archive-Pass-Headers`` may never pass on, whatever a list says.
    never_pass: Sequence[str] = (
        "host",
        "connection",
        "content-length",
        "transfer-encoding",
        "range",
        "accept-encoding",
    )

    names: Names = "strict"  # for manifests: refuse unsafe names with 400, or rewrite them ("clean")
    max_manifest_bytes: int = 16 * 1024 * 1024
    max_members: int = 100_000
    max_name_bytes: int = 1024
    max_path_depth: int = 64  # names of folders in one member's name, and its own
    max_subrequest_depth: int = 3  # bundles inside of bundles, by sub-requests
    max_bundle_bytes: int | None = None  # of members' content, as declared and as counted; None: no limit
    max_bundle_seconds: float | None = None  # from the first byte to the last; None: no limit
    max_bundles: int = 1000  # being sent at once; more are answered with 503
    max_bundles_per_client: int | None = None  # the same of one client, answered with 429; None: no limit
    # The header in which a trusted server in front names the client; None: who is connected is the client.
    client_header: str | None = None
    overload_retry_seconds: int = 5  # what Retry-After says
    max_ranges: int = 16  # in one request; more are answered with the whole, as RFC 9110 section 14.2 permits
    max_redirects_manifest: int = 0
    max_redirects_code: int = 5

    connect_timeout_seconds: float = 5.0
    read_timeout_seconds: float = 30.0  # longest silence of an upstream
    # An upstream that gives less than this many bytes a second, over that many seconds of waiting for it, has stalled.
    min_rate_bytes: int = 1024
    min_rate_seconds: float = 30.0
    max_tries: int = 5  # openings of one member without progress, the first included; 1 MiB from one is progress
    retry_pause_seconds: float = 0.2  # before the first new try; doubled each time, jittered, never above the next
    max_retry_pause_seconds: float = 5.0
    heal_seconds: float = 60.0  # from where a member broke off until its next byte
    member_seconds: float = 24 * 3600.0  # from a member's opening to its end

    inline_bytes: int = 64 * 1024  # members up to this are read whole, so that they need no data descriptor
    chunk_bytes: int = 256 * 1024  # one read at most; 64 KiB beyond 16 files and 16 upstreams at once
    step_bytes: int = 1024 * 1024  # read at a time for a quick client on ASGI; for others less, down to one piece
    probe_connections: int = 16  # upstreams asked at once before the head
    held_bytes: int = 16 * 1024 * 1024  # of small members read along with the asking, in one bundle; see inline_bytes
    held_members: int = 8  # up to this many members are asked by the very GETs that then deliver them
    held_seconds: float = 20.0  # such an answer waits for its turn no longer; nginx gives one up after 60 s
    pool_connections: int = 32  # kept open per upstream host
    # Answers open at one upstream host at a time, of all bundles of this process together; half of them only to bundles
    # whose turn it is. One more is waited for as long as for an upstream, and then answered with 503.
    opens_per_host: int = 256
    ahead_members: int = 16  # opened while an earlier one streams
    ahead_bytes: int = 8 * 1024 * 1024  # of them all that one bundle holds in memory
    ahead_total_bytes: int = 64 * 1024 * 1024  # and of held_bytes, of all together; beyond a share each
    ahead_threads: int = 64  # threads that open members ahead, of all bundles together
    # Threads that compress, of all bundles together; None: as many as the process may use cores, and 1: none besides
    # those that read the bodies.
    deflate_threads: int | None = None
    deflate_bytes: int = 8 * 1024 * 1024  # of one bundle, on their way through them; no more than three blocks each
    deflate_total_bytes: int = 64 * 1024 * 1024  # of all together, beyond a block each
    ledger_versions: int = 100_000  # member versions whose checksums this process remembers
    ledger_seconds: float = 30 * 24 * 3600.0  # and how long anyone remembers one
    pump_threads: int = 32  # threads that move bytes for ASGI hosts; a client that takes nothing holds none

    # Bodies that are passed through gzip-coded (``add_url(passthrough=True)``) are inflated beside, and compared with
    # their trailers. False believes these where they can say all, and so needs upstreams that are trusted with that.
    verify_passthrough: bool = True

    # Signs the links to saved manifests; all replicas need the same. None: a random one, so that links end with the
    # process that made them.
    link_key: str | bytes | None = field(default=None, repr=False)
    link_default_seconds: int = 24 * 3600  # how long a link lasts where that is not said; never above the next
    link_max_seconds: int = 30 * 24 * 3600
    # Characters of a link's last part below which it holds the manifest itself; longer manifests are kept in the ledger
    # (1: all are). Many programs pass on no URL above 2,000, and gunicorn takes no request line above 4,094.
    link_inline_bytes: int = 1500

    # --- the file service (docs/files.md) ---

    # Asked before anything else of a request to the file service: ``authorize(action, request)``, with the action one
    # of "upload", "download", "list" and "delete", and the request a FileRequest. True lets it be done, a text besides
    # names who does it, for the limits below; anything else refuses. It may block and is called from any thread.
    authorize: Authorize | None = field(default=None, repr=False)
    allow_delete: bool = False  # DELETE of whole files; one's own unfinished tus upload may always be ended
    max_upload_bytes: int = 1 << 40  # of one file
    upload_part_bytes: int = 64 * 1024 * 1024  # what has come is kept durably, as one object, at least so often,
    upload_part_seconds: float = 30.0  # or so; a process that is killed loses no more of a tus upload
    max_upload_parts: int = 100_000  # of one file; each request of a tus upload makes one, however small
    upload_seconds: float = 24 * 3600.0  # an unfinished upload is kept so long after its last byte
    file_seconds: float | None = None  # and a whole file since it was stored; None: until it is deleted
    max_uploads: int = 1000  # being received at once; more are answered with 503
    # The next four are for each identity that ``authorize`` names; without names, for each client's address.
    max_uploads_per_identity: int | None = None  # being received at once; more are answered with 429
    max_uploads_per_minute: int | None = None  # begun, of each process; more are answered with 429
    max_files_per_identity: int | None = None  # kept, unfinished ones included; more are answered with 507
    max_bytes_per_identity: int | None = None  # the same in bytes
    max_form_parts: int = 1000  # files and fields of one multipart form
    max_listed_files: int = 1000  # on one page of a listing
    sweep_seconds: float = 3600.0  # between two looks for what has expired; by one replica at a time
    # Media types that a browser may show; all others are for saving only. "text/html" and its like belong to none.
    inline_types: Sequence[str] = (
        *("image/png", "image/jpeg", "image/gif", "image/webp", "image/avif", "text/plain"),
        *("audio/mpeg", "audio/ogg", "audio/wav", "video/mp4", "video/webm", "video/ogg"),
    )

    _prefixes: tuple[_Prefix, ...] = field(init=False, repr=False, compare=False)
    _hosts: dict[str, _Host] = field(init=False, repr=False, compare=False)
    _networks: tuple[Network, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.names not in get_args(Names):
            raise ValueError(f"Policy.names must be one of {get_args(Names)}, not {self.names!r}")
        for name in ("allow", "allow_networks", "inline_types"):
            value = getattr(self, name)
            object.__setattr__(self, name, (value,) if isinstance(value, str) else tuple(value))
        object.__setattr__(self, "_prefixes", tuple(_parse_prefix(text) for text in self.allow))
        object.__setattr__(
            self, "_hosts", {p.host: _Host(literal(p.host), kinds_named(p.host)) for p in self._prefixes}
        )
        object.__setattr__(self, "_networks", tuple(_parse_network(text) for text in self.allow_networks))
        if self.link_key is not None and not self.link_key:
            raise ValueError("Policy.link_key must not be empty")
        if self.authorize is not None:
            _check_hook(self.authorize)
        for name in self.__dataclass_fields__:
            value = getattr(self, name, None)
            least = 0 if "redirects" in name or name == "held_members" else 1e-3
            if isinstance(value, bool) or not isinstance(value, int | float):
                continue
            if not value >= least:  # so put, it refuses NaN
                raise ValueError(f"Policy.{name} must be positive, not {value!r}")

    def admit(self, bundle: Bundle) -> None:
        """Check a bundle against the limits and the allow-list. Fetches nothing.

        :raises LimitExceeded: too many members.
        :raises NotAllowed: an untrusted URL is not under any allowed prefix.
        :raises InvalidTarget: an untrusted URL is malformed.
        """
        if len(bundle.members) > self.max_members:
            raise LimitExceeded(f"{len(bundle.members)} members, and this server takes at most {self.max_members}.")
        for index, urls in bundle.members.untrusted():
            for url in urls:
                try:
                    self.admit_url(str(url))
                except (NotAllowed, InvalidTarget) as error:
                    error.member, error.index = bundle.members.name(index), index
                    raise

    def admit_url(self, url: str) -> None:
        """Raise unless ``url`` stands under an allowed prefix. Purely by its text: no name is resolved."""
        if len(url) > _MAX_URL:
            raise InvalidTarget(f"A URL is longer than {_MAX_URL} characters.")
        # PERF: 0.4 us instead of 5; behind a whole prefix, plain characters without a doubled or leading dot cannot
        # lead anywhere else, however they are parsed.
        for prefix in self._prefixes:
            if prefix.text.endswith("/") and url.startswith(prefix.text) and _PLAIN.match(url, len(prefix.text)):
                return
        parts = _split(url)
        host, port = parts.hostname or "", parts.port or _DEFAULT_PORTS[parts.scheme]
        path = parts.path or "/"
        for prefix in self._prefixes:
            if (parts.scheme, host, port) == (prefix.scheme, prefix.host, prefix.port) and _under(path, prefix.path):
                return
        raise NotAllowed(f"no allowed prefix covers {url!r}")

    def admit_address(self, host: str, address: str) -> None:
        """Raise NotAllowed unless a connection for a URL that ``admit_url`` let pass may lead to ``address``.

        :param host: the URL's, in lower case and without brackets. It alone decides, and is that of the prefix: what
            several prefixes with one host allow is the same.
        """
        named = self._hosts.get(host)
        if named is None:
            raise NotAllowed(f"no allowed prefix names {host!r}")
        place = parse(address)
        if not self._leads(named, place):
            needed = " ".join(f"--allow-network {each}" for each in (place, embedded(place)) if each is not None)
            raise NotAllowed(
                f"{host} leads to {address}, which is not public ({kind_of(place)}); allow_networks would allow it, "
                f"{needed} on the command line"
            )

    def _leads(self, named: _Host, place: Address) -> bool:
        kind = kind_of(place)
        if kind == "public" or kind in named.kinds or place == named.address:
            return True
        around = (n for n in self._networks if kind != "metadata" or n.num_addresses == 1)
        if not any(place in network for network in around):
            return False
        inner = embedded(place)  # a gateway that may be used does not make up for where it leads
        return inner is None or self._leads(named, inner)

    def redirects(self, content: Url) -> int:
        """How many redirects may be followed for this member."""
        return self.max_redirects_code if content.trusted else self.max_redirects_manifest


def _split(url: str) -> SplitResult:
    """Parse an absolute http(s) URL strictly: what one parser reads one way and another differently is refused."""
    if _UNSAFE.search(url) or not url.isascii():
        raise InvalidTarget("A URL holds a character that must be percent-encoded.")
    try:
        parts = urlsplit(url)
        port, host = parts.port, parts.hostname
    except ValueError as error:
        raise InvalidTarget("A URL cannot be parsed.") from error
    if parts.scheme not in _DEFAULT_PORTS:
        raise InvalidTarget("A URL's scheme must be http or https.")
    if "@" in parts.netloc:
        raise InvalidTarget("A URL must not carry a user name or password.")
    if not host:
        raise InvalidTarget("A URL needs a host name.")
    if not _NETLOC.match(parts.netloc) or port == 0:
        raise InvalidTarget("A URL's host name or port is not valid.")
    return parts


def _under(path: str, prefix: str) -> bool:
    """Whether a path stands under a prefix, whole segments only, whatever way its dots are written."""
    for _ in range(3):  # as written, decoded once, and decoded twice: some server behind a proxy will do each
        if _CLIMBS.search(path) or "\\" in path:
            return False
        if not (path == prefix or path.startswith(prefix if prefix.endswith("/") else prefix + "/")):
            return False
        path, prefix = unquote(path), unquote(prefix)
    return True


def _check_hook(hook: object) -> None:
    if not callable(hook):
        raise ValueError(f"Policy.authorize must be a function, not {hook!r}")
    if iscoroutinefunction(hook) or iscoroutinefunction(hook.__call__):
        # What it returns is neither True nor a text, so that nobody would ever be let in.
        raise ValueError(f"Policy.authorize is called and not awaited, and so cannot be {hook!r}")


def _parse_prefix(text: str) -> _Prefix:
    try:
        parts = _split(text)
    except InvalidTarget as error:
        raise ValueError(f"Policy.allow: {text!r}: {error.detail}") from error
    if parts.query or parts.fragment:
        raise ValueError(f"Policy.allow: {text!r}: a prefix has no query or fragment")
    if not _under(parts.path or "/", parts.path or "/"):
        raise ValueError(f"Policy.allow: {text!r}: a prefix has no dot segments or backslashes; it would allow nothing")
    host, port = parts.hostname or "", parts.port or _DEFAULT_PORTS[parts.scheme]
    try:
        literal(host)
    except ValueError as error:
        raise ValueError(f"Policy.allow: {text!r}: {error}") from error
    return _Prefix(text if parts.path else f"{text}/", parts.scheme, host, port, parts.path or "/")


def _parse_network(text: str) -> Network:
    try:
        return parse_network(text)
    except ValueError as error:
        raise ValueError(f"Policy.allow_networks: {text!r}: {error}") from error
