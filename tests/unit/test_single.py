"""The answer for one file: conditions, ranges, both of its entity-tags, and a body that breaks where it must."""

from __future__ import annotations

import json
import zlib

import pytest

from streamware.errors import ChecksumMismatch, SizeUnknown
from streamware.model import Facts
from streamware.policy import Policy
from streamware.problems import problem
from streamware.reply import Conditions, Reply
from streamware.single import reply_for_source
from streamware.sources.generated import DataSource

CONTENT = bytes(range(256)) * 500
FACTS = Facts(size=len(CONTENT), modified=1_000_000_000, validator='"id"', crc32=zlib.crc32(CONTENT))
SHOWN = '"digest"'


def answer(facts: Facts = FACTS, method: str = "GET", etag: str | None = SHOWN, **fields: str) -> Reply:
    return reply_for_source(
        DataSource(CONTENT),
        facts,
        Conditions(method, **fields),  # type: ignore[arg-type]
        Policy(),
        problem,
        media_type="text/x",
        etag=etag,
        headers=(("Cache-Control", "private"),),
        of_file=(("Content-Disposition", "attachment"),),
    )


def read(reply: Reply) -> bytes:
    try:
        return b"".join(reply.body)
    finally:
        reply.body.close()


def test_the_whole() -> None:
    reply = answer()
    assert (reply.status, read(reply)) == (200, CONTENT)
    assert dict(reply.headers) == {
        "Content-Type": "text/x",
        "Content-Length": str(len(CONTENT)),
        "ETag": SHOWN,
        "Last-Modified": "Sun, 09 Sep 2001 01:46:40 GMT",
        "Accept-Ranges": "bytes",
        "Cache-Control": "private",
        "Content-Disposition": "attachment",
    }
    head = answer(method="HEAD")
    assert (head.status, head.headers, read(head)) == (200, reply.headers, b"")


def test_parts() -> None:
    reply = answer(range="bytes=5-9")
    assert (reply.status, read(reply)) == (206, CONTENT[5:10])
    assert reply.header("content-range") == f"bytes 5-9/{len(CONTENT)}"
    several = answer(range="bytes=0-0,1000-1001")
    assert several.status == 206
    data = read(several)
    assert several.header("content-length") == str(len(data))
    assert CONTENT[1000:1002] in data


def test_a_refusal_is_a_problem_and_speaks_of_the_file() -> None:
    beyond = answer(range=f"bytes={len(CONTENT)}-")
    told = json.loads(read(beyond))
    assert (beyond.status, told["status"]) == (416, 416)
    assert told["type"] == "urn:streamware:problem:range-not-satisfiable"
    assert told["title"] == "The file has no bytes in the range that was asked for."
    assert beyond.header("content-range") == f"bytes */{len(CONTENT)}"
    assert beyond.header("cache-control") == "no-store"
    assert beyond.header("content-disposition") is None
    changed = answer(if_match='"other"')
    told = json.loads(read(changed))
    assert (changed.status, told["status"]) == (412, 412)
    assert told["type"] == "urn:streamware:problem:precondition-failed"
    assert told["title"] == "The file is not the version that was asked for."
    for each in (beyond, changed):
        names = [name.lower() for name, _ in each.headers]
        assert len(set(names)) == len(names), each.headers


@pytest.mark.parametrize("tag", ['"digest"', '"id"'])
def test_whoever_knows_it_by_either_tag_is_answered_under_that(tag: str) -> None:
    part = answer(range="bytes=5-9", if_range=tag)
    assert (part.status, part.header("etag"), read(part)) == (206, tag, CONTENT[5:10])
    same = answer(if_none_match=f'"other", {tag}')
    assert (same.status, same.header("etag"), read(same)) == (304, tag, b"")
    assert same.header("content-disposition") is None
    assert answer(if_match=tag).status == 200


@pytest.mark.parametrize("tag", ['"other"', '"id', "id", '"xid"', 'W/"id"'])
def test_other_tags_are_other_versions(tag: str) -> None:
    assert answer(range="bytes=5-9", if_range=tag).status == 200
    assert answer(if_match=tag).status == 412
    if not tag.startswith("W/"):
        assert answer(if_none_match=tag).status == 200


def test_both_at_once_and_one_alone() -> None:
    reply = answer(if_match='"id", "digest"')
    assert (reply.status, reply.header("etag")) == (200, SHOWN)
    assert answer(etag=None).header("etag") == '"id"'
    assert answer(Facts(size=len(CONTENT))).header("etag") == SHOWN
    assert answer(Facts(size=len(CONTENT)), etag=None).header("etag") is None


def test_content_that_is_not_what_it_should_be_is_never_given_whole() -> None:
    wrong = Facts(size=len(CONTENT), validator='"id"', crc32=1)
    with pytest.raises(ChecksumMismatch):
        answer(wrong)  # it came in one piece, so that this shows before the head
    assert read(answer(wrong, range="bytes=1-")) == CONTENT[1:]


def test_a_size_is_needed() -> None:
    with pytest.raises(SizeUnknown):
        answer(Facts())
