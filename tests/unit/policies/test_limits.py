import time as watch
from datetime import UTC, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo

import pytest

from run_cycle_loop.policies.limits import is_limit, reset_time, wait_until

BERLIN = ZoneInfo("Europe/Berlin")
NOW = datetime(2026, 6, 24, 10, 0, tzinfo=UTC)  # a Wednesday: 12:00 in Berlin, 19:00 in Seoul, 6:00 in New York
NEVER = None


def _at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        # A clock time, with a zone or in the one that is given.
        ("You've hit your limit · resets 1pm (Asia/Seoul)", "2026-06-25T04:00"),
        ("You've hit your session limit · resets 8pm (Asia/Seoul)", "2026-06-24T11:00"),
        ("5-hour limit reached ∙ resets 3pm", "2026-06-24T13:00"),
        ("You've hit your limit · resets 9:30am (UTC)", "2026-06-25T09:30"),
        (
            "You've hit your usage limit. Upgrade to Pro (https://x.test/pro) or try again at 1:41 AM.",
            "2026-06-24T23:41",
        ),
        ("usage limit reached. Your limit will reset at 3pm (America/Santiago).", "2026-06-24T19:00"),
        ("limit will reset at: 3 P.M. (america/new_york)", "2026-06-24T19:00"),
        ("RESETS AT 11:30PM (AMERICA/SAO_PAULO)", "2026-06-25T02:30"),
        ("\x1b[31mresets\u202f5:20\u202fPM\x1b[0m (America/New_York)", "2026-06-24T21:20"),
        ("resets 5.20pm", "2026-06-24T15:20"),
        ("resets 15:00", "2026-06-24T13:00"),
        ("resets 15:00 +0900", "2026-06-25T06:00"),
        ("resets 3pm UTC+9", "2026-06-25T06:00"),
        ("resets 3pm GMT-03:30", "2026-06-24T18:30"),
        ("resets 3pm EST", "2026-06-24T20:00"),
        ("resets 3pm (local time)", "2026-06-24T13:00"),
        ("resets 3pm (in 3 hours)", "2026-06-24T13:00"),
        ("the daily quota resets at midnight Pacific time", "2026-06-25T07:00"),
        ("resets at midnight PT", "2026-06-25T07:00"),
        ("resets at noon (UTC)", "2026-06-24T12:00"),
        # Midnight is 12am, noon is 12pm.
        ("resets at 12am (Europe/Berlin)", "2026-06-24T22:00"),
        ("resets at 12:30am (UTC)", "2026-06-25T00:30"),
        ("resets at 12pm (UTC)", "2026-06-24T12:00"),
        ("resets at 12:30 pm (UTC)", "2026-06-24T12:30"),
        # Just past is now; longer past is tomorrow.
        ("resets 12pm", "2026-06-24T10:00"),
        ("resets 11:58am", "2026-06-24T10:00"),
        ("resets 11:57am", "2026-06-25T09:57"),
        # A zone that nobody knows: the later one of the given zone and UTC.
        ("resets 3pm (Mars/Olympus)", "2026-06-24T15:00"),
        ("resets 3pm (Europe)", "2026-06-24T15:00"),
        ("resets 3pm AEST", "2026-06-24T15:00"),
        ("resets 11am (Nowhere/There)", "2026-06-25T09:00"),
        # A date.
        ("You've hit your weekly limit · resets Jun 29, 3am (Asia/Singapore)", "2026-06-28T19:00"),
        ("weekly limit - resets Jun 29, 3am (UTC)", "2026-06-29T03:00"),
        ("resets Jun 29, 3am", "2026-06-29T01:00"),
        ("resets on 29 June at 3pm", "2026-06-29T13:00"),
        ("Weekly limit reached ∙ resets Oct 14", "2026-10-13T22:00"),
        ("resets Jun 24", "2026-06-24T22:00"),
        ("resets Jan 2, 3am (UTC)", "2027-01-02T03:00"),
        ("resets Jun 24, 2am (UTC)", "2026-06-24T02:00"),
        ("resets Jun 22, 2am (UTC)", "2027-06-22T02:00"),
        ("try again at Jun 26th, 2026 9:25 AM.", "2026-06-26T07:25"),
        ("try again at Aug 20, 2026, 7:38 AM", "2026-08-20T05:38"),
        ("You can resume using this model at 6/30/2026, 11:52:13 AM.", "2026-06-30T09:52:13"),
        ("You can resume using this model at 6/7/2026, 11:52:13 AM.", "2026-07-06T09:52:13"),
        ("resets Monday at 9am", "2026-06-29T07:00"),
        ("resets Wednesday 9am", "2026-07-01T07:00"),
        ("resets Wed 5 pm", "2026-06-24T15:00"),
        ("resets tomorrow at 3am", "2026-06-25T01:00"),
        # A length of time.
        ("try again in 2 days 3 hours 5 minutes", "2026-06-26T13:05"),
        ("or try again in 5 days 22 hours 11\nminutes.", "2026-06-30T08:11"),
        ("Suggested retry after 3600s.", "2026-06-24T11:00"),
        ("Please retry in 34.07s", "2026-06-24T10:00:34.070"),
        ("Please try again in 1m12.5s. Visit https://x.test/rate-limits", "2026-06-24T10:01:12.500"),
        ("Please try again in 6ms.", "2026-06-24T10:00:00.006"),
        ("reset in 1h30m", "2026-06-24T11:30"),
        ("Your quota will reset after 42h1m20s.", "2026-06-26T04:01:20"),
        ("Resets in 3h 55m (Jun 9, 1:20am UTC)", "2026-06-24T13:55"),
        ("reset in 02:13:00", "2026-06-24T12:13"),
        ("Please wait 3 hours and 12 minutes before trying again", "2026-06-24T13:12"),
        ("try again in an hour", "2026-06-24T11:00"),
        ("x-ratelimit-reset-tokens: 6m0s", "2026-06-24T10:06"),
        ('{"@type": "RetryInfo", "retryDelay": "34s"}', "2026-06-24T10:00:34"),
        # Numbers and headers.
        ("Retry-After: 120", "2026-06-24T10:02"),
        ('{"retryAfterMs": 34000}', "2026-06-24T10:00:34"),
        ('"resets_in_seconds":13872}', "2026-06-24T13:51:12"),
        ('{"resets_at":1782300000,"resets_in_seconds":13872}', "2026-06-24T11:20"),
        ('{"resetsAt": 1782300000000}', "2026-06-24T11:20"),
        ("Claude AI usage limit reached|1782300000", "2026-06-24T11:20"),
        ("Retry-After: Wed, 24 Jun 2026 11:28:00 GMT", "2026-06-24T11:28"),
        ("retry-after: Wednesday, 24-Jun-26 11:28:00 GMT", "2026-06-24T11:28"),
        ("retry after Wed Jun 24 11:28:00 2026", "2026-06-24T11:28"),
        ("anthropic-ratelimit-requests-reset: 2026-06-24T11:00:00Z", "2026-06-24T11:00"),
        ("resets at 2026-06-24T23:00:00.250+09:00", "2026-06-24T14:00:00.250"),
        ("resets 2026-06-24 15:00", "2026-06-24T13:00"),
        ("resets 2026-06-25 15:00:00 UTC", "2026-06-25T15:00"),
        ("resets 2026-06-25 15:00:00 +0000 UTC", "2026-06-25T15:00"),
        # What is said to be past is over.
        ("resets at 2026-06-24T09:00:00Z", "2026-06-24T09:00"),
        # The first one that is announced; other numbers are none.
        ("Limit 30000, Used 29500, Requested 2000. Please try again in 3s.", "2026-06-24T10:00:03"),
        ("resets 3pm; your weekly limit resets Jun 29, 3am", "2026-06-24T13:00"),
    ],
)
def test_the_end_of_a_limit_is_read_from_a_final_message(text: str, moment: str) -> None:
    assert reset_time(text, NOW, BERLIN) == _at(moment)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "try again later",
        "You've hit your usage limit. Visit https://x.test/usage to purchase more credits.",
        "the meeting is at 3pm",
        "limit of 50 requests; resets every 5 hours",
        "connection reset by peer after 30s",
        "try again at 10 de jul. de 2026, 11:52",
        "retry in 5 month",
        "retrying, attempt 3 of 10",
        "resets 0",
        '"resets_at": 0',
        "resets at 25:00",
        "resets at 12:60",
        "resets Feb 31, 3am",
        "resets 2026-13-01",
        "try again in 99999999999999999999 days",
        "resets at 9999999999",
        "preset 3pm",
        "no limit here: 3pm (Asia/Seoul)",
    ],
)
def test_no_end_is_made_up(text: str) -> None:
    assert reset_time(text, NOW, BERLIN) is NEVER


@pytest.mark.parametrize(
    ("text", "now", "zone", "moment"),
    [
        # 2026-03-29 02:30 does not exist in Berlin; 2026-10-25 02:30 comes twice.
        ("resets 2:30am", "2026-03-28T23:00", BERLIN, "2026-03-29T01:30"),
        ("resets 2:30am", "2026-10-24T23:00", BERLIN, "2026-10-25T01:30"),
        ("resets 2:30am", "2026-10-25T00:45", BERLIN, "2026-10-25T01:30"),
        ("resets Mar 29, 2:30am (Europe/Berlin)", "2026-03-25T00:00", UTC, "2026-03-29T01:30"),
        ("resets 2026-10-25 02:30 (Europe/Berlin)", "2026-10-25T00:00", UTC, "2026-10-25T01:30"),
        ("resets 1am (Europe/Berlin)", "2026-03-28T23:30", UTC, "2026-03-29T00:00"),
        ("resets 3am (Europe/Berlin)", "2026-03-29T00:30", UTC, "2026-03-29T01:00"),
        # The day is the one that it is there.
        ("resets 1am (Pacific/Kiritimati)", "2026-06-24T10:30", UTC, "2026-06-24T11:00"),
        ("resets 11pm (Pacific/Pago_Pago)", "2026-06-24T10:30", UTC, "2026-06-25T10:00"),
        # Around the turn of the year, and a leap day.
        ("resets Jan 1, 12am (UTC)", "2026-12-31T23:59", UTC, "2027-01-01T00:00"),
        ("resets Dec 31, 11pm (UTC)", "2027-01-01T00:10", UTC, "2026-12-31T23:00"),
        ("resets 12am (UTC)", "2027-01-01T00:01", UTC, "2027-01-01T00:01"),
        ("resets Feb 29, 3am (UTC)", "2028-01-10T00:00", UTC, "2028-02-29T03:00"),
        # An aware time in another zone is the same time.
        ("resets 3pm (UTC)", "2026-06-24T10:00", UTC, "2026-06-24T15:00"),
    ],
)
def test_clock_changes_and_borders_of_days(text: str, now: str, zone: tzinfo, moment: str) -> None:
    assert reset_time(text, _at(now), zone) == _at(moment)


def test_a_leap_second_does_not_end_anything() -> None:
    assert reset_time("resets at 2026-06-30T23:59:60Z", NOW, UTC) is None


@pytest.mark.parametrize(
    "text",
    [
        "You've hit your limit · resets 1pm (Asia/Seoul)",
        "You\u2019ve hit your session limit",
        "You've reached your usage limit.",
        "You've hit your Opus weekly limit",
        "5-hour limit reached ∙ resets 3pm",
        "Claude AI usage limit reached|1782300000",
        "429 Too Many Requests",
        "429 {'error': 'slow down'}",
        "exceeded retry limit, last status: 429",
        "API Error: 429",
        'API Error: 429 {"type":"error","error":{"type":"rate_limit_error"}}',
        "Rate limit reached for gpt-5 on tokens per min (TPM)",
        "rate-limited by the provider",
        "RESOURCE_EXHAUSTED (code 429)",
        "You have exhausted your capacity on this model. Your quota will reset after 42h1m20s.",
        "exhausted your daily quota",
        "You exceeded your current quota, please check your plan and billing details. Please retry in 34.07s.",
        "ThrottlingException: slow down",
    ],
)
def test_a_limit_is_known_by_many_words(text: str) -> None:
    assert is_limit(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "exit code 1",
        "You exceeded your current quota, please check your plan and billing details.",
        "insufficient_quota",
        "Your credit balance is too low",
        "maximum context limit reached",
        "exceeded the context length limit",
        "reached the turn limit",
        "exceeded its output token limit",
        "error at line 429",
        "connection reset by peer",
        "the model is overloaded",
        "401 Unauthorized",
        "wrote 4290 bytes",
    ],
)
def test_other_troubles_are_no_limit(text: str) -> None:
    assert not is_limit(text)


@pytest.mark.parametrize(
    "word", ["reset ", "retry 1 h ", "wait jan ", "1h", "hit your a-", "429", "try again at 3:", "("]
)
def test_no_text_takes_long_to_read(word: str) -> None:
    text = word * 200_000
    began = watch.process_time()
    reset_time(text, NOW, BERLIN)
    is_limit(text)
    assert watch.process_time() - began < 2


@pytest.mark.parametrize(
    ("hits", "minutes"), [(0, 1), (1, 1), (2, 2), (3, 5), (4, 10), (5, 20), (6, 30), (7, 30), (10**9, 30)]
)
def test_without_a_known_end_the_wait_grows_with_each_limit(hits: int, minutes: int) -> None:
    assert wait_until(None, NOW, hits=hits) == NOW + timedelta(minutes=minutes)


@pytest.mark.parametrize(
    ("ends_in", "wait"),
    [
        (timedelta(hours=1), timedelta(hours=1, minutes=1)),
        (timedelta(seconds=30), timedelta(seconds=90)),
        (timedelta(0), timedelta(seconds=60)),
        (-timedelta(seconds=30), timedelta(seconds=60)),
        (-timedelta(days=900), timedelta(seconds=60)),
        (timedelta(hours=23, minutes=59), timedelta(hours=24)),
        (timedelta(days=6), timedelta(hours=24)),
        (timedelta(days=300_000), timedelta(hours=24)),
    ],
)
def test_a_known_end_is_waited_for_within_bounds(ends_in: timedelta, wait: timedelta) -> None:
    assert wait_until(NOW + ends_in, NOW, hits=3) == NOW + wait


def test_the_bounds_of_a_wait_are_the_operators() -> None:
    end = NOW + timedelta(hours=3)
    assert wait_until(end, NOW, hits=1, margin=5, longest=99999) == end + timedelta(seconds=5)
    assert wait_until(None, NOW, hits=6, longest=300) == NOW + timedelta(minutes=5)
    assert wait_until(None, NOW, hits=1, least=90) == NOW + timedelta(seconds=90)
