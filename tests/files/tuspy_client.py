"""tuspy as somebody uses it, in a process of its own that can be killed; it remembers uploads in a file.

Run as a program: ``python -m tests.files.tuspy_client URL FILE MEMORY PIECE [checksum]``. Prints the upload's URL at
the end. The rule of this file: only what tuspy's own documentation shows.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from tusclient.client import TusClient
from tusclient.storage.filestorage import FileStorage

__all__ = ["main"]


def main(arguments: Sequence[str]) -> int:
    url, path, memory, piece, *more = arguments
    uploader = TusClient(url).uploader(
        path,
        chunk_size=int(piece),
        metadata={"filename": path.rpartition("/")[2], "filetype": "application/x-tuspy"},
        store_url=True,
        url_storage=FileStorage(memory),
        upload_checksum=more == ["checksum"],
    )
    uploader.upload()
    print("uploaded", uploader.url, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
