from pathlib import Path
from typing import Any

import pytest

from run_cycle_loop.runners.environment import Places, child_environment
from run_cycle_loop.testing import make_spec

PLACES = Places(state_dir=Path("state"), history_path=Path("/var/h.jsonl"), sandbox_dir=Path("sandbox"))
CALLER = {"PATH": "/bin", "HOME": "/root", "API_KEY": "k", "LC_ALL": "C", "LC_TIME": "C"}


def environment(
    allow: tuple[str, ...] | None, caller: dict[str, str] = CALLER, told: dict[str, str] | None = None, **spec: Any
) -> dict[str, str]:
    return child_environment(
        make_spec(cycle_id="abc", number=7, mode="m", goal="g", control_file="/control/abc.json", **spec),
        caller,
        allow=allow,
        cap_writes=3,
        told=PLACES.variables() | (told or {}),
    )


def test_a_cycle_is_told_who_it_is_by_absolute_paths() -> None:
    here = Path.cwd()
    assert environment(allow=()) == {
        "RUN_CYCLE_ID": "abc",
        "RUN_CYCLE_NUMBER": "7",
        "RUN_CYCLE_MODE": "m",
        "RUN_CYCLE_GOAL": "g",
        "RUN_CYCLE_CAP_WRITES": "3",
        "RUN_CYCLE_STATE_DIR": str(here / "state"),
        "RUN_CYCLE_HISTORY_PATH": "/var/h.jsonl",
        "RUN_CYCLE_SANDBOX_DIR": str(here / "sandbox"),
        "RUN_CYCLE_CONTROL_FILE": "/control/abc.json",
    }


@pytest.mark.parametrize(
    ("allow", "handed_on"),
    [
        (None, set(CALLER)),
        ((), set()),
        (("PATH",), {"PATH"}),
        (("PATH", "LC_*"), {"PATH", "LC_ALL", "LC_TIME"}),
        (("path", "NOT_THERE"), set()),
        (("*",), set(CALLER)),
    ],
)
def test_only_what_is_allowed_is_handed_on(allow: tuple[str, ...] | None, handed_on: set[str]) -> None:
    assert {name for name in environment(allow) if not name.startswith("RUN_CYCLE_")} == handed_on


def test_a_cycle_inside_of_a_cycle_is_told_its_own_facts() -> None:
    assert environment(None, {"RUN_CYCLE_ID": "outer", "RUN_CYCLE_MODE": "outer"})["RUN_CYCLE_ID"] == "abc"


@pytest.mark.parametrize("name", ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "MAINPID"])
def test_what_is_between_systemd_and_us_stays_there(name: str) -> None:
    assert name not in environment(("*",), {name: "1"})


def test_what_its_budget_has_left_is_told_where_there_is_a_budget() -> None:
    told = environment((), allowed_usd=0.1 + 0.2, allowed_tokens=12_345_678)
    assert (told["RUN_CYCLE_ALLOWED_USD"], told["RUN_CYCLE_ALLOWED_TOKENS"]) == ("0.3", "12345678")


def test_an_agents_settings_are_told_and_hide_nothing_of_the_cycles_own() -> None:
    told = environment((), told={"AGENT": "codex", "GOAL": "forged"})
    assert (told["RUN_CYCLE_AGENT"], told["RUN_CYCLE_GOAL"]) == ("codex", "g")
