"""Values that nobody means: each is one sentence with where it came from, the value, cut short, and the next step."""

from pathlib import Path

import pytest

from run_cycle_loop.config.settings import OPTIONS
from run_cycle_loop.config.sources import resolve
from run_cycle_loop.model.errors import ConfigError

DURATIONS = ["sleep", "timeout", "grace", "idle_timeout", "backoff_initial", "max_backoff", "prereq_timeout"]
DURATIONS += ["goal_timeout", "git_timeout", "git_fetch_age", "storm_seconds", "limit_margin", "max_limit_wait"]
COUNTS = ["iterations", "max_failures", "cap_writes", "stale_after", "keep_logs", "metrics_port"]
COUNTS += ["goal_seed", "no_progress", "storm_cycles", "estimate_tokens"]
SIZES = ["max_log_bytes", "min_free_disk", "min_free_memory", "cap_bytes"]
NUMBERS = ["backoff_factor", "backoff_jitter"]
PATHS = ["goal_file", "cycle_script", "prereq_script", "stop_file", "sandbox_dir", "state_dir", "log_dir"]
PATHS += ["history_path", "metrics_textfile", "config", "workdir", "agent_script", "agent_schema", "goals"]
TEXTS = ["mode", "while_", "archive_glob", "agent", "model"]
SWITCHES = ["continuous", "sandbox_reset", "metrics_stdout", "dry_run", "assume_yes"]
CHOICES = ["role", "isolate", "goal_order", "write_guard", "consent_guard", "git_check", "git_update", "breaker_guard"]
CHOICES += ["on_budget", "budget_guard"]

NO_NUMBER = ["nan", "-nan", "inf", "-inf", "-1", "-0.5", "1e308", "1e400", "$(reboot)", "5\n5", "9" * 5000, "1" * 10**6]
NO_NUMBER += ["0x10", "\udcff", "\0", "5,5", "1_000", "\u0665", "\uff15"]

HOSTILE = (
    [(name, bad) for name in DURATIONS for bad in [*NO_NUMBER, "5 minutes", "1h-30m", "3651d", "5x"]]
    + [(name, bad) for name in COUNTS for bad in [*NO_NUMBER, "1.5", "1000000001", "true"]]
    + [(name, bad) for name in SIZES for bad in [*NO_NUMBER, "64 parsecs", "2097152TiB", "1099511627777MiB"]]
    + [(name, bad) for name in NUMBERS for bad in [*NO_NUMBER, "1001", "off"]]
    + [(name, bad) for name in PATHS for bad in ["a\0b", "a\nb", "\x1b[31m", "~/x", "~", "\udcff", "x" * 256]]
    + [(name, "é/" * 2000) for name in PATHS]
    + [(name, bad) for name in TEXTS for bad in ["a\0b", "a\nb", "\x1b[31m", "\udcff", "x" * 5000]]
    + [(name, bad) for name in SWITCHES for bad in ["maybe", "2", "", "truefalse"]]
    + [("goal", bad) for bad in ["", " \n", "a\0b", "\udcff", "x" * 140_000, "é" * 70_000]]
    + [("mode", bad) for bad in ["", " ", "x" * 201]]
    + [(name, bad) for name in ("stop_file", "history_path") for bad in ("/", ".", "..", "a/..", "//")]
    + [("state_dir", " "), ("cycle_script", "")]
    + [(name, "") for name in ("sleep", "grace", "iterations", "keep_logs", "max_log_bytes", "state_dir", "log_level")]
    + [("log_format", "xml"), ("log_level", "verbose"), ("metrics_port", "65536"), ("backoff_factor", "0.99")]
    + [("backoff_jitter", "1.01"), ("prereq_timeout", "0"), ("stale_after", "0"), ("keep_logs", "0")]
    + [("max_log_bytes", "1023"), ("env_allow", "A=B"), ("env_allow", "A\nB"), ("secret_env", "A\0")]
    + [("require_module", "os; import evil"), ("optional_module", "a..b"), ("require_command", "g\nit")]
    + [("require_writable", "a\0b"), ("optional_command", "x" * 5000)]
    + [(name, bad) for name in CHOICES for bad in ["", "maybe", "Enforce!", "a\nb", "\x1b[31m", "\udcff", "x" * 5000]]
    + [("estimate_usd", bad) for bad in [*NO_NUMBER, "1000001", "off"]]
    + [("goal_timeout", "0"), ("git_timeout", "0"), ("max_limit_wait", "0"), ("agent", ""), ("workdir", "")]
    + [("budget", bad) for bad in ["usd", "usd=/day", "usd=0/day", "usd=1e400/day", "usd=nan/day", "usd=-1/day"]]
    + [("budget", bad) for bad in ["usd=1/year", "cycles=1.5/day", "eur=1/day", "usd=\uff11/day", "x" * 5000, "a\0b"]]
    + [("spend_rate", bad) for bad in ["10", "10usd", "0usd/1m", "10usd/0", "nanusd/1m", "10usd/-1m", "x" * 5000]]
    + [("prices", bad) for bad in ["input=1", "input=1,output=nan", "input=-1,output=1", "a=1", "x" * 5000]]
    + [("prices", "input=1,output=1,input=2"), ("prices", "input=1e400,output=1")]
)
#: Settings whose value is never repeated.
PRIVATE = [
    (name, bad) for name in ("agent_command", "agent_args", "goal_command") for bad in ["a\0b", "a\nb", "x" * 5000]
]


@pytest.mark.parametrize(("name", "bad"), HOSTILE, ids=[f"{name}-{number}" for number, (name, _) in enumerate(HOSTILE)])
def test_it_is_refused_from_flag_and_variable_alike(name: str, bad: str, tmp_path: Path) -> None:
    option = OPTIONS[name]
    with pytest.raises(ConfigError) as by_flag:
        resolve({name: bad}, {}, tmp_path)
    with pytest.raises(ConfigError) as by_variable:
        resolve({}, {option.variable: bad}, tmp_path)
    value = "the value" if name == "goal" else repr(bad)[:70]
    sentence = str(by_flag.value)
    assert sentence.startswith(f"{option.flag}: {value}")
    assert str(by_variable.value) == f"{option.variable}{sentence.removeprefix(option.flag)}"
    assert len(sentence) < 300
    assert sentence.isprintable()
    assert any(mark in sentence for mark in ("; ", ": write", "must be between")), "no next step"


@pytest.mark.parametrize(("name", "bad"), PRIVATE, ids=[f"{name}-{number}" for number, (name, _) in enumerate(PRIVATE)])
def test_what_may_hold_a_secret_is_refused_unseen(name: str, bad: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        resolve({}, {OPTIONS[name].variable: bad}, tmp_path)
    assert str(caught.value).startswith(f"{OPTIONS[name].variable}: the value ")
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("toml", "sentence"),
    [
        ("sleep = nan", "sleep in run-cycle-loop.toml: nan is no usable duration: it must be between 0 and ten years"),
        (
            "sleep = -inf",
            "sleep in run-cycle-loop.toml: -inf is no usable duration: it must be between 0 and ten years",
        ),
        ("sleep = true", "sleep in run-cycle-loop.toml: True is a boolean; write a duration such as 300 or '5m'"),
        ("sleep = [5]", "sleep in run-cycle-loop.toml: [5] is an array; write a duration such as 300 or '5m'"),
        ("sleep.x = 5", "sleep in run-cycle-loop.toml: {'x': 5} is a table; write a duration such as 300 or '5m'"),
        ("iterations = '3'", "iterations in run-cycle-loop.toml: '3' is a string; write a whole number from 0 to"),
        ("iterations = 3.0", "iterations in run-cycle-loop.toml: 3.0 is a float; write a whole number from 0 to"),
        ("iterations = -1", "iterations in run-cycle-loop.toml: -1 is out of bounds; write a whole number from 0 to"),
        ("dry-run = 1", "dry-run in run-cycle-loop.toml: 1 is an integer; write true or false"),
        ("dry-run = 'yes'", "dry-run in run-cycle-loop.toml: 'yes' is a string; write true or false"),
        ("mode = 5", "mode in run-cycle-loop.toml: 5 is an integer; write one line of text"),
        ("mode = 1979-05-27", "mode in run-cycle-loop.toml: datetime.date(1979, 5, 27) is a date or time; write one"),
        ("goal = ['canary']", "goal in run-cycle-loop.toml: the value is an array; write a text of at most"),
        ("state-dir = 1", "state-dir in run-cycle-loop.toml: 1 is an integer; write a path"),
        ("command = 'rm -rf canary'", "command in run-cycle-loop.toml: the value is a string; write a list of strings"),
        ("command = ['a', 1]", "command in run-cycle-loop.toml: the value has items that are no strings; write a list"),
        ('command = ["a\\u0000"]', "command in run-cycle-loop.toml: the value has a NUL byte"),
        ("require-module = [['a']]", "require-module in run-cycle-loop.toml: [['a']] has items that are no strings"),
        ("require-module = {a = 1}", "require-module in run-cycle-loop.toml: {'a': 1} is a table; write a list"),
        ("metrics-port = 65536", "metrics-port in run-cycle-loop.toml: 65536 is out of bounds; write a whole number"),
        ("max-log-bytes = 1.5", "max-log-bytes in run-cycle-loop.toml: 1.5 is a float; write a size such as '64MiB'"),
        (f"keep-logs = 0x{'f' * 9000}", "keep-logs in run-cycle-loop.toml: the value is far too large; write a whole"),
        (f"keep-logs = [0x{'f' * 9000}]", "keep-logs in run-cycle-loop.toml: the value is an array; write a whole"),
    ],
)
def test_a_wrong_value_in_the_file_names_file_key_and_value(toml: str, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "run-cycle-loop.toml").write_text(toml)
    with pytest.raises(ConfigError) as caught:
        resolve({}, {}, tmp_path)
    assert str(caught.value).startswith(sentence)
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize("bad", ["a\0b", "x" * 140_000])
def test_an_argument_that_no_process_can_be_given_is_refused_unseen(bad: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^the command after --: the value "):
        resolve({}, {}, tmp_path, ["echo", bad])


@pytest.mark.parametrize("text", ["$(reboot)", "`id`; rm -rf /", "a && b | c > d", "%n{0}", "' OR 1=1", "мир 🌍"])
def test_what_a_shell_would_obey_is_plain_text_here(text: str, tmp_path: Path) -> None:
    settings = resolve({"goal": text}, {"RUN_CYCLE_MODE": text}, tmp_path, ["echo", text]).settings
    assert (settings.goal, settings.mode, settings.command) == (text, text, ("echo", text))


def test_an_empty_allow_list_allows_nothing(tmp_path: Path) -> None:
    assert resolve({}, {"RUN_CYCLE_ENV_ALLOW": ""}, tmp_path).settings.env_allow == ()


def test_the_longest_goal_that_a_process_can_be_given_is_taken(tmp_path: Path) -> None:
    longest = "x" * (128 * 1024 - len("RUN_CYCLE_GOAL=") - 1)
    assert resolve({"goal": longest}, {}, tmp_path).settings.goal == longest
    with pytest.raises(ConfigError):
        resolve({"goal": longest + "x"}, {}, tmp_path)
