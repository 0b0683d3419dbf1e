"""What lies in deploy/: each file is read by the program it is for, or run as it stands, and agrees with the others.

The rule of this file: nothing of a file is repeated here. What has to be changed to run it where the tests run (ports,
paths) is substituted, and a substitution that finds nothing to do is a failure.
"""

from __future__ import annotations

import ast
import http.client
import io
import json
import os
import re
import shlex
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urljoin, urlsplit

import psycopg
import pytest
import yaml

from streamware import Policy
from tests.conftest import judge
from tests.hosts.postgres import Cluster
from tests.hosts.serve_process import Answer, command, environment
from tests.resume.front import front
from tests.resume.replicas import Replica, free_port, metric
from tests.synthetic import content

ROOT = Path(__file__).resolve().parent.parent
DEPLOY = ROOT / "deploy"
UNITS = DEPLOY / "systemd"
DOCS = (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")
MIB = 1 << 20

KEEP_ALIVE_SECONDS = 5  # after which uvicorn closes an idle connection, unless it is told otherwise
_TEMPORARY = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")  # nginx wants a folder for each

CLOSE_SECONDS = 5  # what a process takes beyond its grace


def text(name: str) -> str:
    return (DEPLOY / name).read_text(encoding="utf-8")


def replaced(text: str, changes: Mapping[str, str]) -> str:
    for old, new in changes.items():
        assert old in text, f"{old!r} is not there any more"
        text = text.replace(old, new)
    return text


def one(pattern: str, text: str) -> str:
    found = re.findall(pattern, text, flags=re.MULTILINE)
    assert len(found) == 1, (pattern, found)
    return str(found[0])


@cache
def known_flags() -> set[str]:
    done = subprocess.run(command("serve", "--help"), capture_output=True, text=True, env=environment(), timeout=30)
    return set(re.findall(r"(--[a-z-]+)", done.stdout))


def serve_options(words: Sequence[str]) -> dict[str, str]:
    """The options of a ``streamware serve`` command line, each one it has; a flag it does not know is a failure."""
    assert words[0] == "serve", words
    options: dict[str, str] = {}
    rest = iter(words[1:])
    for word in rest:
        if word.startswith("--"):
            name, equals, value = word.partition("=")
            assert name in known_flags(), f"streamware serve has no {name}"
            options[name] = value if equals else next(rest)
        else:
            assert "ROOT" not in options, words
            options["ROOT"] = word
    return options


def ask(url: str, method: str = "GET", headers: Mapping[str, str] | None = None, body: bytes | None = None) -> Answer:
    at = urlsplit(url)
    with closing(http.client.HTTPConnection(at.hostname or "", at.port, timeout=30)) as connection:
        connection.request(method, f"{at.path}?{at.query}", body, dict(headers or {}))
        response = connection.getresponse()
        return Answer(response.status, response.headers, response.read())


# --- nginx ---------------------------------------------------------------------------------------------------------

COMPOSE = yaml.safe_load(text("compose.yaml"))

REPLICAS = {
    "systemd": text("replicas.conf"),
    "kubernetes": text("kubernetes/replicas.conf"),
    "compose": COMPOSE["configs"]["replicas"]["content"],
}


@pytest.mark.parametrize("where", REPLICAS)
def test_nginx_takes_its_configuration(where: str, tmp_path: Path) -> None:
    program = judge("nginx")
    conf = replaced(
        text("nginx.conf"),
        {
            "listen 80 ": f"listen 127.0.0.1:{free_port()} ",
            "http {\n": "http {\n" + "".join(f"    {kind}_temp_path t-{kind};\n" for kind in _TEMPORARY),
        },
    )
    (tmp_path / "nginx.conf").write_text(conf)
    # Names of other machines; nginx asks for their addresses at once.
    servers = re.sub(r"(?<=server )[a-z0-9-]+(?=:)", "127.0.0.1", REPLICAS[where])
    (tmp_path / "replicas.conf").write_text(servers)
    done = subprocess.run(
        [program, "-t", "-p", tmp_path, "-c", tmp_path / "nginx.conf", "-e", "stderr", "-g", "pid nginx.pid;"],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 0, done.stderr
    assert "[warn]" not in done.stderr, done.stderr


@pytest.mark.parametrize("where", REPLICAS)
def test_the_front_closes_an_idle_connection_before_its_replica_does(where: str) -> None:
    assert int(one(r"^\s*keepalive_timeout ([0-9]+)s;", REPLICAS[where])) < KEEP_ALIVE_SECONDS
    assert REPLICAS[where].count("server ") == 2


def test_the_front_lets_a_manifest_of_the_largest_size_through() -> None:
    size = int(one(r"client_max_body_size ([0-9]+)m;", text("nginx.conf"))) * MIB
    assert Policy().max_manifest_bytes < size < 2 * Policy().max_manifest_bytes


# --- systemd, and the whole of it ----------------------------------------------------------------------------------


def unit(name: str) -> str:
    return (UNITS / name).read_text(encoding="utf-8")


def setting(name: str, unit: str) -> str:
    return one(rf"^{name}=(.*)$", unit)


def test_systemd_takes_the_units(tmp_path: Path) -> None:
    program = judge("systemd-analyze")
    instances = []
    for path in sorted(UNITS.iterdir()):
        # It looks whether the programs are there.
        programs = re.findall(r"^ExecStart=(\S+)", path.read_text(), flags=re.MULTILINE)
        (tmp_path / path.name).write_text(replaced(path.read_text(), dict.fromkeys(programs, sys.executable)))
        instances.append(path.name.replace("@", "@8081"))
    done = subprocess.run(
        [program, "verify", "--man=no", *instances], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("name", sorted(path.name for path in UNITS.glob("*.service")))
def test_a_service_has_longer_to_end_than_it_takes(name: str) -> None:
    line = setting("ExecStart", unit(name))
    grace = re.search(r"--(?:grace|timeout-graceful-shutdown) ([0-9]+)", line)
    seconds = int(grace[1]) if grace else gunicorn_settings()["graceful_timeout"]
    assert int(setting("TimeoutStopSec", unit(name))) >= seconds + CLOSE_SECONDS
    assert setting("KillMode", unit(name)) == "mixed"


def gunicorn_settings() -> dict[str, Any]:
    nodes = ast.parse(text("gunicorn.conf.py")).body
    return {
        ast.unparse(target): ast.literal_eval(node.value)
        for node in nodes
        if isinstance(node, ast.Assign)
        for target in node.targets
    }


def command_of(name: str, work: Path, **environment: str) -> tuple[list[str], dict[str, str]]:
    """The command line and the environment that a unit gives its process, "{port}" being its name."""
    own = {"i": "{port}", "S": str(work / "state")}

    def specified(text: str) -> str:
        return re.sub(r"%(.)", lambda found: own[found[1]], text)

    lines = re.findall(r"^Environment=(\w+)=(.*)$", unit(name), flags=re.MULTILINE)
    env = {key: specified(value) for key, value in lines} | environment
    line = setting("ExecStart", unit(name))
    line = re.sub(r"(?<= )\$(\w+)", lambda found: env[found[1]], line)  # without braces it is split into words, or none
    words = [specified(word) for word in shlex.split(line)]
    words = [re.sub(r"\$\{(\w+)\}", lambda found: env[found[1]], word) for word in words]
    module = Path(words[0]).name
    assert module in ("streamware", "gunicorn", "uvicorn")
    return [sys.executable, "-m", module, *words[1:]], env


def test_the_unit_of_the_server_names_what_there_is(tmp_path: Path) -> None:
    options = serve_options(command_of("streamware@.service", tmp_path)[0][3:])
    assert options["--bind"] == "127.0.0.1:{port}"
    assert options["--state"] == f"sqlite:///{tmp_path}/state/streamware/state.sqlite3"
    assert options["--store"] == f"file://{tmp_path}/state/streamware/files"
    ports = re.findall(r"server 127\.0\.0\.1:([0-9]+)", text("replicas.conf"))
    assert f"streamware@{ports[0]} streamware@{ports[1]}" in unit("streamware@.service")


class Site:
    """A front with two replicas behind it, made of what is shipped, and the folder they serve."""

    def __init__(self, url: str, replicas: tuple[Replica, Replica]) -> None:
        self.url = url
        self.replicas = replicas


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    judge("nginx")
    work = tmp_path_factory.mktemp("site")
    files = work / "files"
    files.mkdir()
    for number in range(4):
        (files / f"{number}.bin").write_bytes(content(3 * MIB + number, number))
    with (files / "huge.bin").open("wb") as huge:
        huge.truncate(400 * MIB)
    (work / "state" / "streamware").mkdir(parents=True)  # StateDirectory=
    line, env = command_of("streamware@.service", work, ROOT=str(files))
    with ExitStack() as stack:
        one, two = (stack.enter_context(Replica(line, work / f"{n}.log", env)) for n in (1, 2))
        yield Site(stack.enter_context(front((one, two), work / "front")), (one, two))


BUNDLE = "/bundle?" + urlencode({"path": [f"/tree/{n}.bin" for n in range(4)], "name": "four.zip"}, doseq=True)


def served(site: Site) -> list[float]:
    return [metric(replica, "streamware_bytes_out_total") for replica in site.replicas]


def test_any_replica_behind_the_front_goes_on_with_a_download(site: Site) -> None:
    head = ask(site.url + BUNDLE, "HEAD")
    assert (head.status, head.headers["Accept-Ranges"]) == (200, "bytes")
    length, etag = int(head.headers["Content-Length"]), head.headers["ETag"]
    whole = ask(site.url + BUNDLE)
    assert (whole.status, len(whole.body), whole.headers["ETag"]) == (200, length, etag)
    with zipfile.ZipFile(io.BytesIO(whole.body)) as archive:
        assert [archive.read(f"{n}.bin") for n in range(4)] == [content(3 * MIB + n, n) for n in range(4)]
    before = served(site)
    parts = []
    for start in range(0, length, length // 7):
        stop = min(length, start + length // 7)
        part = ask(site.url + BUNDLE, headers={"Range": f"bytes={start}-{stop - 1}", "If-Range": etag})
        assert part.status == 206
        assert part.headers["Content-Range"] == f"bytes {start}-{stop - 1}/{length}"
        parts.append(part.body)
    assert b"".join(parts) == whole.body
    assert all(now > then for now, then in zip(served(site), before, strict=True)), "one replica served all"


def test_a_link_made_through_the_front_holds_on_every_replica(site: Site) -> None:
    # Longer than what nginx would take by default, and than what fits a URL.
    members = [{"name": f"{n}.txt", "text": os.urandom(600).hex()} for n in range(1200)]
    body = json.dumps({"name": "many.zip", "members": members}).encode()
    assert len(body) > MIB
    made = ask(f"{site.url}/bundle/links", "POST", {"Content-Type": "application/json"}, body)
    assert made.status == 201, made.body
    link = urljoin("/bundle/links", made.headers["Location"])
    first, second = (ask(replica.url + link) for replica in site.replicas)
    through = ask(site.url + link)
    assert (through.status, through.body) == (200, first.body)
    assert first.body == second.body


def test_a_bundle_named_by_a_long_url_comes_through(site: Site) -> None:
    paths = [f"/tree/{n}.bin" for n in range(4)] + ["/tree/0.bin"] * 900
    url = f"{site.url}/bundle?" + urlencode({"path": paths, "name": "x.zip"}, doseq=True)
    assert len(url) > 8192 * 2
    assert ask(url, "HEAD").status == 200


def test_an_upload_goes_on_at_another_replica_and_through_the_front(site: Site) -> None:
    data = content(20 * MIB, 9)
    tus = {"Tus-Resumable": "1.0.0", "Content-Type": "application/offset+octet-stream"}
    one, other = site.replicas
    made = ask(f"{one.url}/files", "POST", {**tus, "Upload-Length": str(len(data))}, data[:MIB])
    assert made.status == 201
    path = made.headers["Location"]
    on = ask(other.url + path, "PATCH", {**tus, "Upload-Offset": str(MIB)}, data[MIB : 2 * MIB])
    assert (on.status, on.headers["Upload-Offset"]) == (204, str(2 * MIB))
    # More than the front lets through elsewhere.
    rest = ask(site.url + path, "PATCH", {**tus, "Upload-Offset": str(2 * MIB)}, data[2 * MIB :])
    assert (rest.status, rest.headers["Upload-Offset"]) == (204, str(len(data)))
    for at in (site.url, one.url, other.url):
        assert ask(at + path).body == data


@contextmanager
def begun(site: Site, path: str) -> Iterator[http.client.HTTPResponse]:
    """A download whose client took its first MiB, and nothing since then for long enough to have it all on the way."""
    at = urlsplit(site.url)
    with closing(http.client.HTTPConnection(at.hostname or "", at.port, timeout=30)) as connection:
        connection.request("GET", path)
        with connection.getresponse() as response:
            assert len(response.read(MIB)) == MIB
            time.sleep(1.5)
            yield response


def test_a_client_that_leaves_is_one_less_for_its_replica(site: Site) -> None:
    def active() -> float:
        return sum(metric(replica, "streamware_active_downloads") for replica in site.replicas)

    with begun(site, "/bundle?path=/tree/huge.bin&name=huge.zip"):
        assert active() == 1
    deadline = time.monotonic() + 20
    while active():
        assert time.monotonic() < deadline, "the client left, and nobody told the replica"
        time.sleep(0.1)


def test_the_front_takes_no_more_than_its_client_does(site: Site) -> None:
    # A file, for archives carry a header that nginx heeds by itself.
    with begun(site, "/tree/huge.bin") as response:
        for replica in site.replicas:
            replica.kill()
        try:
            with pytest.raises(http.client.IncompleteRead) as broken:
                response.read()
        finally:
            for replica in site.replicas:
                replica.start()
    assert len(broken.value.partial) < 64 * MIB, "so much was held on the way"


def test_a_replica_that_is_down_is_not_noticed(site: Site) -> None:
    site.replicas[0].kill()
    try:
        for _ in range(8):
            assert ask(site.url + BUNDLE, "HEAD").status == 200
    finally:
        site.replicas[0].start()


# --- the database --------------------------------------------------------------------------------------------------


def sql_in_docs(password: str) -> list[str]:
    block = re.findall(r"^```sql\n(.*?)^```$", DOCS, flags=re.MULTILINE | re.DOTALL)
    assert len(block) == 1
    return replaced(block[0], {"'...'": f"'{password}'"}).splitlines()


def test_the_password_of_the_database_stands_in_no_command_line(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path / "postgres.log")
    try:
        with psycopg.connect(cluster.url().replace("+psycopg", ""), autocommit=True) as connection:
            for statement in sql_in_docs("top-secret"):
                connection.execute(statement)  # type: ignore[call-overload]
            found = connection.execute("SHOW hba_file").fetchone()
            assert found is not None
            Path(found[0]).write_text("host all all 127.0.0.1/32 scram-sha-256\n")
            connection.execute("SELECT pg_reload_conf()")
        (tmp_path / "key").write_text("a key for tests alone, " * 2)
        (tmp_path / "a.txt").write_text("alpha")
        options = replicas_options()["--state"].partition("@")
        state = f"{options[0]}@127.0.0.1:{cluster.port}/{options[2].partition('/')[2]}"
        line = [*command("serve", str(tmp_path), "--bind", "127.0.0.1:{port}"), "--state", state]
        line += ["--link-key", str(tmp_path / "key")]
        members = [{"name": f"{n}.txt", "text": os.urandom(30).hex()} for n in range(100)]
        body = json.dumps({"name": "many.zip", "members": members}).encode()
        way, kind = "/bundle/links", {"Content-Type": "application/json"}
        with ExitStack() as stack:
            replicas = [
                stack.enter_context(Replica(line, tmp_path / f"{password}.log", {"PGPASSWORD": password}))
                for password in ("top-secret", "wrong-secret")
            ]
            right, wrong = replicas
            link = urljoin(way, ask(right.url + way, "POST", kind, body).headers["Location"])
            assert ask(right.url + link).status == 200
            # A replica that is let in nowhere still serves what needs no database, and says what is wrong.
            assert ask(wrong.url + way, "POST", kind, body).status == 503
            assert ask(f"{wrong.url}/bundle?path=/tree/a.txt").status == 200
            assert "password authentication failed" in wrong.said()
            # What it runs on, that it listens, and that it takes no uploads: that needs a store that replicas share.
            assert right.said().count("\n") == 3
            for replica in replicas:
                assert "secret" not in Path(f"/proc/{replica.pid}/cmdline").read_text()
                assert "-secret" not in replica.said()
    finally:
        cluster.remove()


def replicas_options() -> dict[str, str]:
    return serve_options(COMPOSE["services"]["replica-1"]["command"])


# --- apps of one's own ---------------------------------------------------------------------------------------------


def app_in_docs(framework: str) -> str:
    """The program in docs/deploy.md that uses a framework."""
    blocks = re.findall(r"^```python\n(.*?)^```$", DOCS, flags=re.MULTILINE | re.DOTALL)
    found = [block for block in blocks if f"from {framework} " in block]
    assert len(found) == 1
    return str(found[0])


@pytest.mark.parametrize(("server", "framework"), [("gunicorn", "flask"), ("uvicorn", "fastapi")])
def test_an_app_of_ones_own_is_resumed_on_another_replica(server: str, framework: str, tmp_path: Path) -> None:
    judge("nginx")
    (tmp_path / "files").mkdir()
    for name, number in (("a", 1), ("b", 2)):
        (tmp_path / "files" / name).write_bytes(content(5 * MIB, number))
    (tmp_path / "app.py").write_text(app_in_docs(framework))
    name = f"app-{server}@.service"
    line, env = command_of(
        name,
        tmp_path,
        FILES=str(tmp_path / "files"),
        LEDGER=f"sqlite:///{tmp_path}/ledger.sqlite3",
        LINK_KEY="a key for tests alone",
        PYTHONPATH=os.pathsep.join([str(tmp_path), str(ROOT)]),
    )
    if server == "gunicorn":  # the socket is systemd's to give, and the file lies in the app's folder
        assert setting("ListenStream", unit("app-gunicorn@.socket")) == "127.0.0.1:%i"
        line += ["--bind", "127.0.0.1:{port}"]
        line[line.index("gunicorn.conf.py")] = str(DEPLOY / "gunicorn.conf.py")
    with ExitStack() as stack:
        replicas = [stack.enter_context(Replica(line, tmp_path / f"{n}.log", env)) for n in (1, 2)]
        url = stack.enter_context(front(replicas, tmp_path / "front"))
        path = "/bundle?path=/files/a&path=/files/b&name=two.zip"
        whole = ask(replicas[0].url + path, headers={"Host": "app.example"})
        with zipfile.ZipFile(io.BytesIO(whole.body)) as archive:
            assert [archive.read(f"files/{n}") for n in "ab"] == [content(5 * MIB, 1), content(5 * MIB, 2)]
        for start in (1, 6 * MIB, len(whole.body) - 200):
            headers = {"Host": "app.example", "Range": f"bytes={start}-", "If-Range": whole.headers["ETag"]}
            for at in (replicas[1].url, url):
                rest = ask(at + path, headers=headers)
                assert (rest.status, rest.body) == (206, whole.body[start:])


# --- containers ----------------------------------------------------------------------------------------------------


def test_the_image_is_made_of_what_is_there() -> None:
    dockerfile = text("Dockerfile")
    ignored, *kept = text("Dockerfile.dockerignore").split()
    assert ignored == "*"
    for sources in re.findall(r"^COPY (?!--from)(.+) \S+$", dockerfile, flags=re.MULTILINE):
        for source in sources.split():
            assert (ROOT / source).exists()
            assert f"!{source}" in kept, f"{source} is kept out of what is built from"
    extras = one(r'pip install .*"/src\[([a-z,]+)\]"', dockerfile).split(",")
    setup = (ROOT / "setup.py").read_text()
    assert {"serve", "postgresql"} <= set(extras)
    assert all(f'"{extra}":' in setup for extra in extras)
    assert json.loads(one(r"^ENTRYPOINT (.+)$", dockerfile)) == ["streamware"]
    assert "ROOT" in serve_options(json.loads(one(r"^CMD (.+)$", dockerfile)))
    user = one(r"^USER (\d+)$", dockerfile)
    assert f"--uid {user} " in dockerfile
    home = one(r"XDG_STATE_HOME=(\S+)", dockerfile)
    assert f"-m 0700 -o streamware -g streamware {home}/streamware" in dockerfile


def seconds(text: str) -> int:
    return int(one(r"^([0-9]+)s$", text))


def test_compose_is_of_one_piece() -> None:
    services = COMPOSE["services"]
    assert set(services) == {"front", "replica-1", "replica-2", "database", "store"}
    assert services["replica-1"] == services["replica-2"]
    for service in services.values():
        assert set(service.get("depends_on", {})) <= set(services)
        for volume in service.get("volumes", ()):
            source = re.split(r":(?=/)", volume)[0]
            if source.startswith("./"):
                assert (DEPLOY / source).is_file()
            elif not source.startswith("$"):
                assert source in COMPOSE["volumes"]
        for condition in service.get("depends_on", {}).values():
            assert condition["condition"] == "service_healthy"
    for other in services["front"]["depends_on"]:
        assert f"server {other}:8080 " in REPLICAS["compose"]
        assert "healthcheck" in services[other]

    replica = services["replica-1"]
    build = replica["build"]
    assert (DEPLOY / build["context"]).resolve() == ROOT
    assert (ROOT / build["dockerfile"]).is_file()
    options = serve_options(replica["command"])
    assert options["--bind"].endswith(":8080")
    assert seconds(replica["stop_grace_period"]) >= int(options["--grace"]) + CLOSE_SECONDS
    state = urlsplit(options["--state"])
    assert (state.hostname, state.password) == ("database", None)
    database = services["database"]["environment"]
    assert (state.username, state.path) == (database["POSTGRES_USER"], "/" + database["POSTGRES_DB"])
    given = replica["environment"]
    assert given["PGPASSWORD"] == database["POSTGRES_PASSWORD"]
    # The bucket is a folder that MinIO finds, and its keys are MinIO's own.
    store, minio = urlsplit(options["--store"]), services["store"]
    assert store.scheme == "s3"
    assert f"mkdir -p /data/{store.netloc} " in minio["entrypoint"][-1]
    assert urlsplit(given["AWS_ENDPOINT_URL"]).netloc == "store:9000"
    assert given["AWS_ACCESS_KEY_ID"] == minio["environment"]["MINIO_ROOT_USER"]
    assert given["AWS_SECRET_ACCESS_KEY"] == minio["environment"]["MINIO_ROOT_PASSWORD"]
    assert {"source": "tokens", "target": options["--token"]} in replica["configs"]
    asked = set(re.findall(r"\$\{(\w+):\?", text("compose.yaml")))
    assert asked == set(one(r"for name in ([A-Z_ ]+);", text("compose.yaml")).split())
    # Without --link-key it is kept in the state directory, which the replicas share.
    home = one(r"XDG_STATE_HOME=(\S+)", text("Dockerfile"))
    assert "--link-key" not in options
    assert f"state:{home}/streamware" in replica["volumes"]
    check = replica["healthcheck"]["test"]
    compile(check[-1], "healthcheck", "exec")
    assert "http://127.0.0.1:8080/healthz" in check[-1]


def manifests() -> dict[tuple[str, str], Any]:
    kustomization = yaml.safe_load(text("kustomization.yaml"))
    found = {}
    for name in kustomization["resources"]:
        for document in yaml.safe_load_all(text(name)):
            found[document["kind"], document["metadata"]["name"]] = document
    for made in kustomization["configMapGenerator"]:
        data = {Path(file).name: text(file) for file in made["files"]}
        found["ConfigMap", made["name"]] = {"data": data}
    return found


def test_kubernetes_manifests_agree() -> None:
    found = manifests()
    assert {kind for kind, _ in found} == {"ConfigMap", "Deployment", "Service", "PodDisruptionBudget"}
    labels = {name: d["spec"]["template"]["metadata"]["labels"] for (k, name), d in found.items() if k == "Deployment"}
    for (kind, name), document in found.items():
        spec = document.get("spec", {})
        if kind == "Deployment":
            check_deployment(spec, found)
            assert spec["selector"]["matchLabels"] == labels[name]
        elif kind == "Service":
            assert spec["selector"] in labels.values(), name
        elif kind == "PodDisruptionBudget":
            assert spec["selector"]["matchLabels"] in labels.values()
    # The front asks for the Service of the replicas, at its port.
    for name, port in set(re.findall(r"server ([a-z-]+):([0-9]+)", REPLICAS["kubernetes"])):
        service = found["Service", name]["spec"]
        assert [p["port"] for p in service["ports"]] == [int(port)]
        assert service["selector"] == labels["streamware"]


def check_deployment(spec: dict[str, Any], found: Mapping[tuple[str, str], Any]) -> None:
    assert spec["replicas"] >= 2
    pod = spec["template"]["spec"]
    (container,) = pod["containers"]
    ports = {port["name"] for port in container["ports"]}
    for probe in ("readinessProbe", "livenessProbe"):
        (way,) = container[probe].keys() & {"httpGet", "tcpSocket"}
        assert container[probe][way]["port"] in ports
        assert container[probe][way].get("path") in ("/healthz", None)
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == set(volumes)
    for volume in volumes.values():
        if "configMap" in volume:
            files = found["ConfigMap", volume["configMap"]["name"]]["data"]
            mounts = [m for m in container["volumeMounts"] if m["name"] == volume["name"]]
            assert {mount["subPath"] for mount in mounts} == set(files)
    last = int(container["lifecycle"]["preStop"]["exec"]["command"][-1])
    grace = 0
    if "args" in container:
        options = serve_options(container["args"])
        grace = int(options["--grace"])
        assert "readOnlyRootFilesystem" in container["securityContext"]
        assert f"USER {pod['securityContext']['runAsUser']}\n" in text("Dockerfile")
        # What the command line is made of: values of the ConfigMap, and files of the Secret.
        (given,) = container["envFrom"]
        values = found["ConfigMap", given["configMapRef"]["name"]]["data"]
        assert set(re.findall(r"\$\((\w+)\)", " ".join(container["args"]))) <= set(values)
        mounted = {m["mountPath"]: volumes[m["name"]] for m in container["volumeMounts"]}
        files = [Path(options[name]) for name in ("--link-key", "--token")]
        (folder,) = {file.parent for file in files}
        secret = mounted[str(folder)]["secret"]
        assert [item["path"] for item in secret["items"]] == [file.name for file in files]
        assert options["ROOT"] in mounted
        # The commands that make the Secret stand in config.yaml, and make what is asked for here.
        keys = {item["key"] for item in secret["items"]}
        keys |= {e["valueFrom"]["secretKeyRef"]["key"] for e in container["env"]}
        assert keys == set(re.findall(r"--from-literal=([a-z-]+)=", text("kubernetes/config.yaml")))
    assert pod["terminationGracePeriodSeconds"] >= last + grace + CLOSE_SECONDS
