"""Bearer tokens: what a file of them may look like, and who is let in."""

from __future__ import annotations

from base64 import b64encode
from pathlib import Path

import pytest

from streamware.file_request import FileRequest
from streamware.server.tokens import Tokens

ALICE, BOB, NOBODY = "a" * 32, "b-._~+/=!:" * 2, "x" * 32


def basic(text: str) -> str:
    return f"Basic {b64encode(text.encode()).decode()}"


@pytest.fixture
def tokens() -> Tokens:
    return Tokens(["# who", "", f"alice {ALICE}", f"  {BOB}  ", f"alice {'c' * 16}"])


@pytest.mark.parametrize(
    ("header", "name"),
    [
        (f"Bearer {ALICE}", "alice"),
        (f"bearer   {ALICE} ", "alice"),
        (f"Bearer {'c' * 16}", "alice"),
        (basic(f"anybody:{ALICE}"), "alice"),
        (basic(f":{ALICE}"), "alice"),
        (basic(f"ü:{BOB}"), "token-"),
        (f"Bearer {BOB}", "token-"),
    ],
)
def test_a_token_lets_in_under_its_name(tokens: Tokens, header: str, name: str) -> None:
    found = tokens.identity(header)
    assert found is not None
    assert found == name if name == "alice" else found.startswith(name) and len(found) == 14


@pytest.mark.parametrize(
    "header",
    [
        *(None, "", "Bearer", "Bearer ", ALICE, f"Token {ALICE}", f"Bearer {NOBODY}", f"Bearer {ALICE}x"),
        *(f"Bearer {ALICE[:-1]}", f"Bearer {ALICE} {ALICE}", "Bearer \xff\xfe", "Bearer \ud800"),
        *("Basic", "Basic ???", basic(ALICE), basic(f"{ALICE}:"), basic(f"alice:{NOBODY}"), "Basic /w=="),
        *(f"Bearer {ALICE.upper()}", f"Bearer # {ALICE}", "Bearer alice", f"Bearer alice {ALICE}"),
    ],
)
def test_nothing_else_does(tokens: Tokens, header: str | None) -> None:
    assert tokens.identity(header) is None


def test_the_policys_hook_says_who_it_is(tokens: Tokens) -> None:
    def request(**headers: str) -> FileRequest:
        return FileRequest(method="GET", base="/files", headers=headers)

    assert tokens.authorize("upload", request(authorization=f"Bearer {ALICE}")) == "alice"
    assert tokens.authorize("upload", request()) is None


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ([], "no token"),
        (["# only", "  "], "no token"),
        ([ALICE, "short"], "line 2: a token has at least 16"),
        (["name " + "x" * 15], "line 1"),
        ([f"two names {ALICE}"], "line 1: a line is"),
        ([f"alice {'ä' * 20}"], "printable ASCII"),
        ([ALICE, f"again {ALICE}"], "line 2: this token stands there already"),
    ],
)
def test_a_file_that_cannot_be_meant_is_refused(lines: list[str], told: str) -> None:
    with pytest.raises(ValueError, match=told) as caught:
        Tokens(lines)
    assert ALICE not in str(caught.value)


def test_a_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    path.write_text(f"# comment\r\nalice {ALICE}\r\n{BOB}\r\n")
    tokens = Tokens.read(str(path))
    assert tokens.identity(f"Bearer {ALICE}") == "alice"
    assert repr(tokens) == "<2 tokens>"
    for data, told in ((b"\xff" * 20, "UTF-8"), (b"#" * ((1 << 20) + 1), "longer")):
        path.write_bytes(data)
        with pytest.raises(ValueError, match=told):
            Tokens.read(str(path))
    with pytest.raises(ValueError, match="No such file"):
        Tokens.read(str(tmp_path / "none"))
