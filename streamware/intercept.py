"""What a middleware puts between an app and its server, whatever the flavour: which requests and answers are bundles.

The rule of this file: everything the two middlewares decide is decided here, once; they carry requests in and replies
out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple
from urllib.parse import quote

from streamware.admission import Ticket
from streamware.errors import LimitExceeded, NotAllowed, RequestError, SourceError, StreamwareError
from streamware.inner import aim
from streamware.list_head import ListHead
from streamware.manifest import form_fields, from_form, from_json, from_list, parse, parse_link
from streamware.member_rows import PATH
from streamware.model import Bundle, Member, Members, Path
from streamware.reply import Conditions, Reply
from streamware.semantics import parse_http_date
from streamware.service import Archiver, Subrequest
from streamware.target import name_of

__all__ = ["Asked", "Interception", "Local"]

Local = Callable[[str], "Iterable[Member] | None"]


class Asked(NamedTuple):
    """A request at the bundles' own path or below it.

    ``mount`` is where the app is mounted, encoded as in a URL; ``path`` follows it, decoded. ``query`` is raw.
    ``read()`` gives the body of a POST; it may block, and raise StreamwareError. ``conditions`` are the request's.
    """

    method: str
    mount: str
    path: str
    query: bytes
    headers: Sequence[tuple[str, str]]
    read: Callable[[], bytes]
    conditions: Conditions

    @property
    def content_type(self) -> str | None:
        return next((value for name, value in self.headers if name.lower() == "content-type"), None)


class Interception:
    """The decisions of one middleware.

    :param path: where bundles are asked for, below where the app is mounted.
    :param local: see BundleMiddleware.
    :raises ValueError: ``path`` is no path below ``/``.
    """

    def __init__(self, path: str, archiver: Archiver, local: Local | None) -> None:
        self.path = path.rstrip("/")
        if not self.path.startswith("/"):
            raise ValueError(f'path must be like "/bundle", not {path!r}')
        self.archiver = archiver
        self._links = self.path + "/links"
        self._local = local

    def stands_at(self, path: str) -> bool:
        """Whether a request's decoded path is the bundles' own, or their links'."""
        return path in (self.path, self.path + "/", self._links) or path.startswith(self._links + "/")

    # --- bundles by path ---

    def asked(self, asked: Asked, open_path: Subrequest, ticket: Ticket | None = None) -> Reply:
        """Answer a request at the bundles' own path or below it. Blocks.

        :param ticket: a place taken for it already; None takes one where it is needed.
        """
        try:
            if asked.path.rstrip("/") == self._links:
                return self._made_link(asked, open_path, ticket)
            if asked.path.startswith(self._links):
                return self._linked(asked, open_path, ticket)
            return self._bundle(asked, open_path, ticket)
        except StreamwareError as error:
            if ticket is not None:
                ticket.release()
            return self.archiver.problem(error)

    def _bundle(self, asked: Asked, open_path: Subrequest, ticket: Ticket | None) -> Reply:
        policy = self.archiver.policy
        conditions = asked.conditions
        if asked.method == "POST":
            bundle = parse(asked.read(), asked.content_type, policy)
            conditions = conditions.unconditional()  # ranges and 304 are for GET (RFC 9110 sections 13.1.2 and 14.2)
        elif asked.method in ("GET", "HEAD"):
            bundle = from_form(form_fields(asked.query, policy), policy)
        else:
            return self._refused(asked.method, "A bundle", "GET, HEAD, POST", ticket)
        self._expand(bundle)
        return self.archiver.respond(bundle, conditions, subrequest=open_path, ticket=ticket)

    def _made_link(self, asked: Asked, open_path: Subrequest, ticket: Ticket | None) -> Reply:
        if asked.method != "POST":
            return self._refused(asked.method, "A link", "POST", ticket)
        # Asking all members what they are is as much work for others as a download begins with.
        with ticket or self.archiver.admission.enter(asked.conditions.client):
            return self._make_link(asked, open_path)

    def _make_link(self, asked: Asked, open_path: Subrequest) -> Reply:
        bundle, seconds = parse_link(asked.read(), asked.content_type, asked.query, self.archiver.policy)
        made = self.archiver.links.make(bundle, seconds=seconds, subrequest=open_path, stand_ins=self._stand_ins)
        return made.reply(f"{asked.mount}{quote(self._links)}/{made.token}")

    def _linked(self, asked: Asked, open_path: Subrequest, ticket: Ticket | None) -> Reply:
        if asked.method not in ("GET", "HEAD"):
            return self._refused(asked.method, "What a link leads to", "GET, HEAD", ticket)
        link = self.archiver.links.open(asked.path[len(self._links) + 1 :], self._stand_ins)
        return self.archiver.respond(link.bundle, asked.conditions, subrequest=open_path, link=link, ticket=ticket)

    def _refused(self, method: str, what: str, allowed: str, ticket: Ticket | None) -> Reply:
        if ticket is not None:
            ticket.release()
        error = RequestError(f"{what} is asked for with {' or '.join(allowed.rsplit(', ', 1))}, not {method[:16]}.")
        error.status = 405
        reply = self.archiver.problem(error)
        return replace(reply, headers=(*reply.headers, ("Allow", allowed)))

    def limit(self, announced: int | None) -> int:
        """How many bytes of a body may be read.

        :raises LimitExceeded: more are announced.
        """
        limit = self.archiver.policy.max_manifest_bytes
        if announced is not None and announced > limit:
            raise LimitExceeded(f"A manifest may have {limit} bytes, and this one has {announced}.")
        return limit

    def gather(self, pieces: Iterator[bytes]) -> bytes:
        """Join a body.

        :raises LimitExceeded: it is too long.
        """
        limit = self.limit(None)
        kept: list[bytes] = []
        size = 0
        for piece in pieces:
            kept.append(piece)
            size += len(piece)
            if size > limit:
                raise LimitExceeded(f"A manifest may have {limit} bytes, and this one has more.")
        return b"".join(kept)

    # --- lists ---

    def listed(
        self,
        head: ListHead,
        body: bytes,
        path: str,
        conditions: Conditions,
        open_path: Subrequest,
        ticket: Ticket | None = None,
    ) -> Reply:
        """Answer with the archive that a list describes. Blocks.

        :param path: the request's, decoded; a list without Content-Disposition is named for its last part.
        :param open_path: opens members that carry the headers ``passed`` names and no others.
        :param ticket: as in ``asked``.
        """
        fields = head.fields
        try:
            bundle = self._from_list(head, body, path)
            self._expand(bundle)
        except StreamwareError as error:
            if ticket is not None:
                ticket.release()
            return self.archiver.problem(error) if isinstance(error, NotAllowed) else self.unusable(error)
        reply = self.archiver.respond(
            bundle,
            conditions if conditions.method in ("GET", "HEAD") else conditions.unconditional(),
            subrequest=open_path,
            headers=head.of_the_archive(),
            base_etag=fields.get("etag"),
            modified=parse_http_date(fields["last-modified"]) if "last-modified" in fields else None,
            ticket=ticket,
        )
        if reply.status not in (400, 413):
            return reply
        # Nothing was wrong with the request: the list is the app's.
        reply.body.close()
        return self.unusable(SourceError(f"its archive was refused with {reply.status}"))

    def passed(self, head: ListHead) -> frozenset[str]:
        """The lower-case names of the request's headers that a list's members are to get."""
        names = {name.strip().lower() for name in head.fields.get("x-archive-pass-headers", "").split(":")}
        return frozenset(names.difference(map(str.lower, self.archiver.policy.never_pass)))

    def unusable(self, cause: StreamwareError) -> Reply:
        """The answer where a list is no good: 500, for the app is at fault, and the client learns no more."""
        error = StreamwareError(f"the app's list of members cannot be used: {cause}")
        error.__cause__ = cause
        return self.archiver.problem(error)

    def _from_list(self, head: ListHead, body: bytes, path: str) -> Bundle:
        fields, policy = head.fields, self.archiver.policy
        assert head.format is not None
        media_type = fields.get("content-type", "").partition(";")[0].strip().lower()
        if media_type == "application/json" or media_type.endswith("+json") or body.lstrip()[:1] == b"{":
            bundle = from_json(body, policy)
            name = bundle.name
        else:
            bundle = from_list(
                body,
                policy,
                format=head.format,
                charset=fields.get("x-archive-charset"),
                name_sep=fields.get("x-archive-name-sep"),
            )
            name = path.rstrip("/").rpartition("/")[2]
        named = Bundle(name or "bundle", head.format)
        bundle.name, bundle.format = named.name, named.format
        return bundle

    # --- members ---

    def _expand(self, bundle: Bundle) -> None:
        """Put local members in the place of their paths, and see that no other path leads back to the bundles.

        :raises InvalidTarget: a path leads to the bundles.
        """
        if not any(kind == PATH for kind, _, _ in bundle.members.briefly()):
            return
        members = Members()
        for index, member in enumerate(bundle.members):
            found = self._stand_ins(index, member)
            members.extend([member] if found is None else found)
        bundle.members = members

    def _stand_ins(self, index: int, member: Member) -> Members | None:
        """The local members that a path stands for; None for any other member, if it does not lead to the bundles."""
        content = member.content
        if not isinstance(content, Path):
            return None
        try:
            found = self._found_locally(member, content.href)
            if found is None:
                aim(content.href, self.path)
        except StreamwareError as error:
            error.member, error.index = member.name, index
            raise
        return found

    def _found_locally(self, member: Member, href: str) -> Members | None:
        if self._local is None:
            return None
        try:
            given = self._local(href)
            found = given if given is None or isinstance(given, Members) else Members(given)
        except OSError as error:
            # Hosts take a bare OSError for the client's leaving.
            raise SourceError(f"a local member could not be looked up: {error!r}") from error
        if found is None or member.name == name_of(href):
            return found
        if len(found) == 1 and found[0].content is not None and not found[0].name.endswith("/"):
            return Members([_renamed(found[0], member)])
        return Members(replace(own, name=f"{member.name.rstrip('/')}/{own.name}") for own in found)


def _renamed(own: Member, member: Member) -> Member:
    """A local file under the name, and with the promises, of the manifest's member it stands for."""
    return replace(
        own,
        name=member.name,
        size=own.size if member.size is None else member.size,
        crc32=own.crc32 if member.crc32 is None else member.crc32,
        etag=own.etag if member.etag is None else member.etag,
        modified=own.modified if member.modified is None else member.modified,
        mode=own.mode if member.mode is None else member.mode,
        comment=member.comment or own.comment,
    )
