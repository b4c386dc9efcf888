"""What must hold after every fault, whatever it was; one function says it all."""

import itertools
import json
import os
import signal
import stat
from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

from tests.faults.lab import Lab

EXIT_CODES = frozenset({0, 1, 2, 10, 11, 12, 74, 75})
OUTCOMES = frozenset(
    "success degraded failed timeout prereq_failed error interrupted lost rate_limited skipped".split()
)
STATES = frozenset("starting checking running waiting backoff held stopping stopped".split())
MOST_KIB = 64 * 1024


def check_invariants(lab: Lab, *, settled: bool) -> None:
    """All of them. ``settled``: a plain start has come after the fault, so that no repair is owed any more."""
    records = _history(lab, settled=settled)
    _snapshot(lab, records, settled=settled)
    _nothing_left_running(lab)
    _one_at_a_time(lab, records)
    _each_once(lab, records, settled=settled)
    _exit_codes(lab)
    _no_secret(lab)
    _memory(lab)
    _modes(lab, settled=settled)


def strict_json(data: bytes | str) -> Any:
    """JSON as the standard has it: no NaN, no Infinity."""
    return json.loads(data, parse_constant=_refuse)


def _refuse(word: str) -> NoReturn:
    raise ValueError(f"{word} is no JSON")


def _history(lab: Lab, *, settled: bool) -> list[dict[str, Any]]:
    """I1: every complete line is a valid record; a torn tail is for the next start to mend."""
    path = lab.history_path
    if "I1" in lab.allowed or not path.is_file():
        return [record for record in lab.history() if {"cycle_id", "number"} <= set(record)]
    *lines, tail = path.read_bytes().split(b"\n")
    assert not (settled and tail), f"I1: a torn tail survived the next start: {tail[:200]!r}"
    records = [strict_json(line) for line in lines]
    assert all(record["status"] in OUTCOMES for record in records), "I1"
    return records


def _snapshot(lab: Lab, records: list[dict[str, Any]], *, settled: bool) -> None:
    """I2, I3: latest.json is absent or whole, and never ahead of the history."""
    if "I2" in lab.allowed or not lab.latest_path.exists():
        return
    latest = strict_json(lab.latest_path.read_bytes())
    assert latest["schema_version"] == 1, "I2"
    assert latest["state"] in STATES, "I2"
    assert set(latest["counts"]) <= OUTCOMES, "I2"
    numbers = ("seq", "success_count", "failure_count", "consecutive_failures", "state_errors", "observer_errors")
    assert all(isinstance(latest[name], int) and latest[name] >= 0 for name in numbers), f"I2: {latest}"
    if "I3" in lab.allowed:
        return
    last = records[-1]["number"] if records else 0
    assert latest["seq"] <= last, f"I3: latest.json says {latest['seq']}, the history {last}"
    if settled:
        assert latest["seq"] == last, "I3"
        assert sum(latest["counts"].values()) == len(records), f"I3: {latest['counts']} of {len(records)} records"


def _nothing_left_running(lab: Lab) -> None:
    """I4: no process of a closed cycle lives."""
    if any(loop.killed for loop in lab.loops[-1:]):
        return  # the next start ends them
    if "I4" not in lab.allowed:
        assert lab.processes() == [], "I4"


def _one_at_a_time(lab: Lab, records: list[dict[str, Any]]) -> None:
    """I5: no cycle began before the one in front of it had ended."""
    if "I5" in lab.allowed:
        return
    for earlier, later in itertools.pairwise(records):
        ended, began = (datetime.fromisoformat(text) for text in (earlier["finished_at"], later["started_at"]))
        assert began >= ended, f"I5: cycle {later['number']} began before {earlier['number']} ended"
        assert later["number"] > earlier["number"], "I5: numbers go up"


def _each_once(lab: Lab, records: list[dict[str, Any]], *, settled: bool) -> None:
    """I6: one record for every cycle that began, and no second one."""
    counts = Counter(record["cycle_id"] for record in records)
    assert "I6" in lab.allowed or not [key for key, count in counts.items() if count > 1], "I6: a cycle twice"
    begun = lab.scratch / "begun"
    if settled and begun.exists() and "I6" not in lab.allowed:
        missing = set(begun.read_text().split()) - set(counts)
        assert not missing, f"I6: cycles without a record: {missing}"
    assert all(record["duration_seconds"] >= 0 for record in records if "duration_seconds" in record), "I6: durations"


def _exit_codes(lab: Lab) -> None:
    """I7: only documented exit codes; no traceback as the last word."""
    for loop in lab.loops:
        if loop.killed or "I7" in lab.allowed:
            continue
        assert loop.code in EXIT_CODES, f"I7: exit code {loop.code}; it said: {loop.stderr[-3000:]}"
        assert "Traceback" not in loop.stderr, f"I7: {loop.stderr[-3000:]}"


def _no_secret(lab: Lab) -> None:
    """I8: the value of a secret variable stands in no file of ours, nor in anything we said."""
    needle = lab.canary.encode()
    for path in lab.written():
        if path not in lab.planted:
            assert not _contains(path, needle), f"I8: the secret stands in {path}"


def _contains(path: Path, needle: bytes) -> bool:
    with path.open("rb") as file:
        before = b""
        while block := file.read(1 << 20):
            if needle in before + block:
                return True
            before = block[-len(needle) :]
    return False


def _memory(lab: Lab) -> None:
    """I9: the supervisor stays small."""
    peak = max((loop.peak for loop in lab.loops), default=0)
    assert "I9" in lab.allowed or peak <= MOST_KIB, f"I9: {peak} KiB"


def _modes(lab: Lab, *, settled: bool) -> None:
    """I10: everything is for its owner alone, and no drafts pile up."""
    if "I10" in lab.allowed:
        return
    drafts = []
    for folder in (lab.state, lab.logs):
        for base, _, names in os.walk(folder):
            entries = [Path(base), *(Path(base, name) for name in names)]
            for path in set(entries) - lab.planted:
                mode = path.lstat().st_mode
                wanted = 0o700 if stat.S_ISDIR(mode) else 0o600
                assert stat.S_IMODE(mode) == wanted, f"I10: {path} has mode {stat.S_IMODE(mode):o}"
            drafts += [name for name in names if name.endswith(".tmp")]
    assert len(drafts) <= 1, f"I10: {drafts}"
    assert not (settled and drafts), f"I10: {drafts} survived the next start"


def was_killed(code: int | None) -> bool:
    """Whether a traced child ended by the KILL that was injected: strace passes its child's signal on."""
    return code in {-signal.SIGKILL, 128 + signal.SIGKILL}
