"""Who may use the server: a file of bearer tokens, the simple case of access control.

The rule of this file: a token is compared with all that there are, by their digests and in constant time, so how long
that takes tells nothing of any of them; and no token appears in a log, an error or a ``repr``.
"""

from __future__ import annotations

import binascii
import hashlib
import hmac
import re
from base64 import b64decode
from collections.abc import Iterable

from streamware.file_request import FileRequest

__all__ = ["CHALLENGES", "Tokens"]

# RFC 6750 section 3, and RFC 7617 section 2.1 for browsers, which ask their user and then send the token as password.
CHALLENGES = ('Bearer realm="streamware"', 'Basic realm="streamware", charset="UTF-8"')

_LEAST = 16  # characters; a shorter one is a password that somebody thought of
_MOST_BYTES = 1 << 20  # of the file
_TOKEN = re.compile(r"[\x21-\x7e]+\Z")  # more than RFC 6750's token68, as a Basic password may be any text
_NAME = re.compile(r"[^\s\x00-\x1f\x7f]{1,200}\Z")


class Tokens:
    """The tokens that let in, and the name behind each.

    :param lines: ``TOKEN`` or ``NAME TOKEN``; empty ones and those that begin with ``#`` say nothing. Without a name a
        few digits of the token's hash are its name. Several tokens may have one name, so that they can be changed.
    :raises ValueError: there is none, or one is too short or stands twice; with a text for the operator.
    """

    def __init__(self, lines: Iterable[str]) -> None:
        self._names: dict[bytes, str] = {}
        for number, line in enumerate(lines, 1):
            words = line.split()
            if not words or words[0].startswith("#"):
                continue
            name, token = words if len(words) == 2 else ("", words[0])
            if len(words) > 2 or not _TOKEN.match(token) or (name and not _NAME.match(name)):
                raise ValueError(f"line {number}: a line is TOKEN or NAME TOKEN, in printable ASCII")
            if len(token) < _LEAST:
                raise ValueError(
                    f"line {number}: a token has at least {_LEAST} characters, as of: openssl rand -hex 32"
                )
            digest = _digest(token)
            if digest in self._names:
                raise ValueError(f"line {number}: this token stands there already")
            self._names[digest] = name or f"token-{digest.hex()[:8]}"
        if not self._names:
            raise ValueError("there is no token in it")

    @classmethod
    def read(cls, path: str) -> Tokens:
        """Read a file of them.

        :raises ValueError: it cannot be read, or see above.
        """
        try:
            with open(path, "rb") as file:
                data = file.read(_MOST_BYTES + 1)
        except OSError as error:
            raise ValueError(error.strerror or str(error)) from error
        if len(data) > _MOST_BYTES:
            raise ValueError(f"it is longer than {_MOST_BYTES} bytes")
        try:
            return cls(data.decode("utf-8").splitlines())
        except UnicodeDecodeError as error:
            raise ValueError("it is no text in UTF-8") from error

    def identity(self, authorization: str | None) -> str | None:
        """The name behind an Authorization header's value; None where it lets nobody in."""
        token = _token_in(authorization)
        if token is None:
            return None
        asked, found = _digest(token), None
        for digest, name in self._names.items():
            if hmac.compare_digest(digest, asked):
                found = name
        return found

    def authorize(self, action: str, request: FileRequest) -> str | None:
        """``Policy.authorize``: whoever has a token may do everything that is offered at all."""
        return self.identity(request.header("authorization"))

    def __repr__(self) -> str:
        return f"<{len(self._names)} tokens>"


def _token_in(authorization: str | None) -> str | None:
    """The token in ``Bearer TOKEN`` or ``Basic base64(ANYTHING:TOKEN)``."""
    scheme, _, rest = (authorization or "").strip().partition(" ")
    rest = rest.strip()
    if scheme.lower() == "bearer":
        return rest or None
    if scheme.lower() != "basic":
        return None
    try:
        pair = b64decode(rest, validate=True).decode("utf-8")
    except (binascii.Error, ValueError):
        return None
    return pair.partition(":")[2] or None


def _digest(token: str) -> bytes:
    # Header bytes are latin-1 to us and anything to the client: what cannot be encoded is no token of ours either way.
    return hashlib.sha256(token.encode("utf-8", "replace")).digest()
