"""What outlives a run of the server: the ledger's database and the key that signs links.

The rule of this file: what the operator named must work or nothing starts; what was chosen for them may fail with a
warning, and the server then remembers as long as it runs.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Callable
from typing import NamedTuple
from urllib.parse import unquote

from streamware.shared_ledger import SqlLedger

__all__ = ["NO_STATE", "State", "database_files", "open_state", "state_directory"]

NO_STATE = "memory:"  # the ``--state`` that keeps nothing

_DATABASE = "state.sqlite3"
_KEY_NAME = "link.key"
_KEY_BYTES = 32  # random ones in a key of our making
_LEAST, _MOST = 32, 4096  # characters of a key


class State(NamedTuple):
    """``ledger`` is the URL of a database, None for memory; ``link_key`` signs links, alike in all workers.

    ``files`` are the paths of all this, which must not be served, and change while they are read.
    """

    ledger: str | None
    link_key: bytes
    files: tuple[str, ...]


def open_state(state: str | None, key_file: str | None, warn: Callable[[str], None]) -> State:
    """Find, or make, what the command line asks for. Blocks while a database is asked.

    :param state: the URL of a database, ``memory:``, or None for a file in the user's state directory.
    :param key_file: a file that holds the key for links; None for one in the user's state directory, or, with
        ``memory:``, for one that lives as long as this run.
    :param warn: told of what cannot be kept, and why, in a line for the operator.
    :raises ValueError: what was named cannot be used; with a text for the operator.
    """
    own = state_directory()
    files = [path for path in (own, key_file) if path is not None]
    named = None if key_file is None else _read_named_key(key_file)
    if state == NO_STATE:
        return State(None, named or _new_key(), tuple(files))
    if state is not None:
        _try(state)
        files += database_files(state)
        if named is not None:
            return State(state, named, tuple(files))
    lost = "what it learns and the key of its links" if state is None else "the key of its links"
    directory = _made(own, lost, warn)
    ledger = state if state is not None else _own_database(directory, warn)
    return State(ledger, named or _own_key(directory, warn), tuple(files))


def state_directory() -> str | None:
    """Where a user's programs keep such things (XDG Base Directory Specification 0.8); None where that is unknown."""
    home = os.environ.get("XDG_STATE_HOME", "")
    if not os.path.isabs(home):  # the specification: a relative path is to be ignored
        home = os.path.expanduser(os.path.join("~", ".local", "state"))
    return os.path.join(home, "streamware") if os.path.isabs(home) else None


def _try(url: str) -> None:
    try:
        SqlLedger(url).close()
    except ValueError as error:
        raise ValueError(f"--state: {error}") from error


def database_files(url: str) -> list[str]:
    """The files behind a SQLite URL, the database itself first, as its "-wal" and such come and go."""
    dialect, _, rest = url.partition(":///")
    path = os.path.abspath(unquote(rest.partition("?")[0]))
    return [path + suffix for suffix in ("", "-wal", "-shm", "-journal")] if dialect.startswith("sqlite") else []


def _made(directory: str | None, lost: str, warn: Callable[[str], None]) -> str | None:
    """The state directory, for this user alone; None where there cannot be one."""
    try:
        if directory is None:
            raise OSError("this user has no home directory")
        os.makedirs(os.path.dirname(directory), 0o700, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            os.mkdir(directory, 0o700)
        if not os.path.isdir(directory):
            raise OSError("it is not a directory")
        if not os.access(directory, os.R_OK | os.W_OK | os.X_OK):
            raise OSError("it may not be written to")
    except OSError as error:
        warn(f"{directory or 'no state directory'}: {error.strerror or error}; {lost} will be lost when it ends")
        return None
    return directory


def _own_database(directory: str | None, warn: Callable[[str], None]) -> str | None:
    if directory is None:
        return None
    path = os.path.join(directory, _DATABASE)
    url = f"sqlite:///{path}"
    try:
        if "?" in path or "%" in path:
            raise ValueError("a path with '?' or '%' in it cannot stand in a URL")
        # Made here rather than by SQLite, which would let others read what names and URLs a saved link holds.
        os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
        SqlLedger(url).close()
    except (OSError, ValueError) as error:
        warn(f"{path}: {getattr(error, 'strerror', None) or error}; what it learns will be lost when it ends")
        return None
    return url


def _own_key(directory: str | None, warn: Callable[[str], None]) -> bytes:
    """The key in the state directory, made there if it is the first time."""
    if directory is None:
        return _new_key()
    path = os.path.join(directory, _KEY_NAME)
    try:
        if not os.path.lexists(path):
            _write_key(path)
        return _read_key(path)
    except (OSError, ValueError) as error:
        warn(f"{path}: {getattr(error, 'strerror', None) or error}; links made now will be lost when it ends")
        return _new_key()


def _write_key(path: str) -> None:
    """Make a key that is whole from its first moment on, whoever else makes one now: the first of all wins."""
    draft = f"{path}.{secrets.token_hex(8)}"
    file = os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    try:
        with open(file, "wb") as out:
            out.write(_new_key() + b"\n")
        with contextlib.suppress(FileExistsError):
            os.link(draft, path)
    finally:
        os.unlink(draft)


def _read_named_key(path: str) -> bytes:
    try:
        return _read_key(path)
    except (OSError, ValueError) as error:
        raise ValueError(f"--link-key {path!r}: {getattr(error, 'strerror', None) or error}") from error


def _read_key(path: str) -> bytes:
    with open(path, "rb") as file:
        key = file.read(_MOST + 1).strip()
    if not _LEAST <= len(key) <= _MOST:
        raise ValueError(f"a key has {_LEAST} to {_MOST} characters, such as those of: openssl rand -hex 32")
    return key


def _new_key() -> bytes:
    return secrets.token_hex(_KEY_BYTES).encode()
