"""A list of local files as one ZIP of known size. Falcon, ASGI.

Try it:

    FILES=report.pdf:photo.jpg uvicorn local_files_asgi:app
    curl -OJ http://127.0.0.1:8000/files.zip
"""

import os

import falcon.asgi

from streamware import Archiver, Bundle
from streamware.resources import AsyncBundleResource

FILES = os.environ.get("FILES", __file__).split(os.pathsep)


class LocalFiles(AsyncBundleResource):
    async def make_bundle(self, req: falcon.asgi.Request) -> Bundle:
        bundle = Bundle("files.zip")
        for path in FILES:
            bundle.add_file(path)
        return bundle


app = falcon.asgi.App()
app.add_route("/files.zip", LocalFiles(Archiver()))
