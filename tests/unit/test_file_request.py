"""A request to the file service as both kinds of hosts tell of it."""

from __future__ import annotations

from typing import Any

import pytest

from streamware.file_request import FileRequest


def environ(path: str, **more: Any) -> dict[str, Any]:
    own = {key.replace("__", "."): value for key, value in more.items()}
    return {"wsgi.version": (1, 0), "REQUEST_METHOD": "post", "PATH_INFO": path, "QUERY_STRING": "limit=3"} | own


def scope(path: str, *headers: tuple[bytes, bytes], **more: Any) -> dict[str, Any]:
    base = {"type": "http", "method": "POST", "path": path, "query_string": b"limit=3", "http_version": "1.1"}
    return base | {"headers": headers} | more


@pytest.mark.parametrize(
    ("mount", "path", "id", "base"),
    [
        ("", "/files", None, "/files"),
        ("", "/files/", None, "/files"),
        ("", "/files/x", "x", "/files"),
        ("/app", "/files/x", "x", "/app/files"),
        ("", "/a b/ü/x", "x", "/a%20b/%C3%BC"),
        ("", "//evil.example/files", None, "/evil.example/files"),
    ],
)
def test_the_collection_s_path_is_what_stands_in_urls(mount: str, path: str, id: str | None, base: str) -> None:
    wsgi = environ(path.encode().decode("latin-1"), SCRIPT_NAME=mount)
    assert FileRequest.from_environ(wsgi, id=id).base == base
    assert FileRequest.from_scope(scope(path, root_path=mount), id=id).base == base
    assert FileRequest.from_scope(scope(mount + path, root_path=mount), id=id).base == base


def test_both_tell_the_same() -> None:
    wsgi = environ("/files", HTTP_X_FILENAME="a.txt", CONTENT_TYPE="text/plain", CONTENT_LENGTH="3", HTTP_HOST="h")
    headers = ((b"x-filename", b"a.txt"), (b"content-type", b"text/plain"), (b"content-length", b"3"), (b"host", b"h"))
    told, other = FileRequest.from_environ(wsgi), FileRequest.from_scope(scope("/files", *headers))
    assert told.headers == other.headers
    assert (told.method, told.query, told.chunked) == (other.method, other.query, other.chunked)
    assert (told.method, told.query, told.chunked) == ("POST", "limit=3", False)


def test_a_length_that_is_not_there_is_none() -> None:
    assert FileRequest.from_environ(environ("/files", CONTENT_LENGTH="", CONTENT_TYPE="")).headers == {}
    # What some servers make of "Content_Length".
    assert FileRequest.from_environ(environ("/files", HTTP_CONTENT_LENGTH="3")).chunked


def test_two_lengths_and_a_length_beside_chunks_are_seen() -> None:
    twice = ((b"content-length", b"3"), (b"content-length", b"4"))
    told = FileRequest.from_scope(scope("/files", *twice))
    assert (told.header("content-length"), told.repeated) == ("3, 4", {"content-length"})
    both = ((b"content-length", b"3"), (b"transfer-encoding", b"chunked"))
    assert FileRequest.from_scope(scope("/files", *both)).ambiguous
    assert FileRequest.from_environ(environ("/", CONTENT_LENGTH="3", HTTP_TRANSFER_ENCODING="chunked")).ambiguous
    assert not told.ambiguous


def test_why_a_body_s_end_cannot_be_told_comes_along() -> None:
    assert FileRequest.from_environ(environ("/files")).untold is not None
    assert FileRequest.from_environ(environ("/files", wsgi__input_terminated=True)).untold is None
