"""Where uploads go: the object store for their bytes, and the database that knows them.

The rule of this file: that of ``state``: what the operator named must work or nothing starts, what was chosen for them
may fail with a warning. And a store has one database: the folder that is chosen lies beside the database that is used,
for what a database does not know of is swept away.
"""

from __future__ import annotations

import json
import os
import select
import signal
import traceback
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, NoReturn

from streamware.errors import StreamwareError
from streamware.filestore import FileStore
from streamware.server.state import NO_STATE, database_files

__all__ = ["NO_STORE", "Storage", "open_storage"]

NO_STORE = "none"  # the ``--store`` that takes no uploads

_FOLDER = "files"
_TRIAL_SECONDS = 60.0  # for a store and its database to show that they work
_MOST_BYTES = 1 << 16  # of what a trial has to tell


class Storage(NamedTuple):
    """``url`` is the object store's, None where no uploads are taken, and ``why`` then says so; ``rows`` is the
    database's. ``files`` are paths that must not be served."""

    url: str | None
    rows: str
    files: tuple[str, ...] = ()
    why: str = ""


def open_storage(store: str | None, state: str | None, ledger: str | None, warn: Callable[[str], None]) -> Storage:
    """Find, or make, what the command line asks for, and try it. Blocks meanwhile.

    :param store: the URL of an object store, ``none``, or None for a folder beside the database.
    :param state: ``--state`` as it was given.
    :param ledger: the URL of the database that is used; None for none.
    :param warn: told why no uploads can be taken, in a line for the operator.
    :raises ValueError: what was named cannot be used; with a text for the operator.
    """
    if store == NO_STORE:
        return Storage(None, "", why=f"--store {NO_STORE}")
    if store is not None:
        if ledger is None:
            what = "is in memory only" if state == NO_STATE else "cannot be used"
            raise ValueError(f"--store needs a database that lasts for what is in it, and that of --state {what}")
        try:
            return Storage(store, ledger, _tried(store, ledger))
        except ValueError as error:
            raise ValueError(f"--store: {error}") from error
    if ledger is None:
        return Storage(None, "", why="there is no database that lasts to keep what is known of them")
    files = database_files(ledger)
    if not files:
        return Storage(None, "", why="replicas that share a database need a --store that they share too")
    folder = os.path.join(os.path.dirname(files[0]), _FOLDER) if state is None else f"{files[0]}.{_FOLDER}"
    url = Path(folder).as_uri()
    try:
        return Storage(url, ledger, (folder, *_tried(url, ledger)))
    except ValueError as error:
        warn(f"{folder}: {error}; no uploads are taken")
        return Storage(None, "", (folder,), why="see the warning")


def _tried(url: str, rows: str) -> tuple[str, ...]:
    """Whether a file store can be opened and written to. Returns the folder it lies in, if it lies in one.

    It is tried in a process of its own: the libraries of object stores have threads, and whoever has them must not fork
    any more, as workers are made.

    :raises ValueError: it cannot; with a text for the operator.
    """
    told, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(told)
        _try(url, rows, tell)
    os.close(tell)
    try:
        said = _said(told) if select.select([told], [], [], _TRIAL_SECONDS)[0] else b""
        if not said:
            os.kill(pid, signal.SIGKILL)
    finally:
        os.close(told)
        os.waitpid(pid, 0)
    if not said:
        raise ValueError(f"it did not answer within {_TRIAL_SECONDS:.0f} seconds, or the trial of it failed")
    answer = json.loads(said)
    if answer["error"] is not None:
        raise ValueError(answer["error"])
    return () if answer["folder"] is None else (answer["folder"],)


def _said(told: int) -> bytes:
    data = b""
    while (piece := os.read(told, _MOST_BYTES)) and len(data) < _MOST_BYTES:
        data += piece
    return data


def _try(url: str, rows: str, tell: int) -> NoReturn:
    """The process that tries it: it writes an object and deletes it again, and asks a database that is a file."""
    try:
        answer: dict[str, str | None] = {"error": None, "folder": None}
        try:
            store = FileStore(url, rows)
            try:
                answer["folder"] = store.objects.folder
                # A key like those of uploads: should this process be killed here, the sweeper finds it.
                id = str(uuid.uuid4())
                key = f"{id[:2]}/{id}/{0:016x}-{id[-8:]}"
                writer = store.objects.writer(key)
                try:
                    writer.write(b"streamware serve tries whether it can write here")
                    writer.close()
                finally:
                    writer.discard()
                    store.objects.delete([key])
                if database_files(rows):  # another one may come up later, and is asked again then
                    store.listed(limit=1)
            finally:
                store.close()
        except (StreamwareError, ValueError) as error:
            answer["error"] = str(error) or type(error).__name__
        os.write(tell, json.dumps(answer).encode())
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(0)
