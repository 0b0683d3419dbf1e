"""From members and facts to a plan: names, methods, times, and validators that differ where the bytes may."""

from __future__ import annotations

import io
import re
import tarfile
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import pytest

from streamware import Archiver, Bundle, Conditions, Member, Policy
from streamware.assemble import COMPRESSED, Assembly, assemble
from streamware.errors import (
    EmptyBundle,
    InvalidManifest,
    InvalidName,
    MemberChanged,
    MemberNotFound,
    SizeMismatch,
    SizeUnknown,
    StreamwareError,
)
from streamware.model import Facts, File, Stream
from streamware.plan import Method
from tests.synthetic import Synthetic, read

PINNED = Facts(size=100, validator='"v"', modified=1_600_000_000)
CONTENT = Stream(lambda: [b"x"])  # nothing here ever opens it

Found = tuple[Member, Facts]


def member(name: str = "a.txt", **fields: Any) -> Member:
    return Member(**{"name": name, "content": CONTENT, **fields})


def assembled(
    *found: Found,
    bundle: Bundle | None = None,
    policy: Policy | None = None,
    numbers: Iterable[int] | None = None,
    **how: str,
) -> Assembly:
    numbers = range(len(found)) if numbers is None else numbers
    members = ((number, *pair) for number, pair in zip(numbers, found, strict=True))
    return assemble(bundle or Bundle("b.zip"), members, policy or Policy(), **how)


# --- methods -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("compress", "name", "facts", "method"),
    [
        ("stored", "a.txt", PINNED, Method.PLAIN),
        ("deflate", "a.txt", PINNED, Method.DEFLATE),
        ("deflate", "a.png", PINNED, Method.DEFLATE),  # as was asked for
        ("deflate", "a.txt", Facts(), Method.DEFLATE),
        ("deflate", "a.txt", Facts(size=0), Method.PLAIN),
        ("auto", "a.txt", PINNED, Method.AUTO),
        ("auto", "a.txt", Facts(size=0), Method.PLAIN),
        ("auto", "a.png", PINNED, Method.PLAIN),
        ("auto", "A.JPG", PINNED, Method.PLAIN),
        ("auto", "a.tar.gz", PINNED, Method.PLAIN),
        ("auto", "folder.zip/readme", PINNED, Method.AUTO),
        ("auto", "a.png.txt", PINNED, Method.AUTO),
        ("auto", "a", replace(PINNED, media_type="video/mp4"), Method.PLAIN),
        ("auto", "a", replace(PINNED, media_type="image/jpeg"), Method.PLAIN),
        ("auto", "a", replace(PINNED, media_type="image/svg+xml"), Method.AUTO),
        ("auto", "a", replace(PINNED, media_type="text/plain"), Method.AUTO),
    ],
)
def test_how_a_member_stands_in_a_zip(compress: str, name: str, facts: Facts, method: Method) -> None:
    bundle = Bundle("b.zip", compress=compress)  # type: ignore[arg-type]
    made = assembled((member(name), facts), bundle=bundle)
    assert made.entries[0].method is method
    assert (made.plan.length is None) == (method in (Method.DEFLATE, Method.AUTO))
    for form in ("b.tar", "b.tar.gz"):
        bundle = Bundle(form, compress=compress)  # type: ignore[arg-type]
        assert assembled((member(name), replace(facts, size=5)), bundle=bundle).entries[0].method is Method.PLAIN


def test_the_list_of_what_is_compressed_already_is_made_of_extensions() -> None:
    assert {"zip", "jpg", "mp4", "docx", "zst"} <= COMPRESSED
    assert all(re.fullmatch("[a-z0-9]+", extension) for extension in COMPRESSED)
    assert not {"txt", "log", "csv", "bmp", "wav", "tar", "svg"} & COMPRESSED


# --- names, modes, times -----------------------------------------------------------------------------------------


def names(made: Assembly) -> list[str]:
    return [entry.name.decode() for entry in made.entries]


def test_a_directory_that_is_there_already_needs_no_second_entry() -> None:
    found = [
        (member("d", content=None), Facts()),
        (member("d/a"), PINNED),
        (member("d/", content=None, mode=0o700), Facts()),
        (member("e/b"), PINNED),
        (member("e/", content=None), Facts()),  # no entry of its own before
        (member("D/", content=None), Facts()),
        (member("d/a"), PINNED),
    ]
    made = assembled(*found, numbers=range(10, 17))
    assert names(made) == ["d/", "d/a", "e/b", "e/", "d/a (1)"]
    assert list(made.members) == [10, 11, 13, 14, 16]
    assert made.entries[0].mode == 0o755
    with pytest.raises(InvalidName) as caught:
        assembled(*found, bundle=Bundle("b.zip", duplicates="refuse"))
    assert (caught.value.member, caught.value.index) == ("d/", 2)


@pytest.mark.parametrize("names_", ["clean", "strict"])
def test_a_slash_at_the_end_means_a_directory_and_nothing_else(names_: str) -> None:
    bundle = Bundle("b.zip", names=names_)  # type: ignore[arg-type]
    made = assembled((member("d", content=None), Facts()), (member("e/", content=None), Facts()), bundle=bundle)
    assert names(made) == ["d/", "e/"]
    assert [entry.method for entry in made.entries] == [Method.DIRECTORY] * 2
    if names_ == "strict":
        with pytest.raises(InvalidName):
            assembled((member("f/"), PINNED), bundle=bundle)
    else:
        made = assembled((member("f/"), PINNED), (member("/"), PINNED), bundle=bundle)
        assert names(made) == ["f", "_"]
        assert made.entries[0].method is Method.PLAIN


def test_what_a_member_says_of_itself_outweighs_what_was_found() -> None:
    found = Facts(size=5, modified=1_600_000_000, crc32=7, mode=0o4711)
    [entry] = assembled((member(), found)).entries
    assert (entry.size, entry.modified, entry.crc32, entry.mode) == (5, 1_600_000_000, 7, 0o711)
    own = member(size=5, modified=1_500_000_000, crc32=8, mode=0o7640, comment="é")
    [entry] = assembled((own, found)).entries
    assert (entry.size, entry.modified, entry.crc32, entry.mode) == (5, 1_500_000_000, 8, 0o640)
    assert entry.comment == "é".encode()
    [entry, folder] = assembled((member(), Facts(size=5)), (member("d/", content=None), Facts())).entries
    assert (entry.modified, entry.mode) == (315_532_800, 0o644)  # 1980-01-01
    assert (folder.modified, folder.mode, folder.size) == (315_532_800, 0o755, 0)


@pytest.mark.parametrize(
    ("own", "found", "error"),
    [
        (member(size=5), Facts(size=6), SizeMismatch),
        (member(etag='"a"'), Facts(size=6, validator='"b"'), MemberChanged),
        (member(etag='"a"'), Facts(size=6, validator='W/"a"'), MemberChanged),
        (member("../a"), PINNED, InvalidName),
        (member("a" * 2000), PINNED, InvalidName),
    ],
)
def test_promises_that_do_not_hold(own: Member, found: Facts, error: type[StreamwareError]) -> None:
    with pytest.raises(error) as caught:
        assembled((member("first"), PINNED), (own, found), bundle=Bundle("b.zip", names="strict"), numbers=[3, 5])
    assert (caught.value.member, caught.value.index) == (own.name, 5)


def test_nothing_found_is_no_contradiction() -> None:
    assert assembled((member(size=5, etag='"a"'), Facts())).plan.etag is not None


@pytest.mark.parametrize("form", ["b.tar", "b.tar.gz", "b.tar.zst"])
def test_a_tar_needs_every_size(form: str) -> None:
    with pytest.raises(SizeUnknown) as caught:
        assembled((member("a"), PINNED), (member("b"), Facts()), bundle=Bundle(form))
    assert (caught.value.member, caught.value.index) == ("b", 1)


def test_what_cannot_be_laid_out() -> None:
    with pytest.raises(EmptyBundle):
        assembled()
    with pytest.raises(InvalidManifest):
        assembled((member(), PINNED), bundle=Bundle("b.zip", comment="é" * 32_768))
    assert assembled((member(), PINNED), bundle=Bundle("b.zip", comment="e" * 65_535)).plan.length is not None


# --- validators --------------------------------------------------------------------------------------------------


def test_the_newest_members_time() -> None:
    old, new = replace(PINNED, modified=5), replace(PINNED, modified=9)
    assert assembled((member("a"), old), (member("b"), new)).modified == 9
    assert assembled((member("a", modified=20), old), (member("b"), new)).modified == 20
    assert assembled((member("a"), old), (member("d/", content=None, modified=30), Facts())).modified == 5
    assert assembled((member("a"), old), (member("b"), replace(PINNED, modified=None))).modified is None
    assert assembled((member("a", modified=5), Facts(size=5))).modified is None  # nothing says when that changes


@pytest.mark.parametrize(
    ("own", "found", "etag", "ranges"),
    [
        (member(), PINNED, "strong", True),
        (member(etag='"v"'), Facts(size=5), "strong", True),
        (member(size=5, crc32=1), Facts(), "strong", True),
        (member(size=5, crc32=1), Facts(size=5, validator='W/"v"'), "strong", True),
        (member(size=5), Facts(), None, False),
        (member(crc32=1), Facts(size=5), None, False),
        (member(), Facts(size=5, validator='W/"v"'), "weak", False),
        (member(etag='W/"v"'), Facts(size=5), "weak", False),
        (member(), Facts(size=5, modified=5), "weak", False),
        (member(modified=5), Facts(size=5), None, False),
        (member(), Facts(validator='"v"'), "any", False),  # no size, no length
    ],
)
def test_what_pins_a_member(own: Member, found: Facts, etag: str | None, ranges: bool) -> None:
    crc = replace(found, crc32=7)
    for made in (assembled((own, crc)), assembled((member("first"), replace(PINNED, crc32=1)), (own, crc))):
        told = made.plan.etag
        assert (told is None) == (etag is None)
        if told is not None:
            assert re.fullmatch('(W/)?"[0-9a-f]{32}"', told)
            assert etag == "any" or told.startswith("W/") == (etag == "weak")
        assert made.ranges == ranges


def etag(*found: Found, **how: Any) -> str | None:
    return assembled(*(found or ((member(), PINNED),)), **how).plan.etag


def test_the_same_members_have_the_same_tag() -> None:
    first = etag()
    assert first is not None
    assert etag() == first
    same: list[dict[str, Any]] = [
        {"bundle": Bundle("other.zip")},
        {"bundle": Bundle("b.zip", on_error="skip")},
        {"bundle": Bundle("b.zip", names="strict", duplicates="refuse")},
        {"policy": Policy(max_members=5, chunk_bytes=1000)},
        {"coder": "of no use where nothing is compressed"},
        {"numbers": [7]},
    ]
    assert [etag(**how) for how in same] == [first] * len(same)
    assert etag((member(etag='"v"'), replace(PINNED, validator=None))) == first
    assert etag((member(), replace(PINNED, media_type="text/plain"))) == first


def test_whatever_changes_a_byte_changes_the_tag() -> None:
    two = (member("b.txt"), replace(PINNED, validator='"w"'))
    first = (member(), PINNED)
    folder = (member("d/", content=None), Facts())
    tags = [
        etag(),
        etag(bundle=Bundle("b.tar")),
        etag(bundle=Bundle("b.zip", comment="c")),
        etag(bundle=Bundle("b.zip", timestamps=False)),
        etag(bundle=Bundle("b.zip", compress="deflate")),
        etag(bundle=Bundle("b.zip", compress="auto")),
        etag(policy=Policy(inline_bytes=50)),
        etag(base_etag='"1"'),
        etag(base_etag='"2"'),
        etag((member("c.txt"), PINNED)),
        etag((member(mode=0o600), PINNED)),
        etag((member(modified=7), PINNED)),
        etag((member(crc32=7), PINNED)),
        etag((member(comment="c"), PINNED)),
        etag((member(may_exceed_4gib=True), PINNED)),
        etag((member(), replace(PINNED, size=101))),
        etag((member(), replace(PINNED, validator='"w"'))),
        etag((member(), replace(PINNED, validator='W/"v"'))),
        etag(first, two),
        etag(two, first),
        etag(first, folder),
        etag(folder, first),
        etag((member("a.txt/", content=None), Facts()), two),
        etag((first[0], two[1]), (two[0], first[1])),
    ]
    assert None not in tags
    assert len(set(tags)) == len(tags)


@pytest.mark.parametrize(
    "bundle", [Bundle("b.zip", compress="deflate"), Bundle("b.zip", compress="auto"), Bundle("b.tgz")]
)
def test_whatever_changes_compressed_bytes_changes_the_tag(bundle: Bundle) -> None:
    tags = [
        etag(bundle=bundle, coder="one"),
        etag(bundle=bundle, coder="two"),
        etag(bundle=bundle, coder="one", policy=Policy(chunk_bytes=1000, deflate_threads=7)),
    ]
    assert tags[0] != tags[1]
    assert tags[0] == tags[2]  # nor does what a server reads at a time or computes with
    assert etag(bundle=bundle, coder="one") == tags[0]


def test_a_declared_time_does_not_hide_that_a_member_has_changed() -> None:
    tags = [etag((member(modified=5), Facts(size=5, modified=when))) for when in (1000, 2000)]
    assert tags[0] is not None
    assert tags[0] != tags[1]


# --- the report of what was left out -----------------------------------------------------------------------------


def report(form: str, *more: Callable[[Bundle], None], compress: str = "stored") -> Bundle:
    bundle = Bundle(f"b.{form}", compress=compress, on_error="report")  # type: ignore[arg-type]
    bundle.add(Member("a.bin", Synthetic(1000)))
    bundle.add(Member("gone\nname.bin", File("/nowhere/secret.bin")))
    for add in more:
        add(bundle)
    bundle.add_data("z.txt", b"z")
    return bundle


def content(data: bytes) -> dict[str, bytes]:
    if data.startswith(b"PK"):
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            assert archive.testzip() is None
            return {name: archive.read(name) for name in archive.namelist()}
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return {info.name: tar.extractfile(info).read() for info in tar}  # type: ignore[union-attr]


@pytest.mark.parametrize("form", ["zip", "tar", "tar.gz"])
@pytest.mark.parametrize("compress", ["stored", "deflate"])
def test_the_report_comes_last_and_tells_one_line_a_member(form: str, compress: str) -> None:
    found = content(read(Archiver(), report(form, compress=compress)))
    assert list(found) == ["a.bin", "z.txt", "_errors.txt"]
    lines = found["_errors.txt"].decode().splitlines()
    assert lines[0].endswith("\tA member does not exist.") or len(lines) == 1
    assert b"secret" not in found["_errors.txt"]


def test_a_report_gives_way_to_a_member_of_its_name() -> None:
    found = content(read(Archiver(), report("zip", lambda b: b.add_data("_errors.txt", b"mine"))))
    assert found["_errors.txt"] == b"mine"
    assert b"gone" in found["_errors (1).txt"]


def test_a_report_is_part_of_the_length_and_of_the_tag() -> None:
    head = Archiver().respond(report("zip"), Conditions("HEAD"))
    head.body.close()
    assert head.header("Content-Length") == str(len(read(Archiver(), report("zip"))))
    again = Archiver().respond(report("zip"), Conditions("HEAD"))
    again.body.close()
    assert again.headers == head.headers
    whole = report("zip")
    del whole.members[1]
    other = Archiver().respond(whole, Conditions("HEAD"))
    other.body.close()
    assert other.header("ETag") not in (None, head.header("ETag"))


def test_a_member_that_fails_later_is_in_the_report_too() -> None:
    class Gone(Synthetic):
        def open(self, start: int, length: int | None) -> Any:
            raise MemberNotFound("gone")

    bundle = report("zip", lambda b: b.add(Member("late.bin", Gone(1000))), compress="deflate")
    found = content(read(Archiver(), bundle))
    assert list(found) == ["a.bin", "z.txt", "_errors.txt"]
    assert b"late.bin" in found["_errors.txt"]
