"""The hosts that take uploads, what is asked of each, and how it is started for that.

The rule of this file: what they make of it is kept and told as ``tests.hosts.matrix.verdicts`` says.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.files.upload_apps import KIND, WORK
from tests.hosts.matrix.hosts import HOSTS, Host
from tests.hosts.matrix.verdicts import Measured
from tests.resume.replicas import Replica

__all__ = ["UPLOADS", "serving"]

UPLOADS = Measured(
    Path(__file__).with_name("measured.json"),
    "uploads measured",
    {
        "chunked": "body without length",
        "expect": "100 Continue",
        "cut": "cut, length known",
        "cut-chunked": "cut, without length",
        "lengths": "length and chunks",
        "two": "two lengths",
        "refused": "refused early, 15 MB",
        "drips": "drips",
    },
    tuple(host for host in HOSTS if not host.http2),
    packages=False,
)


@contextmanager
def serving(host: Host, work: Path) -> Iterator[Replica]:
    """The host with the app of ``upload_apps``, and its files in ``work``."""
    assert host.package  # or it is skipped here
    arguments = [part.replace("tests.hosts.matrix.apps", "tests.files.upload_apps") for part in host.arguments()]
    replica = Replica(arguments, work / "log", {WORK: str(work), KIND: host.kind})
    try:
        replica.start()
        yield replica
    finally:
        try:
            replica.kill()
        except ProcessLookupError:
            pass  # it ended by itself, which the tests have seen
