"""The service: one function from a bundle and a request's conditions to a whole answer.

The rule of this file: every way in ends in ``Archiver.respond``, in this order: admit, probe, plan, decide, pump. What
goes wrong before the first byte becomes a problem reply here; details go to the log under the id the client is shown.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cache
from typing import Any

from streamware.admission import Admission, Ticket
from streamware.assemble import Assembly
from streamware.crew import Crew, Room, usable_cores
from streamware.errors import BodyClosed, LengthUnknown, PreconditionFailed, RangeNotSatisfiable, StreamwareError
from streamware.filestore import FileStore
from streamware.hosting import Host, host_of
from streamware.job import Job
from streamware.ledger import Ledger
from streamware.links import Link, Links
from streamware.member_sources import Subrequest
from streamware.memory_ledger import MemoryLedger
from streamware.model import Bundle, Observer
from streamware.plan import Window
from streamware.policy import Policy
from streamware.problems import problem
from streamware.pump import Body
from streamware.reply import Conditions, Reply
from streamware.semantics import Representation, content_disposition, decide
from streamware.shared_ledger import SqlLedger
from streamware.upstreams import Upstream

__all__ = ["Archiver", "Subrequest"]

_log = logging.getLogger("streamware")

# A coding or a cache in between would undo length, ranges, and the caller's own rights.
_CACHE = ("Cache-Control", "private, no-transform")


class Archiver:
    """Makes archives of bundles. One per application; safe to use from any number of threads.

    :param policy: limits and permissions; the defaults allow no upstream to manifests.
    :param ledger: where checksums that were learned in passing are kept: None for this process's memory, or the URL of
        a database that replicas share ("sqlite:///state.sqlite3", "postgresql+psycopg://...").
    :param observer: told of downloads and upstreams, for metrics; None for nobody.
    :param files: the store of the files that ``Bundle.add_stored`` names and the file service keeps; None: there are
        none. Whoever made it closes it.
    :raises ValueError: the ledger's URL cannot be used.
    """

    def __init__(
        self,
        policy: Policy | None = None,
        ledger: str | None = None,
        *,
        observer: Observer | None = None,
        files: FileStore | None = None,
    ) -> None:
        self.policy = policy or Policy()
        self.observer = observer
        self.files = files
        self.admission = Admission(self.policy)
        self.upstream = Upstream(self.policy, observer)
        memory = MemoryLedger(max_versions=self.policy.ledger_versions, seconds=self.policy.ledger_seconds)
        self.ledger: Ledger = (
            memory if ledger is None else SqlLedger(ledger, memory=memory, seconds=self.policy.ledger_seconds)
        )

        self._crew = Crew(self.policy.ahead_threads, "streamware-ahead", Room(self.policy.ahead_total_bytes))
        threads = self.policy.deflate_threads or usable_cores()
        self._deflaters = None
        if threads > 1:
            self._deflaters = Crew(threads, "streamware-deflate", Room(self.policy.deflate_total_bytes))
        self.links = Links(self.policy, self.upstream, self.ledger, files)

    def close(self) -> None:
        """Close idle upstream connections, and write what the ledger has learned.

        Bodies being read go on, each member opened at its turn, and compressed by whoever reads them.
        """
        self._crew.close()
        if self._deflaters is not None:
            self._deflaters.close()
        self.upstream.close()
        self.ledger.close()

    def open(self, bundle: Bundle) -> Body:
        """The whole archive as an iterable of bytes; ``body.length`` is its exact size or None. The caller closes it.

        Blocks while sizes are asked for and the first member is opened.

        :raises StreamwareError: the bundle is refused, a member cannot be had, or too many are being sent already.
        """
        ticket = self.admission.enter()
        job = Job(
            bundle, self.policy, self.upstream, self.ledger, None, ticket, self._crew, self._deflaters, files=self.files
        )
        try:
            assembly = job.plan(keep=True)
            return self._body(job, assembly, (Window(0, assembly.plan.length),), Conditions())
        except BaseException:
            job.release()
            raise

    def respond(
        self,
        bundle: Bundle,
        conditions: Conditions = Conditions(),  # noqa: B008 - a frozen value
        *,
        subrequest: Subrequest | None = None,
        headers: Iterable[tuple[str, str]] = (),
        base_etag: str | None = None,
        modified: int | None = None,
        link: Link | None = None,
        ticket: Ticket | None = None,
    ) -> Reply:
        """Answer for a bundle: 200, 206, 304, 412, 416, or a problem reply. Raises no StreamwareError.

        Blocks while sizes are asked for and the first member is opened. The caller iterates ``reply.body`` (not for a
        HEAD) and closes it.

        :param subrequest: opens ``Path`` members inside the wrapped app.
        :param headers: further response headers; they replace the archive's own of the same name.
        :param base_etag: an entity-tag of the list the bundle was made from; it becomes part of the archive's.
        :param modified: Last-Modified in Unix seconds, in place of the newest member's.
        :param link: the link that the bundle is of; an archive that it was not made for is answered with 410.
        :param ticket: a place that was taken for it already, and is given back from here on; None takes one.
        """
        try:
            ticket = ticket or self.admission.enter(conditions.client)
        except StreamwareError as error:
            return self.problem(error)
        job = Job(
            bundle,
            self.policy,
            self.upstream,
            self.ledger,
            subrequest,
            ticket,
            self._crew,
            self._deflaters,
            files=self.files,
        )
        try:
            return self._respond(job, conditions, tuple(headers), base_etag, modified, link)
        except StreamwareError as error:
            job.release()
            return self.problem(error if link is None else link.judged(error))
        except BaseException:
            job.release()
            raise

    def _respond(
        self,
        job: Job,
        conditions: Conditions,
        headers: tuple[tuple[str, str], ...],
        base_etag: str | None,
        modified: int | None,
        link: Link | None,
    ) -> Reply:
        conditional = any(
            (conditions.range, conditions.if_match, conditions.if_none_match, conditions.if_modified_since)
        )
        keep = conditions.method == "GET" and not conditional
        assembly = job.plan(keep=keep, base_etag=base_etag, linked=link is not None)
        if link is not None:
            link.check(assembly)
        if assembly.plan.length is None:
            self._require_framing(conditions)
        newest = assembly.modified if modified is None else modified
        representation = Representation(
            media_type=assembly.media_type,
            length=assembly.plan.length,
            etag=assembly.plan.etag,
            # RFC 9110 section 8.8.2.1: never later than now.
            modified=None if newest is None else min(newest, int(time.time())),
            ranges=assembly.ranges,
        )
        decision = decide(conditions, representation, max_ranges=self.policy.max_ranges)
        own = (
            *decision.headers,
            ("Content-Disposition", content_disposition(job.bundle.name)),
            _CACHE,
            ("X-Content-Type-Options", "nosniff"),
            ("X-Accel-Buffering", "no"),
        )
        if decision.pieces is None:  # nothing of the archive
            job.release()
            if decision.status == 304:
                # RFC 9110 section 15.4.5: it says of caching what the 200 would have said.
                return Reply(304, _merged((*decision.headers, _CACHE), headers))
            refusal = self.problem(PreconditionFailed() if decision.status == 412 else RangeNotSatisfiable())
            of_archive = ("content-disposition", "cache-control")
            others = tuple(h for h in headers if h[0].lower() not in of_archive)
            return replace(refusal, headers=_merged((*decision.headers, *refusal.headers), others))
        reply = Reply(decision.status, _merged(own, headers))  # its headers are checked before anything is opened
        if conditions.method == "HEAD":
            job.release()
            return reply
        return replace(reply, body=self._body(job, assembly, decision.pieces, conditions))

    def _body(self, job: Job, assembly: Assembly, pieces: Iterable[bytes | Window], conditions: Conditions) -> Body:
        download = _Download(job, self.observer, conditions.request_id)
        download.started()
        body = job.body(assembly, pieces, download)
        download.begun = True
        return body

    def _require_framing(self, conditions: Conditions) -> None:
        """Before a body without length.

        :raises LengthUnknown: nobody could tell a broken one from a whole one.
        """
        if conditions.unframed is not None and not self.policy.allow_unframed:
            error = LengthUnknown(f"{conditions.unframed}; Policy(allow_unframed=True) would take the risk")
            error.status = 505 if conditions.http_10 else 500
            raise error

    def forward(
        self,
        url: str,
        *,
        method: str = "GET",
        headers: Iterable[tuple[str, str]] = (),
        conditions: Conditions = Conditions(),  # noqa: B008 - a frozen value
    ) -> Reply:
        """Forward one upstream body as it comes. The URL is trusted. Raises no StreamwareError; the caller closes.

        :param headers: what the upstream is to know.
        :param conditions: the client's; a body of unknown length is refused where a broken one could not be told from a
            whole one. An error's body is not worth that.
        """
        try:
            reply = self.upstream.forward(url, method=method, headers=headers)
            if reply.status in (200, 203, 206) and reply.header("content-length") is None:
                try:
                    self._require_framing(conditions)
                except LengthUnknown:
                    reply.body.close()
                    raise
            return reply
        except StreamwareError as error:
            return self.problem(error)

    def meet(self, request: Mapping[str, Any], start_response: object = None) -> None:
        """Look at the first request, and warn of the host it came through if that is one to be warned of.

        :param request: a WSGI environ or an ASGI scope.
        :param start_response: the WSGI host's own.
        """
        host = host_of(request, start_response)
        if host is not None:
            _warn_of(host)

    def problem(self, error: StreamwareError) -> Reply:
        """The answer for an error found before the first byte (RFC 9457). What it does not say goes to the log."""
        instance = uuid.uuid4()
        level = logging.WARNING if error.status >= 500 else logging.INFO
        _log.log(level, "request %s: %d %s: %s", instance, error.status, error.kind, error)
        return problem(error, instance=f"urn:uuid:{instance}")


class _Download:
    """Watches one body from its start to its end, for the log and the metrics."""

    def __init__(self, job: Job, observer: Observer | None, request_id: str | None) -> None:
        self.begun = (
            False  # its head is out, or about to be; before that, what fails is answered and logged as a problem
        )
        self._job = job
        self._observer = observer
        self._request_id = request_id

    def started(self) -> None:
        if self._observer is not None:
            self._observer.download_started()

    def first_byte(self) -> None:
        if self._observer is not None:
            self._observer.first_byte(time.monotonic() - self._job.started)

    def ended(self, body: Body, error: BaseException | None) -> None:
        self._job.release()
        outcome = "complete" if error is None else "left" if isinstance(error, BodyClosed) else "aborted"
        if self.begun and isinstance(error, StreamwareError):
            self._log_end(body, error)
        if self._observer is not None:
            self._observer.download_ended(
                outcome, members=body.members, bytes_out=body.bytes_out, bytes_in=body.bytes_in
            )

    def _log_end(self, body: Body, error: StreamwareError) -> None:
        """The one record of a download that did not reach its end; its fields stand in it by name too."""
        fields = {
            "request": f"urn:uuid:{uuid.uuid4()}",
            "request_id": self._request_id,
            "bundle": self._job.bundle.name,
            "bytes_sent": body.bytes_out,
        }
        if isinstance(error, BodyClosed):
            _log.info(
                "request %(request)s: bundle %(bundle)r left by its client after %(bytes_sent)d bytes",
                fields,
                extra=fields,
            )
            return
        fields |= {
            "member_index": error.index,
            "member": error.member,
            "cause": error.kind,
            "cause_text": error.detail or error.title,
            "upstream": self._job.server_of(error.index),
        }
        _log.warning(
            "request %(request)s: bundle %(bundle)r aborted after %(bytes_sent)d bytes in member %(member_index)s "
            "%(member)r: %(cause)s: %(cause_text)s (upstream: %(upstream)s; X-Request-Id: %(request_id)s)",
            {name: "-" if value is None else value for name, value in fields.items()},
            extra=fields,
        )


@cache
def _warn_of(host: Host) -> None:
    """Once per process and host."""
    _log.warning("served by %s. %s (docs/hosts.md)", host.name, host.advice)


def _merged(own: Iterable[tuple[str, str]], extra: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
    """The archive's headers with the extra ones, which replace those of the same name."""
    names = {name.lower() for name, _ in extra}
    return (*(h for h in own if h[0].lower() not in names), *extra)
