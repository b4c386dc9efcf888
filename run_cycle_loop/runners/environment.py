"""The environment of a child: the caller's, or only what is allowed of it, plus what the cycle is told."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from fnmatch import fnmatchcase
from pathlib import Path

from run_cycle_loop.model.records import CycleSpec

#: Between systemd and this process alone; a child that kept them could speak in our name.
_PRIVATE = frozenset(
    {"NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "MAINPID"}
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Places:
    """The paths that a cycle is told."""

    state_dir: Path
    history_path: Path
    sandbox_dir: Path

    def variables(self) -> dict[str, str]:
        """Absolute, by the names that the cycle knows them by; worked out once, not for every cycle."""
        return {item.name.upper(): os.fspath(getattr(self, item.name).absolute()) for item in fields(self)}


def handed_on(caller: Mapping[str, str], allow: Sequence[str] | None) -> dict[str, str]:
    """What of the supervisor's own environment a child gets; ``allow`` None hands on all that is not between others."""
    return {
        name: value
        for name, value in caller.items()
        if name not in _PRIVATE and (allow is None or any(fnmatchcase(name, pattern) for pattern in allow))
    }


def child_environment(
    spec: CycleSpec,
    caller: Mapping[str, str],
    *,
    allow: Sequence[str] | None,
    cap_writes: int,
    told: Mapping[str, str],
) -> dict[str, str]:
    """What a process of this cycle is started with.

    Args:
        spec: the cycle.
        caller: the supervisor's own environment.
        allow: names, or patterns of names, that are handed on; None hands on all.
        cap_writes: how many files the cycle may write.
        told: what else it is told, by the names that it knows them by: absolute paths, the settings of its agent.
    """
    allowed = {"ALLOWED_USD": spec.allowed_usd, "ALLOWED_TOKENS": spec.allowed_tokens}
    cycle = {
        "ID": spec.cycle_id,
        "NUMBER": str(spec.number),
        "MODE": spec.mode,
        "GOAL": spec.goal,
        "CAP_WRITES": str(cap_writes),
        "CONTROL_FILE": spec.control_file,
        **{name: f"{value:.12g}" for name, value in allowed.items() if value is not None},
    }
    return handed_on(caller, allow) | {f"RUN_CYCLE_{name}": value for name, value in {**told, **cycle}.items()}
