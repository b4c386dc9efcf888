"""Which tests run: those that need root, Debian packages or a cluster only where ``scripts/test`` is told to run them
(``--all``, ``--cluster``), and then all of them.
"""

import os
import signal
from collections.abc import Generator, Iterator

import pytest

from run_cycle_loop.controls.signals import HANDLED, SignalInbox

GATED = ("root", "systemd", "agents", "cluster")
#: By switch: its variable, and the marks that it lets in. The first switch that is on counts.
SWITCHES = {
    "--all": ("RUN_CYCLE_TEST_ALL", GATED),
    "--cluster": ("RUN_CYCLE_TEST_CLUSTER", ("cluster",)),
}
SWITCH = next((switch for switch, (name, _) in SWITCHES.items() if os.environ.get(name) == "1"), None)
LET_IN = SWITCHES[SWITCH][1] if SWITCH else ()
_left_out = pytest.StashKey[int]()


def _is_gated(item: pytest.Item) -> bool:
    return any(item.get_closest_marker(name) is not None for name in GATED)


def _is_left_out(item: pytest.Item) -> bool:
    return any(item.get_closest_marker(name) is not None for name in GATED if name not in LET_IN)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    left_out = [item for item in items if _is_left_out(item)]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if not _is_left_out(item)]
    config.stash[_left_out] = len(left_out)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    count = config.stash.get(_left_out, 0)
    if count:
        terminalreporter.write_line(
            f"left out, marked {' or '.join(name for name in GATED if name not in LET_IN)}: {count} "
            "(./scripts/test --all, as root, runs them)"
        )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if SWITCH and report.skipped and not hasattr(report, "wasxfail") and _is_gated(item):
        report.outcome = "failed"
        report.longrepr = f"skipped, which {SWITCH} does not allow: {_reason(report)}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """A module that skips itself would hide its marks, so that it may not do so either."""
    report = yield
    if SWITCH and report.skipped:
        report.outcome = "failed"
        report.longrepr = f"skipped while collecting, which {SWITCH} does not allow: {_reason(report)}"
    return report


def _reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    return report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)


@pytest.fixture
def inbox() -> Iterator[SignalInbox]:
    """The signals of this process as readable bytes; the handlers that pytest had come back afterwards."""
    handlers = {number: signal.getsignal(number) for number in (*HANDLED, signal.SIGCHLD)}
    with SignalInbox() as opened:
        yield opened
    for number, handler in handlers.items():
        signal.signal(number, handler)
