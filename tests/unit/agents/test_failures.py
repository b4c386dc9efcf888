from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from run_cycle_loop.agents.adapter import Ended
from run_cycle_loop.agents.endings import failed, without_final_event
from run_cycle_loop.agents.failures import how_ended, judge_failure, one_line, told_status
from run_cycle_loop.model.enums import AgentClass
from tests.unit.agents.recordings import NOW, ended

AUTH, BUDGET, LIMITED = AgentClass.AUTH, AgentClass.BUDGET, AgentClass.RATE_LIMITED
DENIED, ERROR = AgentClass.PERMISSION_DENIED, AgentClass.TOOL_ERROR


@pytest.mark.parametrize(
    ("message", "status", "ending", "permanent"),
    [
        # Who is not let in.
        ("unexpected status 401 Unauthorized: Incorrect key., url: x", None, AUTH, True),
        ("401 Incorrect key.", None, AUTH, True),
        ("403 Forbidden.", None, AUTH, True),
        ("anything", 401, AUTH, True),
        ("Forbidden", 403, AUTH, True),
        ("Not logged in · Please run /login", None, AUTH, True),
        ("Invalid API key · Please run /login", None, AUTH, True),
        ("Missing environment variable: `LOCAL_MODEL_KEY`.", None, AUTH, True),
        ("API key not valid. Please pass a valid API key.", None, AUTH, True),
        ('{"type":"error","error":{"type":"authentication_error","message":"invalid x-api-key"}}', None, AUTH, True),
        ("OAuth token has expired. Please obtain a new token", None, AUTH, True),
        ("No API key found for anthropic.", None, AUTH, True),
        ("Please set an Auth method in your settings.json", None, AUTH, True),
        ("Your organization has been disabled.", None, AUTH, True),
        # What waiting helps against.
        ("exceeded retry limit, last status: 429 Too Many Requests", None, LIMITED, False),
        ("429 Too many requests.", None, LIMITED, False),
        ("anything", 429, LIMITED, False),
        ("Rate limit reached.", None, LIMITED, False),
        ("You've hit your usage limit. Upgrade, purchase more credits or try again at 11:28 PM.", None, LIMITED, False),
        ("You exceeded your current quota, see plan and billing. Please retry in 36.5s.", 429, LIMITED, False),
        ("rate limit exceeded for this project", 403, LIMITED, False),
        # What only money helps against.
        ("Quota exceeded. Check your plan and billing details.", None, BUDGET, True),
        ("429 You exceeded your current quota, please check your plan and billing details.", None, BUDGET, True),
        ("insufficient_quota", 429, BUDGET, True),
        ("Your credit balance is too low to access the API.", 400, BUDGET, True),
        ("anything", 402, BUDGET, True),
        ("Insufficient credits. Add more at the settings.", None, BUDGET, True),
        # What nobody was there to allow.
        ("permission requested: external_directory (/etc/*); auto-rejecting", None, DENIED, True),
        ("The user rejected permission to use this specific tool call.", None, DENIED, True),
        ("This command requires approval", None, DENIED, True),
        # What a wrong name does.
        ("No such model.", None, ERROR, True),
        ("404 No such model.", None, ERROR, True),
        ("anything", 404, ERROR, True),
        ('Error: Model "Q/N" not found. Use --list-models to see available models.', None, ERROR, True),
        ("The 'x' model is not supported when using Codex with a ChatGPT account.", 400, ERROR, True),
        # Everything else may be different the next time.
        ("We're currently experiencing high demand, which may cause temporary errors.", None, ERROR, False),
        ("500 Internal error.", None, ERROR, False),
        ("unexpected status 503 Service Unavailable: Not available., url: x", None, ERROR, False),
        ("Connection failed: error sending request", None, ERROR, False),
        ("stream disconnected before completion: stream closed before response.completed", None, ERROR, False),
        ("prompt is too long: 213000 tokens > 200000 maximum", 400, ERROR, False),
        ("open /srv/x: permission denied", None, ERROR, False),
        ("", None, ERROR, False),
    ],
)
def test_a_final_error_is_judged_by_whose_fault_it_is(
    message: str, status: int | None, ending: AgentClass, permanent: bool
) -> None:
    failure = judge_failure(message, status=status, retry_after=None, now=NOW)
    assert (failure.ended, failure.permanent) == (ending, permanent)
    assert bool(failure.advice) is permanent


def test_the_time_to_come_back_is_the_far_ends_own_word() -> None:
    told = judge_failure("429", status=429, retry_after=90.5, now=NOW)
    assert told.retry_at == NOW + timedelta(seconds=90.5)
    zone = ZoneInfo("Asia/Seoul")  # 7:30 in the morning there
    prose = judge_failure(
        "usage limit reached, try again at 9:41 AM", status=None, retry_after=None, now=NOW, zone=zone
    )
    assert prose.retry_at == datetime(2026, 11, 26, 0, 41, tzinfo=UTC)
    assert judge_failure("too many requests", status=429, retry_after=None, now=NOW).retry_at is None


def test_an_outage_that_says_when_it_ends_is_no_limit_but_its_time_is_kept() -> None:
    failure = judge_failure("Service Unavailable", status=503, retry_after=30, now=NOW)
    assert (failure.ended, failure.retry_at) == (ERROR, NOW + timedelta(seconds=30))


@pytest.mark.parametrize("seconds", [-1.0, float("nan"), float("inf"), 1e12])
def test_a_wait_that_cannot_be_is_none(seconds: float) -> None:
    assert judge_failure("429", status=429, retry_after=seconds, now=NOW).retry_at is None


def test_the_advice_names_how_this_agent_is_logged_in() -> None:
    assert (
        judge_failure("401", status=401, retry_after=None, now=NOW, sign_in="run `x login`").advice == "run `x login`"
    )


@pytest.mark.parametrize(
    ("message", "status"),
    [
        ("401 Incorrect key.", 401),
        ("unexpected status 503 Service Unavailable", 503),
        ("exceeded retry limit, last status: 429 Too Many Requests", 429),
        ("[API Error: 429 x]", 429),
        ("Error: 500 x", 500),
        ("HTTP/1.1 404 Not Found", 404),
        ("wrote 429 files in 500 ms", None),
        ("port 4290", None),
        ("", None),
    ],
)
def test_the_status_is_found_where_a_message_names_one(message: str, status: int | None) -> None:
    assert told_status(message) == status


def test_a_long_hostile_message_costs_little_and_says_little() -> None:
    message = "model " * 1_000_000 + "\x1b]0;owned\x07"
    failure = judge_failure(message, status=None, retry_after=None, now=NOW)
    result = failed(failure, message)
    assert len(result.reason) <= 300
    assert one_line("a\x1b[31m\nb\x07") == "a b\\x07"


def test_how_it_ended_tells_the_error_of_standard_error_wherever_it_stands() -> None:
    assert how_ended(ended(3)) == "exit code 3"
    assert how_ended(ended(signal=9)) == "signal SIGKILL"
    assert how_ended(ended(1, stderr="Error: no such thread\n\nStack backtrace:\n  0: x\n")) == (
        "exit code 1: Error: no such thread"
    )
    assert how_ended(ended(1, stderr="first\nlast\n\n")) == "exit code 1: last"


@pytest.mark.parametrize("stopped", [AgentClass.TIMEOUT, AgentClass.INTERRUPTED, AgentClass.BUDGET])
def test_why_we_ended_it_decides_where_no_final_event_was_seen(stopped: AgentClass) -> None:
    end = ended(signal=15, stopped=stopped, stderr="401 Unauthorized")
    result = without_final_event(end, "x", began=True, sign_in="log in")
    assert (result.ended, result.permanent) == (stopped, False)


def test_what_stands_on_standard_error_is_believed_only_before_the_work_began() -> None:
    def ending(end: Ended, *, began: bool) -> AgentClass:
        return without_final_event(end, "x", began=began, sign_in="log in").ended

    refused = ended(1, stderr="Error: invalid API key")
    assert ending(refused, began=False) is AUTH
    assert ending(refused, began=True) is ERROR
    assert ending(ended(1, stderr="429 rate limit"), began=False) is ERROR  # nobody was asked yet
