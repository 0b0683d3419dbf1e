"""One bundle on its way to a body: its members, what is found out about them, the sources that are opened for them.

The rule of this file: what a member's source said when the archive was planned holds when it is opened, so what was
found out is kept as a promise ("pinned"); and for a member of a bundle of many no more is kept than that.
"""

from __future__ import annotations

import time
from array import array
from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace
from itertools import islice
from urllib.parse import urlsplit

from streamware.admission import Ticket
from streamware.ahead import Ahead
from streamware.assemble import CODINGS, Assembly, assemble, check_names, passes
from streamware.coding import BLOCK, coded_key, signature
from streamware.crew import Crew
from streamware.early import Early
from streamware.errors import EmptyBundle, LimitExceeded, MemberError, MemberNotFound
from streamware.facts import Looked
from streamware.ledger import Ledger
from streamware.line import Line
from streamware.member_rows import FILE, OBJECT, PATH, Row
from streamware.member_sources import MemberSources, Subrequest, Upstreams
from streamware.model import Bundle, Data, Facts, File, Member, Members, Source, Stored, Stream, Tree, Url
from streamware.plan import Method, Window
from streamware.policy import Policy
from streamware.prober import Prober, failure_of
from streamware.pump import Body, Witness
from streamware.report import ERRORS_NAME, report
from streamware.said import UNKNOWN, Said
from streamware.sources.file import expand_tree
from streamware.sources.generated import DataSource
from streamware.sources.own import file_source, own_source
from streamware.sources.stored import Files
from streamware.stored_members import look_up, stored_facts
from streamware.versions import Versions

__all__ = ["Job"]

_Found = tuple[int, Row, Facts | Looked]

_AT_ONCE = 500  # members whose compressed sizes are asked for together
_BLOCKS = 3  # under way for each thread that compresses: one at work, one waiting, one waiting to be sent


class Job:
    """One bundle, planned once and served once.

    Whoever makes it calls ``release()`` unless ``body()`` returned: from then on the body's end does.

    :param ticket: its place among the bundles that are being sent; released with the rest.
    :param crew: whose threads open members before their turn; None: none is.
    :param deflaters: whose threads compress; None: whoever reads the body does.
    :param files: what holds stored members; None: there is no file store.
    """

    def __init__(
        self,
        bundle: Bundle,
        policy: Policy,
        upstreams: Upstreams,
        ledger: Ledger,
        subrequest: Subrequest | None = None,
        ticket: Ticket | None = None,
        crew: Crew | None = None,
        deflaters: Crew | None = None,
        files: Files | None = None,
    ) -> None:
        self.bundle = bundle
        self.started = time.monotonic()
        self._policy = policy
        self._ledger = ledger
        self._files = files
        self._sources = MemberSources(bundle, policy, upstreams, subrequest, files)
        self._ticket = ticket
        self._crew = crew
        self._deflaters = deflaters
        self._members = Members()
        self._said = Said()  # and what their sources, or the file store, told of them
        self._prober: Prober | None = None
        self._file_versions: array[int] = array("q")  # hashes of local files' validators; 0 where there is none
        self._versions = Versions(0)
        self._failures: list[MemberError] = []  # of members that are left out

    def plan(self, *, keep: bool, base_etag: str | None = None, linked: bool = False) -> Assembly:
        """Admit, expand, probe, assemble. Blocks while upstreams are asked.

        :param keep: where few have to be asked, ask by the GETs that then deliver the members.
        :param linked: the bundle is a link's: the app is asked for each of its paths, whatever is known of them, for it
            decides whether whoever opens the link may have them.
        :raises StreamwareError: the bundle is refused, or a member fails that may not be left out.
        """
        self._policy.admit(self.bundle)
        self._members = self._expanded()
        self._weigh(map(_declared, self._members.rows()))
        self._file_versions = array("q", bytes(8 * len(self._members)))
        self._versions = Versions(len(self._members))
        missing = look_up(self._members, self._files, self._policy, self._said)
        if missing and self.bundle.on_error == "abort":
            raise failure_of(missing)
        asked = array("q", (i for i, brief in enumerate(self._members.briefly()) if self._must_ask(*brief, linked)))
        if asked:
            check_names(self.bundle, self._members.rows(), self._policy)
        failed = missing | self._probe(asked, keep=keep)
        members = self._settled(failed)
        coder = ""
        if self.bundle.compress != "stored" or self.bundle.format in CODINGS:
            coding = CODINGS.get(self.bundle.format)
            coder = signature(coding, self.bundle.level)
        if self.bundle.compress != "stored" and self.bundle.format == "zip":
            members = self._with_coded_sizes(members)
        assembly = assemble(self.bundle, members, self._policy, base_etag=base_etag, coder=coder)
        self._weigh(entry.size for entry in assembly.entries)
        return assembly

    def ask(self, only: Collection[int]) -> dict[int, Facts | MemberError]:
        """Admit, and ask the sources of some members what they can say, whatever is declared of those; by index.

        For bundles without trees. An error stands in the place of a member that failed and may be left out.

        :raises StreamwareError: the bundle is refused, or a member fails that may not be left out.
        """
        self._policy.admit(self.bundle)
        self._members = self._expanded()
        self._weigh(map(_declared, self._members.rows()))
        failed = self._probe(only, keep=False)
        return {index: failed.get(index) or self._said[index] for index in only}

    def body(self, assembly: Assembly, pieces: Iterable[bytes | Window], witness: Witness) -> Body:
        """The body over some windows, its first member opened.

        :raises StreamwareError: that member cannot be opened.
        """
        skips = self.bundle.on_error != "abort" and self.bundle.format == "zip"
        most = 1 if self._deflaters is None else self._deflaters.most
        body = Body(
            assembly.plan,
            assembly.entries,
            lambda entry: self._source(assembly.members[entry]),
            pieces,
            policy=self._policy,
            ledger=self._ledger,
            version_of=lambda entry: self._versions.of(assembly.members[entry]),
            failures=self._failures if skips else None,
            places=assembly.members,
            witness=witness,
            ahead=self._ahead(assembly),
            line=Line(self._deflaters, min(self._policy.deflate_bytes, _BLOCKS * BLOCK * most)),
        )
        body.prepare()
        return body

    def server_of(self, index: int | None) -> str | None:
        """The host and port of a member's own URL, for the log; None where it has none, or one made at its opening."""
        content = None if index is None else self._members.content(index)
        url = content.url if isinstance(content, Url) else None
        return urlsplit(url).netloc.rpartition("@")[2] if isinstance(url, str) else None

    def release(self) -> None:
        """Give up what the probes kept open, and the place among the bundles."""
        try:
            if self._prober is not None:
                self._prober.release()
        finally:
            if self._ticket is not None:
                self._ticket.release()

    def _expanded(self) -> Members:
        given = self.bundle.members
        most = self._policy.max_members
        trees = given.hold(Tree)
        members = Members() if trees else given.snapshot()
        for member in given if trees else ():
            if isinstance(member.content, Tree):
                # No further than it takes to see that they are too many.
                members.extend(islice(expand_tree(member, member.content), max(0, most + 1 - len(members))))
            else:
                members.append(member)
        if len(members) > most:
            raise LimitExceeded(f"This server takes at most {most} members, and the bundle has more.")
        if not members:
            raise EmptyBundle()
        return members

    def _weigh(self, sizes: Iterable[int | None]) -> None:
        """Refuse more content than a bundle may have. What is not known yet is counted as it passes."""
        most = self._policy.max_bundle_bytes
        if most is not None and sum(size for size in sizes if size is not None) > most:
            raise LimitExceeded(f"A bundle has at most {most} bytes of content on this server.")

    def _source(self, index: int) -> Source:
        """The source of a member; the first time the one that was probed, if that is held open."""
        source = None if self._prober is None else self._prober.take(index)
        if source is not None:
            return source
        file = self._members.file(index)
        if file is not None:  # PERF: 1 us; by way of a member 7
            return file_source(*file, self._file_versions[index], self._policy)
        return self._sources.make(self._members[index], self._said[index], self._file_versions[index])

    def _ahead(self, assembly: Assembly) -> Ahead | None:
        """What opens this bundle's members before their turn; None where there are no two that it could open."""

        def early(index: int) -> Early:
            return self._sources.early(self._members, index, held=self._held(index))

        if self._crew is None:
            return None
        able = (index for index in assembly.members if early(index) is not Early.NOTHING)
        if next(able, None) is None or next(able, None) is None:
            return None
        return Ahead(
            lambda entry: self._source(assembly.members[entry]),
            lambda entry: early(assembly.members[entry]),
            self._policy,
            self._crew,
        )

    def _with_coded_sizes(self, members: Iterator[_Found]) -> Iterator[_Found]:
        """The members with what the ledger knows them to come to when compressed, asked for many at once."""
        method = Method.AUTO if self.bundle.compress == "auto" else Method.DEFLATE
        while batch := list(islice(members, _AT_ONCE)):
            keys = {}
            for index, _, _ in batch:
                version = self._versions.of(index)
                if version is not None:
                    keys[index] = coded_key(version, method, self.bundle.level)
            found = self._ledger.coded(list(keys.values())) if keys else {}
            for index, member, facts in batch:
                coded = found.get(keys.get(index, b""))
                if coded is not None:
                    facts = replace(facts.facts() if isinstance(facts, Looked) else facts, coded=coded)
                yield index, member, facts

    # --- probing ---

    def _probe(self, asked: Collection[int], *, keep: bool) -> dict[int, MemberError]:
        prober = self._prober = Prober(
            self._members,
            self._said,
            lambda index: self._sources.make(self._members[index]),
            self._policy,
            self.bundle.on_error,
            None if self._crew is None else self._crew.room,
        )
        return prober.ask(asked, keep=keep)

    def _held(self, index: int) -> bool:
        """Whether a member's content came along when its source was asked."""
        return self._prober is not None and self._prober.holds(index)

    def _settled(self, failed: dict[int, MemberError]) -> Iterator[_Found]:
        """The members that are to be in the archive, in order, with what is known of each.

        Local files are looked at here, one at a time as they are needed, so that of many none is held.
        """
        open_end = self.bundle.compress != "stored"
        facts: Facts | Looked
        for index, member in enumerate(self._members.rows()):
            error = failed.get(index)
            file = member.file
            if error is None and (file is not None or isinstance(member.stored, File | Data)):
                try:
                    if file is not None:
                        facts = file_source(*file, 0, self._policy).look()
                    else:
                        facts = own_source(member.content, member, 0, self._policy).probe()
                    self._file_versions[index] = hash(facts.validator)
                except MemberError as failure:
                    failure.member, failure.index = member.name, index
                    if self.bundle.on_error == "abort":
                        raise
                    error = failure
            else:
                facts = self._said[index]
                if isinstance(member.stored, Stored):
                    facts = stored_facts(member.stored, facts)
            if error is not None:
                self._failures.append(error)
                continue
            if facts.size is None and member.size is None and not member.is_directory:
                open_end = True
            # Of the content of one that is passed through nothing is seen block by block, and its validator may be
            # the coding's.
            if passes(member, self.bundle):
                open_end = True
            else:
                self._versions.pin(index, member, facts)
            yield index, member, facts
        if self.bundle.on_error == "report":
            yield from self._report_member(open_end=open_end and self.bundle.format == "zip")

    def _report_member(self, *, open_end: bool) -> Iterator[_Found]:
        """A last member that tells what was left out; where more may yet be left out, it is made at its turn."""
        if open_end:
            member, facts = Member(ERRORS_NAME, Stream(self._report)), UNKNOWN
        elif self._failures:
            data = DataSource(report(self._failures)[1])
            member, facts = Member(ERRORS_NAME, data), data.probe()
        else:
            return
        self._members.append(member)
        self._file_versions.append(0)
        self._versions.append()
        yield len(self._members) - 1, self._members.row(len(self._members) - 1), facts

    def _report(self) -> Iterable[bytes]:
        if not self._failures:
            raise MemberNotFound("nothing was left out, so there is no report")
        return [report(self._failures)[1]]

    def _must_ask(self, kind: int, stored: object, size: int | None, linked: bool) -> bool:
        """Whether the head cannot be sent before this member's source was asked."""
        if kind == FILE or (kind == OBJECT and (stored is None or isinstance(stored, File | Data | Stream | Stored))):
            return False
        # Of an empty one nothing is ever opened, so that nobody would see that it is missing, or not empty at all.
        return not size or self.bundle.on_error != "abort" or (linked and kind == PATH)


def _declared(row: Row) -> int | None:
    """The size of a member's content, if nobody has to be asked for it."""
    return len(row.stored.data) if isinstance(row.stored, Data) else row.size
