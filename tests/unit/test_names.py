"""Names that are safe to extract, one by one and together."""

from __future__ import annotations

import re
import time
import unicodedata

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from streamware.errors import InvalidName, LimitExceeded
from streamware.formats import names
from streamware.formats.names import Unique, clean

ORDINARY = [
    "a",
    "report.txt",
    "logs/host-17/app.log.1",
    "dir/",
    "deep/er/dir/",
    ".bashrc",
    "..rc",
    "a..b",
    "...x",
    "with space/and (1).txt",
    "12:30:01 app.log",
    "a*b?c\"d<e>f|g'h",
    "~tmp#[x]{y}%20&=+,;@!$^`",
    "console.log",
    "config.json",
    "auxiliary",
    "null",
    "COM10",
    "COM",
    "lpt",
    "con-1.txt",
    "x.con",
    "CLOCK$",
    "日本語/ファイル.txt",
    "é.txt",
    "👩‍👩‍👧.png",
    "مرحبا\u200f.txt",
    "x" * 255,
    "é" * 127,
    "x" * 255 + "/" + "y" * 255,
]

# name, what it becomes, what the refusal says
REWRITTEN = [
    ("/etc/passwd", "etc/passwd", "starts with a slash"),
    ("//server/share", "server/share", "starts with a slash"),
    ("../../a", "a", "'..'"),
    ("a/../b", "a/b", "'..'"),
    ("a/./b", "a/b", "'.'"),
    ("a//b", "a/b", "an empty part"),
    ("dir//", "dir/", "an empty part"),
    ("./", "_/", "'.'"),
    ("..", "_", "'..'"),
    ("/", "_/", "starts with a slash"),
    ("", "_", "is empty"),
    ("..\\..\\a", ".._.._a", "a backslash"),
    ("a\\", "a_", "a backslash"),
    ("C:\\x", "C__x", "a backslash"),
    ("C:/x", "C_/x", "a drive letter"),
    ("C:x", "C_x", "a drive letter"),
    ("a/d:", "a/d_", "a drive letter"),
    ("a\r\nb", "a__b", "a control character"),
    ("a\0b", "a_b", "a control character"),
    ("a\x7f\x85b", "a__b", "a control character"),
    ("a\u2028b", "a_b", "a control character"),
    ("\ud800x\udfff", "_x_", "half of a surrogate pair"),
    ("photo\u202egpj.exe", "photo_gpj.exe", "the direction of the text"),
    ("\u2066a\u2069", "_a_", "the direction of the text"),
    ("a.", "a_", "ends with a dot or a space"),
    ("a. .", "a___", "ends with a dot or a space"),
    ("...", "___", "ends with a dot or a space"),
    ("a /b", "a_/b", "ends with a dot or a space"),
    ("a./", "a_/", "ends with a dot or a space"),
    ("CON", "_CON", "Windows"),
    ("con.txt", "_con.txt", "Windows"),
    ("x/Nul.tar.gz", "x/_Nul.tar.gz", "Windows"),
    ("aux/x", "_aux/x", "Windows"),
    ("prn .c", "_prn .c", "Windows"),
    ("nul:x", "_nul:x", "Windows"),
    ("COM0", "_COM0", "Windows"),
    ("lpt9.x", "_lpt9.x", "Windows"),
    ("com\u00b9", "_com\u00b9", "Windows"),
    ("LPT\u00b3.x", "_LPT\u00b3.x", "Windows"),
    ("conin$", "_conin$", "Windows"),
    ("CONOUT$.txt", "_CONOUT$.txt", "Windows"),
    ("x" * 256, "x" * 255, "longer than 255"),
    ("x" * 300 + ".tar.gz", "x" * 248 + ".tar.gz", "longer than 255"),
    ("é" * 200 + ".txt", "é" * 125 + ".txt", "longer than 255"),
    ("x" * 300 + ".no extension", "x" * 255, "longer than 255"),
    ("x" * 254 + ". y", "x" * 254 + "_", "longer than 255"),
    ("x" * 300 + "/", "x" * 255 + "/", "longer than 255"),
    ("a" + "\u0300" * 40, "\u00e0" + "\u0300" * 29, "combining marks"),
]

# Pieces that make trouble, and enough plain text between them.
PARTS = st.one_of(
    st.sampled_from(
        ["/", "/", ".", "..", " ", "\\", ":", "C:", "CON", "nul.", "com1", "\0", "\n", "e\u0301", "\u202e", "\ud83d"]
    ),
    st.text(max_size=6),
    st.sampled_from(["x" * 130, "é" * 100, "\u0301" * 25, ".tar.gz", "\uac00", "\u1100\u1161\u11a8"]),
)
NAMES = st.lists(PARTS, max_size=10).map("".join)


def assert_safe(name: str, max_bytes: int) -> None:
    raw = name.encode()  # no surrogates
    assert len(raw) <= max_bytes
    assert unicodedata.is_normalized("NFC", name)
    assert "\\" not in name
    assert not re.search(r"[\u202a-\u202e\u2066-\u2069]", name)
    assert not any(unicodedata.category(c) in ("Cc", "Zl", "Zp") for c in name)
    components = name.removesuffix("/").split("/")
    for component in components:
        assert component not in ("", ".", "..")
        assert len(component.encode()) <= 255
        assert component[-1] not in ". "
        assert not re.match(r"[A-Za-z]:", component)
        device = re.split(r"[.:]", component)[0].rstrip(" ").upper()
        assert device not in ("CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$")
        assert not re.fullmatch("(COM|LPT)[0-9¹²³]", device)


class TestClean:
    @pytest.mark.parametrize("name", ORDINARY)
    @pytest.mark.parametrize("strict", [False, True])
    def test_an_ordinary_name_stays_as_it_is(self, name: str, strict: bool) -> None:
        assert clean(name, strict=strict, max_bytes=1024, max_depth=10**6) == name

    @pytest.mark.case(36)
    @pytest.mark.parametrize(("name", "result", "reason"), REWRITTEN)
    def test_an_unsafe_name_is_rewritten_or_refused(self, name: str, result: str, reason: str) -> None:
        assert clean(name, strict=False, max_bytes=1024, max_depth=10**6) == result
        assert_safe(result, 1024)
        with pytest.raises(InvalidName, match=re.escape(reason)) as caught:
            clean(name, strict=True, max_bytes=1024, max_depth=10**6)
        assert caught.value.detail_is_public
        assert caught.value.member is not None
        caught.value.member.encode()

    @pytest.mark.parametrize("strict", [False, True])
    def test_both_write_the_composed_form(self, strict: bool) -> None:
        assert clean("e\u0301/\u1100\u1161\u11a8", strict=strict, max_bytes=1024, max_depth=10**6) == "é/각"

    @pytest.mark.parametrize("strict", [False, True])
    def test_too_long_is_refused_either_way(self, strict: bool) -> None:
        name = "d/" * 20 + "éé"
        assert clean(name, strict=strict, max_bytes=44, max_depth=10**6) == name
        for most in (43, 20, 4):
            with pytest.raises(InvalidName, match=f"longer than {most} bytes"):
                clean(name, strict=strict, max_bytes=most, max_depth=10**6)

    def test_length_counts_after_the_rewrite(self) -> None:
        assert clean("../../abcd", strict=False, max_bytes=5, max_depth=10**6) == "abcd"
        assert clean("e\u0301" * 5, strict=False, max_bytes=10, max_depth=10**6) == "é" * 5

    @settings(max_examples=400)
    @given(NAMES)
    @example("a" + "\u0301" * 60 + "\u0327" * 60)
    @example("\u0f73" * 300)
    @example("x" * 250 + ".\u0301\u00e9\u00e9\u00e9")
    @example("\x00\u0301")
    def test_what_comes_out_is_safe_and_stays(self, name: str) -> None:
        try:
            result = clean(name, strict=False, max_bytes=400, max_depth=10**6)
        except InvalidName as error:
            reason, result = error.detail, ""
        if not result:
            assert reason == "the name is longer than 400 bytes"
            return
        assert_safe(result, 400)
        assert clean(result, strict=True, max_bytes=400, max_depth=10**6) == result
        assert name.endswith("/") == result.endswith("/")
        try:
            assert (
                clean(name, strict=True, max_bytes=400, max_depth=10**6) == unicodedata.normalize("NFC", name) == result
            )
        except InvalidName:
            assert result != unicodedata.normalize("NFC", name)

    @pytest.mark.parametrize(
        "name",
        [
            "a" + "\u0301" * 10_000 + "\u0327" * 10_000,
            "\u0f73" * 20_000,
            "." * 10_000 + "x" + "." * 10_000,
            "con" + " " * 20_000 + "x",
            "x/" * 10_000 + ".",
            "x. " * 6_000 + "/.",
            "\\" * 20_000,
        ],
        ids=["marks", "signs", "dots", "device", "deep", "ends", "backslashes"],
    )
    def test_a_name_made_to_be_slow_is_not(self, name: str) -> None:
        began = time.perf_counter()
        clean(name, strict=False, max_bytes=20_000, max_depth=10**6)
        assert time.perf_counter() - began < 0.5  # at most 0.01 s; what is quadratic takes seconds
        with pytest.raises(InvalidName):
            clean(name, strict=False, max_bytes=1024, max_depth=10**6)
        assert time.perf_counter() - began < 0.5


def taken(*wanted: str) -> list[str]:
    unique = Unique("rename")
    return [unique.take(name) for name in wanted]


class TestUnique:
    @pytest.mark.parametrize(
        ("wanted", "given_"),
        [
            (["a.txt", "b.txt", "d/a.txt"], ["a.txt", "b.txt", "d/a.txt"]),
            (["a.txt", "a.txt", "a.txt"], ["a.txt", "a (1).txt", "a (2).txt"]),
            (["a.txt", "A.TXT"], ["a.txt", "A (1).TXT"]),
            (["straße", "STRASSE"], ["straße", "STRASSE (1)"]),
            (["\u0390", "\u03aa\u0301"], ["\u0390", "\u03aa\u0301 (1)"]),
            (["a.txt", "a (1).txt", "a.txt"], ["a.txt", "a (1).txt", "a (2).txt"]),
            (["a (1)", "a", "a"], ["a (1)", "a", "a (2)"]),
            (["x.tar.gz", "x.tar.gz"], ["x.tar.gz", "x (1).tar.gz"]),
            (["x.TAR.zst", "x.TAR.zst"], ["x.TAR.zst", "x (1).TAR.zst"]),
            ([".bashrc", ".bashrc"], [".bashrc", ".bashrc (1)"]),
            ([".tar.gz", ".tar.gz"], [".tar.gz", ".tar (1).gz"]),
            (["1. A title", "1. A title"], ["1. A title", "1. A title (1)"]),
            (["d.x/a", "d.x/a"], ["d.x/a", "d.x/a (1)"]),
            # A directory that is already there needs no second entry, but may have its first after what is in it.
            (["d/", "d/", "D/", "d/x"], ["d/", "", "", "d/x"]),
            (["d/x", "d/", "d/"], ["d/x", "d/", ""]),
            (["d/e/", "d/"], ["d/e/", "d/"]),
            # The later of a file and a folder of one name has to give way.
            (["a/b", "a"], ["a/b", "a (1)"]),
            (["a.d/", "A.d"], ["a.d/", "A (1).d"]),
            (["a", "a/b", "a/c", "A/d", "a/"], ["a", "a (1)/b", "a (1)/c", "a (1)/d", "a (1)/"]),
            (["a", "a/", "a/"], ["a", "a (1)/", ""]),
            (["a.b", "a.b", "a.b/c"], ["a.b", "a (1).b", "a.b (1)/c"]),
            (["a/b", "a/b/c/d", "a/b/c/d"], ["a/b", "a/b (1)/c/d", "a/b (1)/c/d (1)"]),
            (["a", "a (1)", "a/b", "a (1)"], ["a", "a (1)", "a (2)/b", "a (1) (1)"]),
        ],
    )
    def test_names_taken(self, wanted: list[str], given_: list[str]) -> None:
        assert taken(*wanted) == given_

    @pytest.mark.parametrize(
        "wanted", [("a", "a"), ("a", "A"), ("d/", "d/"), ("d/", "D/"), ("a", "a/b"), ("a/b", "a"), ("a/b", "a/B")]
    )
    def test_refused_where_asked(self, wanted: tuple[str, str]) -> None:
        unique = Unique("refuse")
        assert unique.take(wanted[0]) == wanted[0]
        with pytest.raises(InvalidName) as caught:
            unique.take(wanted[1])
        assert "case" in caught.value.detail

    def test_refusing_lets_different_names_pass(self) -> None:
        unique = Unique("refuse")
        for name in ("d/a", "d/", "d/e/a", "D/b", "x"):
            assert unique.take(name) == name

    def test_a_numbered_name_still_fits(self) -> None:
        long = "x" * 251 + ".tar"
        first, second, third = taken(long, long, long)
        assert first == long
        for number, name in ((1, second), (2, third)):
            assert name.endswith(f" ({number}).tar")
            assert len(name) <= 255
        folder = "é" * 127
        assert len(taken(folder, f"{folder}/x")[1].split("/")[0].encode()) <= 255

    @pytest.mark.case(37)
    @settings(max_examples=300)
    @given(
        st.lists(
            st.builds(
                lambda parts, slash: "/".join(parts) + slash,
                st.lists(st.sampled_from(["a", "A", "b", "a (1)", "a (1) (1)", "ß", "ss"]), min_size=1, max_size=3),
                st.sampled_from(["", "", "/"]),
            ),
            max_size=12,
        )
    )
    def test_no_two_names_can_meet(self, wanted: list[str]) -> None:
        unique = Unique("rename")
        files: set[str] = set()
        listed: set[str] = set()
        folders: set[str] = set()
        ways: dict[str, str] = {}
        for name in wanted:
            result = unique.take(name)
            if not result:
                assert name.endswith("/")
                continue
            assert result.endswith("/") == name.endswith("/")
            assert result.count("/") == name.count("/")
            way, _, _ = name.rpartition("/")
            written, _, own = result.rpartition("/")
            assert ways.setdefault(way, written) == written, "what was in one folder was torn apart"
            key = written.casefold()
            while key:
                folders.add(key)
                key = key.rpartition("/")[0]
            key = result.rstrip("/").casefold()
            seen = files if own else listed
            assert key not in seen
            seen.add(key)
        assert not files & folders

    @pytest.mark.parametrize(
        "wanted",
        [
            ["a/b/report.tar.gz"] * 100_000,
            [f"{'x' * 249}{i // 2:06}" for i in range(30_000)],
            [f"a ({i}).txt" for i in range(30_000)] + ["a.txt"] * 30_000,
            ["a", *(f"a/{i}" for i in range(50_000))],
        ],
        ids=["equal", "equal-beginnings", "numbered", "moved"],
    )
    def test_many_take_linear_time(self, wanted: list[str]) -> None:
        unique = Unique("rename")
        began = time.perf_counter()
        results = {unique.take(name) for name in wanted}
        assert time.perf_counter() - began < 10  # 0.2 s; a search from 1 each time takes hours
        assert len(results) == len(wanted)

    def test_folders_without_end_are_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(names, "MAX_DIRECTORY_BYTES", 1024 * 1024)
        unique = Unique("rename")
        assert unique.take("0/" + "a/" * 500)
        assert unique.take("0/" + "a/" * 500 + "x"), "the same folders cost nothing more"
        with pytest.raises(LimitExceeded):
            unique.take("1/" + "a/" * 500)


def test_fifty_thousand_ordinary_names_are_quick() -> None:
    wanted = [f"logs/host-{i % 97}/2024-05-{i % 28 + 1:02}/application-{i}.log" for i in range(50_000)]
    unique = Unique("rename")
    began = time.process_time()
    assert [unique.take(clean(name, strict=False, max_bytes=1024, max_depth=10**6)) for name in wanted] == wanted
    assert time.process_time() - began < 1  # 0.06 s where it was written
