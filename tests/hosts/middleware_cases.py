"""What both middlewares must do, whatever the server: run by test_middleware_wsgi.py and test_middleware_asgi.py.

The rule of this file: it sees a server from outside, through HTTP, and the wrapped site through its diary.
"""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
import zlib
from typing import Any
from urllib.parse import quote, urlencode

import pytest

from streamware import Archiver, Member, Policy
from streamware.errors import MemberNotFound
from streamware.model import Data
from tests.hosts.inner_site import BIG, FILES, MODIFIED, lines
from tests.hosts.servers import Broken, Response, Server, until

__all__ = ["LOCAL", "MiddlewareCases", "archiver", "bundle", "listed", "local", "unzipped"]

LOCAL = b"held by the server\n"
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
JSON = {"Content-Type": "application/json"}


def archiver() -> Archiver:
    """What the middlewares under test share; small limits, so that they can be passed; wsgiref is among the servers."""
    return Archiver(Policy(max_manifest_bytes=100_000, read_timeout_seconds=10, allow_unframed=True))


def local(href: str) -> list[Member] | None:
    """A ``local`` hook: one file, one folder, and one path that does not exist."""
    found = {
        "/held.txt": [Member("held.txt", Data(LOCAL))],
        "/folder/": [Member("folder/x", Data(b"x")), Member("folder/y/", None)],
    }
    if href == "/held/missing":
        raise MemberNotFound(href)
    return found.get(href)


def bundle(*paths: str, **more: str) -> str:
    return "/bundle?" + urlencode([("path", path) for path in paths] + list(more.items()))


def listed(body: bytes | None = None, *headers: str, **more: str) -> str:
    fields = [("h", header) for header in headers] + list(more.items())
    return "/list?" + urlencode(fields + ([] if body is None else [("body", body)]))


def unzipped(response: Response) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(response.body)) as archive:
        assert archive.testzip() is None
        return {name: archive.read(name) for name in archive.namelist()}


def asked(server: Server, what: str = "asked") -> list[dict[str, Any]]:
    """What the site has noted since it was last asked, the asking left out."""
    entries: list[dict[str, Any]] = json.loads(server.get("/diary").body)
    return [entry for entry in entries if entry["what"] == what and entry["path"] != "/diary"]


def failing(response: Response) -> list[str]:
    problem = json.loads(response.body)
    assert response.header("content-type") == "application/problem+json"
    assert problem["status"] == response.status
    return [member.get("name") for member in problem.get("members", [])]


class MiddlewareCases:
    """Needs a fixture ``server``: the site behind a middleware at /bundle with the hook ``local``."""

    # --- bundles by path ---

    def test_a_query_names_the_members(self, server: Server) -> None:
        response = server.get(bundle("/a.txt", "/dir/c%20d.txt", "/dir/c d.txt", "/caf\u00e9", name="pick.zip"))
        assert response.status == 200
        assert response.header("content-type") == "application/zip"
        assert response.header("content-length") == str(len(response.body))
        assert "pick.zip" in (response.header("content-disposition") or "")
        assert unzipped(response) == {
            "a.txt": FILES["/a.txt"],
            "dir/c d.txt": FILES["/dir/c d.txt"],
            "dir/c d (1).txt": FILES["/dir/c d.txt"],
            "caf\u00e9": FILES["/caf\u00e9"],
        }

    def test_a_member_keeps_its_own_query(self, server: Server) -> None:
        response = server.get(bundle("/echo?x=1&y=%26"))
        assert json.loads(unzipped(response)["echo"])["query"] == {"x": ["1"], "y": ["&"]}

    def test_a_form_names_the_members(self, server: Server) -> None:
        body = urlencode([("path", "/a.txt"), ("path", "/b.bin"), ("name", "f.tar")]).encode()
        response = server.request("POST", "/bundle/", FORM, body)
        assert response.header("content-type") == "application/x-tar"
        assert response.header("content-length") == str(len(response.body))
        with tarfile.open(fileobj=io.BytesIO(response.body)) as archive:
            assert archive.getnames() == ["a.txt", "b.bin"]
            assert archive.extractfile("b.bin").read() == FILES["/b.bin"]  # type: ignore[union-attr]

    def test_a_json_manifest_names_the_members(self, server: Server) -> None:
        data = FILES["/b.bin"]
        manifest = {
            "name": "m.zip",
            "members": [
                {"name": "b", "path": "/b.bin", "size": len(data), "crc32": f"{zlib.crc32(data):08x}"},
                {"name": "note.txt", "text": "hello"},
                {"name": "dir/"},
            ],
        }
        asked(server)
        response = server.request(
            "POST", "/bundle", {**JSON, "Range": "bytes=0-9", "If-None-Match": "*"}, json.dumps(manifest).encode()
        )
        assert response.status == 200
        assert unzipped(response) == {"b": data, "note.txt": b"hello", "dir/": b""}
        assert [entry["method"] for entry in asked(server)] == ["GET"]

    @pytest.mark.parametrize(
        ("promise", "status"),
        [({"size": 5}, 502), ({"etag": '"other"'}, 502), ({"crc32": "00000000", "size": 256_000}, None)],
    )
    def test_a_promise_that_is_not_kept_is_no_archive(
        self, server: Server, promise: dict[str, Any], status: int | None
    ) -> None:
        manifest = {"name": "m.zip", "members": [{"name": "b", "path": "/b.bin", **promise}]}
        body = json.dumps(manifest).encode()
        if status is None:
            with pytest.raises(Broken):
                server.request("POST", "/bundle", JSON, body)
        else:
            response = server.request("POST", "/bundle", JSON, body)
            assert (response.status, failing(response)) == (status, ["b"])

    @pytest.mark.case(34)
    @pytest.mark.parametrize(
        ("headers", "body"), [(JSON, b"{"), (JSON, b""), (FORM, b"name=x"), ({"Content-Type": "text/plain"}, b"x")]
    )
    def test_a_bad_manifest_is_refused(self, server: Server, headers: dict[str, str], body: bytes) -> None:
        response = server.request("POST", "/bundle", headers, body)
        assert response.status == 400
        assert failing(response) == []

    def test_a_manifest_that_is_too_long_is_not_read(self, server: Server) -> None:
        connection = server.connect()
        try:
            connection.putrequest("POST", "/bundle")
            connection.putheader("Content-Type", "application/json")
            connection.putheader("Content-Length", str(1 << 30))
            connection.endheaders()
            assert connection.getresponse().status == 413
        finally:
            connection.close()

    @pytest.mark.case(44)
    def test_other_methods_are_refused(self, server: Server) -> None:
        response = server.request("DELETE", "/bundle?path=/a.txt")
        assert (response.status, response.header("allow")) == (405, "GET, HEAD, POST")
        assert failing(response) == []

    @pytest.mark.case(44)
    def test_head_answers_what_get_would(self, server: Server) -> None:
        path = bundle("/a.txt", "/b.bin")
        get, head = server.get(path), server.request("HEAD", path)
        own = ("content-type", "content-length", "etag", "accept-ranges", "last-modified")
        assert [head.header(name) for name in own] == [get.header(name) for name in own]
        assert head.header("content-length") == str(len(get.body))
        assert head.body == b""

    def test_members_are_asked_as_the_caller(self, server: Server) -> None:
        path = bundle("/a.txt", "/secret")
        refused = server.get(path)
        assert (refused.status, failing(refused)) == (403, ["secret"])
        assert unzipped(server.get(path, {"Cookie": "session=s3cret"}))["secret"] == b"secret"
        assert unzipped(server.get(path, {"Authorization": "Bearer t0ken"}))["secret"] == b"secret"

    def test_members_get_no_other_headers(self, server: Server) -> None:
        headers = {"If-Match": "*", "Accept-Encoding": "gzip", "X-Mine": "1", "X-Request-Id": "7", "Expect": "x"}
        del headers["Expect"]
        seen = json.loads(unzipped(server.get(bundle("/echo"), headers))["echo"])["headers"]
        assert seen["x-request-id"] == "7"
        assert seen["host"] == f"127.0.0.1:{server.port}"
        assert not {"if-match", "accept-encoding", "x-mine", "range"} & set(seen)

    @pytest.mark.case(24)
    @pytest.mark.parametrize(
        ("path", "status"),
        [("/nowhere", 404), ("/gone", 404), ("/moved", 502), ("/coded", 502), ("/fails", 500)],
    )
    def test_a_member_that_fails_is_named(self, server: Server, path: str, status: int) -> None:
        response = server.get(bundle("/a.txt", path))
        assert (response.status, failing(response)) == (status, [path[1:]])
        assert b"on fire" not in response.body
        assert b"broken" not in response.body

    @pytest.mark.case(24)
    @pytest.mark.parametrize("path", ["/fails-late", "/short", "/long"])
    def test_a_body_that_is_not_as_promised_breaks_the_connection(self, server: Server, path: str) -> None:
        with pytest.raises(Broken) as broken:
            server.get(bundle("/a.txt", path, "/b.bin"))
        assert path[1:].encode() in broken.value.body
        assert b"b.bin" not in broken.value.body

    @pytest.mark.case(19)
    def test_a_member_that_changes_meanwhile_is_no_archive(self, server: Server) -> None:
        many = bundle(*["/a.txt"] * 9, "/changing")  # more than are asked by the GETs that then deliver them
        with pytest.raises(Broken):
            server.get(many)

    @pytest.mark.case(13)
    def test_a_site_that_answers_no_head_and_gives_no_length(self, server: Server) -> None:
        paths = ["/a.txt"] * 9 + ["/no-head", "/head-of-nothing"]
        response = server.get(bundle(*paths))
        assert response.header("content-length") == str(len(response.body))
        found = unzipped(response)
        assert (found["no-head"], found["head-of-nothing"]) == (b"no head", b"7 bytes")
        response = server.get(bundle(*paths, "/unmeasured"))
        assert response.header("content-length") is None
        assert unzipped(response)["unmeasured"] == BIG

    @pytest.mark.case(24)
    @pytest.mark.parametrize(
        "path", ["/bundle?path=/a.txt", "/bundle/", "/bundle/links/x", "/%62undle", "/x/../bundle", "/%2562undle"]
    )
    def test_bundles_of_bundles_are_refused(self, server: Server, path: str) -> None:
        response = server.get(bundle("/a.txt", path))
        assert response.status == 400
        assert len(failing(response)) == 1

    def test_what_stands_near_the_bundle_path_is_the_sites(self, server: Server) -> None:
        assert [server.get(path).status for path in ("/bundle/linked", "/bundles", "/bundle/x", "/Bundle")] == [404] * 4

    def test_every_answer_is_closed(self, server: Server) -> None:
        asked(server)
        paths = ["/a.txt"] * 9 + ["/b.bin", "/no-head", "/secret", "/nowhere"]
        server.get(bundle(*paths[:10]))
        server.get(bundle(*paths))
        server.get(bundle("/a.txt", "/b.bin"), {"Range": "bytes=5000-20000"})
        server.get(listed())
        server.request("HEAD", listed())
        entries: list[dict[str, Any]] = []

        def balanced() -> bool:
            entries.extend(json.loads(server.get("/diary").body))
            rest = [entry for entry in entries if entry["path"] != "/diary"]
            return len(rest) > 40 and sum(1 if entry["what"] == "asked" else -1 for entry in rest) == 0

        until(balanced, 5)

    def test_local_members_need_no_sub_request(self, server: Server) -> None:
        asked(server)
        response = server.get(bundle("/held.txt", "/folder/", "/a.txt"))
        assert unzipped(response) == {
            "held.txt": LOCAL,
            "folder/x": b"x",
            "folder/y/": b"",
            "a.txt": FILES["/a.txt"],
        }
        assert {entry["path"] for entry in asked(server)} == {"/a.txt"}
        manifest = {"name": "m.zip", "members": [{"name": "n", "path": "/held.txt"}, {"name": "f", "path": "/folder/"}]}
        response = server.request("POST", "/bundle", JSON, json.dumps(manifest).encode())
        assert unzipped(response) == {"n": LOCAL, "f/folder/x": b"x", "f/folder/y/": b""}
        missing = server.get(bundle("/held/missing"))
        assert (missing.status, failing(missing)) == (404, ["held/missing"])

    # --- ranges ---

    @pytest.mark.case(42)
    def test_any_part_of_a_bundle_is_a_slice_of_the_whole(self, server: Server) -> None:
        path = bundle("/a.txt", "/big", "/unranged", name="r.tar")
        whole = server.get(path)
        assert whole.header("accept-ranges") == "bytes"
        asked(server)
        for start, stop in ((0, 1), (5000, 700_000), (4_000_000, 4_000_100), (len(whole.body) - 7, len(whole.body))):
            part = server.get(path, {"Range": f"bytes={start}-{stop - 1}", "If-Range": whole.header("etag") or ""})
            assert part.status == 206
            assert part.body == whole.body[start:stop]
        ranges = [entry["headers"] for entry in asked(server) if "range" in entry["headers"]]
        assert {entry.get("if-range", "")[:1] for entry in ranges} == {'"'}

    @pytest.mark.case(43)
    def test_a_part_of_another_version_is_not_given(self, server: Server) -> None:
        response = server.get(bundle("/a.txt", name="r.tar"), {"Range": "bytes=0-9", "If-Range": '"old"'})
        assert response.status == 200

    # --- lists ---

    def test_a_list_becomes_the_archive(self, server: Server) -> None:
        response = server.get(listed())
        assert response.status == 200
        assert response.header("content-type") == "application/zip"
        assert response.header("content-length") == str(len(response.body))
        assert "list.zip" in (response.header("content-disposition") or "")
        assert response.header("x-archive-files") is None
        assert unzipped(response) == {"one/a.txt": FILES["/a.txt"], "b.bin": FILES["/b.bin"], "empty/": b""}
        with zipfile.ZipFile(io.BytesIO(response.body)) as archive:
            assert {entry.compress_type for entry in archive.infolist()} == {zipfile.ZIP_STORED}
            assert {entry.flag_bits & 8 for entry in archive.infolist()} == {0}

    def test_a_list_without_checksums(self, server: Server) -> None:
        response = server.get(listed(lines(("/a.txt", "a"), ("/b.bin", "b"), crc=False)))
        assert response.header("content-length") == str(len(response.body))
        assert response.header("accept-ranges") is None
        assert unzipped(response) == {"a": FILES["/a.txt"], "b": FILES["/b.bin"]}

    def test_a_json_list(self, server: Server) -> None:
        manifest = {"name": "named.zip", "members": [{"name": "x", "path": "/a.txt"}, {"name": "d/"}]}
        for headers in ((), ("Content-Type:application/json",)):
            response = server.get(listed(json.dumps(manifest).encode(), *headers))
            assert "named.zip" in (response.header("content-disposition") or "")
            assert unzipped(response) == {"x": FILES["/a.txt"], "d/": b""}

    @pytest.mark.parametrize("format", ["tar", "tar.gz"])
    def test_a_list_may_ask_for_tar(self, server: Server, format: str) -> None:
        response = server.get(listed(**{"as": format}))
        assert f"list.{format}" in (response.header("content-disposition") or "")
        with tarfile.open(fileobj=io.BytesIO(response.body)) as archive:
            assert archive.getnames() == ["one/a.txt", "b.bin", "empty"]

    def test_names_in_a_charset(self, server: Server) -> None:
        data = FILES["/a.txt"]
        body = f"{zlib.crc32(data):08x} {len(data)} /a.txt native|caf\u00e9".encode()
        assert list(unzipped(server.get(listed(body, "X-Archive-Name-Sep:|")))) == ["caf\u00e9"]

    def test_the_lists_own_headers(self, server: Server) -> None:
        response = server.get(
            listed(
                None,
                "Set-Cookie:a=1",
                "Set-Cookie:b=2",
                "Content-Disposition:attachment; filename=own.zip",
                "Content-Type:text/plain",
                "Last-Modified:" + MODIFIED,
                'ETag:"list"',
                "Content-MD5:x",
                "X-Archive-Pass-Headers:Cookie",
                "X-Own:kept",
            )
        )
        assert [value for name, value in response.headers if name.lower() == "set-cookie"] == ["a=1", "b=2"]
        assert response.header("content-disposition") == "attachment; filename=own.zip"
        assert [value for name, value in response.headers if name.lower() == "content-type"] == ["application/zip"]
        assert response.header("last-modified") == MODIFIED
        assert response.header("x-own") == "kept"
        assert response.header("content-md5") is None
        assert not any(name.lower().startswith("x-archive") for name, _ in response.headers)
        other = server.get(listed(None, 'ETag:"another"'))
        assert response.header("etag") not in (None, '"list"', other.header("etag"))

    def test_members_of_a_list_get_only_the_headers_it_names(self, server: Server) -> None:
        headers = {"Cookie": "session=s3cret", "X-Token": "t", "Range": "bytes=0-99999"}
        body = b"- 6 /secret s"
        assert failing(server.get(listed(body), headers)) == ["s"]
        assert unzipped(server.get(listed(body, "X-Archive-Pass-Headers:cookie"), {"Cookie": "session=s3cret"}))
        asked(server)
        server.get(listed(None, "X-Archive-Pass-Headers:X-TOKEN:Range:Host:If-Match"), headers)
        seen = [entry["headers"] for entry in asked(server) if entry["path"] == "/a.txt"]
        assert seen
        assert all(
            entry["x-token"] == "t" and "cookie" not in entry and entry.get("range") != "bytes=0-99999"
            for entry in seen
        )

    def test_a_list_of_checksums_can_be_resumed(self, server: Server) -> None:
        whole = server.get(listed())
        tag = whole.header("etag") or ""
        assert whole.header("accept-ranges") == "bytes"
        part = server.get(listed(), {"Range": "bytes=100000-", "If-Range": tag})
        assert (part.status, part.body) == (206, whole.body[100000:])
        assert server.get(listed(), {"Range": "bytes=0-9", "If-Range": '"x"'}).status == 200
        assert server.get(listed(), {"If-None-Match": tag}).status == 304
        beyond = server.get(listed(), {"Range": f"bytes={len(whole.body)}-"})
        assert (beyond.status, beyond.header("content-range")) == (416, f"bytes */{len(whole.body)}")

    def test_head_of_a_list(self, server: Server) -> None:
        get, head = server.get(listed()), server.request("HEAD", listed())
        assert (head.status, head.body) == (200, b"")
        for name in ("content-type", "content-length", "etag", "accept-ranges"):
            assert head.header(name) == get.header(name)

    @pytest.mark.parametrize(
        "headers",
        [
            {"Range": "bytes=3-9"},
            {"Range": "bytes=100000-100009"},
            {"If-None-Match": f'"{zlib.crc32(lines(("/a.txt", "a.txt"), ("/b.bin", "b.bin"))):08x}"'},
            {"Accept-Encoding": "gzip"},
        ],
    )
    def test_a_list_that_is_not_whole_is_asked_for_once_more(self, server: Server, headers: dict[str, str]) -> None:
        whole = server.get("/fussy-list")
        asked(server)
        response = server.get("/fussy-list", headers)
        requests = [entry["headers"] for entry in asked(server) if entry["path"] == "/fussy-list"]
        assert len(requests) == 2
        assert not {"range", "if-none-match", "accept-encoding"} & set(requests[1])
        if "Range" in headers:
            start, stop = headers["Range"][6:].split("-")
            assert (response.status, response.body) == (206, whole.body[int(start) : int(stop) + 1])
        else:
            assert unzipped(response) == {"a.txt": FILES["/a.txt"], "b.bin": FILES["/b.bin"]}

    def test_a_list_may_answer_a_post(self, server: Server) -> None:
        response = server.request("POST", "/list", {"Range": "bytes=0-5"}, lines(("/a.txt", "posted")))
        assert response.status == 200
        assert unzipped(response) == {"posted": FILES["/a.txt"]}

    @pytest.mark.parametrize("value", ["zipx", "ZIP", "rar", "tar.bz2", "7zip"])
    def test_an_unknown_format_passes(self, server: Server, value: str) -> None:
        response = server.get(listed(b"as it is", **{"as": value}))
        assert response.body == b"as it is"
        assert (response.header("x-archive-files") or "") == value

    @pytest.mark.parametrize("status", [201, 404, 416, 500])
    def test_other_statuses_pass(self, server: Server, status: int) -> None:
        response = server.get(listed(b"as it is", status=str(status)))
        assert (response.status, response.body) == (status, b"as it is")

    @pytest.mark.parametrize("body", [b"no list", b"{", b"- 9 /bundle?path=/a.txt x", b"0 0 /a.txt ../../etc/x"])
    def test_a_bad_list_is_the_sites_fault(self, server: Server, body: bytes) -> None:
        response = server.get(listed(body))
        assert response.status == 500
        assert failing(response) == []

    def test_a_list_that_is_too_long_is_the_sites_fault(self, server: Server) -> None:
        assert server.request("POST", "/list", None, b"x" * 200_000).status == 500

    def test_a_list_may_not_name_any_server(self, server: Server) -> None:
        response = server.get(listed(b"- 9 http://127.0.0.1:9/x x"))
        assert response.status == 403

    def test_a_member_that_is_a_list_is_taken_as_it_is(self, server: Server) -> None:
        body = lines(("/a.txt", "inner"))
        response = server.get(listed(f"- {len(body)} /list?body={quote(body.decode())} the-list".encode()))
        assert unzipped(response) == {"the-list": body}
        assert next(iter(unzipped(server.get(bundle("/list"))))) == "list"

    # --- what is none of its business ---

    def test_other_pages_pass(self, server: Server) -> None:
        page = server.get("/page")
        assert (page.status, page.body) == (200, b"page")
        assert [value for name, value in page.headers if name.lower() == "set-cookie"] == ["a=1", "b=2"]
        part = server.get("/a.txt", {"Range": "bytes=4-8"})
        assert (part.status, part.body) == (206, b"first")
        assert server.get("/big").body == BIG
        assert server.request("HEAD", "/big").header("content-length") == str(len(BIG))

    # --- leaving ---

    @pytest.mark.case(27)
    @pytest.mark.parametrize("path", [bundle("/a.txt", "/endless"), listed(b"- 1099511627776 /endless e")])
    def test_a_client_that_leaves_ends_the_member(self, server: Server, path: str) -> None:
        asked(server)
        connection = server.connect()
        connection.request("GET", path)
        response = connection.getresponse()
        assert len(response.read(300_000)) == 300_000
        response.close()
        connection.close()
        left = until(lambda: any(e["path"] == "/endless" for e in asked(server, "closed")), 5)
        assert left < 1.5
