from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from run_cycle_loop.model.records import timestamp
from run_cycle_loop.policies.consent import HOW_TO_GRANT, fold, live_grant, summary, why_not, why_refused

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)
Entry = Mapping[str, Any]


def hours(number: float) -> datetime:
    return NOON + timedelta(hours=number)


def granted(name: str = "g", at: float = 0, until: float = 8, **more: Any) -> Entry:
    known: dict[str, Any] = {
        "event": "grant", "timestamp": timestamp(hours(at)), "grant": name, "until": timestamp(hours(until)),
        "reason": "nightly", "by": "ada", "max_cycles": None, "agents": [],
    }  # fmt: skip
    return {**known, **more}


def revoked(name: str | None = "g", at: float = 1) -> Entry:
    return {"event": "revoke", "timestamp": timestamp(hours(at)), "grant": name, "reason": "enough"}


def begun(cycle: str, at: float = 1, name: str | None = "g") -> Entry:
    return {"event": "cycle", "timestamp": timestamp(hours(at)), "cycle_id": cycle, "grant": name}


def finished(cycle: str, at: float = 1, *, launched: bool = True, name: str | None = "g") -> Entry:
    return {**begun(cycle, at, name), "event": "cycle_finished", "launched": launched}


@pytest.mark.parametrize(
    ("entries", "at", "why"),
    [
        ([], 1, "no consent to unattended agents was ever granted"),
        ([granted()], 8, "consent g expired at 2026-01-02 20:00"),
        ([granted()], 100, "consent g expired at 2026-01-02 20:00"),
        ([granted()], -1, "consent g begins only at 2026-01-02 12:00, so the clock was set back"),
        ([granted(), revoked()], 2, "consent g was revoked at 2026-01-02 13:00 (enough)"),
        ([granted(), revoked(None)], 2, "consent g was revoked"),
        ([granted(max_cycles=0)], 1, "consent g is used up, 0 of 0 cycles"),
        ([granted(max_cycles=2), begun("a"), begun("b")], 2, "consent g is used up, 2 of 2 cycles"),
        ([granted(max_cycles=1), begun("a"), finished("a")], 2, "consent g is used up, 1 of 1 cycle"),
        ([granted(max_cycles=1), finished("a")], 2, "consent g is used up, 1 of 1 cycle"),
        ([granted(), begun("a", at=9)], 1, "consent g expired"),
        ([granted(agents=["claude"])], 1, "consent g is for claude and not for codex"),
    ],
)
def test_without_a_live_grant_one_sentence_says_why(entries: list[Entry], at: float, why: str) -> None:
    assert live_grant(entries, hours(at), "codex") is None
    said = why_not(entries, hours(at), "codex")
    assert said.startswith(why)
    assert said.endswith(f"; {HOW_TO_GRANT}")


@pytest.mark.parametrize(
    "entries",
    [
        [granted()],
        [granted(), revoked("other")],
        [granted(max_cycles=1), begun("a"), finished("a", launched=False)],
        [granted(max_cycles=2), begun("a"), begun("a"), finished("a"), finished("a")],
        [granted(max_cycles=1), begun("a", name="other"), begun("b", name=None)],
        [granted(agents=["claude", "codex"])],
        [granted("old"), revoked("old"), granted(at=1.5)],
        [granted("old"), begun("a", at=900), granted()],
        [{"event": "unheard of"}, granted(), {}],
    ],
)
def test_a_live_grant_is_found(entries: list[Entry]) -> None:
    found = live_grant(entries, hours(2), "codex")
    assert found is not None
    assert found.id == "g"


def test_an_older_grant_holds_where_the_newest_does_not() -> None:
    entries = [granted("long", until=24), granted("short", at=1, until=2)]
    assert [found and found.id for at in (1.5, 3, 25) for found in [live_grant(entries, hours(at))]] == [
        "short", "long", None,
    ]  # fmt: skip


def test_a_cycle_does_not_use_up_what_it_is_itself_checked_for() -> None:
    entries = [granted(max_cycles=1), begun("mine")]
    assert fold(entries, besides="mine").live(hours(2)) is not None
    assert fold(entries).live(hours(2)) is None
    assert fold(entries).noted == {"mine": "g"}


@pytest.mark.parametrize(
    "change",
    [
        {"until": None}, {"until": "tomorrow"}, {"until": "2026-01-02T20:00:00"}, {"timestamp": "x"}, {"grant": None},
        {"grant": ""}, {"max_cycles": -1}, {"max_cycles": "many"}, {"max_cycles": True}, {"agents": "codex"},
        {"agents": [1]}, {"reason": 3}, {"until": timestamp(hours(0))}, {"until": timestamp(hours(24 * 30 + 1))},
    ],
)  # fmt: skip
def test_a_grant_that_cannot_be_understood_is_none(change: Entry) -> None:
    assert fold([{**granted(), **change}]).grants == ()


def test_the_same_grant_again_changes_nothing() -> None:
    (found,) = fold([granted(), granted(at=1, until=24)]).grants
    assert found.until == hours(8)


@pytest.mark.parametrize(
    ("granted_at", "until", "why"),
    [
        (0, 24, None),
        (0, 24 * 30, None),
        (1, 24, "cannot begin in the future"),
        (0, 0, "would be over before it begins"),
        (0, -5, "would be over before it begins"),
        (0, 24 * 30 + 0.01, "longer than 30 days"),
    ],
)
def test_what_cannot_be_granted_is_refused(granted_at: float, until: float, why: str | None) -> None:
    found = why_refused(granted_at=hours(granted_at), until=hours(until), now=NOON)
    assert (found is None) == (why is None)
    assert why is None or why in (found or "")


def test_a_live_grant_in_a_few_words() -> None:
    (found,) = fold([granted(max_cycles=40), begun("a"), begun("b"), begun("c")]).grants
    assert summary(found, hours(1)) == "until 20:00 (in 7h), 3 of 40 cycles used: nightly"
