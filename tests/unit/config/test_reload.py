"""A reload takes what can change while the loop runs, and names what cannot."""

from pathlib import Path

from run_cycle_loop.config.reload import RESTART_ONLY, reloaded
from run_cycle_loop.config.settings import Settings


def test_what_needs_a_restart_is_kept_and_named() -> None:
    old = Settings.of(sleep=1.0, metrics_port=9000)
    new = Settings.of(sleep=2.0, metrics_port=9001, dry_run=True)
    settings, kept = reloaded(old, new)
    assert (settings.sleep, settings.metrics_port, settings.dry_run) == (2.0, 9000, False)
    assert kept == ["metrics-port", "dry-run"]


def test_what_follows_from_a_kept_value_is_kept_with_it() -> None:
    old, new = Settings.of(), Settings.of(state_dir=Path("elsewhere"), mode="other")
    settings, kept = reloaded(old, new)
    assert kept == ["stop-file", "state-dir", "history-path"]
    assert settings == Settings.of(mode="other")


def test_an_archive_glob_of_the_operators_own_is_taken() -> None:
    settings, _ = reloaded(Settings.of(), Settings.of(archive_glob="out/*", state_dir=Path("elsewhere")))
    assert settings.archive_glob == "out/*"


def test_nothing_changed_names_nothing() -> None:
    assert reloaded(Settings.of(), Settings.of()) == (Settings.of(), [])


def test_what_is_open_while_the_loop_runs_needs_a_restart() -> None:
    assert {"state_dir", "history_path", "log_dir", "stop_file", "metrics_port", "iterations"} <= RESTART_ONLY
    assert not RESTART_ONLY & {"goal", "mode", "sleep", "timeout", "max_failures", "command", "goal_file"}
