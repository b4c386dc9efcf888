"""Provider failures in logs: which lines count, and which come first."""

import pytest

from run_cycle_loop.agentrun.lifecycle.failures import AUTH, CAPACITY, LINES, provider_failure


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("error: token_expired", AUTH),
        ("OAuth error invalid_grant", AUTH),
        ("Grant not found", AUTH),
        ("your refresh token was already used", AUTH),
        ("the access token could not be refreshed", AUTH),
        ("401: Expired token", AUTH),
        ("Missing bearer authentication", AUTH),
        ("ChatGPT authentication required", AUTH),
        ("You've hit your usage limit.", CAPACITY),
        ("insufficient_quota", CAPACITY),
        ("insufficient quota", CAPACITY),
        ("Quota exceeded for metric", CAPACITY),
        ("HTTP 429: rate limited", CAPACITY),
        ("Rate limit reached", CAPACITY),
        ("Resource has been exhausted (e.g. check quota).", CAPACITY),
    ],
)
def test_a_line_of_the_provider_s_is_known(line: str, reason: str) -> None:
    found = provider_failure(["before", line, "after"])
    assert found is not None
    assert (found.reason, found.line) == (reason, line)
    assert repr(line) in found.message


@pytest.mark.parametrize("line", ["", "all tests pass", "unlimited usage", "the rate of limits", "token refreshed"])
def test_other_lines_are_nothing(line: str) -> None:
    assert provider_failure([line]) is None


def test_a_login_comes_before_a_quota_and_the_first_line_counts() -> None:
    found = provider_failure(["rate limit", "invalid_grant one", "invalid_grant two"])
    assert found is not None
    assert (found.reason, found.line) == (AUTH, "invalid_grant one")


def test_only_the_end_of_a_log_counts() -> None:
    assert provider_failure(["rate limit", *["."] * (LINES - 1)]) is not None
    assert provider_failure(["rate limit", *["."] * LINES]) is None


def test_a_long_line_is_cut() -> None:
    found = provider_failure(["rate limit " + "x" * 1000])
    assert found is not None
    assert len(found.line) < 250
