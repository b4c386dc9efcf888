"""What an agent's own last error means: whose fault it is, whether waiting helps, and what a person has to do.

Only the message of a structured final or error event belongs here. What an agent echoes while it works may contain any
of these words.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from signal import Signals

from run_cycle_loop.agents.adapter import Ended
from run_cycle_loop.kit.printable import printable
from run_cycle_loop.model.enums import AgentClass
from run_cycle_loop.policies.limits import is_limit, reset_time

_READ = 4096  #: characters of a message that are looked at
_SHOWN = 300  #: characters of a message that are repeated in a reason
_LONGEST_WAIT = timedelta(days=31).total_seconds()  #: a longer one was no number of seconds


def _any_of(*patterns: str) -> re.Pattern[str]:
    return re.compile("|".join(patterns), re.IGNORECASE)


_STATUS = _any_of(
    r"(?:^|\bstatus(?:[ _]?code)?[\"']?[:=]?[ ]*|\bHTTP(?:/\d(?:\.\d)?)?[ ]+|\berror:?[ ]+|[(\[])([45]\d\d)\b"
)

#: No credit is left: waiting does not help, whatever else is said.
_NO_CREDIT = _any_of(
    r"insufficient[_ ](?:quota|credit|balance|funds)",
    r"credit balance",
    r"\b(?:out of|no) credits?\b",
    r"payment required",
    r"billing[_ ](?:hard[_ ]limit|error|not[_ ]active)",
    r"spend(?:ing)?[_ ]limit",
    r"budget has been exceeded",
)

#: The same, or a limit that ends by itself: some say it of both, so that a time to come back decides.
_QUOTA = _any_of(r"quota exceeded", r"exceeded your current quota", r"plan and billing", r"purchase more credits")

_NOT_LOGGED_IN = _any_of(
    r"not (?:logged|signed) in",
    r"(?:log|sign) ?in (?:again|required|first|to continue)",
    r"please (?:log|sign) ?in",
    r"(?:^|\s)/login\b",
    r"(?:invalid|incorrect|missing|no|unknown|expired|revoked)[ _](?:x-)?api[ _-]?key",
    r"api[ _-]?key(?: is)?[ _](?:not valid|invalid|missing|required|expired)",
    r"missing environment variable",
    r"must set the \S+ environment variable",
    r"set an auth method",
    r"no (?:auth(?:entication)? (?:method|credentials)|credentials)",
    r"authentication[_ ](?:error|failed|required)",
    r"could not resolve authentication",
    r"unauthori[sz]ed",
    r"unauthenticated",
    r"permission_error",  # of an API: the account may not, as against a person who was not there to allow it
    r"\btoken (?:could not be refreshed|(?:has |is |was |been )*(?:expired|revoked|invalid))",
    r"token_(?:expired|revoked|invalidated)",
    r"(?:account|organi[sz]ation) (?:has been|is) (?:disabled|deactivated|suspended)",
)

_NOBODY_ALLOWED_IT = _any_of(
    r"permission requested",
    r"auto-?reject",
    r"requires? (?:your |user |manual )?(?:approval|permission|confirmation)",
    r"(?:approval|confirmation|permission) (?:is )?required",
    r"(?:user|permission) (?:has )?(?:rejected|declined|denied|refused) (?:permission|the|this|to use)",
    r"haven't granted",
    r"(?:rejected|declined) permission",
)

_NO_SUCH_MODEL = _any_of(
    r"(?:unknown|invalid|unsupported|no such) model",
    r"model[_ ]not[_ ]found",
    r"\bmodels?\b[^.\n]{0,120}\b(?:not found|does not exist|may not exist|(?:is )?not (?:supported|available))",
    r"no access to (?:the )?model",
    r"unknown provider",
    r"provider\b[^.\n]{0,80}\bnot found",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Failure:
    """What an error means for whoever decides what comes next."""

    ended: AgentClass
    permanent: bool = False  #: it will fail again in the same way until a person has changed something
    advice: str = ""  #: one sentence
    retry_at: datetime | None = None  #: aware; by the far end's own word


def judge_failure(
    message: str,
    *,
    status: int | None,
    retry_after: float | None,
    now: datetime,
    sign_in: str = "log in with the agent's own command, or set its key",
    zone: tzinfo | None = None,
) -> Failure:
    """What the last error of an agent means.

    Args:
        message: of the structured final or error event.
        status: of HTTP, where the agent tells it apart; otherwise it is looked for in the message.
        retry_after: seconds to wait, where the agent hands that on.
        now: aware; what waits are counted from.
        sign_in: what a person does to log this agent in, as the beginning of a sentence.
        zone: of clock times in the message; None is the machine's.
    """
    text = message[:_READ]
    status = told_status(text) if status is None else status
    retry_at = _retry_at(text, retry_after, now, zone)
    if status == 402 or _NO_CREDIT.search(text) or (retry_at is None and _QUOTA.search(text)):
        return Failure(
            ended=AgentClass.BUDGET,
            permanent=True,
            advice="add credit or raise the limit with the model's provider, or choose another model",
        )
    limited = status == 429 or _QUOTA.search(text) is not None or is_limit(text)
    if status == 401 or (not limited and (status == 403 or _NOT_LOGGED_IN.search(text))):
        return Failure(ended=AgentClass.AUTH, permanent=True, advice=sign_in)
    if limited:
        return Failure(ended=AgentClass.RATE_LIMITED, retry_at=retry_at)
    if _NOBODY_ALLOWED_IT.search(text):
        return Failure(
            ended=AgentClass.PERMISSION_DENIED,
            permanent=True,
            advice="allow what it asked for in the agent's own settings, or give it work that needs no such thing",
        )
    if status == 404 or _NO_SUCH_MODEL.search(text):
        return Failure(
            ended=AgentClass.TOOL_ERROR,
            permanent=True,
            advice="name a model that this account has, and check the address of its provider",
        )
    return Failure(ended=AgentClass.TOOL_ERROR, retry_at=retry_at)


def told_status(message: str) -> int | None:
    """The HTTP status that an error message names; None where it names none."""
    found = _STATUS.search(message.lstrip())
    return None if found is None else int(found[1])


def _retry_at(text: str, retry_after: float | None, now: datetime, zone: tzinfo | None) -> datetime | None:
    if retry_after is not None and 0 <= retry_after <= _LONGEST_WAIT:
        return now + timedelta(seconds=retry_after)
    return reset_time(text, now, zone or now.astimezone().tzinfo or UTC)


_STOPPED = {
    AgentClass.TIMEOUT: "it was ended at its time limit",
    AgentClass.INTERRUPTED: "it was interrupted",
    AgentClass.BUDGET: "it was ended because it had consumed what it was allowed",
}


def why_stopped(stopped: AgentClass) -> str:
    """The reason of a session that *we* ended."""
    return _STOPPED.get(stopped, f"it was ended by us ({stopped})")


def how_ended(ended: Ended) -> str:
    """An exit code or a signal in words, with the line of standard error that says why, where one does."""
    how = f"exit code {ended.exit_code}" if ended.signal is None else f"signal {_signal_name(ended.signal)}"
    lines = [line for line in ended.stderr_tail.splitlines() if line.strip()]
    if not lines:
        return how
    # The trace of a stack stands below its error in some languages and above it in others.
    return f"{how}: {one_line(next((line for line in lines if 'error' in line.lower()), lines[-1]))}"


def _signal_name(number: int) -> str:
    try:
        return Signals(number).name
    except ValueError:
        return str(number)


def one_line(message: str, limit: int = _SHOWN) -> str:
    """Foreign text as a part of a sentence: printable, on one line, of bounded length."""
    line = " ".join(printable(message[: 4 * limit], keep="\n\t").split())
    return line if len(line) <= limit else line[: limit - 3] + "..."
