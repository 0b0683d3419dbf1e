"""Where uploads go: the object store for their bytes, and the database that knows them.

The rule of this file: that of ``state``: what the operator named must work or nothing starts, what was chosen for them
may fail with a warning. And a store has one database: the folder that is chosen lies beside the database that is used,
for what a database does not know of is swept away.
"""

from __future__ import annotations

import logging
import os
import select
import signal
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
_MOST_BYTES = select.PIPE_BUF  # of what a trial has to tell: so many come whole
_WORKS, _FAILED = "+", "-"


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
        return Storage(url, ledger, tuple({folder, *_tried(url, ledger)}))
    except ValueError as error:
        warn(f"{folder}: {error}; no uploads are taken")
        return Storage(None, "", (folder,), why="see the warning")


def _tried(url: str, rows: str) -> tuple[str, ...]:
    """Open a file store and see whether it can be written to. Returns the folder it lies in, if it lies in one.

    :raises ValueError: it cannot; with a text for the operator.
    """
    store = FileStore(url, rows)
    try:
        error = _error_of_trial(store, has_rows=bool(database_files(rows)))
    finally:
        store.close()
    if error:
        raise ValueError(error)
    return () if store.objects.folder is None else (store.objects.folder,)


def _error_of_trial(store: FileStore, *, has_rows: bool) -> str:
    """What is wrong with a store, "" if nothing is.

    It is tried in a process of its own: the libraries of object stores have threads, and whoever has them must not fork
    any more, as workers are made.

    :param has_rows: its database must answer; one on another machine may come up later, and is asked again then.
    """
    told, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(told)
        _try(store, has_rows, tell)
    os.close(tell)
    try:
        if select.select([told], [], [], _TRIAL_SECONDS)[0]:
            said = os.read(told, _MOST_BYTES).decode("utf-8", "replace")
        else:
            said = f"{_FAILED}it did not answer within {_TRIAL_SECONDS:.0f} seconds"
    finally:
        os.close(told)
        os.kill(pid, signal.SIGKILL)  # it has told what it had to tell
        os.waitpid(pid, 0)
    if not said.startswith((_FAILED, _WORKS)):
        return "the trial of it ended by itself"
    return said.removeprefix(_FAILED).removeprefix(_WORKS)


def _try(store: FileStore, has_rows: bool, tell: int) -> NoReturn:
    """The process that tries it: it writes an object and deletes it again, and asks the database."""
    said = _WORKS
    try:
        logging.disable()  # it has one line to say
        # A key like those of uploads: should this process be killed here, the sweeper finds it.
        home = str(uuid.uuid4())
        key = f"{home[:2]}/{home}/{0:016x}-{home[-8:]}"
        writer = store.objects.writer(key)
        try:
            writer.write(b"streamware serve tries whether it can write here")
            writer.close()
        finally:
            writer.discard()
        store.objects.delete([key])
        if has_rows:
            store.listed(limit=1)
    except StreamwareError as error:
        said = f"{_FAILED}{' '.join(str(error).split()) or error.title}"
    except BaseException as error:
        said = f"{_FAILED}{error!r}"
    finally:
        os.write(tell, said.encode()[:_MOST_BYTES])
        os._exit(0)
