"""A folder for programs: JSON in pieces, so that a large folder needs no large buffer."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from streamware.server.files import Item, Listing, Place, Total, shown
from streamware.server.page import moment

__all__ = ["Pieces", "folder_json", "total_json"]

_PIECE_ITEMS = 500


class Pieces:
    """A ``ReplyBody`` over bytes that are made while they are sent."""

    length: int | None = None

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._ended = False

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if self._ended:
            raise StopIteration
        return next(self._pieces)

    def ready(self) -> bool:
        return True

    def abort(self) -> None:
        self._ended = True

    def close(self) -> None:
        self._ended = True


def folder_json(root_name: str, place: Place, listing: Listing, items: Sequence[Item]) -> Iterator[bytes]:
    """The folder's entries as one JSON object.

    ``path`` of the folder and of each entry is what ``/bundle`` takes; ``modified`` is RFC 3339 in UTC or null;
    an entry's ``path`` is null where its name holds control characters, for such a one comes only with its folder.
    ``total`` speaks of this folder alone, not of what lies below. ``cut`` appears, and is true, where not all entries
    are listed.
    """
    head = {"path": f"/tree/{place.href}", "name": shown(place.parts[-1]) if place.parts else root_name}
    yield _text(head)[:-1] + b', "entries": ['
    for first in range(0, len(items), _PIECE_ITEMS):
        entries = [_text(_entry(place, item)) for item in items[first : first + _PIECE_ITEMS]]
        yield (b",\n" if first else b"\n") + b",\n".join(entries)
    folders = sum(item.folder for item in items)
    total = {"files": len(items) - folders, "directories": folders, "bytes": sum(item.size for item in items)}
    tail = {"total": total, "cut": True} if listing.cut else {"total": total}
    yield b"\n], " + _text(tail)[1:] + b"\n"


def total_json(place: Place, total: Total) -> bytes:
    """What a folder comes to with all that is below it."""
    return _text({"path": f"/tree/{place.href}", **total._asdict()})


def _entry(place: Place, item: Item) -> dict[str, object]:
    inner = place.inner(item.name, folder=item.folder)
    return {
        "name": shown(item.name),
        "type": "directory" if item.folder else "file",
        "size": None if item.folder else item.size,
        "modified": moment(item.modified),
        "path": f"/tree/{inner.href}" if inner.bundleable else None,
    }


def _text(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()
