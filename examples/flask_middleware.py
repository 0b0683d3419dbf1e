"""Downloads of many files for a Flask app that knows nothing of them: its own views are the members.

Try it:

    gunicorn --worker-class gthread --threads 16 flask_middleware:app
    curl -b session=secret -OJ 'http://127.0.0.1:8000/bundle?path=/hello.txt&path=/private/diary.txt&name=mine.zip'

The members are asked for with the caller's own cookies, so the app's access rules hold: without the cookie it is 403.
"""

from flask import Flask, Response, abort, request

from streamware.middleware import BundleMiddleware

app = Flask(__name__)


@app.get("/hello.txt")
def hello() -> Response:
    return Response("Hello, everybody.\n", mimetype="text/plain")


@app.get("/private/diary.txt")
def diary() -> Response:
    if request.cookies.get("session") != "secret":
        abort(403)
    return Response("Dear diary.\n", mimetype="text/plain")


app.wsgi_app = BundleMiddleware(app.wsgi_app, path="/bundle")  # type: ignore[method-assign]
