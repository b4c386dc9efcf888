"""The page ``docs/configuration.md``, written from the declarations: ``python -m run_cycle_loop.config.docs``."""

import sys
from collections.abc import Iterable

from run_cycle_loop.config.declaration import Group, Option
from run_cycle_loop.config.settings import DEFAULT_GOAL, FILE_NAME, OPTIONS

EXAMPLE = """\
# A loop that runs until it is stopped, every ten minutes, for the planner that ships with the project.
mode = "experimental"
goal = "Recap the last run and plan one measurable next experiment."
continuous = true
sleep = "10m"
timeout = "20m"
max-failures = 5

# What must hold before a cycle starts.
require-module = ["json", "sqlite3"]
require-command = ["git"]
min-free-disk = "1GiB"

# What a cycle gets of the environment, and which further values are secret.
env-allow = ["PATH", "HOME", "LANG", "LC_*"]
secret-env = ["*_DSN"]
"""

COMMAND_EXAMPLE = """\
# Any other program: a list of its arguments, which no shell ever sees.
command = ["make", "nightly"]
timeout = "1h30m"
archive-glob = "out/*.jsonl.gz"
"""

_OPENING = """\
# Configuration

<!-- Written by `python -m run_cycle_loop.config.docs > docs/configuration.md`; change the declarations instead. -->

Every setting has a name. From it follow the flag (`--stop-file`), the variable (`RUN_CYCLE_STOP_FILE`) and the key in
the file (`stop-file`; `stop_file` reads as well). `run-cycle-loop config show` prints each value in force and where it
came from.

## Which value wins

1. the flag,
2. the variable,
3. the file: `--config FILE`, else `RUN_CYCLE_CONFIG`, else a `run-cycle-loop.toml` in the working directory,
4. for `state-dir` and `log-dir`, systemd's `$STATE_DIRECTORY` and `$LOGS_DIRECTORY` (the first path of each),
5. the default.

Only the winning value is read; a wrong one is named in one sentence, and the command exits with 2. Some settings
replace each other, and there too the higher source wins:

- `--continuous` means `--iterations 0`; together with another number on the same level it is refused.
- A command (`-- COMMAND` or the key `command`) replaces the cycle script, unless that was named on a higher level.
- A goal file replaces the goal, unless the goal was given on a higher level.

## How values are written

- A duration is a number of seconds or `500ms`, `90s`, `5m`, `1h30m`, `2d`; ten years at most.
- A size is a number of bytes or `512KiB`, `64MiB`, `1GiB`.
- A switch is `true` or `false` (in a variable also `1`, `0`, `yes`, `no`, `on`, `off`); as a flag it is `--dry-run` or
  `--no-dry-run`.
- A list is a repeated flag, or its items parted by commas, or an array in the file.
- What can be switched off is switched off by `off`, `none` or nothing at all (`RUN_CYCLE_PREREQ_SCRIPT=`); a number
  also by 0.
- A relative path counts from the working directory; no `~`, `$NAME` or wildcard is expanded.
- `STATE_DIR` below is the value of `state-dir`.
"""

_CLOSING = f"""\
The planner archives are `STATE_DIR/planner_digest_archives/planner_digests_*.jsonl.gz`. Where no goal is given, it is:

> {DEFAULT_GOAL}

A cycle itself is told `RUN_CYCLE_ID`, `RUN_CYCLE_NUMBER` and `RUN_CYCLE_CONTROL_FILE`; these set nothing.

## Files

`{FILE_NAME}` is TOML with the keys at its top level:

```toml
{EXAMPLE}```

```toml
{COMMAND_EXAMPLE}```

An unknown key is an error, so that a slip of the pen never passes for a default. The file may be 1 MiB large, and so
may a goal file, though no process can be given a goal of 128 KiB or more.

## Reload

On SIGHUP the configuration is read again before the next cycle. These keep their value until a restart:
"""


def page() -> str:
    """The whole page."""
    tables = [_table(group) for group in Group]
    kept = ", ".join(f"`{option.key}`" for option in OPTIONS.values() if option.restart)
    return "\n".join([_OPENING, *tables, _CLOSING + kept + ".\n"])


def _table(group: Group) -> str:
    rows = [_row(option) for option in OPTIONS.values() if option.group is group]
    return "\n".join(
        [f"## {group}", "", _cells(("flag", "variable", "key", "default", "meaning")), _cells(["---"] * 5), *rows, ""]
    )


def _row(option: Option) -> str:
    flag = f"`{option.flag}`" if option.kind.switch else f"`{option.flag} {option.kind.metavar}`"
    names = (flag, f"`{option.variable}`") if option.on_command_line else ("`-- COMMAND...`", "")
    key = f"`{option.key}`" if option.in_file else ""
    return _cells((*names, key, _plain(option.default_text), _plain(option.help)))


def _cells(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _plain(text: str) -> str:
    return text.replace("*", r"\*")


if __name__ == "__main__":
    sys.stdout.write(page())
