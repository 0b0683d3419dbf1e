"""Names that are safe to extract anywhere: ``clean`` for one name, ``Unique`` for all names of an archive.

The rule of this file: an ordinary name comes out as it went in, and no name that comes out can climb out of the folder
it is extracted in, overwrite another member, or stop an extraction on Windows, macOS or Linux. docs/names.md says the
same to users; the two change together.
"""

from __future__ import annotations

import re
from functools import cache
from unicodedata import combining, normalize

from streamware.errors import InvalidName, LimitExceeded
from streamware.model import Duplicates

__all__ = ["MAX_COMPONENT_BYTES", "MAX_DIRECTORY_BYTES", "Unique", "clean"]

MAX_COMPONENT_BYTES = 255  # of a file's or folder's own name, on Linux; macOS and Windows count no stricter
MAX_DIRECTORY_BYTES = 64 * 1024 * 1024  # memory for the folders of one archive, as Unique estimates it
_DIRECTORY_COST = 256  # bytes for a folder beside its path, which is kept twice
_MAX_MARKS = 30  # combining marks in a row, as in UAX #15's Stream-Safe Text Format
_NUMBER_ROOM = len(" (1234567)")

# A device is a device whatever its case and extension, and with spaces before the dot.
_DEVICE = r"(?i:con|prn|aux|nul|com[0-9\xb9\xb2\xb3]|lpt[0-9\xb9\xb2\xb3]|conin\$|conout\$) *(?:[.:/]|\Z)"
_CONTROL = r"\x00-\x1f\x7f-\x9f\u2028\u2029"
_DIRECTION = r"\u202a-\u202e\u2066-\u2069"
_SURROGATE = r"\ud800-\udfff"

_is_device = re.compile(_DEVICE).match
# Leftmost, so that ".tar.gz" is found whole; more than 16 characters, or a space, is not an extension but a sentence.
_extension = re.compile(r"(?<=.)(?:\.tar)?\.[^. ]{1,16}\Z", re.IGNORECASE | re.DOTALL).search
_many_marks = re.compile(rb"[^\0]{%d}([^\0]+)" % _MAX_MARKS).finditer

# Whole names are looked through for these first.
_CHARACTERS = (
    (re.compile(r"\\"), "a backslash"),
    (re.compile(f"[{_CONTROL}]"), "a control character"),
    (re.compile(f"[{_DIRECTION}]"), "a character that changes the direction of the text"),
    (re.compile(f"[{_SURROGATE}]"), "half of a surrogate pair, which is not a character"),
)


def _ordinary(inside: str, last: str, characters: int) -> re.Pattern[str]:
    """Matches names that need no rewriting, with components of at most so many ``characters``.

    :param inside: the class of those that may stand in a component, and ``last`` of those that may end it.
    """
    # PERF: one scan, 0.4 us for 50 characters. The first letter spares most components the search for devices.
    component = rf"(?!(?=[aclnpACLNP]){_DEVICE})(?![A-Za-z]:)[{inside}]{{0,{characters - 1}}}[{last}]"
    return re.compile(f"{component}(?:/{component})*/?")


# Neither a control character nor a slash or backslash; at the end neither a dot nor a space.
_is_ordinary_ascii = _ordinary(
    r"\x20-\x2e\x30-\x5b\x5d-\x7e", r"\x21-\x2d\x30-\x5b\x5d-\x7e", MAX_COMPONENT_BYTES
).fullmatch


@cache
def _ordinary_of_all() -> re.Pattern[str]:
    # PERF: compiling it takes 5 ms, which a process that sees no such name is spared.
    excluded = rf"/\\{_CONTROL}{_DIRECTION}{_SURROGATE}"
    return _ordinary(f"^{excluded}", f"^. {excluded}", MAX_COMPONENT_BYTES // 4)


def clean(name: str, *, strict: bool, max_bytes: int, max_depth: int) -> str:
    """A member's name as it may stand in an archive: in NFC, and rewritten where it is unsafe (docs/names.md).

    A ``/`` at the end, which makes it a directory, stays. With ``strict`` nothing is rewritten but the normal form.
    Raises InvalidName where the result would have more than ``max_bytes`` of UTF-8 or ``max_depth`` parts between
    slashes and, with ``strict``, for any flaw.
    """
    if _is_ordinary_ascii(name) is not None:
        text = name
    # NFC composes characters of several bytes only, so it cannot shorten this to fit; what a rewrite drops could, but
    # names are not searched for that at any length.
    elif len(name) > 2 * max_bytes:
        raise _refusal(name, f"is longer than {max_bytes} bytes")
    else:
        text = _normal(name, strict)
        if _ordinary_of_all().fullmatch(text) is None:
            text = _rewrite(text, strict)
    if len(text) > max_bytes // 4 and len(text.encode()) > max_bytes:
        raise _refusal(name, f"is longer than {max_bytes} bytes")
    if text.count("/", 0, -1) >= max_depth:
        raise _refusal(name, f"has more than {max_depth} parts")
    return text


def _refusal(name: str, flaw: str) -> InvalidName:
    shown = name[:200].encode("utf-8", "backslashreplace").decode()
    return InvalidName(f"the name {flaw}", member=shown if len(name) <= 200 else f"{shown}...")


def _normal(name: str, strict: bool) -> str:
    if name.isascii():
        return name
    # Before, because putting marks in order takes the square of their number; after, because some signs come apart.
    few = _fewer_marks(name)
    composed = normalize("NFC", few)
    text = composed if composed == few else _fewer_marks(composed)
    if strict and not (few == name and text == composed):
        raise _refusal(name, f"has more than {_MAX_MARKS} combining marks on one character")
    return text


def _fewer_marks(text: str) -> str:
    if len(text) <= _MAX_MARKS:
        return text
    marked = text
    for sign in "\u0f73\u0f75\u0f81":  # of class 0, and yet made of two marks each
        marked = marked.replace(sign, "\u0f72")
    classes = bytes(map(combining, marked))
    kept, done = [], 0
    for run in _many_marks(classes):
        kept.append(text[done : run.start(1)])
        done = run.end(1)
    return "".join([*kept, text[done:]]) if kept else text


def _rewrite(name: str, strict: bool) -> str:
    """The rules, in their order. Each raises where ``strict``."""

    def flaw(what: str) -> None:
        if strict:
            raise _refusal(name, what)

    text = name
    for characters, what in _CHARACTERS:
        text, count = characters.subn("_", text)
        if count:
            flaw(f"has {what}")
    directory = text.endswith("/")
    components = []
    for component in text[: -1 if directory else None].split("/"):
        if component in ("", ".", ".."):
            if component:
                flaw(f"has a part that is only {component!r}")
            flaw("starts with a slash" if name[:1] == "/" else "has an empty part" if name else "is empty")
            continue
        if component[0].isascii() and component[0].isalpha() and component[1:2] == ":":
            flaw("has a part that starts with a drive letter")
            component = f"{component[0]}_{component[2:]}"
        if component[-1] in ". ":
            flaw("has a part that ends with a dot or a space")
            component = _underscored(component)
        if _is_device(component):
            flaw("has a part that Windows keeps for a device")
            component = f"_{component}"
        if len(component) > MAX_COMPONENT_BYTES // 4 and len(component.encode()) > MAX_COMPONENT_BYTES:
            flaw(f"has a part longer than {MAX_COMPONENT_BYTES} bytes")
            stem, extension = _split(component)
            component = _underscored(_cut(stem, MAX_COMPONENT_BYTES - len(extension.encode())) + extension)
        components.append(component)
    return ("/".join(components) or "_") + ("/" if directory else "")


def _underscored(component: str) -> str:
    """Dots and spaces at the end, which Windows drops, as underscores."""
    kept = component.rstrip(". ")
    return kept + "_" * (len(component) - len(kept))


def _split(component: str) -> tuple[str, str]:
    """The stem and the extension with its dot, if any; ``.tar`` goes with what follows it."""
    found = _extension(component)
    cut = len(component) if found is None else found.start()
    return component[:cut], component[cut:]


def _cut(text: str, most: int) -> str:
    """At most so many bytes of UTF-8, whole characters."""
    return text.encode()[:most].decode(errors="ignore")


class Unique:
    """Makes the names of one archive unique, also where case or normal form are not told apart.

    :param duplicates: "rename" puts `` (1)`` and so on before the extension of the later one, "refuse" raises.

    Every name takes about the same time, whatever came before. Renaming may make a name a few bytes longer for each of
    its components, though never a component longer than 255 bytes.
    """

    __slots__ = ("_directories", "_entered", "_listed", "_memory", "_moved", "_next", "_refuse", "_taken")

    def __init__(self, duplicates: Duplicates) -> None:
        self._refuse = duplicates == "refuse"
        self._taken: set[str] = set()  # keys of all files and folders
        self._directories: set[str] = set()  # those of them that are folders
        self._listed: set[str] = set()  # folders with an entry of their own
        self._entered: dict[str, str] = {"": ""}  # the way to a member, as spelled -> as written
        self._moved: dict[str, str] = {}  # key of a folder that had to be renamed -> the way to it, as written
        self._next: dict[str, int] = {}  # what to number -> the number to try next
        self._memory = 0

    def take(self, name: str) -> str:
        """The name under which a member goes into the archive. ``name`` comes from ``clean``.

        Empty for a directory that is already there: it needs no second entry. A folder whose name a file has already is
        renamed once, and with it the way to everything in it. Raises InvalidName where "refuse" was asked for, and
        LimitExceeded for more folders than MAX_DIRECTORY_BYTES can hold (half a million of 60 characters, say).
        """
        cut = name.rfind("/") + 1
        way = name[:cut]
        written = self._entered.get(way)
        if written is None:
            written = self._enter(way)
        if cut == len(name):
            return self._list(name, written)
        result = name if written == way else written + name[cut:]
        key = result.lower() if result.isascii() else _key(result)
        if key == result:
            key = result  # mostly the member's own name: nothing more is held
        if key not in self._taken:
            self._taken.add(key)
            return result
        if self._refuse:
            raise _refusal(name, "is used twice in the archive, or differs from another in case alone")
        return self._renamed(written, *_split(name[cut:]))

    def _list(self, name: str, written: str) -> str:
        key = _key(written[:-1])
        if key not in self._listed:
            self._listed.add(key)
            return written
        if self._refuse:
            raise _refusal(name, "of this directory is used twice in the archive, or differs in case alone")
        return ""

    def _enter(self, way: str) -> str:
        """Note the folders on a way that has not been gone before."""
        ahead = []
        while (written := self._entered.get(way)) is None:
            ahead.append(way)
            way = way[: way.rfind("/", 0, -1) + 1]
        for step in reversed(ahead):
            self._memory += 2 * len(step) + _DIRECTORY_COST
            if self._memory > MAX_DIRECTORY_BYTES:
                raise LimitExceeded("the archive has too many directories")
            written = self._folder(written, step[len(way) : -1])
            self._entered[step] = written
            way = step
        return written

    def _folder(self, written: str, component: str) -> str:
        path = written + component
        key = _key(path)
        if key in self._directories:
            return f"{path}/"
        moved = self._moved.get(key)
        if moved is not None:
            return moved
        if key in self._taken:
            if self._refuse:
                raise _refusal(path, "is a file's and also a directory's, or differs from it in case alone")
            path = self._renamed(written, component, "")
            self._directories.add(_key(path))
            self._moved[key] = f"{path}/"
        else:
            self._taken.add(key)
            self._directories.add(key)
        return f"{path}/"

    def _renamed(self, written: str, stem: str, extension: str) -> str:
        most = MAX_COMPONENT_BYTES - _NUMBER_ROOM - len(extension.encode())
        if len(stem) > most // 4:
            stem = _cut(stem, most)
        # Counted by what is numbered, after the cut: else long names with one beginning would each try all numbers.
        family = _key(f"{written}{stem}/{extension}")
        number = self._next.get(family, 1)
        while True:
            result = f"{written}{stem} ({number}){extension}"
            key = _key(result)
            number += 1
            if key not in self._taken:
                self._next[family] = number
                self._taken.add(key)
                return result


def _key(name: str) -> str:
    """What two names share that a file system may take for the same."""
    return name.lower() if name.isascii() else normalize("NFC", name.casefold())
