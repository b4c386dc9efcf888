#!/usr/bin/env python3
"""Starts the agent of one cycle, after consent: today the built-in planner; works inside the loop and by hand."""

import argparse
import os
import sys
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# The package beside this script is the one that is meant, installed or not.
sys.path.insert(0, str(ROOT))

from run_cycle_loop.agents.planner import Planned, Request, plan_cycle  # noqa: E402
from run_cycle_loop.model.errors import RunCycleLoopError  # noqa: E402

#: The loop's own default.
DEFAULT_GOAL = (
    "Write a three-bullet recap of the last run and plan one next experiment with measurable success criteria."
)


def main() -> int:
    """The exit code: 0 planned, 2 not asked rightly or not allowed, else that of the error."""
    options = parse()
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    if not options.assume_yes and not consents(options):
        return 2
    try:
        tell(plan_cycle(requested(options), datetime.now(UTC)))
    except RunCycleLoopError as error:
        print(f"start_agent: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def parse() -> argparse.Namespace:
    """The command line; folders default to the loop's variables, then to those of this checkout."""
    where = os.environ.get
    state = where("RUN_CYCLE_STATE_DIR") or str(ROOT / "state")
    parser = argparse.ArgumentParser(prog="start_agent.py", description=__doc__, allow_abbrev=False)
    parser.add_argument("--mode", default="experimental", help="experimental, stabilize, review, or a label")
    parser.add_argument("--goal", default=DEFAULT_GOAL, help="its words choose what is measured")
    parser.add_argument("--cap-writes", type=whole, default=3, metavar="N", help="sandbox files it may write (3)")
    parser.add_argument("--assume-yes", action="store_true", help="do not ask for consent")
    parser.add_argument("--sandbox", type=Path, default=where("RUN_CYCLE_SANDBOX_DIR") or ROOT / "sandbox")
    parser.add_argument("--state-dir", type=Path, default=state)
    parser.add_argument("--history-path", type=Path, default=where("RUN_CYCLE_HISTORY_PATH"), help="of the loop")
    return parser.parse_args()


def whole(text: str) -> int:
    """A count from 0 up."""
    if not (text.isascii() and text.isdigit()):
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 0 up")
    return int(text)


def requested(options: argparse.Namespace) -> Request:
    """What the options and the loop's variables ask for."""
    number = os.environ.get("RUN_CYCLE_NUMBER", "")
    control = os.environ.get("RUN_CYCLE_CONTROL_FILE")
    return Request(
        mode=options.mode,
        goal=options.goal,
        sandbox=options.sandbox,
        state_dir=options.state_dir,
        history_path=options.history_path or options.state_dir / "run_cycle_history.jsonl",
        cap_writes=options.cap_writes,
        cycle_id=os.environ.get("RUN_CYCLE_ID", ""),
        number=int(number) if number.isascii() and number.isdigit() else None,
        control_file=Path(control) if control else None,
    )


def consents(options: argparse.Namespace) -> bool:
    """Ask on the terminal; without one, refuse."""
    if not sys.stdin.isatty():
        print("start_agent: there is no terminal to ask for consent on: add --assume-yes", file=sys.stderr)
        return False
    question = (
        f"Write at most {options.cap_writes} files in {options.sandbox} and records in {options.state_dir}? [y/N] "
    )
    print(question, end="", file=sys.stderr, flush=True)
    agreed = sys.stdin.readline().strip().lower() in {"y", "yes"}
    if not agreed:
        print("start_agent: not agreed, so nothing was written", file=sys.stderr)
    return agreed


def tell(planned: Planned) -> None:
    """The summary for people."""
    for bullet in planned.recap:
        print(f"- {bullet}")
    print(f"Experiment {planned.experiment.number}: {planned.experiment.change}")
    print(f"Success: {planned.experiment.criterion}, after {planned.experiment.window} cycles")
    print(f"Note: {planned.note}")
    print(f"Plan: {planned.plan_path or 'not written'}")
    print(f"Archive: {planned.archive_path}")


if __name__ == "__main__":
    sys.exit(main())
