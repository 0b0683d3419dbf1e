"""What is told of a host by what it put into the environ or scope, as recorded from each host itself."""

from __future__ import annotations

import wsgiref.util
from io import BytesIO
from typing import Any

import pytest

from streamware.hosting import client_of, closes_when_told, host_of, is_http_10, unframed, untold
from streamware.reply import Conditions


class Granian:
    """Stands for ``granian._granian.WSGIBody``, by the name of its module."""

    __module__ = "granian._granian"


def environ(**own: Any) -> dict[str, Any]:
    """What all WSGI hosts give, with what one of them does."""
    given = {
        "REQUEST_METHOD": "GET",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        "wsgi.version": (1, 0),
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.input": BytesIO(),
    }
    return given | {key.replace("__", "."): value for key, value in own.items()}


def scope(**own: Any) -> dict[str, Any]:
    given = {"type": "http", "http_version": "1.1", "method": "GET", "client": ("127.0.0.1", 39620), "headers": []}
    return given | own


WSGI = {
    "gunicorn gthread": environ(SERVER_SOFTWARE="gunicorn/27.0.1", gunicorn__socket=None),
    "gunicorn sync": environ(SERVER_SOFTWARE="gunicorn/27.0.1", gunicorn__socket=None, wsgi__multithread=False),
    "no host, Falcon's test client": environ(SERVER_SOFTWARE="gunicorn/0.17.0", wsgi__multithread=False),
    "waitress": environ(SERVER_SOFTWARE="waitress", SERVER_NAME="waitress.invalid"),
    "cheroot": environ(SERVER_SOFTWARE="Cheroot/11.1.2 Server", SERVER_NAME="Cheroot/11.1.2"),
    "uwsgi": environ(uwsgi__version=b"2.0.31", uwsgi__node=b"vm", wsgi__multithread=False),
    "wsgiref": environ(SERVER_SOFTWARE="WSGIServer/0.2", wsgi__file_wrapper=wsgiref.util.FileWrapper),
    "cgi": environ(SERVER_SOFTWARE="Apache/2.4", wsgi__file_wrapper=wsgiref.util.FileWrapper),
    "werkzeug": environ(SERVER_SOFTWARE="Werkzeug/3.1.9", wsgi__multithread=False),
    "granian": environ(SERVER_SOFTWARE="Granian"),
    "granian behind a middleware": environ(wsgi__input=Granian()),
    "hypercorn": environ(SERVER_PORT=18712, wsgi__multiprocess=True),
}
ASGI = {
    "gunicorn": scope(asgi={"version": "3.0", "spec_version": "2.4"}, state={}),
    "uvicorn": scope(asgi={"version": "3.0", "spec_version": "2.3"}, state={}),
    "hypercorn": scope(asgi={"version": "3.0", "spec_version": "2.1"}, extensions={}),
    "granian": scope(asgi={"version": "3.0", "spec_version": "2.3"}, server=("127.0.0.1", "18716")),
    "daphne": scope(asgi={"version": "3.0"}, client=["127.0.0.1", 33310], server=["127.0.0.1", 18717]),
    "no host, a test client": scope(),
}


@pytest.mark.parametrize("name", WSGI)
def test_wsgi_hosts_that_cannot_show_a_broken_body(name: str) -> None:
    reason = unframed(WSGI[name])
    assert (reason is None) is not name.startswith(("uwsgi", "wsgiref", "cgi", "granian"))
    assert reason is None or name.split()[0] in reason.lower().replace("wsgiref", "wsgiref cgi")


@pytest.mark.parametrize("name", ASGI)
def test_asgi_hosts_that_cannot_show_a_broken_body(name: str) -> None:
    assert (unframed(ASGI[name], loaded={"daphne.server"}) is None) is (name != "daphne")


def test_a_silent_host_is_not_taken_for_daphne_where_that_is_not_even_loaded() -> None:
    assert unframed(ASGI["daphne"], loaded=()) is None


@pytest.mark.case(31)
@pytest.mark.parametrize("version", ["1.0", "1", "0.9"])
def test_http_10_has_no_framing_whatever_the_host(version: str) -> None:
    for request in (*WSGI.values(), *ASGI.values()):
        asked = request | ({"SERVER_PROTOCOL": f"HTTP/{version}"} if "wsgi.version" in request else {})
        asked |= {"http_version": version} if "type" in request else {}
        assert is_http_10(asked)
        assert unframed(asked) == "the request is HTTP/1.0, which tells no broken body from a whole one"


@pytest.mark.parametrize("version", ["HTTP/1.1", "HTTP/2", "HTTP/2.0", "HTTP/3", ""])
def test_newer_versions_have_framing(version: str) -> None:
    assert not is_http_10(environ(SERVER_PROTOCOL=version))
    assert not is_http_10(scope(http_version=version.removeprefix("HTTP/")))
    assert not is_http_10({})


def test_each_host_that_must_be_known_is_named_with_what_to_do() -> None:
    def start_response() -> None: ...

    start_response.__module__ = "hypercorn.app_wrappers"
    named = {name: host_of(given) for name, given in WSGI.items()}
    assert {name: host.name for name, host in named.items() if host is not None} == {
        "gunicorn sync": "gunicorn (sync)",
        "uwsgi": "uWSGI",
        "wsgiref": "wsgiref",
        "cgi": "wsgiref",
        "granian": "granian (WSGI)",
        "granian behind a middleware": "granian (WSGI)",
    }
    hypercorn = host_of(WSGI["hypercorn"], start_response)
    assert hypercorn is not None
    assert hypercorn.name == "hypercorn (WSGI)"
    assert hypercorn.unframed is None
    for host in (hypercorn, *filter(None, named.values())):
        assert "erve " in host.advice or "Use " in host.advice


# --- who asks ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "client"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::9", "2001:db8:1:2::/64"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
        ("a-host.test", "a-host.test"),
    ],
)
def test_who_is_connected_is_the_client(address: str, client: str) -> None:
    assert client_of(environ(REMOTE_ADDR=address), []) == client
    assert client_of(scope(client=(address, 1)), []) == client
    assert client_of(scope(client=[address, 1]), []) == client


def test_nobody_is_known_on_a_local_socket() -> None:
    assert client_of(scope(client=None), []) == ""
    assert client_of({}, []) == ""


@pytest.mark.parametrize(
    ("header", "values", "client"),
    [
        ("X-Forwarded-For", ["203.0.113.1, 192.0.2.7"], "192.0.2.7"),
        ("x-forwarded-for", ["203.0.113.1", "198.51.100.2,192.0.2.7 "], "192.0.2.7"),
        ("X-Forwarded-For", ["203.0.113.1, 192.0.2.7:4711"], "192.0.2.7"),
        ("X-Forwarded-For", ["[2001:db8:1:2:3::1]:4711"], "2001:db8:1:2::/64"),
        ("X-Real-IP", ["192.0.2.7"], "192.0.2.7"),
        ("X-Api-Key", [" key, with a comma "], "key, with a comma"),
        ("X-Api-Key", ["x" * 1000], "x" * 200),
        ("X-Api-Key", ["tenant:7"], "tenant:7"),
        ("X-Api-Key", [" "], "127.0.0.1"),
        ("X-Forwarded-For", ["192.0.2.7,"], "127.0.0.1"),
        ("X-Api-Key", [], "127.0.0.1"),
    ],
)
def test_a_front_may_name_the_client(header: str, values: list[str], client: str) -> None:
    headers = [("x-other", "no"), *((header.lower(), value) for value in values)]
    assert client_of(scope(), headers, header) == client
    raw = [(name.encode(), value.encode()) for name, value in headers]
    assert Conditions.from_scope(scope(headers=raw), client_header=header).client == client
    joined = {"HTTP_" + header.upper().replace("-", "_"): ",".join(values)} if values else {}
    assert Conditions.from_environ(environ(**joined), client_header=header).client == client


def test_no_header_names_the_client_unasked() -> None:
    given = environ(HTTP_X_FORWARDED_FOR="192.0.2.7", HTTP_X_REAL_IP="192.0.2.7")
    assert Conditions.from_environ(given).client == "127.0.0.1"


# --- bodies of requests ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["gunicorn gthread", "cheroot", "waitress", "werkzeug"])
def test_a_host_that_decodes_a_body_tells_its_end(name: str) -> None:
    assert untold(WSGI[name] | {"wsgi.input_terminated": True}) is None


@pytest.mark.parametrize("name", ["granian", "granian behind a middleware"])
def test_granian_says_that_it_tells_the_end_and_does_not(name: str) -> None:
    assert "granian" in (untold(WSGI[name] | {"wsgi.input_terminated": True}) or "")


@pytest.mark.parametrize("name", ["uwsgi", "wsgiref", "cgi", "hypercorn"])
def test_a_host_that_does_not_say_so_is_not_believed(name: str) -> None:
    assert untold(WSGI[name]) is not None


@pytest.mark.parametrize("name", sorted(ASGI))
def test_asgi_has_a_word_for_it(name: str) -> None:
    assert untold(ASGI[name]) is None


def test_connection_close_is_said_only_where_it_may_be() -> None:
    assert all(closes_when_told(given) for given in ASGI.values())
    assert not closes_when_told(scope(http_version="2"))
    loaded = {"hypercorn.app_wrappers"}
    assert [name for name, given in WSGI.items() if closes_when_told(given, loaded=loaded)] == ["hypercorn"]
    assert not any(closes_when_told(given, loaded=()) for given in WSGI.values())
