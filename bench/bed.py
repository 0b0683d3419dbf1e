"""The test bed: a folder, two cores, an upstream, and a server for each contender of a case.

The rule of this file: what a case needs is made before its clock runs and is gone when it ends.
"""

from __future__ import annotations

import json
import mmap
import os
import re
import resource
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from bench.cases import Case
from bench.contenders import BARE, DAV, FLOOR, MOD_ZIP, Contender, lacking, server_command
from bench.nginx import nginx_command, write_dav, write_floor, write_mod_zip, write_upstream
from bench.ready import write_archive
from bench.servers import Server, find_cores, find_program, free_port
from bench.sets import SETS, TINY, Made, MadeSet, make_set, scaled

__all__ = ["Bed", "Laid"]


@dataclass(frozen=True, slots=True)
class Laid:
    """A case that is ready: its members, and the file that tells contenders of them."""

    case: Case
    made: MadeSet
    members: tuple[Made, ...]
    jobs: Path
    upstream: int  # the port members come from
    ready: Path  # where an archive of them may be made
    lists: Path  # and a list for mod_zip
    stores: Path  # and files kept that are uploaded, in a folder for each contender

    @property
    def bytes(self) -> int:
        return sum(member.size for member in self.members)

    @property
    def file(self) -> Path:
        """What is uploaded."""
        return self.made.folder / self.members[0].name

    @property
    def tiny(self) -> Path:
        return next(self.made.folder.parent.joinpath(TINY.key).iterdir())


class Bed:
    """
    :param modules: the folder npm installed into; None where there is none.
    :param mod_zip: a module built for the nginx that is installed; None leaves it out.
    """

    def __init__(
        self, work: Path, *, scale: float = 1.0, modules: Path | None = None, mod_zip: str | None = None
    ) -> None:
        self.cores = find_cores()
        self.scale = scale
        self.work = work
        self._root = work / "root"
        self._modules = modules
        self._mod_zip = mod_zip
        self._nginx = find_program("nginx")
        self._node = find_program("node")
        self._tusd = find_program("tusd")
        self._stack = ExitStack()
        self._logs = 0
        self._cases = 0
        self.upstream: int | None = None  # the port of nginx with all members; None without nginx

    def __enter__(self) -> Bed:
        if self.cores.others is not None:
            os.sched_setaffinity(0, {self.cores.others})
        # mod_zip keeps a file open for each member.
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        self._root.mkdir(parents=True)
        make_set(TINY, self._root)
        if self._nginx is not None:
            self.upstream = free_port()
            conf = write_upstream(self.work / "upstream", self.upstream, self._root)
            self._stack.enter_context(
                Server(nginx_command(self._nginx, conf), self._log(), cores=[self.cores.others], port=self.upstream)
            )
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    def _log(self) -> Path:
        self._logs += 1
        return self.work / f"said-{self._logs}"

    def why_not(self, contender: Contender, case: Case) -> str | None:
        """What a contender lacks here; None where it lacks nothing."""
        if contender.host == "nginx" and self._nginx is None:
            return "no nginx"
        if contender.key == MOD_ZIP and self._mod_zip is None:
            return "no module named by --mod-zip"
        if contender.host == "node" and (self._node is None or self._modules is None):
            return "no npm, or it could not install"
        if contender.host == "tusd" and self._tusd is None:
            return "no tusd"
        if not case.local and not case.late and self._nginx is None:
            return "no nginx to come from"
        return lacking(contender)

    def warm(self, wanted: int) -> None:
        """Touch so many bytes of memory, three quarters of what is free at most, so that nobody is the first to.

        On a virtual machine a page that the guest has not used lately costs several times the writing of it; who
        happens to get such pages for its files would pay for all others. Hosts take free memory back little by little,
        so much more is touched than will be used.
        """
        found = re.search(r"^MemAvailable: *([0-9]+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE)
        free = int(found[1]) * 1024 if found else 0
        with mmap.mmap(-1, max(mmap.PAGESIZE, min(wanted, free // 4 * 3))) as memory:
            memory.madvise(mmap.MADV_HUGEPAGE)  # large files are kept in large pages
            for at in range(0, len(memory), mmap.PAGESIZE):
                memory[at] = 1

    @contextmanager
    def lay(self, case: Case) -> Iterator[Laid]:
        """Make a case's members, and its own upstream where they are late."""
        self._cases += 1
        wanted = scaled(SETS[case.set], self.scale)
        # A name of its own for each case: nginx remembers the files that it has served.
        made = make_set(replace(wanted, key=f"{self._cases}-{wanted.key}"), self._root)
        try:
            members = made.members[: max(1, round(len(made.members) * case.share))]
            with ExitStack() as stack:
                port = self._late(stack, made, case.late) if case.late else self.upstream or 0
                jobs = self.work / "jobs.json"
                jobs.write_text(json.dumps(self._jobs(case, made, members, port)), encoding="utf-8")
                ready, lists = (self._root / f"{name}-{self._cases}" for name in ("ready", "lists"))
                stores = self.work / f"stores-{self._cases}"
                yield Laid(case, made, members, jobs, port, ready, lists, stores)
                for folder in (ready, stores):
                    shutil.rmtree(folder, ignore_errors=True)
        finally:
            made.remove()

    def _late(self, stack: ExitStack, made: MadeSet, seconds: float) -> int:
        command = [sys.executable, "-m", "bench.programs.late", "{port}", str(self._root), str(seconds)]
        return stack.enter_context(Server(command, self._log(), cores=[self.cores.others])).port

    def _jobs(self, case: Case, made: MadeSet, members: tuple[Made, ...], port: int) -> dict[str, object]:
        tiny = [Made(p.name, p.stat().st_size, 0, 1_700_000_000) for p in sorted((self._root / TINY.key).iterdir())]
        return {
            name: {
                "local": case.local,
                "compress": case.compress,
                "folder": str(self._root / folder),
                "url": f"http://127.0.0.1:{port}/{folder}",
                "members": [
                    (m.name, m.size, m.crc32 if case.crcs and name == "archive" else None, m.modified) for m in chosen
                ],
            }
            for name, folder, chosen in (("archive", made.key, members), ("tiny", TINY.key, tiny))
        }

    def server(self, contender: Contender, laid: Laid) -> Server:
        """A contender's server, pinned and not started yet."""
        cores = [self.cores.server] if contender.pinned else self.cores.every
        store = laid.stores / contender.key
        if contender.takes:
            store.mkdir(parents=True)
        if contender.key == DAV:
            port = free_port()
            conf = write_dav(self.work / f"dav-{self._cases}", port, store)
            assert self._nginx is not None
            return Server(nginx_command(self._nginx, conf), self._log(), cores=cores, port=port)
        if contender.host == "nginx":
            port = free_port()
            conf = (self._floor if contender.key == FLOOR else self._zipping)(laid, port)
            assert self._nginx is not None
            return Server(nginx_command(self._nginx, conf), self._log(), cores=cores, port=port)
        env = {**contender.env, "BENCH_JOBS": str(laid.jobs), "BENCH_MODULES": str(self._modules)}
        env |= {"BENCH_STORE": str(store)}
        if contender.key == BARE:
            self._make_ready(laid)
            env |= {"BENCH_READY": str(laid.ready)}
            env |= {"BENCH_READY_URL": f"http://127.0.0.1:{laid.upstream}/{laid.ready.name}"}
        threads = max(8, 128 if laid.case.clients else 0)
        program = {"node": self._node, "tusd": self._tusd}.get(contender.host)
        command = server_command(contender, store, threads=threads, program=program)
        return Server(command, self._log(), cores=cores, env=env)

    def _make_ready(self, laid: Laid) -> None:
        if laid.ready.exists():
            return
        laid.ready.mkdir()
        for name in ("archive", "tiny"):
            write_archive(laid.jobs, name, laid.ready / f"{name}.zip")

    def _floor(self, laid: Laid, port: int) -> Path:
        self._make_ready(laid)
        return write_floor(self.work / "floor", port, laid.ready, None if laid.case.local else laid.upstream)

    def _zipping(self, laid: Laid, port: int) -> Path:
        jobs = json.loads(laid.jobs.read_text(encoding="utf-8"))
        laid.lists.mkdir()
        for name, job in jobs.items():
            where = f"/file/{Path(job['folder']).name}" if laid.case.local else f"/up/{Path(job['folder']).name}"
            lines = (
                f"{'-' if crc is None else f'{crc:08x}'} {size} {where}/{member} {member}\n"
                for member, size, crc, _ in job["members"]
            )
            (laid.lists / f"{name}.zip").write_text("".join(lines), encoding="utf-8")
        assert self._mod_zip is not None
        work = self.work / "mod_zip"
        return write_mod_zip(
            work, port, self._mod_zip, self._root, laid.lists.name, upstream=laid.upstream, lists=self.upstream or 0
        )

    def live_folder(self, name: str) -> Path:
        """A folder that is not there yet, whose files the upstream always looks at anew."""
        return self._root / f"live-{name}"

    def other_server(self, command: Sequence[str], env: Mapping[str, str] | None = None) -> Server:
        """A server that is no contender, pinned as they are and not started yet."""
        return Server(command, self._log(), cores=[self.cores.server], env=env)
