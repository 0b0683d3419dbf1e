"""Uploads that are kept in S3, MinIO or what else speaks its protocol, with their rows in PostgreSQL. Falcon, ASGI.

Try it, with MinIO on this machine and a bucket "uploads" in it:

    export STORE=s3://uploads/kept AWS_ENDPOINT_URL=http://127.0.0.1:9000 AWS_ALLOW_HTTP=true AWS_REGION=us-east-1
    export AWS_ACCESS_KEY_ID=minioadmin AWS_SECRET_ACCESS_KEY=minioadmin
    export DATABASE=postgresql+psycopg://streamware@127.0.0.1/streamware
    uvicorn s3_files:app
    curl --data-binary @a.log -H 'X-Filename: a.log' http://127.0.0.1:8000/files

Keys, region and endpoint are taken from the environment as Amazon's own tools take them; for S3 itself leave the
endpoint out. Replicas share STORE and DATABASE, and an upload that one began goes on at another.
"""

import os

import falcon.asgi

from streamware import Archiver, FileStore
from streamware.resources import AsyncFileResource, AsyncFilesResource

store = FileStore(os.environ["STORE"], os.environ.get("DATABASE", "sqlite:///files.sqlite3"))
store.start()
archiver = Archiver(files=store)
app = falcon.asgi.App()
app.add_route("/files", AsyncFilesResource(archiver))
app.add_route("/files/{id}", AsyncFileResource(archiver))
