"""The judgement of an answer, and the cut of its body: every way in which one can be wrong."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from streamware.errors import (
    InvalidTarget,
    MemberChanged,
    MemberForbidden,
    MemberNotFound,
    SizeMismatch,
    StreamwareError,
    UpstreamError,
    UpstreamStatus,
)
from streamware.inner import aim, cut, environ_for, path_in, range_headers, scope_for, settle
from streamware.model import Facts
from streamware.plan import Window
from streamware.target import parse_href

PINNED = Facts(size=100, validator='"v"', modified=5)
PART = Window(10, 20)


def head(**fields: str) -> list[tuple[str, str]]:
    return [(name.replace("_", "-"), value) for name, value in fields.items()]


def test_the_first_answer_tells_the_facts() -> None:
    settled = settle(
        200,
        head(Content_Length="100", ETag='"v"', Last_Modified="Thu, 01 Jan 1970 00:00:05 GMT", Content_Type="text/x"),
    )
    assert settled == (Facts(size=100, validator='"v"', modified=5, media_type="text/x"), 0, 100)


@pytest.mark.parametrize("length", ["", "-1", "+5", "1_0", "5, 5", "\u0665", "5.0"])
def test_a_length_that_is_none(length: str) -> None:
    with pytest.raises(UpstreamError):
        settle(200, head(Content_Length=length))


def test_a_length_beside_a_transfer_coding_counts_for_nothing() -> None:
    assert settle(200, head(Content_Length="5", Transfer_Encoding="chunked")).length is None


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (404, MemberNotFound),
        (410, MemberNotFound),
        (401, MemberForbidden),
        (403, MemberForbidden),
        (204, UpstreamStatus),
        (206, UpstreamStatus),
        (302, UpstreamStatus),
        (416, UpstreamStatus),
        (500, UpstreamStatus),
    ],
)
def test_other_statuses_are_errors(status: int, kind: type[StreamwareError]) -> None:
    with pytest.raises(kind):
        settle(status, [])


def test_a_pause_is_passed_on() -> None:
    with pytest.raises(UpstreamStatus) as caught:
        settle(503, head(Retry_After="7"))
    assert (caught.value.upstream_status, caught.value.retry_after) == (503, 7)
    with pytest.raises(UpstreamStatus) as caught:
        settle(503, head(Retry_After="Thu, 01 Jan 2099 00:00:05 GMT"))
    assert caught.value.retry_after is None


@pytest.mark.parametrize(
    "fields",
    [
        [("Content-Encoding", "gzip")],
        [("Content-Encoding", "identity"), ("content-encoding", "br")],
        [("Content-Length", "5"), ("content-length", "6")],
    ],
)
def test_answers_that_cannot_be_used(fields: list[tuple[str, str]]) -> None:
    with pytest.raises(UpstreamError):
        settle(200, fields)
    assert settle(200, [("Content-Encoding", "Identity"), ("Content-Length", "5"), ("content-length", "5")]).length == 5


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        (head(Content_Length="100", ETag='"w"'), MemberChanged),
        (head(Content_Length="100", ETag='W/"v"'), MemberChanged),
        (head(Content_Length="100"), MemberChanged),
        (head(Content_Length="99", ETag='"v"'), SizeMismatch),
    ],
)
def test_a_whole_that_is_not_the_pinned_one(fields: list[tuple[str, str]], kind: type[StreamwareError]) -> None:
    with pytest.raises(kind):
        settle(200, fields, pinned=PINNED)
    assert settle(200, head(ETag='"v"'), pinned=PINNED).length == 100


def test_a_part_that_fits() -> None:
    fields = head(Content_Range="bytes 10-19/100", Content_Length="10", ETag='"v"')
    assert settle(206, fields, asked=PART, pinned=PINNED) == (Facts(size=100, validator='"v"'), 0, 10)
    fields = head(Content_Range="bytes 10-99/100", ETag='"v"')
    for stop in (None, 100):
        assert settle(206, fields, asked=Window(10, stop), pinned=PINNED).length == 90


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        (head(ETag='"v"'), UpstreamError),
        (head(Content_Range="bytes 11-19/100", ETag='"v"'), UpstreamError),
        (head(Content_Range="bytes 10-18/100", ETag='"v"'), UpstreamError),
        (head(Content_Range="bytes 10-20/100", ETag='"v"'), UpstreamError),
        (head(Content_Range="bytes 10-19/100", Content_Length="11", ETag='"v"'), UpstreamError),
        (head(Content_Range="bytes 10-19/101", ETag='"v"'), SizeMismatch),
        (head(Content_Range="bytes 10-19/*", ETag='"v"'), UpstreamError),
        (head(Content_Range="bytes 10-19/100", ETag='"w"'), MemberChanged),
        (head(Content_Range="bytes 10-19/100"), MemberChanged),
    ],
)
def test_a_part_that_does_not_fit(fields: list[tuple[str, str]], kind: type[StreamwareError]) -> None:
    with pytest.raises(kind):
        settle(206, fields, asked=PART, pinned=PINNED)


def test_the_whole_in_place_of_a_part_is_skipped_forward() -> None:
    assert settle(200, head(Content_Length="100", ETag='"v"'), asked=PART, pinned=PINNED).skip == 10
    with pytest.raises(MemberChanged):
        settle(200, head(Content_Length="100", ETag='"w"'), asked=PART, pinned=PINNED)
    with pytest.raises(SizeMismatch):
        settle(200, head(Content_Length="9"), asked=PART)


def test_without_a_validator_the_time_must_be_the_same_for_a_part() -> None:
    pinned = Facts(size=100, modified=5)
    other = head(Content_Length="100", Last_Modified="Thu, 01 Jan 1970 00:00:06 GMT")
    assert settle(200, other, pinned=pinned).skip == 0
    with pytest.raises(MemberChanged):
        settle(200, other, asked=PART, pinned=pinned)


def test_a_range_beyond_the_end_says_that_the_size_is_another() -> None:
    with pytest.raises(SizeMismatch):
        settle(416, [], asked=PART, pinned=PINNED)


def test_a_part_is_asked_of_one_version_where_that_can_be_said() -> None:
    assert range_headers(PART, PINNED) == [("range", "bytes=10-19"), ("if-range", '"v"')]
    assert range_headers(Window(10, None), Facts(validator='W/"v"')) == [("range", "bytes=10-")]


# --- cutting -----------------------------------------------------------------------------------------------------


def test_every_cut_of_every_body() -> None:
    data = b"0123456789"
    for size in (1, 3, 10):
        for skip in range(11):
            for take in range(11 - skip):
                pieces = iter([data[at : at + size] for at in range(0, 10, size)])
                assert b"".join(cut(pieces, skip=skip, take=take, length=10)) == data[skip : skip + take]
            pieces = iter([data[at : at + size] for at in range(0, 10, size)])
            assert b"".join(cut(pieces, skip=skip)) == data[skip:]


@pytest.mark.parametrize("take", [None, 10])
@pytest.mark.parametrize("body", [[b"012345678"], [b"0123456789", b"", b"x"], [b"0123456789x"], [b"01234", b"56789x"]])
def test_a_body_of_another_length_gives_no_last_piece(body: list[bytes], take: int | None) -> None:
    given: list[bytes] = []
    with pytest.raises(SizeMismatch):
        given.extend(cut(iter(body), take=take, length=10))
    assert len(b"".join(given)) < 10


def test_an_empty_body_must_be_empty() -> None:
    assert list(cut(iter([b""]), length=0)) == []
    with pytest.raises(SizeMismatch):
        list(cut(iter([b"x"]), length=0))
    with pytest.raises(SizeMismatch):
        list(cut(iter([b"x"]), take=2, length=1))


def test_a_part_is_given_without_reading_on() -> None:
    def pieces() -> Iterator[bytes]:
        yield b"01234"
        yield b"56789"
        raise AssertionError("nobody needs this")

    assert b"".join(cut(pieces(), skip=2, take=6, length=100)) == b"234567"


# --- asking ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("href", ["/b", "/b/x", "/b?x", "//b", "/x/%2e%2e/b", "http://h/b", "b"])
def test_nothing_leads_back_to_the_bundles(href: str) -> None:
    with pytest.raises(InvalidTarget):
        aim(href, "/b")


def test_an_environ_takes_along_where_the_app_stands_and_no_more() -> None:
    outer = {
        "REQUEST_METHOD": "POST",
        "CONTENT_LENGTH": "5",
        "CONTENT_TYPE": "x",
        "HTTP_HOST": "h",
        "HTTP_COOKIE": "c",
        "SCRIPT_NAME": "/caf\u00c3\u00a9",
        "REQUEST_URI": "old",
        "REMOTE_ADDR": "127.0.0.1",
        "gunicorn.socket": object(),
        "my.key": 1,
    }
    before = dict(outer)
    inner = environ_for(outer, "GET", [("if-range", '"v"')], target=parse_href("/a%20b"))
    assert inner == {
        "REQUEST_METHOD": "GET",
        "HTTP_HOST": "h",
        "HTTP_IF_RANGE": '"v"',
        "SCRIPT_NAME": "/caf\u00c3\u00a9",
        "PATH_INFO": "/a b",
        "QUERY_STRING": "",
        "REQUEST_URI": "/caf%C3%A9/a%20b",
        "REMOTE_ADDR": "127.0.0.1",
        "my.key": 1,
    }
    assert outer == before


def test_a_scope_takes_along_where_the_app_stands_and_no_more() -> None:
    outer = {
        "type": "http",
        "path": "/app/x",
        "root_path": "/app/",
        "method": "POST",
        "headers": [(b"host", b"h"), (b"cookie", b"c")],
        "extensions": {"http.response.pathsend": {}},
    }
    inner = scope_for(outer, "GET", [("Range", "bytes=0-")])
    assert inner == {
        **{k: v for k, v in outer.items() if k != "extensions"},
        "method": "GET",
        "headers": inner["headers"],
    }
    assert inner["headers"] == [(b"host", b"h"), (b"range", b"bytes=0-")]
    assert path_in(outer) == "/x"
    assert path_in({"path": "/application", "root_path": "/app"}) == "/application"
