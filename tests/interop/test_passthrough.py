"""Members that a real nginx sends gzip-coded, made on the fly or stored so, judged by every reader of ZIP."""

from __future__ import annotations

import gzip
import os
import random
import socket
import zipfile
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest

from streamware import Archiver, Bundle, Policy
from tests.hosts.nginx import run_nginx
from tests.interop.readers import READERS

_dice = random.Random(23)
LINES = [b"2026-11-21 12:%02d:%02d %08x done\n" % (n // 60 % 60, n % 60, _dice.getrandbits(32)) for n in range(60_000)]
DATAS = {
    "dynamic/big.log": b"".join(LINES),
    "dynamic/small.log": b"".join(LINES[:500]),
    "dynamic/tiny.log": b"x",  # below gzip_min_length: it comes as it is
    "static/big.log": b"".join(LINES[::2]),
    "static/empty.log": b"",
    "plain/big.log": b"".join(LINES[::3]),
}
TIME = 1_700_000_000
_SERVER = """
    server {{
        listen 127.0.0.1:{port};
        root {root};
        gzip_types text/plain;
        gzip_min_length 100;
        location /dynamic/ {{ gzip on; }}
        location /static/ {{ gzip_static on; }}
    }}
"""


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    root, work = tmp_path_factory.mktemp("root"), tmp_path_factory.mktemp("nginx")
    for name, data in DATAS.items():
        path = root / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
        os.utime(path, (TIME, TIME))
        if name.startswith("static/"):
            coded = path.with_name(f"{path.name}.gz")
            coded.write_bytes(gzip.compress(data, 9, mtime=7))
            os.utime(coded, (TIME, TIME))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with run_nginx(_SERVER.format(port=port, root=root), port, work):
        yield f"http://127.0.0.1:{port}/"


@pytest.fixture(scope="module", params=[True, False], ids=["checked", "believed"])
def archiver(request: pytest.FixtureRequest) -> Iterator[Archiver]:
    made = Archiver(Policy(verify_passthrough=request.param))
    yield made
    made.close()


def bundle_of(upstream: str, copies: int = 1) -> Bundle:
    bundle = Bundle("b.zip")
    for copy in range(copies):
        for name in DATAS:
            bundle.add_url(upstream + name, f"{copy}/{name}", passthrough=True)
    return bundle


@pytest.mark.parametrize("name", [name for name, reader in READERS.items() if "zip" in reader.formats])
@pytest.mark.parametrize("copies", [1, 3])  # asked by the GETs that deliver, and small ones read along with the asking
def test_every_reader_finds_the_content(
    archiver: Archiver, upstream: str, name: str, copies: int, tmp_path: Path
) -> None:
    reader = READERS[name]
    body = archiver.open(bundle_of(upstream, copies))
    if reader.piped:
        found = reader.read(body, tmp_path)
    else:
        archive = tmp_path / "b.zip"
        archive.write_bytes(b"".join(body))
        folder = tmp_path / "out"
        folder.mkdir()
        found = reader.read(archive, folder)
    body.close()
    seen = {name: (f.size, f.sha256, f.modified) for name, f in found.items() if not name.endswith("/")}
    wanted = {
        f"{copy}/{name}": (len(data), sha256(data).hexdigest(), TIME)
        for copy in range(copies)
        for name, data in DATAS.items()
    }
    assert seen == wanted


def test_what_is_stored_coded_stands_there_byte_by_byte(archiver: Archiver, upstream: str, tmp_path: Path) -> None:
    archive = tmp_path / "b.zip"
    body = archiver.open(bundle_of(upstream))
    archive.write_bytes(b"".join(body))
    body.close()
    with zipfile.ZipFile(archive) as opened:
        sizes = {info.filename[2:]: info.compress_size for info in opened.infolist()}
    for name, data in DATAS.items():
        if name.startswith("static/"):
            assert sizes[name] == len(gzip.compress(data, 9)) - 18
    assert sizes["dynamic/big.log"] < len(DATAS["dynamic/big.log"]) / 2
    assert sizes["plain/big.log"] > len(DATAS["plain/big.log"])
