"""Flag over variable over file over systemd over default, for every option there is."""

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from run_cycle_loop.config.settings import OPTIONS, Settings
from run_cycle_loop.config.sources import Raw, Resolved, Source, resolve
from run_cycle_loop.policies.breakers import parse_spend_rate
from run_cycle_loop.policies.budgets import parse_limit
from run_cycle_loop.policies.prices import Prices

P = Path
#: Per option: (flag, what it comes to), (variable, ...), (the file's TOML, ...); no two of them come to the same.
SAMPLES: dict[str, tuple[tuple[Raw, Any], tuple[str, Any], tuple[str, Any]]] = {
    "mode": (("f", "f"), ("v", "v"), ("'t'", "t")),
    "goal": (("do f", "do f"), ("do v", "do v"), ("'''do\nt'''", "do\nt")),
    "goal_file": (("f.txt", P("f.txt")), ("v.txt", P("v.txt")), ("'t.txt'", P("t.txt"))),
    "cycle_script": (("f.txt", P("f.txt")), ("v.txt", P("v.txt")), ("'t.txt'", P("t.txt"))),
    "timeout": (("1h30m", 5400.0), ("0", None), ("7", 7.0)),
    "grace": (("0", 0.0), ("500ms", 0.5), ("'2s'", 2.0)),
    "idle_timeout": (("1m", 60.0), ("2m", 120.0), ("0.5", 0.5)),
    "cap_writes": (("0", 0), ("5", 5), ("7", 7)),
    "sandbox_dir": (("f", P("f")), ("v/w", P("v/w")), ("'/t'", P("/t"))),
    "env_allow": ((("A", "B,C"), ("A", "B", "C")), ("LC_*, D", ("LC_*", "D")), ("['E']", ("E",))),
    "secret_env": ((("A_*",), ("A_*",)), ("B,C", ("B", "C")), ("'D'", ("D",))),
    "iterations": (("0", 0), ("5", 5), ("7", 7)),
    "sleep": (("0", 0.0), ("5m", 300.0), ("7", 7.0)),
    "while_": (("iteration.index < 3", "iteration.index < 3"), ("true", "true"), ("'false'", "false")),
    "max_failures": (("0", 0), ("5", 5), ("7", 7)),
    "backoff_initial": (("1", 1.0), ("2s", 2.0), ("3", 3.0)),
    "backoff_factor": (("1", 1.0), ("2.5", 2.5), ("3", 3.0)),
    "max_backoff": (("1h", 3600.0), ("2h", 7200.0), ("'3h'", 10800.0)),
    "backoff_jitter": (("0", 0.0), ("1", 1.0), ("0.5", 0.5)),
    "agent": (("codex", "codex"), ("pi", "pi"), ("'gemini'", "gemini")),
    "model": (("f", "f"), ("off", None), ("'t'", "t")),
    "role": (("read-only", "read-only"), ("WRITE", "write"), ("'read-only'", "read-only")),
    "workdir": (("f", P("f")), ("v", P("v")), ("'t'", P("t"))),
    "agent_command": (("f {prompt_file}", "f {prompt_file}"), ("none", None), ("'t'", "t")),
    "agent_script": (("f.txt", P("f.txt")), ("v.txt", P("v.txt")), ("'t.txt'", P("t.txt"))),
    "agent_args": (("--f", "--f"), ("off", None), ("'--t 1'", "--t 1")),
    "agent_schema": (("f.txt", P("f.txt")), ("v.txt", P("v.txt")), ("'t.txt'", P("t.txt"))),
    "isolate": (("bwrap", "bwrap"), ("NONE", "none"), ("'auto'", "auto")),
    "goals": (("f.txt", P("f.txt")), ("v.txt", P("v.txt")), ("'t.txt'", P("t.txt"))),
    "goal_order": (("random", "random"), ("until-done", "until-done"), ("'round-robin'", "round-robin")),
    "goal_seed": (("0", 0), ("5", 5), ("7", 7)),
    "goal_command": (("f", "f"), ("v w", "v w"), ("'t'", "t")),
    "goal_timeout": (("1", 1.0), ("2s", 2.0), ("3", 3.0)),
    "runner": (("job", "job"), ("AGENTRUN", "agentrun"), ("'script'", "script")),
    "manifest": (("f.txt", P("f.txt")), ("v", P("v")), ("'t'", P("t"))),
    "where": (("cluster", "cluster"), ("LOCAL", "local"), ("'cluster'", "cluster")),
    "profile": (("current", "current"), ("auto", "auto"), ("'guide'", "guide")),
    "image": (("f:1", "f:1"), ("none", None), ("'t'", "t")),
    "job_template": (("f.txt", P("f.txt")), ("v.txt", P("v.txt")), ("'t.txt'", P("t.txt"))),
    "namespace": (("f", "f"), ("off", None), ("'t'", "t")),
    "kubeconfig": (("f.txt", P("f.txt")), ("v", P("v")), ("'t'", P("t"))),
    "kube_context": (("f", "f"), ("v", "v"), ("'t'", "t")),
    "write_guard": (("off", "off"), ("warn", "warn"), ("'enforce'", "enforce")),
    "cap_bytes": (("0", 0), ("1MiB", 1024**2), ("4096", 4096)),
    "consent_guard": (("off", "off"), ("warn", "warn"), ("'enforce'", "enforce")),
    "git_check": (("off", "off"), ("warn", "warn"), ("'require'", "require")),
    "git_update": (("ff-only", "ff-only"), ("off", "off"), ("'ff-only'", "ff-only")),
    "git_fetch_age": (("1h", 3600.0), ("0", None), ("7", 7.0)),
    "git_timeout": (("1", 1.0), ("2s", 2.0), ("3", 3.0)),
    "breaker_guard": (("off", "off"), ("warn", "warn"), ("'enforce'", "enforce")),
    "no_progress": (("0", 0), ("5", 5), ("7", 7)),
    "storm_cycles": (("0", 0), ("5", 5), ("7", 7)),
    "storm_seconds": (("0", 0.0), ("5m", 300.0), ("7", 7.0)),
    "spend_rate": (
        ("10usd/30m", parse_spend_rate("10usd/30m")),
        ("off", None),
        ("'1usd/1h'", parse_spend_rate("1usd/1h")),
    ),
    "budget": (
        (("usd=5/day", "tokens=2M/run"), (parse_limit("usd=5/day"), parse_limit("tokens=2M/run"))),
        ("time=3h/run", (parse_limit("time=3h/run"),)),
        ("['cycles=4/day']", (parse_limit("cycles=4/day"),)),
    ),
    "on_budget": (("stop", "stop"), ("wait", "wait"), ("'stop'", "stop")),
    "budget_guard": (("off", "off"), ("warn", "warn"), ("'enforce'", "enforce")),
    "estimate_usd": (("0", 0.0), ("5", 5.0), ("7.5", 7.5)),
    "estimate_tokens": (("0", 0), ("5", 5), ("7", 7)),
    "prices": (
        ("input=1,output=2", Prices(input=1, output=2)),
        ("off", None),
        ("'input=3,output=4'", Prices(input=3, output=4)),
    ),
    "limit_margin": (("0", 0.0), ("5m", 300.0), ("7", 7.0)),
    "max_limit_wait": (("1", 1.0), ("5m", 300.0), ("7", 7.0)),
    "stop_file": (("f", P("f")), ("v", P("v")), ("'t'", P("t"))),
    "prereq_script": (("f.txt", P("f.txt")), ("none", None), ("'t.txt'", P("t.txt"))),
    "prereq_timeout": (("1", 1.0), ("2s", 2.0), ("3", 3.0)),
    "require_module": ((("a", "b.c"), ("a", "b.c")), ("d,e", ("d", "e")), ("['f']", ("f",))),
    "optional_module": ((("a,b",), ("a", "b")), ("d,e", ("d", "e")), ("'f'", ("f",))),
    "require_command": ((("git",), ("git",)), ("jq,awk", ("jq", "awk")), ("['/bin/a,b']", ("/bin/a,b",))),
    "optional_command": ((("git",), ("git",)), ("", ()), ("['jq']", ("jq",))),
    "require_writable": ((("f",), ("f",)), ("v , w", ("v", "w")), ("['t']", ("t",))),
    "min_free_disk": (("0", 0), ("1GiB", 1024**3), ("4096", 4096)),
    "min_free_memory": (("0", 0), ("1k", 1000), ("'1MiB'", 1024**2)),
    "archive_glob": (("f/*.gz", "f/*.gz"), ("none", None), ("'t/*'", "t/*")),
    "stale_after": (("1", 1), ("5", 5), ("7", 7)),
    "state_dir": (("f", P("f")), ("v", P("v")), ("'t'", P("t"))),
    "log_dir": (("f", P("f")), ("v", P("v")), ("'t'", P("t"))),
    "history_path": (("f", P("f")), ("v", P("v")), ("'t'", P("t"))),
    "max_log_bytes": (("1024", 1024), ("1MiB", 1024**2), ("2048", 2048)),
    "keep_logs": (("1", 1), ("5", 5), ("7", 7)),
    "log_format": (("json", "json"), ("TEXT", "text"), ("'auto'", "auto")),
    "log_level": (("debug", "debug"), ("error", "error"), ("'warning'", "warning")),
    "metrics_port": (("9000", 9000), ("0", None), ("65535", 65535)),
    "metrics_textfile": (("f", P("f")), ("v", P("v")), ("'t'", P("t"))),
}
#: Switches have two values only: the flag must win where it differs from the variable, the variable from the file.
SWITCHES = ("sandbox_reset", "strict_cluster", "assume_yes", "metrics_stdout", "dry_run")
ON_COMMAND_LINE = sorted(SAMPLES)


@pytest.fixture
def cwd(tmp_path: Path) -> Path:
    for name in ("f.txt", "v.txt", "t.txt"):
        (tmp_path / name).write_text("a goal, or a script")
        (tmp_path / name[0]).mkdir()
    return tmp_path


def come_to(cwd: Path, flags: Mapping[str, Raw], env: Mapping[str, str], toml: str | None) -> Resolved:
    if toml is not None:
        (cwd / "run-cycle-loop.toml").write_text(toml)
    return resolve(flags, env, cwd)


def test_every_option_is_in_the_matrix() -> None:
    assert {*SAMPLES, *SWITCHES, "command", "continuous", "config"} == set(OPTIONS)


def test_every_field_is_declared() -> None:
    assert {field.name for field in fields(Settings)} | {"continuous"} == set(OPTIONS)


@pytest.mark.parametrize("name", ON_COMMAND_LINE)
def test_the_flag_wins_over_all(name: str, cwd: Path) -> None:
    (flag, expected), (variable, _), (toml, _) = SAMPLES[name]
    option = OPTIONS[name]
    resolved = come_to(cwd, {name: flag}, {option.variable: variable}, f"{option.key} = {toml}")
    assert getattr(resolved.settings, name) == expected
    assert (resolved.sources[name].source, resolved.sources[name].text) == (Source.FLAG, f"flag --{option.key}")


@pytest.mark.parametrize("name", ON_COMMAND_LINE)
def test_the_variable_wins_over_the_file(name: str, cwd: Path) -> None:
    _, (variable, expected), (toml, _) = SAMPLES[name]
    option = OPTIONS[name]
    resolved = come_to(cwd, {}, {option.variable: variable}, f"{option.key} = {toml}")
    assert getattr(resolved.settings, name) == expected
    assert resolved.sources[name].source is Source.VARIABLE
    assert resolved.sources[name].text == f"variable {option.variable}"


@pytest.mark.parametrize("name", ON_COMMAND_LINE)
def test_the_file_wins_over_the_default(name: str, cwd: Path) -> None:
    toml, expected = SAMPLES[name][2]
    resolved = come_to(cwd, {}, {}, f"{OPTIONS[name].key} = {toml}")
    assert getattr(resolved.settings, name) == expected
    assert resolved.sources[name].source is Source.FILE
    assert resolved.sources[name].text == "file run-cycle-loop.toml"


@pytest.mark.parametrize("name", ON_COMMAND_LINE)
def test_a_key_of_the_file_may_be_written_with_underscores(name: str, cwd: Path) -> None:
    toml, expected = SAMPLES[name][2]
    resolved = come_to(cwd, {}, {}, f"{OPTIONS[name].key.replace('-', '_')} = {toml}")
    assert getattr(resolved.settings, name) == expected


@pytest.mark.parametrize("name", [*ON_COMMAND_LINE, *SWITCHES])
def test_what_nobody_gives_is_the_default(name: str, cwd: Path) -> None:
    resolved = come_to(cwd, {}, {}, None)
    assert getattr(resolved.settings, name) == getattr(Settings.of(), name)
    assert resolved.sources[name].text == "default"


@pytest.mark.parametrize("name", SWITCHES)
@pytest.mark.parametrize("winner", [True, False])
def test_a_switch_is_turned_either_way_by_the_higher_source(name: str, winner: bool, cwd: Path) -> None:
    option, loser = OPTIONS[name], str(not winner).lower()
    by_flag = come_to(cwd, {name: winner}, {option.variable: loser}, f"{option.key} = {loser}")
    by_variable = come_to(cwd, {}, {option.variable: str(int(winner))}, f"{option.key} = {loser}")
    by_file = come_to(cwd, {}, {}, f"{option.key} = {str(winner).lower()}")
    assert [getattr(each.settings, name) for each in (by_flag, by_variable, by_file)] == [winner] * 3
    assert [each.sources[name].source for each in (by_flag, by_variable, by_file)] == [
        Source.FLAG,
        Source.VARIABLE,
        Source.FILE,
    ]


def test_the_defaults_are_those_of_the_design(tmp_path: Path) -> None:
    settings = resolve({}, {}, tmp_path).settings
    assert (settings.mode, settings.iterations, settings.sleep, settings.timeout) == ("experimental", 1, 300, 300)
    assert (settings.grace, settings.idle_timeout, settings.max_failures) == (10, None, 3)
    assert (settings.backoff_initial, settings.backoff_factor, settings.max_backoff) == (60, 5, 1800)
    assert settings.stop_file == P("state/run_cycle.stop")
    assert settings.history_path == P("state/run_cycle_history.jsonl")
    assert settings.log_dir == P("logs/run_cycle")
    assert settings.archive_glob == "state/planner_digest_archives/planner_digests_*.jsonl.gz"
    assert (settings.max_log_bytes, settings.keep_logs) == (64 * 1024**2, 500)
    assert (settings.metrics_port, settings.env_allow, settings.secret_env) == (None, None, ())


def test_the_directories_of_systemd_stand_between_file_and_default(cwd: Path) -> None:
    env = {"STATE_DIRECTORY": "/var/lib/loop:/var/lib/other", "LOGS_DIRECTORY": "/var/log/loop"}
    by_systemd = come_to(cwd, {}, env, None)
    assert (by_systemd.settings.state_dir, by_systemd.settings.log_dir) == (P("/var/lib/loop"), P("/var/log/loop"))
    assert by_systemd.settings.history_path == P("/var/lib/loop/run_cycle_history.jsonl")
    assert by_systemd.sources["state_dir"].text == "$STATE_DIRECTORY"
    assert by_systemd.sources["log_dir"].source is Source.SYSTEMD
    by_file = come_to(cwd, {}, env, "state-dir = 'mine'")
    assert (by_file.settings.state_dir, by_file.settings.log_dir) == (P("mine"), P("/var/log/loop"))


def test_an_empty_directory_of_systemd_is_none(cwd: Path) -> None:
    assert resolve({}, {"STATE_DIRECTORY": ""}, cwd).settings.state_dir == P("state")


def test_only_the_winning_value_is_read(cwd: Path) -> None:
    assert resolve({"sleep": "5"}, {"RUN_CYCLE_SLEEP": "nonsense"}, cwd).settings.sleep == 5
