"""Sends a large file as a stream, under its name, and prints what the server says of it. The standard library alone.

Try it:

    streamware serve
    python upload_client.py backup.iso http://127.0.0.1:8080/files
    tar cz photos | python upload_client.py - http://127.0.0.1:8080/files photos.tar.gz

A file goes with its length, what comes from a pipe in chunks. With TOKEN set, it goes along as a bearer token.
"""

import hashlib
import http.client
import json
import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import BinaryIO
from urllib.parse import quote, urlsplit


def pieces(file: BinaryIO, digest: "hashlib._Hash") -> Iterator[bytes]:
    while piece := file.read(1 << 20):
        digest.update(piece)
        yield piece


def upload(file: BinaryIO, name: str, url: str, length: int | None) -> tuple[int, str]:
    """The status, and what was answered. The connection waits a minute at most, for each piece and for the answer."""
    headers = {"Content-Disposition": f"attachment; filename*=UTF-8''{quote(name, safe='')}"}
    headers |= {"Transfer-Encoding": "chunked"} if length is None else {"Content-Length": str(length)}
    if "TOKEN" in os.environ:
        headers["Authorization"] = f"Bearer {os.environ['TOKEN']}"
    at, digest = urlsplit(url), hashlib.sha256()
    kind = http.client.HTTPSConnection if at.scheme == "https" else http.client.HTTPConnection
    connection = kind(at.netloc, timeout=60)
    with suppress(BrokenPipeError, ConnectionResetError):  # refused: the server did not wait for the rest
        connection.request("POST", at.path, pieces(file, digest), headers, encode_chunked=length is None)
    answer = connection.getresponse()
    said = answer.read().decode()
    if answer.status == 201 and json.loads(said)["sha256"] not in (digest.hexdigest(), None):
        raise SystemExit("what the server keeps is not what was sent")
    return answer.status, said


def main() -> None:
    path, url, *name = sys.argv[1:]
    with sys.stdin.buffer if path == "-" else open(path, "rb") as file:
        length = None if path == "-" else os.fstat(file.fileno()).st_size
        status, said = upload(file, name[0] if name else os.path.basename(path), url, length)
    print(said)
    sys.exit(0 if status == 201 else f"the server answered {status}")


if __name__ == "__main__":
    main()
