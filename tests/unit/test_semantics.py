"""HTTP's rules for an archive: what is asked, and what is answered."""

from __future__ import annotations

import email
import re
import time
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from urllib.parse import unquote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from streamware.plan import Window
from streamware.reply import Conditions, Reply
from streamware.semantics import (
    Decision,
    Representation,
    content_disposition,
    decide,
    format_http_date,
    is_entity_tag,
    is_strong,
    parse_content_range,
    parse_http_date,
    parse_length,
)

DATE = "Thu, 29 Feb 2024 12:30:00 GMT"
SECONDS = 1709209800
BEFORE = "Thu, 29 Feb 2024 12:29:59 GMT"
AFTER = "Thu, 29 Feb 2024 12:30:01 GMT"
DIGITS = b"0123456789"


def archive(length: int | None = 10, etag: str | None = '"v1"', modified: int | None = SECONDS, ranges: bool = True):
    return Representation("application/zip", length, etag, modified, ranges)


def ask(representation: Representation | None = None, *, max_ranges: int = 16, **conditions: str) -> Decision:
    return decide(Conditions(**conditions), representation or archive(), max_ranges=max_ranges)


def headers(decision: Decision) -> dict[str, str]:
    Reply(decision.status, decision.headers)  # raises if one could not be sent
    found = {name.lower(): value for name, value in decision.headers}
    assert len(found) == len(decision.headers)
    return found


def body(decision: Decision, data: bytes) -> bytes:
    assert decision.pieces is not None
    return b"".join(p if isinstance(p, bytes) else data[p.start : p.stop] for p in decision.pieces)


def parts(decision: Decision, data: bytes) -> list[tuple[int, int, bytes]]:
    """The parts of a multipart answer as another program's parser sees them: start, stop, bytes."""
    head = headers(decision)["content-type"]
    message = email.message_from_bytes(f"Content-Type: {head}\r\n\r\n".encode() + body(decision, data))
    assert not message.defects
    assert message.get_content_type() == "multipart/byteranges"
    found = []
    for part in message.get_payload():
        assert part.get_content_type() == "application/zip"
        place = parse_content_range(part["Content-Range"])
        assert place is not None
        assert place[2] == len(data)
        found.append((place[0], place[1], part.get_payload(decode=True)))
    return found


# --- the whole -----------------------------------------------------------------------------------------------------


def test_the_whole_of_a_pinned_archive() -> None:
    decision = ask()
    assert decision.status == 200
    assert decision.pieces == (Window(0, 10),)
    assert headers(decision) == {
        "content-type": "application/zip",
        "content-length": "10",
        "etag": '"v1"',
        "last-modified": DATE,
        "accept-ranges": "bytes",
    }


def test_an_archive_of_unknown_length_has_none_and_no_ranges() -> None:
    decision = ask(archive(None), range="bytes=0-1")
    assert decision.status == 200
    assert decision.pieces == (Window(0, None),)
    assert headers(decision).keys() == {"content-type", "etag", "last-modified"}


def test_an_archive_that_is_not_pinned_says_nothing_of_ranges() -> None:
    decision = ask(archive(ranges=False), range="bytes=0-1")
    assert (decision.status, decision.pieces) == (200, (Window(0, 10),))
    assert "accept-ranges" not in headers(decision)


def test_nothing_known_is_nothing_said() -> None:
    decision = ask(archive(None, None, None, ranges=False))
    assert headers(decision) == {"content-type": "application/zip"}


@pytest.mark.parametrize("asked", ["bytes=0-", "bytes=-5", "bytes=0-0", "bytes=-0", "bytes=5-"])
def test_an_empty_archive_is_sent_whole(asked: str) -> None:
    decision = ask(archive(0), range=asked)
    assert (decision.status, decision.pieces) == (200, (Window(0, 0),))
    assert headers(decision)["content-length"] == "0"


def test_head_answers_what_get_would_and_knows_no_ranges() -> None:
    whole = ask()
    assert ask(method="HEAD") == whole
    assert ask(method="HEAD", range="bytes=0-1") == whole
    assert ask(method="HEAD", range="bytes=99-") == whole
    assert ask(method="HEAD", range="bytes=0-1", if_range='"old"') == whole
    assert ask(method="POST", range="bytes=0-1") == whole


# --- ranges --------------------------------------------------------------------------------------------------------

SINGLE = {
    "bytes=0-0": b"0",
    "bytes=9-9": b"9",
    "bytes=9-": b"9",
    "bytes=-1": b"9",
    "bytes=0-": DIGITS,
    "bytes=0-9": DIGITS,
    "bytes=0-10": DIGITS,
    "bytes=-10": DIGITS,
    "bytes=-11": DIGITS,
    "bytes=-99999999999999999999999": DIGITS,
    "bytes=3-18446744073709551616": DIGITS[3:],
    "bytes=003-0005": b"345",
    "BYTES=3-5": b"345",
    "bytes=3-5,": b"345",
    "bytes=,3-5": b"345",
    "bytes=, ,\t3-5 \t, ,": b"345",
    "bytes= 3-5": b"345",
    "bytes=3-5,10-": b"345",
    "bytes=99-,3-5,-0": b"345",
    "bytes=3-5,4-6": b"3456",
    "bytes=4-6,3-5": b"3456",
    "bytes=0-2,7-9": DIGITS,
    "bytes=-3,0-3": DIGITS,
}


@pytest.mark.parametrize(("asked", "sent"), SINGLE.items())
def test_one_range(asked: str, sent: bytes) -> None:
    decision = ask(range=asked)
    assert decision.status == 206
    assert body(decision, DIGITS) == sent
    start = DIGITS.index(sent)
    assert headers(decision) == {
        "content-type": "application/zip",
        "content-length": str(len(sent)),
        "content-range": f"bytes {start}-{start + len(sent) - 1}/10",
        "etag": '"v1"',
        "last-modified": DATE,
        "accept-ranges": "bytes",
    }


@pytest.mark.case(42)
@pytest.mark.parametrize(
    "asked",
    [
        "bytes=10-",
        "bytes=10-20",
        "bytes=-0",
        "bytes=-000",
        "bytes=-0,10-",
        "bytes=18446744073709551616-",
        "bytes=" + "9" * 5000 + "-",
        "bytes=" + "9" * 5000 + "-" + "9" * 5000,
    ],
)
def test_no_range_that_could_be_had(asked: str) -> None:
    decision = ask(range=asked)
    assert (decision.status, decision.pieces) == (416, None)
    assert headers(decision)["content-range"] == "bytes */10"


@pytest.mark.case(42)
@pytest.mark.parametrize(
    "asked",
    [
        "",
        "bytes",
        "bytes=",
        "bytes=,",
        "bytes= ",
        "bytes=-",
        "bytes=5-2",
        "bytes=5-4",
        "bytes=0-1,5-4",
        "bytes=0-1,5-2",
        "bytes=5-2,0-1",
        "bytes=" + "9" * 5000 + "-2",
        "bytes=abc",
        "bytes=0-1,x",
        "bytes=0-1;2-3",
        "bytes=0-1 2-3",
        "bytes=0 - 1",
        "bytes =0-1",
        "bytes:0-1",
        "bytes=0-1-2",
        "bytes=--1",
        "bytes=+0-1",
        "bytes=-+1",
        "bytes=0_0-1",
        "bytes=0x0-1",
        "bytes=1.0-2",
        "bytes=\u0660-\u0661",
        "bytes=\u00b2-\u00b3",
        "bytes=0-1\n",
        "bytes=0-1, bytes=2-3",
        "items=0-1",
        "byte=0-1",
        "0-1",
        "none",
    ],
)
def test_what_is_no_range_of_bytes_is_as_if_it_were_not_there(asked: str) -> None:
    assert ask(range=asked) == ask()


def test_the_last_byte_of_the_longest_archive() -> None:
    last = 2**63 - 2
    for asked in (f"bytes={last}-", f"bytes={last}-{last}", "bytes=-1", f"bytes={last}-{10**19}"):
        assert ask(archive(last + 1), range=asked).pieces == (Window(last, last + 1),)
    assert ask(archive(last + 1), range=f"bytes={last + 1}-").status == 416


def test_far_ranges_are_parts_in_the_order_asked_for() -> None:
    data = bytes(range(256)) * 4
    decision = ask(archive(len(data)), range="bytes=900-909, 0-9, 500-509")
    assert decision.status == 206
    found = headers(decision)
    assert "content-range" not in found
    assert found["content-length"] == str(len(body(decision, data)))
    assert parts(decision, data) == [(a, a + 10, data[a : a + 10]) for a in (900, 0, 500)]


def test_near_ranges_become_one_and_far_ones_do_not() -> None:
    data = bytes(1000)
    assert [p[:2] for p in parts(ask(archive(1000), range="bytes=0-9,400-409,50-59"), data)] == [(0, 60), (400, 410)]
    assert [p[:2] for p in parts(ask(archive(1000), range="bytes=400-409,50-59,0-9"), data)] == [(400, 410), (0, 60)]
    assert ask(archive(1000), range="bytes=0-9,89-99").pieces == (Window(0, 100),)
    assert len(parts(ask(archive(1000), range="bytes=0-9,90-99"), data)) == 2
    assert ask(archive(1000), range="bytes=0-499,500-999").status == 206


def test_the_same_question_gets_the_same_bytes_and_another_archive_others() -> None:
    asked = "bytes=0-1,500-501"
    data = bytes(1000)
    one = body(ask(archive(1000), range=asked), data)
    assert one == body(ask(archive(1000), range=asked), data)
    assert one != body(ask(archive(1000, '"v2"'), range=asked), data)


@pytest.mark.case(40)
def test_more_ranges_than_allowed_get_the_whole() -> None:
    asked = "bytes=" + ",".join(f"{i * 1000}-{i * 1000}" for i in range(16))
    assert ask(archive(100_000), range=asked).status == 206
    assert ask(archive(100_000), range=asked, max_ranges=15) == ask(archive(100_000))
    assert ask(archive(100_000), range=asked + ",99-99") == ask(archive(100_000))


@pytest.mark.case(40)
@pytest.mark.parametrize(
    "asked",
    [
        "bytes=" + "0-," * 21_845,
        "bytes=" + "," * 65_000,
        "bytes=" + " " * 65_000,
        "bytes=" + "0-0 , " * 10_000 + "x",
        "bytes=" + "9" * 65_000 + "-",
        "bytes=-" + "9" * 65_000,
        "bytes=" + "0" * 65_000 + "-",
        "bytes=" + "-" * 65_000,
        "bytes=" + ",".join("9" * 4000 + "-" for _ in range(16)),
    ],
)
def test_a_long_range_costs_little(asked: str) -> None:
    started = time.perf_counter()
    decision = ask(archive(1 << 40), range=asked, max_ranges=1 << 20)
    assert time.perf_counter() - started < 1
    assert decision.status in (200, 206, 416)
    assert sum(p.length or 0 for p in decision.pieces or () if isinstance(p, Window)) <= 1 << 40


LENGTHS = st.integers(1, 2000)
POSITIONS = st.integers(0, 2200)
SPECS = st.one_of(
    st.tuples(POSITIONS, POSITIONS).map(lambda p: (min(p), max(p))),
    st.tuples(POSITIONS, st.none()),
    st.tuples(st.none(), POSITIONS),
)


@given(length=LENGTHS, specs=st.lists(SPECS, min_size=1, max_size=16))
def test_ranges_are_slices(length: int, specs: list[tuple[int | None, int | None]]) -> None:
    data = bytes(i * 7 % 256 for i in range(length))
    asked = "bytes=" + ",".join(f"{'' if a is None else a}-{'' if b is None else b}" for a, b in specs)
    wanted: set[int] = set()
    for first, last in specs:
        positions = range(length)
        if first is None:
            wanted.update(positions[length - min(length, last or 0) :])
        else:
            wanted.update(positions[first:] if last is None else positions[first : last + 1])
    decision = ask(archive(length), range=asked)
    if not wanted:
        assert decision.status == 416
        return
    assert decision.status == 206
    sent = body(decision, data)
    assert headers(decision)["content-length"] == str(len(sent))
    if "content-range" in headers(decision):
        place = parse_content_range(headers(decision)["content-range"])
        assert place is not None
        found = [(place[0], place[1], sent)]
    else:
        found = parts(decision, data)
        assert len(found) > 1
    assert all(data[start:stop] == piece for start, stop, piece in found)
    covered = [i for start, stop, _ in found for i in range(start, stop)]
    assert len(covered) == len(set(covered)) <= length
    assert wanted <= set(covered)
    assert len(sent) <= length + 250 * len(found)


FIELD = st.one_of(
    st.none(),
    st.text(max_size=60),
    st.text(alphabet='bytes=0123456789-, \t"W/*', max_size=60),
    st.from_regex(r"bytes=[0-9,\- ]{0,20}"),
    st.sampled_from([DATE, BEFORE, AFTER, '"v1"', 'W/"v1"', "*"]),
)


@given(
    conditions=st.builds(
        Conditions,
        method=st.sampled_from(["GET", "HEAD", "POST"]),
        range=FIELD,
        if_range=FIELD,
        if_match=FIELD,
        if_none_match=FIELD,
        if_modified_since=FIELD,
        if_unmodified_since=FIELD,
    ),
    representation=st.builds(
        Representation,
        media_type=st.just("application/zip"),
        length=st.one_of(st.none(), st.integers(0, 1 << 62)),
        etag=st.sampled_from([None, '"v1"', 'W/"v1"']),
        modified=st.one_of(st.none(), st.integers(-(1 << 62), 1 << 62)),
        ranges=st.booleans(),
    ),
)
def test_no_request_breaks_the_decision(conditions: Conditions, representation: Representation) -> None:
    decision = decide(conditions, representation, max_ranges=16)
    assert decision.status in (200, 206, 304, 412, 416)
    found = headers(decision)
    assert (decision.pieces is None) == (decision.status in (304, 412, 416))
    if decision.pieces is not None and representation.length is not None:
        total = sum(len(p) if isinstance(p, bytes) else p.length or 0 for p in decision.pieces)
        assert found["content-length"] == str(total)
    if conditions.method != "GET" or not representation.ranges:
        assert decision.status not in (206, 416)


# --- conditions ----------------------------------------------------------------------------------------------------


@pytest.mark.case(43)
@pytest.mark.parametrize(
    ("conditions", "status"),
    [
        ({"if_match": '"v1"'}, 200),
        ({"if_match": '"x", "v1"'}, 200),
        ({"if_match": "*"}, 200),
        ({"if_match": " * "}, 200),
        ({"if_match": '"x"'}, 412),
        ({"if_match": 'W/"v1"'}, 412),
        ({"if_match": "v1"}, 412),
        ({"if_match": ""}, 412),
        ({"if_match": '"v1", *'}, 412),
        ({"if_match": '"x"', "method": "HEAD"}, 412),
        # If-Match puts If-Unmodified-Since out of force, whichever way it goes
        ({"if_match": '"v1"', "if_unmodified_since": BEFORE}, 200),
        ({"if_match": '"x"', "if_unmodified_since": AFTER}, 412),
        ({"if_unmodified_since": BEFORE}, 412),
        ({"if_unmodified_since": DATE}, 200),
        ({"if_unmodified_since": AFTER}, 200),
        ({"if_unmodified_since": "yesterday"}, 200),
        ({"if_none_match": '"v1"'}, 304),
        ({"if_none_match": 'W/"v1"'}, 304),
        ({"if_none_match": "*"}, 304),
        ({"if_none_match": '"x", W/"v1"'}, 304),
        ({"if_none_match": '"x"'}, 200),
        ({"if_none_match": "v1"}, 200),
        ({"if_none_match": ""}, 200),
        ({"if_none_match": '"v1"', "method": "HEAD"}, 304),
        ({"if_none_match": '"v1"', "method": "POST"}, 412),
        # If-None-Match puts If-Modified-Since out of force
        ({"if_none_match": '"x"', "if_modified_since": AFTER}, 200),
        ({"if_none_match": '"v1"', "if_modified_since": BEFORE}, 304),
        ({"if_modified_since": AFTER}, 304),
        ({"if_modified_since": DATE}, 304),
        ({"if_modified_since": BEFORE}, 200),
        ({"if_modified_since": "yesterday"}, 200),
        ({"if_modified_since": AFTER, "method": "HEAD"}, 304),
        ({"if_modified_since": AFTER, "method": "POST"}, 200),
        # the first step that fails decides, and conditions go before ranges
        ({"if_match": '"x"', "if_none_match": '"v1"'}, 412),
        ({"if_match": '"v1"', "if_none_match": '"v1"'}, 304),
        ({"if_unmodified_since": BEFORE, "if_none_match": '"v1"'}, 412),
        ({"if_none_match": '"v1"', "range": "bytes=0-1"}, 304),
        ({"if_match": '"x"', "range": "bytes=0-1"}, 412),
        ({"if_match": '"v1"', "range": "bytes=0-1"}, 206),
        ({"if_match": '"v1"', "range": "bytes=99-"}, 416),
        ({"if_match": '"x"', "range": "bytes=99-"}, 412),
    ],
)
def test_conditions(conditions: dict[str, str], status: int) -> None:
    decision = ask(**conditions)
    assert decision.status == status
    if status == 304:
        assert headers(decision) == {"etag": '"v1"', "last-modified": DATE}
    if status == 412:
        assert headers(decision) == {}


def test_conditions_on_what_is_not_known() -> None:
    unknown = archive(None, None, None, ranges=False)
    assert ask(unknown, if_match="*").status == 200
    assert ask(unknown, if_match='"v1"').status == 412
    assert ask(unknown, if_none_match="*").status == 304
    assert ask(unknown, if_none_match='"v1"').status == 200
    assert ask(unknown, if_modified_since=AFTER).status == 200
    assert ask(unknown, if_unmodified_since=BEFORE).status == 200


def test_a_weak_tag_of_ours_never_matches_strongly() -> None:
    weak = archive(etag='W/"v1"')
    assert ask(weak, if_match='W/"v1"').status == 412
    assert ask(weak, if_match='"v1"').status == 412
    assert ask(weak, if_none_match='"v1"').status == 304
    assert ask(weak, range="bytes=0-1", if_range='W/"v1"').status == 200
    assert ask(weak, range="bytes=0-1", if_range='"v1"').status == 200


@pytest.mark.case(43)
@pytest.mark.parametrize(
    ("condition", "status"),
    [
        ('"v1"', 206),
        ('"v2"', 200),
        ('W/"v1"', 200),
        ("v1", 200),
        ("*", 200),
        ("", 200),
        ('"v1", "v1"', 200),
        (DATE, 206),
        ("Thursday, 29-Feb-24 12:30:00 GMT", 206),
        (BEFORE, 200),
        (AFTER, 200),
        ("yesterday", 200),
    ],
)
def test_if_range(condition: str, status: int) -> None:
    assert ask(if_range=condition, range="bytes=0-1").status == status
    assert ask(if_range=condition).status == 200
    if status == 200:
        assert ask(if_range=condition, range="bytes=99-").status == 200


def test_if_range_by_date_needs_a_date_and_a_pinned_archive() -> None:
    assert ask(archive(modified=None), if_range=DATE, range="bytes=0-1").status == 200
    assert ask(archive(modified=None), if_range="yesterday", range="bytes=0-1").status == 200
    assert ask(archive(ranges=False), if_range=DATE, range="bytes=0-1").status == 200


def test_a_range_past_the_end_of_the_right_version_is_416_and_not_the_whole_again() -> None:
    # A client that has everything already and asks for the rest must not be sent it all once more.
    assert ask(if_range='"v1"', range="bytes=10-").status == 416


@pytest.mark.parametrize(
    ("listed", "etag", "found"),
    [
        ('"a,b"', '"a,b"', True),
        ('"a,b"', '"a"', False),
        ('"a", "b,"', '"b,"', True),
        ('"a","b"', '"b"', True),
        (' , "a" ,, "b" , ', '"b"', True),
        ('"a\\"', '"a\\"', True),  # a backslash is a character like others in an entity-tag
        ('""', '""', True),
        ('"a" "b"', '"a"', False),
        ('"a""b"', '"a"', False),
        ('"a", b', '"a"', False),
        ('"a', '"a"', False),
        ('w/"a"', '"a"', False),
        ('W/ "a"', '"a"', False),
        ('"a b"', '"a b"', False),
        ('"\xe9"', '"\xe9"', True),
        ("'a'", '"a"', False),
    ],
)
def test_lists_of_entity_tags_are_read_by_their_grammar(listed: str, etag: str, found: bool) -> None:
    assert ask(archive(etag=etag), if_none_match=listed).status == (304 if found else 200)
    assert ask(archive(etag=etag), if_match=listed).status == (200 if found else 412)


@pytest.mark.parametrize("listed", ['"a",' * 16_000, "," * 65_000, '"' * 65_000, " " * 65_000, 'W/"' * 20_000])
def test_a_long_list_of_tags_costs_little(listed: str) -> None:
    started = time.perf_counter()
    assert ask(if_none_match=listed).status == 200
    assert time.perf_counter() - started < 1


def test_strong_tags() -> None:
    assert is_strong('"a"')
    assert is_strong('""')
    assert not is_strong('W/"a"')
    assert not is_strong(None)
    assert not is_strong("a")
    assert not is_strong('"a"\n')
    assert not is_strong('"a" ')
    assert is_entity_tag('W/"a"')
    assert not is_entity_tag('W/"a"b')
    assert not is_entity_tag('"日"')


# --- dates and numbers ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (DATE, SECONDS),
        ("Thursday, 29-Feb-24 12:30:00 GMT", SECONDS),
        ("Thu Feb 29 12:30:00 2024", SECONDS),
        ("Sun Nov  6 08:49:37 1994", 784111777),
        ("Sunday, 06-Nov-94 08:49:37 GMT", 784111777),
        ("Sun, 06 Nov 1994 08:49:37 GMT", 784111777),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
        ("Wed, 31 Dec 1969 23:59:59 GMT", -1),
        ("Thursday, 01-Jan-70 00:00:00 GMT", 0),
        ("Tuesday, 31-Dec-69 00:00:00 GMT", 3155673600),
        ("Sat, 31 Dec 2016 23:59:60 GMT", 1483228800),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 253402300799),
        ("Thu, 30 Feb 2024 12:30:00 GMT", None),
        ("Thu, 29 Feb 2023 12:30:00 GMT", None),
        ("Thu, 29 Feb 0000 12:30:00 GMT", None),
        ("Thu, 00 Feb 2024 12:30:00 GMT", None),
        ("Thu, 29 Feb 2024 24:30:00 GMT", None),
        ("Thu, 29 Feb 2024 12:60:00 GMT", None),
        ("Thu, 29 Feb 2024 12:30:61 GMT", None),
        ("Thu, 29 Feb 2024 12:30:00", None),
        ("Thu, 29 Feb 2024 12:30:00 +0000", None),
        ("Thu, 29 Feb 2024 12:30:00 GMT ", None),
        ("Thu, 29 Feb 2024 12:30:00 GMT\n", None),
        ("thu, 29 feb 2024 12:30:00 gmt", None),
        ("Thu, 9 Feb 2024 12:30:00 GMT", None),
        ("Thu, \u0662\u0669 Feb 2024 12:30:00 GMT", None),
        ("2024-02-29T12:30:00Z", None),
        ("1709209800", None),
        ("", None),
    ],
)
def test_http_dates(text: str, seconds: int | None) -> None:
    assert parse_http_date(text) == seconds


@given(st.integers(-62135596800, 253402300799))
@example(0)
@example(-1)
def test_dates_come_back_and_are_written_as_the_standard_library_writes_them(seconds: int) -> None:
    text = format_http_date(seconds)
    assert parse_http_date(text) == seconds
    moment = datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(seconds=seconds)
    assert text == format_datetime(moment, usegmt=True)


def test_dates_that_no_four_digits_can_say_are_clamped() -> None:
    assert format_http_date(1 << 70) == "Fri, 31 Dec 9999 23:59:59 GMT"
    assert format_http_date(-(1 << 70)) == "Mon, 01 Jan 0001 00:00:00 GMT"


@given(st.text(max_size=40))
def test_any_text_is_a_date_or_is_not(text: str) -> None:
    assert parse_http_date(text) is None


@pytest.mark.parametrize(
    ("text", "length"),
    [
        ("0", 0),
        ("10", 10),
        ("007", 7),
        ("9223372036854775807", 2**63 - 1),
        ("9223372036854775808", None),
        ("9" * 5000, None),
        ("", None),
        (None, None),
        ("-1", None),
        ("+1", None),
        ("5, 5", None),
        (" 5", None),
        ("5\n", None),
        ("1_0", None),
        ("1.0", None),
        ("0x10", None),
        ("\u0663", None),
        ("\u00b2", None),
    ],
)
def test_lengths(text: str | None, length: int | None) -> None:
    assert parse_length(text) == length


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("bytes 0-0/1", (0, 1, 1)),
        ("bytes 0-9/10", (0, 10, 10)),
        ("Bytes 5-9/*", (5, 10, None)),
        ("bytes 0-9223372036854775806/9223372036854775807", (0, 2**63 - 1, 2**63 - 1)),
        ("bytes 0-10/10", None),
        ("bytes 5-4/10", None),
        ("bytes */10", None),
        ("bytes */*", None),
        ("bytes=0-9/10", None),
        ("bytes 0-9", None),
        ("bytes -9/10", None),
        ("bytes 0-/10", None),
        ("bytes 0 - 9/10", None),
        ("bytes 0-9/10 ", None),
        ("bytes 0-9/10\n", None),
        ("items 0-9/10", None),
        ("bytes 0-9/-10", None),
        ("bytes 0-" + "9" * 25 + "/*", None),
        ("bytes 0-" + "9" * 5000 + "/" + "9" * 5000, None),
        ("bytes \u0660-\u0669/\u0661\u0660", None),
        ("", None),
    ],
)
def test_content_ranges(text: str, place: tuple[int, int, int | None] | None) -> None:
    assert parse_content_range(text) == place


# --- the file name -------------------------------------------------------------------------------------------------

DISPOSITION = re.compile(
    r"""attachment; filename="([ !#$&-.0-\[\]-~]+)"; filename\*=UTF-8''((?:[A-Za-z0-9!#$&+.^_`|~-]|%[0-9A-F]{2})+)\Z"""
)


def names(filename: str) -> tuple[str, str]:
    match = DISPOSITION.match(content_disposition(filename))
    assert match, content_disposition(filename)
    return match[1], unquote(match[2], errors="strict")


@pytest.mark.parametrize(
    ("filename", "fallback", "full"),
    [
        ("logs.zip", "logs.zip", "logs.zip"),
        ("my logs (1).zip", "my logs (1).zip", "my logs (1).zip"),
        ("日本.zip", "__.zip", "日本.zip"),
        ("Zürich Ärger.zip", "Zurich Arger.zip", "Zürich Ärger.zip"),
        ("e\u0301.zip", "e.zip", "e\u0301.zip"),
        ("ﬁle.zip", "file.zip", "ﬁle.zip"),
        ("📦.zip", "_.zip", "📦.zip"),
        ('a"b.zip', "a_b.zip", 'a"b.zip'),
        ("100%25.zip", "100_25.zip", "100%25.zip"),
        ("a;b'c.zip", "a;b'c.zip", "a;b'c.zip"),
        ("a\r\nSet-Cookie: b=c.zip", "a__Set-Cookie: b=c.zip", "a__Set-Cookie: b=c.zip"),
        ("a\0b\x7f\x85.zip", "a_b__.zip", "a_b__.zip"),
        ("../../etc/passwd", ".._.._etc_passwd", ".._.._etc_passwd"),
        ("C:\\x\\y.zip", "C:_x_y.zip", "C:_x_y.zip"),
        ("\u202egpj.zip", "_gpj.zip", "_gpj.zip"),
        ("\ud800.zip", "_.zip", "_.zip"),
        ("", "download", "download"),
        (" ", "download", "download"),
        ("..", "download", "download"),
        (". .", "download", "download"),
        ("\u2025", "download", "\u2025"),  # NFKD makes two dots of it
        ("\u2100.zip", "a_c.zip", "\u2100.zip"),  # and of this a, a slash, c
        ("\uff02\uff3c\uff0f.zip", "___.zip", "\uff02\uff3c\uff0f.zip"),
        ("\u0301", "download", "\u0301"),
    ],
)
def test_the_name_of_the_download(filename: str, fallback: str, full: str) -> None:
    assert names(filename) == (fallback, full)


@pytest.mark.parametrize("filename", ["x" * 10_000 + ".tar.gz", "日" * 5_000 + ".tar.gz", "📦" * 5_000 + ".tar.gz"])
def test_a_long_name_is_cut_before_its_extension(filename: str) -> None:
    _, full = names(filename)
    assert full.endswith(filename[0] + ".tar.gz")
    assert 230 < len(full.encode()) <= 240


@given(st.text(max_size=300))
@example("." * 300)
@example("x." * 300)
@example("\udfff" * 300)
def test_any_name_makes_a_safe_header(filename: str) -> None:
    header = content_disposition(filename)
    assert header.isascii()
    fallback, full = names(filename)
    for name in (fallback, full):
        assert name.strip(" .")
        assert not re.search(r"[\x00-\x1f\x7f/\\]", name)
        assert len(name.encode()) <= 4 * 240
    Reply(200, (("Content-Disposition", header),))
