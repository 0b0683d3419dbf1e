"""The main job on real input: every file of Python's standard library, from nginx, as one archive, each way in."""

from __future__ import annotations

import json
import shutil
import subprocess
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.conftest import judge
from tests.hosts.falcon_servers import hosting
from tests.hosts.nginx import nginx
from tests.hosts.serve_process import Served

WAYS = ("serve", "wsgi_middleware", "asgi_middleware", "falcon_wsgi", "falcon_asgi")


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The standard library without what was installed beside it."""
    target = tmp_path_factory.mktemp("library") / "tree"
    leave_out = shutil.ignore_patterns("site-packages", "dist-packages", "__pycache__", "config-*")
    shutil.copytree(sysconfig.get_paths()["stdlib"], target, symlinks=False, ignore=leave_out, dirs_exist_ok=True)
    for folder in sorted((p for p in target.rglob("*") if p.is_dir()), reverse=True):
        if not any(folder.iterdir()):
            folder.rmdir()  # no upstream can tell of an empty folder
    return target


@pytest.fixture(scope="module")
def upstream(library: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with nginx(library, tmp_path_factory.mktemp("nginx")) as url:
        yield url


@pytest.mark.judge("curl", "unzip", "tar", "diff")
@pytest.mark.parametrize("form", ["zip", "tar"])
@pytest.mark.parametrize("way", WAYS)
def test_the_standard_library_arrives_as_it_is(
    way: str, form: str, library: Path, upstream: str, tmp_path: Path
) -> None:
    paths = sorted(str(p.relative_to(library)) for p in library.rglob("*") if p.is_file())
    assert len(paths) > 500
    listing = tmp_path / "listing"
    listing.write_text("\n".join(paths))
    name = f"library.{form}"
    manifest = tmp_path / "manifest.json"
    manifest.write_text(
        json.dumps({"name": name, "members": [{"name": p, "url": f"{upstream}/{quote(p)}"} for p in paths]})
    )
    post = ["-H", "Content-Type: application/json", "--data-binary", f"@{manifest}"]
    if way == "serve":
        with Served(tmp_path, "--allow", f"{upstream}/") as served:
            fetch(f"{served.url}/bundle", tmp_path, name, *post)
    else:
        kind = "asgi" if "asgi" in way else "wsgi"
        env = {"UPSTREAM": upstream, "LISTING": str(listing)}
        with hosting(kind, f"tests.hosts.main_apps:{way}", log=tmp_path / "log", env=env) as host:
            url = f"http://127.0.0.1:{host.port}"
            if way.startswith("falcon"):
                fetch(f"{url}/{name}", tmp_path, name)
            else:
                fetch(f"{url}/bundle", tmp_path, name, *post)
    out = tmp_path / "out"
    out.mkdir()
    unpack = [judge("unzip"), "-q", name, "-d", "out"] if form == "zip" else [judge("tar"), "-xf", name, "-C", "out"]
    subprocess.run(unpack, cwd=tmp_path, check=True, timeout=120)
    found = subprocess.run([judge("diff"), "-r", library, out], capture_output=True, text=True, timeout=120)
    assert (found.returncode, found.stdout, found.stderr) == (0, "", "")


def fetch(url: str, folder: Path, name: str, *more: str) -> None:
    """Download with curl; the file is as long as the server said."""
    head = folder / "head"
    command = [judge("curl"), "-sS", "--fail-with-body", "-D", str(head), "-o", str(folder / name), *more, url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, (done.stderr, (folder / name).read_bytes()[:2000] if (folder / name).exists() else "")
    fields = dict(
        line.lower().split(": ", 1)
        for line in head.read_text().splitlines()
        if line.startswith(("C", "c")) and ": " in line
    )
    assert int(fields["content-length"]) == (folder / name).stat().st_size
