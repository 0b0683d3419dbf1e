"""nginx in its four parts: the upstream, a ready-made archive as the floor, and mod_zip and WebDAV as contenders.

The rule of this file: one process without a master, so that what it uses is counted in one place; tuned as one who
wants speed would.
"""

from __future__ import annotations

import os
import resource
from pathlib import Path

__all__ = ["nginx_command", "write_dav", "write_floor", "write_mod_zip", "write_upstream"]

_CONF = """
{load}
daemon off;
master_process off;
{user}
pid {work}/pid;
error_log {work}/error warn;
worker_rlimit_nofile {files};
events {{ worker_connections {connections}; }}
http {{
    access_log off;
    default_type application/octet-stream;
    sendfile on;
    tcp_nopush on;
    keepalive_requests 10000000;
    keepalive_timeout 600;
    open_file_cache max=30000 inactive=600s;
    client_body_temp_path {work}/b; proxy_temp_path {work}/p; fastcgi_temp_path {work}/f;
    uwsgi_temp_path {work}/u; scgi_temp_path {work}/s;
    {body}
}}
"""
_UPSTREAM = """
    server {{
        listen 127.0.0.1:{port} backlog=1024;
        root {root};
        location /lists- {{ add_header X-Archive-Files zip; }}
        location /live- {{ open_file_cache off; }}
    }}
"""
# What a proxying nginx needs for large bodies at full speed: big buffers, no temporary files, connections kept.
_PROXY = """
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    proxy_buffer_size 64k;
    proxy_buffers 16 64k;
    proxy_busy_buffers_size 256k;
    proxy_max_temp_file_size 0;
    output_buffers 4 256k;
    upstream members {{ server 127.0.0.1:{upstream}; keepalive 64; keepalive_requests 10000000; }}
    upstream lists {{ server 127.0.0.1:{lists}; keepalive 4; }}
"""
_FLOOR = """
    server {{
        listen 127.0.0.1:{port};
        location / {{ {answer} }}
    }}
"""
_MOD_ZIP = """
    server {{
        listen 127.0.0.1:{port} backlog=1024;
        location ~ \\.zip$ {{ proxy_pass http://lists/{listed}$uri; }}
        location /file/ {{ alias {folder}/; }}
        location /up/ {{ proxy_pass http://members/; }}
    }}
"""
# A body goes from one buffer to a file, and the file is renamed to its place: both must be on one file system.
_DAV = """
    server {{
        listen 127.0.0.1:{port} backlog=1024;
        client_max_body_size 0;
        client_body_buffer_size 1m;
        location /files/ {{ alias {folder}/; dav_methods PUT; }}
    }}
"""


def nginx_command(program: str, conf: Path) -> list[str]:
    return [program, "-c", str(conf), "-p", str(conf.parent), "-e", str(conf.parent / "error")]


def write_upstream(work: Path, port: int, root: Path) -> Path:
    """What the members come from: ``root``, and below it, in folders called ``lists-...``, what mod_zip is told."""
    return _write(work, _UPSTREAM.format(port=port, root=root))


def write_floor(work: Path, port: int, folder: Path, upstream: int | None) -> Path:
    """Ready-made archives: as files in ``folder``, or proxied from there on the upstream."""
    if upstream is None:
        return _write(work, _FLOOR.format(port=port, answer=f"root {folder};"))
    answer = f"proxy_pass http://members/{folder.name}/;"
    return _write(work, _PROXY.format(upstream=upstream, lists=upstream) + _FLOOR.format(port=port, answer=answer))


def write_dav(work: Path, port: int, folder: Path) -> Path:
    """A file service: PUT and GET of ``/files/NAME``, kept in ``folder``."""
    return _write(work, _DAV.format(port=port, folder=folder))


def write_mod_zip(work: Path, port: int, module: str, folder: Path, listed: str, *, upstream: int, lists: int) -> Path:
    """mod_zip with members as files in ``folder`` (``/file/``) and from an upstream (``/up/``).

    :param lists: the port that has the lists, below ``listed``.
    """
    body = _PROXY.format(upstream=upstream, lists=lists) + _MOD_ZIP.format(port=port, folder=folder, listed=listed)
    return _write(work, body, load=f"load_module {Path(module).resolve()};")


def _write(work: Path, body: str, load: str = "") -> Path:
    work.mkdir(parents=True, exist_ok=True)
    conf = work / "nginx.conf"
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    user = "user root;" if os.geteuid() == 0 else ""
    conf.write_text(
        _CONF.format(load=load, user=user, work=work, body=body, files=min(files, 65536), connections=min(files, 4096)),
        encoding="utf-8",
    )
    return conf
