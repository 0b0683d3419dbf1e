"""One file of ROOT as it is.

The rule of this file: a file is served as what its name says and nothing else; what it may do in a browser is nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from mimetypes import MimeTypes

from streamware.errors import StreamwareError
from streamware.model import File
from streamware.policy import Policy
from streamware.reply import Conditions, Reply
from streamware.single import reply_for_source
from streamware.sources.file import FileSource

__all__ = ["media_type", "reply_for_file"]

# The standard library's own table and not the machine's files, so that every server answers alike.
_TYPES = MimeTypes(filenames=())
_TEXT = (".log", ".md", ".rst", ".toml", ".yaml", ".yml", ".ini", ".cfg", ".conf", ".sh", ".rs", ".go", ".ts", ".sql")
_CODED = {"gzip": "application/gzip", "bzip2": "application/x-bzip2", "xz": "application/x-xz"}


def media_type(name: str) -> str:
    """The media type a file name stands for; bytes where it says nothing."""
    lower = name.lower()
    if lower.endswith(_TEXT):
        return "text/plain; charset=utf-8"
    kind, coding = _TYPES.guess_type(f"/{lower}")
    if coding is not None:
        return _CODED.get(coding, "application/octet-stream")  # as it lies there, never as a Content-Encoding
    if kind is None:
        return "application/octet-stream"
    # HTML and XML name their own encoding; other text would be read as windows-1252.
    names_its_own = kind.endswith(("html", "xml"))
    return f"{kind}; charset=utf-8" if kind.startswith("text/") and not names_its_own else kind


def reply_for_file(
    file: File, conditions: Conditions, policy: Policy, problem: Callable[[StreamwareError], Reply]
) -> Reply:
    """Answer for one file: 200, 206, 304, 412 or 416. Blocks while it is opened; the caller closes the body.

    :param problem: makes the answer of an error (``Archiver.problem``).
    :raises MemberError: it is not there, is no regular file, or may not be read.
    """
    facts = FileSource(file.path, file.root).probe()
    return reply_for_source(
        FileSource(file.path, file.root, chunk_bytes=policy.chunk_bytes, version=hash(facts.validator)),
        facts,
        conditions,
        policy,
        problem,
        media_type=media_type(file.path),
        headers=(("Cache-Control", "no-cache"), ("Content-Security-Policy", "sandbox")),
    )
