"""What a client is told of an error, and what it is not."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamware import errors
from streamware.errors import (
    EmptyBundle,
    InvalidManifest,
    MemberNotFound,
    MembersFailed,
    NotAllowed,
    Overloaded,
    SourceError,
    StreamwareError,
    UpstreamStatus,
    UpstreamTimeout,
)
from streamware.problems import problem
from streamware.reply import Reply

CLASSES = [
    c
    for name in errors.__all__
    if issubclass(c := getattr(errors, name), StreamwareError) and c not in (MembersFailed, UpstreamStatus)
]


def told(reply: Reply) -> dict[str, object]:
    data = b"".join(reply.body)
    assert reply.header("content-type") == "application/problem+json"
    assert reply.header("content-length") == str(len(data))
    assert reply.header("cache-control") == "no-store"
    document = json.loads(data)
    assert document["status"] == reply.status
    return document


@pytest.mark.parametrize("error", CLASSES)
def test_every_error_has_a_status_a_type_and_a_fixed_text(error: type[StreamwareError]) -> None:
    document = told(problem(error("10.0.0.7 said: /etc/passwd"), instance="urn:uuid:1"))
    assert document["type"] == f"urn:streamware:problem:{error.kind}"
    assert document["title"] == error.title
    assert document["instance"] == "urn:uuid:1"
    assert 400 <= error.status < 600
    assert ("10.0.0.7" in json.dumps(document)) is error.detail_is_public


def test_a_manifest_is_pointed_at() -> None:
    error = InvalidManifest("no", pointer="/members/3/size", member="ü.txt", index=3)
    assert told(problem(error)) == {
        "type": "urn:streamware:problem:invalid-manifest",
        "title": "The manifest is not valid.",
        "status": 400,
        "detail": "no",
        "pointer": "/members/3/size",
        "members": [{"index": 3, "name": "ü.txt", "reason": "invalid-manifest"}],
    }


def test_the_whole_document_is_pointed_at_with_an_empty_pointer() -> None:
    assert told(problem(InvalidManifest("no", pointer="")))["pointer"] == ""


def test_no_word_twice() -> None:
    assert "detail" not in told(problem(EmptyBundle()))
    assert "members" not in told(problem(EmptyBundle()))


def test_a_refused_url_is_not_named() -> None:
    document = told(problem(NotAllowed("no prefix covers http://10.0.0.7/", member="a", index=0)))
    assert "detail" not in document
    assert document["members"] == [{"index": 0, "name": "a", "reason": "not-allowed"}]


def test_all_failed_members_are_listed() -> None:
    failures = (
        UpstreamStatus("503 from 10.0.0.7", upstream_status=503, retry_after=7),
        UpstreamTimeout("10.0.0.8"),
        MemberNotFound("/secret"),
    )
    for index, failure in enumerate(failures):
        failure.index, failure.member = index, f"{index}.txt"
    reply = problem(MembersFailed(failures))
    assert reply.status == 502
    assert reply.header("retry-after") == "7"
    document = told(reply)
    assert document["members"] == [
        {"index": 0, "name": "0.txt", "reason": "upstream-status", "status": 503},
        {"index": 1, "name": "1.txt", "reason": "upstream-timeout"},
        {"index": 2, "name": "2.txt", "reason": "member-not-found"},
    ]
    assert "members_omitted" not in document
    assert "10.0.0" not in json.dumps(document)


def test_many_failures_and_long_names_stay_of_bounded_size() -> None:
    failures = tuple(SourceError("x", member="日" * 5000, index=i) for i in range(1000))
    reply = problem(MembersFailed(failures))
    document = told(reply)
    assert reply.status == 500
    assert len(document["members"]) == 100
    assert document["members_omitted"] == 900
    assert int(reply.header("content-length") or 0) < 200_000
    assert len(told(problem(InvalidManifest("x" * 100_000)))["detail"]) < 1000


@pytest.mark.parametrize(("seconds", "header"), [(None, None), (0, "0"), (5, "5"), (-3, "0")])
def test_retry_after(seconds: int | None, header: str | None) -> None:
    assert problem(Overloaded(retry_after=seconds)).header("retry-after") == header


@given(st.text(), st.text(), st.text())
def test_any_text_can_be_told(detail: str, member: str, pointer: str) -> None:
    told(problem(InvalidManifest(detail, member=member, pointer=pointer)))


def test_half_a_surrogate_pair_can_be_told() -> None:
    document = told(problem(InvalidManifest("\udfff", member="a\ud800b", index=0)))
    assert document["members"] == [{"index": 0, "name": "a?b", "reason": "invalid-manifest"}]
