"""The command group, on a state directory of a test."""

import json
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from run_cycle_loop.cli.consent import consent
from run_cycle_loop.model.errors import RunCycleLoopError, StateError


class Desk:
    """Where somebody types commands; what they raise is what ``main`` makes a sentence and an exit code of."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def say(self, *arguments: str) -> Result:
        options = ("--state-dir", str(self.folder / "state"), "--config", "none")
        found = CliRunner().invoke(consent, [*arguments, *options], standalone_mode=False)
        if found.exception is not None:
            raise found.exception
        return found

    @property
    def audit(self) -> Path:
        return self.folder / "state" / "consent_audit.jsonl"

    def grant(self, *more: str) -> str:
        """The id of a new grant."""
        return self.say("grant", "--until", "24h", "--reason", "nightly refactor", *more).output.split()[1]


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def test_a_grant_is_listed_with_who_gave_it_and_verified(desk: Desk) -> None:
    name = desk.grant("--max-cycles", "40", "--for-agent", "codex")
    (listed,) = json.loads(desk.say("list", "--json").stdout)
    assert (listed["id"], listed["state"], listed["max_cycles"], listed["agents"]) == (name, "live", 40, ["codex"])
    assert listed["reason"] == "nightly refactor"
    assert "uid" in listed["by"]
    assert listed["by"].endswith("no terminal")
    verified = desk.say("verify")
    assert (verified.return_value, verified.output[:22]) == (0, "1 entry, chain whole, ")


def test_the_setting_agent_narrows_a_grant_and_never_widens_it(desk: Desk) -> None:
    desk.grant("--agent", "claude")
    assert json.loads(desk.say("list", "--json").stdout)[0]["agents"] == ["claude"]


def test_a_time_can_be_written_out(desk: Desk) -> None:
    with pytest.raises(click.BadParameter, match="over before it begins"):
        desk.say("grant", "--until", "2020-01-31T08:00", "--reason", "x")


@pytest.mark.parametrize(
    ("until", "reason", "why"),
    [
        ("31d", "x", "longer than 30 days"),
        ("0", "x", "over before it begins"),
        ("soon", "x", "neither a duration"),
        ("24h", " \t", "is blank"),
        ("24h", "x" * 501, "longer than 500"),
    ],
)
def test_what_is_no_grant_is_refused_and_not_noted(desk: Desk, until: str, reason: str, why: str) -> None:
    with pytest.raises(click.BadParameter, match=why):
        desk.say("grant", "--until", until, "--reason", reason)
    assert not desk.audit.exists()


def test_a_reason_cannot_drive_a_terminal(desk: Desk) -> None:
    desk.say("grant", "--until", "1h", "--reason", "a\x1b[2Jb\nc")
    assert json.loads(desk.say("list", "--json").stdout)[0]["reason"] == "ab c"


def test_one_grant_or_all_of_them_are_revoked(desk: Desk) -> None:
    first, _, _ = desk.grant(), desk.grant(), desk.grant()

    def states() -> list[str]:
        return [item["state"] for item in json.loads(desk.say("list", "--json").stdout)]

    desk.say("revoke", first, "--reason", "enough")
    assert states() == ["revoked", "live", "live"]
    desk.say("revoke", "--all", "--reason", "enough")
    assert states() == ["revoked"] * 3
    with pytest.raises(RunCycleLoopError, match="is revoked already"):
        desk.say("revoke", first, "--reason", "again")
    with pytest.raises(RunCycleLoopError, match="does not exist"):
        desk.say("revoke", "nobody", "--reason", "x")
    with pytest.raises(RunCycleLoopError, match="no consent to revoke"):
        desk.say("revoke", "--all", "--reason", "x")


@pytest.mark.parametrize("arguments", [(), ("x", "--all")])
def test_to_revoke_takes_one_name_or_all(desk: Desk, arguments: tuple[str, ...]) -> None:
    with pytest.raises(click.UsageError, match="--all"):
        desk.say("revoke", *arguments, "--reason", "x")


def test_a_broken_audit_is_told_with_its_line_and_takes_nothing_more(desk: Desk) -> None:
    desk.grant()
    desk.grant()
    desk.audit.write_bytes(desk.audit.read_bytes().replace(b"nightly", b"daily!!", 1))
    found = desk.say("verify")
    assert found.return_value == 1
    assert "is broken at line 1" in found.output
    assert json.loads(desk.say("verify", "--json").stdout)["ok"] is False
    with pytest.raises(StateError, match="line 1"):
        desk.say("list")
    with pytest.raises(StateError, match="line 1"):
        desk.say("revoke", "--all", "--reason", "x")


def test_a_table_fits_the_terminal(desk: Desk) -> None:
    assert "none was ever granted" in desk.say("list").output
    desk.grant(*(word for name in ("claude", "codex", "gemini", "opencode") for word in ("--for-agent", name)))
    assert all(len(line) <= 100 for line in desk.say("list").output.splitlines())


def test_there_is_nothing_to_verify_at_first(desk: Desk) -> None:
    assert desk.say("verify").output == "0 entries, chain whole, head none yet\n"
    assert not desk.audit.parent.exists()
