"""What a sub-request asks for, and what it takes along."""

from __future__ import annotations

from urllib.parse import quote, unquote, unquote_to_bytes

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from streamware.errors import InvalidTarget, StreamwareError
from streamware.target import Target, carried, name_of, parse_href, stands_under, without_conditions


@pytest.mark.parametrize(
    ("href", "path", "raw_path", "query"),
    [
        ("/", "/", b"/", ""),
        ("/a.txt", "/a.txt", b"/a.txt", ""),
        ("/dir/", "/dir/", b"/dir/", ""),
        ("/a b.txt", "/a b.txt", b"/a%20b.txt", ""),
        ("/a%20b.txt", "/a b.txt", b"/a%20b.txt", ""),
        ("/a+b.txt", "/a+b.txt", b"/a+b.txt", ""),
        ("/日本.txt", "/日本.txt", b"/%E6%97%A5%E6%9C%AC.txt", ""),
        ("/%E6%97%A5%E6%9C%AC.txt", "/日本.txt", b"/%E6%97%A5%E6%9C%AC.txt", ""),
        ("/a%2Fb", "/a/b", b"/a%2Fb", ""),
        ("/a%2fb", "/a/b", b"/a%2fb", ""),
        ("/a%3Fb%23c", "/a?b#c", b"/a%3Fb%23c", ""),
        ("/a%5Cb", "/a\\b", b"/a%5Cb", ""),
        ("/100%", "/100%", b"/100%25", ""),
        ("/100%.txt", "/100%.txt", b"/100%25.txt", ""),
        ("/%zz", "/%zz", b"/%25zz", ""),
        ("/%252e", "/%2e", b"/%252e", ""),
        ("/%FF", "/\ufffd", b"/%FF", ""),
        ("/a:b@c!$&'()*,;=~", "/a:b@c!$&'()*,;=~", b"/a:b@c!$&'()*,;=~", ""),
        ('/a"<>[]^`{|}', '/a"<>[]^`{|}', b"/a%22%3C%3E%5B%5D%5E%60%7B%7C%7D", ""),
        ("/a?x=1&y=%20+2", "/a", b"/a", "x=1&y=%20+2"),
        ("/a?x=a b&é", "/a", b"/a", "x=a%20b&%C3%A9"),
        ("/a?x=http://h/?y", "/a", b"/a", "x=http://h/?y"),
        ("/a?100%", "/a", b"/a", "100%25"),
        ("/a?", "/a", b"/a", ""),
        ("/a#part", "/a", b"/a", ""),
        ("/a?x#part?y", "/a", b"/a", "x"),
        ("/a#part?x", "/a", b"/a", ""),
        # RFC 3986 section 5.2.4
        ("/a/b/c/./../../g", "/a/g", b"/a/g", ""),
        ("/./a", "/a", b"/a", ""),
        ("/../a", "/a", b"/a", ""),
        ("/../../../a", "/a", b"/a", ""),
        ("/a/..", "/", b"/", ""),
        ("/a/b/..", "/a/", b"/a/", ""),
        ("/a/.", "/a/", b"/a/", ""),
        ("/..", "/", b"/", ""),
        ("/a/%2e%2E/b", "/b", b"/b", ""),
        ("/a/.%2e/b", "/b", b"/b", ""),
        ("/a/%2e/b", "/a/b", b"/a/b", ""),
        ("/a//b", "/a//b", b"/a//b", ""),
        ("/a//../b", "/a/b", b"/a/b", ""),
        ("/a/.../b", "/a/.../b", b"/a/.../b", ""),
        ("/a/..b/.c", "/a/..b/.c", b"/a/..b/.c", ""),
        ("/a?../b", "/a", b"/a", "../b"),
    ],
)
def test_hrefs(href: str, path: str, raw_path: bytes, query: str) -> None:
    assert parse_href(href) == Target(path, raw_path, query)


@pytest.mark.parametrize(
    "href",
    [
        "",
        "a",
        "a/b",
        "../a",
        "?a",
        "#a",
        " /a",
        "%2Fa",
        "http://example.test/a",
        "HTTP:/a",
        "file:///etc/passwd",
        "javascript:alert(1)",
        "//example.test/a",
        "///a",
        "/..//example.test/a",
        "/.//example.test/a",
        "/a/..//example.test/a",
        "/%2Fexample.test/a",
        "/%2e%2e/%2Fexample.test/a",
        "/\\example.test/a",
        "\\a",
        "/a\\..\\b",
        "/a\r\nX: y",
        "/a\0",
        "/a\tb",
        "/a\x7f",
        "/a?x=\n",
        "/a#\n",
        "/a%00",
        "/a%0d%0aX:%20y",
        "/a%7F",
        "/a%2F..%2Fb",
        "/..%2fb",
        "/a/%2e%2e%2f",
        "/a%2f.",
        "/\ud800",
        "/a?\udfff",
        "/" + "a" * 8192,
    ],
)
def test_what_cannot_be_asked_for(href: str) -> None:
    for read in (parse_href, name_of):
        with pytest.raises(InvalidTarget) as caught:
            read(href)
        assert caught.value.detail


HREFS = st.one_of(
    st.text(max_size=40),
    st.text(alphabet="/.%2eEfF5cC\\?#a~ é", max_size=40).map(lambda text: "/" + text),
)


@given(HREFS)
@example("/%2e%2e%2e/")
def test_what_is_let_through_means_one_thing(href: str) -> None:
    try:
        target = parse_href(href)
    except StreamwareError:
        return
    path, raw_path, query = target
    assert path.startswith("/")
    assert not path.startswith("//")
    assert not {".", ".."} & set(path.split("/"))
    assert raw_path.isascii()
    assert query.isascii()
    assert not any(c <= 0x20 or c in b'?#\\"<>\x7f' for c in raw_path)
    assert unquote(raw_path.decode()) == path
    assert unquote_to_bytes(raw_path).decode("utf-8", "replace") == path
    # read again, it is what it was
    again = raw_path.decode() + (f"?{query}" if query else "")
    assert parse_href(again) == target


@given(st.text(alphabet=st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=30))
def test_any_file_name_can_be_asked_for_when_it_is_quoted(name: str) -> None:
    if name in (".", "..") or "/" in name:
        return
    assert parse_href("/dir/" + quote(name, safe="")).path == "/dir/" + name
    assert name_of("/dir/" + quote(name, safe="")) == "dir/" + name


@pytest.mark.parametrize(
    ("href", "name"),
    [
        ("/a.txt", "a.txt"),
        ("/dir/b.bin", "dir/b.bin"),
        ("/dir/b.bin?v=2#x", "dir/b.bin"),
        ("/dir/", "dir"),
        ("/dir//", "dir"),
        ("/a//b", "a/b"),
        ("/", "index"),
        ("/?all", "index"),
        ("/..", "index"),
        ("/a/../b%20c%2Fd", "b c/d"),
    ],
)
def test_default_names(href: str, name: str) -> None:
    assert name_of(href) == name


@pytest.mark.parametrize(
    "path",
    [
        "/bundle",
        "/bundle/",
        "/bundle/links",
        "/bundle/links/x",
        "//bundle",
        "/bundle//links",
        "/./bundle",
        "/x/../bundle",
        "/../bundle",
        "/bundle/.",
        "/bundle/x/..",
        "/%62undle",
        "/%2562undle",
        "/x/%2e%2e/bundle",
        "/x%2f..%2fbundle",
        "/x/%252e%252e/bundle",
        "/bundle%2flinks",
        "/x\\..\\bundle",
        "/x/..%5cbundle",
        "bundle",
    ],
)
@pytest.mark.parametrize("bundle_path", ["/bundle", "/bundle/", "//bundle", "/./bundle"])
def test_bundles_of_bundles_are_seen(path: str, bundle_path: str) -> None:
    assert stands_under(path, bundle_path)


@pytest.mark.parametrize(
    "path", ["/", "", "/bundles", "/bundle.txt", "/x/bundle", "/Bundle", "/bundle/../x", "/bundle2/bundle", "/bund/le"]
)
def test_other_paths_are_no_bundles(path: str) -> None:
    assert not stands_under(path, "/bundle")


def test_below_a_deeper_bundle_path() -> None:
    assert stands_under("/api/v1/bundle/x", "/api/v1/bundle")
    assert not stands_under("/api/v1", "/api/v1/bundle")
    assert stands_under("/anything", "/")


OUTER = [
    ("Host", "a.test"),
    ("Cookie", "a=1"),
    ("cookie", "b=2"),
    ("AUTHORIZATION", "Bearer x"),
    ("User-Agent", "test"),
    ("X-Forwarded-For", "10.0.0.1"),
    ("X-Forwarded-Proto", "https"),
    ("X-Real-IP", "10.0.0.1"),
    ("Accept-Language", "de"),
    ("Accept-Encoding", "gzip"),
    ("Accept", "text/html"),
    ("Range", "bytes=0-1"),
    ("If-Range", '"a"'),
    ("If-None-Match", '"a"'),
    ("If-Modified-Since", "x"),
    ("If-Match", '"a"'),
    ("If-Unmodified-Since", "x"),
    ("Content-Length", "5"),
    ("Content-Type", "application/json"),
    ("Content-Encoding", "gzip"),
    ("Transfer-Encoding", "chunked"),
    ("Connection", "keep-alive, Cookie"),
    ("Keep-Alive", "5"),
    ("Proxy-Authorization", "Basic x"),
    ("TE", "trailers"),
    ("Trailer", "x"),
    ("Upgrade", "h2c"),
    ("Expect", "100-continue"),
    ("X-Auth-Token", "t"),
]
NEVER = {
    name.lower()
    for name, _ in OUTER
    if name.lower().startswith(("if-", "content-"))
    or name.lower()
    in {"host", "range", "accept-encoding", "transfer-encoding", "connection", "keep-alive", "te", "trailer", "upgrade"}
    | {"proxy-authorization", "expect"}
}


def test_credentials_and_context_are_carried() -> None:
    assert [name.lower() for name, _ in carried(OUTER, None)] == [
        "cookie",
        "cookie",
        "authorization",
        "user-agent",
        "x-forwarded-for",
        "x-forwarded-proto",
        "x-real-ip",
        "accept-language",
    ]


def test_a_list_of_names_is_all_that_is_carried() -> None:
    assert carried(OUTER, frozenset()) == []
    assert carried(OUTER, frozenset({"x-auth-token", "Cookie"})) == [
        ("Cookie", "a=1"),
        ("cookie", "b=2"),
        ("X-Auth-Token", "t"),
    ]


def test_some_headers_are_never_carried() -> None:
    everything = frozenset(name for name, _ in OUTER)
    assert {name.lower() for name, _ in carried(OUTER, everything)} == {name.lower() for name in everything} - NEVER


def test_asking_again_without_conditions() -> None:
    kept = {name.lower() for name, _ in without_conditions(OUTER)}
    assert {"cookie", "host", "authorization", "accept", "x-auth-token"} <= kept
    assert not kept & {"range", "accept-encoding", "transfer-encoding", "expect"}
    assert not any(name.startswith(("if-", "content-")) for name in kept)
