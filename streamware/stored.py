"""What a file service knows of its files: finished ones, unfinished uploads, and the parts that hold their bytes.

The rule of this file: pure values. A stored file never changes, so its id is a validator for ever; ``None`` always
means "not known". Sizes are bytes, times are whole seconds since 1970-01-01 UTC.
"""

from __future__ import annotations

import re
from base64 import b64encode
from dataclasses import dataclass
from typing import Literal

__all__ = ["Part", "StoredFile", "Upload", "UploadKind", "identity_of", "is_file_id", "is_part_key", "validator_of"]

# One request; a tus upload; one of a tus upload's pieces that are joined later ("partial"), which is never a file.
UploadKind = Literal["raw", "tus", "partial"]

# A UUID of version 4 in its one canonical form (RFC 9562 sections 4 and 5.4). Nothing else ever reaches a database, let
# alone a file system.
_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}\Z")


def validator_of(id: str) -> str:
    """A strong entity-tag of a stored file that is known from the first moment on, and stays."""
    return f'"{id}"'


def identity_of(id: str) -> str:
    """What names a stored file's content among all others (``Facts.identity``)."""
    return f"stored:{id}"


# Where the bytes of an upload lie. Whatever else is in a folder or bucket is somebody else's.
_KEY = re.compile(r"([0-9a-f]{2})/(\1[0-9a-f-]{34})/[0-9a-f]{16}-[0-9a-f]{8}\Z")


def is_part_key(key: str) -> bool:
    """Whether a key is one that parts have."""
    found = _KEY.match(key)
    return found is not None and is_file_id(found[2])


def is_file_id(text: str) -> bool:
    """Whether a text can be the id of a stored file."""
    return _ID.match(text) is not None


@dataclass(frozen=True, slots=True)
class Part:
    """A run of a file's bytes, which lies in the object store under ``key`` and never changes.

    :param offset: where in the file it begins.
    :param crc32: of its bytes alone.
    """

    offset: int
    length: int
    key: str
    crc32: int


@dataclass(frozen=True, slots=True)
class Upload:
    """An upload that is not finished.

    ``length`` is what it will have, None where that has not been said; ``offset`` how much of it is kept durably, and
    ``crc32`` the checksum of that. ``owner`` is the identity that began it, "" where nobody is told apart. ``metadata``
    and ``concat`` are a tus client's Upload-Metadata and Upload-Concat as they came.
    """

    id: str
    name: str
    media_type: str
    length: int | None
    created: int
    expires: int
    offset: int = 0
    crc32: int = 0
    kind: UploadKind = "raw"
    owner: str = ""
    metadata: str = ""
    concat: str = ""


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file that is whole. ``sha256`` (32 bytes) is None while it is still being computed.

    ``expires`` None: it is kept until somebody deletes it. ``micros``: of the second ``created`` so many microseconds
    had passed; for the order of files alone, and nobody is shown them.
    """

    id: str
    name: str
    media_type: str
    size: int
    crc32: int
    sha256: bytes | None
    created: int
    expires: int | None = None
    owner: str = ""
    metadata: str = ""
    concat: str = ""
    micros: int = 0

    @property
    def validator(self) -> str:
        """See ``validator_of``."""
        return validator_of(self.id)

    @property
    def etag(self) -> str:
        """The entity-tag a client is shown: of the SHA-256, or, until that is known, of the id."""
        return self.validator if self.sha256 is None else f'"{self.sha256.hex()}"'

    @property
    def digest(self) -> str | None:
        """The value of Repr-Digest (RFC 9530 section 3)."""
        return None if self.sha256 is None else f"sha-256=:{b64encode(self.sha256).decode()}:"

    def document(self, url: str) -> dict[str, object]:
        """What a program is told of the file, to be written as JSON."""
        return {
            "id": self.id,
            "name": self.name,
            "size": self.size,
            "type": self.media_type,
            "sha256": None if self.sha256 is None else self.sha256.hex(),
            "crc32": f"{self.crc32:08x}",
            "created": self.created,
            "url": url,
        }
