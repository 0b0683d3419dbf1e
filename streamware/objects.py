"""Where the bytes of stored files lie: a local folder, or an object store such as S3, Google Cloud Storage or Azure.

The rule of this file: an object is written once, whole and durably, or not at all, and never changes; what goes wrong
leaves here as one of our own errors. It is the only one that knows obstore, which waits in Rust, where no other thread
can interrupt it: so every wait has a bound.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from streamware.errors import MemberNotFound, SizeMismatch, StreamwareError
from streamware.facts import Chunks
from streamware.object_chunks import RemoteChunks
from streamware.object_errors import first_line, mapped
from streamware.object_folder import MARK, ObjectFolder, Reading
from streamware.upload_errors import StoreFailed

__all__ = ["ObjectWriter", "Objects"]

_log = logging.getLogger("streamware")

# PERF: still in the core's cache when it is written; with 1 MiB it costs 0.2 CPU s/GiB more.
_LOCAL_BUFFER = 256 * 1024
_REMOTE_BUFFER = 8 * 1024 * 1024  # one request of a larger object; twice as much is in memory. S3 takes 5 MiB at least
_OWNER = f"{MARK}/database"  # an object that says to which database all others belong
_AT_ONCE = 1000  # objects of one request that deletes or lists, as many as S3 takes

# What a request to a remote store may take. An answer that is read for longer than "timeout" is asked for again, from
# where it stands: a client that takes its time holds no connection for longer.
_CLIENT = {"connect_timeout": "5s", "read_timeout": "20s", "timeout": "60s"}
_RETRY = {
    "max_retries": 3,
    "retry_timeout": timedelta(seconds=30),
    "backoff": {"init_backoff": timedelta(seconds=0.2), "max_backoff": timedelta(seconds=5), "base": 2},
}
# Options that are the connection's and not the store's.
_CLIENT_OPTIONS = {
    *("allow_http", "allow_invalid_certificates", "root_certificate", "randomize_addresses", "user_agent"),
    *("connect_timeout", "read_timeout", "timeout", "pool_idle_timeout", "pool_max_idle_per_host"),
    *("proxy_url", "proxy_ca_certificate", "proxy_excludes", "default_content_type", "http1_only", "http2_only"),
    *("http2_keep_alive_interval", "http2_keep_alive_timeout", "http2_keep_alive_while_idle"),
}

_threads_of: int | None = None  # the process that obstore's threads run in, once they do


class Objects:
    """One store of objects. Thread-safe; blocks. Its errors are ``StoreError``s, and only reading raises another.

    :param url: ``file:///DIR``, which is made if its parent is there; ``s3://BUCKET/PREFIX``, ``gs://BUCKET/PREFIX``,
        ``az://CONTAINER/PREFIX``, whose bucket is there; ``memory://`` for trials.
    :param options: of a remote store, by obstore's names (docs/files.md): keys, region, endpoint, "allow_http". What is
        not given comes from the environment, as the vendors' own tools take it.
    :raises ValueError: they name no store that can be used; the text is for whoever runs the server.
    """

    def __init__(self, url: str, options: Mapping[str, str] | None = None) -> None:
        scheme = url.partition(":")[0].lower()
        if scheme == "file" and options:
            raise ValueError("a store in a local folder has no options")
        self._local = ObjectFolder(url) if scheme == "file" else None
        self.folder: str | None = None if self._local is None else self._local.path
        """The local folder; None for all other stores."""
        try:
            import obstore
            import obstore.store
        except ImportError as error:
            raise ValueError("stored files need obstore: pip install 'streamware[files]'") from error
        self._library: Any = obstore
        self.name = url if self.folder is None else f"file://{self.folder}"
        """Which store it is, for the log."""
        if self.folder is not None:
            self._store: Any = obstore.store.LocalStore(self.folder)
        elif scheme == "memory":
            self._store = obstore.store.MemoryStore()
        else:
            parts = urlsplit(url)
            if scheme not in ("s3", "gs", "az", "abfs", "abfss") or not parts.netloc:
                raise ValueError("a store's URL is file:///DIR, s3://BUCKET/PREFIX, gs://... or az://...")
            if (parts.password or parts.query) or (parts.username and not scheme.startswith("abfs")):
                raise ValueError("a store's URL holds no keys; they are options, or stand in the environment")
            self._store = _remote(obstore.store, url, dict(options or {}))

    def check(self) -> None:
        """Raise StoreUnavailable where a local folder is not the one it was, as when its disk is not mounted."""
        if self._local is not None:
            self._local.check()

    def writer(self, key: str) -> ObjectWriter:
        """Begin an object. The caller ends it by ``close()`` or ``discard()``.

        :raises StoreUnavailable:
        """
        self.check()
        return ObjectWriter(self, key)

    def chunks(self, key: str, start: int, length: int, chunk_bytes: int) -> Chunks:
        """Read ``[start, start + length)`` of an object of a store that is not local, ``chunk_bytes`` or some more at a
        time. Returns when the store has answered. The caller closes the result.

        ``abort()`` makes the reader stop at its next piece. One that is waiting for the store just then stops when that
        answers, or its waiting ends by itself: after 20 s of silence, and with what is tried again, 90 s.

        :raises MemberNotFound: there is no such object.
        :raises SizeMismatch: it is shorter.
        :raises StoreUnavailable, StoreFailed:
        """
        return RemoteChunks(partial(self._answer, key, chunk_bytes), f"{self.name}: {key}", start, length)

    def _answer(self, key: str, chunk_bytes: int, start: int, stop: int) -> Callable[[], bytes]:
        """Ask for a range; what is returned gives the next bytes of the answer, and none at its end."""
        answer = self._call(self._library.get, key, options={"range": (start, stop)})
        if tuple(answer.range) != (start, stop):
            raise SizeMismatch(f"{key}: {answer.range} came of the range {start, stop}")
        # PERF: 0.5 CPU seconds a GiB; range by range, in pieces of 1 to 4 MiB, it took three times as much, and many
        # more requests.
        return partial(self._guarded, next, answer.stream(min_chunk_size=chunk_bytes), b"")

    def delete(self, keys: Sequence[str]) -> None:
        """Delete objects; that some are gone already is fine.

        :raises StoreUnavailable, StoreFailed: some may be deleted by then.
        """
        self.check()
        if self._local is not None:
            self._local.delete(keys)
            return
        for place in range(0, len(keys), _AT_ONCE):
            some = list(keys[place : place + _AT_ONCE])
            try:
                self._call(self._library.delete, some)
            except MemberNotFound:  # as only some stores say, of the first
                self._delete_each(some)

    def _delete_each(self, keys: Sequence[str]) -> None:
        for key in keys:
            try:
                self._call(self._library.delete, key)
            except MemberNotFound:
                pass  # as it is to be

    def keys_of(self, id: str) -> list[str]:
        """The keys of all objects that came by one upload, sorted.

        :raises StoreUnavailable, StoreFailed:
        """
        self.check()
        if self._local is not None:
            return self._local.keys_of(id)
        return sorted(key for key, _ in self._listed(f"{id[:2]}/{id}"))

    def belong_to(self, database: str) -> bool:
        """Whether the objects are those of a database; the first that asks is the one.

        :param database: its identity (``FileRows.identity``).
        :raises StoreUnavailable, StoreFailed:
        """
        self.check()
        if self._local is not None:
            return self._local.belong_to(database)
        for _ in range(2):
            try:
                found = self._call(self._library.get, _OWNER)
                return bytes(self._guarded(found.bytes)) == database.encode()
            except MemberNotFound:
                self._call(self._library.put, _OWNER, database.encode())
        return True

    def old_keys(self, older: float) -> Iterator[str]:
        """The keys of all objects that were last modified at least ``older`` seconds ago.

        :raises StoreUnavailable, StoreFailed: while it is iterated.
        """
        self.check()
        if self._local is not None:
            yield from self._local.old_keys(older)
            return
        latest = time.time() - older
        yield from (key for key, modified in self._listed(None) if modified <= latest)

    def reading(self, key: str) -> Reading | None:
        """Have ``unread`` say that an object is being read, until what is returned is closed. Of a remote store nobody
        can say so: None.

        :raises MemberNotFound: there is no such object.
        """
        return None if self._local is None else self._local.reading(key)

    def unread(self, key: str) -> bool:
        """Whether nobody has this object in ``reading``, in any process that the file system's locks reach."""
        return self._local is None or self._local.unread(key)

    def clean(self, older: float) -> int:
        """Remove what killed writers left in a local folder at least ``older`` seconds ago, and empty folders.

        Remote stores keep what was sent of such objects out of sight, and forget it by a rule of the bucket's
        (docs/files.md).

        :return: how many objects that never became whole.
        :raises StoreUnavailable, StoreFailed:
        """
        self.check()
        return 0 if self._local is None else self._local.clean(older)

    def _listed(self, home: str | None) -> Iterator[tuple[str, float]]:
        """The keys of all objects below a folder, or of all, and when each was last modified."""
        stream = iter(self._call(self._library.list, home, chunk_size=_AT_ONCE))
        while True:
            some = self._guarded(next, stream, None)
            if some is None:
                return
            for found in some:
                yield found["path"], found["last_modified"].timestamp()

    def _call(self, function: Any, *given: Any, **named: Any) -> Any:
        """Have obstore do something with the store. Its errors are mapped; MemberNotFound: no such object."""
        return self._guarded(function, self._store, *given, **named)

    def _guarded(self, function: Any, *given: Any, **named: Any) -> Any:
        global _threads_of
        if _threads_of != os.getpid():
            if _threads_of is not None:  # it would wait for ever for threads that were left behind
                raise StoreFailed("obstore was used before this process was forked; make the file store in each worker")
            _threads_of = os.getpid()
        try:
            return function(*given, **named)
        except Exception as error:
            raise mapped(error, getattr(function, "__name__", "obstore")) from error
        except BaseException as error:
            if type(error).__name__ != "PanicException":  # what a failed assertion in Rust becomes
                raise
            raise StoreFailed(f"obstore panicked: {error}") from error


class ObjectWriter:
    """An object on its way into the store; used by one thread at a time. After an error only ``discard()`` is left.

    Holds up to 256 KiB in memory for a local folder, and up to 16 MiB for other stores.
    """

    def __init__(self, objects: Objects, key: str) -> None:
        self._objects = objects
        self._key = key
        self._written = 0
        self._ending = False  # it may be in the store already
        self._broken = False
        self._file: Any = objects._guarded(
            objects._library.open_writer,
            objects._store,
            key,
            buffer_size=_REMOTE_BUFFER if objects.folder is None else _LOCAL_BUFFER,
            max_concurrency=1,
        )

    def write(self, piece: bytes | memoryview) -> None:
        """Add some bytes. Blocks while the store takes them.

        :raises StoreFull, StoreUnavailable, StoreFailed:
        """
        if self._file is None or self._broken:
            raise StoreFailed("an object was written to after its end, or after an error")
        self._broken = True  # until this has gone well
        self._do(self._file.write, piece)
        self._written += len(piece)
        self._broken = False

    def _do(self, function: Any, *given: Any) -> None:
        try:
            self._objects._guarded(function, *given)
        except MemberNotFound as error:  # as a store says of a bucket, or a system of a folder, that is not there
            raise StoreFailed(error.detail) from error

    def close(self) -> None:
        """End the object: when this returns, it is whole and survives a loss of power. Once; after it, nothing is left
        to discard.

        :raises StoreFull, StoreUnavailable, StoreFailed: then ``discard()`` is to follow.
        """
        if self._file is None or self._broken:
            raise StoreFailed("an object was ended after its end, or after an error")
        self._broken = self._ending = True
        self._do(self._file.close)
        if self._objects._local is not None:
            self._objects._local.sync(self._key)
        self._file = None

    def discard(self) -> None:
        """Give the object up: nothing of it stays. Idempotent, raises nothing, and does nothing to one that ended well.

        Where a remote store does not answer, what it was sent stays out of sight until the bucket's rule removes it.
        """
        file, self._file = self._file, None
        if file is None:
            return
        objects = self._objects
        try:
            sent = objects.folder is None and self._written >= _REMOTE_BUFFER
            if sent and not file.closed():
                # Nothing else ends an upload in several requests, and what is only let go stays there.
                objects._guarded(file.close)
            del file  # a local one's staged file goes with it
            if self._ending or sent:
                objects.delete([self._key])
        except StreamwareError as error:
            _log.warning("%s: leftovers of %s stay: %s", objects.name, self._key, error)


def _remote(stores: Any, url: str, options: dict[str, str]) -> Any:
    # What is given of these, obstore takes in place of what its environment says.
    vendor = {"s3": "AWS", "gs": "GOOGLE"}.get(url.partition(":")[0].lower(), "AZURE")
    told = {name: os.environ.get(f"{vendor}_{name.upper()}") for name in _CLIENT_OPTIONS}
    client = {**_CLIENT, **{name: value for name, value in told.items() if value}}
    client.update({name: options.pop(name) for name in list(options) if name in _CLIENT_OPTIONS})
    try:
        return stores.from_url(url, config=options, client_options=client, retry_config=_RETRY)
    except Exception as error:
        raise ValueError(f"the store {url} cannot be used: {first_line(error)}") from error
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise ValueError(f"the store {url} cannot be used with the options {', '.join(options)}") from error
