"""A real nginx on a free port of 127.0.0.1: as the upstream, serving one folder, or as whatever its servers say."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.conftest import judge

_CONF = """
daemon off;
{user}
worker_processes 1;
pid {work}/nginx.pid;
error_log {work}/error.log warn;
events {{ worker_connections 512; }}
http {{
    log_format brief '$request_method $uri $status $body_bytes_sent $msec $request_time $http_range';
    access_log {access};
    types {{ text/plain txt log py; application/zip zip; }}
    default_type application/octet-stream;
    sendfile on;
    keepalive_requests 100000;
    client_body_temp_path {work}/b; proxy_temp_path {work}/p; fastcgi_temp_path {work}/f;
    uwsgi_temp_path {work}/u; scgi_temp_path {work}/s;
{servers}
}}
"""
_FOLDER = """
    server {{
        listen 127.0.0.1:{port};
        root {root};
    }}
"""


class Nginx(str):
    """The base URL, without a final slash, of an nginx that can be killed."""

    process: subprocess.Popen[bytes]

    def kill(self) -> None:
        """End it with its worker as a power cut would. Harmless when it has ended."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(10)


@contextmanager
def nginx(root: Path, work: Path, *, log: bool = False) -> Iterator[Nginx]:
    """Serve ``root``; gives the base URL without a final slash. With ``log``, requests go to ``work/access``."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with run_nginx(_FOLDER.format(port=port, root=root), port, work, log=log) as process:
        url = Nginx(f"http://127.0.0.1:{port}")
        url.process = process
        yield url


@contextmanager
def run_nginx(servers: str, port: int, work: Path, *, log: bool = False) -> Iterator[subprocess.Popen[bytes]]:
    """Run nginx with these ``server`` blocks, one of which listens on ``port``, from when it does."""
    program = judge("nginx")
    work.mkdir(parents=True, exist_ok=True)
    conf = work / "nginx.conf"
    conf.write_text(
        _CONF.format(
            user="user root;" if os.geteuid() == 0 else "",
            work=work,
            servers=servers,
            access=f"{work}/access brief" if log else "off",
        )
    )
    process = subprocess.Popen(
        [program, "-p", str(work), "-c", str(conf)], stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        deadline = time.monotonic() + 10
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                assert process.poll() is None, (work / "error.log").read_text()
                assert time.monotonic() < deadline
                time.sleep(0.02)
        yield process
    finally:
        process.terminate()
        process.wait(10)
