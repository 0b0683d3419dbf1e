"""The members of a bundle that the file store holds: what is known of them, found out for many at once.

The rule of this file: the database is asked before anybody else, and nothing is kept of a file that can be told from
its id.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

from streamware.errors import InvalidTarget, MemberError, MemberNotFound
from streamware.formats.names import clean
from streamware.member_rows import OBJECT
from streamware.members import Members
from streamware.model import Facts, Stored
from streamware.policy import Policy
from streamware.said import Said
from streamware.semantics import shortened
from streamware.sources.stored import Files
from streamware.stored import StoredFile, identity_of, validator_of

__all__ = ["look_up", "stored_facts"]

_AT_ONCE = 500  # files that one query asks for


def look_up(members: Members, files: Files | None, policy: Policy, said: Said) -> dict[int, MemberError]:
    """Note what the stored members are, and give a name to those that have none. Those that are not there, by index.

    :raises InvalidTarget: there are some, and no file store.
    :raises StoreUnavailable: its database does not answer.
    """
    failed: dict[int, MemberError] = {}
    if not members.hold(Stored):
        return failed
    if files is None:
        raise InvalidTarget("A stored file can only be had where there is a file store: Archiver(files=...).")
    stored = _stored(members)
    while batch := dict(islice(stored, _AT_ONCE)):
        found = files.files(list(dict.fromkeys(batch.values())))
        for index, each in batch.items():
            file = found.get(each)
            if not members.name(index):
                members.rename(index, each if file is None else _name(file, policy))
            if file is None:
                failed[index] = MemberNotFound(
                    f"there is no stored file {each!r}", member=members.name(index), index=index
                )
            else:
                facts = Facts(file.size, file.created, crc32=file.crc32, media_type=file.media_type)
                said.put(index, facts)
    return failed


def stored_facts(content: Stored, said: Facts) -> Facts:
    """All that is known of a stored member."""
    return replace(said, validator=validator_of(content.id), identity=identity_of(content.id))


def _stored(members: Members) -> Iterator[tuple[int, str]]:
    for index, (kind, content, _) in enumerate(members.briefly()):
        if kind == OBJECT and isinstance(content, Stored):
            yield index, content.id


def _name(file: StoredFile, policy: Policy) -> str:
    """A name for a member whose bundle gives none, also where others have to be as they may be: whoever stored the file
    is not who asks for it."""
    name = shortened(file.name.rstrip("/") or file.id, policy.max_name_bytes)
    return clean(name, strict=False, max_bytes=policy.max_name_bytes, max_depth=policy.max_path_depth)
