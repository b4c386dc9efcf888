#!/usr/bin/env python3
"""``run-cycle-loop run`` for crontabs: the same flags without the sub-command, always in this checkout."""

import os
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent


def main() -> int:
    """The exit code of ``run``; 2 where this interpreter lacks the package."""
    os.chdir(ROOT)
    # This file has the package's name: its folder must not be searched for modules.
    sys.path[:] = [str(ROOT), *(entry for entry in sys.path if Path(entry).resolve() != HERE)]
    try:
        from run_cycle_loop.cli.main import main as command  # noqa: PLC0415 - the path is set only now
    except ModuleNotFoundError as error:
        print(
            f"run_cycle_loop.py: {sys.executable} has no module {error.name}: "
            f"run {HERE}/run-cycle-loop once, then this with {ROOT}/.venv/bin/python",
            file=sys.stderr,
        )
        return 2
    return command(["run", *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())
