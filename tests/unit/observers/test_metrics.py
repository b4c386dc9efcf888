import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from run_cycle_loop.model.enums import LoopState, Outcome
from run_cycle_loop.model.errors import ConfigError
from run_cycle_loop.model.records import CycleRecord, RunningCycle
from run_cycle_loop.model.snapshots import LoopSnapshot
from run_cycle_loop.observers.metrics import HttpMetrics, LoopCollector, TextfileMetrics

Snapshots = Callable[..., LoopSnapshot]
Records = Callable[..., CycleRecord]
Samples = dict[tuple[str, ...], float]


def parse(text: str) -> Samples:
    """Each sample under its name and its label values."""
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


class Seen:
    """The collector, and what a scrape of it shows."""

    def __init__(self) -> None:
        self.collector = LoopCollector("1.2.3")
        self._registry = CollectorRegistry()
        self._registry.register(self.collector)

    def __call__(self, snapshot: LoopSnapshot, record: CycleRecord | None = None) -> Samples:
        self.collector.see(snapshot, record)
        return self.now()

    def now(self) -> Samples:
        return parse(generate_latest(self._registry).decode())


@pytest.fixture
def seen() -> Seen:
    return Seen()


@pytest.fixture(scope="module")
def server() -> Iterator[HttpMetrics]:
    http = HttpMetrics(0, LoopCollector("1.2.3"))
    yield http
    http.close()


@pytest.fixture
def textfile(tmp_path: Path) -> TextfileMetrics:
    return TextfileMetrics(tmp_path / "loop.prom", LoopCollector("1.2.3"))


def test_before_the_first_state_only_the_version_is_known(seen: Seen) -> None:
    assert seen.now() == {("run_cycle_build_info", "1.2.3"): 1}


def test_what_went_wrong_beside_the_cycles_is_counted(seen: Seen, snapshot: Snapshots) -> None:
    samples = seen(snapshot(state_errors=2, observer_errors=5))
    assert samples[("run_cycle_state_errors_total",)] == 2
    assert samples[("run_cycle_observer_errors_total",)] == 5


def test_counts_come_from_the_snapshot_so_a_restart_does_not_reset_them(seen: Seen, snapshot: Snapshots) -> None:
    counts = {Outcome.SUCCESS: 40, Outcome.TIMEOUT: 2}
    samples = seen(snapshot(counts=counts, consecutive_failures=2, stale_cycles=1))
    assert samples["run_cycle_cycles_total", "success"] == 40
    assert samples["run_cycle_cycles_total", "timeout"] == 2
    assert samples["run_cycle_cycles_total", "lost"] == 0
    assert samples[("run_cycle_consecutive_failures",)] == 2
    assert samples[("run_cycle_stale_cycles",)] == 1


@pytest.mark.parametrize("state", list(LoopState))
def test_exactly_the_current_state_is_one(seen: Seen, snapshot: Snapshots, state: LoopState) -> None:
    states = {key[1]: value for key, value in seen(snapshot(state)).items() if key[0] == "run_cycle_state"}
    assert states == {name: float(name is state) for name in LoopState}


def test_times_are_epoch_seconds_and_what_has_not_happened_is_absent(
    seen: Seen, snapshot: Snapshots, record: Records
) -> None:
    samples = seen(snapshot().counting(record()), record())
    assert samples[("run_cycle_last_start_timestamp_seconds",)] == 1767355200
    assert samples[("run_cycle_last_finish_timestamp_seconds",)] == 1767355202
    assert samples[("run_cycle_last_success_timestamp_seconds",)] == 1767355202
    assert samples[("run_cycle_last_duration_seconds",)] == 0.2
    assert samples[("run_cycle_last_output_bytes",)] == 512
    assert ("run_cycle_next_run_timestamp_seconds",) not in samples


def test_the_cycle_in_flight_is_the_last_that_started(
    seen: Seen, snapshot: Snapshots, record: Records, in_flight: RunningCycle
) -> None:
    seen(snapshot().counting(record()), record())
    samples = seen(snapshot(LoopState.RUNNING, cycle=in_flight))
    assert samples[("run_cycle_last_start_timestamp_seconds",)] == 1767355500
    assert samples[("run_cycle_last_output_bytes",)] == 512


def test_an_unreadable_time_is_absent(seen: Seen, snapshot: Snapshots) -> None:
    samples = seen(snapshot(next_run_at="soon", last_cycle={"finished_at": 3}))
    assert not {name for name, *_ in samples if name.endswith("timestamp_seconds")}


def test_a_scrape_over_http_shows_what_the_loop_last_said(
    server: HttpMetrics, snapshot: Snapshots, record: Records
) -> None:
    server.cycle_finished(record(), snapshot(counts={Outcome.SUCCESS: 7}))
    server.state_changed(snapshot(LoopState.BACKOFF, counts={Outcome.SUCCESS: 8}))
    with urlopen(f"http://127.0.0.1:{server.port}/metrics", timeout=10) as answer:
        samples = parse(answer.read().decode())
    assert samples["run_cycle_cycles_total", "success"] == 8
    assert samples["run_cycle_state", "backoff"] == 1
    assert samples[("run_cycle_last_output_bytes",)] == 512


def test_a_taken_port_is_one_sentence_for_the_operator(server: HttpMetrics) -> None:
    with pytest.raises(ConfigError, match=rf"127\.0\.0\.1:{server.port}, another process .* --metrics-port"):
        HttpMetrics(server.port, LoopCollector("1"))


def test_a_port_beyond_the_range_is_one_sentence_for_the_operator() -> None:
    with pytest.raises(ConfigError, match=r"127\.0\.0\.1:70000"):
        HttpMetrics(70000, LoopCollector("1"))


def test_a_closed_server_gives_its_port_back() -> None:
    first = HttpMetrics(0, LoopCollector("1"))
    first.close()
    HttpMetrics(first.port, LoopCollector("1")).close()


def test_the_textfile_is_written_after_each_cycle_and_at_the_end(
    textfile: TextfileMetrics, tmp_path: Path, snapshot: Snapshots, record: Records
) -> None:
    path = tmp_path / "loop.prom"
    textfile.state_changed(snapshot(LoopState.RUNNING))
    textfile.beat()
    assert not path.exists()
    textfile.cycle_finished(record(), snapshot(LoopState.RUNNING, counts={Outcome.SUCCESS: 1}))
    assert parse(path.read_text())["run_cycle_cycles_total", "success"] == 1
    textfile.state_changed(snapshot(LoopState.STOPPED))
    assert parse(path.read_text())["run_cycle_state", "stopped"] == 1
    assert [entry.name for entry in tmp_path.iterdir()] == ["loop.prom"]


def test_another_user_can_read_the_textfile_under_a_strict_umask(
    textfile: TextfileMetrics, tmp_path: Path, snapshot: Snapshots
) -> None:
    before = os.umask(0o077)
    try:
        textfile.state_changed(snapshot(LoopState.STOPPED))
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "loop.prom").stat().st_mode) == 0o644


def test_a_planted_link_is_replaced_not_followed(
    textfile: TextfileMetrics, tmp_path: Path, snapshot: Snapshots
) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    for name in ("loop.prom", ".loop.prom.tmp"):
        (tmp_path / name).symlink_to(victim)
    textfile.state_changed(snapshot(LoopState.STOPPED))
    assert victim.read_text() == "mine"
    assert not (tmp_path / "loop.prom").is_symlink()


def test_a_textfile_that_cannot_be_replaced_is_the_callers_to_count(tmp_path: Path, snapshot: Snapshots) -> None:
    textfile = TextfileMetrics(tmp_path / "loop.prom", LoopCollector("1"))
    (tmp_path / "loop.prom").mkdir()
    with pytest.raises(IsADirectoryError):
        textfile.state_changed(snapshot(LoopState.STOPPED))


@pytest.mark.parametrize("path", ["/dev/null", "/dev", "/proc/self/fd"])
def test_what_is_no_file_is_never_replaced_by_metrics(path: str) -> None:
    with pytest.raises(ConfigError, match=f"{path}, it is no file"):
        TextfileMetrics(Path(path), LoopCollector("1"))
