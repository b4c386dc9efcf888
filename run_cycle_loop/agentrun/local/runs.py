"""Runs of this machine from outside: begun, resumed, cancelled; each by one engine at a time."""

import contextlib
import fcntl
import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from run_cycle_loop.agentrun.flags import ControllerFlags
from run_cycle_loop.agentrun.lifecycle.observed import Refusal
from run_cycle_loop.agentrun.lifecycle.status import RunStatus, stamp, write_status
from run_cycle_loop.agentrun.local import pod, sandbox, secret_values
from run_cycle_loop.agentrun.local.attempts import Subject
from run_cycle_loop.agentrun.local.engine import CANCELLED, Engine
from run_cycle_loop.agentrun.local.machine import Machine
from run_cycle_loop.agentrun.local.places import LOCK, SECRETS, STATUS, Places, check_names
from run_cycle_loop.agentrun.local.pod import Secrets
from run_cycle_loop.agentrun.local.volumes import Claims
from run_cycle_loop.agentrun.model import AgentRun, Workload, read_run
from run_cycle_loop.agentrun.names import ANNOTATION_CONTROL
from run_cycle_loop.agentrun.profiles import Profile
from run_cycle_loop.agentrun.rendering.payloads import payloads
from run_cycle_loop.agentrun.resources import Resources
from run_cycle_loop.kit import files
from run_cycle_loop.model.errors import AlreadyRunning, ConfigError, StateError
from run_cycle_loop.model.runs import RunEvent, RunKind, RunRecord

RUNTIMES = ("workflow", "job")  #: what can be carried out here


def run_locally(
    run: AgentRun,
    resources: Resources,
    *,
    profile: Profile,
    flags: ControllerFlags,
    strict_cluster: bool,
    machine: Machine,
) -> RunStatus:
    """Carry a run out on this machine; returns its final status.

    Args:
        run: read from its manifest.
        resources: the objects that came with it.
        profile: the generation of the controller that it is meant for.
        flags: the limits that are kept; ``flags.LOCAL`` on this machine.
        strict_cluster: whether a cluster's quirks are reproduced: control payloads from the annotation's file alone,
            attempts that outlive their time limit, a Job's own words.
        machine: where.

    Raises:
        ConfigError: it cannot be carried out here, or its name is taken.
        AlreadyRunning: another engine drives it, or another run has one of its claims.
        StateError: what happens cannot be stored.
    """
    check_names(run)
    _check_kind(run)
    machine = _with_absolute(machine)
    folder = Places(state=machine.state).run(run.namespace, run.name)
    if machine.store.find(RunKind.AGENTRUN, run.namespace, name=run.name) is None:
        _refuse_strangers(folder)
    with _locked(folder):
        uid = run.uid or machine.new_uid()
        run = read_run({**run.body, "metadata": {**_map(run.body.get("metadata")), "uid": uid}})
        secrets = {**pod.secrets_in(resources), **secret_values.from_folders(machine.secret_folders)}
        with _claimed(run, resources, machine) as claims:  # a run that cannot have them is not even known
            with _kept_beforehand(folder, secrets, machine, run):
                record = _created(run, resources, profile, strict=strict_cluster, flags=flags, machine=machine)
            return _drive(record, run, resources, secrets, claims, flags, machine)


def resume(namespace: str, name: str, *, flags: ControllerFlags, machine: Machine) -> RunStatus:
    """Go on with a run whose engine is gone: attempts that still run are waited for, finished ones are taken, and lost
    ones are made again. A run that is over stays as it is.

    Raises:
        ConfigError: there is no such run.
        AlreadyRunning: another engine drives it.
        StateError: what happens cannot be stored.
    """
    machine = _with_absolute(machine)
    places = Places(state=machine.state)
    record = known_run(machine, namespace, name)
    with _locked(places.run(namespace, name)):
        record = known_run(machine, namespace, name)  # somebody may have ended it while we came
        run = read_run(record.manifest)
        if record.is_final or record.cancel_reason:  # nothing of it is started any more
            return _drive(record, run, Resources(), {}, {}, flags, machine)
        kept = secret_values.kept(places.run(namespace, name))
        secrets = kept | secret_values.from_folders(machine.secret_folders)
        secret_values.refuse_gone(record.documents, secrets)
        resources = Resources.of([*record.documents, *secret_values.as_objects(secrets, record.documents)])
        with _claimed(run, resources, machine) as claims:
            return _drive(record, run, resources, secrets, claims, flags, machine)


def request_cancel(namespace: str, name: str, reason: str, *, flags: ControllerFlags, machine: Machine) -> RunRecord:
    """Let a run be cancelled: its engine looks for that once a second; where none drives it, it is done here and now.

    Raises:
        ConfigError: there is no such run.
        StateError: it cannot be stored.
    """
    record = known_run(machine, namespace, name)
    event = RunEvent(
        at=stamp(machine.clock.now()), kind="run.cancel_asked", facts={"reason": CANCELLED, "message": reason}
    )
    record = machine.store.ask_cancel(record, reason, event)
    if not record.is_final:
        with contextlib.suppress(AlreadyRunning):
            resume(namespace, name, flags=flags, machine=machine)
    return known_run(machine, namespace, name)


def known_run(machine: Machine, namespace: str, name: str) -> RunRecord:
    """What is stored of a run.

    Raises:
        ConfigError: nothing is.
    """
    record = machine.store.find(RunKind.AGENTRUN, namespace, name=name)
    if record is None:
        raise ConfigError(f"there is no run {namespace}/{name} on this machine; see the list of runs, or its namespace")
    return record


def is_driven(machine: Machine, namespace: str, name: str) -> bool:
    """Whether an engine drives that run now."""
    folder = Places(state=machine.state).run(namespace, name)
    if not folder.is_dir():
        return False
    try:
        with _locked(folder):
            return False
    except AlreadyRunning:
        return True


@contextlib.contextmanager
def _kept_beforehand(folder: Path, secrets: Secrets, machine: Machine, run: AgentRun) -> Iterator[None]:
    """Keep the values of Secrets before the run is known: whoever resumes it must find them."""
    if machine.store.find(RunKind.AGENTRUN, run.namespace, name=run.name) is not None:
        yield  # which will be refused; what is there is that run's
        return
    secret_values.keep(folder, secrets)
    try:
        yield
    except BaseException:
        files.unlink_quietly(folder / SECRETS)
        raise


@contextlib.contextmanager
def _claimed(run: AgentRun, resources: Resources, machine: Machine) -> Iterator[Mapping[str, str]]:
    """The folders of the run's claims, kept from other runs.

    Raises:
        AlreadyRunning: another run has one of them.
        StateError: a folder cannot be made.
    """
    places = Places(state=machine.state)

    def is_unfinished(name: str) -> bool:
        found = machine.store.find(RunKind.AGENTRUN, run.namespace, name=name)
        if found is None:  # what the store does not know may still run
            return os.path.lexists(places.run(run.namespace, name) / "attempts")
        return not found.is_final

    claims = Claims(places, run.namespace, run.name, is_unfinished)
    try:
        claims.take(_claims_of(run), resources)
        yield claims.folders
    finally:
        claims.release()


def _drive(
    record: RunRecord,
    run: AgentRun,
    resources: Resources,
    secrets: Secrets,
    claims: Mapping[str, str],
    flags: ControllerFlags,
    machine: Machine,
) -> RunStatus:
    """One engine over one run."""
    profile = Profile(record.profile)
    bubblewrap, notes = _paths(record, machine)
    strict = record.options.get("strictCluster") is True
    notes += _differences(run, strict=strict)
    subject = Subject(
        run=run,
        resources=resources,
        secrets=secrets,
        profile=profile,
        flags=flags,
        strict=strict,
        bubblewrap=bubblewrap,
        claims=claims,
    )
    refusal = None if record.phase or record.cancel_reason else _first_refusal(run, resources, profile, flags)
    return Engine(record, subject, machine, refusal=refusal, notes=notes).drive()


def _created(
    run: AgentRun, resources: Resources, profile: Profile, *, strict: bool, flags: ControllerFlags, machine: Machine
) -> RunRecord:
    at = stamp(machine.clock.now())
    true_paths, why_not = _chosen_paths(machine)
    status = RunStatus(rest=_facts_of(run, resources, profile, flags))
    record = RunRecord(
        namespace=run.namespace,
        name=run.name,
        uid=run.uid,
        manifest=run.body,
        documents=tuple(secret_values.without_values(one) for one in resources.objects.values()),
        profile=str(profile),
        options={"strictCluster": strict, "truePaths": true_paths, "whyNot": why_not},
        idempotency_key=run.idempotency_key,
        status=write_status(status),
        created_at=at,
        updated_at=at,
    )
    return machine.store.create(record, (RunEvent(at=at, kind="run.created", facts={"uid": run.uid}),))


def _facts_of(run: AgentRun, resources: Resources, profile: Profile, flags: ControllerFlags) -> dict[str, Any]:
    """What a status says of a run from its first moment on, and never changes."""
    step = run.steps[0] if run.steps and run.runtime == "workflow" else None
    digest = payloads(run, step, resources, profile, flags).system_prompt.hash
    return {"systemPromptHash": digest} if digest else {}


def _first_refusal(run: AgentRun, resources: Resources, profile: Profile, flags: ControllerFlags) -> Refusal | None:
    # The rules are many modules, and a run that is resumed has passed them.
    from run_cycle_loop.agentrun.checks.rules import first_refusal  # noqa: PLC0415

    return first_refusal(run, resources, profile, flags)


def _check_kind(run: AgentRun) -> None:
    if run.is_template:
        raise ConfigError(f"run {run.name} is a template, which is never started; remove that annotation from a copy")
    if run.runtime not in RUNTIMES:
        raise ConfigError(
            f"runtime.type {run.runtime[:40]!r} cannot be carried out on this machine, only {' and '.join(RUNTIMES)}; "
            "change it, or send the run to a cluster"
        )


def _with_absolute(machine: Machine) -> Machine:
    """Attempts work elsewhere: what they are told must not depend on where the engine stands."""
    return replace(machine, state=machine.state.absolute())


def _refuse_strangers(folder: Path) -> None:
    if any(os.path.lexists(folder / name) for name in ("attempts", STATUS)):
        raise ConfigError(f"{folder} holds a run that the run store does not know; move it aside, or use another name")


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One engine for each run.

    Raises:
        AlreadyRunning: another one drives it.
        StateError: the lock cannot be taken.
    """
    try:
        files.make_folder(folder)
        descriptor = files.open_regular(folder / LOCK, os.O_RDWR | os.O_CREAT)
    except OSError as error:
        raise StateError(f"{folder / LOCK} cannot be opened: {error.strerror or error}; mend its folder") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise AlreadyRunning(
            f"run {folder.parent.name}/{folder.name} is driven by another process; watch it, or cancel it"
        ) from None
    finally:
        os.close(descriptor)


def _chosen_paths(machine: Machine) -> tuple[bool, str]:
    """Whether a new run gets true paths, and if not, why.

    Raises:
        ConfigError: they are demanded and cannot be had.
    """
    if machine.isolate == "none":
        return False, "isolation is switched off"
    program, trouble = sandbox.find_bubblewrap(machine.environ)
    if program is None and machine.isolate == "bwrap":
        raise ConfigError(f"--isolate bwrap cannot be met: {trouble}; see to that, or choose auto or none")
    return program is not None, trouble


def _paths(record: RunRecord, machine: Machine) -> tuple[str | None, tuple[str, ...]]:
    """Bubblewrap where the run was begun with it, and what is to be said otherwise: a run never changes its paths.

    Raises:
        ConfigError: the run was begun with bubblewrap, which does not work any more.
    """
    if record.options.get("truePaths") is not True:
        why = record.options.get("whyNot")
        told = (
            f"the container's paths are not true here, since {why}: AGENT_RUN_MOUNTS names the folders, "
            "and what a prompt has written to /workspace does not reach them"
        )
        return None, (told,)
    if record.is_final or record.cancel_reason:  # nothing of it is started any more
        return None, ()
    program, trouble = sandbox.find_bubblewrap(machine.environ)
    if program is None:
        raise ConfigError(
            f"run {record.namespace}/{record.name} was begun with bubblewrap, and {trouble}; see to that, or cancel it"
        )
    return program, ()


def _differences(run: AgentRun, *, strict: bool) -> tuple[str, ...]:
    """Where a cluster would do something else with this run."""
    if strict or run.runtime != "workflow":
        return ()
    told = []
    if any(step.loop and step.loop.condition for step in run.steps):
        told.append(
            f"the control file is read here; a cluster's controller reads the Job's annotation {ANNOTATION_CONTROL} "
            "alone, which nothing writes by itself"
        )
    if any(step.timeout for step in run.steps):
        told.append("an attempt that is out of time is ended here; on a cluster its Job runs on beside the next one")
    return tuple(told)


def _claims_of(run: AgentRun) -> list[str]:
    workloads: list[Workload | None] = [run.workload_of(step) for step in run.steps]
    every = [one for workload in [*workloads, run.workload] if workload for one in workload.volumes]
    return [one.claim_name for one in every if one.type == "pvc" and one.claim_name]


def _map(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
