"""The command line of ``start_agent``; each flag's default is what the loop says by the variable of the same name."""

import argparse
import math
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from run_cycle_loop.agents import registry
from run_cycle_loop.agents.isolation import WAYS
from run_cycle_loop.config.settings import DEFAULT_GOAL
from run_cycle_loop.kit.durations import parse_duration
from run_cycle_loop.model.enums import GuardMode, Role
from run_cycle_loop.policies.prices import parse_prices

T = TypeVar("T")

_DESCRIPTION = """\
Starts the agent of one cycle, after consent: the built-in planner, or a coding agent. It works inside the loop and by
hand.
"""
_CYCLE_USAGE = "usage: start_agent --cycle MODE GOAL"
_CAP_WRITES, _CAP_WRITES_OF_AGENTS = 3, 200
_YES = frozenset({"1", "true", "yes", "on"})


def parse(argv: Sequence[str], environ: Mapping[str, str], root: Path) -> argparse.Namespace:
    """Read the command line; a wrong one ends the process with 2.

    Args:
        argv: without the program's name. ``--cycle MODE GOAL`` alone is how the loop calls.
        environ: the variables.
        root: where state and sandbox are by default.
    """
    told = {name.removeprefix("RUN_CYCLE_"): value for name, value in environ.items() if value}
    parser = _parser(told, root)
    if argv[:1] == ["--cycle"]:
        if len(argv) != 3:
            parser.exit(2, f"{_CYCLE_USAGE}\n")
        argv = [f"--mode={argv[1]}", f"--goal={argv[2]}"]  # with the =, a goal that begins with a dash stays one
    options = parser.parse_args(argv)
    options.assume_yes = options.assume_yes or told.get("ASSUME_YES", "").strip().lower() in _YES
    if options.cap_writes is None:
        options.cap_writes = _CAP_WRITES_OF_AGENTS if registry.is_real(options.agent) else _CAP_WRITES
    options.history_path = options.history_path or options.state_dir / "run_cycle_history.jsonl"
    options.stop_file = options.stop_file or options.state_dir / "run_cycle.stop"
    options.until_done = told.get("GOAL_ORDER") == "until-done"
    options.agent_arg = options.agent_arg if options.agent_arg is not None else _words(told, parser)
    return options


def _parser(told: Mapping[str, str], root: Path) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="start_agent.py", description=_DESCRIPTION, allow_abbrev=False)
    add = parser.add_argument
    where = told.get
    add("--mode", default=where("MODE", "experimental"), help="experimental, stabilize, review, or a label")
    goal = parser.add_mutually_exclusive_group()
    goal.add_argument("--goal", default=where("GOAL", DEFAULT_GOAL), help="what is to be reached")
    goal.add_argument("--goal-file", type=Path, metavar="FILE", help="a file that holds the goal")
    agents = ("auto", *registry.NAMES)
    add("--agent", type=one_of(*agents), default=where("AGENT", registry.PLANNER), help=", ".join(agents))
    add("--model", default=where("MODEL"), help="the agent's own choice, unless one is named")
    add("--agent-command", default=where("AGENT_COMMAND", ""), metavar="LINE", help="for --agent command")
    add("--agent-script", default=where("AGENT_SCRIPT", ""), metavar="FILE", help="for --agent scripted")
    add("--agent-arg", action="append", metavar="ARG", help="one more argument for the agent; repeatable")
    add("--role", type=one_of(*Role), default=where("ROLE", Role.WRITE), help=", ".join(Role))
    add("--workdir", type=Path, default=where("WORKDIR"), metavar="DIR", help="where it works (the sandbox)")
    add(
        "--cap-writes",
        type=whole,
        default=where("CAP_WRITES"),
        metavar="N",
        help="files it may write (3, a coding agent 200)",
    )
    add("--assume-yes", action="store_true", help="do not ask; a live grant of consent is then needed")
    add(
        "--sandbox",
        "--sandbox-dir",
        dest="sandbox",
        type=Path,
        default=where("SANDBOX_DIR") or root / "sandbox",
        metavar="DIR",
    )
    add("--sandbox-reset", action="store_true", help="empty the sandbox first")
    add("--isolate", type=one_of(*WAYS), default=where("ISOLATE", "auto"), help=", ".join(WAYS))
    add("--timeout", type=duration, default=where("SESSION_TIMEOUT"), help="of the session; 0: none")
    add("--idle-timeout", type=duration, default=where("SESSION_IDLE_TIMEOUT"), help="without output; 0: none")
    add("--max-usd", type=dollars, default=where("ALLOWED_USD"), metavar="USD", help="what it may cost")
    add("--max-tokens", type=whole, default=where("ALLOWED_TOKENS"), metavar="N", help="what it may consume")
    add("--prices", type=stated(parse_prices), default=where("PRICES"), help="input=1.25,output=10,cached=0.125")
    add("--state-dir", type=Path, default=where("STATE_DIR") or root / "state", metavar="DIR")
    add("--history-path", type=Path, default=where("HISTORY_PATH"), metavar="FILE", help="of the loop")
    add("--log-dir", type=Path, default=where("LOG_DIR"), metavar="DIR", help="of the loop")
    add("--stop-file", type=Path, default=where("STOP_FILE"), metavar="FILE", help="of the loop")
    add(
        "--schema",
        "--agent-schema",
        dest="schema",
        type=Path,
        default=where("AGENT_SCHEMA"),
        metavar="FILE",
        help="JSON Schema of the answer",
    )
    guard = where("CONSENT_GUARD", GuardMode.ENFORCE)
    add("--consent-guard", type=one_of(*GuardMode), default=guard, help=", ".join(GuardMode))
    return parser


def _words(told: Mapping[str, str], parser: argparse.ArgumentParser) -> list[str]:
    try:
        return shlex.split(told.get("AGENT_ARGS", ""))
    except ValueError as error:
        parser.error(f"RUN_CYCLE_AGENT_ARGS is no list of arguments: {error}; quote it as for a shell")


def stated(read: Callable[[str], T]) -> Callable[[str], T]:
    """A reader whose complaint is a usage error."""

    def parsed(text: str) -> T:
        try:
            return read(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"{text!r} {error}") from None

    return parsed


def one_of(*words: str) -> Callable[[str], str]:
    """A reader of one of these words, also where it comes from a variable."""

    def parsed(text: str) -> str:
        if text not in words:
            raise argparse.ArgumentTypeError(f"{text!r} is none of {', '.join(words)}")
        return text

    return parsed


def whole(text: str) -> int:
    """A count from 0 up."""
    if not (text.isascii() and text.isdigit()):
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 0 up")
    return int(text)


def duration(text: str) -> float | None:
    """Seconds; None for 0."""
    try:
        return parse_duration(text) or None
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def dollars(text: str) -> float:
    """An amount from 0 up."""
    try:
        amount = float(text)
    except ValueError:
        amount = math.nan
    if not math.isfinite(amount) or amount < 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no amount of USD from 0 up")
    return amount
