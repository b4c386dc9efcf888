"""Limits of the far end: whether a message speaks of one, when it ends, and when to ask again.

Only the final message of an agent or a server may be given to these functions, never what a tool printed: a file may
say "rate limit" too.
"""

import re
from datetime import datetime, timedelta, tzinfo

from run_cycle_loop.policies.moments import announces, ends_of, moment_in

_LADDER = (60.0, 120.0, 300.0, 600.0, 1200.0, 1800.0)  #: seconds, where nobody says when the limit ends

#: What limits something else than how often one may ask.
_OTHER = r"(?!(?:[\w-]+ )?(?:context|tokens?|turns?|size|length|output|time|depth|memory|file|word|budget)\b)"
_LIMIT = re.compile(
    r"(?i)rate[-_ ]?limit|usage[-_ ]limit|too[-_ ]many[-_ ]requests|resource[-_ ]exhausted|quota[-_ ]exceeded|"
    r"\b(?:session|daily|weekly|monthly|hourly|[0-9]+[- ]hour|message|request|plan|spend) limit|"
    rf"\b(?:hit|reached|exceeded|exhausted|over) (?:your|the|its|all) {_OTHER}"
    r"(?:[\w-]+ ){0,2}(?:limit|quota|capacity)|insufficient[-_ ]quota|throttl|"
    r"\bquota (?:is |was |has been )?(?:exhausted|reached|used up)|"
    r"(?:status|http|error|code)\W{0,4}(?:code\W{0,3})?429\b|^\W*429\b"
)
#: Money, not time: no waiting helps, unless the message itself says when to come back.
_MONEY = re.compile(
    r"(?i)insufficient[-_ ]quota|billing|credit balance|out of credits?|insufficient (?:funds|balance|credits?)|payment"
)


def is_limit(text: str) -> bool:
    """Whether a final message says that the far end asks to wait; used-up credit is none, for no wait ends it."""
    text = ends_of(text)
    return bool(_LIMIT.search(text)) and (not _MONEY.search(text) or announces(text))


def reset_time(text: str, now: datetime, zone: tzinfo) -> datetime | None:
    """When a limit ends, in UTC, by the word of a final message; None where it says nothing that can be believed.

    A clock time that has passed today is tomorrow's, but by two minutes at the most it means now. A date without a
    year is the next such date, but one that passed within a day is over. Of two possible readings the later one holds.

    Args:
        text: the message.
        now: an aware time.
        zone: where a time without a zone is read: that of this machine.
    """
    return moment_in(text, now, zone)


def wait_until(
    retry_at: datetime | None,
    now: datetime,
    *,
    hits: int,
    margin: float = 60.0,
    least: float = 60.0,
    longest: float = 86400.0,
) -> datetime:
    """When to ask again after a limit. All lengths in seconds.

    Args:
        retry_at: when the limit ends, where that is known.
        now: an aware time.
        hits: limits in a row, this one included; without a known end they make the wait longer: 1 to 30 minutes.
        margin: added to a known end.
        least: the shortest wait.
        longest: the longest wait, whatever the far end says; it wins over ``least``.
    """
    if retry_at is None:
        delay = _LADDER[min(max(hits, 1), len(_LADDER)) - 1]
    else:
        delay = (retry_at - now).total_seconds() + margin
    return now + timedelta(seconds=min(max(delay, least), longest))
