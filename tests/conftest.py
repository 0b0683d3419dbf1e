"""What every test may use: the outside judges, folders for a server, and the switch for the long trials.

The rule of this file: nothing is left out silently. A judge that is not installed is a visible skip, and a failure
under ``CI=true``; long trials are marked ``soak`` and counted as deselected unless ``STREAMWARE_SOAK=1``.
"""

from __future__ import annotations

import glob
import os
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

try:
    import hypothesis
except ModuleNotFoundError:  # tox -e minimal installs pytest alone
    hypothesis = None

__all__ = ["SOAK", "judge"]

SOAK = os.environ.get("STREAMWARE_SOAK") == "1"

# Servers live in sbin, which an ordinary user's PATH leaves out, and Debian's PostgreSQL in a place of its own.
_SEARCH_PATH = os.pathsep.join(
    [
        *(os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin", "/sbin"),
        *sorted(glob.glob("/usr/lib/postgresql/*/bin"), reverse=True),
    ]
)

if hypothesis is not None:
    # The same cases every time, so that a red run means a changed program; the long trials look for new ones and print
    # how to repeat what they found.
    hypothesis.settings.register_profile("steady", deadline=None, derandomize=True, database=None)
    hypothesis.settings.register_profile("soak", deadline=None, max_examples=2000, database=None, print_blob=True)
    hypothesis.settings.load_profile("soak" if SOAK else "steady")


def judge(name: str) -> str:
    """The path of an outside program. Where it is missing: a visible skip, or a failure under ``CI=true``."""
    path = shutil.which(name, path=_SEARCH_PATH)
    if path is not None:
        return path
    reason = f"the judge {name!r} is not installed (.ci/run names its package)"
    if os.environ.get("CI") == "true":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


@pytest.fixture(autouse=True, scope="session")
def _own_state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Servers that tests start keep their state in a folder of this run, not in that of whoever runs it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty state directory for the test alone; the server's own is the folder ``streamware`` in it."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder to serve, with one file in it."""
    root = tmp_path / "root"
    root.mkdir()
    (root / "a.txt").write_text("alpha\n")
    return root


@pytest.fixture(name="judge", scope="session")
def _judge() -> Callable[[str], str]:
    """``judge`` for tests that would rather not import it."""
    return judge


def pytest_runtest_setup(item: pytest.Item) -> None:
    for marker in item.iter_markers("judge"):
        for name in marker.args:
            judge(name)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if SOAK:
        return
    long = [item for item in items if item.get_closest_marker("soak")]
    if long:
        config.hook.pytest_deselected(items=long)
        items[:] = [item for item in items if not item.get_closest_marker("soak")]


# --- the fault list ----------------------------------------------------------------------------------------------

_cases: defaultdict[int, list[str]] = defaultdict(list)  # number of a fault -> outcomes of its tests


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "call" or report.outcome != "passed":
        for name, number in report.user_properties:
            if name == "case":
                _cases[int(number)].append(report.outcome)


@pytest.fixture(autouse=True)
def _case(request: pytest.FixtureRequest, record_property: Callable[[str, object], None]) -> None:
    """Note which faults of the list (docs/faults.md) a test stands for: ``@pytest.mark.case(15, 17)``."""
    for marker in request.node.iter_markers("case"):
        for number in marker.args:
            record_property("case", number)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not _cases:
        return
    terminalreporter.section("faults by number")
    for number, outcomes in sorted(_cases.items()):
        told = ", ".join(f"{outcomes.count(o)} {o}" for o in ("passed", "failed", "skipped") if o in outcomes)
        terminalreporter.write_line(f"{number:3}  {told}")
