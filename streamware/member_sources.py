"""What makes the source of each member of one bundle.

The rule of this file: what is declared of a member is checked by its source, wherever it can be checked there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from streamware.assemble import passes
from streamware.early import Early, early_of
from streamware.errors import InvalidTarget, StreamwareError
from streamware.member_rows import FILE, OBJECT, PATH, TRUSTED, UNTRUSTED
from streamware.model import Bundle, Data, Facts, File, Member, Members, Path, Source, Stored, Stream, Tree, Url
from streamware.policy import Policy
from streamware.sources.gzipped import GzippedSource, Promises, Representation
from streamware.sources.own import own_source
from streamware.sources.proof import ProvedSource
from streamware.sources.stored import Files

__all__ = ["MemberSources", "Subrequest", "Upstreams"]

# Opens a path inside the wrapped app; the facts are what its answer must agree with, None where unknown.
Subrequest = Callable[[str, "Facts | None"], Source]

_OWN = (File, Data, Stream, Tree)  # content that this side holds or makes


class Upstreams(Protocol):
    """What makes the sources of URLs (``proxy.Upstream``)."""

    def source(
        self, content: Url, *, size: int | None, etag: str | None, digest: bytes | None, proved: bool
    ) -> Source: ...

    def representation(self, content: Url, *, etag: str | None, proved: bool) -> Representation: ...


class MemberSources:
    """Makes sources, which ask nobody yet. From any thread.

    :param subrequest: opens ``Path`` members; None: there is no app.
    :param files: holds ``Stored`` members; None: there is no file store.
    """

    def __init__(
        self,
        bundle: Bundle,
        policy: Policy,
        upstreams: Upstreams,
        subrequest: Subrequest | None,
        files: Files | None,
    ) -> None:
        self._bundle = bundle
        self._policy = policy
        self._upstreams = upstreams
        self._subrequest = subrequest
        self._files = files
        self._of_paths: Early | None = None  # what may be done of each early, once that is known

    def make(self, member: Member, pinned: Facts | None = None, version: int = 0) -> Source:
        """A source for a member.

        :param pinned: what its source said when the archive was planned.
        :param version: of a local file, as ``FileSource`` takes it.
        :raises InvalidTarget: nothing here can open such a member.
        """
        size, etag = member.size, member.etag
        if pinned is not None:
            size = pinned.size if size is None else size
            etag = pinned.validator if etag is None else etag
        if isinstance(member.content, Url) and passes(member, self._bundle):
            return self._gzipped(member, member.content)
        source = self._plain(member, size, etag, version)
        return source if member.digest is None else ProvedSource(source, member.digest, size)

    def _gzipped(self, member: Member, content: Url) -> Source:
        policy, etag = self._policy, member.etag
        return GzippedSource(
            lambda: self._upstreams.representation(content, etag=etag, proved=member.proved),
            Promises(
                size=member.size, digest=member.digest, most=policy.max_bundle_bytes, large=member.may_exceed_4gib
            ),
            url=content.url.partition("?")[0] if isinstance(content.url, str) else member.name,
            tagged=etag is not None,
            check=policy.verify_passthrough,
        )

    def _plain(self, member: Member, size: int | None, etag: str | None, version: int) -> Source:
        content = member.content
        if isinstance(content, Url):
            return self._upstreams.source(content, size=size, etag=etag, digest=member.digest, proved=member.proved)
        if isinstance(content, Path):
            if self._subrequest is None:
                raise InvalidTarget("A path can only be fetched through an app that streamware wraps.")
            return self._subrequest(content.href, Facts(size=size, validator=etag))
        if isinstance(content, Stored):
            if self._files is None:
                raise InvalidTarget("A stored file can only be had where there is a file store: Archiver(files=...).")
            return self._files.source(content.id)
        return own_source(content, member, version, self._policy)

    def early(self, members: Members, index: int, *, held: bool) -> Early:
        """What may be done of a member before its turn.

        :param held: its content is here already.
        """
        kind = members.kind(index)
        if kind == FILE:
            return Early.NOTHING
        content = members.content(index) if kind == OBJECT else None
        if kind in (TRUSTED, UNTRUSTED) or isinstance(content, Url):
            return Early.NOTHING if held else Early.OPENING
        if kind == PATH:
            if self._of_paths is None:
                try:
                    self._of_paths = early_of(self.make(members[index]))
                except StreamwareError:  # to be told of at its turn
                    return Early.NOTHING
            return self._of_paths
        if isinstance(content, Stored):
            return early_of(self.make(members[index]))
        if content is None or isinstance(content, _OWN):
            return Early.NOTHING
        return early_of(content)
