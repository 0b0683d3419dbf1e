"""Links: manifests that were saved, so that whoever holds a URL gets their archive, and the same one every time.

The rules of this file: nothing of a link is read before its signature, or its row in the ledger, has shown that it was
made here; and a link pins what its members were when it was made, so that an archive that would differ is refused.
"""

from __future__ import annotations

import json
import logging
import re
import secrets
import threading
import time
import zlib
from collections.abc import Callable, Iterable
from copy import copy
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from hashlib import sha256
from hmac import compare_digest
from math import ceil, floor

from itsdangerous import Signer, base64_decode, base64_encode

from streamware.assemble import Assembly
from streamware.errors import (
    ChecksumMismatch,
    InvalidManifest,
    LimitExceeded,
    LinkExpired,
    LinkUnknown,
    MemberChanged,
    MemberError,
    MembersFailed,
    SizeMismatch,
    StreamwareError,
)
from streamware.job import Job
from streamware.ledger import Ledger
from streamware.manifest import from_json, to_json
from streamware.member_sources import Subrequest, Upstreams
from streamware.model import Bundle, Data, Facts, Member, Members, Path, Url
from streamware.policy import Policy
from streamware.reply import BytesBody, Reply
from streamware.report import report
from streamware.semantics import is_strong
from streamware.sources.stored import Files

__all__ = ["Link", "Links", "Made", "StandIns"]

_log = logging.getLogger("streamware")

# The members that stand for one of a manifest's, by its index and itself, without asking the app; None: it stands for
# itself. Raises StreamwareError where it may not be in a bundle at all.
StandIns = Callable[[int, Member], "Members | None"]

_SALT = b"streamware.links"  # one key may sign other things, too
_FORM = 1  # of what is saved
_HEAD_BYTES = 1024  # a bound for the line before the manifest
_RANDOM_BYTES = 32
_ROW = re.compile(r"[0-9A-Za-z_-]{43}\Z", re.ASCII)  # those bytes in base64
_SIGNED = re.compile(r"[0-9A-Za-z_-]+\.[0-9A-Za-z_-]{43}\Z", re.ASCII)


@dataclass(frozen=True, slots=True)
class Made:
    """A link that was made. ``expires`` in Unix seconds; ``resumable``: any part of its archive can be had alone."""

    token: str
    expires: float
    resumable: bool

    def reply(self, url: str) -> Reply:
        """The answer to whoever asked for it, who is told to find it at ``url``."""
        expires = datetime.fromtimestamp(self.expires, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
        data = json.dumps({"url": url, "expires": expires, "resumable": self.resumable}).encode()
        headers = (
            ("Location", url),
            ("Content-Type", "application/json"),
            ("Content-Length", str(len(data))),
            ("Cache-Control", "no-store"),
        )
        return Reply(201, headers, BytesBody(data))


@dataclass(frozen=True, slots=True)
class Link:
    """A link that was opened: its bundle, and what its archive must be."""

    bundle: Bundle
    pin: str

    def check(self, assembly: Assembly) -> None:
        """Raise unless the archive is the one the link was made for.

        :raises MemberChanged: status 410.
        """
        if _pin_of(assembly) != self.pin:
            raise self.judged(MemberChanged(f"the archive is {_pin_of(assembly)}, and the link is for {self.pin}"))

    @staticmethod
    def judged(error: StreamwareError) -> StreamwareError:
        """The error with the status it has in a link: a member that is not what it was will not be that again."""
        failures = error.failures if isinstance(error, MembersFailed) else (error,)
        if any(isinstance(failure, MemberChanged | SizeMismatch | ChecksumMismatch) for failure in failures):
            error.status = 410
            error.title = "What this link was made for has changed since."
        return error


class Links:
    """Makes and opens links. One per Archiver, for any number of threads.

    :param ledger: keeps the manifests that do not fit a URL.
    :param files: what holds stored members that stand for paths; None: there is no file store.
    """

    def __init__(self, policy: Policy, upstreams: Upstreams, ledger: Ledger, files: Files | None = None) -> None:
        self._policy = policy
        self._files = files
        self._upstreams = upstreams
        self._ledger = ledger
        key = policy.link_key or secrets.token_bytes(_RANDOM_BYTES)
        self._signer = Signer(key, _SALT, key_derivation="hmac", digest_method=sha256)
        self._warned = threading.Lock()  # taken by whoever warns, and never given back
        if policy.link_key is not None:
            self._warned.acquire()

    def make(
        self,
        bundle: Bundle,
        *,
        seconds: int | None = None,
        subrequest: Subrequest | None = None,
        stand_ins: StandIns | None = None,
    ) -> Made:
        """Save a bundle. Blocks while all its members are asked for what they are.

        What fails is left out for good, where ``on_error`` says so; later on a member that fails is an error.

        :param seconds: how long the link lasts; None for what the policy says.
        :raises InvalidManifest: the bundle holds what a manifest cannot say, or ``seconds`` is out of bounds.
        :raises StreamwareError: the bundle is refused, a member cannot be had, or the link cannot be kept.
        """
        policy = self._policy
        most = policy.link_max_seconds
        seconds = min(policy.link_default_seconds, most) if seconds is None else seconds
        if not 1 <= seconds <= most:
            raise InvalidManifest(f"A link lasts from 1 to {most} seconds on this server.")
        expires = floor((time.time() + seconds) * 1000) / 1000  # not rounded up: never longer than was asked for
        to_json(bundle)  # refused before anybody is asked
        members = self._pinned(bundle, subrequest, stand_ins)
        for on_error in dict.fromkeys(("abort", bundle.on_error)):
            saved = copy(bundle)
            saved.members, saved.on_error = [member for member, _ in members], on_error
            manifest = to_json(saved)
            if len(manifest) > policy.max_manifest_bytes:
                most = policy.max_manifest_bytes
                raise LimitExceeded(f"With what is noted of its members, the manifest is longer than {most} bytes.")
            # From here on as whoever opens the link will do it.
            opened = self._read(manifest, bundle.names)
            opened.members = _joined(zip(opened.members, (own for _, own in members), strict=True))
            job = Job(opened, policy, self._upstreams, self._ledger, subrequest, files=self._files)
            try:
                assembly = job.plan(keep=False, linked=True)
                break
            except MemberError:
                if on_error == bundle.on_error:
                    raise
            finally:
                job.release()
        head = json.dumps([_FORM, expires, bundle.names, _pin_of(assembly)], separators=(",", ":"))
        return Made(self._kept(head.encode() + b"\n" + manifest, expires), expires, assembly.ranges)

    def open(self, token: str, stand_ins: StandIns | None = None) -> Link:
        """The bundle that a link stands for, ready to be answered with. May wait for the ledger.

        :raises LinkUnknown, LinkExpired, LedgerError: there is none, no longer, or nobody knows.
        :raises RequestError: the policy has changed, and no longer takes such a manifest.
        """
        text = self._text(token)
        head, _, manifest = text.partition(b"\n")
        try:
            form, expires, names, pin = json.loads(head)
        except (TypeError, ValueError) as error:
            raise _damaged(error) from error
        if form != _FORM:
            raise LinkUnknown(f"it was saved in form {form!r}")
        if time.time() >= expires:
            raise LinkExpired()
        bundle = self._read(manifest, names)
        if stand_ins is not None:
            bundle.members = _joined((member, stand_ins(i, member)) for i, member in enumerate(bundle.members))
        return Link(bundle, pin)

    # --- members ---

    def _pinned(
        self, bundle: Bundle, subrequest: Subrequest | None, stand_ins: StandIns | None
    ) -> list[tuple[Member, Members | None]]:
        """The members with what proves their version, each with those that stand for it."""
        members = bundle.members
        own = [None if stand_ins is None else stand_ins(i, member) for i, member in enumerate(members)]
        asked = [i for i, m in enumerate(members) if own[i] is None and isinstance(m.content, Path | Url)]
        job = Job(bundle, self._policy, self._upstreams, self._ledger, subrequest, files=self._files)
        try:
            found = job.ask(asked)
        finally:
            job.release()
        kept: list[tuple[Member, Members | None]] = []
        failures: list[MemberError] = []
        for index, member in enumerate(members):
            facts = found.get(index)
            if isinstance(facts, MemberError):
                failures.append(facts)
            else:
                kept.append((member if facts is None else _pin(member, facts, bundle), own[index]))
        if failures and bundle.on_error == "report":
            name, text = report(failures)
            kept.append((Member(name, Data(text)), None))
        return kept

    def _read(self, manifest: bytes, names: str) -> Bundle:
        bundle = from_json(manifest, self._policy)
        bundle.names = "clean" if names == "clean" else "strict"
        return bundle

    # --- tokens ---

    def _kept(self, text: bytes, expires: float) -> str:
        """The token under which the text is found again: its own bytes, if they are few."""
        if self._warned.acquire(blocking=False):
            _log.warning("Policy.link_key is not set: links end with this process, and no other can open them")
        packed = zlib.compress(text)
        signed = self._signer.sign(base64_encode(packed)).decode("ascii")
        if len(signed) < self._policy.link_inline_bytes:
            return signed
        token = secrets.token_urlsafe(_RANDOM_BYTES)
        self._ledger.save(_row(token), packed, ceil(expires))
        return token

    def _text(self, token: str) -> bytes:
        if _SIGNED.match(token):
            payload = token.partition(".")[0]
            # Made anew and compared as text: base64 has several spellings of one signature.
            if not compare_digest(self._signer.sign(payload), token.encode("ascii")):
                raise LinkUnknown("its signature is wrong")
            packed = base64_decode(payload)
        elif _ROW.match(token):
            row = self._ledger.load(_row(token))
            if row is None:
                raise LinkUnknown("it is not in the ledger")
            packed, _ = row
        else:
            raise LinkUnknown("it has not the form of a link")
        unpacker = zlib.decompressobj()
        try:
            text = unpacker.decompress(packed, self._policy.max_manifest_bytes + _HEAD_BYTES)
        except zlib.error as error:
            raise _damaged(error) from error
        if not unpacker.eof:
            raise LinkUnknown("it was cut short, or is longer than the policy now allows")
        return text


def _pin(member: Member, found: Facts, bundle: Bundle) -> Member:
    """The member with what was found; as it is where that would not prove its version."""
    version = found.validator if member.etag is None else member.etag
    strong = is_strong(version)
    if not strong and not member.proved:
        return member
    # With "auto" the media type decides, too, and it is asked for anew each time where the size is not written down.
    size = found.size if member.size is None and bundle.compress != "auto" else member.size
    modified = found.modified if member.modified is None else member.modified
    return replace(member, size=size, etag=version if strong else member.etag, modified=modified)


def _pin_of(assembly: Assembly) -> str:
    """What an archive must agree in: all, where every member is pinned; else the versions of those that are."""
    etag = assembly.plan.etag
    return etag if etag is not None and is_strong(etag) else assembly.pins


def _joined(members: Iterable[tuple[Member, Members | None]]) -> Members:
    joined = Members()
    for member, own in members:
        joined.extend([member] if own is None else own)
    return joined


def _row(token: str) -> str:
    """The key of a row: whoever reads the database cannot make a link of it."""
    return sha256(token.encode("ascii")).hexdigest()


def _damaged(error: Exception) -> LinkUnknown:
    _log.warning("a saved link is damaged: %r", error)
    return LinkUnknown("it is damaged")
