"""streamware as Falcon resources, for WSGI and ASGI.

The rule of this file: nothing is tuned; it is what README.md shows.
"""

from __future__ import annotations

from typing import Any

import falcon
import falcon.asgi

from bench.programs.given import Job, read_jobs
from streamware import Archiver, Bundle, Policy
from streamware.resources import AsyncBundleResource, BundleResource

__all__ = ["asgi", "make_bundle", "wsgi"]

_JOBS = read_jobs()


def make_bundle(job: Job, name: str = "archive.zip") -> Bundle:
    bundle = Bundle(name, compress=job.compress)  # type: ignore[arg-type]
    for member in job.members:
        if job.local:
            bundle.add_file(member.path, member.name)
        else:
            bundle.add_url(member.url, member.name, size=member.size, crc32=member.crc32)
    return bundle


class Archive(BundleResource):
    def make_bundle(self, req: falcon.Request, *args: Any, **params: Any) -> Bundle:
        return make_bundle(_JOBS[params["name"]])


class AsyncArchive(AsyncBundleResource):
    async def make_bundle(self, req: falcon.asgi.Request, *args: Any, **params: Any) -> Bundle:
        return make_bundle(_JOBS[params["name"]])


_archiver = Archiver(Policy())
wsgi = falcon.App()
wsgi.add_route("/{name}.zip", Archive(_archiver))
asgi = falcon.asgi.App()
asgi.add_route("/{name}.zip", AsyncArchive(_archiver))
