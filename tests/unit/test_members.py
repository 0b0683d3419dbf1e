"""Members as a table: a list to whoever looks, and what a bundle of many of them costs from its making to its end."""

from __future__ import annotations

import copy
import json
import pickle
import sys
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path as FilePath
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamware import Archiver, Bundle, Conditions, Member, Policy
from streamware.columns import Blobs, Numbers, Texts
from streamware.errors import InvalidName
from streamware.manifest import from_json
from streamware.model import Data, Facts, File, Members, Path, Stream, Tree, Url
from streamware.said import UNKNOWN, Said
from tests.synthetic import Synthetic

POLICY = Policy(allow=("http://files.test/",))


# --- as a list ---------------------------------------------------------------------------------------------------

ANY = st.text(max_size=8)
WHOLE = st.none() | st.integers(-(2**70), 2**70) | st.integers(0, 100)
CONTENTS = st.one_of(
    st.none(),
    st.builds(Url, ANY, st.just(()) | st.tuples(ANY), st.just(()) | st.just((("A", "b"),)), st.booleans()),
    st.builds(Path, ANY),
    st.builds(File, ANY, st.none() | ANY),
    st.builds(Tree, ANY),
    st.builds(Data, st.binary(max_size=4)),
)
MEMBERS = st.builds(
    Member,
    name=ANY,
    content=CONTENTS,
    size=WHOLE,
    crc32=WHOLE,
    etag=st.none() | ANY,
    modified=WHOLE,
    mode=WHOLE,
    comment=ANY,
    may_exceed_4gib=st.booleans(),
    digest=st.none() | st.binary(min_size=32, max_size=32),
    passthrough=st.booleans(),
)


@settings(max_examples=40)
@given(st.lists(MEMBERS, max_size=8), st.data())
def test_they_are_a_list_to_whoever_looks(plain: list[Member], data: st.DataObject) -> None:
    members = Members(plain)
    kept = members.snapshot()
    before = list(plain)
    for _ in range(data.draw(st.integers(0, 4))):
        at, new = data.draw(st.integers(-9, 9)), data.draw(MEMBERS)
        change = data.draw(st.sampled_from([_set, _delete, _insert, _append, _set_slice, _reverse, _sort, _clear]))
        assert _outcome(change, members, at, new) == _outcome(change, plain, at, new)
        assert members == plain
        assert [members[i] for i in range(-len(plain), len(plain))] == plain + plain
        assert members[1:3] == plain[1:3]
    assert [row.member() for row in members.rows()] == list(members) == plain
    assert kept == before


def _outcome(change: Callable[..., None], *arguments: object) -> type[Exception] | None:
    try:
        change(*arguments)
    except IndexError as error:
        return type(error)
    return None


def _set(members: Any, at: int, new: Member) -> None:
    members[at] = new


def _delete(members: Any, at: int, new: Member) -> None:
    del members[at]


def _insert(members: Any, at: int, new: Member) -> None:
    members.insert(at, new)


def _append(members: Any, at: int, new: Member) -> None:
    members.append(new)


def _set_slice(members: Any, at: int, new: Member) -> None:
    members[at : at + 2] = [new, new, new]


def _reverse(members: Any, at: int, new: Member) -> None:
    members.reverse()


def _sort(members: Any, at: int, new: Member) -> None:
    members.sort(key=lambda member: member.name)


def _clear(members: Any, at: int, new: Member) -> None:
    members.clear()


def test_what_was_added_is_what_is_there() -> None:
    bundle = Bundle("b.zip")
    bundle.add_url("http://h/a%20b?c", size=3)
    bundle.add_url("https://h:80/x/y-1.log", crc32=7, mirrors=("http://i/",), headers={"A": "b"})
    bundle.add_file("/x/f.txt", modified=9)
    bundle.add_tree("/x", "p")
    bundle.add_directory("d", mode=0o700)
    bundle.add_data("t", "text", comment="c")
    factory = list[bytes]
    bundle.add_stream("s", factory, digest="0" * 64, may_exceed_4gib=True)
    expected = [
        Member("a b", Url("http://h/a%20b?c", trusted=True), size=3),
        Member("y-1.log", Url("https://h:80/x/y-1.log", ("http://i/",), (("A", "b"),), True), crc32=7),
        Member("f.txt", File("/x/f.txt"), modified=9),
        Member("p", Tree("/x")),
        Member("d/", None, mode=0o700),
        Member("t", Data(b"text"), comment="c"),
        Member("s", Stream(factory), digest=bytes(32), may_exceed_4gib=True),
    ]
    assert bundle.members == expected
    assert repr(bundle.members) == repr(expected)
    bundle.members = expected[:2]
    bundle.members += expected[2:]
    assert bundle.members == expected
    assert pickle.loads(pickle.dumps(Members(expected[:3]))) == expected[:3]
    twin = copy.copy(bundle)
    twin.members = [expected[0]]
    assert len(bundle.members) == len(expected)


@pytest.mark.parametrize(
    "url",
    [
        "http://h/a/b.c",
        "http://h/a/b.c/",
        "https://h:8/a//b",
        "http://h/..",
        "http://h/a?x/y",
        "http://h/a#x",
        "http://h/a%2Fb",
    ],
)
def test_a_name_is_the_last_part_of_a_path(url: str) -> None:
    bundle = Bundle("b.zip")
    bundle.add_url(url)
    names = {"http://h/a/b.c/": "b.c", "https://h:8/a//b": "b", "http://h/..": "..", "http://h/a%2Fb": "a/b"}
    assert bundle.members[0].name == names.get(url, "b.c" if "b.c" in url else "a")


@pytest.mark.parametrize("url", ["http://h", "http://h/", "http://h?a/b"])
def test_a_url_without_a_path_gives_no_name(url: str) -> None:
    with pytest.raises(InvalidName):
        Bundle("b.zip").add_url(url)


def test_a_download_is_of_the_members_as_they_were() -> None:
    bundle = Bundle("b.zip")
    bundle.add_data("first", b"1")
    body = Archiver().open(bundle)
    bundle.members[0] = Member("other", Data(b"2"))
    bundle.add_data("second", b"3")
    whole = b"".join(body)
    body.close()
    assert b"first" in whole
    assert b"second" not in whole


def test_a_copy_is_a_list_of_its_own() -> None:
    bundle = Bundle("b.zip")
    bundle.add_data("first", b"1")
    copied = copy.copy(bundle.members)
    copied.append(Member("second", Data(b"2")))
    bundle.add_data("third", b"3")
    assert [member.name for member in bundle.members] == ["first", "third"]
    assert [member.name for member in copied] == ["first", "second"]


def test_what_cannot_be_added_leaves_no_trace() -> None:
    bundle = Bundle("b.zip")
    bundle.add_data("first", b"1")
    with pytest.raises(AttributeError):
        bundle.add_url(5, "wrong")  # type: ignore[arg-type]
    bundle.add_file("second")
    assert bundle.members == [Member("first", Data(b"1")), Member("second", File("second"))]


# --- columns -----------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(0, 12), WHOLE | st.just(-(2**63)))))
def test_numbers_come_out_as_they_were_put_in(puts: list[tuple[int, int | None]]) -> None:
    column, expected = Numbers(), dict[int, int | None]()
    for row, value in puts:
        column.put(row, value)
        expected[row] = value
    assert [column[row] for row in range(13)] == [expected.get(row) for row in range(13)] == list(column.all(13))
    assert list(column.copy().all(13)) == list(column.all(13))


@given(st.lists(st.tuples(st.integers(0, 12), st.none() | st.text(st.characters(), max_size=4))))
def test_texts_come_out_as_they_were_put_in(puts: list[tuple[int, str | None]]) -> None:
    column, raw, expected = Texts(), Blobs(), dict[int, str | None]()
    for row, value in puts:
        column.put(row, value)
        raw.put(row, None if value is None else value.encode("utf-16", "surrogatepass"))
        expected[row] = value
    assert [column[row] for row in range(13)] == [expected.get(row) for row in range(13)] == list(column.all(13))
    assert list(column.copy().all(13)) == list(column.all(13))
    assert [None if b is None else b.decode("utf-16", "surrogatepass") for b in raw.all(13)] == list(column.all(13))


FACTS = st.builds(
    Facts,
    size=WHOLE,
    modified=WHOLE,
    validator=st.none() | ANY,
    crc32=st.none() | st.just(1),
    mode=st.none() | st.just(0o600),
    media_type=st.none() | st.sampled_from(["a/b", "c/d"]),
    identity=st.none() | ANY,
    coded=st.none() | st.just(1),
    digest=st.none() | st.just(bytes(32)),
)


@settings(max_examples=40)
@given(st.dictionaries(st.integers(0, 9), FACTS))
def test_what_was_said_is_what_is_known(told: dict[int, Facts]) -> None:
    said = Said()
    for index, facts in told.items():
        said.put(index, facts)
    assert [said[index] for index in range(10)] == [told.get(index, UNKNOWN) for index in range(10)]


def test_more_media_types_than_are_counted_are_kept_all_the_same() -> None:
    said = Said()
    for index in range(300):
        said.put(index, Facts(media_type=f"a/{index}"))
    assert [said[index].media_type for index in range(300)] == [f"a/{index}" for index in range(300)]


# --- what many cost ----------------------------------------------------------------------------------------------

MANY = 4000
MOST = 400  # bytes a member, beside the characters of its name and of its URL or path


def name_of(index: int) -> str:
    return f"Folder-{index % 50}/file-{index:06d}.log"


def url_of(index: int) -> str:
    return f"http://files.test/logs/{name_of(index)}"


def urls(bundle: Bundle, tmp_path: FilePath) -> int:
    for index in range(MANY):
        bundle.add_url(url_of(index), name_of(index), size=10_240)
    return len(name_of(0)) + len(url_of(0))


def promised_urls(bundle: Bundle, tmp_path: FilePath) -> int:
    for index in range(MANY):
        bundle.add_url(
            url_of(index), name_of(index), (), index + 1, index, f'"{index:x}-{index:016x}"', 1_700_000_000 + index
        )
    return len(name_of(0)) + len(url_of(0)) + 20


def files(bundle: Bundle, tmp_path: FilePath) -> int:
    path = tmp_path / "one"
    path.write_bytes(b"content")
    for index in range(MANY):
        bundle.add_file(f"{tmp_path}/./{'/' * (index % 9)}one", name_of(index))
    return len(name_of(0)) + len(str(path)) + 11


def manifest(bundle: Bundle, tmp_path: FilePath) -> int:
    body = json.dumps(
        {
            "name": "b.zip",
            "members": [{"name": name_of(i), "url": url_of(i), "size": i + 1, "mode": "0640"} for i in range(MANY)],
        }
    ).encode()
    tracemalloc.start()  # not the text itself, which whoever sent it made
    bundle.members = from_json(body, POLICY).members
    return len(name_of(0)) + len(url_of(0))


@pytest.mark.parametrize("made", [urls, promised_urls, files, manifest])
def test_a_member_of_many_costs_a_row_of_a_table(made: Callable[[Bundle, FilePath], int], tmp_path: FilePath) -> None:
    archiver = Archiver(POLICY)
    tracemalloc.start()
    try:
        bundle = Bundle("b.zip")
        beside = made(bundle, tmp_path)
        listed = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        reply = archiver.respond(bundle, Conditions("HEAD"))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert reply.status == 200
    assert listed / MANY - beside < 200
    assert peak / MANY - beside < MOST


class Asked(Synthetic):
    """Says more than it is good for, as servers do."""

    def probe(self, *, keep: bool = False) -> Facts:
        index = id(self) % 100_000
        return Facts(10, 1_700_000_000 + index, f'"{index:x}-{index:016x}"', media_type="text/plain")


def test_what_a_source_said_costs_a_row_too() -> None:
    members = [Member(name_of(i), Asked(10, i)) for i in range(MANY)]
    archiver = Archiver(POLICY)
    tracemalloc.start()
    try:
        bundle = Bundle("b.zip")
        bundle.members = members
        reply = archiver.respond(bundle, Conditions("HEAD"))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert reply.status == 200
    assert peak / MANY < MOST


def test_no_more_threads_ask_than_may_and_each_member_is_asked_once() -> None:
    asked: list[int] = []
    threads: set[str] = set()
    most = 0

    class Noting(Synthetic):
        def __init__(self, number: int) -> None:
            super().__init__(10, number)
            self.number = number

        def probe(self, *, keep: bool = False) -> Facts:
            nonlocal most
            asked.append(self.number)
            threads.add(threading.current_thread().name)
            most = max(most, sum(t.name.startswith("streamware-probe") for t in threading.enumerate()))
            return Facts(10)

    bundle = Bundle("b.zip")
    bundle.members = [Member(str(i), Noting(i)) for i in range(500)]
    assert Archiver(Policy(probe_connections=3)).respond(bundle, Conditions("HEAD")).status == 200
    assert sorted(asked) == list(range(500))
    assert most <= 3
    assert len(threads) <= 3
    assert not [t for t in threading.enumerate() if t.name.startswith("streamware-probe")]


# --- how the work grows ------------------------------------------------------------------------------------------


def calls(work: Callable[[], object]) -> int:
    """How many functions, C ones too, this thread calls."""
    count = 0

    def seen(frame: object, event: str, argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(seen)
    try:
        work()
    finally:
        sys.setprofile(None)
    return count


def distinct(index: int) -> str:
    return name_of(index)


def same(index: int) -> str:
    return "same.txt"


def same_but_for_case(index: int) -> str:
    return "".join(c.upper() if index >> bit & 1 else c for bit, c in enumerate("abcdefghijkl"))


def long_and_alike(index: int) -> str:
    return f"{'x' * 300}{index}.txt"


def folders(index: int) -> str:
    return f"f{index}/g/h/{index}"


def files_that_are_folders_too(index: int) -> str:
    return f"a{index // 2}" if index % 2 == 0 else f"a{index // 2}/b"


def numbered(index: int) -> str:
    return f"n ({index % 7}).txt"


@pytest.mark.parametrize("format", ["zip", "tar"])
@pytest.mark.parametrize(
    "name",
    [distinct, same, same_but_for_case, long_and_alike, folders, files_that_are_folders_too, numbered],
)
def test_planning_takes_time_in_proportion(name: Callable[[int], str], format: Any) -> None:
    def planned(members: int) -> int:
        archiver = Archiver(POLICY)

        def work() -> None:
            bundle = Bundle("b", format)
            for index in range(members):
                bundle.add_url(url_of(index), name(index), size=index + 1, crc32=1, etag=f'"{index}"')
            reply = archiver.respond(bundle, Conditions("HEAD"))
            assert reply.status == 200

        return calls(work)

    few, many = planned(200), planned(800)
    assert many < 4.3 * few


def test_the_central_directory_is_never_held_whole() -> None:
    comment = "c" * 4000  # makes the directory twelve megabytes
    bundle = Bundle("b.zip")
    for index in range(3000):
        bundle.add_directory(f"d{index}", comment=comment)
    body = Archiver().open(bundle)
    most, total = 0, 0
    tracemalloc.start()
    try:
        for piece in body:
            total += len(piece)
            most = max(most, len(piece))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        body.close()
    assert total == body.length
    assert total > 12_000_000
    assert most < 1 << 20
    assert peak < 2 << 20


def iterated(bundle: Bundle) -> Iterator[str]:
    return (member.name for member in bundle.members)


def test_members_are_made_when_they_are_looked_at() -> None:
    bundle = Bundle("b.zip")
    for index in range(100):
        bundle.add_url(url_of(index))
    made: list[object] = []

    def seen(frame: Any, event: str, argument: object) -> None:
        if event == "call" and frame.f_code is Member.__init__.__code__:
            made.append(frame)

    sys.setprofile(seen)
    try:
        Archiver(POLICY).respond(bundle, Conditions("HEAD", if_none_match="*"))
        asked = len(made)
        next(iterated(bundle))
    finally:
        sys.setprofile(None)
    assert len(made) - asked == 1
