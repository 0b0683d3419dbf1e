"""nginx in front of a host, as it is with nothing set: HTTP/1.0 to the host, buffering; and the same with a cache.

deploy/nginx.conf, with the settings recommended, is started by ``tests.resume.front``.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.hosts.nginx import run_nginx
from tests.resume.replicas import free_port

__all__ = ["default_front"]

# nginx caches nothing that is private or unbuffered, as archives say they are; this operator overrules both.
_SERVERS = """
    proxy_cache_path {work}/cache keys_zone=archives:1m;
    server {{
        listen 127.0.0.1:{port};
        location / {{ proxy_pass http://127.0.0.1:{host}; }}
        location /cached/ {{
            proxy_pass http://127.0.0.1:{host}/;
            proxy_cache archives;
            proxy_cache_valid 200 1m;
            proxy_ignore_headers Cache-Control X-Accel-Buffering;
            add_header X-Cache $upstream_cache_status always;
        }}
    }}
"""


@contextmanager
def default_front(host: int, work: Path) -> Iterator[str]:
    """Gives the front's URL without a final slash. Below /cached, answers with status 200 are kept."""
    port = free_port()
    with run_nginx(_SERVERS.format(work=work, port=port, host=host), port, work):
        yield f"http://127.0.0.1:{port}"
