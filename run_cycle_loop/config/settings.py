"""Every setting, declared once. Flags, variables, file keys, help and the documentation page are made from this."""

# ruff: noqa: RUF009 - setting() is dataclasses.field()

import glob
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

from run_cycle_loop.config import kinds
from run_cycle_loop.config.declaration import Group, Option, following, setting
from run_cycle_loop.config.kinds import Kind
from run_cycle_loop.model.enums import GuardMode, Role
from run_cycle_loop.model.spending import Limit
from run_cycle_loop.policies.breakers import SpendRate, parse_spend_rate, show_spend_rate
from run_cycle_loop.policies.budgets import parse_limit, show_limit
from run_cycle_loop.policies.goals import Order
from run_cycle_loop.policies.prices import Prices, parse_prices, show_prices

FILE_NAME = "run-cycle-loop.toml"
DEFAULT_CYCLE_SCRIPT = Path("scripts/run_cycle.sh")
DEFAULT_PREREQ_SCRIPT = Path("scripts/check_run_cycle_prereqs.py")
DEFAULT_GOAL = (
    "Write a three-bullet recap of the last run and plan one next experiment with measurable success criteria."
)
_MIB = 1024**2
_STORM = 10  #: cycles


def _count_or(words: str) -> Callable[[int | None], str]:
    """Shows a count, or what stands in its place where none is set."""
    return lambda value: words if value is None else str(value)


def _limit() -> Kind[Limit]:
    return Kind(noun="a budget such as usd=20/day", metavar="LIMIT", parse=parse_limit, show=show_limit)


def _spend_rate() -> Kind[SpendRate]:
    return Kind(noun="a rate such as 10usd/30m", metavar="RATE", parse=parse_spend_rate, show=show_spend_rate)


def _prices() -> Kind[Prices]:
    return Kind(noun="prices such as input=1.25,output=10", metavar="PRICES", parse=parse_prices, show=show_prices)


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """All that the operator can set. Durations are seconds, sizes bytes; paths are kept as they were written."""

    mode: str = setting(
        Group.CYCLE,
        kinds.line(metavar="MODE", longest=200),
        "Passed to the cycle as its first argument.",
        default="experimental",
    )
    cycle_script: Path = setting(
        Group.CYCLE,
        kinds.path(),
        "What a cycle runs, called as PATH MODE GOAL.",
        default=DEFAULT_CYCLE_SCRIPT,
        cycle_file=True,
    )
    command: tuple[str, ...] = setting(
        Group.CYCLE,
        kinds.command_line(),
        "Run this instead of the cycle script, as it stands and without a shell.",
        default=(),
        private=True,
        on_command_line=False,
    )
    timeout: float | None = setting(
        Group.CYCLE, kinds.optional(kinds.duration()), "End a cycle that runs longer; 0: never.", default=300.0
    )
    grace: float = setting(
        Group.CYCLE, kinds.duration(), "Time between TERM and KILL when a cycle is ended.", default=10.0
    )
    idle_timeout: float | None = setting(
        Group.CYCLE, kinds.optional(kinds.duration()), "End a cycle that prints nothing for this long.", default=None
    )
    sandbox_reset: bool = setting(Group.CYCLE, kinds.switch(), "Clear the sandbox between cycles.", default=False)
    sandbox_dir: Path = setting(
        Group.CYCLE, kinds.path(metavar="DIR"), "Where a cycle may write; passed to it.", default=Path("sandbox")
    )
    env_allow: tuple[str, ...] | None = setting(
        Group.CYCLE,
        kinds.listing(kinds.variable_pattern()),
        "Give a cycle only these environment variables, beside its own.",
        default=None,
    )
    secret_env: tuple[str, ...] = setting(
        Group.CYCLE,
        kinds.listing(kinds.variable_pattern()),
        "Variables whose values are never shown, beside *KEY*, *TOKEN*, *SECRET*, *PASSWORD*.",
        default=(),
        restart=True,
    )

    agent: str = setting(
        Group.AGENT,
        kinds.line(metavar="NAME", longest=100),
        "Who does the work; see `run-cycle-loop agents`. auto: the first one installed, else the planner.",
        default="auto",
    )
    model: str | None = setting(
        Group.AGENT,
        kinds.optional(kinds.line(metavar="MODEL", longest=200)),
        "The agent's model.",
        default=None,
        default_text="the agent's own choice",
    )
    role: str = setting(
        Group.AGENT,
        kinds.choice(*Role, metavar="ROLE"),
        "write, or read-only: an agent that changes nothing in the workdir.",
        default="write",
    )
    workdir: Path = following(
        Group.AGENT,
        kinds.path(metavar="DIR"),
        "Where the agent works, and what the write caps measure; a folder in the working directory.",
        default_text="the sandbox",
    )
    agent_command: str | None = setting(
        Group.AGENT,
        kinds.optional(kinds.line(metavar="LINE", longest=4096)),
        "For --agent command: its command line, with {prompt_file} {workdir} {result_file} {model}; no shell.",
        default=None,
        private=True,
    )
    agent_script: Path | None = setting(
        Group.AGENT,
        kinds.optional(kinds.path()),
        "For --agent scripted: the steps to replay.",
        default=None,
        cycle_file=True,
    )
    agent_args: str | None = setting(
        Group.AGENT,
        kinds.optional(kinds.line(metavar="ARGS", longest=4096)),
        "Further arguments for the agent's command line, quoted as for a shell.",
        default=None,
        private=True,
    )
    agent_schema: Path | None = setting(
        Group.AGENT,
        kinds.optional(kinds.path()),
        "A JSON Schema that the agent's final answer is to follow.",
        default=None,
        cycle_file=True,
    )
    isolate: str = setting(
        Group.AGENT,
        kinds.choice("auto", "bwrap", "none", metavar="HOW"),
        "Keep the agent to its workdir with bubblewrap: auto (where it works), bwrap (or not at all), none.",
        default="auto",
    )
    assume_yes: bool = setting(
        Group.AGENT,
        kinds.switch(),
        "Let a coding agent work without a person to ask; needs a live grant of consent.",
        default=True,
    )

    goal: str = setting(
        Group.GOALS,
        kinds.prose(),
        "Passed to the cycle as its second argument.",
        default=DEFAULT_GOAL,
        default_text="a recap and one next experiment",
        private=True,
    )
    goal_file: Path | None = setting(
        Group.GOALS,
        kinds.optional(kinds.path()),
        "Take the goal from this file, read again before every cycle.",
        default=None,
        cycle_file=True,
    )
    goals: Path | None = setting(
        Group.GOALS,
        kinds.optional(kinds.path()),
        "Take the goals from this file: one on each line, or YAML with weights.",
        default=None,
        cycle_file=True,
    )
    goal_order: str = setting(
        Group.GOALS,
        kinds.choice(*Order, metavar="ORDER"),
        "How they are taken: round-robin, random (by weight), or until-done (each until a cycle says so).",
        default="round-robin",
    )
    goal_seed: int | None = setting(
        Group.GOALS,
        replace(kinds.count(), show=_count_or("drawn once")),
        "The seed of a random order; it is in the record of each cycle.",
        default=None,
        default_text="drawn once, and kept",
    )
    goal_command: str | None = setting(
        Group.GOALS,
        kinds.optional(kinds.line(metavar="LINE", longest=4096)),
        "Take the goal from the first line that this command prints; no shell.",
        default=None,
        private=True,
    )
    goal_timeout: float = setting(
        Group.GOALS, kinds.duration(above_zero=True), "How long that command may take.", default=30.0
    )

    runner: str = setting(
        Group.RUNS,
        kinds.choice("script", "agentrun", "job", metavar="WHAT"),
        "What a cycle is: script (the cycle script or a command), agentrun (a manifest), job (a Kubernetes Job).",
        default="script",
    )
    manifest: Path | None = setting(
        Group.RUNS,
        kinds.optional(kinds.path()),
        "For --runner agentrun: the manifest, a file or a folder; each cycle is a run of its own.",
        default=None,
    )
    where: str = setting(
        Group.RUNS,
        kinds.choice("local", "cluster", metavar="PLACE"),
        "Where AgentRuns run: local (on this machine) or cluster.",
        default="local",
    )
    profile: str = setting(
        Group.RUNS,
        kinds.choice("guide", "current", "auto", metavar="NAME"),
        "Which controllers a manifest is meant for: guide, current (newer ones), or auto (asks the cluster).",
        default="guide",
    )
    strict_cluster: bool = setting(
        Group.RUNS,
        kinds.switch(),
        "Run on this machine with the quirks of a cluster's controller.",
        default=False,
    )
    image: str | None = setting(
        Group.RUNS,
        kinds.optional(kinds.line(metavar="IMAGE", longest=1000)),
        "For --runner job: the image.",
        default=None,
    )
    job_template: Path | None = setting(
        Group.RUNS,
        kinds.optional(kinds.path()),
        "For --runner job: a Job manifest to start from; image and command are put into its first container.",
        default=None,
        cycle_file=True,
    )
    namespace: str | None = setting(
        Group.RUNS,
        kinds.optional(kinds.line(metavar="NAME", longest=63)),
        "The namespace.",
        default=None,
        default_text="the manifest's own, or agents; for a Job the context's",
    )
    kubeconfig: Path | None = setting(
        Group.RUNS,
        kinds.optional(kinds.path()),
        "How to reach the cluster.",
        default=None,
        default_text="$KUBECONFIG, ~/.kube/config, or the pod's own account",
    )
    kube_context: str | None = setting(
        Group.RUNS,
        kinds.optional(kinds.line(metavar="NAME", longest=1000)),
        "Which of its contexts.",
        default=None,
        default_text="the current one",
    )

    iterations: int = setting(
        Group.LOOP, kinds.count(), "How many cycles to run; 0: until stopped.", default=1, restart=True
    )
    sleep: float = setting(Group.LOOP, kinds.duration(), "Pause between cycles.", default=300.0)
    while_: str | None = setting(
        Group.LOOP,
        kinds.optional(kinds.line(metavar="EXPR")),
        "Go on while this CEL expression over iteration.* is true; alone it is the only limit.",
        default=None,
    )

    max_failures: int = setting(
        Group.FAILURES, kinds.count(), "Stop after this many failed cycles in a row; 0: never.", default=3
    )
    backoff_initial: float = setting(Group.FAILURES, kinds.duration(), "Wait after a first failure.", default=60.0)
    backoff_factor: float = setting(
        Group.FAILURES,
        kinds.number(least=1, most=1000),
        "Each further failure in a row multiplies the wait by this.",
        default=5.0,
    )
    max_backoff: float = setting(Group.FAILURES, kinds.duration(), "The longest wait after a failure.", default=1800.0)
    backoff_jitter: float = setting(
        Group.FAILURES, kinds.number(least=0, most=1), "The random part of a wait, as a fraction of it.", default=0.1
    )

    write_guard: str = following(
        Group.GUARDS,
        kinds.choice(*GuardMode, metavar="MODE"),
        "What becomes of a cycle that writes too much: off, warn, or enforce: it fails and is undone.",
        default_text="enforce; off for a command of your own",
    )
    cap_writes: int | None = setting(
        Group.GUARDS,
        replace(kinds.count(), show=_count_or("3, or 200 for a coding agent")),
        "How many files a cycle may create, change or delete in the workdir.",
        default=None,
        default_text="3; 200 for a coding agent",
    )
    cap_bytes: int = setting(
        Group.GUARDS, kinds.size(), "How many bytes those files may have together.", default=100 * _MIB
    )
    consent_guard: str = setting(
        Group.GUARDS,
        kinds.choice(*GuardMode, metavar="MODE"),
        "Whether a coding agent needs a live grant: off, warn or enforce; see `run-cycle-loop consent`.",
        default="enforce",
    )
    git_check: str = setting(
        Group.GUARDS,
        kinds.choice("off", "warn", "require", metavar="MODE"),
        "Whether the workdir's checkout must be up to date: off, warn or require.",
        default="off",
    )
    git_update: str = setting(
        Group.GUARDS,
        kinds.choice("off", "ff-only", metavar="HOW"),
        "Fetch before that check, and fast-forward where nothing stands in the way.",
        default="off",
    )
    git_fetch_age: float | None = setting(
        Group.GUARDS, kinds.optional(kinds.duration()), "The oldest last fetch that is up to date.", default=None
    )
    git_timeout: float = setting(
        Group.GUARDS, kinds.duration(above_zero=True), "How long git may take in all.", default=30.0
    )
    breaker_guard: str = setting(
        Group.GUARDS,
        kinds.choice(*GuardMode, metavar="MODE"),
        "What the breakers do: off, warn, or enforce: the loop ends; see `run-cycle-loop breaker`.",
        default="enforce",
    )
    no_progress: int = setting(
        Group.GUARDS, kinds.count(), "Break after so many cycles that left the workdir as it was; 0: never.", default=5
    )
    storm_cycles: int = following(
        Group.GUARDS,
        kinds.count(),
        "Break after so many short cycles in a row; 0: never.",
        default_text="10; never for a command of your own",
    )
    storm_seconds: float = setting(Group.GUARDS, kinds.duration(), "Shorter than this is short.", default=5.0)
    spend_rate: SpendRate | None = setting(
        Group.GUARDS,
        kinds.optional(_spend_rate()),
        "Break when more is spent in less time, such as 10usd/30m.",
        default=None,
    )

    budget: tuple[Limit, ...] = setting(
        Group.BUDGETS,
        kinds.listing(_limit()),
        "A limit for each cycle, day (UTC) or run: usd=5/cycle, usd=20/day, tokens=2M/day, time=3h/run, cycles=40/day.",
        default=(),
        default_text="none",
    )
    on_budget: str = setting(
        Group.BUDGETS,
        kinds.choice("stop", "wait", metavar="WHAT"),
        "When a budget is spent: stop, or wait for the next day.",
        default="stop",
    )
    budget_guard: str = setting(
        Group.BUDGETS,
        kinds.choice(*GuardMode, metavar="MODE"),
        "What a spent budget does: off, warn or enforce.",
        default="enforce",
    )
    estimate_usd: float = setting(
        Group.BUDGETS,
        kinds.number(least=0, most=1_000_000),
        "Charged for an agent's cycle that tells no cost, until costs are known.",
        default=2.0,
    )
    estimate_tokens: int = setting(
        Group.BUDGETS,
        kinds.count(),
        "Charged for an agent's cycle that tells no tokens, until tokens are known.",
        default=500_000,
    )
    prices: Prices | None = setting(
        Group.BUDGETS,
        kinds.optional(_prices()),
        "USD per million tokens, for agents that tell no cost: input=1.25,output=10,cached=0.125.",
        default=None,
    )
    limit_margin: float = setting(
        Group.BUDGETS, kinds.duration(), "Wait this much longer than a rate limit says.", default=60.0
    )
    max_limit_wait: float = setting(
        Group.BUDGETS, kinds.duration(above_zero=True), "The longest wait for one rate limit.", default=86400.0
    )

    stop_file: Path = following(
        Group.CONTROLS,
        kinds.path(named=True),
        "Kill switch: the loop stops while anything is at this path.",
        default_text="STATE_DIR/run_cycle.stop",
        restart=True,
    )

    prereq_script: Path | None = setting(
        Group.PREREQUISITES,
        kinds.optional(kinds.path()),
        "Must exit 0 before each cycle.",
        default=None,
        default_text=f"{DEFAULT_PREREQ_SCRIPT} if it exists",
        cycle_file=True,
    )
    prereq_timeout: float = setting(
        Group.PREREQUISITES, kinds.duration(above_zero=True), "How long that script may take.", default=30.0
    )
    require_module: tuple[str, ...] = setting(
        Group.PREREQUISITES,
        kinds.listing(kinds.module_name()),
        "Python modules without which no cycle starts.",
        default=(),
    )
    optional_module: tuple[str, ...] = setting(
        Group.PREREQUISITES,
        kinds.listing(kinds.module_name()),
        "Python modules whose absence is only reported.",
        default=(),
    )
    require_command: tuple[str, ...] = setting(
        Group.PREREQUISITES,
        kinds.listing(kinds.line(metavar="NAME")),
        "Commands on PATH without which no cycle starts.",
        default=(),
    )
    optional_command: tuple[str, ...] = setting(
        Group.PREREQUISITES,
        kinds.listing(kinds.line(metavar="NAME")),
        "Commands on PATH whose absence is only reported.",
        default=(),
    )
    require_writable: tuple[str, ...] = setting(
        Group.PREREQUISITES, kinds.listing(kinds.line(metavar="PATH")), "Paths that must be writable.", default=()
    )
    min_free_disk: int = setting(
        Group.PREREQUISITES, kinds.size(), "Free disk space that a cycle needs to start.", default=64 * _MIB
    )
    min_free_memory: int = setting(
        Group.PREREQUISITES, kinds.size(), "Free memory that a cycle needs to start.", default=32 * _MIB
    )

    archive_glob: str | None = following(
        Group.ARTIFACTS,
        kinds.optional(kinds.line(metavar="GLOB")),
        "A cycle that leaves no new archive here is degraded.",
        default_text="the planner archives, for the cycle script; else off",
    )
    stale_after: int = setting(
        Group.ARTIFACTS, kinds.count(least=1), "Alert when so many cycles in a row left no new archive.", default=3
    )

    state_dir: Path = setting(
        Group.STATE,
        kinds.path(metavar="DIR"),
        "Where the history, the lock and the controls are.",
        default=Path("state"),
        default_text="state, or $STATE_DIRECTORY",
        restart=True,
    )
    log_dir: Path = setting(
        Group.STATE,
        kinds.path(metavar="DIR"),
        "Where the log of each cycle is.",
        default=Path("logs/run_cycle"),
        default_text="logs/run_cycle, or $LOGS_DIRECTORY",
        restart=True,
    )
    history_path: Path = following(
        Group.STATE,
        kinds.path(named=True),
        "The record of all cycles, one line each.",
        default_text="STATE_DIR/run_cycle_history.jsonl",
        restart=True,
    )
    max_log_bytes: int = setting(
        Group.STATE,
        kinds.size(least=1024),
        "Of a longer cycle log only head and tail are kept.",
        default=64 * _MIB,
        restart=True,
    )
    keep_logs: int = setting(
        Group.STATE, kinds.count(least=1), "How many cycle logs are kept.", default=500, restart=True
    )
    log_format: str = setting(
        Group.STATE,
        kinds.choice("auto", "text", "json", metavar="FORMAT"),
        "The loop's own log: text, json, or auto (text on a terminal, else json).",
        default="auto",
        restart=True,
    )
    log_level: str = setting(
        Group.STATE,
        kinds.choice("debug", "info", "warning", "error", metavar="LEVEL"),
        "The least important events in it: debug, info, warning or error.",
        default="info",
        restart=True,
    )

    metrics_port: int | None = setting(
        Group.METRICS,
        kinds.optional(kinds.count(most=65535, metavar="PORT")),
        "Serve Prometheus metrics on this port of 127.0.0.1.",
        default=None,
        restart=True,
    )
    metrics_textfile: Path | None = setting(
        Group.METRICS,
        kinds.optional(kinds.path()),
        "Write metrics for the textfile collector of node_exporter.",
        default=None,
        restart=True,
    )
    metrics_stdout: bool = setting(
        Group.METRICS, kinds.switch(), "Print one JSON object for each cycle.", default=False, restart=True
    )

    dry_run: bool = setting(
        Group.GENERAL,
        kinds.switch(),
        "Check the prerequisites and show the exact command; write nothing, launch nothing else.",
        default=False,
        restart=True,
    )
    config: Path | None = setting(
        Group.GENERAL,
        kinds.optional(kinds.path(metavar="FILE")),
        "Read settings from this TOML file; none: from no file.",
        default=None,
        default_text=f"{FILE_NAME} if it exists",
        restart=True,
        in_file=False,
    )

    @classmethod
    def of(cls, **values: Any) -> Self:
        """These values over the defaults, with what follows from them filled in; nothing is checked."""
        state_dir = values.get("state_dir", Path("state"))
        is_own = bool(values.get("command")) or values.get("runner", "script") != "script"
        follow = {
            "stop_file": state_dir / "run_cycle.stop",
            "history_path": state_dir / "run_cycle_history.jsonl",
            "archive_glob": None if is_own else planner_archives(state_dir),
            "workdir": values.get("sandbox_dir", Path("sandbox")),
            "write_guard": GuardMode.OFF if is_own else GuardMode.ENFORCE,
            "storm_cycles": 0 if is_own else _STORM,
        }
        return cls(**(follow | values))


def planner_archives(state_dir: Path) -> str:
    """The pattern of the archives that the cycle script leaves in a state directory."""
    return str(Path(glob.escape(str(state_dir))) / "planner_digest_archives" / "planner_digests_*.jsonl.gz")


_CONTINUOUS = Option(
    name="continuous",
    group=Group.LOOP,
    kind=kinds.switch(),
    help="Run until stopped, the same as --iterations 0.",
    default_text="false",
)


def _declared() -> Mapping[str, Option]:
    options: dict[str, Option] = {}
    for item in fields(Settings):
        options[item.name] = Option(name=item.name, **item.metadata)
        if item.name == "iterations":
            options["continuous"] = _CONTINUOUS
    return MappingProxyType(options)


#: All by name, in the order of the help. ``continuous`` is no field of Settings, but another way to say ``iterations``.
OPTIONS: Mapping[str, Option] = _declared()
