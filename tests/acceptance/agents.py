"""Agents of tests, told what to do line by line: one that replays steps, and one that is a shell script."""

import json
from pathlib import Path
from typing import Any

from tests.acceptance.place import Place

#: No pause anywhere: a rate limit, a failure and a half-open breaker are waited out at once.
SWIFT = ("--limit-margin", "0.1", "--backoff-initial", "0", "--max-backoff", "0.1", "--max-failures", "0")
GUARDED = ("--write-guard", "enforce", "--workdir", "tree")


def scripted(place: Place, *steps: dict[str, Any], isolate: str = "none") -> tuple[str, ...]:
    """The options for an agent that replays these steps; ``{"cycle": n}`` begins the block of a cycle."""
    place.write("steps.jsonl", "".join(json.dumps(step) + "\n" for step in steps))
    return ("--agent", "scripted", "--agent-script", "steps.jsonl", "--isolate", isolate)


def hostile(place: Place, script: str, *, isolate: str = "none", consent: str = "off") -> tuple[str, ...]:
    """The options for a coding agent that is this shell script, with ``$P`` for the place."""
    path = place.write("agent.sh", f"P={place.path}\n{script}\n")
    line = f"sh {path}"
    return ("--agent", "command", "--agent-command", line, "--isolate", isolate, "--consent-guard", consent)


def own_session(place: Place, script: str, *, agent: str = "command", consent: str = "off") -> tuple[str, ...]:
    """The options for an agent whose whole session is this shell script: quick, and with nothing of ours around it."""
    path = place.write("scripts/run_cycle.sh", f"#!/bin/sh\nP={place.path}\n{script}\n")
    path.chmod(0o755)
    told = ("--agent-script", "scripts/run_cycle.sh") if agent == "scripted" else ("--agent-command", "true")
    return ("--agent", agent, *told, "--archive-glob", "off", "--isolate", "none", "--consent-guard", consent)


def make_tree(root: Path) -> None:
    """A small tree with everything that a copy could get wrong."""
    (root / "docs" / "deep").mkdir(parents=True)
    for number in range(6):
        (root / f"file-{number}").write_text(f"file {number}\n")
    (root / "docs" / "page").write_text("page\n")
    (root / "docs" / "deep" / "tool").write_text("#!/bin/sh\n")
    (root / "docs" / "deep" / "tool").chmod(0o755)
    (root / "docs" / "private").write_text("private\n")
    (root / "docs" / "private").chmod(0o600)
    (root / "link").symlink_to("docs/page")


def control(text: str) -> str:
    """The line of a shell script that leaves this as the control payload."""
    return f"cat > \"$RUN_CYCLE_CONTROL_FILE\" <<'END'\n{text}\nEND"


def told(**payload: Any) -> str:
    """The same, of an object."""
    return control(json.dumps(payload))
