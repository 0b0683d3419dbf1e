"""What stands where in a TAR archive, read back by other people's programs and, beyond any disk, by hand."""

from __future__ import annotations

import io
import subprocess
import tarfile
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from streamware.errors import SizeUnknown
from streamware.formats.tar import VERSION, TarLayout
from streamware.plan import Entry, Extent, Known, Literal, Method, Plan, Table

THEN = 1_700_000_001
GIB_8 = 8**11
ANYTHING = bytes(range(256)) * 8


def entry(name: str, size: int | None, method: Method = Method.PLAIN, **more: object) -> Entry:
    return Entry(name.encode(), size, None, THEN, 0o644, method)._replace(**more)


def table(entries: Sequence[Entry]) -> Table:
    made = Table()
    for each in entries:
        made.append(each)
    return made


def built(
    entries: Sequence[Entry], contents: Sequence[bytes], *, coding: str | None = None, skipped: int = -1
) -> bytes:
    """The whole archive; every promised length is held to."""
    layout = TarLayout(table(entries))
    plan = Plan(layout, coding=coding)
    known = plan.known()
    known.skipped |= {skipped} - {-1}
    out = bytearray()
    for item in range(layout.items):
        if plan.offsets is None:
            known.offsets.append(len(out))
        assert known.offsets[item] == len(out)
        for segment in layout.segments(item, known):
            if isinstance(segment, Literal):
                out += segment.data
            else:
                assert segment == Extent(item, len(contents[item]))
                out += contents[item]
    assert plan.length == (None if coding else len(out))
    return bytes(out)


def headers(facts: Entry) -> tuple[bytes, dict[str, str]]:
    """A member's own header and the records of the pax header before it."""
    (header, *_) = TarLayout([facts]).segments(0, Known(1))
    assert isinstance(header, Literal)
    data = header.data
    assert len(data) % 512 == 0
    for at in (0, -512):
        block = data[at : at + 512 or None]
        assert block[257:265] == b"ustar\x0000"
        total = sum(block[:148]) + sum(block[156:]) + 8 * 32
        assert block[148:156] == b"%06o\0 " % total
    if len(data) == 512:
        return data, {}
    assert data[156:157] == b"x"
    size = int(data[124:135], 8)
    records, rest = {}, data[512 : 512 + size]
    assert data[512 + size : -512].strip(b"\0") == b""
    while rest:
        length = int(rest.split(b" ", 1)[0])
        key, _, value = rest[:length].split(b" ", 1)[1].partition(b"=")
        assert value.endswith(b"\n")
        records[key.decode()] = value[:-1].decode()
        rest = rest[length:]
    return data[-512:], records


def field(header: bytes, at: int, length: int) -> bytes:
    return header[at : at + length].rstrip(b"\0")


class TestHeader:
    def test_an_ordinary_file(self) -> None:
        header, records = headers(entry("logs/app.log", 1000, mode=0o640))
        assert records == {}
        assert field(header, 0, 100) == b"logs/app.log"
        assert header[100:108] == b"0000640\0"
        assert header[108:124] == b"0000000\0" * 2
        assert header[124:136] == b"00000001750\0"
        assert header[136:148] == b"%011o\0" % THEN
        assert header[156:157] == b"0"
        assert field(header, 265, 64) == b""
        assert header[329:345] == b"0000000\0" * 2
        assert header[345:] == bytes(167)

    @pytest.mark.parametrize("size", [None, 0])
    def test_a_directory(self, size: int | None) -> None:
        (segment,) = TarLayout([entry("d/", size, Method.DIRECTORY, mode=0o755)]).segments(0, Known(1))
        assert isinstance(segment, Literal)
        assert field(segment.data, 0, 100) == b"d/"
        assert segment.data[124:136] == b"00000000000\0"
        assert segment.data[156:157] == b"5"

    @pytest.mark.parametrize(
        ("name", "place"),
        [
            ("x" * 100, ("x" * 100, "")),
            ("d/" + "x" * 99, ("x" * 99, "d")),
            ("p" * 155 + "/" + "x" * 100, ("x" * 100, "p" * 155)),
            ("p" * 77 + "/" + "q" * 77 + "/" + "x" * 100, ("x" * 100, "p" * 77 + "/" + "q" * 77)),
            ("d/" + "x" * 98 + "/", ("x" * 98 + "/", "d")),
            ("p" * 60 + "/" + "q" * 60 + "/", ("q" * 60 + "/", "p" * 60)),
        ],
    )
    def test_a_long_name_that_fits_in_two_parts(self, name: str, place: tuple[str, str]) -> None:
        header, records = headers(entry(name, 1))
        assert records == {}
        assert (field(header, 0, 100).decode(), field(header, 345, 155).decode()) == place

    @pytest.mark.parametrize(
        "name",
        [
            "x" * 101,
            "p" * 156 + "/x",
            "d/" + "x" * 101,
            "d/" + "x" * 100 + "/",
            "x" * 99 + "/" + "y" * 101,
            "é",
            "日" * 80,
            "p" * 99 + "é",
        ],
    )
    def test_a_name_that_does_not_fit_stands_in_a_pax_record(self, name: str) -> None:
        header, records = headers(entry(name, 1))
        assert records == {"path": name}
        fallback = field(header, 0, 100).decode()
        assert fallback
        assert not fallback.endswith("/")
        assert name.startswith(fallback)

    @pytest.mark.parametrize("size", [GIB_8 - 1, GIB_8, 2**50])
    def test_a_size_past_8_gib_is_said_twice(self, size: int) -> None:
        header, records = headers(entry("a", size))
        said = header[124:136]
        if size < GIB_8:
            assert records == {}
            assert said == b"77777777777\0"
        else:
            assert records == {"size": str(size)}
            assert said[0] == 0x80
            assert int.from_bytes(said[1:], "big") == size
        assert tarfile.TarInfo.frombuf(header, "utf-8", "strict").size == size

    @pytest.mark.parametrize(
        ("modified", "said"), [(-1, 0), (-(2**40), 0), (GIB_8, GIB_8 - 1), (2**50, GIB_8 - 1), (0, 0), (GIB_8 - 1,) * 2]
    )
    def test_a_time_out_of_range_stands_in_a_pax_record(self, modified: int, said: int) -> None:
        header, records = headers(entry("a", 1, modified=modified))
        assert int(header[136:147], 8) == said
        assert records == ({} if modified == said else {"mtime": str(modified)})

    def test_everything_at_once(self) -> None:
        name = "é" * 100
        _, records = headers(entry(name, 2**40, modified=-5))
        assert records == {"path": name, "size": str(2**40), "mtime": "-5"}

    @pytest.mark.parametrize("length", [*range(80, 110), *range(980, 1010)])
    def test_a_record_counts_its_own_digits(self, length: int) -> None:
        _, records = headers(entry("x" * (length - 1) + "é", 1))
        assert len(records["path"]) == length


class TestLayout:
    @pytest.mark.parametrize("size", [0, 1, 511, 512, 513, 10_240])
    def test_content_is_filled_up_to_a_block(self, size: int) -> None:
        segments = TarLayout([entry("a", size)]).segments(0, Known(1))
        assert sum(s.length or 0 for s in segments) == 512 + -(-size // 512) * 512
        assert len(segments) == 1 + bool(size) + bool(size % 512)

    @pytest.mark.parametrize("method", [Method.DEFLATE, Method.AUTO])
    def test_nothing_is_compressed(self, method: Method) -> None:
        assert TarLayout([entry("a", 5, method)]).segments(0, Known(1))[1] == Extent(0, 5)

    def test_a_size_that_is_not_known_is_refused_at_once(self) -> None:
        with pytest.raises(SizeUnknown) as caught:
            TarLayout([entry("a", 1), entry("d/", None, Method.DIRECTORY), entry("é", None)])
        assert (caught.value.member, caught.value.index) == ("é", 2)

    @pytest.mark.parametrize("count", [0, 1, 8, 9, 10, 19, 20])
    def test_the_end_fills_a_record(self, count: int) -> None:
        whole = built([entry(str(i), 1) for i in range(count)], [b"x"] * count)
        assert len(whole) % 10_240 == 0
        assert len(whole) == -(-(count * 1024 + 1024) // 10_240) * 10_240
        assert whole[count * 1024 :] == bytes(len(whole) - count * 1024)

    def test_a_member_that_was_left_out(self) -> None:
        entries, contents = [entry("a", 5), entry("b", 5), entry("c", 5)], [b"first", b"never", b"third"]
        whole = built(entries, contents, coding="gzip", skipped=1)
        assert whole == built(entries[::2], contents[::2])

    def test_a_plan_of_terabytes(self) -> None:
        layout = TarLayout(table([entry(f"{i}", 2**42 + i) for i in range(5)]))
        plan = Plan(layout)
        assert plan.length is not None
        assert plan.length % 10_240 == 0
        assert plan.length > 5 * 2**42
        assert plan.locate(2**42) == 0
        assert plan.locate(2**43) == 1


NAMES = st.one_of(
    st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=30),
    st.sampled_from(["x" * 100, "x" * 101, "p" * 155 + "/" + "x" * 100, "p" * 156 + "/x", "é" * 60, "a/b/c"]),
)


@settings(max_examples=150)
@given(
    members=st.lists(
        st.tuples(NAMES, st.binary(max_size=1100), st.booleans(), st.integers(-(2**40), 2**40), st.integers(0, 0o777)),
        max_size=6,
    )
)
@example([("p" * 155 + "/" + "x" * 99, b"", True, 0, 0)])
def test_tarfile_reads_what_went_in(members: list[tuple[str, bytes, bool, int, int]]) -> None:
    entries, contents = [], []
    for number, (name, content, directory, modified, mode) in enumerate(members):
        named = f"{number}{name}/" if directory else f"{number}{name}"
        contents.append(b"" if directory else content)
        method = Method.DIRECTORY if directory else Method.PLAIN
        entries.append(Entry(named.encode(), len(contents[-1]), None, modified, mode, method))
    whole = built(entries, contents)
    assert whole == built(entries, contents)
    with tarfile.open(fileobj=io.BytesIO(whole), mode="r:", errors="strict") as archive:
        for info, facts, content in zip(archive.getmembers(), entries, contents, strict=True):
            assert info.name == facts.name.decode().removesuffix("/")
            assert info.isdir() == (facts.method is Method.DIRECTORY)
            assert (info.mode, info.mtime, info.uid, info.gid, info.uname, info.gname) == (
                facts.mode, facts.modified, 0, 0, "", "",
            )  # fmt: skip
            if info.isfile():
                stream = archive.extractfile(info)
                assert stream is not None
                assert stream.read() == content


def sample() -> tuple[list[Entry], list[bytes]]:
    entries = [
        entry("empty", 0),
        entry("dir/one", 1),
        entry("p" * 120 + "/" + "x" * 100, 512),
        entry("x" * 200, 513),
        entry("日本語/é", 2048, mode=0o600),
        entry("void/", 0, Method.DIRECTORY, mode=0o755),
        entry("old", 3, modified=-86_400),
    ]
    return entries, [b"", b"1", ANYTHING[:512], ANYTHING[:513], ANYTHING, b"", b"old"]


def test_the_bytes_of_this_version() -> None:
    """If this fails and the change is meant, raise VERSION: downloads begun before must not be resumed after."""
    whole = built(*sample())
    assert (VERSION, len(whole), sha256(whole).hexdigest()[:16]) == (1, 20_480, "30df45e47ce3c6ca")


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(["tar", "-xf"], marks=pytest.mark.judge("tar")),
        pytest.param(["bsdtar", "-xf"], marks=pytest.mark.judge("bsdtar")),
        pytest.param(["7z", "x", "-bd"], marks=pytest.mark.judge("7z")),
    ],
    ids=lambda command: command[0],
)
def test_other_programs_extract_it(command: list[str], tmp_path: Path) -> None:
    entries, contents = sample()
    path, target = tmp_path / "sample.tar", tmp_path / "out"
    path.write_bytes(built(entries, contents))
    target.mkdir()
    environment = {"LC_ALL": "C.UTF-8", "PATH": "/usr/bin:/bin"}
    done = subprocess.run([*command, path], capture_output=True, timeout=60, check=False, cwd=target, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    for facts, content in zip(entries, contents, strict=True):
        found = target / facts.name.decode()
        assert found.is_dir() if facts.method is Method.DIRECTORY else found.read_bytes() == content
        if command[0] != "7z":
            assert found.stat().st_mode & 0o777 == facts.mode
            assert found.stat().st_mtime == facts.modified
    assert sorted(p.name for p in target.iterdir()) == sorted({e.name.decode().split("/")[0] for e in entries})


TELLING = st.builds(
    Entry,
    name=st.sampled_from([b"a", b"d/", "\u00fc".encode(), b"n" * 100, b"n" * 101, b"f/" * 60 + b"n", b"n" * 300]),
    size=st.sampled_from([0, 1, 511, 512, 513, 8**11 - 1, 8**11]) | st.integers(0, 10_000),
    crc32=st.none(),
    modified=st.sampled_from([0, 1, -1, 8**11 - 1, 8**11]),
    mode=st.just(0o644),
    method=st.sampled_from(Method),
)


@given(st.lists(TELLING, max_size=8))
def test_an_items_length_is_that_of_its_segments(entries: list[Entry]) -> None:
    layout = TarLayout(entries)
    known = Known(layout.members)
    told, position = layout.lengths(known), 0
    for item in range(layout.items):
        known.offsets.append(position)
        length = sum(segment.length or 0 for segment in layout.segments(item, known))
        assert next(told) == length
        position += length
