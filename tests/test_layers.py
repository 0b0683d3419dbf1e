"""The house keeps its floors: walks the imports of every file of the package, by syntax, without running any.

The rule of this file: a new module has no place until it is written into FLOORS, and a same-floor import is none of the
plan until it is written into NEIGHBOURS. Imports under ``TYPE_CHECKING`` do not exist at run time; they may only not
name an outside library that belongs to others, for what a file says in its types it knows.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "streamware"
TOP = "streamware"

# Floor by floor, every module by its name below "streamware.".
FLOORS = {
    module: floor
    for floor, modules_there in {
        # Pure: no I/O, clock, thread, socket, event loop, logger.
        0: """
            errors facts contents columns member_rows members model said report entries plan reply hosting digests
            semantics problems heads inner addresses policy target
            manifest manifest_fields manifest_json assemble
            openings pace wire origin list_head
            stored upload_errors file_request uploads terms
            formats formats.names formats.framing formats.gzip_header formats.dos_time formats.zip_records
            formats.zip_shape formats.zip
            formats.tar
        """,
        # Synchronous I/O.
        1: """
            checksums line coding tally passing recall crew pumps pumped early flights early_line ahead
            foreign passage walk pump
            versions ledger memory_ledger singles ledger_tables ledger_writer shared_ledger
            upstreams proxy exchange arrival answer answered idle dial slots traces
            database sessions together file_tables file_database file_rows
            objects object_chunks object_errors object_folder body_in gunicorn_in sources.stored
            sources sources.own sources.file sources.generated sources.subrequest sources.handover sources.upstream
            sources.healing sources.proof sources.gzipped sources.client sources.places sources.probe
            sources.wsgi_answer
        """,
        # The service.
        2: """
            admission service job links prober member_sources stored_members
            filestore appender hashing leftovers sweeper single intake intake_form intake_tus tus file_service
            file_admission
        """,
        # Hosts: translate in, translate out, decide nothing.
        3: """
            edge edge_replies edge_subrequests edge_threads edge_uploads intercept held middleware
            resources resources_base resources_files
            server server.app server.cli server.files server.folder_page server.guard server.listing server.metrics
            server.page server.raw server.run server.settings server.state server.storage server.tokens server.uploads
            server.uploads_page server.workers
            __main__
        """,
    }.items()
    for module in modules_there.split()
}

# The vocabulary: every floor may use it, its own included.
WORDS = {"errors", "upload_errors", "model", "plan", "reply", "stored"}

# Module -> the other modules of its own floor that it may import. Below its floor it may import anything.
NEIGHBOURS: dict[str, set[str]] = {
    "reply": {"hosting"},
    "body_in": {"gunicorn_in"},
    "uploads": {"file_request", "semantics"},
    "contents": {"facts"},
    "member_rows": {"contents"},
    "members": {"columns", "contents", "member_rows"},
    "model": {"contents", "digests", "facts", "member_rows", "members"},
    "said": {"columns"},
    "plan": {"entries"},
    "heads": {"digests", "semantics"},
    "terms": {"facts", "heads", "semantics"},
    "file_request": {"hosting"},
    "policy": {"addresses", "file_request"},
    "inner": {"heads", "semantics", "target"},
    "manifest_fields": {"digests", "member_rows", "policy", "semantics", "target"},
    "manifest_json": {"manifest_fields", "policy"},
    "manifest": {"member_rows", "manifest_fields", "manifest_json", "policy", "target"},
    "formats.zip_shape": {"entries", "formats.dos_time", "formats.framing", "formats.zip_records"},
    "formats.zip": {"entries", "formats.zip_shape", "formats.zip_records"},
    "assemble": {"facts", "member_rows", "formats.names", "formats.tar", "formats.zip", "policy"},
    "openings": {"formats.framing"},
    "early": {"openings"},
    "flights": {"early"},
    "early_line": {"crew", "early", "openings", "policy"},
    "ahead": {"crew", "early", "flights", "early_line", "openings", "policy"},
    "line": {"crew"},
    "coding": {"checksums", "ledger", "line"},
    "tally": {"coding", "line"},
    "recall": {"checksums", "ledger"},
    "passing": {"coding"},
    "passage": {"ahead", "coding", "line", "passing", "recall"},
    "walk": {"ahead", "coding", "foreign", "ledger", "line", "passage", "passing", "recall", "tally"},
    "versions": {"ledger"},
    "job": {"admission", "member_sources", "prober", "stored_members"},
    "objects": {"object_chunks", "object_errors", "object_folder"},
    "object_folder": {"object_errors"},
    "sessions": {"database"},
    "together": {"sessions"},
    "file_tables": {"database"},
    "file_database": {"database", "file_tables", "sessions", "together"},
    "file_rows": {"file_database", "file_tables"},
    "sources.stored": {"object_folder", "objects", "sources.file"},
    "appender": {"hashing"},
    "filestore": {"appender", "hashing", "leftovers", "sweeper"},
    "sweeper": {"leftovers"},
    "file_admission": {"admission"},
    "intake": {"admission", "filestore"},
    "intake_form": {"admission", "appender", "filestore", "intake"},
    "intake_tus": {"admission", "filestore", "intake"},
    "tus": {"admission", "file_admission", "filestore", "intake", "intake_tus"},
    "file_service": {"admission", "file_admission", "filestore", "intake", "intake_form", "single", "tus"},
    "memory_ledger": {"ledger", "singles"},
    "links": {"job", "member_sources"},
    "service": {"admission", "filestore", "job", "links", "member_sources"},
    "pump": {"ahead", "foreign", "ledger", "line", "walk", "traces"},
    "ledger_tables": {"checksums", "database", "ledger", "sessions"},
    "ledger_writer": {"database", "ledger", "ledger_tables", "memory_ledger", "sessions"},
    "shared_ledger": {"database", "ledger", "ledger_tables", "ledger_writer", "memory_ledger", "sessions"},
    "sources.generated": {"checksums"},
    "sources.gzipped": {"checksums", "passing"},
    "sources.own": {"sources.file", "sources.generated"},
    "sources.healing": {"exchange"},
    "sources.upstream": {
        *("exchange", "sources.client", "sources.healing", "sources.places", "sources.probe", "sources.proof"),
    },
    "sources.places": {"exchange", "sources.client"},
    "sources.probe": {"exchange", "sources.client", "sources.places"},
    "sources.subrequest": {"sources.proof", "sources.wsgi_answer"},
    "sources.client": {"exchange"},
    "upstreams": {"answered", "exchange", "proxy", "slots", "sources.upstream"},
    "proxy": {"answer", "answered", "dial", "exchange", "idle", "slots", "traces"},
    "answered": {"answer", "exchange", "slots"},
    "answer": {"arrival"},
    "held": {"edge"},
    "pumped": {"pumps"},
    "edge": {"edge_threads"},
    "edge_replies": {"edge"},
    "edge_subrequests": {"edge", "edge_threads"},
    "edge_uploads": {"edge", "edge_threads"},
    "middleware": {"edge", "edge_replies", "edge_subrequests", "edge_uploads", "held", "intercept"},
    "resources": {"edge", "resources_base", "resources_files"},
    "resources_base": {"edge"},
    "resources_files": {"edge", "edge_uploads", "resources_base"},
    "server.guard": {"edge", "edge_uploads", "server.page", "server.tokens"},
    "server.listing": {"server.files", "server.page"},
    "server.folder_page": {"server.files", "server.page"},
    "server.app": {
        *("edge", "edge_uploads", "middleware", "resources"),
        *("server.files", "server.folder_page", "server.guard", "server.listing", "server.metrics", "server.page"),
        *("server.raw", "server.tokens", "server.uploads", "server.uploads_page"),
    },
    "server.run": {"server.app", "server.metrics", "server.settings", "server.uploads"},
    "server.settings": {"server.tokens"},
    "server.storage": {"server.state"},
    "server.uploads": {
        "edge",
        "resources",
        "resources_base",
        "server.metrics",
        "server.page",
        "server.uploads_page",
    },
    "server.uploads_page": {"server.page"},
    "server.workers": {"server.metrics", "server.run", "server.settings"},
    "server.cli": {
        *("server.run", "server.settings", "server.state", "server.storage", "server.tokens", "server.workers"),
    },
    "__main__": {"server.cli"},
}

# Outside library -> the only modules that may know it; "server." stands for everything below.
OWNERS = {
    "urllib3": ("proxy",),
    "obstore": ("objects",),
    "multipart": ("intake_form",),
    "asyncio": ("edge", "server."),
    "falcon": ("resources", "server."),
    "itsdangerous": ("links",),
    "isal": ("checksums",),
    "zlib_ng": ("checksums",),
    "zstandard": ("checksums",),
    "sqlalchemy": ("database",),
    "uvicorn": ("server.",),
    "prometheus_client": ("server.",),
}
# Those whose types others may name, to say what they hand on.
SPOKEN = {"sqlalchemy"}

# All that floor 0 may import: what computes, and neither waits, remembers, rolls dice nor touches the machine.
# fmt: off
PURE = {
    "__future__", "array", "base64", "binascii", "bisect", "calendar", "codecs", "collections", "collections.abc",
    "dataclasses", "datetime", "enum", "functools", "hashlib", "html", "ipaddress", "itertools", "json", "math",
    "operator", "posixpath", "re", "string", "struct", "types", "typing", "unicodedata", "urllib.parse", "zlib",
}
# fmt: on
# What is loaded tells daphne from other hosts; it is looked at, never changed. Bytes in memory are no I/O.
PURE_PARTS = {
    "inspect": {"iscoroutinefunction"},
    "io": {"BytesIO"},
    "os": {"PathLike", "fspath"},
    "sys": {"modules"},
}
CLOCKS = {"now", "utcnow", "today"}


def modules() -> dict[str, Path]:
    """Every module of the package by its name below ``streamware.``; the package's own file is ``""``."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


class _Imports(ast.NodeVisitor):
    """Collects (target, names, line, late) of each import that runs; ``target`` is absolute."""

    def __init__(self, module: str, is_package: bool) -> None:
        here = [TOP, *module.split(".")] if module else [TOP]
        self._base = here if is_package else here[:-1]
        self._depth = 0
        self.found: list[tuple[str, tuple[str, ...], int, bool]] = []
        self.for_types: list[tuple[str, tuple[str, ...], int, bool]] = []  # those that do not run

    def visit_If(self, node: ast.If) -> None:
        if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            runs, self.found = self.found, self.for_types
            for branch in node.body:
                self.visit(branch)
            self.found = runs
            for branch in node.orelse:
                self.visit(branch)
            return
        self.generic_visit(node)

    def _function(self, node: ast.AST) -> None:
        self._depth += 1
        self.generic_visit(node)
        self._depth -= 1

    visit_FunctionDef = visit_AsyncFunctionDef = _function  # noqa: N815

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            self.found.append((alias.name, (), node.lineno, self._depth > 0))

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        target = node.module or ""
        if node.level:
            base = self._base[: len(self._base) - node.level + 1]
            target = ".".join([*base, *([target] if target else [])])
        self.found.append((target, tuple(alias.name for alias in node.names), node.lineno, self._depth > 0))


def own_targets(target: str, names: tuple[str, ...], known: set[str]) -> Iterator[str]:
    """Which of our modules an import statement reaches."""
    below = target[len(TOP) + 1 :]
    for name in names or ("",):
        inner = f"{below}.{name}" if below and name else below or name
        yield inner if inner in known else below


def violations(module: str, source: str, *, is_package: bool = False, known: set[str] | None = None) -> list[str]:
    """What a file does that its place does not allow; each with its line."""
    if not module:
        return []  # the package's own file is the front door; tests/test_package.py looks after it
    if module not in FLOORS:
        advice = "write it into tests/test_layers.py with its floor, after checking that it keeps that floor's rule"
        return [f"streamware.{module} is not in FLOORS; {advice}"]
    tree = ast.parse(source)
    visitor = _Imports(module, is_package)
    visitor.visit(tree)
    problems: dict[str, None] = {}
    for target, names, line, late in visitor.found:
        root = target.partition(".")[0]
        if root == TOP:
            complaints = list(_own(module, own_targets(target, names, known or set(FLOORS))))
            complaints += [f"imports {target} inside a function"] if late else []
        else:
            complaints = list(_foreign(module, root, target, names))
        problems.update(dict.fromkeys(f"streamware.{module}:{line}: {complaint}" for complaint in complaints))
    for target, _, line, _ in visitor.for_types:
        root = target.partition(".")[0]
        complaints = [] if root in SPOKEN else list(_owned(module, root))
        problems.update(dict.fromkeys(f"streamware.{module}:{line}: {complaint}" for complaint in complaints))
    if FLOORS[module] == 0:
        problems.update(dict.fromkeys(f"streamware.{module}:{line}: floor 0 {what}" for line, what in _calls(tree)))
    return list(problems)


def _own(module: str, targets: Iterable[str]) -> Iterator[str]:
    floor = FLOORS[module]
    for own in targets:
        if not own:
            yield "imports the package's own front door; import from the module that owns the name"
        elif own not in FLOORS:
            yield f"imports streamware.{own}, which is not in FLOORS"
        elif FLOORS[own] > floor:
            yield f"imports upward: streamware.{own} (floor {FLOORS[own]}) from floor {floor}"
        elif FLOORS[own] == floor and own not in WORDS | NEIGHBOURS.get(module, set()):
            yield f"imports streamware.{own} of its own floor, which NEIGHBOURS does not list"


def _owned(module: str, root: str) -> Iterator[str]:
    owners = OWNERS.get(root)
    if owners is not None and not any(
        module.startswith(owner) if owner.endswith(".") else module == owner for owner in owners
    ):
        yield f"imports {root}, which only {' and '.join(owners)} may know"


def _foreign(module: str, root: str, target: str, names: tuple[str, ...]) -> Iterator[str]:
    yield from _owned(module, root)
    if FLOORS[module] == 0:
        if root not in sys.stdlib_module_names:
            yield f"floor 0 needs no library and imports {root}"
        elif target not in PURE and not (names and set(names) <= PURE_PARTS.get(target, set())):
            yield f"floor 0 is pure and imports {target}, which PURE does not list"


def _calls(tree: ast.AST) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            function = node.func
            if isinstance(function, ast.Name) and function.id in {"open", "print", "input", "__import__"}:
                yield node.lineno, f"calls {function.id}()"
            elif isinstance(function, ast.Attribute) and function.attr in CLOCKS:
                yield node.lineno, f"looks at a clock: .{function.attr}()"


def test_every_file_keeps_its_floor() -> None:
    found = modules()
    problems = [
        problem
        for module, path in found.items()
        for problem in violations(
            module, path.read_text(encoding="utf-8"), is_package=path.name == "__init__.py", known=set(found)
        )
    ]
    assert not problems, "\n" + "\n".join(problems)


def test_the_tables_name_only_what_exists() -> None:
    found = set(modules())
    listed = set(FLOORS) | set(NEIGHBOURS) | {n for ns in NEIGHBOURS.values() for n in ns}
    assert listed <= found, f"gone, but still in the tables of this file: {sorted(listed - found)}"


def test_neighbours_form_no_circle() -> None:
    found = modules()
    edges: dict[str, set[str]] = {}
    for module, path in found.items():
        visitor = _Imports(module, path.name == "__init__.py")
        visitor.visit(ast.parse(path.read_text(encoding="utf-8")))
        edges[module] = {
            own
            for target, names, _, _ in visitor.found
            if target.partition(".")[0] == TOP
            for own in own_targets(target, names, set(found))
        }
    done: set[str] = set()

    def walk(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, "a circle of imports: " + " -> ".join([*trail[trail.index(module) :], module])
        if module not in done:
            for target in sorted(edges.get(module, ())):
                walk(target, (*trail, module))
            done.add(module)

    for module in sorted(edges):
        walk(module, ())


@pytest.mark.parametrize(
    ("module", "source", "complaint"),
    [
        ("plan", "from streamware.pump import Body", "imports upward"),
        ("plan", "from streamware import pump", "imports upward"),
        ("formats.zip", "from ..service import Archiver", "imports upward"),
        ("plan", "from streamware.policy import Policy", "NEIGHBOURS"),
        ("service", "def f():\n    from streamware import errors", "inside a function"),
        ("service", "async def f():\n    import streamware.errors", "inside a function"),
        ("service", "from streamware import Bundle", "front door"),
        ("service", "import streamware.unheard_of", "not in FLOORS"),
        ("unheard_of", "", "not in FLOORS"),
        ("pump", "import urllib3", "only proxy"),
        ("upstreams", "import urllib3.exceptions", "only proxy"),
        ("service", "from urllib3.util import Retry", "only proxy"),
        ("middleware", "import asyncio", "only edge"),
        ("edge_uploads", "import asyncio", "only edge"),
        ("edge_uploads", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import asyncio", "only edge"),
        ("middleware", "import falcon.asgi", "only resources"),
        ("resources_base", "import falcon", "only resources"),
        ("resources_files", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import falcon", "only resources"),
        ("pump", "from isal import isal_zlib", "only checksums"),
        ("resources", "import uvicorn", "only server."),
        ("sessions", "import sqlalchemy", "only database"),
        ("plan", "import time", "is pure"),
        ("plan", "from os import path, open", "is pure"),
        ("plan", "import os.path", "is pure"),
        ("plan", "def f():\n    import threading", "is pure"),
        ("plan", "import urllib.request", "is pure"),
        ("plan", "import asgiref", "needs no library"),
        ("plan", "def f(p):\n    return open(p)", "calls open()"),
        ("plan", "from datetime import datetime\nT = datetime.now()", "clock"),
    ],
)
def test_the_walk_sees_what_it_must_refuse(module: str, source: str, complaint: str) -> None:
    problems = violations(module, source)
    assert problems
    assert all(complaint in problem for problem in problems), problems


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("model", "from os import PathLike, fspath\nfrom streamware.errors import InvalidName"),
        ("formats.zip", "import struct, zlib"),
        ("pump", "import threading, time\nfrom streamware import plan\nfrom streamware.plan import Plan"),
        ("proxy", "import urllib3\nfrom urllib3.util import Retry"),
        ("resources", "import falcon.asgi"),
        ("sessions", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import sqlalchemy"),
        ("server.cli", "import asyncio, falcon\n\ndef main():\n    import uvicorn"),
        ("plan", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from streamware.service import Archiver"),
    ],
)
def test_the_walk_lets_pass_what_is_in_order(module: str, source: str) -> None:
    assert violations(module, source) == []
