"""The sources of what this side holds or makes.

The rule of this file: one source for each kind of content, and none of them asks another server.
"""

from __future__ import annotations

from streamware.member_rows import Row
from streamware.model import Content, Data, File, Member, Source, Stream
from streamware.policy import Policy
from streamware.sources.file import FileSource
from streamware.sources.generated import DataSource, StreamSource

__all__ = ["file_source", "own_source"]


def file_source(path: str, root: str | None, version: int, policy: Policy) -> FileSource:
    """The source of a local file."""
    return FileSource(path, root, chunk_bytes=policy.chunk_bytes, version=version)


def own_source(content: Content | None, member: Member | Row, version: int, policy: Policy) -> Source:
    """The source of a member's content.

    :param version: of a file, as ``FileSource`` takes it.
    :raises TypeError: the content is nothing that a member may have, a mistake in the caller's code.
    """
    if isinstance(content, File):
        return file_source(content.path, content.root, version, policy)
    if isinstance(content, Data):
        return DataSource(content.data)
    if isinstance(content, Stream):
        return StreamSource(content.factory, size=member.size, etag=member.etag)
    if isinstance(content, Source):
        return content
    raise TypeError(f"a member's content is a {type(content).__name__}")
