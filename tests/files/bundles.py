"""Bundles of stored files, looked at byte by byte: what their members' headers say, and whether they go on anywhere.

The rule of this file: archives are read by zipfile and by their raw records, never by streamware.
"""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from urllib.parse import quote

from tests.files.sending import Answer, ask

__all__ = ["bundle_path", "edges", "no_descriptors", "resumes"]


def bundle_path(urls: Iterable[str], name: str = "pick.zip") -> str:
    return "/bundle?" + "&".join(f"path={quote(url)}" for url in urls) + f"&name={name}"


def no_descriptors(archive: bytes, contents: Sequence[bytes]) -> None:
    """The archive holds these contents in this order; no member has a data descriptor, and none is coded."""
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        assert opened.testzip() is None
        members = opened.infolist()
        assert [opened.read(member) for member in members] == list(contents)
    for member in members:
        signature, _, flags, method, _, _, crc32, stored, size = struct.unpack_from(
            "<IHHHHHIII", archive, member.header_offset
        )
        assert signature == 0x04034B50
        assert flags & 8 == 0, f"{member.filename} has a data descriptor"
        assert (method, crc32) == (zipfile.ZIP_STORED, member.CRC)
        assert (stored, size) == (member.file_size, member.file_size)


def edges(archive: bytes) -> list[int]:
    """Bytes at which something begins or ends, those beside them, and some in between."""
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        begins = [member.header_offset for member in opened.infolist()]
    sizes = [len(archive) * n // 7 for n in range(1, 7)]
    near = {at + by for at in [*begins, *sizes, archive.index(b"PK\x01\x02"), len(archive)] for by in (-1, 0, 1, 30)}
    return sorted(at for at in near if 0 < at < len(archive))


def resumes(port: int, path: str, archive: bytes, etag: str, starts: Iterable[int]) -> None:
    """From each of these bytes on, the service answers with the very rest of an archive that came from elsewhere."""
    for start in starts:
        answer = _range(port, path, start, {"If-Range": etag})
        assert answer.status == 206, (start, answer.status, answer.headers)
        assert answer.headers["etag"] == etag
        assert answer.headers["content-range"] == f"bytes {start}-{len(archive) - 1}/{len(archive)}"
        assert answer.body == archive[start:], f"from byte {start} on it is not the same"


def _range(port: int, path: str, start: int, headers: Mapping[str, str]) -> Answer:
    return ask(port, "GET", path, {"Range": f"bytes={start}-", **headers})
