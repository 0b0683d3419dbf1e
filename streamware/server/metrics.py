"""Figures for Prometheus: an Observer that counts, and their text.

The rule of this file: it counts what it is told of, and adds up over all processes of one server.
"""

from __future__ import annotations

import os

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, values
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

__all__ = ["CONTENT_TYPE", "Metrics", "forget_process"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

# From a local file to an upstream that has to think: what a user notices starts at a tenth of a second.
_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_OUTCOMES = ("complete", "aborted", "left")
_UPLOAD_OUTCOMES = ("taken", "refused", "left")


class Metrics:
    """An ``Observer``; safe to call from any thread.

    :param directory: where the processes of one server keep their shares, so that each can tell the sum; None where
        there is only one. Its life is the caller's affair.
    """

    def __init__(self, directory: str | None = None) -> None:
        if directory is not None:
            # prometheus_client chooses at import, by the environment alone; here the choice is known only later.
            os.environ["PROMETHEUS_MULTIPROC_DIR"] = directory
            values.ValueClass = values.MultiProcessValue()  # type: ignore[no-untyped-call]
        own = CollectorRegistry()
        self._bundles = Counter("streamware_bundles", "Downloads of bundles that ended.", ["outcome"], registry=own)
        self._bytes_out = Counter("streamware_bytes_out", "Bytes of archives sent to clients.", registry=own)
        self._bytes_in = Counter("streamware_bytes_in", "Bytes of members read from their sources.", registry=own)
        self._members = Counter("streamware_members", "Members opened for downloads that ended.", registry=own)
        self._opens = Counter("streamware_upstream_opens", "Requests to upstreams.", registry=own)
        self._retries = Counter("streamware_upstream_retries", "Upstream requests repeated.", registry=own)
        self._failures = Counter("streamware_upstream_failures", "Upstream requests given up.", registry=own)
        self._active = Gauge(
            "streamware_active_downloads", "Downloads running now.", registry=own, multiprocess_mode="livesum"
        )
        self._first_byte = Histogram(
            "streamware_time_to_first_byte_seconds",
            "From the request to the first byte of the archive.",
            registry=own,
            buckets=_BUCKETS,
        )
        self._uploads = Counter("streamware_uploads", "Requests with uploads that ended.", ["outcome"], registry=own)
        self._upload_bytes = Counter("streamware_upload_bytes", "Bytes of uploads received.", registry=own)
        self._stored = Counter("streamware_files_stored", "Files that became whole.", registry=own)
        self._stored_bytes = Counter("streamware_files_stored_bytes", "Bytes of them.", registry=own)
        self._swept = Counter("streamware_files_swept", "Deleted and expired ones whose bytes are gone.", registry=own)
        self._receiving = Gauge(
            "streamware_active_uploads", "Requests with uploads running now.", registry=own, multiprocess_mode="livesum"
        )
        for outcome in _UPLOAD_OUTCOMES:
            self._uploads.labels(outcome)
        for outcome in _OUTCOMES:
            self._bundles.labels(outcome)  # a rate over a counter that appears late would miss its first events
        if directory is None:
            ProcessCollector(registry=own)
            PlatformCollector(registry=own)
            self._registry = own
        else:
            self._registry = CollectorRegistry()
            MultiProcessCollector(self._registry, directory)  # type: ignore[no-untyped-call]

    def text(self) -> bytes:
        """Everything in Prometheus' text format. Reads files where there are several processes."""
        return generate_latest(self._registry)

    def download_started(self) -> None:
        self._active.inc()

    def first_byte(self, seconds: float) -> None:
        self._first_byte.observe(seconds)

    def download_ended(self, outcome: str, *, members: int, bytes_out: int, bytes_in: int) -> None:
        self._active.dec()
        self._bundles.labels(outcome).inc()
        self._members.inc(members)
        self._bytes_out.inc(bytes_out)
        self._bytes_in.inc(bytes_in)

    def upstream_opened(self) -> None:
        self._opens.inc()

    def upstream_retried(self) -> None:
        self._retries.inc()

    def upstream_failed(self) -> None:
        self._failures.inc()

    def upload_started(self) -> None:
        self._receiving.inc()

    def upload_received(self, count: int) -> None:
        """Some bytes of a request's body have come."""
        self._upload_bytes.inc(count)

    def upload_ended(self, outcome: str) -> None:
        """``taken``, ``refused`` (by an answer that says so) or ``left`` (by the client, without an answer)."""
        self._receiving.dec()
        self._uploads.labels(outcome).inc()

    def file_stored(self, size: int) -> None:
        self._stored.inc()
        self._stored_bytes.inc(size)

    def files_swept(self, count: int) -> None:
        self._swept.inc(count)


def forget_process(directory: str, pid: int) -> None:
    """Take a process that ended out of the figures of the moment; what it counted stays."""
    mark_process_dead(pid, directory)  # type: ignore[no-untyped-call]
