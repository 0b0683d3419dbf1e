"""Many remote files as one TAR whose length is known before its first byte is sent. Django, in one file.

Try it:

    SOURCES=http://10.0.0.7:8080/a.bin,http://10.0.0.8:8080/b.bin gunicorn -k gthread --threads 16 django_tar:app
    curl -OJ http://127.0.0.1:8000/backup.tar
"""

import os

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, StreamingHttpResponse
from django.urls import path

from streamware import Archiver, Bundle
from streamware.reply import Conditions

SOURCES = os.environ.get("SOURCES", "http://127.0.0.1:8081/a.bin,http://127.0.0.1:8082/b.bin").split(",")
archiver = Archiver()


def backup(request: HttpRequest) -> StreamingHttpResponse:
    bundle = Bundle("backup.tar")
    for url in SOURCES:
        bundle.add_url(url)
    reply = archiver.respond(bundle, Conditions.from_environ(request.META))
    return StreamingHttpResponse(reply.body, status=reply.status, headers=dict(reply.headers))


urlpatterns = [path("backup.tar", backup)]
settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"])
app = get_wsgi_application()
