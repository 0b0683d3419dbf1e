"""A real S3 endpoint of the test's own: moto's server, a process on a free port of 127.0.0.1, empty at every start.

It knows every key and asks for none, so that buckets are made and looked at with plain requests.
"""

from __future__ import annotations

import itertools
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["S3", "s3"]

_SECONDS = 60.0


class S3:
    """An endpoint that can be stopped, frozen and started again at the same place. Whoever makes it calls ``stop``."""

    def __init__(self, log: Path) -> None:
        self._log = log
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.endpoint = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None
        self._numbers = itertools.count()
        self.start()

    @property
    def options(self) -> dict[str, str]:
        """The options of a file store that is to use it."""
        return {
            "aws_endpoint": self.endpoint,
            "aws_access_key_id": "tester",
            "aws_secret_access_key": "secret",
            "aws_region": "us-east-1",
            "aws_virtual_hosted_style_request": "false",
            "allow_http": "true",
        }

    @property
    def environment(self) -> dict[str, str]:
        """The same for a server that takes them from its environment."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": "tester",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_REGION": "us-east-1",
            "AWS_ALLOW_HTTP": "true",
        }

    def bucket(self) -> str:
        """The URL of a store in a new, empty bucket."""
        name = f"bucket{next(self._numbers)}"
        self.ask("PUT", f"/{name}")
        return f"s3://{name}/kept"

    def ask(self, method: str, path: str) -> bytes:
        """What it answers to a plain request."""
        request = urllib.request.Request(self.endpoint + path, method=method)
        with urllib.request.urlopen(request, timeout=_SECONDS) as answer:
            return bytes(answer.read())

    def keys(self, url: str) -> list[str]:
        """The keys of all whole objects in a bucket, below the store's prefix; of a thousand at most."""
        text = self.ask("GET", f"/{url.split('/')[2]}?list-type=2").decode()
        return [key.partition("/")[2] for key in re.findall(r"<Key>(.*?)</Key>", text)]

    def unfinished(self, url: str) -> list[str]:
        """The keys of all uploads to a bucket that were begun in several requests and never ended."""
        text = self.ask("GET", f"/{url.split('/')[2]}?uploads").decode()
        return [key.partition("/")[2] for key in re.findall(r"<Key>(.*?)</Key>", text)]

    def start(self) -> None:
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        deadline = time.monotonic() + _SECONDS
        while True:
            try:
                self.ask("GET", "/moto-api/data.json")
                return
            except (urllib.error.URLError, OSError):
                assert self._process.poll() is None, self._log.read_text()
                assert time.monotonic() < deadline, "moto's server does not answer"
                time.sleep(0.05)

    def freeze(self) -> None:
        """It takes connections from here on, and answers none."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        """End it at once, with all that it holds. Idempotent."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()


@contextmanager
def s3(log: Path) -> Iterator[S3]:
    """An endpoint for as long as the context lasts.

    :param log: where it may write what it has to say.
    """
    server = S3(log)
    try:
        yield server
    finally:
        server.stop()
