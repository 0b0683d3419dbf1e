"""What the operator allows: limits, and the URLs a manifest may name."""

from __future__ import annotations

import dataclasses
import posixpath
import time
from typing import Any
from urllib.parse import unquote

import pytest
import urllib3.util
from hypothesis import given
from hypothesis import strategies as st

from streamware.errors import InvalidTarget, LimitExceeded, NotAllowed
from streamware.file_request import FileRequest
from streamware.model import Bundle, Data, Member, Url
from streamware.policy import Policy

LOGS = "http://10.0.0.7:8080/logs/"


def admitted(url: str, *allow: str) -> bool:
    try:
        Policy(allow=allow or (LOGS,)).admit_url(url)
    except (NotAllowed, InvalidTarget):
        return False
    return True


@pytest.mark.parametrize(
    "url",
    [
        LOGS,
        LOGS + "a.log",
        LOGS + "a/b/c.log?x=1",
        LOGS + "a.log?next=http://elsewhere.test/../",
        LOGS + "a.log#../../x",
        LOGS + "a%20b%2Bc.log",
        LOGS + "a..b/..c/d../...",
        LOGS + "%E6%97%A5.log",
        LOGS + "./a",
        LOGS + "/a",
        LOGS + "a;v=1",
        LOGS + "a@b:c",
        LOGS + "x" * 4000,
        "HTTP://10.0.0.7:8080/logs/a",
        "http://10.0.0.7:08080/logs/a",
    ],
)
def test_what_stands_under_a_prefix(url: str) -> None:
    assert admitted(url)


@pytest.mark.parametrize(
    "url",
    [
        "http://10.0.0.7:8080/logs",
        "http://10.0.0.7:8080/logsx/a",
        "http://10.0.0.7:8080/",
        "http://10.0.0.7:8080",
        "http://10.0.0.7:8080/LOGS/a",
        "http://10.0.0.7:8081/logs/a",
        "http://10.0.0.7/logs/a",
        "https://10.0.0.7:8080/logs/a",
        "ftp://10.0.0.7:8080/logs/a",
        "file:///logs/a",
        "//10.0.0.7:8080/logs/a",
        "/logs/a",
        "",
        # dots, in every spelling that some server undoes
        LOGS + "../x",
        LOGS + "..",
        LOGS + "a/../../x",
        LOGS + "a/../b",
        LOGS + "%2e%2e/x",
        LOGS + ".%2E/x",
        LOGS + "%2e%2e",
        LOGS + "..%2fx",
        LOGS + "a%2f..%2f..%2fx",
        LOGS + "%252e%252e/x",
        LOGS + "%252e%252e%252fx",
        LOGS + "..%5cx",
        LOGS + "%5c..%5cx",
        LOGS + "..;/x",
        LOGS + "..;a=b/x",
        LOGS + "..%3b/x",
        LOGS + "%2e%2e%3b/x",
        LOGS + "..%20/x",
        LOGS + "..%00/x",
        LOGS + "..%09/x",
        "http://10.0.0.7:8080/logs%2f../x",
        "http://10.0.0.7:8080/logs%2fa",
        "http://10.0.0.7:8080//logs/a",
        "http://10.0.0.7:8080/x/../logs/a",
        "http://10.0.0.7:8080\\logs\\a",
        # another host that looks like it
        "http://10.0.0.7:8080@elsewhere.test/logs/a",
        "http://elsewhere.test@10.0.0.7:8080/logs/a",
        "http://user:pass@10.0.0.7:8080/logs/a",
        "http://@10.0.0.7:8080/logs/a",
        "http://10.0.0.7:8080\\@elsewhere.test/logs/a",
        "http://elsewhere.test#@10.0.0.7:8080/logs/a",
        "http://elsewhere.test?@10.0.0.7:8080/logs/a",
        "http://elsewhere.test/http://10.0.0.7:8080/logs/a",
        "http://10.0.0.7.elsewhere.test:8080/logs/a",
        "http://10.0.0.7:8080.elsewhere.test/logs/a",
        "http://10.0.0.7:8080:80/logs/a",
        "http://10.0.0.7:/logs/a",
        "http://10.0.0.7:0/logs/a",
        "http://10.0.0.7:99999/logs/a",
        "http://10.0.0.7:-8080/logs/a",
        "http://10.0.0.7:8080 /logs/a",
        "http://10.0.0.7.:8080/logs/a",
        "http://167772167:8080/logs/a",
        "http://0xa.0.0.7:8080/logs/a",
        "http://10.7:8080/logs/a",
        "http://[::ffff:10.0.0.7]:8080/logs/a",
        "http://10.0.0.7%2eelsewhere.test:8080/logs/a",
        "http://\uff11\uff10.0.0.7:8080/logs/a",
        "http:/10.0.0.7:8080/logs/a",
        "http:10.0.0.7:8080/logs/a",
        "http:///10.0.0.7:8080/logs/a",
        # characters that parsers disagree about
        " " + LOGS + "a",
        LOGS + "a b",
        LOGS + "a\tb",
        LOGS + "a\r\nHost: x",
        LOGS + "a\0",
        LOGS + "é",
        LOGS + "a\\b",
        LOGS + "<a>",
        LOGS + "x" * 10_000,
    ],
)
def test_what_does_not_stand_under_a_prefix(url: str) -> None:
    assert not admitted(url)


@pytest.mark.parametrize(
    ("prefix", "url", "allowed"),
    [
        ("http://a.test", "http://a.test/x", True),
        ("http://a.test", "http://a.test", True),
        ("http://a.test/", "http://A.TEST:80/x", True),
        ("https://a.test:443/", "https://a.test/x", True),
        ("https://a.test/", "https://a.test:80/x", False),
        ("http://a.test/logs", "http://a.test/logs", True),
        ("http://a.test/logs", "http://a.test/logs/x", True),
        ("http://a.test/logs", "http://a.test/logs;x/y", False),
        ("http://a.test/logs", "http://a.test/logs2", False),
        ("http://a.test/my%20logs/", "http://a.test/my%20logs/x", True),
        ("http://[::1]:8080/", "http://[::1]:8080/x", True),
        ("http://[::1]/", "http://[::1]/x", True),
        ("http://[::1]/", "http://[::1].elsewhere.test/x", False),
        ("http://[::1]/", "http://[::1]elsewhere.test/x", False),
        ("http://[::1]/", "http://elsewhere.test[::1]/x", False),
        ("http://[::1]/", "http://[::1%25eth0]/x", False),
        ("http://[::1]/", "http://[::1]:/x", False),
        ("http://b/", "http://a[b]/x", False),
        ("http://b/", "http://[b]/x", False),
    ],
)
def test_prefixes(prefix: str, url: str, allowed: bool) -> None:
    assert admitted(url, prefix) is allowed


def test_nothing_is_allowed_by_default() -> None:
    with pytest.raises(NotAllowed):
        Policy().admit_url(LOGS + "a")


def test_one_prefix_may_stand_without_a_list() -> None:
    assert Policy(allow=LOGS).allow == (LOGS,)
    Policy(allow=LOGS).admit_url(LOGS + "a")


PIECES = st.sampled_from(
    [
        "..",
        ".",
        "/",
        "//",
        "%2e",
        "%2E%2e",
        "%2f",
        "%5c",
        "%25",
        "2e",
        ";",
        "a",
        "logs",
        "@",
        ":",
        "?",
        "#",
        "[",
        "]",
        "x.y",
    ]
)


@given(st.lists(PIECES, max_size=8).map("".join), st.sampled_from([LOGS, "http://10.0.0.7:8080", "http://10.0.0.7"]))
def test_the_client_library_reads_an_admitted_url_as_we_do(rest: str, start: str) -> None:
    url = start + rest
    if not admitted(url):
        return
    read = urllib3.util.parse_url(url)
    assert (read.scheme, read.host, read.port, read.auth) == ("http", "10.0.0.7", 8080, None)
    path = read.path or "/"
    for _ in range(3):
        assert path.startswith("/logs/")
        # as a server would that cuts parameters off and resolves dots
        plain = "/".join(part.partition(";")[0] for part in path.replace("\\", "/").split("/"))
        assert (posixpath.normpath(plain) + "/").startswith("/logs/")
        path = unquote(path)


@given(st.text(max_size=60), st.sampled_from(["", "http://", "http://10.0.0.7:8080", LOGS]))
def test_any_text_is_admitted_or_refused(text: str, start: str) -> None:
    admitted(start + text)


def test_hostile_urls_cost_little() -> None:
    started = time.perf_counter()
    for text in ("a/" * 4_000_000, "%25" * 3_000_000, "../" * 3_000_000, "x" * 8_000_000, "[" * 1_000_000):
        assert not admitted(LOGS + text)
    assert time.perf_counter() - started < 1


def test_a_bundle_is_admitted_url_by_url() -> None:
    policy = Policy(allow=LOGS, max_members=3)
    bundle = Bundle()
    bundle.add_url("http://trusted.test/a")
    bundle.add_data("b", b"")
    bundle.add(Member("c", Url(LOGS + "c", mirrors=(LOGS + "d",))))
    policy.admit(bundle)
    bundle.members[2] = Member("c", Url(LOGS + "c", mirrors=(LOGS + "d", "http://elsewhere.test/d")))
    with pytest.raises(NotAllowed) as refused:
        policy.admit(bundle)
    assert (refused.value.member, refused.value.index) == ("c", 2)
    bundle.members[1] = Member("b", Url("http://"))
    with pytest.raises(InvalidTarget) as invalid:
        policy.admit(bundle)
    assert (invalid.value.member, invalid.value.index) == ("b", 1)
    bundle.members = [Member(str(i), Data(b"")) for i in range(4)]
    with pytest.raises(LimitExceeded):
        policy.admit(bundle)


def test_redirects_follow_whose_url_it_is() -> None:
    policy = Policy(max_redirects_manifest=1, max_redirects_code=2)
    assert policy.redirects(Url(LOGS)) == 1
    assert policy.redirects(Url(LOGS, trusted=True)) == 2


@pytest.mark.parametrize(
    "allow",
    [
        "",
        "10.0.0.7",
        "10.0.0.7:8080/logs/",
        "ftp://a.test/",
        "http://",
        "http://user@a.test/",
        "http://a.test/x?y",
        "http://a.test/x#y",
        "http://a.test/a b",
        "http://a.test/../",
        "http://a.test/a/../b/",
        "http://a.test/%2e%2e/",
        "http://*.a.test/",
        "http://a.test:0/",
    ],
)
def test_a_prefix_that_cannot_work_is_refused_at_once(allow: str) -> None:
    with pytest.raises(ValueError, match="allow"):
        Policy(allow=(allow,))


@pytest.mark.parametrize("name", [f.name for f in dataclasses.fields(Policy) if f.type in ("int", "float")])
def test_limits_are_positive(name: str) -> None:
    for value in (-1, float("nan"), float("-inf")):
        with pytest.raises(ValueError, match=name):
            Policy(**{name: value})
    if "redirects" in name or name == "held_members":
        Policy(**{name: 0})
    else:
        with pytest.raises(ValueError, match=name):
            Policy(**{name: 0})


def test_names_are_clean_or_strict() -> None:
    assert Policy(names="clean").names == "clean"
    with pytest.raises(ValueError, match="names"):
        Policy(names="loose")  # type: ignore[arg-type]


async def asked_later(action: str, request: FileRequest) -> bool:
    return True


class AskedLater:
    async def __call__(self, action: str, request: FileRequest) -> bool:
        return True


@pytest.mark.parametrize("hook", ["alice", "", True, 0, ["alice"], asked_later, AskedLater()])
def test_who_is_asked_for_authorization_is_a_plain_function(hook: Any) -> None:
    with pytest.raises(ValueError, match="authorize"):
        Policy(authorize=hook)


def test_a_policy_is_a_value() -> None:
    policy = Policy(allow=LOGS)
    assert policy == Policy(allow=[LOGS])
    assert hash(policy) == hash(Policy(allow=LOGS))
    stricter = dataclasses.replace(policy, max_members=1)
    assert (stricter.max_members, stricter.allow) == (1, (LOGS,))
    stricter.admit_url(LOGS + "a")
    with pytest.raises(dataclasses.FrozenInstanceError):
        policy.max_members = 5  # type: ignore[misc]
