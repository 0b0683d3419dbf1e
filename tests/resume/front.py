"""A real nginx in front of several replicas: deploy/nginx.conf as it is shipped, but for its port and its replicas."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import ProxyHandler, build_opener

from tests.conftest import judge
from tests.resume.replicas import Replica, free_port

__all__ = ["front"]

_SHIPPED = Path(__file__).resolve().parents[2] / "deploy"
_HERE = """
    client_body_temp_path {work}/b; proxy_temp_path {work}/p; fastcgi_temp_path {work}/f;
    uwsgi_temp_path {work}/u; scgi_temp_path {work}/s;
    include replicas.conf;
"""


@contextmanager
def front(replicas: Sequence[Replica], work: Path, *, bytes_per_second: int | None = None) -> Iterator[str]:
    """Gives the front's URL without a final slash; with a rate, every answer is slowed down to it."""
    program = judge("nginx")
    work.mkdir(parents=True)
    port = free_port()
    conf = (_SHIPPED / "nginx.conf").read_text()
    conf = _replaced(r"listen 80 default_server;", f"listen 127.0.0.1:{port};", conf)
    conf = _replaced(r"\n    include replicas\.conf;\n", _HERE.format(work=work), conf)
    if bytes_per_second is not None:
        conf = _replaced(r"(?=location / )", f"limit_rate {bytes_per_second}; ", conf)
    (work / "nginx.conf").write_text(conf)
    servers = "".join(f"    server 127.0.0.1:{replica.port} max_fails=2 fail_timeout=5s;\n" for replica in replicas)
    listed = (_SHIPPED / "replicas.conf").read_text()
    (work / "replicas.conf").write_text(
        _replaced(r"(?:    server [0-9.:]+ max_fails=2 fail_timeout=5s;\n)+", servers, listed)
    )
    user = "user root; " if os.geteuid() == 0 else ""
    here = f"daemon off; {user}pid {work}/nginx.pid; error_log {work}/error.log error;"
    process = subprocess.Popen(
        [program, "-p", work, "-c", work / "nginx.conf", "-e", work / "error.log", "-g", here],
        stderr=subprocess.DEVNULL,
    )
    opener = build_opener(ProxyHandler({}))
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 15
        while True:
            try:
                opener.open(f"{url}/healthz", timeout=5).close()
                break
            except HTTPError as error:
                error.close()
                if error.code == 404:  # an app without such a page
                    break
            except OSError:
                assert process.poll() is None, (work / "error.log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield url
    finally:
        process.terminate()
        process.wait(10)


def _replaced(pattern: str, text: str, conf: str) -> str:
    conf, count = re.subn(pattern, text, conf)
    assert count == 1, f"deploy/ has no single {pattern!r} any more"
    return conf
