"""What upload headers say, read strictly: tables of what clients send, and of what nobody should."""

from __future__ import annotations

import time
from base64 import b64encode
from contextlib import suppress
from hashlib import md5, sha256, sha512
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamware.file_request import FileRequest
from streamware.semantics import content_disposition
from streamware.upload_errors import LengthRequired, UnsupportedUpload, UploadInvalid, UploadVersion
from streamware.uploads import (
    ANY_TYPE,
    Checksum,
    Concat,
    announced_checksum,
    announced_concat,
    announced_digests,
    announced_metadata,
    announced_type,
    body_length,
    boundary_of,
    check_version,
    clean_name,
    essence,
    metadata_name,
    metadata_type,
    number,
    refuse_coded,
    upload_name,
)

_A = "0c0f2d7e-7f4f-4b6c-9a39-0123456789ab"
_B = "1c0f2d7e-7f4f-4b6c-9a39-0123456789ab"


def asked(
    headers: dict[str, str] | None = None, *, repeated: tuple[str, ...] = (), untold: str | None = None
) -> FileRequest:
    return FileRequest(method="POST", base="/files", headers=headers or {}, repeated=frozenset(repeated), untold=untold)


def named(value: str, most: int = 1024) -> str:
    return upload_name(asked({"content-disposition": value}), most)


# --- names ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "name"),
    [
        ('attachment; filename="a.txt"', "a.txt"),
        ("attachment; filename=a.txt", "a.txt"),
        ('ATTACHMENT;FileName="a.txt"', "a.txt"),
        ('attachment ; filename = "a.txt" ; x=y', "a.txt"),
        ('attachment;; filename="a.txt";', "a.txt"),
        ('form-data; name="file"; filename="a.txt"', "a.txt"),
        # RFC 6266 section 4.3: filename* wins, wherever it stands.
        ("attachment; filename=\"plain\"; filename*=UTF-8''%e2%82%ac%20rates", "€ rates"),
        ("attachment; filename*=utf-8'en'%E2%82%AC; filename=\"plain\"", "€"),
        ("attachment; filename*=iso-8859-1''%A3", "£"),
        # What cannot be read of it is as good as not there.
        ("attachment; filename=\"plain\"; filename*=UTF-8''%ff", "plain"),
        ("attachment; filename=\"plain\"; filename*=UTF-8''%e2%82", "plain"),
        ("attachment; filename=\"plain\"; filename*=UTF-8''a%2", "plain"),
        ("attachment; filename=\"plain\"; filename*=UTF-7''a", "plain"),
        ('attachment; filename="plain"; filename*="UTF-8\'\'quoted"', "quoted"),
        ("attachment; filename=\"plain\"; filename*=UTF-8'a_b'c", "plain"),
        ('attachment; filename="a\\"b\\\\.txt"', ".txt"),  # a quoted pair is a backslash, which parts a path
        ('attachment; filename="a\\"b.txt"', 'a"b.txt'),
        ('attachment; filename="x;y=z, w.txt"', "x;y=z, w.txt"),
        ('attachment; filename="one"; filename="two"', "one"),
        ('attachment; filename="Ã¼.txt"', "ü.txt"),  # raw UTF-8, as hosts hand it on
        ('attachment; filename="ü.txt"', "ü.txt"),  # ISO-8859-1, as HTTP once was
        ('attachment; filename="%41.txt"', "%41.txt"),  # RFC 6266: a plain name is not percent-decoded
        # No path part, no dots, no controls.
        ('attachment; filename="../../etc/passwd"', "passwd"),
        ("attachment; filename*=UTF-8''..%2F..%2Fetc%2Fpasswd", "passwd"),
        ("attachment; filename*=UTF-8''C%3A%5Cdir%5Ca.txt", "a.txt"),
        ('attachment; filename=".."', "upload"),
        ('attachment; filename="a/"', "upload"),
        ('attachment; filename=""', "upload"),
        ('attachment; filename="  "', "upload"),
        ("attachment; filename*=UTF-8''a%0D%0AX%3A%201", "a__X: 1"),
        ("attachment; filename*=UTF-8''a%00b", "a_b"),
        ("attachment; filename*=UTF-8''gnp.%E2%80%AEexe", "gnp._exe"),
        ("attachment; filename*=UTF-8''%C2%85%C2%9F", "__"),
        ('attachment; filename=".bashrc"', ".bashrc"),
        # What is no Content-Disposition names nothing.
        ('filename="a.txt"', "upload"),
        ('attachment, filename="a.txt"', "upload"),
        ('attachment; filename="a.txt', "upload"),
        ("attachment; filename=a b.txt", "upload"),
        ('attachment; filename="a"b', "upload"),
        ("", "upload"),
        ("attachment", "upload"),
        ("; ; ;", "upload"),
    ],
)
def test_the_name_of_a_raw_upload(field: str, name: str) -> None:
    assert named(field) == name


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ("a.txt", "a.txt"),
        ("a%20b%E2%82%AC.txt", "a b€.txt"),
        ("a b.txt", "a b.txt"),
        ("%2e%2e%2fa", "a"),
        ("100%.txt", "upload"),  # no percent-encoding at all: nobody can say what was meant
        ("%FC.txt", "ü.txt"),
        ("%00", "_"),
        ("", "upload"),
    ],
)
def test_x_filename(value: str, name: str) -> None:
    assert upload_name(asked({"x-filename": value}), 1024) == name


def test_content_disposition_goes_before_x_filename() -> None:
    both = {"content-disposition": 'attachment; filename="a"', "x-filename": "b"}
    assert upload_name(asked(both), 1024) == "a"
    assert upload_name(asked(both | {"content-disposition": "inline"}), 1024) == "b"
    assert upload_name(asked(), 1024) == "upload"


def test_long_names_are_cut_before_their_extension_and_longer_headers_refused() -> None:
    assert named(f'attachment; filename="{"x" * 10_000}.tar"', 1024) == "x" * 1020 + ".tar"
    assert len(named(f"attachment; filename*=UTF-8''{'%E2%82%AC' * 1000}", 1000).encode()) <= 1000
    for header in ("content-disposition", "x-filename"):
        with pytest.raises(UploadInvalid):
            upload_name(asked({header: "x" * 40_000}), 1024)


@given(st.text(max_size=50))
def test_names_come_through_as_they_are_sent(name: str) -> None:
    sent = clean_name(name, 1024)
    assert upload_name(asked({"x-filename": quote(name, safe="")}), 1024) == sent
    assert named(content_disposition(sent)) == sent


@given(st.text(st.characters(codec=None)), st.integers(6, 300))
def test_any_text_becomes_a_harmless_name(text: str, most: int) -> None:
    name = clean_name(text, most)
    assert name.encode().decode() == name  # and so holds no lone surrogate
    assert len(name.encode()) <= most
    assert "/" not in name
    assert "\\" not in name
    assert name not in ("", ".", "..")
    assert all(c.isprintable() or c.isspace() or ord(c) > 0x2029 or ord(c) == 0xAD for c in name)
    assert not any(ord(c) < 32 or 127 <= ord(c) < 160 for c in name)
    assert clean_name(name, most) == name


@given(st.text(st.characters(max_codepoint=255), max_size=200))
def test_any_header_names_something(value: str) -> None:
    for header in ("content-disposition", "x-filename"):
        assert upload_name(asked({header: value}), 100)


# --- types ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        ("text/plain", "text/plain"),
        ("Text/HTML", "text/html"),
        ("text/plain; charset=UTF-8", "text/plain; charset=UTF-8"),
        ('a/b;x="y;z\\""', 'a/b;x="y;z\\""'),
        ("application/vnd.a+json", "application/vnd.a+json"),
        (" image/png ", "image/png"),
        (None, ANY_TYPE),
        ("", ANY_TYPE),
        ("text", ANY_TYPE),
        ("text/", ANY_TYPE),
        ("/plain", ANY_TYPE),
        ("text/plain/x", ANY_TYPE),
        ("text/pl ain", ANY_TYPE),
        ("text/plain, text/html", ANY_TYPE),
        ("text/plain; charset", ANY_TYPE),
        ('text/plain; a="', ANY_TYPE),
        ("text/plain\r\nX: 1", ANY_TYPE),
        ("text/plain\x00", ANY_TYPE),
        ('text/plain; a="ü"', ANY_TYPE),
        ("text/" + "x" * 300, ANY_TYPE),
        ("application/x-www-form-urlencoded", ANY_TYPE),  # what curl says of everything
        ("text/plain\n", ANY_TYPE),
    ],
)
def test_media_types(value: str | None, kept: str) -> None:
    assert announced_type(value) == kept


@given(st.text(st.characters(max_codepoint=300), max_size=100))
def test_any_media_type_can_be_sent_again(value: str) -> None:
    kept = announced_type(value)
    assert kept.isascii()
    assert kept.isprintable() or "\t" in kept
    assert announced_type(kept) == kept
    assert essence(kept)


@pytest.mark.parametrize(
    ("value", "boundary"),
    [
        ("multipart/form-data; boundary=abc", "abc"),
        ('multipart/form-data; boundary="a b?c"', "a b?c"),
        ("multipart/form-data; charset=x; Boundary=" + "x" * 70, "x" * 70),
    ],
)
def test_boundaries(value: str, boundary: str) -> None:
    assert boundary_of(value) == boundary


@pytest.mark.parametrize(
    "value",
    [
        "multipart/form-data",
        "multipart/form-data; boundary=",
        'multipart/form-data; boundary=""',
        'multipart/form-data; boundary="a "',
        'multipart/form-data; boundary="a\r\nb"',
        'multipart/form-data; boundary="a%b"',
        "multipart/form-data; boundary=" + "x" * 71,
        "multipart/form-data; boundary=a b",
        "multipart; boundary=a",
    ],
)
def test_what_is_no_boundary(value: str) -> None:
    with pytest.raises(UploadInvalid):
        boundary_of(value)


# --- framing -------------------------------------------------------------------------------------------------------


def test_framing() -> None:
    assert body_length(asked({"content-length": "0"})) == 0
    assert body_length(asked({"content-length": "0012"})) == 12
    assert body_length(asked({"content-length": str(2**63 - 1)})) == 2**63 - 1
    assert body_length(asked({"transfer-encoding": "Chunked"})) is None
    assert body_length(asked()) is None


@pytest.mark.parametrize(
    "value", ["+3", "-3", " 3", "3 ", "3,3", "3, 3", "0x3", "3_0", "٣", "³", "", "3.0", "1e3", str(2**63)]
)
def test_lengths_that_are_none(value: str) -> None:
    with pytest.raises(UploadInvalid):
        body_length(asked({"content-length": value}))
    with pytest.raises(UploadInvalid):
        number("Upload-Offset", value)


@pytest.mark.parametrize(
    ("headers", "repeated"),
    [
        ({"content-length": "3", "transfer-encoding": "chunked"}, ()),
        ({"content-length": "3", "transfer-encoding": "identity"}, ()),
        ({"transfer-encoding": "gzip, chunked"}, ()),
        ({"transfer-encoding": "chunked, chunked"}, ("transfer-encoding",)),
        ({"transfer-encoding": ""}, ()),
        ({"content-length": "3"}, ("content-length",)),
        ({"content-length": "3,3"}, ("content-length",)),
    ],
)
def test_framing_that_two_readers_read_differently(headers: dict[str, str], repeated: tuple[str, ...]) -> None:
    for wanted in (True, False):
        with pytest.raises(UploadInvalid):
            body_length(asked(headers, repeated=repeated), wanted=wanted)


def test_no_body_without_length_where_nobody_can_tell_its_end() -> None:
    for headers in ({"transfer-encoding": "chunked"}, {}):
        with pytest.raises(LengthRequired):
            body_length(asked(headers, untold="this host"))
        assert body_length(asked(headers, untold="this host"), wanted=False) is None
    assert body_length(asked({"content-length": "5"}, untold="this host")) == 5


def test_codings_and_parts_are_refused() -> None:
    refuse_coded(asked())
    refuse_coded(asked({"content-encoding": "identity"}))
    for coding in ("gzip", "GZIP", "identity, gzip", "br"):
        with pytest.raises(UnsupportedUpload):
            refuse_coded(asked({"content-encoding": coding}))
    with pytest.raises(UploadInvalid):
        refuse_coded(asked({"content-range": "bytes 0-1/2"}))


# --- digests -------------------------------------------------------------------------------------------------------


def _b64(data: bytes) -> str:
    return b64encode(data).decode()


def test_digests() -> None:
    s256, s512, m5 = sha256(b"x").digest(), sha512(b"x").digest(), md5(b"x").digest()

    def read(repr_digest: str, content: str | None = None) -> dict[str, bytes]:
        headers = {"repr-digest": repr_digest} | ({} if content is None else {"content-digest": content})
        return announced_digests(asked(headers), "repr-digest", "content-digest")

    assert read("") == {}
    assert read(f"sha-256=:{_b64(s256)}:") == {"sha256": s256}
    assert read(f"sha-512=:{_b64(s512)}:, sha-256=:{_b64(s256)}:;a=1,md5=:{_b64(m5)}:") == {
        "sha256": s256,
        "sha512": s512,
        "md5": m5,
    }
    assert read(f"sha-256=:{_b64(s256)}:", f"sha-512=:{_b64(s512)}:") == {"sha256": s256, "sha512": s512}
    assert read("unheard-of=:AAAA:, other=1, one;x=2, *x.y=?1") == {}
    assert read("unixsum=:MzM=:") == {}
    for wrong in (
        "sha-256",
        "sha-256=1",
        "sha-256=::",
        f"sha-256={_b64(s256)}",
        f"sha-256=:{_b64(s256)[:-1]}:",
        f"sha-256=:{_b64(s256[:-1])}:",
        f"sha-256=:{s256.hex()}:",
        f"sha-256=: {_b64(s256)}:",
        f"sha-512=:{_b64(s256)}:",
        f"SHA-256=:{_b64(s256)}:",
        f"sha-256=:{_b64(s256)}:, sha-256=:{_b64(bytes(32))}:",
        "=:AAAA:",
    ):
        with pytest.raises(UploadInvalid):
            read(wrong)
    with pytest.raises(UploadInvalid):  # the one body cannot have both
        read(f"sha-256=:{_b64(s256)}:", f"sha-256=:{_b64(bytes(32))}:")


# --- tus -----------------------------------------------------------------------------------------------------------


def test_version() -> None:
    check_version(asked({"tus-resumable": "1.0.0"}))
    for headers in ({}, {"tus-resumable": "0.2.2"}, {"tus-resumable": "1.0.0, 1.0.0"}, {"tus-resumable": ""}):
        with pytest.raises(UploadVersion) as refused:
            check_version(asked(headers))
        assert ("Tus-Version", "1.0.0") in refused.value.headers


def test_checksums() -> None:
    digest = sha256(b"x").digest()
    assert announced_checksum(None) is None
    assert announced_checksum(f"sha256 {_b64(digest)}") == Checksum("sha256", digest)
    assert announced_checksum("crc32 AAAAAQ==") == Checksum("crc32", b"\0\0\0\1")
    for wrong in (
        "",
        "sha256",
        f"sha256  {_b64(digest)}",
        f"sha256 {_b64(digest)} ",
        f"SHA256 {_b64(digest)}",
        f"md5 {_b64(bytes(16))}",
        f"sha1 {_b64(digest)}",
        "crc32 1",
        f"sha256 {_b64(digest)[:-1]}",
        f"sha256 {_b64(digest)}, sha256 {_b64(digest)}",
    ):
        with pytest.raises(UploadInvalid):
            announced_checksum(wrong)


def test_metadata() -> None:
    assert announced_metadata(None) == announced_metadata("") == {}
    assert announced_metadata("filename YS50eHQ=,is_confidential, empty ,x eA==") == {
        "filename": b"a.txt",
        "is_confidential": b"",
        "empty": b"",
        "x": b"x",
    }
    for wrong in (
        ",",
        "a YQ==,",
        "a YQ==,a YQ==",
        "a YQ",
        "a Y Q==",
        "a  YQ==",
        "a YQ==\n",
        "ü YQ==",
        "a\x00 YQ==",
        "a b_-_",
        "a " + "A" * 9000,
    ):
        with pytest.raises(UploadInvalid):
            announced_metadata(wrong)


def test_what_metadata_says_of_the_file() -> None:
    assert metadata_name(announced_metadata(f"filename {_b64('../ü.txt'.encode())}"), 100) == "ü.txt"
    assert metadata_name({"name": b"b"}, 100) == "b"
    assert metadata_name({"filename": b"a", "name": b"b"}, 100) == "a"
    assert metadata_name({"filename": b"\xff\x00"}, 100) == "\ufffd_"
    assert metadata_name({}, 100) == "upload"
    assert metadata_type({"filetype": b"image/png"}) == "image/png"
    assert metadata_type({"type": b"image/png"}) == "image/png"
    assert metadata_type({"filetype": b"\xff"}) == metadata_type({}) == ANY_TYPE


def test_concat() -> None:
    assert announced_concat(None) is None
    assert announced_concat("partial") == Concat("partial")
    assert announced_concat(f"final;/files/{_A} https://example.com/x/files/{_B}") == Concat("final", (_A, _B))
    assert announced_concat(f"final; /files/{_A}") == Concat("final", (_A,))
    for wrong in (
        "",
        "Partial",
        "partial;",
        "final",
        "final;",
        "final; ",
        f"final;/files/{_A} /files/{_A}",
        f"final;/files/{_A}?x",
        f"final;/files/{_A.upper()}",
        "final;/files/../x",
        f"final;/files/{_A},/files/{_B}",
        "final;" + " ".join(f"/files/{n:08x}{_A[8:]}" for n in range(1001)),
    ):
        with pytest.raises(UploadInvalid):
            announced_concat(wrong)


@given(st.text(st.characters(max_codepoint=300), max_size=100))
def test_whatever_comes_is_read_or_refused(value: str) -> None:
    for read in (announced_checksum, announced_metadata, announced_concat, boundary_of):
        with suppress(UploadInvalid):
            read(value)


def test_hostile_headers_cost_little_time() -> None:
    begun = time.perf_counter()
    for filler in (" ", ";", "a", '"', "\\x", "\\", "=", "%41", "a=b;", "a=b ;\t", "sha-256=::,", "'", ":", "A "):
        text = (filler * 32_000)[:32_000]
        for before in (
            "a;",
            "attachment; filename=",
            'attachment; filename="',
            "a/b;",
            "attachment; filename*=utf-8''",
        ):
            for value in (before + text, before + text + "\x01"):
                named(value[:32_000])
                upload_name(asked({"x-filename": value[:32_000]}), 1024)
                announced_type(value[:250])
                for read in (announced_checksum, announced_metadata, announced_concat, boundary_of):
                    with suppress(UploadInvalid):
                        read(value)
                with suppress(UploadInvalid):
                    announced_digests(asked({"repr-digest": value}), "repr-digest")
    assert time.perf_counter() - begun < 5  # 0.4 s here; any one of quadratic cost would take longer by itself
