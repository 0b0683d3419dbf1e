"""The JSON of a manifest, read from front to back.

The rule of this file: it reads one shape and nothing else. So it cannot be made to nest, holds no more than one
member's fields beside the members themselves, and can point at what it refuses (RFC 6901).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from json import JSONDecodeError, JSONDecoder
from typing import Any, TypeVar

from streamware.errors import EmptyBundle, InvalidManifest, StreamwareError
from streamware.manifest_fields import MAX_MIRRORS, MEMBER, SETTINGS, Convert, make_member, too_many_members
from streamware.model import Members
from streamware.policy import Policy

__all__ = ["ManifestReader"]

Item = TypeVar("Item")

_QUICK_CHARACTERS = 16_384
_QUICK_LISTS = 16  # that scanner recurses into lists; brackets in names count, too, but few have more
_MARK = re.compile(r"[ \t\r\n]*([{}\[\]:,]?)")
_WORD = re.compile(r"[-+.0-9A-Za-z]{0,64}")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?\Z")
_WORDS: Mapping[str, object] = {"true": True, "false": False, "null": None}


def _member_list(value: Any, policy: Policy) -> Members:
    if not isinstance(value, Members):
        raise ValueError("must be a list")
    return value


_TOP: Mapping[str, Convert] = {"members": _member_list}
_strings = JSONDecoder()
_flat = JSONDecoder(object_pairs_hook=list)


class ManifestReader:
    """Reads one manifest. ``_key`` is the field it stands at, for the pointer of an error.

    :param known: the fields it may have beside its members.
    """

    def __init__(self, text: str, policy: Policy, known: Mapping[str, Convert] = SETTINGS) -> None:
        self._text = text
        self._known = {**known, **_TOP}
        self._at = 0
        self._key: str | None = None
        self._policy = policy

    def read(self) -> tuple[dict[str, Any], Members]:
        """The bundle's settings, converted, and its members. Call it once.

        :raises RequestError: with a pointer, and inside a member with its index.
        """
        settings = self._object(self._known, "", self._fields())
        if self._text[self._at :].strip(" \t\r\n"):
            raise InvalidManifest("Something follows the end of the manifest.", pointer="")
        for key in ("name", "members"):
            if settings.get(key) is None:
                raise InvalidManifest(f'A manifest needs "{key}".', pointer="")
        members = settings.pop("members")
        if not members:
            raise EmptyBundle(pointer="/members")
        return settings, members

    def _object(
        self, known: Mapping[str, Convert], pointer: str, fields: Iterable[tuple[str, object]]
    ) -> dict[str, Any]:
        """The fields of the object at ``pointer`` (the whole, or a member), each converted; null stays None."""
        values: dict[str, Any] = {}
        policy = self._policy
        self._key = None
        try:
            for key, value in fields:
                self._key = key
                if key not in known:
                    raise InvalidManifest(f'"{key[:64]}" is not a field that belongs here.')
                if key in values:
                    raise InvalidManifest(f'"{key}" stands here twice.')
                values[key] = None if value is None else known[key](value, policy)
        except ValueError as error:
            where, name = (self._key or "")[:64], values.get("name") if pointer else None
            raise InvalidManifest(f'"{where}" {error}.', member=name, pointer=_pointer(pointer, self._key)) from error
        except StreamwareError as error:
            if error.pointer is None:
                error.pointer = _pointer(pointer, self._key)
            if error.member is None and pointer:
                error.member = values.get("name")
            raise
        return values

    def _member(self, index: int, members: Members) -> None:
        pointer = f"/members/{index}"
        try:
            fields = self._quick_fields()
            make_member(self._object(MEMBER, pointer, self._fields() if fields is None else fields), members)
        except StreamwareError as error:
            error.index = index
            error.pointer = pointer if error.pointer is None else error.pointer
            raise
        self._key = "members"

    def _quick_fields(self) -> list[tuple[str, object]] | None:
        """The fields up to the next "}", if that much makes an object; None where it takes a closer look.

        PERF: the standard library's scanner is ten times as fast as ours, but builds whatever it is sent, up to forty
        times the size of the text. So it gets short pieces only, and none in which an object could hold another.
        """
        end = self._text.find("}", self._at, self._at + _QUICK_CHARACTERS) + 1
        piece = self._text[self._at : end].lstrip(" \t\r\n")
        if not piece.startswith("{") or piece.count("[") > _QUICK_LISTS:
            return None
        try:
            fields: list[tuple[str, object]] = _flat.decode(piece)
        except ValueError:
            return None
        self._at = end
        return fields

    def _fields(self) -> Iterator[tuple[str, object]]:
        self._expect("{", "an object")
        if self._closes("}"):
            return
        end = ","
        while end == ",":
            key = self._key = self._string()
            self._expect(":", '":"')
            yield key, self._value(key)
            end = self._expect(",}", '"," or "}"')

    def _value(self, key: str) -> object:
        mark = _MARK.match(self._text, self._at)
        assert mark is not None
        if mark[1] == "[" and key == "members":
            members = Members()
            most, beyond = self._policy.max_members, too_many_members(self._policy)
            for _ in self._list(most, beyond, lambda index: self._member(index, members)):
                pass
            return members
        if mark[1] == "[" and key == "mirrors":
            too_many = ValueError(f"has more than {MAX_MIRRORS} entries")
            return list(self._list(MAX_MIRRORS, too_many, lambda index: self._string()))
        if mark[1] in ("{", "["):
            raise ValueError("must not be a list or an object")
        if self._text.startswith('"', mark.end()):
            return self._string()
        match = _WORD.match(self._text, mark.end())
        assert match is not None
        word = match[0]
        if word not in _WORDS and not _NUMBER.match(word):
            raise self._broken("a value")
        self._at = match.end()
        if word in _WORDS:
            return _WORDS[word]
        return int(word) if word.lstrip("-").isdigit() else float(word)

    def _list(self, limit: int, beyond: Exception, read: Callable[[int], Item]) -> Iterator[Item]:
        self._expect("[", "a list")
        if self._closes("]"):
            return
        index, end = 0, ","
        while end == ",":
            if index >= limit:
                raise beyond
            yield read(index)
            index += 1
            end = self._expect(",]", '"," or "]"')

    def _string(self) -> str:
        match = _MARK.match(self._text, self._at)
        assert match is not None
        if match[1] or not self._text.startswith('"', match.end()):
            raise self._broken("a text")
        try:
            value, self._at = _strings.raw_decode(self._text, match.end())
        except JSONDecodeError as error:
            raise InvalidManifest(f"Not valid JSON: {error.msg} at character {error.pos}.") from error
        assert isinstance(value, str)
        return value

    def _expect(self, marks: str, what: str) -> str:
        match = _MARK.match(self._text, self._at)
        assert match is not None
        if not match[1] or match[1] not in marks:
            raise self._broken(what)
        self._at = match.end()
        return match[1]

    def _closes(self, mark: str) -> bool:
        match = _MARK.match(self._text, self._at)
        if match is None or match[1] != mark:
            return False
        self._at = match.end()
        return True

    def _broken(self, what: str) -> InvalidManifest:
        return InvalidManifest(f"Not a valid manifest: expected {what} at character {self._at}.")


def _pointer(parent: str, key: str | None) -> str:
    """RFC 6901 section 3; a key is shortened to what a message can carry."""
    return parent if key is None else f"{parent}/{key[:64].replace('~', '~0').replace('/', '~1')}"
