"""The package as a user gets it: names, signatures, what an import costs, what the wheel holds, what README says.

Runs in every tox environment, the minimal one (no extras, only pytest beside the package) included.
"""

from __future__ import annotations

import ast
import importlib.metadata
import importlib.util
import inspect
import io
import json
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import streamware
from streamware import Archiver, Bundle, Policy
from streamware.checksums import ENGINE, crc32
from streamware.middleware import AsyncBundleMiddleware, BundleMiddleware
from streamware.resources import AsyncBundleResource, AsyncProxyResource, BundleResource, ProxyResource

ROOT = Path(__file__).resolve().parent.parent


def python(code: str, *, cwd: Path) -> str:
    """Run code in a fresh interpreter that sees the installed packages, and this folder only if ``cwd`` is it."""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


# --- the public contract -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["Archiver", "Bundle", "Policy"])
def test_the_front_door_has_the_public_names(name: str) -> None:
    assert name in streamware.__all__
    assert inspect.isclass(getattr(streamware, name))


def test_all_names_what_is_there() -> None:
    assert sorted(streamware.__all__) == list(streamware.__all__)
    assert all(hasattr(streamware, name) for name in streamware.__all__)


@pytest.mark.parametrize(
    ("function", "names"),
    [
        (Bundle, "name format compress comment on_error"),
        (Bundle.add_url, "self url name mirrors size crc32 etag modified headers"),
        (Bundle.add_file, "self path name"),
        (Bundle.add_tree, "self directory prefix"),
        (Bundle.add_directory, "self name"),
        (Bundle.add_data, "self name data"),
        (Bundle.add_stream, "self name factory size"),
        (Archiver, "policy ledger"),
        (Archiver.open, "self bundle"),
        (Archiver.respond, "self bundle conditions"),
        (BundleMiddleware, "app path archiver"),
        (AsyncBundleMiddleware, "app path archiver"),
        (BundleResource, "archiver"),
        (AsyncBundleResource, "archiver"),
        (ProxyResource, "archiver"),
        (AsyncProxyResource, "archiver"),
    ],
)
def test_signatures_begin_as_documented(function: object, names: str) -> None:
    found = list(inspect.signature(function).parameters)  # type: ignore[arg-type]
    wanted = names.split()
    assert found[: len(wanted)] == wanted


def test_resources_are_made_to_be_extended() -> None:
    assert not inspect.iscoroutinefunction(BundleResource.make_bundle)
    assert inspect.iscoroutinefunction(AsyncBundleResource.make_bundle)
    assert not inspect.iscoroutinefunction(ProxyResource.make_url)
    assert inspect.iscoroutinefunction(AsyncProxyResource.make_url)


def test_the_front_door_only_imports() -> None:
    body = ast.parse((ROOT / "streamware" / "__init__.py").read_text(encoding="utf-8")).body
    assert isinstance(body[0], ast.Expr), "a docstring first"
    for node in body[1:]:
        is_all = isinstance(node, ast.Assign) and [getattr(t, "id", "") for t in node.targets] == ["__all__"]
        assert is_all or isinstance(node, ast.ImportFrom), f"line {node.lineno}: only imports and __all__"


def test_every_module_says_what_it_is_for_and_what_it_offers() -> None:
    for path in sorted((ROOT / "streamware").rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        if not tree.body or path.name == "__main__.py":
            continue
        assert ast.get_docstring(tree), f"{path.name} needs a docstring"
        if path.name != "__init__.py":
            names = {getattr(t, "id", "") for n in tree.body if isinstance(n, ast.Assign) for t in n.targets}
            assert "__all__" in names, f"{path.name} needs __all__"


def test_importing_the_core_loads_nothing_it_does_not_need() -> None:
    loaded = json.loads(python("import json, sys, streamware; print(json.dumps(sorted(sys.modules)))", cwd=ROOT))
    roots = {name.partition(".")[0] for name in loaded}
    assert "urllib3" in roots
    assert not roots & {"asyncio", "asgiref", "falcon", "uvicorn", "prometheus_client", "sqlalchemy", "obstore"}
    assert not roots & {"multiprocessing", "psycopg", "sqlite3", "zstandard", "unittest"}


# --- the core works alone ----------------------------------------------------------------------------------------


def bundle(name: str, tmp_path: Path) -> Bundle:
    (tmp_path / "file.txt").write_bytes(b"from a file")
    bundle = Bundle(name)
    bundle.add_data("data.txt", "from memory")
    bundle.add_file(tmp_path / "file.txt")
    bundle.add_stream("stream.bin", lambda: [b"piece", b" by ", b"piece"] * 10_000, size=140_000)
    bundle.add_directory("empty")
    return bundle


WANTED = {"data.txt": b"from memory", "file.txt": b"from a file", "stream.bin": b"piece by piece" * 10_000}


def read(name: str, tmp_path: Path) -> tuple[bytes, int | None]:
    archiver = Archiver(policy=Policy())
    try:
        body = archiver.open(bundle(name, tmp_path))
        try:
            return b"".join(body), body.length
        finally:
            body.close()
    finally:
        archiver.close()


def test_a_zip_is_made_with_what_is_installed(tmp_path: Path) -> None:
    raw, length = read("a.zip", tmp_path)
    assert length == len(raw)
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        assert {i.filename: archive.read(i) for i in archive.infolist() if not i.is_dir()} == WANTED
        assert "empty/" in archive.namelist()


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz"])
def test_a_tar_is_made_with_what_is_installed(name: str, tmp_path: Path) -> None:
    raw, length = read(name, tmp_path)
    assert length == (len(raw) if name == "a.tar" else None)
    with tarfile.open(fileobj=io.BytesIO(raw)) as archive:
        files = {i.name: archive.extractfile(i) for i in archive if i.isfile()}
        assert {n: f.read() for n, f in files.items() if f is not None} == WANTED


def test_the_checksum_engine_is_the_one_that_is_installed() -> None:
    accelerated = importlib.util.find_spec("isal") is not None or importlib.util.find_spec("zlib_ng") is not None
    assert (ENGINE == "zlib") != accelerated
    assert crc32(b"123456789") == 0xCBF43926  # the check value of CRC-32 in every catalogue


# --- what is installed -------------------------------------------------------------------------------------------


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """The folder of the package as pip put it there; not the source that the tests stand in."""
    where = python(
        "import importlib.util, pathlib\n"
        "spec = importlib.util.find_spec('streamware')\n"
        "print(pathlib.Path(spec.origin).parent if spec else '')",
        cwd=tmp_path,
    ).strip()
    if not where and os.environ.get("CI") != "true":
        pytest.skip("streamware is not installed here; tox installs it")
    assert where
    return Path(where)


def test_the_wheel_holds_all_that_is_not_python(installed: Path) -> None:
    assert (installed / "py.typed").is_file()
    source = ROOT / "streamware"
    shipped = {p.relative_to(source) for p in source.rglob("*") if p.is_file() and "__pycache__" not in p.parts}
    assert {name for name in shipped if not (installed / name).is_file()} == set()


def test_the_version_stands_in_one_place(installed: Path) -> None:
    version = importlib.metadata.version("streamware")
    assert f'version="{version}"' in (ROOT / "setup.py").read_text(encoding="utf-8")
    assert f"## {version}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    for path in sorted((ROOT / "streamware").rglob("*.py")):
        assert version not in path.read_text(encoding="utf-8"), f"{path.name} repeats the version"


# --- what README and CI say --------------------------------------------------------------------------------------


def section(title: str) -> str:
    parts = re.split(r"^## ", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    found = [part for part in parts if part.partition("\n")[0] == title]
    assert len(found) == 1, f"README.md needs one heading {title!r}"
    return found[0]


@pytest.mark.parametrize(("title", "program"), [("Run it", "streamware serve"), ("Test it", "tox")])
def test_readme_gives_one_line_to_run_and_one_to_test(title: str, program: str) -> None:
    blocks = re.findall(r"^```[a-z]*\n(.*?)^```$", section(title), flags=re.MULTILINE | re.DOTALL)
    assert len(blocks) == 1
    assert len(blocks[0].splitlines()) == 1
    assert program in blocks[0]


def test_readme_python_runs(tmp_path: Path) -> None:
    """Each block by itself, as it stands but for where it keeps files. The first fetches from somebody's cluster, so it
    is only read; a block for a framework or extra that is not installed (outside ``tox -e full``) as well."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    assert len(blocks) >= 5
    for number, block in enumerate(blocks):
        block = block.replace("/srv/", f"{tmp_path}/")
        code = compile(block, f"README.md, Python block {number + 1}", "exec")
        roots = re.findall(r"^(?:from|import) (\w+)", block, flags=re.MULTILINE)
        roots += ("obstore", "sqlalchemy") if "FileStore(" in block else ()
        if number and all(importlib.util.find_spec(root) for root in roots):
            exec(code, {"__name__": "readme"})


def test_ci_installs_every_judge_that_the_tests_call() -> None:
    called = set()
    for path in sorted((ROOT / "tests").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", getattr(node.func, "attr", "")) == "judge":
                called |= {a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)}
    listed = dict(re.findall(r"^([\w.-]+):([\w.+-]+)$", (ROOT / ".ci" / "run").read_text("utf-8"), flags=re.MULTILINE))
    assert called - listed.keys() == set(), "write these into the list of .ci/run with their packages"
    assert listed.keys() - called == set(), "no test calls these any more"
