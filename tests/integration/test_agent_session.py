"""Sessions of hostile agents, as real processes: what they leave, what they are told, and when they are ended."""

import json
import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from run_cycle_loop.agents.adapter import Adapter, Request
from run_cycle_loop.agents.command import Command
from run_cycle_loop.agents.isolation import Isolation
from run_cycle_loop.agents.scripted import Scripted
from run_cycle_loop.agents.session import Session, SessionLimits, run_session, scratch_folder
from run_cycle_loop.kit import process_table
from run_cycle_loop.kit.processes import Demand
from run_cycle_loop.model.enums import AgentClass
from run_cycle_loop.model.errors import RunnerError
from run_cycle_loop.policies.prices import Prices

pytestmark = pytest.mark.usefixtures("adopting")

OPEN = Isolation(wanted="none", program=None, detail="not isolated")


class Pulse:
    """Demands an end once a condition holds; its descriptor is never readable."""

    def __init__(self, when: Callable[[], Demand] = lambda: Demand.NOTHING) -> None:
        self._when = when
        self._read, self._write = os.pipe()

    def fileno(self) -> int:
        return self._read

    def beat(self) -> Demand:
        return self._when()

    def close(self) -> None:
        os.close(self._read)
        os.close(self._write)


class Stage:
    """A workdir, and sessions in it."""

    def __init__(self, root: Path) -> None:
        self.workdir = root / "a tree" / "work"
        self.workdir.mkdir(parents=True)
        self.script = root / "script"
        self.output = bytearray()
        self.size = 0
        self.scratch: Path | None = None

    def take(self, _stream: str, chunk: bytes | memoryview) -> None:
        self.size += len(chunk)
        self.output += chunk[:1000]

    def hold(
        self,
        adapter: Adapter,
        *,
        template: str,
        pulse: Pulse | None = None,
        env: dict[str, str] | None = None,
        **limits: Any,
    ) -> Session:
        pulse = pulse or Pulse()
        with scratch_folder(self.workdir, os.environ) as self.scratch:
            session = run_session(
                adapter,
                Request(prompt="do it", workdir=self.workdir, scratch=self.scratch, template=template),
                env={**os.environ, **(env or {})},
                isolation=OPEN,
                limits=SessionLimits(**{"timeout": 60.0, "grace": 0.3, "final_grace": 0.2, **limits}),
                pulse=pulse,
                output=self.take,
                now=lambda: datetime.now(UTC),
            )
        pulse.close()
        return session

    def play(self, *steps: dict[str, Any], **more: Any) -> Session:
        self.script.write_text("".join(json.dumps(step) + "\n" for step in steps))
        return self.hold(Scripted(), template=str(self.script), **more)

    def shell(self, code: str, **more: Any) -> Session:
        self.script.write_text(code)
        return self.hold(Command(), template=f"sh '{self.script}' {{prompt_file}} {{result_file}}", **more)


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    before = process_table.children(os.getpid())
    yield Stage(tmp_path)
    assert process_table.children(os.getpid()) == before


USED = {"input_tokens": 900, "cached_input_tokens": 400, "output_tokens": 100}


def test_a_scripted_run_writes_in_its_workdir_and_is_read(stage: Stage) -> None:
    session = stage.play({"write": "out/a.txt", "text": "hello"}, {"usage": USED}, {"final": "made a.txt"})
    result = session.result
    assert (result.ended, result.text, result.tool_calls) == (AgentClass.OK, "made a.txt", 1)
    assert (stage.workdir / "out/a.txt").read_text() == "hello"
    assert result.usage is not None
    assert (result.usage.tokens, result.usage.cost_usd, result.usage.complete) == (1000, None, True)
    assert (session.leftovers, session.warnings) == (0, ())
    assert b'"final"' in stage.output


def test_a_cost_that_nobody_told_is_worked_out(stage: Stage) -> None:
    usage = stage.play({"usage": USED}, {"final": "x"}, prices=Prices(input=2.0, cached=1.0, output=10.0)).result.usage
    assert usage is not None
    assert usage.cost_usd == pytest.approx((500 * 2 + 400 * 1 + 100 * 10) / 1e6)
    assert usage.source.endswith("cost by --prices")


def test_the_prompt_is_fed_and_the_scratch_folder_is_private_and_goes(stage: Stage) -> None:
    session = stage.shell(
        'cat "$1" > got; stat -c %a "$(dirname "$1")" > mode; mkdir -p "$(dirname "$1")/x/y"; echo ok > "$2"'
    )
    assert (session.result.ended, session.result.text.strip()) == (AgentClass.OK, "ok")
    assert (stage.workdir / "got").read_text() == "do it"
    assert (stage.workdir / "mode").read_text() == "700\n"
    assert stage.scratch is not None
    assert not stage.scratch.exists()
    assert not stage.scratch.is_relative_to(stage.workdir)


def test_a_scratch_folder_goes_however_deep_it_was_made(stage: Stage) -> None:
    stage.shell('cd "$(dirname "$1")"; n=0; while [ $n -lt 2000 ]; do mkdir d; cd d; n=$((n + 1)); done; chmod 0 .')
    assert stage.scratch is not None
    assert not stage.scratch.exists()


def test_a_prompt_without_a_file_comes_by_standard_input(stage: Stage) -> None:
    session = stage.hold(Command(), template="cat")
    assert session.result.text == "do it"


# What it leaves behind


def test_what_it_left_behind_is_ended_after_a_good_exit(stage: Stage) -> None:
    session = stage.play({"child": 600}, {"final": "done"})
    assert session.result.ended is AgentClass.OK
    assert session.leftovers == 1
    assert session.warnings == ("the agent left 1 processes behind, which were ended",)


def test_what_left_its_group_is_found(stage: Stage) -> None:
    session = stage.shell('(setsid sh -c "setsid sleep 600 & sleep 600" >/dev/null 2>&1 &) ; echo done > "$2"')
    assert session.result.ended is AgentClass.OK
    assert session.leftovers >= 1


# When it is ended


def test_a_final_event_is_enough_and_what_hangs_after_it_is_ended(stage: Stage) -> None:
    session = stage.play({"write": "a", "text": "x"}, {"final": "done"}, {"wait": 600})
    assert (session.result.ended, session.result.text) == (AgentClass.OK, "done")
    assert session.duration < 30


def test_a_final_failure_stays_one_whatever_hangs_after_it(stage: Stage) -> None:
    session = stage.play({"ignore_term": True}, {"class": "rate_limited", "retry_after": 60}, {"wait": 600})
    assert session.result.ended is AgentClass.RATE_LIMITED
    assert session.result.retry_at is not None


def test_what_ignores_term_is_killed_at_its_time_limit(stage: Stage) -> None:
    session = stage.shell("trap '' TERM; while :; do sleep 1; done", timeout=0.3)
    assert (session.result.ended, session.result.permanent) == (AgentClass.TIMEOUT, False)


def test_silence_has_a_limit(stage: Stage) -> None:
    assert stage.play({"print": "up"}, {"wait": 600}, idle_timeout=0.5).result.ended is AgentClass.TIMEOUT


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        ({"max_tokens": 1500}, "it was ended at 2000 tokens: 1500 were allowed"),
        ({"max_usd": 1.5}, "it was ended at 2 USD: 1.5 were allowed"),
    ],
)
def test_a_budget_is_kept_while_it_runs(stage: Stage, limits: dict[str, Any], said: str) -> None:
    usage = {"usage": {**USED, "cost_usd": 1.0}}
    session = stage.play(usage, usage, {"wait": 600}, usage, {"final": "done"}, **limits)
    result = session.result
    assert (result.ended, result.reason, result.permanent) == (AgentClass.BUDGET, said, False)
    assert result.usage is not None
    assert (result.usage.tokens, result.usage.complete) == (2000, False)
    assert session.duration < 30


def test_a_budget_is_kept_by_prices_too(stage: Stage) -> None:
    prices = Prices(input=1000.0, output=1000.0)
    session = stage.play({"usage": USED}, {"wait": 600}, max_usd=0.5, prices=prices)
    assert (session.result.ended, session.result.reason) == (
        AgentClass.BUDGET,
        "it was ended at 1 USD: 0.5 were allowed",
    )


def test_a_budget_that_cannot_be_kept_is_said(stage: Stage) -> None:
    (warning,) = stage.play({"usage": USED}, {"final": "x"}, max_usd=1.0).warnings
    assert warning == "the limit of 1 USD could not be kept, since the agent tells no cost: set --prices"


def test_the_operators_word_interrupts_it_and_the_usage_is_kept(stage: Stage) -> None:
    pulse = Pulse(lambda: Demand.TERMINATE if b"up" in stage.output else Demand.NOTHING)
    session = stage.play({"usage": USED}, {"print": "up"}, {"wait": 600}, pulse=pulse)
    assert session.result.ended is AgentClass.INTERRUPTED
    assert session.result.usage is not None
    assert (session.result.usage.tokens, session.result.usage.complete) == (1000, False)


def test_an_agent_that_leaves_with_0_when_asked_to_end_was_interrupted(stage: Stage) -> None:
    pulse = Pulse(lambda: Demand.TERMINATE if b"up" in stage.output else Demand.NOTHING)
    session = stage.shell("trap 'exit 0' TERM; echo ok > \"$2\"; echo up; while :; do sleep 0.01; done", pulse=pulse)
    assert session.result.ended is AgentClass.INTERRUPTED


def test_a_word_that_came_before_keeps_it_from_starting(stage: Stage) -> None:
    session = stage.play({"write": "a", "text": "x"}, pulse=Pulse(lambda: Demand.TERMINATE))
    assert session.result.ended is AgentClass.INTERRUPTED
    assert list(stage.workdir.iterdir()) == []


# What it prints


def test_a_flood_is_passed_on_and_the_result_is_found_in_it(stage: Stage) -> None:
    size = 64 << 20
    session = stage.play({"print": "x" * 4095 + "\n", "repeat": size // 4096}, {"write": "a"}, {"final": "done"})
    assert (session.result.ended, session.result.text) == (AgentClass.OK, "done")
    assert stage.size > size


def test_one_endless_line_hides_nothing_that_follows_it(stage: Stage) -> None:
    session = stage.play({"print": "x", "repeat": 40 << 20}, {"print": "\n"}, {"write": "a"}, {"final": "done"})
    assert session.result.text == "done"


def test_the_end_of_its_complaints_is_kept(stage: Stage) -> None:
    session = stage.play({"print": "noise\n", "repeat": 100_000, "stream": "stderr"}, {"exit": 3})
    assert session.result.ended is AgentClass.TOOL_ERROR
    assert session.result.reason == "exit code 3: noise"


# What it is told


def test_it_learns_nothing_by_which_it_could_speak_for_the_loop(stage: Stage) -> None:
    told = {
        "RUN_CYCLE_ID": "abc",
        "RUN_CYCLE_NUMBER": "7",
        **{f"RUN_CYCLE_{name}": "/secret" for name in ("CONTROL_FILE", "STATE_DIR", "HISTORY_PATH", "STOP_FILE")},
        **dict.fromkeys(("NOTIFY_SOCKET", "WATCHDOG_USEC", "LISTEN_FDS", "STATE_DIRECTORY"), "/secret"),
        "API_KEY": "of its own",
    }
    session = stage.shell('env > "$2"', env=told)
    names = dict(line.split("=", 1) for line in session.result.text.splitlines() if "=" in line)
    assert "/secret" not in names.values()
    assert (names["RUN_CYCLE_ID"], names["RUN_CYCLE_NUMBER"], names["API_KEY"]) == ("abc", "7", "of its own")
    assert names["PWD"] == str(stage.workdir)


# What cannot be started


@pytest.mark.parametrize("template", ["no-such-agent-at-all", "/no/such/agent", "./no-such-agent"])
def test_an_agent_that_is_not_there_is_said_once_and_for_all(stage: Stage, template: str) -> None:
    result = stage.hold(Command(), template=template).result
    assert (result.ended, result.permanent) == (AgentClass.TOOL_ERROR, True)
    assert template in result.reason
    assert result.advice.startswith("install the agent")


def test_a_scratch_folder_that_cannot_be_written_is_the_runs_error(stage: Stage) -> None:
    stage.script.write_text('{"exit": 0}\n')
    pulse = Pulse()
    with pytest.raises(RunnerError, match="cannot be prepared for the agent"):
        run_session(
            Scripted(),
            Request(prompt="", workdir=stage.workdir, scratch=stage.workdir / "none", template=str(stage.script)),
            env=os.environ,
            isolation=OPEN,
            limits=SessionLimits(),
            pulse=pulse,
            output=stage.take,
            now=lambda: datetime.now(UTC),
        )
    pulse.close()


def test_a_scratch_folder_never_lies_in_the_workdir(tmp_path: Path) -> None:
    with scratch_folder(Path("/tmp"), {}) as scratch:
        assert not scratch.is_relative_to("/tmp")
    with pytest.raises(RunnerError, match="no temporary folder outside of the workdir"), scratch_folder(Path("/"), {}):
        pass
    with scratch_folder(tmp_path, {}) as scratch:
        (scratch / "locked").mkdir(mode=0)
        (scratch / "out").symlink_to(tmp_path)
    assert not scratch.exists()
    assert tmp_path.exists()
