"""Requests for parts, hostile and odd, of archives whose members an app answers: through real servers, WSGI and ASGI.

The rule of this file: an answer is held against the whole archive, and what the app was asked against its diary.
"""

from __future__ import annotations

import email.parser
import email.policy
import json
import random
import re
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from email.utils import formatdate, parsedate_to_datetime
from itertools import pairwise
from urllib.parse import urlencode

import pytest

from streamware import Archiver, Policy
from streamware.middleware import AsyncBundleMiddleware, BundleMiddleware
from tests.hosts.inner_site import FILES, asgi_site, wsgi_site
from tests.hosts.servers import Response, Server, uvicorn, wsgiref_server

application = AsyncBundleMiddleware(asgi_site)

PATHS = ("/a.txt", "/b.bin")
BUNDLE = "/bundle?" + urlencode([("path", path) for path in PATHS])
MAX_RANGES = 16
PART_HEAD = 200  # bytes; boundary, type and place of one part


@dataclass
class Site:
    server: Server
    whole: Response

    @property
    def length(self) -> int:
        return len(self.whole.body)

    @property
    def etag(self) -> str:
        return self.whole.header("etag") or ""

    def ask(self, **headers: str) -> Response:
        return self.server.get(BUNDLE, {name.replace("_", "-"): value for name, value in headers.items()})

    def fetched(self) -> dict[str, int]:
        """Bytes of each member that the app was asked for since this was last called."""
        found = dict.fromkeys(PATHS, 0)
        for entry in json.loads(self.server.get("/diary").body):
            if entry["what"] == "asked" and entry["path"] in found and entry["method"] == "GET":
                size = len(FILES[entry["path"]])
                part = re.fullmatch(r"bytes=([0-9]+)-([0-9]*)", entry["headers"].get("range", "bytes=0-"))
                assert part
                found[entry["path"]] += min(int(part[2] or size) + 1, size) - int(part[1])
        return found


@pytest.fixture(scope="module", params=["wsgi", "asgi"])
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    with ExitStack() as stack:
        if request.param == "wsgi":
            archiver = Archiver(Policy(allow_unframed=True))  # a member without a length, on a host that shows no break
            server = stack.enter_context(wsgiref_server(BundleMiddleware(wsgi_site, archiver=archiver)))
        else:
            server = stack.enter_context(uvicorn(f"{__name__}:application"))
        whole = server.get(BUNDLE)
        assert whole.status == 200
        assert whole.header("accept-ranges") == "bytes"
        assert whole.header("content-length") == str(len(whole.body))
        yield Site(server, whole)


def parts(response: Response) -> list[tuple[int, int, bytes]]:
    """What a 206 holds, as start, stop and bytes."""
    kind = response.header("content-type") or ""
    if not kind.startswith("multipart/byteranges"):
        place = re.fullmatch(r"bytes ([0-9]+)-([0-9]+)/[0-9]+", response.header("content-range") or "")
        assert place
        return [(int(place[1]), int(place[2]) + 1, response.body)]
    assert response.header("content-range") is None
    head = f"Content-Type: {kind}\r\n\r\n".encode()
    message = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(head + response.body)
    found = []
    for part in message.iter_parts():
        place = re.fullmatch(r"bytes ([0-9]+)-([0-9]+)/[0-9]+", str(part["content-range"]))
        assert place
        found.append((int(place[1]), int(place[2]) + 1, b""))
    return found


def flood(seed: int, count: int, length: int, most: int = 64_000) -> str:
    """Ranges as they come, of at most so many characters."""
    rng = random.Random(seed)
    listed = []
    while len(listed) < count and sum(map(len, listed)) + 2 * len(listed) < most:
        start = rng.randrange(length)
        listed.append(rng.choice([f"{start}-", f"-{start}", f"{start}-{rng.randrange(start, length)}"]))
    return "bytes=" + ",".join(listed)


def floods(length: int) -> dict[str, str]:
    return {
        "1000 wholes": "bytes=" + ",".join(["0-"] * 1000),
        "16 wholes": "bytes=" + ",".join(["0-"] * 16),
        "17 wholes": "bytes=" + ",".join(["0-"] * 17),
        "overlapping": "bytes=" + ",".join(f"{i * 1000}-" for i in range(16)),
        "nested": "bytes=" + ",".join(f"{i * 1000}-{length - 1 - i * 1000}" for i in range(16)),
        "unsorted": "bytes=200000-250000,5-10,100000-120000,0-7,240000-260000,-5",
        "backwards": "bytes=" + ",".join(f"{i * 15_000}-{i * 15_000 + 500}" for i in reversed(range(16))),
        "single bytes": "bytes=" + ",".join(f"{i * 2}-{i * 2}" for i in range(16)),
        "far bytes": "bytes=" + ",".join(f"{i * 16_000}-{i * 16_000}" for i in range(16)),
        "many at random": flood(1, 10_000, length),
        "64 KB of commas": "bytes=" + "," * 60_000 + "0-",
        "64 KB of one number": "bytes=0-" + "9" * 60_000,
        "64 KB of bytes": "bytes=" + ",".join(["0-0"] * 15_000),
        **{f"{count} at random, {seed}": flood(seed, count, length) for count in (2, 8, 16) for seed in range(3)},
    }


@pytest.mark.case(40)
@pytest.mark.parametrize("name", floods(1))
def test_a_flood_costs_no_more_than_the_whole(site: Site, name: str) -> None:
    """Bytes sent: the archive and the heads of the parts. Bytes fetched of a member: no more than it has."""
    asked = floods(site.length)[name]
    site.fetched()
    response = site.ask(Range=asked)
    assert response.status in (200, 206, 416)
    assert len(response.body) <= site.length + MAX_RANGES * PART_HEAD
    for path, fetched in site.fetched().items():
        assert fetched <= len(FILES[path])
    if response.status == 200:
        assert response.body == site.whole.body
        return
    assert response.status == 206
    spans = sorted((start, stop) for start, stop, _ in parts(response))
    assert 1 <= len(spans) <= MAX_RANGES
    assert all(before[1] <= after[0] for before, after in pairwise(spans))
    for start, stop in spans:
        assert site.whole.body[start:stop] in response.body


@pytest.mark.case(40)
def test_more_ranges_than_allowed_get_the_whole(site: Site) -> None:
    for count, status in ((MAX_RANGES, 206), (MAX_RANGES + 1, 200)):
        response = site.ask(Range="bytes=" + ",".join(f"{i * 1000}-{i * 1000}" for i in range(count)))
        assert response.status == status


@pytest.mark.case(42)
@pytest.mark.parametrize(
    ("asked", "status"),
    [
        ("bytes=-0", 416),
        ("bytes=N-", 416),
        ("bytes=N-N", 416),
        ("bytes=-0,N-", 416),
        ("bytes=18446744073709551616-", 416),
        ("bytes=18446744073709551616-18446744073709551617", 416),
        (f"bytes={'9' * 400}-", 416),
        ("bytes=5-2", 200),
        ("bytes=abc", 200),
        ("bytes=", 200),
        ("bytes", 200),
        ("bytes=,", 200),
        ("bytes=-", 200),
        ("bytes=--5", 200),
        ("bytes=1-2-3", 200),
        ("bytes=0x0-0x5", 200),
        ("bytes=+0-5", 200),
        ("bytes=0_0-5", 200),
        ("bytes=0.0-5", 200),
        ("bytes=\xb2-", 200),
        ("bytes=0-5;q=1", 200),
        ("bytes=0-5,abc", 200),
        ("items=0-5", 200),
        ("items=0-5, bytes=0-5", 200),
        ("bytes: 0-5", 200),
        ("bytes =0-5", 200),
        ("bytes=0 -5", 200),
        ("bytes=0- 5", 200),
        ("0-5", 200),
        ("bytes= 0-5", 206),
        ("bytes=0-5 ", 206),
        ("bytes=0-5 ,\t7-9", 206),
        ("Bytes=0-5", 206),
        ("bytes=0-0", 206),
        ("bytes=-1", 206),
        ("bytes=0-18446744073709551616", 206),
        ("bytes=-18446744073709551616", 206),
        ("bytes=0-5,N-", 206),
        ("bytes=000000000000000000000000000000-5", 206),
    ],
)
def test_a_range_that_is_odd(site: Site, asked: str, status: int) -> None:
    asked = asked.replace("N", str(site.length))
    response = site.ask(Range=asked)
    assert response.status == status
    if status == 200:
        assert response.body == site.whole.body
    elif status == 416:
        assert response.header("content-range") == f"bytes */{site.length}"
        assert json.loads(response.body)["type"] == "urn:streamware:problem:range-not-satisfiable"
    else:
        for start, stop, _ in parts(response):
            assert site.whole.body[start:stop] in response.body


@pytest.mark.case(41)
@pytest.mark.parametrize("path", ["/echo", "/unmeasured", "/no-head"])
def test_a_range_of_what_nothing_pins_is_the_whole(site: Site, path: str) -> None:
    """One member without a strong entity-tag is enough, or one without a length."""
    url = BUNDLE + "&" + urlencode({"path": path})
    for headers in ({}, {"Range": "bytes=0-5"}, {"Range": "bytes=5-", "If-Range": '"x"'}, {"Range": "bytes=99999999-"}):
        response = site.server.get(url, headers)
        assert response.status == 200
        assert response.header("accept-ranges") is None
        if path != "/unmeasured":  # which has a tag, and no length
            assert (response.header("etag") or "W/").startswith("W/")
        assert response.body[:4] == b"PK\x03\x04"
        assert len(response.body) > site.length


@pytest.mark.case(43)
def test_conditions(site: Site) -> None:
    modified = site.whole.header("last-modified") or ""
    earlier = formatdate(parsedate_to_datetime(modified).timestamp() - 60, usegmt=True)
    part = {"Range": "bytes=1-5"}
    cases: list[tuple[dict[str, str], int]] = [
        ({**part, "If-Range": site.etag}, 206),
        ({**part, "If-Range": f"W/{site.etag}"}, 200),
        ({**part, "If-Range": '"other"'}, 200),
        ({**part, "If-Range": f'{site.etag}, "other"'}, 200),
        ({**part, "If-Range": "*"}, 200),
        ({**part, "If-Range": ""}, 200),
        ({**part, "If-Range": modified}, 206),
        ({**part, "If-Range": earlier}, 200),
        ({**part, "If-Range": "yesterday"}, 200),
        ({"Range": "bytes=99999999-", "If-Range": site.etag}, 416),
        ({"Range": "bytes=99999999-", "If-Range": '"other"'}, 200),
        ({"If-Match": '"other"'}, 412),
        ({"If-Match": f"W/{site.etag}"}, 412),
        ({"If-Match": site.etag}, 200),
        ({"If-Match": "*"}, 200),
        ({**part, "If-Match": '"other"'}, 412),
        ({**part, "If-Match": f'"other", {site.etag}'}, 206),
        ({"If-None-Match": site.etag}, 304),
        ({"If-None-Match": f'"other", W/{site.etag}'}, 304),
        ({"If-None-Match": "*"}, 304),
        ({"If-None-Match": '"other"'}, 200),
        ({**part, "If-None-Match": site.etag}, 304),
        ({**part, "If-None-Match": '"other"'}, 206),
        ({"If-Modified-Since": modified}, 304),
        ({"If-Modified-Since": earlier}, 200),
        ({"If-Unmodified-Since": modified}, 200),
        ({"If-Unmodified-Since": earlier}, 412),
        ({"If-Match": '"other"', "If-None-Match": site.etag}, 412),
    ]
    for headers, status in cases:
        response = site.server.get(BUNDLE, headers)
        assert response.status == status, headers
        if status == 206:
            assert response.body == site.whole.body[1:6]
        elif status == 200:
            assert response.body == site.whole.body
        elif status == 304:
            assert response.body == b""
            assert response.header("etag") == site.etag
        else:
            assert response.header("content-type") == "application/problem+json"


@pytest.mark.case(44)
def test_a_head_knows_no_ranges_and_fetches_nothing(site: Site) -> None:
    site.fetched()
    for headers in ({}, {"Range": "bytes=1-5"}, {"Range": "bytes=99999999-"}, {"Range": "bytes=abc"}):
        response = site.server.request("HEAD", BUNDLE, headers)
        assert (response.status, response.body) == (200, b"")
        assert response.header("content-length") == str(site.length)
        assert response.header("etag") == site.etag
    assert set(site.fetched().values()) == {0}


@pytest.mark.case(40, 41)
def test_a_post_knows_no_ranges(site: Site) -> None:
    body = json.dumps({"name": "x.zip", "members": [{"name": "a", "path": "/a.txt"}]}).encode()
    headers = {"Content-Type": "application/json", "Range": "bytes=0-5", "If-None-Match": "*"}
    response = site.server.request("POST", "/bundle", headers, body)
    assert response.status == 200
    assert response.body[:4] == b"PK\x03\x04"
    assert len(response.body) > 10_000
