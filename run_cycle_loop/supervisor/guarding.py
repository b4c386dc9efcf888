"""The guards asked one after the other: whether a cycle may start, that it starts, and what became of it."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Protocol, TypeVar

from run_cycle_loop.model.decisions import Continue, Decision, Halt
from run_cycle_loop.model.errors import StateError
from run_cycle_loop.model.ports import Guard
from run_cycle_loop.model.records import CycleRecord, CycleSpec
from run_cycle_loop.policies.continuation import later

T = TypeVar("T")


class Insist(Protocol):
    """Does what must be written before the loop may go on, and holds the loop until it can be."""

    def __call__(self, write: Callable[[], T], /) -> T:
        """What ``write`` gives."""
        ...


def held(guards: Sequence[Guard], now: datetime) -> Decision | None:
    """What is to be done instead of a cycle: an end of the loop before any wait; None where all allow one."""
    wait: Continue | None = None
    for guard in guards:
        wanted = guard.admit(now)
        if isinstance(wanted, Halt):
            return wanted
        if wanted is not None:
            wait = wanted if wait is None else later(wait, wanted)
    return wait


def begun(guards: Sequence[Guard], spec: CycleSpec, insist: Insist) -> CycleSpec:
    """The spec with what the guards allow it, once each of them has noted durably that the cycle begins."""
    for guard in guards:
        spec = insist(partial(guard.begin, spec))
    limits = [limit for limit in (spec.timeout, spec.allowed_seconds) if limit is not None]
    return replace(spec, timeout=min(limits, default=None))


def given_back(guards: Sequence[Guard], spec: CycleSpec, record: CycleRecord) -> None:
    """Tell every guard that nothing came of a cycle; best effort, for it may be their own state that cannot be written.

    What cannot be told stays reserved.
    """
    for guard in guards:
        with suppress(StateError):
            guard.settle(spec, record, launched=False)


def settled(
    guards: Sequence[Guard], spec: CycleSpec, record: CycleRecord, *, launched: bool, insist: Insist
) -> CycleRecord:
    """The record with what every guard makes of the cycle; each has noted it durably by then."""
    for guard in guards:
        made = insist(partial(guard.settle, spec, record, launched=launched))
        findings = tuple(finding.as_dict() for finding in made.findings)
        record = replace(record, guards=(*record.guards, *findings), **made.changes)
    return record
