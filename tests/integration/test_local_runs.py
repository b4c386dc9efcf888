"""Runs on this machine, with real processes: how they end, what survives a crash, what is kept apart."""

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from run_cycle_loop.agentrun.flags import LOCAL
from run_cycle_loop.agentrun.lifecycle.status import RunStatus
from run_cycle_loop.agentrun.local.machine import Machine, Transition
from run_cycle_loop.agentrun.local.runs import is_driven, request_cancel, resume
from run_cycle_loop.agentrun.profiles import Profile
from run_cycle_loop.kit.clock import SystemClock
from run_cycle_loop.model.enums import Urgency
from run_cycle_loop.model.errors import AlreadyRunning, ConfigError, StateError
from run_cycle_loop.model.runs import RunKind
from run_cycle_loop.stores.runs import FILE_NAME, SqliteRunStore
from run_cycle_loop.testing import FakeClock, FakeStop, InMemoryRuns
from tests.faults.lab import is_running, wait_until
from tests.integration.local_runs import NAMESPACE, conditional, document, machine_at, manifest, run_documents

pytestmark = pytest.mark.usefixtures("adopting")

SAY = 'mkdir -p /workspace/.agentrun; say() { echo "$1" > "$RUN_CYCLE_CONTROL_FILE"; }; '
COUNT = "echo ${RUN_CYCLE_ITERATION:-1} >> /workspace/ran; "


class House:
    """A state directory in which runs are carried out, in this process or in one of their own."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.state = root / "state"
        self.told: list[Transition] = []
        self.clock = FakeClock(datetime.now(UTC))
        self.stop = FakeStop(self.clock)
        self.store = SqliteRunStore(self.state / FILE_NAME)
        self.children: list[subprocess.Popen[str]] = []

    def machine(self, **changes: Any) -> Machine:
        known = {"store": self.store, "stop": self.stop, "clock": self.clock, "report": self.told.append}
        return machine_at(self.state, **known | changes)

    def run(
        self,
        documents: list[dict[str, Any]],
        *,
        strict: bool = False,
        profile: Profile = Profile.GUIDE,
        **changes: Any,
    ) -> RunStatus:
        return run_documents(documents, self.machine(**changes), strict=strict, profile=profile)

    def start(self, what: str, subject: str | list[dict[str, Any]], *options: str) -> subprocess.Popen[str]:
        """The same in a process of its own."""
        if not isinstance(subject, str):
            path = self.root / "bundle.json"
            path.write_text(json.dumps(subject))
            subject = str(path)
        argv = [sys.executable, "-m", "tests.integration.local_runs", what, str(self.state), subject, *options]
        root = Path(__file__).resolve().parents[2]
        with (self.root / f"out-{len(self.children)}").open("w") as out:
            child = subprocess.Popen(argv, cwd=root, stdout=out, stderr=out, text=True, start_new_session=True)
        self.children.append(child)
        return child

    def output(self, number: int = -1) -> str:
        return (self.root / f"out-{number % len(self.children)}").read_text()

    def finish(self, what: str, subject: str, *options: str) -> int:
        return self.start(what, subject, *options).wait(60)

    def folder(self, name: str = "demo") -> Path:
        return self.state / "agentruns" / NAMESPACE / name

    def attempt(self, suffix: str, name: str = "demo") -> Path:
        return self.folder(name) / "attempts" / f"{name}-{suffix}"

    def claim(self, name: str = "work") -> Path:
        return self.state / "volumes" / NAMESPACE / name

    def ran(self) -> list[str]:
        path = self.claim() / "ran"
        return path.read_text().split() if path.exists() else []

    def pids(self) -> list[int]:
        path = self.claim() / "pids"
        return [int(pid) for pid in path.read_text().split()] if path.exists() else []

    def status(self, name: str = "demo") -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder(name) / "status.json").read_text())
        return found

    def attempts(self, name: str = "demo") -> dict[str, Any]:
        record = self.store.find(RunKind.AGENTRUN, NAMESPACE, name=name)
        assert record is not None
        return {one.name.removeprefix(f"{name}-"): one for one in self.store.attempts(record)}

    def kinds(self) -> list[str]:
        return [one.kind for one in self.told]

    def warnings(self) -> str:
        return "\n".join(str(one.facts["message"]) for one in self.told if one.kind == "warning")

    def await_file(self, name: str) -> Path:
        path = self.claim() / name
        wait_until(lambda: path.exists() and path.stat().st_size > 0, f"a file {name}")
        return path

    def pid_in(self, name: str) -> int:
        return int(self.await_file(name).read_text())


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    made = House(tmp_path)
    yield made
    for child in made.children:
        with contextlib.suppress(ProcessLookupError):
            child.kill()
        child.wait()
    with contextlib.suppress(StateError):  # a test closes it
        for run in list(made.store.runs(RunKind.AGENTRUN, unfinished=True)):
            request_cancel(run.namespace, run.name, "the test is over", flags=LOCAL, machine=made.machine(grace=0.1))
    made.store.close()


def loop_of(status: RunStatus) -> Any:
    assert status.steps[0].loop is not None
    return status.steps[0].loop


# How loops end.

ENDINGS: dict[str, tuple[str, dict[str, Any], tuple[str, str, str, int, Any]]] = {
    "count": ("true", {"maxIterations": 3}, ("Succeeded", "", "LoopMaxIterationsReached", 3, None)),
    "true, then false": (
        SAY + 'test $RUN_CYCLE_ITERATION = 1 && say \'{"continue": true, "n": 1}\' || say \'{"continue": false}\'',
        conditional(),
        ("Succeeded", "", "LoopConditionFalse", 2, {"continue": False}),
    ),
    "always true": (
        SAY + "say '{\"continue\": true}'",
        conditional(2),
        ("Succeeded", "", "LoopMaxIterationsReached", 2, {"continue": True}),
    ),
    "missing, stop": ("true", conditional(), ("Succeeded", "", "LoopConditionFalse", 1, None)),
    "missing, fail": (
        "true",
        conditional(onMissing="fail"),
        ("Failed", "WorkflowLoopConditionError", "LoopConditionError", 1, None),
    ),
    "invalid, fail": (
        SAY + "say nonsense",
        conditional(),
        ("Failed", "WorkflowLoopConditionError", "LoopConditionError", 1, None),
    ),
    "invalid, stop": (
        SAY + "say '[1]'",
        conditional(onInvalid="stop"),
        ("Succeeded", "", "LoopConditionFalse", 1, None),
    ),
    "an error in the condition": (
        SAY + "say '{}'",
        conditional(onInvalid="stop"),
        ("Failed", "WorkflowLoopConditionError", "LoopConditionError", 1, {}),
    ),
    "numbers are doubles": (
        SAY + "say '{\"left\": 3}'",
        conditional(expression="iteration.index + 1 < iteration.last.control.left"),
        ("Failed", "WorkflowLoopConditionError", "LoopConditionError", 1, {"left": 3}),
    ),
    "a failed iteration": (
        "test $RUN_CYCLE_ITERATION = 1",
        {"maxIterations": 3},
        ("Failed", "BackoffLimitExceeded", "LoopIterationFailed", 1, None),
    ),
}


@pytest.mark.parametrize("case", ENDINGS)
def test_a_loop_ends_for_its_reason(house: House, case: str) -> None:
    script, loop, (phase, reason, stop, completed, control) = ENDINGS[case]
    status = house.run(manifest(COUNT + script, loop=loop))
    found = loop_of(status)
    assert (status.phase, status.reason, found.stop, found.completed, found.last_control) == (
        phase,
        reason,
        stop,
        completed,
        control,
    )
    assert house.ran() == [str(number) for number in range(1, len(found.iterations) + 1)]
    assert house.status()["workflow"]["steps"][0]["loop"]["stopReason"] == stop
    record = house.store.find(RunKind.AGENTRUN, NAMESPACE, name="demo")
    assert record is not None
    assert (record.is_final, record.phase, record.status) == (True, phase, house.status())
    assert house.kinds()[-1] == "run.finished"


def test_steps_come_one_after_the_other_and_the_second_needs_the_first(house: House) -> None:
    documents = manifest("echo $RUN_CYCLE_STEP >> /workspace/ran; test $RUN_CYCLE_STEP != second")
    run = next(one for one in documents if one["kind"] == "AgentRun")
    run["spec"]["workflow"]["steps"] = [{"name": name} for name in ("first", "second", "third")]
    status = house.run(documents)
    assert house.ran() == ["first", "second"]
    assert [step.phase for step in status.steps] == ["Succeeded", "Failed", "Pending"]


# Retries and time limits.


def test_a_retry_comes_after_its_pause_and_under_its_own_number(house: House) -> None:
    script = "test -e /workspace/once || { touch /workspace/once; exit 7; }"
    status = house.run(manifest(script, step={"retries": 2, "retryBackoffSeconds": 30}))
    assert status.phase == "Succeeded"
    assert sum(house.stop.waits) == pytest.approx(30, abs=0.01)
    attempts = house.attempts()
    assert {name: one.exit_code for name, one in attempts.items()} == {"step-1-attempt-1": 7, "step-1-attempt-2": 0}
    assert attempts["step-1-attempt-1"].message == "the command ended with exit code 7"


def test_retries_run_out(house: House) -> None:
    status = house.run(manifest("echo x >> /workspace/ran; exit 4", step={"retries": 2}))
    assert (status.phase, status.reason, len(house.ran())) == ("Failed", "BackoffLimitExceeded", 3)
    assert status.message == "workflow step implement: the command ended with exit code 4"


HOSTILE = """
trap '' TERM
python3 -c '
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        open("/workspace/daemon", "w").write(str(os.getpid()))
        os.execve("/bin/sleep", ["sleep", "600"], {})
time.sleep(600)
' &
echo $$ > /workspace/leader
wait; sleep 600
"""


def test_an_attempt_out_of_time_is_ended_with_all_it_started_and_tried_again(house: House) -> None:
    script = f"test -e /workspace/daemon && exit 0\n{HOSTILE}"
    status = house.run(manifest(script, step={"retries": 1, "timeoutSeconds": 1}), clock=SystemClock(), grace=0.5)
    assert status.phase == "Succeeded"
    first = house.attempts()["step-1-attempt-1"]
    assert (first.reason, first.exit_code != 0) == ("WorkflowStepTimedOut", True)
    assert not is_running(house.pid_in("daemon"))
    assert "is out of time is ended here" in house.warnings()


def test_the_last_attempt_out_of_time_fails_the_run(house: House) -> None:
    status = house.run(manifest("sleep 600", step={"timeoutSeconds": 1}), clock=SystemClock())
    assert (status.phase, status.reason) == ("Failed", "WorkflowStepTimedOut")
    assert (
        json.loads((house.attempt("step-1-attempt-1") / ".agent" / "status.json").read_text())["status"] == "cancelled"
    )


def test_a_strict_run_lets_an_attempt_out_of_time_run_on_until_it_is_over(house: House) -> None:
    script = (
        "test -e /workspace/pid || { echo $$ > /workspace/pid; sleep 600; }; ps -p $(cat /workspace/pid) >/dev/null"
    )
    status = house.run(
        manifest(script, step={"retries": 1, "timeoutSeconds": 1}), strict=True, clock=SystemClock(), grace=0.5
    )
    assert status.phase == "Succeeded"  # the second attempt saw the first one alive
    assert not is_running(house.pid_in("pid"))
    assert "runs on beside its successor" in house.warnings()


class _SetClock(FakeClock):
    """Real time, and a wall clock that was wrong until somebody set it, of which a file is the sign."""

    def __init__(self, sign: Path, wrong: float) -> None:
        super().__init__()
        self._real, self._sign, self._wrong = SystemClock(), sign, wrong

    def now(self) -> datetime:
        """The wall clock."""
        return self._real.now() + timedelta(seconds=0 if self._sign.exists() else self._wrong)

    def monotonic(self) -> float:
        """Seconds."""
        return self._real.monotonic()


@pytest.mark.parametrize("wrong", [-25, 25])
def test_a_clock_that_is_set_changes_no_time_limit(house: House, wrong: int) -> None:
    script = "touch /workspace/set; test -e /workspace/once && exit 0; sleep 1; touch /workspace/once; sleep 600"
    step = {"retries": 1, "timeoutSeconds": 3}
    began = time.monotonic()
    status = house.run(manifest(script, step=step), clock=_SetClock(house.claim() / "set", wrong))
    assert (status.phase, 3 <= time.monotonic() - began < 20) == ("Succeeded", True)
    assert house.attempts()["step-1-attempt-1"].reason == "WorkflowStepTimedOut"


@pytest.mark.parametrize("seconds", [-3600, 3600])
def test_a_clock_that_is_set_changes_no_pause(house: House, seconds: int) -> None:
    script = "test -e /workspace/once || { touch /workspace/once; exit 7; }"
    house.stop.after(5, lambda: house.clock.step_wall(seconds))
    status = house.run(manifest(script, step={"retries": 1, "retryBackoffSeconds": 30}))
    assert status.phase == "Succeeded"
    assert sum(house.stop.waits) == pytest.approx(30, abs=1)


@pytest.mark.parametrize("wrong", [-25, 25])
def test_what_an_attempt_left_is_heard_although_the_clock_was_set_meanwhile(house: House, wrong: int) -> None:
    script = f"{SAY}touch /workspace/set; sleep 0.5; say '{{\"continue\": false}}'"
    status = house.run(manifest(script, loop=conditional()), clock=_SetClock(house.claim() / "set", wrong))
    assert loop_of(status).last_control == {"continue": False}


def test_what_an_attempt_printed_cannot_drive_a_terminal(house: House) -> None:
    house.run(manifest("printf '\\033]0;title\\007\\033[2Jhello\\n'"))
    master, slave = os.openpty()
    argv = [sys.executable, "-m", "run_cycle_loop", "agentrun", "logs", "demo", "--state-dir", str(house.state)]
    root = Path(__file__).resolve().parents[2]
    try:
        subprocess.run(argv, cwd=root, stdout=slave, stderr=subprocess.DEVNULL, check=True, timeout=60)
        assert os.read(master, 4096) == b"hello\r\n"
        piped = subprocess.run(argv, cwd=root, capture_output=True, check=True, timeout=60)
        assert piped.stdout == b"\x1b]0;title\x07\x1b[2Jhello\n"
    finally:
        os.close(master)
        os.close(slave)


# The control file.


def test_a_control_file_of_the_iteration_before_is_not_heard(house: House) -> None:
    script = SAY + "test $RUN_CYCLE_ITERATION = 1 && say '{\"continue\": true}'; true"
    status = house.run(manifest(script, loop=conditional()))
    found = loop_of(status)
    assert (found.completed, found.stop, found.last_control) == (2, "LoopConditionFalse", None)
    kept = house.attempt("step-1-iter-2-attempt-1") / "previous-control.json"
    assert json.loads(kept.read_text()) == {"continue": True}


def test_a_control_file_from_before_the_run_is_not_heard(house: House) -> None:
    house.claim().mkdir(parents=True)
    (house.claim() / ".agentrun").mkdir()
    (house.claim() / ".agentrun" / "loop-control.json").write_text('{"continue": true}')
    assert loop_of(house.run(manifest("true", loop=conditional()))).completed == 1


def test_an_old_control_file_that_is_brought_back_is_not_heard(house: House) -> None:
    script = SAY + "say '{\"continue\": true}'; touch -d '2 days ago' $RUN_CYCLE_CONTROL_FILE"
    assert loop_of(house.run(manifest(script, loop=conditional()))).last_control is None


def test_a_claim_of_another_file_system_has_its_control_file_moved_away_too(house: House) -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as other:
        if Path(other).stat().st_dev == house.state.stat().st_dev:
            pytest.skip("there is one file system only")
        house.claim().parent.mkdir(parents=True)
        house.claim().symlink_to(other)
        script = SAY + "test $RUN_CYCLE_ITERATION = 1 && say '{\"continue\": true}'; true"
        assert loop_of(house.run(manifest(script, loop=conditional()))).completed == 2
        kept = house.attempt("step-1-iter-2-attempt-1") / "previous-control.json"
        assert json.loads(kept.read_text()) == {"continue": True}


@pytest.mark.parametrize(
    ("mount", "path"), [("//workspace", "/workspace/c.json"), ("/workspace", "//workspace//c.json")]
)
def test_a_path_with_slashes_too_many_is_the_same_place(house: House, mount: str, path: str) -> None:
    volume = {"name": "workspace", "type": "pvc", "claimName": "work", "mountPath": mount}
    script = "test $RUN_CYCLE_ITERATION = 3 || echo '{\"continue\": true}' > /workspace/c.json"
    given = manifest(script, loop=conditional(path=path), run={"workload": {"volumes": [volume]}})
    assert loop_of(house.run(given)).completed == 3


PLANTS = {
    "a pipe": "mkfifo $F",
    "a link": "ln -s /workspace/true.json $F",
    "a folder": "mkdir $F",
    "a link on the way": "rmdir /workspace/.agentrun; cd /workspace; mkdir d; cp true.json d/loop-control.json;"
    " ln -s d .agentrun",
    "too large": "head -c 300000 /dev/zero | tr '\\0' ' ' > $F; echo '{}' >> $F",
    "no text": 'printf \'{"a": "\\377"}\' > $F',
}


@pytest.mark.parametrize("plant", PLANTS)
def test_what_is_no_plain_control_file_is_invalid(house: House, plant: str) -> None:
    script = SAY + "F=$RUN_CYCLE_CONTROL_FILE; echo '{\"continue\": true}' > /workspace/true.json; " + PLANTS[plant]
    status = house.run(manifest(script, loop=conditional()))
    assert (status.reason, loop_of(status).last_control) == ("WorkflowLoopConditionError", None)


def test_a_strict_run_hears_the_annotation_alone(house: House) -> None:
    path = "/workspace/.agent/loop-control.annotation.json"
    script = (
        SAY + "say '{\"continue\": true}'; "
        "test $RUN_CYCLE_ITERATION = 3 || "
        'echo "{\\"/workspace/.agentrun/loop-control.json\\": {\\"continue\\": true}}" > ' + path
    )
    status = house.run(manifest(script, loop=conditional()), strict=True)
    assert (loop_of(status).completed, loop_of(status).stop) == (3, "LoopConditionFalse")


# Crashes.

WAITING = COUNT + "echo $$ > /workspace/pid; while ! test -e /workspace/go; do sleep 0.02; done"


def crash(house: House, script: str = WAITING, **how: Any) -> None:
    """An engine that is killed while its first attempt runs."""
    engine = house.start("run", manifest(script, **how))
    house.await_file("pid")
    engine.kill()
    engine.wait()


def test_a_running_attempt_is_adopted_by_the_next_engine(house: House) -> None:
    crash(house, loop={"maxIterations": 2})
    pid = house.pid_in("pid")
    engine = house.start("resume", "demo")
    wait_until(lambda: "attempt.adopted" in house.output(), "the adoption")
    assert is_running(pid)
    (house.claim() / "go").touch()
    assert engine.wait(60) == 0
    assert house.ran() == ["1", "2"]
    assert {one.launches for one in house.attempts().values()} == {1}


def test_an_attempt_that_ended_meanwhile_is_taken_as_it_ended(house: House) -> None:
    crash(house, loop={"maxIterations": 2})
    (house.claim() / "go").touch()
    status = house.attempt("step-1-iter-1-attempt-1") / ".agent" / "status.json"
    wait_until(status.exists, "the runner's status")
    assert house.finish("resume", "demo") == 0
    assert house.ran() == ["1", "2"]


def test_an_attempt_that_failed_meanwhile_is_a_failure(house: House) -> None:
    crash(house, WAITING + "; exit 9")
    (house.claim() / "go").touch()
    status = house.attempt("step-1-attempt-1") / ".agent" / "status.json"
    wait_until(status.exists, "the runner's status")
    assert resume(NAMESPACE, "demo", flags=LOCAL, machine=house.machine()).phase == "Failed"
    assert house.attempts()["step-1-attempt-1"].exit_code == 9


def lose(house: House) -> None:
    """Kill the runner, but not what it started: the remains must be found."""
    pid = house.attempts()[min(house.attempts())].process.pid
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not is_running(pid), "the runner's end")


def test_a_lost_attempt_is_made_again_under_its_number(house: House) -> None:
    crash(house, loop={"maxIterations": 2})
    left = house.pid_in("pid")
    lose(house)
    (house.claim() / "pid").unlink()
    engine = house.start("resume", "demo")
    house.await_file("pid")
    assert not is_running(left)
    (house.claim() / "go").touch()
    assert engine.wait(60) == 0
    assert house.ran() == ["1", "1", "2"]
    assert {name: one.launches for name, one in house.attempts().items()} == {
        "step-1-iter-1-attempt-1": 2,
        "step-1-iter-2-attempt-1": 1,
    }


def test_a_lost_attempt_that_cleared_its_variables_is_ended_before_it_is_made_again(house: House) -> None:
    script = "test -e pid && exit 0; exec env -i /bin/sh -c 'echo $$ > pid.new; mv pid.new pid; exec /bin/sleep 600'"
    engine = house.start("run", manifest(script), "--isolate", "none")
    pid = house.pid_in("pid")
    engine.kill()
    engine.wait()
    process = house.attempts()["step-1-attempt-1"].process
    assert process is not None
    os.kill(process.pid, signal.SIGKILL)
    assert resume(NAMESPACE, "demo", flags=LOCAL, machine=house.machine()).phase == "Succeeded"
    assert not is_running(pid)


def test_an_attempt_that_is_lost_again_and_again_fails(house: House) -> None:
    crash(house)
    for _ in range(3):
        lose(house)
        (house.claim() / "pid").unlink()
        engine = house.start("resume", "demo")
        house.await_file("pid")
        engine.kill()
        engine.wait()
    lose(house)
    status = resume(NAMESPACE, "demo", flags=LOCAL, machine=house.machine())
    assert (status.phase, status.reason) == ("Failed", "AttemptLost")
    assert len(house.ran()) == 4


def test_the_time_limit_of_an_adopted_attempt_counts_from_its_start(house: House) -> None:
    crash(house, step={"timeoutSeconds": 1})
    pid = house.pid_in("pid")
    machine = house.machine(clock=SystemClock())
    assert resume(NAMESPACE, "demo", flags=LOCAL, machine=machine).reason == "WorkflowStepTimedOut"
    assert not is_running(pid)


def test_a_run_that_is_over_stays_as_it_is(house: House) -> None:
    house.run(manifest(COUNT))
    assert resume(NAMESPACE, "demo", flags=LOCAL, machine=house.machine()).phase == "Succeeded"
    assert len(house.ran()) == 1
    with pytest.raises(ConfigError, match="use another name"):
        house.run(manifest(COUNT))
    with pytest.raises(ConfigError, match="there is no run agents/other"):
        resume(NAMESPACE, "other", flags=LOCAL, machine=house.machine())


# Ends from outside.


def test_a_request_of_another_process_cancels_a_run(house: House) -> None:
    engine = house.start("run", manifest(HOSTILE, loop={"maxIterations": 2}))
    daemon = house.pid_in("daemon")
    record = request_cancel(NAMESPACE, "demo", "enough", flags=LOCAL, machine=house.machine())
    assert record.cancel_reason == "enough"
    assert engine.wait(60) == 1
    status = house.status()
    assert (status["phase"], status["reason"], status["message"]) == ("Cancelled", "RunCancelled", "enough")
    assert status["workflow"]["steps"][0]["loop"]["stopReason"] == "LoopCancelled"
    assert not is_running(daemon)


def test_a_run_without_an_engine_is_cancelled_by_who_asks(house: House) -> None:
    crash(house)
    pid = house.pid_in("pid")
    assert not is_driven(house.machine(), NAMESPACE, "demo")
    record = request_cancel(NAMESPACE, "demo", "enough", flags=LOCAL, machine=house.machine())
    assert (record.phase, record.is_final) == ("Cancelled", True)
    assert not is_running(pid)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_cancels_a_run(house: House, number: int) -> None:
    engine = house.start("run", manifest(WAITING, loop={"maxIterations": 2}))
    pid = house.pid_in("pid")
    assert is_driven(house.machine(), NAMESPACE, "demo")
    engine.send_signal(number)
    assert engine.wait(60) == 1
    status = house.status()
    assert (status["phase"], status["reason"]) == ("Cancelled", "RunnerStopped")
    assert status["workflow"]["steps"][0]["loop"]["stopReason"] == "LoopCancelled"
    assert not is_running(pid)


def test_a_stop_between_attempts_cancels_a_run(house: House) -> None:
    house.stop.after(5, house.stop.ask)
    status = house.run(manifest("exit 1", step={"retries": 1, "retryBackoffSeconds": 60}))
    assert (status.phase, status.reason) == ("Cancelled", "RunnerStopped")


def test_a_mild_stop_is_not_heeded_where_the_caller_says_so(house: House) -> None:
    house.stop.ask()
    assert house.run(manifest("true"), heeds=Urgency.NOW).phase == "Succeeded"


# More than one.


def test_a_second_engine_of_a_run_is_refused(house: House) -> None:
    house.start("run", manifest(WAITING))
    house.await_file("pid")
    with pytest.raises(AlreadyRunning, match="run agents/demo is driven by another process"):
        resume(NAMESPACE, "demo", flags=LOCAL, machine=house.machine())
    with pytest.raises(AlreadyRunning, match="run agents/demo is driven by another process"):
        house.run(manifest(WAITING))


@pytest.mark.parametrize("is_driven_now", [True, False])
def test_a_claim_of_one_writer_is_kept_from_other_runs(house: House, is_driven_now: bool) -> None:
    if is_driven_now:
        house.start("run", manifest(WAITING))
        house.await_file("pid")
    else:
        crash(house)
    with pytest.raises(AlreadyRunning, match="claim work allows one writer and belongs to run agents/demo"):
        house.run(manifest("true", "other"))
    assert house.store.find(RunKind.AGENTRUN, NAMESPACE, name="other") is None
    request_cancel(NAMESPACE, "demo", "enough", flags=LOCAL, machine=house.machine(grace=0.1))
    for child in house.children:
        child.wait(60)
    assert house.run(manifest("true", "other")).phase == "Succeeded"


def test_a_claim_of_many_writers_is_shared(house: House) -> None:
    claim = document("PersistentVolumeClaim", "work", {"accessModes": ["ReadWriteMany"]})
    house.start("run", manifest(WAITING, more=[claim]))
    house.await_file("pid")
    assert house.run(manifest("touch /workspace/go", "other", more=[claim])).phase == "Succeeded"
    assert house.children[0].wait(60) == 0


def test_a_claim_outlives_its_run_and_goes_to_the_next(house: House) -> None:
    house.run(manifest("echo kept > /workspace/ran"))
    house.run(manifest("grep kept /workspace/ran", "next"))
    assert house.status("next")["phase"] == "Succeeded"


# What cannot be stored.


@pytest.mark.parametrize("after", range(4))
def test_a_store_that_fails_ends_what_runs_and_a_resumption_makes_it_good(house: House, after: int) -> None:
    store = _Failing(after)
    script = COUNT + "echo $$ >> /workspace/pids; test -e /workspace/go || sleep 600"
    machine = house.machine(store=store)
    with pytest.raises(StateError):
        run_documents(manifest(script), machine, strict=False, profile=Profile.GUIDE)
    assert not [one for one in house.pids() if is_running(one)]
    store.mend()
    house.claim().mkdir(parents=True, exist_ok=True)
    (house.claim() / "go").touch()
    if store.find(RunKind.AGENTRUN, NAMESPACE, name="demo") is None:
        return  # it was not even begun
    assert resume(NAMESPACE, "demo", flags=LOCAL, machine=machine).phase == "Succeeded"


def test_a_verdict_that_cannot_be_stored_is_not_lost_and_nothing_runs_twice(house: House) -> None:
    store = _Failing(4)
    machine = house.machine(store=store)
    with pytest.raises(StateError):
        run_documents(manifest(COUNT + "exit 5"), machine, strict=False, profile=Profile.GUIDE)
    store.mend()
    status = resume(NAMESPACE, "demo", flags=LOCAL, machine=machine)
    assert (status.phase, status.message) == ("Failed", "workflow step implement: the command ended with exit code 5")
    assert house.ran() == ["1"]


def test_a_verdict_that_cannot_be_stored_leaves_the_secrets_to_who_resumes(house: House) -> None:
    store = _Failing(4)
    machine = house.machine(store=store)
    given = manifest(COUNT + "exit 5", run={"secrets": ["env"]}, more=[secret("env", PLAIN=CANARY)])
    with pytest.raises(StateError):
        run_documents(given, machine, strict=False, profile=Profile.GUIDE)
    store.mend()
    assert resume(NAMESPACE, "demo", flags=LOCAL, machine=machine).phase == "Failed"
    assert house.ran() == ["1"]
    assert not (house.folder() / "secrets.json").exists()


class _Failing(InMemoryRuns):
    """A store whose disk is full after so many writes, until it is mended."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self._room = after

    def _may_fail(self, what: str) -> None:
        if self._room == 0:
            raise StateError(f"{what} cannot be written: No space left on device; free space")
        self._room -= 1

    def mend(self) -> None:
        self._room = 1000


@pytest.mark.parametrize("look", ["status demo", "list", "run --resume demo"])
def test_the_file_of_the_run_store_is_whole_when_a_command_is_over(house: House, look: str) -> None:
    bundle, state = house.root / "given.json", house.root / "another"
    bundle.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": manifest("true")}))
    for command in (f"run -f {bundle}", look):
        argv = [sys.executable, "-m", "run_cycle_loop", "agentrun", *command.split(), "--state-dir", str(state)]
        subprocess.run(argv, cwd=Path(__file__).resolve().parents[2], capture_output=True, check=True, timeout=60)
        assert [path.name for path in state.glob(f"{FILE_NAME}-*")] == []


# Secrets.

CANARY = "canary-1f2e3d4c5b6a"


def secret(name: str, **values: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "stringData": values,
    }


def test_secrets_reach_the_attempt_and_no_file_of_ours(house: House) -> None:
    volume = {"name": "login", "type": "secret", "secretName": "codex-auth", "mountPath": "/login"}
    workspace = {"name": "workspace", "type": "pvc", "claimName": "work", "mountPath": "/workspace"}
    script = (
        f'test "$PLAIN" = {CANARY}-a && test "$TOLD" = {CANARY}-a || exit 5; '
        f'test "$(cat /login/auth.json)" = {CANARY}-b || exit 5; '
        "echo $PLAIN; echo $TOLD >&2; cat /login/auth.json; stat -c %a /login/auth.json"
    )
    documents = manifest(
        script,
        run={"secrets": ["env"], "workload": {"volumes": [workspace, volume]}},
        provider={"secretEnv": [{"name": "TOLD", "secretName": "env", "key": "PLAIN"}]},
        more=[secret("env", PLAIN=f"{CANARY}-a"), secret("codex-auth", **{"auth.json": f"{CANARY}-b"})],
    )
    documents[0]["spec"]["argsTemplate"] = ["/workspace/script"]
    house.claim().mkdir(parents=True)
    (house.claim() / "script").write_text(script)
    status = house.run(documents)
    assert status.phase == "Succeeded", house.told
    log = (house.attempt("step-1-attempt-1") / ".agent" / "runner.log").read_text()
    assert log.count("[redacted]") == 3
    assert "[redacted]600" in log.splitlines()
    (house.claim() / "script").unlink()
    house.store.close()
    leaks = [path for path in house.state.rglob("*") if path.is_file() and CANARY.encode() in path.read_bytes()]
    assert leaks == []
    assert not (house.folder() / "secrets.json").exists()
    assert not (house.attempt("step-1-attempt-1") / "secrets").exists()


@pytest.mark.parametrize("holder", ["the provider", "a Secret"])
def test_variables_for_interpreters_reach_the_workload_and_not_its_runner(house: House, holder: str) -> None:
    folder = house.root / "python"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text("import os, sys; 'start_attempt' in str(sys.orig_argv) and os._exit(0)")
    told = {"PYTHONPATH": str(folder), "LD_BIND_NOW": "canary", "PYTHONHOME": "/nowhere"}
    script = 'echo "$PYTHONPATH $LD_BIND_NOW $PYTHONHOME"; exit 7'
    if holder == "a Secret":
        given = manifest(script, run={"secrets": ["env"]}, more=[secret("env", **told)])
    else:
        given = manifest(script, provider={"envTemplate": told})
    assert house.run(given).phase == "Failed"
    assert house.attempts()["step-1-attempt-1"].exit_code == 7
    log = (house.attempt("step-1-attempt-1") / ".agent" / "runner.log").read_text()
    assert f"{folder} canary /nowhere" in log if holder == "the provider" else "canary" not in log


def test_a_secret_as_kubectl_has_it_leaves_no_value_in_the_run_store(house: House) -> None:
    held = secret("env", TOKEN="canary-in-the-value")
    held["metadata"]["annotations"] = {"kubectl.kubernetes.io/last-applied-configuration": json.dumps(held)}
    assert house.run(manifest("true", run={"secrets": ["env"]}, more=[held])).phase == "Succeeded"
    kept = b"".join(path.read_bytes() for path in house.state.glob(f"{FILE_NAME}*"))
    assert b"last-applied" not in kept
    assert b"canary" not in kept


def test_secrets_survive_a_crash_of_the_engine(house: House) -> None:
    script = WAITING + '; test "$PLAIN" = ' + CANARY
    crash(house, script, run={"secrets": ["env"]}, loop={"maxIterations": 2}, more=[secret("env", PLAIN=CANARY)])
    (house.claim() / "go").touch()
    assert house.finish("resume", "demo") == 0


def test_an_attempt_that_died_out_of_time_with_its_engine_leaves_no_secret(house: House) -> None:
    volumes = [
        {"name": "workspace", "type": "pvc", "claimName": "work", "mountPath": "/workspace"},
        {"name": "held", "type": "secret", "secretName": "files", "mountPath": "/held"},
    ]
    script = "test -e /workspace/pid && exit 0; trap '' TERM; echo $$ > /workspace/pid; sleep 600"
    step = {"retries": 1, "timeoutSeconds": 1}
    run = {"workload": {"volumes": volumes}}
    engine = house.start("run", manifest(script, step=step, run=run, more=[secret("files", token="canary")]))
    status = house.folder() / "status.json"
    wait_until(lambda: status.exists() and "Retrying" in status.read_text(), "the end of its time")
    engine.kill()
    engine.wait()
    process = house.attempts()["step-1-attempt-1"].process
    assert process is not None
    os.kill(process.pid, signal.SIGKILL)
    assert resume(NAMESPACE, "demo", flags=LOCAL, machine=house.machine()).phase == "Succeeded"
    assert not is_running(house.pid_in("pid"))
    assert [path for path in house.folder().rglob("*") if path.is_file() and b"canary" in path.read_bytes()] == []


def test_secrets_that_are_gone_stop_a_resumption(house: House) -> None:
    crash(house, WAITING + '; test "$PLAIN" = ' + CANARY, run={"secrets": ["env"]}, more=[secret("env", PLAIN=CANARY)])
    (house.folder() / "secrets.json").unlink()
    with pytest.raises(ConfigError, match="the values of Secret env are not kept any more"):
        resume(NAMESPACE, "demo", flags=LOCAL, machine=house.machine())
    (house.root / "env").mkdir()
    (house.root / "env" / "PLAIN").write_text(CANARY)
    (house.claim() / "go").touch()
    machine = house.machine(secret_folders={"env": house.root / "env"})
    assert resume(NAMESPACE, "demo", flags=LOCAL, machine=machine).phase == "Succeeded"


def test_a_refused_name_leaves_the_secrets_of_who_has_it(house: House) -> None:
    crash(house, run={"secrets": ["env"]}, more=[secret("env", PLAIN=CANARY)])
    before = (house.folder() / "secrets.json").read_bytes()
    with pytest.raises(ConfigError, match="resume it"):
        house.run(manifest("true", run={"secrets": ["env"]}, more=[secret("env", PLAIN="other")]))
    assert (house.folder() / "secrets.json").read_bytes() == before


def test_a_secret_can_come_from_a_folder(house: House) -> None:
    (house.root / "login").mkdir()
    (house.root / "login" / "PLAIN").write_text(CANARY)
    status = house.run(
        manifest(f'test "$PLAIN" = {CANARY}', run={"secrets": ["env"]}), secret_folders={"env": house.root / "login"}
    )
    assert status.phase == "Succeeded"


def test_a_missing_secret_of_the_environment_is_said_and_a_missing_volume_refused(house: House) -> None:
    assert house.run(manifest("true", run={"secrets": ["github-token"]})).phase == "Succeeded"
    assert "Secret github-token is not among the objects given" in house.warnings()
    volume = {"name": "login", "type": "secret", "secretName": "nowhere", "mountPath": "/login"}
    status = house.run(manifest("true", "other", run={"workload": {"volumes": [volume]}}))
    assert (status.phase, status.reason) == ("Failed", "AttemptNotStarted")
    assert "Secret nowhere is mounted at /login" in status.message


# Runtimes and refusals.


@pytest.mark.parametrize(
    ("script", "phase", "reason"),
    [("exit 0", "Succeeded", ""), ("exit 3", "Failed", "BackoffLimitExceeded")],
)
def test_the_runtime_job_is_one_attempt_without_steps(house: House, script: str, phase: str, reason: str) -> None:
    status = house.run(manifest(COUNT + script, loop={"maxIterations": 4}, run={"runtime": {"type": "job"}}))
    assert (status.phase, status.reason, status.steps) == (phase, reason, ())
    assert status.runtime_ref is not None
    assert status.runtime_ref["name"] == "demo-job"
    assert list(house.attempts()) == ["job"]


@pytest.mark.parametrize("runtime", ["temporal", "custom", ""])
def test_other_runtimes_are_for_a_cluster(house: House, runtime: str) -> None:
    with pytest.raises(ConfigError, match="cannot be carried out on this machine, only workflow and job"):
        house.run(manifest("true", run={"runtime": {"type": runtime}}))
    assert not house.folder().exists()


def test_what_the_controller_rejects_is_rejected_here(house: House) -> None:
    status = house.run(manifest(COUNT, loop={"maxIterations": 21}))
    condition = status.condition("InvalidSpec")
    assert condition is not None
    assert (status.phase, condition["reason"], house.ran()) == ("Failed", "WorkflowLoopMaxIterationsExceeded", [])


@pytest.mark.parametrize("name", ["../../escape", "a/b", "", "UPPER", "x" * 64])
def test_a_name_that_is_no_folder_is_refused(house: House, name: str) -> None:
    with pytest.raises(ConfigError, match="is no name of at most 63"):
        house.run(manifest("true", name))


def test_a_folder_that_the_store_does_not_know_is_not_written_to(house: House) -> None:
    (house.folder() / "attempts").mkdir(parents=True)
    with pytest.raises(ConfigError, match="holds a run that the run store does not know"):
        house.run(manifest("true"))


def test_a_provider_that_refuses_is_not_asked_again(house: House) -> None:
    documents = manifest(
        "echo x >> /workspace/ran; echo 'stream error: usage limit reached'; exit 1", step={"retries": 3}
    )
    documents[1]["spec"]["defaults"] = {"systemPrompt": "Be careful."}
    status = house.run(documents, profile=Profile.CURRENT)
    assert (status.phase, status.reason, len(house.ran())) == ("Failed", "ProviderCapacityExhausted", 1)
    assert "'stream error: usage limit reached'" in status.message


# Paths.


def test_without_bubblewrap_paths_are_translated_and_that_is_said(house: House) -> None:
    script = (
        'pwd > ran; test "$RUN_CYCLE_CONTROL_FILE" = "$PWD/.agentrun/loop-control.json" && mkdir .agentrun && '
        'echo "{\\"continue\\": false}" > "$RUN_CYCLE_CONTROL_FILE" && echo "$AGENT_RUN_MOUNTS" | grep -q /workspace'
    )
    status = house.run(manifest(script, loop=conditional()), isolate="none")
    assert (status.phase, loop_of(status).last_control) == ("Succeeded", {"continue": False})
    assert house.ran() == [str(house.claim())]
    assert "the container's paths are not true here, since isolation is switched off" in house.warnings()
    spec = json.loads((house.attempt("step-1-iter-1-attempt-1") / "agent-runner.json").read_text())
    assert spec["artifacts"]["statusPath"] == str(house.attempt("step-1-iter-1-attempt-1") / ".agent" / "status.json")


def test_an_empty_dir_is_new_for_each_attempt_and_a_claim_is_not(house: House) -> None:
    volumes = [
        {"name": "scratch", "type": "emptyDir", "mountPath": "/scratch"},
        {"name": "workspace", "type": "pvc", "claimName": "work", "mountPath": "/workspace"},
    ]
    script = "test ! -e /scratch/old && touch /scratch/old && touch /workspace/$RUN_CYCLE_ITERATION"
    status = house.run(manifest(script, loop={"maxIterations": 2}, run={"workload": {"volumes": volumes}}))
    assert status.phase == "Succeeded"
    assert {"1", "2"} <= {path.name for path in house.claim().iterdir()}


def test_input_files_are_there_under_their_paths(house: House) -> None:
    given = [{"path": "/etc/agent/settings.toml", "content": "stage = '{{inputs.stage}}'"}]
    documents = manifest(
        'grep "stage = \'{{parameters.nothing}}{" /etc/agent/settings.toml && test {{parameters.stage}} = build',
        provider={"inputFiles": given},
        run={"parameters": {"stage": "build"}},
    )
    assert house.run(documents).phase == "Succeeded"


# Agents.


def test_an_agent_works_in_the_container_s_paths_and_sees_nothing_of_the_state_directory(house: House) -> None:
    script = house.root / "agent.sh"
    script.write_text(
        f"set -e\ncp $1 /workspace/asked-$RUN_CYCLE_ITERATION\ntest ! -e {house.state}/{FILE_NAME}\n"
        f"! touch {house.root}/outside 2>/dev/null\n! touch /usr/outside 2>/dev/null\n"
        "pwd > /workspace/ran\nmkdir -p /workspace/.agentrun\n"
        'echo "{\\"continue\\": true}" > $RUN_CYCLE_CONTROL_FILE\n'
    )
    documents = manifest("", loop=conditional(2), provider={"binary": "/usr/local/bin/agent-runner"})
    documents[1]["spec"]["defaults"] = {"systemPrompt": "Be careful."}
    machine = house.machine()
    environ = {
        **machine.environ,
        "RUN_CYCLE_CONSENT_GUARD": "off",
        "RUN_CYCLE_AGENT": "command",
        "RUN_CYCLE_AGENT_COMMAND": f"sh {script} {{prompt_file}}",
    }
    status = house.run(documents, environ=environ)
    assert status.phase == "Succeeded", house.told[-1]
    assert house.ran() == ["/workspace"]
    asked = (house.claim() / "asked-2").read_text()
    assert asked == "# System prompt\n\nBe careful.\n\n# Task\n\nDo it."
    assert status.rest["systemPromptHash"] == hashlib.sha256(b"Be careful.").hexdigest()
    told = json.loads((house.attempt("step-1-iter-2-attempt-1") / ".agent" / "status.json").read_text())
    assert (told["adapter"], told["agent"], told["cwd"]) == ("codex-app-server", "command", "/workspace")


def test_a_system_prompt_of_a_config_map_reaches_each_attempt_as_a_file(house: House) -> None:
    prompt = {"kind": "ConfigMap", "metadata": {"name": "prompts"}, "data": {"p.md": "Be careful.\n"}}
    check = 'test "$(sha256sum < $CODEX_SYSTEM_PROMPT_PATH)" = "$CODEX_SYSTEM_PROMPT_EXPECTED_HASH  -"'
    documents = manifest(check, more=[prompt])
    reference = {"kind": "ConfigMap", "name": "prompts", "key": "p.md"}
    documents[1]["spec"]["defaults"] = {"systemPromptRef": reference}
    assert house.run(documents).phase == "Succeeded"
    kept = house.attempt("step-1-attempt-1") / ".codex" / "system-prompt.txt"
    assert kept.read_bytes() == b"Be careful.\n"


def test_bubblewrap_that_is_gone_stops_a_resumption_and_not_a_cancellation(house: House) -> None:
    crash(house)
    environ = {**house.machine().environ, "PATH": str(house.root)}
    with pytest.raises(ConfigError, match="was begun with bubblewrap, and bubblewrap"):
        resume(NAMESPACE, "demo", flags=LOCAL, machine=house.machine(environ=environ))
    record = request_cancel(NAMESPACE, "demo", "enough", flags=LOCAL, machine=house.machine(environ=environ))
    assert record.phase == "Cancelled"
