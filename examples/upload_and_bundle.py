"""Takes files in, keeps them in a folder, and gives any choice of them back as one ZIP. Falcon, WSGI.

Try it:

    gunicorn --worker-class gthread --threads 16 upload_and_bundle:app
    curl --data-binary @a.log -H 'X-Filename: a.log' http://127.0.0.1:8000/files
    curl -OJ 'http://127.0.0.1:8000/bundle?id=ID&id=ANOTHER'

Any tus client sends to http://127.0.0.1:8000/files, too, and goes on where it was cut off. Sizes and checksums of
stored files are known, so the ZIP has an exact length and is resumed from any byte. KEEP names the folder.
"""

import os

import falcon

from streamware import Archiver, Bundle, FileStore
from streamware.resources import BundleResource, FileResource, FilesResource

KEEP = os.path.abspath(os.environ.get("KEEP", "kept"))
os.makedirs(KEEP, exist_ok=True)
store = FileStore(f"file://{KEEP}/files", f"sqlite:///{KEEP}/files.sqlite3")
store.start()  # looks after what has expired, and after what a crash left


class Picked(BundleResource):
    def make_bundle(self, req: falcon.Request) -> Bundle:
        bundle = Bundle("picked.zip")
        for file_id in req.get_param_as_list("id", required=True):
            bundle.add_stored(file_id)
        return bundle


archiver = Archiver(files=store)
app = falcon.App()
app.add_route("/files", FilesResource(archiver))
app.add_route("/files/{id}", FileResource(archiver))
app.add_route("/bundle", Picked(archiver))
