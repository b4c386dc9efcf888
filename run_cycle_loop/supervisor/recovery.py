"""The cycle that the last supervisor did not survive: its leftovers are ended, then it is closed as ``lost``."""

from datetime import UTC, datetime
from pathlib import Path

from run_cycle_loop.kit import process_table, process_tree
from run_cycle_loop.kit.process_table import ProcessId
from run_cycle_loop.model.enums import Outcome
from run_cycle_loop.model.errors import StateError
from run_cycle_loop.model.findings import TreeVerdict
from run_cycle_loop.model.records import CycleRecord, RunningCycle, timestamp


def end_leftovers(cycle: RunningCycle) -> int:
    """End every process of a cycle that is known to be nobody's; returns how many there were.

    Raises:
        StateError: some could not be ended; a second cycle must not run beside them.
    """
    if cycle.boot_id != process_table.boot_id():
        return 0  # the machine restarted meanwhile: whatever has those pids now is a stranger
    leader = None
    if cycle.leader_pid is not None and cycle.leader_start_ticks is not None:
        leader = ProcessId(cycle.leader_pid, cycle.leader_start_ticks)
    mark = f"RUN_CYCLE_ID={cycle.cycle_id}".encode()

    def living() -> list[ProcessId]:
        return process_tree.marked(mark, leader=leader, pipes=cycle.output_inodes)

    count = len(living())
    survivors = process_tree.end_all(living)
    if survivors:
        pids = ", ".join(str(process.pid) for process in survivors)
        raise StateError(f"processes of lost cycle {cycle.number} cannot be ended (pid {pids}); see what they wait for")
    return count


def lost_record(cycle: RunningCycle, *, leftovers: int, tree: TreeVerdict | None, now: datetime) -> CycleRecord:
    """What is kept of it; ``tree`` is what it did to its workdir, where that was measured."""
    reason = f"its supervisor (pid {cycle.supervisor_pid}) did not survive it"
    if leftovers:
        reason += f"; {leftovers} processes it left were ended"
    finding = tree.finding if tree else None
    if finding and not finding.ok:
        reason += f"; {finding.guard}: {finding.detail}"
    return CycleRecord(
        timestamp=timestamp(now),
        mode=cycle.mode,
        goal=cycle.goal,
        status=Outcome.LOST,
        prerequisites_ok=cycle.leader_pid is not None,
        return_code=None,
        duration_seconds=_duration(cycle),
        archive_created=None,
        archive_path=None,
        log_path=cycle.log_path,
        cycle_id=cycle.cycle_id,
        number=cycle.number,
        started_at=cycle.started_at,
        finished_at=timestamp(now),
        reason=reason,
        leftovers=leftovers,
        agent=cycle.agent,
        guards=(finding.as_dict(),) if finding else (),
        files_changed=tree.files if tree else None,
        bytes_changed=tree.bytes if tree else None,
        quarantine=str(tree.quarantine) if tree and tree.quarantine else None,
    )


def _duration(cycle: RunningCycle) -> float:
    """Seconds from its start to the last sign of it, the last change of its log; 0 where there is none."""
    if cycle.log_path is None:
        return 0.0
    try:
        written = Path(cycle.log_path).stat().st_mtime
        started = datetime.fromisoformat(cycle.started_at).astimezone(UTC)
    except (OSError, ValueError):
        return 0.0
    return round(max(0.0, written - started.timestamp()), 3)
