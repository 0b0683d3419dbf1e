"""The benchmark's parts work, so that it cannot rot: never how fast anything is.

The rule of this file: a tiny set from every contender that is installed here, read whole, and reports that are written
from results that somebody made up.
"""

from __future__ import annotations

import hashlib
import io
import re
import socket
import struct
import subprocess
import sys
import threading
import time
import xml.etree.ElementTree as ElementTree
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import replace
from http.client import HTTPConnection
from pathlib import Path

import pytest

from bench import clients, command, modules, senders, usage
from bench.bed import Bed
from bench.cases import CASES, Case, case_named, contenders_of
from bench.chart import draw
from bench.contenders import ASGI, CONTENDERS, FILES_ASGI, FLOOR, MOD_ZIP, SINK, WSGI, Contender, by_key
from bench.goals import GOALS, outcomes
from bench.report import BEGIN, END, markdown, write_docs
from bench.results import CaseResult, Results, Row, Sample, Table
from bench.rounds import measure
from bench.servers import find_program
from bench.sets import SETS, MemberSet, make_set, scaled

ROOT = Path(__file__).resolve().parent.parent

# --- sets --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", ["random", "log"])
def test_a_set_is_what_it_says_each_time(tmp_path: Path, content: str) -> None:
    wanted = MemberSet("some", 3, 70_000, content)  # type: ignore[arg-type]
    one, other = make_set(wanted, tmp_path / "1"), make_set(wanted, tmp_path / "2")
    assert one.members == other.members
    assert one.bytes == wanted.bytes
    for member in one.members:
        found = (one.folder / member.name).read_bytes()
        assert (len(found), zlib.crc32(found)) == (member.size, member.crc32)
    assert len({member.crc32 for member in one.members}) == 3
    packed = len(zlib.compress((one.folder / one.members[0].name).read_bytes(), 6))
    assert (packed < 30_000) == (content == "log")
    one.remove()
    assert not one.folder.exists()


def test_a_scaled_set_is_smaller_and_not_empty() -> None:
    for wanted in SETS.values():
        assert 0 < scaled(wanted, 0.01).bytes < wanted.bytes
        assert scaled(wanted, 1) == wanted


def test_cases_and_goals_name_what_there_is() -> None:
    assert {case.set for case in CASES} <= SETS.keys()
    for goal in GOALS:
        there = {contender.key for contender in contenders_of(case_named(goal.case))}
        assert {goal.ours, goal.other or goal.ours} <= there, goal


# --- contenders --------------------------------------------------------------------------------------------------

TINY = Case("tiny", "tiny", "tiny")


@pytest.fixture(scope="module")
def bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    # Modules that an earlier run has installed; a test asks no registry.
    folder = modules.cache_folder()
    there = folder if len(modules.versions(folder)) == len(modules.PACKAGES) else None
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SETS, "tiny", MemberSet("tiny-set", 4, 150_000))
        patch.setitem(SETS, "small", MemberSet("small", 2, 5_000))
        patch.setitem(SETS, "file", MemberSet("file", 1, 3_000_000))
        with Bed(tmp_path_factory.mktemp("bench"), modules=there) as bed:
            yield bed


PYTHON = [c for c in CONTENDERS if c.host not in ("nginx", "node") and not c.only and not c.takes]


@pytest.mark.parametrize("local", [True, False], ids=["local", "upstream"])
@pytest.mark.parametrize("contender", [*PYTHON, by_key("archiver"), by_key("yazl")], ids=lambda c: c.key)
def test_a_contender_gives_the_right_archive(bed: Bed, contender: Contender, local: bool) -> None:
    if not (contender.local if local else contender.upstream):
        pytest.skip("the same as with another client")
    case = replace(TINY, local=local, crcs=contender.uses_crcs and not local)
    if why := bed.why_not(contender, case):
        pytest.skip(why)
    with bed.lay(case) as laid, bed.server(contender, laid) as server:
        connection = HTTPConnection("127.0.0.1", server.port, timeout=30)
        connection.request("GET", "/archive.zip")
        answer = connection.getresponse()
        raw = answer.read()
        connection.close()
        assert answer.status == 200, server.said
        with zipfile.ZipFile(io.BytesIO(raw)) as archive:
            assert archive.testzip() is None
            found = [(info.filename, info.file_size, info.CRC) for info in archive.infolist()]
        assert found == [member[:3] for member in laid.members]
        assert clients.download(server.port, "/tiny.zip").bytes > 60_000


@pytest.mark.parametrize("contender", [c for c in CONTENDERS if c.takes and c.key != SINK], ids=lambda c: c.key)
def test_a_file_service_keeps_and_gives_back_what_it_was_sent(bed: Bed, contender: Contender) -> None:
    case = replace(TINY, local=True, way="in")
    if why := bed.why_not(contender, case):
        pytest.skip(why)
    with bed.lay(case) as laid, bed.server(contender, laid) as server:
        sent = senders.upload(server.port, contender.takes, laid.file)
        content = laid.file.read_bytes()
        assert sent.bytes == len(content) == laid.members[0].size
        kept = [path.read_bytes() for path in (laid.stores / contender.key).rglob("*") if path.is_file()]
        assert content in kept, server.said
        if contender.only != "store/in":
            connection = HTTPConnection("127.0.0.1", server.port, timeout=30)
            connection.request("GET", sent.path)
            assert connection.getresponse().read() == content
            connection.close()


def test_the_floor_of_uploads_hashes_what_it_is_sent(bed: Bed) -> None:
    case = replace(TINY, local=True, way="in")
    sink = by_key(SINK)
    if why := bed.why_not(sink, case):
        pytest.skip(why)
    with bed.lay(case) as laid, bed.server(sink, laid) as server:
        sent = senders.upload(server.port, "post", laid.file)
        assert sent.path == f"/files/{hashlib.sha256(laid.file.read_bytes()).hexdigest()}"
        assert not any((laid.stores / SINK).iterdir())


def test_a_service_whose_program_is_missing_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    case = replace(TINY, key="store/in", local=True, way="in")
    assert Bed(tmp_path / "bed").why_not(by_key("tusd"), case) == "no tusd"


def test_uploads_and_downloads_of_stored_files_are_measured(bed: Bed) -> None:
    for way in ("in", "out"):
        case = replace(TINY, key=f"store/{way}", set="file", local=True, way=way)
        found = measure(bed, case, 2, 5.0, lambda line: None, (FILES_ASGI,))
        row = found.row(FILES_ASGI)
        assert row is not None, found.rows
        assert [sample.bytes for sample in row.samples] == [found.bytes] * 2
        assert found.ratio(FILES_ASGI, FILES_ASGI) == 1


def test_a_file_that_is_not_kept_is_no_result(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"x")
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            connection, _ = listener.accept()
            connection.recv(4096)
            connection.sendall(b"HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n")
            connection.close()

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(clients.Broken, match="not kept"):
            senders.upload(listener.getsockname()[1], "post", tmp_path / "f", seconds=10)
        thread.join(10)


def test_a_case_is_measured_and_what_is_missing_is_told(bed: Bed) -> None:
    lines: list[str] = []
    only = (WSGI, FLOOR, MOD_ZIP)
    found = measure(bed, replace(TINY, local=True), 2, 5.0, lines.append, only)
    row = found.row(WSGI)
    assert row is not None
    assert len(row.samples) == 2
    assert all(sample.cpu > 0 and 0 < sample.first_byte < sample.wall for sample in row.samples)
    assert row.samples[0].bytes > found.bytes == 600_000
    assert found.ratio(WSGI, WSGI) == 1
    assert by_key(MOD_ZIP).title in found.skipped
    assert len(lines) >= 3
    if find_program("nginx"):
        assert found.row(FLOOR) is not None


def test_slow_clients_are_counted(bed: Bed) -> None:
    case = replace(TINY, local=True, clients=3)
    found = measure(bed, case, 1, 5.0, lambda line: None, (WSGI, ASGI))
    for key in (WSGI, ASGI):
        row = found.row(key)
        assert row is not None, found.rows
        assert (row.done, row.clients) == (3, 3)
        assert found.ideal is not None
        assert row.middle("wall") >= 0.8 * found.ideal


def test_late_members_come_late(bed: Bed) -> None:
    found = measure(bed, replace(TINY, late=0.05), 1, 5.0, lambda line: None, ("zipstream-ng-wsgi", WSGI))
    row = found.row(WSGI)
    assert row is not None, found.rows
    assert found.ideal == 0.05
    assert row.middle("wall") >= 0.05


@pytest.mark.parametrize("end", [b"PK\x05\x06", b""], ids=["cut", "no record"])
def test_an_archive_that_breaks_off_is_no_result(end: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            connection, _ = listener.accept()
            connection.recv(4096)
            length = 100 if end else 50
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % length + bytes(50 - len(end)) + end)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 0, 0))
            connection.close()

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(clients.Broken):
            clients.download(listener.getsockname()[1], "/", seconds=10)
        thread.join(10)


def test_asked_to_end_it_leaves_nothing_behind(tmp_path: Path) -> None:
    options = ["--cases", "local/mid", "--contenders", WSGI, "--scale", "0.02", "--work", str(tmp_path)]
    with subprocess.Popen(
        [sys.executable, "-m", "bench", *options, "--rounds", "10000", "--patience", "10000"],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        assert "local/mid" in process.stderr.readline()
        below = list(usage.tree(process.pid))[1:]
        assert below
        process.terminate()
        process.communicate(timeout=30)
    assert process.returncode == 143
    assert list(tmp_path.iterdir()) == []
    deadline = time.monotonic() + 20  # a killed server's worker is buried by init, in its own time
    while left := [pid for pid in below if Path(f"/proc/{pid}").exists()]:
        assert time.monotonic() < deadline, [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in left]
        time.sleep(0.05)


# --- reports -----------------------------------------------------------------------------------------------------


def made_up() -> Results:
    def row(key: str, *cpu: float, **more: int) -> Row:
        title = by_key(key).title
        return Row(key, title, tuple(Sample(c, c * 2, 0.01, 1 << 30) for c in cpu), 3 << 20, **more)  # type: ignore[arg-type]

    rows = (row(WSGI, 0.2, 0.5, 0.4), row("zipstream-ng-wsgi", 1.0, 1.0, 1.0), row(ASGI, 0.6))
    failed = Row(MOD_ZIP, "mod_zip & <more>", failure="Broken: no 200")
    cases = (
        CaseResult("local/big", "Large files", 4, 1 << 30, (*rows, failed), skipped={"yazl, Node": "no npm"}),
        CaseResult("late", "Late files", 500, 1 << 20, (row(WSGI, 0.8),), ideal=1.6),
        CaseResult("slow", "Slow clients", 4, 1 << 20, (row(WSGI, 0.8, clients=9, done=9),), ideal=1.0),
    )
    return Results({"Date": "2026-01-02"}, cases, (Table("Other", "A note.", ["", "ms"], [["one", "2.0"]]),))


def test_ratios_are_of_each_round() -> None:
    case = made_up().cases[0]
    assert case.ratio(WSGI, "zipstream-ng-wsgi") == 0.4
    assert case.ratio(WSGI, ASGI) == pytest.approx(1 / 3), "of the one round that both took part in"
    assert case.ratio(WSGI, MOD_ZIP) is None
    assert case.cpu_per_gib(case.rows[0]) == 0.4


def test_results_survive_a_file() -> None:
    results = made_up()
    again = Results.from_json(results.to_json())
    assert markdown(again) == markdown(results)
    assert again.cases == results.cases


def test_goals_are_shown_with_what_was_reached() -> None:
    found = {(outcome.case, outcome.what): outcome for outcome in outcomes(made_up())}
    big = found["Large files", "CPU of zipstream-ng, urllib3, gunicorn"]
    assert (big.limit, big.reached, big.met) == ("0.50", "0.40", True)
    late = found["Late files", "wall time of the ideal"]
    assert (late.reached, late.met) == ("1.00", True)
    assert found["Slow clients", "memory of a client"].reached == "0.33 MiB"


def test_the_document_keeps_what_stands_around_the_figures(tmp_path: Path) -> None:
    page = tmp_path / "performance.md"
    page.write_text(f"Before.\n\n{BEGIN}\nold\n{END}\n\nAfter.\n", encoding="utf-8")
    for _ in range(2):
        write_docs(made_up(), tmp_path)
        said = page.read_text(encoding="utf-8")
        assert said.startswith("Before.\n")
        assert said.endswith("\n\nAfter.\n")
        assert "old" not in said
        assert said.count("Large files") >= 2
        assert "failed: Broken: no 200" in said
        assert "yazl, Node (no npm)" in said
    for table in re.findall(r"(?:^\|.*\n)+", said, re.MULTILINE):
        assert len({line.count("|") for line in table.splitlines()}) == 1, table
    page.write_text("no marks", encoding="utf-8")
    with pytest.raises(ValueError, match="needs the lines"):
        write_docs(made_up(), tmp_path)


def test_the_chart_is_a_picture_with_a_bar_for_each_contender() -> None:
    tree = ElementTree.fromstring(draw(made_up()))
    svg = "{http://www.w3.org/2000/svg}"
    texts = ["".join(each.itertext()) for each in tree.iter(f"{svg}text")]
    assert {"Large files", "Late files", "the ideal", "CPU seconds per GiB", "KiB of memory a client"} <= set(texts)
    widths = [float(each.get("width", "0")) for each in tree.iter(f"{svg}rect")]
    assert len(widths) == 1 + 3 + 2 + 1, "the paper, and the bars"
    assert all(0 < width <= 1000 for width in widths)


def test_the_document_has_its_place_for_figures() -> None:
    said = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    assert said.count(BEGIN) == said.count(END) == 1


def test_the_command_reports_from_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept = tmp_path / "kept.json"
    kept.write_text(made_up().to_json(), encoding="utf-8")
    assert command.main(["--report", str(kept)]) == 0
    assert "Large files" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        command.main(["--cases", "unheard-of"])
    assert "unknown: unheard-of" in capsys.readouterr().err
