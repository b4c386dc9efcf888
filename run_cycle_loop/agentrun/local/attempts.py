"""The attempts of one run: laid out, begun, watched and ended, each with the row that is stored of it."""

import contextlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from run_cycle_loop.agentrun.flags import ControllerFlags
from run_cycle_loop.agentrun.lifecycle.status import moment, stamp
from run_cycle_loop.agentrun.local import control_file, observation, processes, volumes
from run_cycle_loop.agentrun.local import mounts as container
from run_cycle_loop.agentrun.local.machine import AttemptPlan, Machine
from run_cycle_loop.agentrun.local.mounts import Mount
from run_cycle_loop.agentrun.local.places import Places
from run_cycle_loop.agentrun.local.pod import Pod, Secrets, assemble
from run_cycle_loop.agentrun.local.processes import AttemptProcess
from run_cycle_loop.agentrun.model import AgentRun, Step
from run_cycle_loop.agentrun.profiles import Profile
from run_cycle_loop.agentrun.rendering.jobs import attempt_objects
from run_cycle_loop.agentrun.rendering.prompts import is_codex, provider_of
from run_cycle_loop.agentrun.resources import Resources
from run_cycle_loop.kit import files
from run_cycle_loop.kit.process_tree import ProcessTree
from run_cycle_loop.kit.processes import LaunchError
from run_cycle_loop.model.enums import Urgency
from run_cycle_loop.model.errors import ConfigError, RunnerError
from run_cycle_loop.model.runs import AttemptRecord

COMMAND = "command.json"  #: of an attempt: the container's own command
MOST_LAUNCHES = 4  #: of one attempt: the first, and three after its process was lost
#: What an interpreter or the linker heeds: a container's are its workload's, and must not change our own runner.
_OF_INTERPRETERS = ("PYTHON", "LD_", "GLIBC_TUNABLES")
#: Between systemd and the caller alone, and what names the loop's own files.
_PRIVATE = frozenset(
    {"NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "MAINPID"}
    | {
        "RUN_CYCLE_CONTROL_FILE",
        "RUN_CYCLE_ITERATION",
        "RUN_CYCLE_MAX_ITERATIONS",
        "RUN_CYCLE_STEP",
        "RUN_CYCLE_ATTEMPT",
    }
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Subject:
    """Whose attempts they are."""

    run: AgentRun
    resources: Resources
    secrets: Secrets
    profile: Profile
    flags: ControllerFlags
    strict: bool
    bubblewrap: str | None  #: the program that makes the container's paths true; None: they are translated
    claims: Mapping[str, str]  #: folders by the claims' names


class Attempts:
    """The attempts of one run, by name.

    Args:
        subject: the run.
        machine: where it runs.
        known: what is stored of them.
        warn: told, in one sentence, what a person should know; each once.
    """

    def __init__(
        self, subject: Subject, machine: Machine, known: Sequence[AttemptRecord], warn: Callable[[str], None]
    ) -> None:
        self.records: dict[str, AttemptRecord] = {one.name: one for one in known}
        self.running: dict[str, AttemptProcess] = {}
        self._lost: set[str] = set()
        self._changed: dict[str, AttemptRecord] = {}
        self._subject = subject
        self._machine = machine
        self._warn = warn
        self._places = Places(state=machine.state)
        self._tree = ProcessTree()  # what we had before is nobody's remains

    # What is stored.

    def take_changed(self) -> tuple[AttemptRecord, ...]:
        """The rows that are to be stored; from now on they count as stored."""
        changed, self._changed = tuple(self._changed.values()), {}
        return changed

    @property
    def has_changed(self) -> bool:
        """Whether a row is to be stored."""
        return bool(self._changed)

    def add(self, step: Step, iteration: int | None, attempt: int, name: str) -> AttemptRecord:
        """The row of an attempt that is to be begun."""
        run = self._subject.run
        folder = self._places.attempt(run.namespace, run.name, name)
        record = AttemptRecord(
            name=name,
            step=step.index,
            iteration=iteration,
            attempt=attempt,
            folder=os.fspath(folder),
            started_at=stamp(self._machine.clock.now()),
        )
        self._put(record)
        return record

    def move_starts(self, by: timedelta) -> None:
        """Let the starts of attempts that are not over go with a wall clock that was set."""
        for record in [one for one in self.records.values() if not one.finished_at]:
            if (started := moment(record.started_at)) is not None:
                self._put(replace(record, started_at=stamp(started + by)))

    def _put(self, record: AttemptRecord) -> None:
        self.records[record.name] = self._changed[record.name] = record

    # Beginning.

    def begin(self, name: str, step: Step) -> bool:
        """Lay out and start an attempt whose row is stored; False where that failed, which its row says."""
        record = self.records[name]
        try:
            process = self._begun(record, step)
        except (OSError, ConfigError, RunnerError, LaunchError) as error:
            volumes.remove_secrets(Path(record.folder))
            what = (
                f"{error.filename}: {error.strerror}" if isinstance(error, OSError) and error.strerror else str(error)
            )
            code = error.exit_code if isinstance(error, LaunchError | RunnerError) else 126
            at = stamp(self._machine.clock.now())
            reason = observation.NOT_STARTED
            self._put(replace(record, finished_at=at, exit_code=code, reason=reason, message=f"attempt {name}: {what}"))
            return False
        self.running[name] = process
        self._put(replace(record, process=process.identity))
        return True

    def _begun(self, record: AttemptRecord, step: Step) -> AttemptProcess:
        folder = Path(record.folder)
        files.make_folder(folder)
        files.unlink_quietly(folder / ".agent" / "status.json")  # of a try whose process was lost
        files.unlink_quietly(folder / ".agent" / control_file.ANNOTATION)
        pod = self._pod(record, step)
        for sentence in pod.warnings:
            self._warn(sentence)
        volumes.lay_out(pod)
        files.replace_file(folder / COMMAND, json.dumps(pod.command).encode())
        condition = step.loop.condition if step.loop else None
        if condition is not None:
            control_file.take_away(condition.path, pod.mounts, folder)
        plan = AttemptPlan(
            name=record.name,
            folder=folder,
            spec=folder / "agent-runner.json",
            env=self._environment(record, step, pod),
        )
        argv = self._machine.launch(plan)
        return processes.begin(argv, plan.env, self.mark(record), folder / "attempt.log")

    def _pod(self, record: AttemptRecord, step: Step) -> Pod:
        subject = self._subject
        objects = attempt_objects(
            subject.run,
            step if step.index else None,
            iteration=record.iteration,
            attempt=record.attempt,
            resources=subject.resources,
            profile=subject.profile,
            flags=subject.flags,
        )
        return assemble(
            objects,
            subject.resources,
            subject.secrets,
            folder=record.folder,
            claims=subject.claims,
            true_paths=subject.bubblewrap is not None,
        )

    def _environment(self, record: AttemptRecord, step: Step, pod: Pod) -> dict[str, str]:
        """The caller's variables, over them the container's, over them what only attempts of this machine are told."""
        caller = self._machine.environ
        # A manifest does not say what this product's own programs are told: consent is among it.
        given = {name: value for name, value in pod.env.items() if not name.startswith("RUN_CYCLE_")}
        held = {name: value for name, value in given.items() if name.startswith(_OF_INTERPRETERS)}
        env = {name: value for name, value in caller.items() if name not in _PRIVATE}
        env |= {name: value for name, value in given.items() if name not in held}
        listed = caller.get("RUN_CYCLE_SECRET_ENV", "")
        told = {
            container.VARIABLE: container.write_mounts(pod.mounts),
            "RUN_CYCLE_BWRAP": self._subject.bubblewrap or "",
            "RUN_CYCLE_WORKLOAD_ENV": json.dumps(held) if held else "",
            "RUN_CYCLE_HIDDEN": os.fspath(self._machine.state),
            "RUN_CYCLE_GRACE": f"{self._machine.grace:g}",
            "RUN_CYCLE_SECRET_ENV": " ".join(filter(None, (listed, *pod.secret_variables))),
            "RUN_CYCLE_ATTEMPT": str(record.attempt),
            "RUN_CYCLE_COMMAND": os.fspath(Path(record.folder) / COMMAND) if self._is_plain() else "",
        }
        if step.index:
            told["RUN_CYCLE_STEP"] = step.name
        if step.loop is not None and record.iteration is not None:
            told |= {
                "RUN_CYCLE_ITERATION": str(record.iteration),
                "RUN_CYCLE_MAX_ITERATIONS": str(step.loop.max_iterations),
            }
        if step.loop is not None and step.loop.condition is not None:
            told["RUN_CYCLE_CONTROL_FILE"] = self._as_seen(step.loop.condition.path, pod.mounts)
        return env | told

    def _is_plain(self) -> bool:
        """Whether the container's own command is the workload, and no runner that reads the spec."""
        _, provider = provider_of(self._subject.run, self._subject.resources)
        return not is_codex(provider) and not isinstance(provider.get("adapter"), Mapping)

    def _as_seen(self, path: str, mounts: Sequence[Mount]) -> str:
        here = container.translate(path, mounts)
        if here is None:
            self._warn(f"the control file {path} lies in no volume of the step: whatever is written there is lost")
        return path if here is None or self._subject.bubblewrap else here

    def mark(self, record: AttemptRecord) -> str:
        """What all processes of an attempt carry."""
        return f"{self._subject.run.uid}/{record.name}"

    # Watching.

    def collect(self) -> list[AttemptRecord]:
        """The attempts that have ended since the last look, with their ends."""
        ended = [name for name, process in self.running.items() if process.has_ended()]
        return [self.records[name] for name in ended if self._collected(name)]

    def _collected(self, name: str) -> bool:
        process = self.running.pop(name)
        survivors = process.kill()
        code, record = process.exit_code, self.records[name]
        process.close()
        self._sweep()
        if survivors:
            self._warn(f"{survivors} processes of attempt {name} cannot be ended; see what they wait for")
        return self._conclude(record, code)

    def _conclude(self, record: AttemptRecord, code: int | None) -> bool:
        """Note the end of an attempt; False where nobody knows it: then it is to be made again.

        An attempt that was ended from outside while no engine watched counts as lost, not as failed.
        """
        folder = Path(record.folder)
        volumes.remove_secrets(folder)
        status = observation.runner_status(folder)
        if code is None:
            if status is None or status.get("status") == observation.CANCELLED:
                return self._conclude_lost(record)
            code = observation.exit_code_in(status)
        at = stamp(self._machine.clock.now())
        scan = self._subject.profile.traits.provider_failures_final
        self._put(observation.finished(record, code, status, at, provider_failures=scan))
        return True

    def _conclude_lost(self, record: AttemptRecord) -> bool:
        if record.launches < MOST_LAUNCHES:
            self._lost.add(record.name)
            return False
        at = stamp(self._machine.clock.now())
        message = f"attempt {record.name} was lost {record.launches} times: its process ended and said nothing"
        self._put(replace(record, finished_at=at, reason=observation.LOST, message=message))
        return True

    def _sweep(self) -> None:
        """End what escaped from its runner: with none running, every descendant of ours is a remainder."""
        if not self.running and not self._tree.is_empty():
            self._tree.kill()

    # After a crash.

    def take_stock(self, current: frozenset[str]) -> list[AttemptRecord]:
        """Find again what an earlier engine began; ``current`` are the names that the status still waits for.

        Returns the attempts that turned out to be over.
        """
        over = []
        for record in [one for one in self.records.values() if not one.finished_at]:
            process = processes.find_again(record.process, self.mark(record))
            if process is not None:
                self.running[record.name] = process
                if record.process is None:
                    self._put(replace(record, process=process.identity))
                if record.name not in current and not self._subject.strict:
                    self.stop(record.name, "Superseded", "another attempt took its place")
                continue
            processes.end_remains(record.process, self.mark(record), processes.workload_in(Path(record.folder)))
            volumes.remove_secrets(Path(record.folder))  # nobody uses them; who makes it again gets them anew
            if record.name not in current:
                self._put(replace(record, finished_at=stamp(self._machine.clock.now()), reason="Superseded"))
            elif self._conclude(record, None):
                over.append(self.records[record.name])
        return over

    def take_lost(self) -> list[AttemptRecord]:
        """The attempts that are to be made again, each with one more launch in its row."""
        lost, self._lost = sorted(self._lost), set()
        for name in lost:
            record = self.records[name]
            at = stamp(self._machine.clock.now())
            self._put(replace(record, launches=record.launches + 1, process=None, started_at=at))
        return [self.records[name] for name in lost]

    # Ending.

    def stop(self, name: str, reason: str, message: str) -> None:
        """End an attempt and everything it started."""
        process = self.running.pop(name, None)
        if process is None:
            return
        survivors = process.end(self._machine.grace, self._is_urgent)
        code = process.exit_code
        process.close()
        self._sweep()
        if survivors:
            self._warn(f"{survivors} processes of attempt {name} cannot be ended; see what they wait for")
        volumes.remove_secrets(Path(self.records[name].folder))
        at = stamp(self._machine.clock.now())
        self._put(replace(self.records[name], finished_at=at, exit_code=code, reason=reason, message=message))

    def stop_all(self, reason: str, message: str) -> None:
        """End all of them."""
        for name in list(self.running):
            self.stop(name, reason, message)

    def abandon(self) -> None:
        """End all of them without a word in their rows, where nothing can be stored: a resumed run makes them again."""
        for name in list(self.running):
            with contextlib.suppress(OSError):
                process = self.running.pop(name)
                process.end(self._machine.grace, self._is_urgent)
                process.close()
        self._sweep()

    def _is_urgent(self) -> bool:
        request = self._machine.stop.requested()
        return request is not None and request.urgency >= Urgency.KILL

    # What is seen.

    def runner_says(self, name: str) -> Mapping[str, Any]:
        """The runner's own status of an attempt."""
        return observation.runner_status(Path(self.records[name].folder)) or {}

    def mounts_of(self, name: str, step: Step) -> tuple[Mount, ...]:
        """The mounts that an attempt had."""
        return self._pod(self.records[name], step).mounts
