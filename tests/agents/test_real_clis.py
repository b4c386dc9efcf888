"""Each agent's real command line, driven through the product against a model server that does its worst.

What the programs do differs and changes; what the product makes of it must not.
"""

import signal
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from tests.agent_homes import HOMES
from tests.agents.stage import GOAL, Stage, wait_until
from tests.model_server.script import Turn

pytestmark = pytest.mark.agents

WRITE = Turn(write=("hello.txt", "hello from the agent\n"))
FEW = 3  #: requests; more would be the program's own retries
QUICK = 30.0  #: seconds; its own waits are minutes and hours
HOUR = 3600
#: Which of them hand on how much of the output was reasoning.
TELL_REASONING = ("codex", "opencode", "gemini")
#: How a limit is told so that its end comes through: the rest of them tell no time, whatever the server said.
LIMITS = {
    "codex": Turn(status=429, kind="plan", retry_after=HOUR),
    "claude": Turn(status=429, kind="plan", retry_after=HOUR),
    "gemini": Turn(status=429, retry_after=HOUR),
}
#: How long a session may take where nothing comes: enough for the first request of each.
HASTY = {"codex": "4s", "claude": "5s", "gemini": "6s", "pi": "6s", "opencode": "14s"}


@pytest.fixture(params=sorted(HOMES))
def stage(request: pytest.FixtureRequest, stage_for: Callable[[str], Stage]) -> Stage:
    return stage_for(request.param)


def test_a_good_run_changes_the_workdir_tells_its_usage_and_leaves_nobody(stage: Stage) -> None:
    background = Turn(command="setsid sleep 300 >/dev/null 2>&1 & echo $! > pid")
    cycle = stage.run(WRITE, background, Turn(text="I wrote hello.txt."))
    told = cycle.control
    assert (cycle.process.returncode, told["class"]) == (0, "ok"), cycle.said
    assert (stage.workdir / "hello.txt").read_text() == "hello from the agent\n"
    assert "I wrote hello.txt." in told["summary"]
    assert told["tool_calls"] == 2
    assert GOAL in str(stage.turns[0].body)
    usage = told["usage"]
    assert (usage["input_tokens"], usage["cached_input_tokens"], usage["output_tokens"]) == (3000, 300, 600)
    assert usage["reasoning_tokens"] == (150 if stage.agent in TELL_REASONING else 0)
    assert usage["complete"] is True
    assert (stage.workdir / "pid").read_text().strip().isdigit()
    assert stage.left() == {}


def test_isolated_it_works_and_cannot_read_the_loops_records(stage: Stage) -> None:
    secret = stage.root / "state" / "secret"
    secret.write_text("of the loop alone\n")
    look = Turn(command=f"cat {secret} > seen; echo looked > looked")
    cycle = stage.run(WRITE, look, Turn(text="I looked."), options=("--isolate", "bwrap"))
    told = cycle.control
    assert (told["class"], told["isolation"]) == ("ok", "bwrap"), cycle.said
    assert (stage.workdir / "hello.txt").read_text() == "hello from the agent\n"
    assert (stage.workdir / "looked").exists()
    assert (stage.workdir / "seen").read_text() == ""
    assert told["usage"]["input_tokens"] == 3000
    assert stage.left() == {}


def test_a_refused_key_is_told_at_once(stage: Stage) -> None:
    cycle = stage.run(Turn(status=401))
    assert (cycle.process.returncode, cycle.control["class"]) == (77, "auth"), cycle.said
    assert cycle.control["advice"]
    assert 1 <= len(stage.turns) <= FEW


@pytest.mark.parametrize("agent", sorted(LIMITS))
def test_a_limit_is_told_with_the_time_at_which_it_ends(stage_for: Callable[[str], Stage], agent: str) -> None:
    stage = stage_for(agent)
    if agent == "claude":  # only a subscription's limits have an end that it hands on
        del stage.env["ANTHROPIC_API_KEY"]
        stage.env["CLAUDE_CODE_OAUTH_TOKEN"] = "dummy-token-of-a-test"
    asked_at = datetime.now(UTC)
    cycle = stage.run(LIMITS[agent])
    assert (cycle.process.returncode, cycle.control["class"]) == (75, "rate_limited"), cycle.said
    wait = datetime.fromisoformat(cycle.control["retry_at"]) - asked_at
    assert timedelta(minutes=58) < wait < timedelta(minutes=63)
    assert len(stage.turns) <= FEW
    assert cycle.seconds < QUICK


@pytest.mark.parametrize("agent", sorted(set(HOMES) - set(LIMITS)))
def test_a_limit_without_an_end_is_told_all_the_same(stage_for: Callable[[str], Stage], agent: str) -> None:
    stage = stage_for(agent)
    cycle = stage.run(Turn(status=429, retry_after=HOUR))
    assert (cycle.process.returncode, cycle.control["class"]) == (75, "rate_limited"), cycle.said
    assert len(stage.turns) <= FEW
    assert cycle.seconds < QUICK


@pytest.mark.parametrize("turn", [Turn(status=500), Turn(fault="html")], ids=["server error", "garbage"])
def test_a_server_out_of_order_is_the_tools_error_and_what_was_written_stays(stage: Stage, turn: Turn) -> None:
    cycle = stage.run(WRITE, turn, options=("--timeout", "40s"))
    assert (cycle.control["class"], cycle.process.returncode) == ("tool_error", 1), cycle.said
    assert len(stage.turns) > 1
    assert (stage.workdir / "hello.txt").exists()
    assert stage.left() == {}


def test_a_server_that_says_nothing_is_waited_for_as_long_as_was_allowed(stage: Stage) -> None:
    cycle = stage.run(Turn(fault="hang"), options=("--timeout", HASTY[stage.agent]))
    assert (cycle.control["class"], cycle.process.returncode) == ("timeout", 124), cycle.said
    assert len(stage.turns) == 1
    assert stage.left() == {}


def test_terminated_at_work_it_is_interrupted_and_leaves_nobody(stage: Stage) -> None:
    cycle = stage.start(Turn(command="echo begun > begun; python3 -c 'import time; time.sleep(300)'"))
    stage.await_turns(1)
    wait_until((stage.workdir / "begun").exists, f"the command of the agent; it said: {cycle.said}")
    cycle.process.send_signal(signal.SIGTERM)
    assert cycle.ended() == 130, cycle.said
    assert cycle.control["class"] == "interrupted"
    assert stage.left() == {}


def test_an_answer_of_two_megabytes_does_not_fill_the_memory(stage: Stage) -> None:
    text = " ".join(str(number * 7919) for number in range(215_000))
    assert len(text) > 2_000_000
    cycle = stage.run(WRITE, Turn(text=text))
    assert cycle.control["class"] == "ok", cycle.said
    assert cycle.peak < 100 * 1024
    assert len(cycle.control["summary"]) <= 2000
