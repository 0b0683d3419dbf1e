"""A ZIP of members that are made while it is sent, with an empty directory. Flask.

Try it:

    gunicorn --worker-class gthread --threads 16 flask_streams:app
    curl -OJ http://127.0.0.1:8000/report.zip
"""

from collections.abc import Iterator

from flask import Flask, Response, request

from streamware import Archiver, Bundle
from streamware.reply import Conditions

app = Flask(__name__)
archiver = Archiver()


def squares() -> Iterator[bytes]:
    yield b"number,square\n"
    for number in range(100_000):
        yield b"%d,%d\n" % (number, number * number)


def zeros() -> Iterator[bytes]:
    for _ in range(16):
        yield bytes(65_536)


@app.get("/report.zip")
def report() -> Response:
    bundle = Bundle("report.zip")
    bundle.add_stream("tables/squares.csv", squares)
    bundle.add_stream("zeros.bin", zeros, size=16 * 65_536)
    bundle.add_directory("attachments")
    reply = archiver.respond(bundle, Conditions.from_environ(request.environ))
    return Response(reply.body, reply.status, list(reply.headers), direct_passthrough=True)
