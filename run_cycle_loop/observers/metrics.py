"""The loop as Prometheus metrics, over HTTP on loopback or as a textfile for node_exporter.

Everything is read from the snapshot at the moment of the scrape, so counts run over the life of the state directory and
are as right in a one-shot under cron as in a daemon. Importing this module imports prometheus_client (50 ms): import it
only where metrics are switched on.
"""

import errno
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from threading import Thread
from typing import Any
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, generate_latest, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from run_cycle_loop.kit.files import replace_file
from run_cycle_loop.model.enums import LoopState, Outcome
from run_cycle_loop.model.errors import ConfigError
from run_cycle_loop.model.records import CycleRecord
from run_cycle_loop.model.snapshots import LoopSnapshot

LOOPBACK = "127.0.0.1"


class LoopCollector(Collector):
    """Turns the newest snapshot and record into metric families, whenever asked."""

    def __init__(self, version: str) -> None:
        self._version = version
        # One attribute, replaced whole: a scrape runs in the server's thread and must never see halves.
        self._seen: tuple[LoopSnapshot | None, int | None] = (None, None)

    def see(self, snapshot: LoopSnapshot, record: CycleRecord | None = None) -> None:
        """Take what the next scrape shows; without a record the last output size stands."""
        self._seen = (snapshot, record.output_bytes if record else self._seen[1])

    def collect(self) -> Iterator[Metric]:
        """The families, as prometheus_client asks for them."""
        build = GaugeMetricFamily("run_cycle_build_info", "Always 1; the version that runs.", labels=["version"])
        build.add_metric([self._version], 1)
        yield build
        snapshot, output_bytes = self._seen
        if snapshot is not None:
            yield from _count_families(snapshot)
            yield from _time_families(snapshot)
            yield from _gauges(("last_output_bytes", "Output of the last cycle, in bytes.", output_bytes))


def _count_families(snapshot: LoopSnapshot) -> Iterator[Metric]:
    cycles = CounterMetricFamily(
        "run_cycle_cycles", "Recorded cycles by outcome, over the life of the state directory.", labels=["outcome"]
    )
    for outcome in Outcome:
        cycles.add_metric([outcome], snapshot.counts.get(outcome, 0))
    yield cycles
    yield CounterMetricFamily(
        "run_cycle_state_errors", "Records or snapshots that could not be written.", value=snapshot.state_errors
    )
    yield CounterMetricFamily(
        "run_cycle_observer_errors", "Failures of metrics, logs and notifications.", value=snapshot.observer_errors
    )
    yield CounterMetricFamily(
        "run_cycle_charged_usd", "What the budgets were charged in USD, estimates included.", value=snapshot.charged_usd
    )
    yield CounterMetricFamily(
        "run_cycle_charged_tokens", "What the budgets were charged in tokens.", value=snapshot.charged_tokens
    )
    state = GaugeMetricFamily("run_cycle_state", "1 for the state that the loop is in.", labels=["state"])
    for name in LoopState:
        state.add_metric([name], float(name is snapshot.state))
    yield state
    yield from _gauges(
        ("consecutive_failures", "Failures in a row.", snapshot.consecutive_failures),
        ("stale_cycles", "Cycles in a row without a fresh archive.", snapshot.stale_cycles),
    )


def _time_families(snapshot: LoopSnapshot) -> Iterator[Metric]:
    last = snapshot.last_cycle or {}
    started = snapshot.cycle.started_at if snapshot.cycle else last.get("started_at")
    yield from _gauges(
        ("last_duration_seconds", "How long the last recorded cycle took.", last.get("duration_seconds")),
        ("last_start_timestamp_seconds", "When a cycle last started.", _epoch(started)),
        ("last_finish_timestamp_seconds", "When a cycle last finished.", _epoch(last.get("finished_at"))),
        ("last_success_timestamp_seconds", "When a cycle last succeeded.", _epoch(snapshot.last_success_at)),
        ("next_run_timestamp_seconds", "When the next cycle is due.", _epoch(snapshot.next_run_at)),
    )


def _gauges(*samples: tuple[str, str, float | None]) -> Iterator[Metric]:
    """The gauges that have a value: what has not happened yet is absent, not zero."""
    for name, text, value in samples:
        if value is not None:
            yield GaugeMetricFamily(f"run_cycle_{name}", text, value=value)


def _epoch(moment: Any) -> float | None:
    """Seconds since 1970 of an ISO 8601 time; None where there is none, or none that can be read."""
    try:
        return datetime.fromisoformat(moment).timestamp()
    except (TypeError, ValueError):
        return None


def _registry_of(collector: LoopCollector) -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(collector)
    return registry


class HttpMetrics:
    """Serves the metrics on 127.0.0.1 from one background thread."""

    def __init__(self, port: int, collector: LoopCollector) -> None:
        """Listen at once; port 0 takes a free one.

        Raises:
            ConfigError: the port cannot be listened on.
        """
        self._collector = collector
        self._server, self._thread = _serve(port, _registry_of(collector))

    @property
    def port(self) -> int:
        """The port that is listened on."""
        return self._server.server_port

    def state_changed(self, snapshot: LoopSnapshot) -> None:
        """Show the snapshot from the next scrape on."""
        self._collector.see(snapshot)

    def cycle_finished(self, record: CycleRecord, snapshot: LoopSnapshot) -> None:
        """Show the record from the next scrape on."""
        self._collector.see(snapshot, record)

    def beat(self) -> None:
        """The server has a thread of its own."""

    def close(self) -> None:
        """Stop listening; the port is free afterwards. Takes up to half a second: at the process's end, just leave."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _serve(port: int, registry: CollectorRegistry) -> tuple[WSGIServer, Thread]:
    try:
        return start_http_server(port, addr=LOOPBACK, registry=registry)
    except (OSError, OverflowError) as error:
        taken = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
        why = "another process listens there" if taken else str(error)
        raise ConfigError(f"cannot serve metrics on {LOOPBACK}:{port}, {why}: choose another --metrics-port") from error


class TextfileMetrics:
    """Writes the metrics where node_exporter's textfile collector reads them: after each cycle, and at the end."""

    def __init__(self, path: Path, collector: LoopCollector) -> None:
        """Write nothing yet.

        Raises:
            ConfigError: something else than a file stands there, such as the device ``/dev/stdout``.
        """
        if path.exists() and not path.is_file():
            raise ConfigError(f"metrics cannot be written to {path}, it is no file: choose another --metrics-textfile")
        self._path = path
        self._collector = collector
        self._registry = _registry_of(collector)

    def state_changed(self, snapshot: LoopSnapshot) -> None:
        """Write at the end only, so that the file does not say "running" for ever.

        Raises:
            OSError: the file could not be replaced.
        """
        self._collector.see(snapshot)
        if snapshot.state is LoopState.STOPPED:
            self._write()

    def cycle_finished(self, record: CycleRecord, snapshot: LoopSnapshot) -> None:
        """Write the file.

        Raises:
            OSError: the file could not be replaced.
        """
        self._collector.see(snapshot, record)
        self._write()

    def beat(self) -> None:
        """The file changes with cycles only."""

    def _write(self) -> None:
        # Readable by all, whatever the umask: node_exporter is another user.
        replace_file(self._path, generate_latest(self._registry), mode=0o644)
