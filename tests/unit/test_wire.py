"""Heads as bytes: what is read, and what is refused; and which URLs are read without asking urllib3."""

from __future__ import annotations

import pytest
import urllib3.util
from hypothesis import given
from hypothesis import strategies as st

from streamware.origin import Origin, plain, rendered
from streamware.wire import Malformed, chunk_size, head_end, joined, read_head

HEAD = b'HTTP/1.1 200 OK\r\nContent-Length: 5\r\nETag: "v1"\r\n\r\n'


def test_a_head_is_read_wherever_it_ends() -> None:
    for cut in range(len(HEAD)):
        assert read_head(HEAD[:cut]) is None
        assert head_end(HEAD[:cut]) == -1
    found = read_head(HEAD + b"hello")
    assert found == (200, 1, [("Content-Length", "5"), ("ETag", '"v1"')], len(HEAD))


@pytest.mark.parametrize(
    ("head", "fields"),
    [
        (b"HTTP/1.1 200 OK\nA: 1\nB: 2\n\n", {"a": "1", "b": "2"}),
        (b"HTTP/1.0 200\r\nA:1\r\na:  2 \t\r\n\r\n", {"a": "1, 2"}),
        (b"HTTP/1.1 200 OK\r\nA: 1\r\n  2\r\n\t3\r\nB:\r\n\r\n", {"a": "1 2 3", "b": ""}),
        (b"HTTP/1.1 200 \xff\r\nA: \xe4\xff\r\n\r\n", {"a": "\xe4\xff"}),
        (b"HTTP/1.1 204 No Content\r\n\r\n", {}),
    ],
)
def test_forms_that_are_read(head: bytes, fields: dict[str, str]) -> None:
    found = read_head(head + b"body")
    assert found is not None
    assert joined(found[2]) == fields
    assert found[3] == len(head)


@pytest.mark.parametrize(
    "head",
    [
        b"<html>",
        b"HTTP/2.0 200 OK\r\n\r\n",
        b"HTTP/1.1 99 Low\r\n\r\n",
        b"HTTP/1.1  OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA : 1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n: 1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\nA: 1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n A: folded onto nothing that is a field: but the status\rA: 1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: 1\rContent-Length: 5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"A: 1\r\n" * 101 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nA: " + b"1" * 70_000 + b"\r\n\r\n",
    ],
)
def test_forms_that_are_refused(head: bytes) -> None:
    with pytest.raises(Malformed):
        read_head(head)


@pytest.mark.parametrize("line", [b"5\r\n", b"05\n", b"5;a=b\r\n", b"5 \r\n"])
def test_sizes_of_chunks(line: bytes) -> None:
    assert chunk_size(line) == 5


@pytest.mark.parametrize("line", [b"\r\n", b"+5\r\n", b"0x5\r\n", b"5_0\r\n", b"-5\r\n", b"5 6\r\n", b"5\r6\r\n"])
def test_what_is_no_size_of_a_chunk(line: bytes) -> None:
    with pytest.raises(Malformed):
        chunk_size(line)


@given(
    st.sampled_from(["http", "https"]),
    st.from_regex(r"[a-z0-9][a-z0-9.-]{0,20}", fullmatch=True),
    st.sampled_from(["", ":80", ":443", ":8080", ":0", ":70000"]),
    st.text(st.sampled_from("ab/.~%2é ?#=&@;:[\\"), max_size=12),
)
def test_a_plain_url_is_read_as_urllib3_reads_it(scheme: str, host: str, port: str, rest: str) -> None:
    url = f"{scheme}://{host}{port}/{rest}"
    found = plain(url)
    if found is not None:
        parts = urllib3.util.parse_url(url)
        assert found[0] == Origin(
            parts.scheme or "", parts.host or "", parts.port or (443 if scheme == "https" else 80)
        )
        assert found[1] == parts.request_uri


def test_a_request_names_the_port_only_where_it_is_not_the_usual() -> None:
    assert (
        rendered("GET", Origin("http", "[::1]", 80), "/a", {"A": "\xe4"})
        == b"GET /a HTTP/1.1\r\nHost: [::1]\r\nA: \xe4\r\n\r\n"
    )
    assert b"\r\nHost: h:80\r\n" in rendered("GET", Origin("https", "h", 80), "/", {})
