"""One interrupted upload, by a seed: what is sent, by which client, and what strikes it at which byte.

The rule of this file: a trial claims nothing by itself but what its client was told. What an answer announced is noted
in ``Setting.announced``, and the rest of the world is compared with that.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import random
import re
import signal
import zlib
from base64 import b64encode
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

from tests.files.cutting import Cutter
from tests.files.sending import Line, Tus, ask, available, chunked, content, digest, form
from tests.files.services import Service, World, gone
from tests.files.tusjs import TusPage

__all__ = ["KINDS", "Setting", "Trial"]

KINDS = ("raw", "raw", "form", "tus", "tus", "tus", "joined", "tuspy", "tuspy", "tusjs", "delete")
_REMEMBERED = re.compile(r'/files/[0-9a-f-]{36}"}}}\Z')
_TRIES = 12  # of a client that is no longer interrupted: what is still going on elsewhere may answer 409 or 423


class Setting:
    """Services of one kind at one place, behind one line. One of them unless the place is shared."""

    def __init__(self, world: World, kind: str, *, shared: bool) -> None:
        self.world = world
        self.kind = kind
        self.place = world.shared() if shared else world.local()
        self.services = [world.service(kind, self.place) for _ in range(2 if shared else 1)]
        self.cutter = Cutter(self.services[0].port)
        self.announced: dict[str, str] = {}  # id -> digest
        self.contents: dict[str, int] = {}  # digest -> size, of all that was ever begun
        self.deleted: set[str] = set()

    def choose(self, rng: random.Random) -> Service:
        """The replica that answers what is asked next."""
        service = rng.choice(self.services)
        if not service.running:
            service.start()
        self.cutter.target = service.port
        return service

    def announce(self, url: str, sha256: str) -> str:
        found = url.rpartition("/")[2]
        assert self.announced.setdefault(found, sha256) == sha256, f"{found} was announced for something else"
        return found

    def check(self, ids: set[str] | None = None) -> None:
        """Each announced file is whole, or 404 if it was deleted; nothing is listed that is not whole."""
        for service in self.services:
            if not service.running:
                service.start()
        port = self.services[-1].port
        for found in self.announced.keys() if ids is None else ids:
            answer = ask(port, "GET", f"/files/{found}")
            if found in self.deleted and answer.status == 404:
                continue
            assert answer.status == 200, (found, answer.status, answer.body[:300])
            assert digest(answer.body) == self.announced[found], f"{found} has other bytes"

    def close(self) -> None:
        self.cutter.close()
        for service in self.services:
            if service.running:
                service.kill()


class Trial:
    """``run`` does it; ``told`` is what happened, for whoever has to find out what went wrong."""

    def __init__(self, seed: int, kind: str, setting: Setting, work: Path, page: TusPage | None) -> None:
        self.rng = random.Random(f"trial {seed}")
        self.kind = kind
        self.setting = setting
        self.work = work
        self.page = page
        self.told: list[str] = []
        size = self.rng.choice([0, 1, self.rng.randrange(20_000), *[self.rng.randrange(900_000)] * 4])
        if kind in ("tuspy", "tusjs", "delete", "joined"):
            size = max(size, 2000)
        self.data = content(f"{seed} {kind}", size)
        self.name = f"{kind}-{seed}.bin"
        self.sha256 = digest(self.data)
        setting.contents[self.sha256] = size
        self.mine: set[str] = set()

    def run(self) -> None:
        getattr(self, f"_{self.kind}")()
        self.setting.check(self.mine)

    # --- what strikes ---

    def _strike(self, total: int, client: Callable[[], object] | None = None) -> int:
        """Let something strike during the next requests, of about ``total`` bytes; the port to send them to.

        :param client: kills the client, where that is a process of its own.
        """
        service = self.setting.choose(self.rng)
        database = ["database"] * (self.setting.place.folder is None)
        how = self.rng.choice(["line", "server", "server", *database] + ["client"] * 3 * (client is not None))
        way = "down" if self.rng.random() < 0.2 else "up"
        upto = self.rng.randrange(1, 400 if way == "down" else max(total, 0) + 600)
        self.told.append(f"{how} {way} {upto} at {self.setting.services.index(service)}")
        self.setting.cutter.arm(
            upto,
            {"line": None, "server": service.kill, "database": self._crash_database, "client": client}[how],
            way=way,
        )
        return self.setting.cutter.port

    def _crash_database(self) -> None:
        self.setting.world.cluster.kill()
        self.setting.world.cluster.start()

    def _calm(self) -> int:
        """Nothing strikes any more. The port of the line, with a service behind it."""
        self.setting.cutter.disarm()
        self.setting.choose(self.rng)
        return self.setting.cutter.port

    def _announced(self, url: str, sha256: str | None = None) -> None:
        self.mine.add(self.setting.announce(url, sha256 or self.sha256))

    # --- one request ---

    def _raw(self) -> None:
        headers = [("Content-Disposition", f'attachment; filename="{self.name}"'), ("Connection", "close")]
        if self.rng.random() < 0.5:
            body, framing = chunked(self.data, self.rng.choice([7777, 65536])), ("Transfer-Encoding", "chunked")
        else:
            body, framing = self.data, ("Content-Length", str(len(self.data)))
        if self.rng.random() < 0.3:
            headers.append(("Repr-Digest", f"sha-256=:{b64encode(hashlib.sha256(self.data).digest()).decode()}:"))
        self._once([*headers, framing], body)

    def _form(self) -> None:
        other = content(f"{self.name} other", self.rng.randrange(100_000))
        self.setting.contents[digest(other)] = len(other)
        media_type, body = form([(self.name, self.data), ("other.bin", other)], {"note": "kept with care"})
        headers = [("Content-Type", media_type), ("Content-Length", str(len(body))), ("Connection", "close")]
        self._once(headers, body, digest(other))

    def _once(self, headers: list[tuple[str, str]], body: bytes, second: str | None = None) -> None:
        for left in reversed(range(self.rng.randint(1, 3) + 1)):
            port = self._strike(len(body)) if left else self._calm()
            with suppress(OSError, http.client.HTTPException), Line(port) as line:
                with suppress(ConnectionError):
                    line.head("POST", "/files", headers)
                    line.send(body)
                answer = available(line.answer())
                assert answer.status == 201 or (left and answer.status in (400, 408)), (answer.status, answer.body)
                if answer.status == 201:
                    self.told.append("stored")
                    told = answer.document
                    files = told["files"] if second else [told]
                    for file, sha256 in zip(files, [self.sha256, second], strict=False):
                        assert file["sha256"] in (sha256, None), file
                        self._announced(file["url"], sha256)
                    continue
            assert left, "what nobody interrupted was not stored"

    # --- tus, by a client of our own ---

    def _tus(self) -> None:
        self._upload(self.data, {})

    def _joined(self) -> None:
        at = self.rng.randrange(len(self.data))
        urls = [self._upload(part, {"Upload_Concat": "partial"}) for part in (self.data[:at], self.data[at:])]
        told = {**Tus.version, "Upload-Concat": f"final;{' '.join(urls)}", "Content-Length": "0"}
        answer = ask(self._calm(), "POST", "/files", told)
        assert answer.status == 201, (answer.status, answer.body[:500])
        self._announced(answer.headers["location"])

    def _upload(self, data: bytes, headers: dict[str, str]) -> str:
        """A whole tus upload through all that strikes; its path."""
        tus, path, acknowledged = Tus(), "", 0
        piece = bool(headers)  # of what is joined later
        length = None if not piece and data and self.rng.random() < 0.2 else len(data)
        left = self.rng.randint(1, 4)
        tries = 0
        while True:
            calm = left <= 0
            port = self._calm() if calm else self._strike(len(data) - acknowledged)
            left -= 1
            tries += calm
            assert tries < _TRIES, "an upload that nobody interrupts does not get on"
            with suppress(OSError, http.client.HTTPException):
                if not path:
                    first = data[: self.rng.randrange(len(data) + 1)] if self.rng.random() < 0.3 else b""
                    answer = available(tus.create(port, length, self.name, first, **headers))
                    assert answer.status == 201, (answer.status, answer.body[:500])
                    path = answer.headers["location"]
                    if first:
                        acknowledged = int(answer.headers["upload-offset"])
                at = tus.offset(port, path)
                self.told.append(f"at {at}")
                assert acknowledged <= at <= len(data), (acknowledged, at, len(data))
                if at < len(data) or (length is None and at == len(data)):
                    end = self.rng.choice([len(data), self.rng.randint(at, len(data))]) if not calm else len(data)
                    more = self._checked(data[at:end])
                    if length is None and end == len(data):
                        more["Upload_Length"] = str(len(data))
                    answer = available(tus.patch(port, path, at, data[at:end], **more))
                    self.told.append(f"{answer.status}")
                    if answer.status in (409, 423) or (answer.status in (400, 408, 404) and not calm):
                        assert answer.status != 404, answer
                        continue
                    assert answer.status == 204, (answer.status, answer.body[:500])
                    acknowledged = int(answer.headers["upload-offset"])
                    assert acknowledged == end
                    if length is None and end == len(data):
                        length = len(data)
                if calm and tus.offset(port, path) == len(data):
                    break
        if not piece:
            self._announced(path)
        return path

    def _checked(self, data: bytes) -> dict[str, str]:
        if self.rng.random() < 0.7:
            return {}
        which = self.rng.choice(["sha1", "sha256", "crc32"])
        raw = zlib.crc32(data).to_bytes(4, "big") if which == "crc32" else hashlib.new(which, data).digest()
        return {"Upload_Checksum": f"{which} {b64encode(raw).decode()}"}

    # --- tus, by others' clients ---

    def _tuspy(self) -> None:
        path, memory = self.work / self.name, self.work / f"{self.name}.json"
        path.write_bytes(self.data)
        checksum = ["checksum"] if self.rng.random() < 0.5 else []
        piece = self.rng.choice([50_000, 300_000, 10_000_000])
        for left in reversed(range(self.rng.randint(1, 3) + _TRIES)):
            log = self.work / f"{self.name}-{left}.log"
            running: list[int] = []
            if left < _TRIES:
                self._calm()
            else:
                self._strike(len(self.data), partial(_kill, running))
            target = [f"{self.setting.cutter.url}/files", str(path), str(memory), str(piece), *checksum]
            running.append(self.setting.world.nursery.bear(["tests.files.tuspy_client", *target], log))
            gone(running[0], 60)
            said = log.read_text()
            self.told.append(said.splitlines()[-1] if said else "killed")
            if found := re.search(r"^uploaded (\S+)", said, re.MULTILINE):
                self._announced(found[1])
                return
            # Killed while it wrote, it has forgotten; a Location of which it saw but half leads nowhere.
            if memory.exists() and not _REMEMBERED.search(memory.read_text()):
                memory.unlink()
        raise AssertionError("tuspy did not get through")

    def _tusjs(self) -> None:
        assert self.page is not None
        piece = self.rng.choice([None, 100_000])
        for left in reversed(range(self.rng.randint(1, 3) + _TRIES)):
            calm = left < _TRIES
            self._calm()
            self.page.open(f"{self.setting.cutter.url}/{'files' if self.setting.kind == 'serve' else 'healthz'}")
            if not calm:
                self._strike(len(self.data))
            self.page.begin(self.name, self.data, piece, (100, 300, 1000) if calm else ())
            ended = self.page.wait()
            self.told.append(str(ended))
            if ended["state"] == "done":
                self._announced(str(ended["url"]))
                return
        raise AssertionError("tus-js-client did not get through")

    # --- and away again ---

    def _delete(self) -> None:
        port = self._calm()
        answer = ask(port, "POST", "/files", {"Content-Type": "application/x-short-lived"}, self.data)
        assert answer.status == 201, (answer.status, answer.body[:500])
        path = answer.document["url"]
        self._announced(path)
        port = self._strike(0)
        self.setting.deleted.add(path.rpartition("/")[2])
        with suppress(OSError, http.client.HTTPException):
            answer = available(ask(port, "DELETE", path))
            self.told.append(f"{answer.status}")
            assert answer.status == 204, (answer.status, answer.body[:500])
            assert ask(self._calm(), "GET", path).status == 404
        self._calm()


def _kill(pids: list[int]) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
