"""streamware's file service as Falcon resources, for WSGI and ASGI, on a folder and SQLite.

The rule of this file: nothing is tuned; it is what README.md shows. BENCH_STORE is the folder, and the database lies
beside it.
"""

from __future__ import annotations

import os

import falcon
import falcon.asgi

from streamware import Archiver, FileStore
from streamware.resources import AsyncFileResource, AsyncFilesResource, FileResource, FilesResource

__all__ = ["asgi", "wsgi"]

_FOLDER = os.environ["BENCH_STORE"]
_archiver = Archiver(files=FileStore(f"file://{_FOLDER}", f"sqlite:///{_FOLDER}.sqlite3"))
wsgi = falcon.App()
wsgi.add_route("/files", FilesResource(_archiver))
wsgi.add_route("/files/{id}", FileResource(_archiver))
asgi = falcon.asgi.App()
asgi.add_route("/files", AsyncFilesResource(_archiver))
asgi.add_route("/files/{id}", AsyncFileResource(_archiver))
