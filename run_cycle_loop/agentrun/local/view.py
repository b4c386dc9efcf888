"""Runs of this machine as commands show them: in the same terms as those of a cluster."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from run_cycle_loop.agentrun.flags import LOCAL
from run_cycle_loop.agentrun.looking.attempts import Attempt, AttemptState, PodRow
from run_cycle_loop.agentrun.looking.objects import environment, seconds_between
from run_cycle_loop.agentrun.looking.progress import Hint, Progress, progress
from run_cycle_loop.agentrun.looking.rows import RunRow
from run_cycle_loop.agentrun.looking.verify import VARIABLES, AttemptEvidence, Evidence, Mount, Source, adapter_of
from run_cycle_loop.agentrun.model import AgentRun, read_run
from run_cycle_loop.agentrun.names import FINALIZER
from run_cycle_loop.agentrun.profiles import Profile
from run_cycle_loop.agentrun.rendering.jobs import attempt_objects
from run_cycle_loop.agentrun.rendering.prompts import MOUNT_FOLDER, provider_of, system_prompt
from run_cycle_loop.agentrun.resources import Resources
from run_cycle_loop.kit import files
from run_cycle_loop.model.runs import AttemptRecord, RunRecord

_NOT_DRIVEN = "NotDriven"
_LARGEST = 1 << 20  #: bytes of a payload or a prompt


def seen(record: RunRecord, attempts: Sequence[AttemptRecord], now: datetime, *, is_driven: bool) -> Progress:
    """How far a run is.

    Args:
        record: what is stored of it.
        attempts: its attempts.
        now: the moment.
        is_driven: whether an engine is at work on it.
    """
    run = read_run(record.manifest)
    base = progress(_body(record), (), (), now)
    rows = tuple(sorted((_row(run, one, now) for one in attempts), key=lambda row: row.place))
    hints = base.hints
    if not record.is_final and not is_driven:
        hints += (Hint(reason=_NOT_DRIVEN, message=_undriven(record)),)
    # What is overdue on a cluster is a controller that does not look; an engine here has its own clock.
    return replace(base, attempts=rows, overdue=(), hints=hints, namespace=record.namespace)


def row(record: RunRecord, now: datetime, *, is_driven: bool) -> RunRow:
    """A run as one line of a list."""
    is_left = not record.is_final and not is_driven
    base = progress(_body(record), (), (), now)
    step = next((one for one in base.steps if one.name == base.step), None)
    return RunRow(
        name=record.name,
        namespace=record.namespace,
        phase=base.phase,
        step=base.step,
        iteration=base.iteration,
        stop_reason=step.stop_reason if step else "",
        reason=_NOT_DRIVEN if is_left else base.reason,
        message=_undriven(record) if is_left else base.message,
        agent=base.agent,
        runtime=base.runtime,
        age=base.age,
        seconds=base.seconds,
        overdue=(),
        result=base.result,
        is_being_deleted=False,
    )


def _undriven(record: RunRecord) -> str:
    return f"no engine drives it: `run-cycle-loop agentrun run --resume {record.name}` goes on, `cancel` ends it"


def evidence(record: RunRecord, attempts: Sequence[AttemptRecord]) -> Evidence:
    """What tells which system prompt its attempts had: the files that they were given are still there."""
    run, profile = read_run(record.manifest), Profile(record.profile)
    resources = Resources.of(record.documents)
    prompt = system_prompt(run, resources, profile)
    _, provider = provider_of(run, resources)
    stored = record.status.get("systemPromptHash")
    return Evidence(
        run=record.name,
        namespace=record.namespace,
        status_hash=stored if isinstance(stored, str) else "",
        source=Source(
            place=prompt.source,
            kind=prompt.kind,
            name=prompt.name,
            key=prompt.key,
            hash=prompt.hash or "",
            note=prompt.note,
        ),
        provider_adapter=adapter_of({"spec": provider}) if provider else "",
        attempts=tuple(_evidence(run, one, resources, profile) for one in attempts),
    )


def _body(record: RunRecord) -> dict[str, Any]:
    """The run as a cluster would show it."""
    metadata = record.manifest.get("metadata")
    known = dict(metadata) if isinstance(metadata, dict) else {}
    known |= {"uid": record.uid, "creationTimestamp": record.created_at, "finalizers": [FINALIZER]}
    return {**record.manifest, "metadata": known, "status": record.status}


def _row(run: AgentRun, record: AttemptRecord, now: datetime) -> Attempt:
    state = AttemptState.ACTIVE
    if record.finished_at:
        state = AttemptState.SUCCEEDED if record.exit_code == 0 and not record.reason else AttemptState.FAILED
    return Attempt(
        job=record.name,
        step=run.steps[record.step - 1].name if 0 < record.step <= len(run.steps) else "",
        step_index=record.step,
        iteration=record.iteration,
        attempt=record.attempt,
        state=state,
        started_at=record.started_at,
        finished_at=record.finished_at,
        seconds=seconds_between(record.started_at, record.finished_at or now),
        reason=record.reason,
        message=record.message,
        pod=PodRow(name=record.folder, phase=str(state), exit_code=record.exit_code),
    )


def _evidence(run: AgentRun, record: AttemptRecord, resources: Resources, profile: Profile) -> AttemptEvidence:
    folder = Path(record.folder)
    runner, payload = _json(folder / "agent-runner.json"), _json(folder / "run.json")
    status = _json(folder / ".agent" / "status.json")
    codex = runner.get("adapter", {}).get("codex", {}) if isinstance(runner.get("adapter"), dict) else {}
    step = next((one for one in run.steps if one.index == record.step), None)
    objects = attempt_objects(
        run,
        step,
        iteration=record.iteration,
        attempt=record.attempt,
        resources=resources,
        profile=profile,
        flags=LOCAL,
    )
    given = environment(objects.job)
    prompt = folder / MOUNT_FOLDER.rpartition("/")[2] / "system-prompt.txt"
    text = payload.get("systemPrompt")
    return AttemptEvidence(
        job=record.name,
        step=step.name if step else "",
        iteration=record.iteration,
        attempt=record.attempt,
        has_succeeded=record.exit_code == 0,
        variables=tuple((name, given[name]) for name in VARIABLES if name in given),
        mount=_mount(given, prompt),
        file_hash=_hash(prompt),
        adapter=str(runner.get("adapter", {}).get("type") or "") if isinstance(runner.get("adapter"), dict) else "",
        runner_path=str(codex.get("systemPromptPath") or ""),
        runner_hash=str(codex.get("systemPromptExpectedHash") or ""),
        inline_hash=hashlib.sha256(text.encode()).hexdigest() if isinstance(text, str) else "",
        runner_status=str(status.get("status") or ""),
        notes=() if folder.is_dir() else (f"{folder} is gone",),
    )


def _mount(given: Mapping[str, str], prompt: Path) -> Mount | None:
    if VARIABLES[0] not in given:
        return None
    return Mount(path=MOUNT_FOLDER, is_read_only=True, kind="file", name=str(prompt.parent), key="", file=prompt.name)


def _json(path: Path) -> dict[str, Any]:
    with suppress(OSError, ValueError, RecursionError):
        found = json.loads(files.read_bounded(path, _LARGEST))
        return found if isinstance(found, dict) else {}
    return {}


def _hash(path: Path) -> str:
    with suppress(OSError, ValueError):
        return hashlib.sha256(files.read_bounded(path, _LARGEST)).hexdigest()
    return ""
