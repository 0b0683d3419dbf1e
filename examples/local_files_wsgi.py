"""A list of local files as one ZIP of known size. Falcon, WSGI.

Try it:

    FILES=report.pdf:photo.jpg gunicorn --worker-class gthread --threads 16 local_files_wsgi:app
    curl -OJ http://127.0.0.1:8000/files.zip
"""

import os

import falcon

from streamware import Archiver, Bundle
from streamware.resources import BundleResource

FILES = os.environ.get("FILES", __file__).split(os.pathsep)


class LocalFiles(BundleResource):
    def make_bundle(self, req: falcon.Request) -> Bundle:
        bundle = Bundle("files.zip")
        for path in FILES:
            bundle.add_file(path)
        return bundle


app = falcon.App()
app.add_route("/files.zip", LocalFiles(Archiver()))
