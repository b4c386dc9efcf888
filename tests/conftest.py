"""Which tests run: those that need root and Debian packages only with ``scripts/test --all``, and then all of them."""

import os
import signal
from collections.abc import Generator, Iterator

import pytest

from run_cycle_loop.controls.signals import HANDLED, SignalInbox

GATED = ("root", "systemd", "agents")
EVERYTHING = os.environ.get("RUN_CYCLE_TEST_ALL") == "1"
_left_out = pytest.StashKey[int]()


def _is_gated(item: pytest.Item) -> bool:
    return any(item.get_closest_marker(name) is not None for name in GATED)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    gated = [] if EVERYTHING else [item for item in items if _is_gated(item)]
    if gated:
        config.hook.pytest_deselected(items=gated)
        items[:] = [item for item in items if not _is_gated(item)]
    config.stash[_left_out] = len(gated)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    count = config.stash.get(_left_out, 0)
    if count:
        terminalreporter.write_line(
            f"left out, marked {' or '.join(GATED)}: {count} (./scripts/test --all, as root, runs them)"
        )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if EVERYTHING and report.skipped and not hasattr(report, "wasxfail") and _is_gated(item):
        report.outcome = "failed"
        report.longrepr = f"skipped, which --all does not allow: {_reason(report)}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """A module that skips itself would hide its marks, so that it may not do so either."""
    report = yield
    if EVERYTHING and report.skipped:
        report.outcome = "failed"
        report.longrepr = f"skipped while collecting, which --all does not allow: {_reason(report)}"
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
