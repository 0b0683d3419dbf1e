"""The same log from every node of a cluster as one ZIP, fetched while it is sent. Falcon, WSGI.

Try it:

    NODES=http://10.0.0.7:8080,http://10.0.0.8:8080 gunicorn --worker-class gthread --threads 16 cluster_logs:app
    curl -OJ http://127.0.0.1:8000/logs/app.log

A node that is down is named in ``_errors.txt``; the others' logs arrive all the same. With MIRROR, the URL of a server
that has copies (``MIRROR/10.0.0.7_8080/logs/app.log``), nothing is missing, not even if a node dies while it is read.
"""

import json
import os
import platform
import re
from urllib.parse import urlsplit

import falcon

from streamware import Archiver, Bundle
from streamware.resources import BundleResource

NODES = os.environ.get("NODES", "http://127.0.0.1:8081,http://127.0.0.1:8082").split(",")
MIRROR = os.environ.get("MIRROR")


def running_status() -> str:
    return json.dumps({"collector": platform.node(), "load": os.getloadavg(), "nodes": NODES}, indent=2)


class ClusterLogs(BundleResource):
    def make_bundle(self, req: falcon.Request, name: str) -> Bundle:
        if not re.fullmatch(r"[\w-]+\.log", name):
            raise falcon.HTTPNotFound()
        bundle = Bundle(f"{name}.zip", on_error="report")
        for node in NODES:
            host = urlsplit(node).netloc.replace(":", "_")
            mirrors = [f"{MIRROR}/{host}/logs/{name}"] if MIRROR else []
            bundle.add_url(f"{node}/logs/{name}", f"{host}/{name}", mirrors)
        bundle.add_data("running_status.json", running_status())
        return bundle


app = falcon.App()
app.add_route("/logs/{name}", ClusterLogs(Archiver()))
