"""What WSGI and ASGI share: what was asked, and what is answered."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamware.reply import BytesBody, Conditions, Reply


def test_conditions_are_picked_out_of_any_headers() -> None:
    found = Conditions.of(
        "get",
        [
            ("Host", "a.test"),
            ("RANGE", "bytes=0-1"),
            ("If-Range", '"a"'),
            ("if-match", '"b"'),
            ("If-None-Match", '"c"'),
            ("If-Modified-Since", "x"),
            ("If-Unmodified-Since", "y"),
            ("Range-Unit", "z"),
        ],
    )
    assert found == Conditions("GET", "bytes=0-1", '"a"', '"b"', '"c"', "x", "y")


def test_lists_in_several_lines_are_one() -> None:
    found = Conditions.of("GET", [("If-None-Match", '"a"'), ("Range", "bytes=0-1"), ("if-none-match", '"b"')])
    assert found.if_none_match == '"a", "b"'
    assert found.range == "bytes=0-1"


def test_absent_is_none_and_empty_is_empty() -> None:
    assert Conditions.of("HEAD", []) == Conditions("HEAD")
    assert Conditions.of("HEAD", [("If-Match", "")]).if_match == ""


def test_conditions_of_an_environ_are_those_of_its_headers() -> None:
    environ = {
        "REQUEST_METHOD": "HEAD",
        "HTTP_RANGE": "bytes=0-1",
        "HTTP_IF_RANGE": '"a"',
        "HTTP_IF_MATCH": '"b"',
        "HTTP_IF_NONE_MATCH": '"c"',
        "HTTP_IF_MODIFIED_SINCE": "x",
        "HTTP_IF_UNMODIFIED_SINCE": "y",
        "HTTP_HOST": "a.test",
        "RANGE": "bytes=5-6",
        "wsgi.input": None,
    }
    assert Conditions.from_environ(environ) == Conditions("HEAD", "bytes=0-1", '"a"', '"b"', '"c"', "x", "y")
    assert Conditions.from_environ({"REQUEST_METHOD": "GET"}) == Conditions()


@pytest.mark.parametrize("name", ["", "A B", "A:", "A\n", "\nA", "A\r", "É", "A\0", "(A)", "A=", '"A"', "A/B", "A@B"])
def test_a_header_name_is_a_token(name: str) -> None:
    with pytest.raises(ValueError, match="header"):
        Reply(200, ((name, "x"),))


@pytest.mark.case(38)
@pytest.mark.parametrize("value", ["a\r\nB: c", "a\n", "\n", "\ra", "a\0", "\r\n a"])
def test_a_header_value_stays_on_its_line(value: str) -> None:
    with pytest.raises(ValueError, match="header"):
        Reply(200, (("A", value),))


@pytest.mark.parametrize("value", ["日", "\ud800", "\u0100"])
def test_a_header_value_can_be_sent_by_a_wsgi_host(value: str) -> None:
    with pytest.raises(ValueError):
        Reply(200, (("A", value),))


@given(st.text(max_size=20), st.text(max_size=20))
def test_what_gets_in_makes_one_line(name: str, value: str) -> None:
    try:
        reply = Reply(200, ((name, value),))
    except ValueError:
        return
    assert reply.headers == ((name, value),)
    wire = f"{name}: {value}\r\n".encode("latin-1")
    assert wire.count(b"\n") == wire.count(b"\r") == 1
    assert wire.partition(b":")[0].decode() == name


def test_every_header_is_checked() -> None:
    with pytest.raises(ValueError, match="B"):
        Reply(200, (("A", "b"), ("B", "c\n")))
    reply = Reply(200, (("A", "b"),))
    with pytest.raises(ValueError, match="B"):
        dataclasses.replace(reply, headers=(("B", "c\n"),))
    with pytest.raises(dataclasses.FrozenInstanceError):
        reply.headers = ()  # type: ignore[misc]


def test_headers_are_found_in_any_case_and_the_first_counts() -> None:
    reply = Reply(200, (("Set-Cookie", "a=1"), ("SET-COOKIE", "b=2"), ("X", "\xe9\t ")))
    assert reply.header("set-cookie") == "a=1"
    assert reply.header("x") == "\xe9\t "
    assert reply.header("y") is None


def test_replies_do_not_share_a_body() -> None:
    one, two = Reply(204), Reply(204)
    assert one.body is not two.body
    assert (one.body.length, list(one.body)) == (0, [])


def test_bytes_are_given_once() -> None:
    body = BytesBody(b"abc")
    assert body.length == 3
    assert body.ready()
    assert next(body) == b"abc"
    assert list(body) == []
    assert body.ready()


@pytest.mark.parametrize("end", ["close", "abort"])
def test_bytes_can_be_given_up_twice(end: str) -> None:
    body = BytesBody(b"abc")
    getattr(body, end)()
    getattr(body, end)()
    assert list(body) == []


# --- the host and the client -------------------------------------------------------------------------------------


def test_conditions_know_the_host_and_the_client_on_wsgi_and_asgi() -> None:
    environ = {
        "REQUEST_METHOD": "GET",
        "SERVER_PROTOCOL": "HTTP/1.0",
        "REMOTE_ADDR": "192.0.2.7",
        "HTTP_RANGE": "bytes=0-1",
        "HTTP_X_REQUEST_ID": "a-1._Z",
        "wsgi.version": (1, 0),
    }
    scope = {
        "type": "http",
        "method": "get",
        "http_version": "1.0",
        "client": ["192.0.2.7", 4711],
        "headers": [(b"Range", b"bytes=0-1"), (b"x-request-id", b"a-1._Z")],
    }
    found = Conditions.from_environ(environ)
    assert found == Conditions.from_scope(scope)
    assert found.unframed is not None
    assert (found.method, found.range, found.http_10, found.client) == ("GET", "bytes=0-1", True, "192.0.2.7")
    assert found.request_id == "a-1._Z"
    plain = found.unconditional()
    assert plain == dataclasses.replace(found, range=None)


@pytest.mark.parametrize("value", ["", "a b", "a\tb", "x" * 65, "ü", "a\n", "<b>", "%s"])
def test_a_request_id_that_could_spoil_the_log_is_not_taken(value: str) -> None:
    assert Conditions.of("GET", [("X-Request-Id", value)]).request_id is None
