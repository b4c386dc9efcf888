import json
from datetime import timedelta
from pathlib import Path

import pytest

from run_cycle_loop.model.errors import StateError
from run_cycle_loop.model.records import timestamp
from run_cycle_loop.policies.consent import fold
from run_cycle_loop.stores.audit import AuditChain
from run_cycle_loop.stores.consent_audit import ConsentAudit
from run_cycle_loop.testing import NOON


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "consent_audit.jsonl"


@pytest.fixture
def other(path: Path) -> AuditChain:
    """Somebody else's hold on the same file."""
    return AuditChain(path, lambda: NOON)


@pytest.fixture
def audit(path: Path) -> ConsentAudit:
    return ConsentAudit(path, lambda: NOON)


def grant(chain: AuditChain, name: str) -> None:
    facts = {"grant": name, "until": timestamp(NOON + timedelta(hours=8)), "reason": "nightly", "by": "me"}
    chain.append("grant", facts)


def test_it_comes_to_the_same_as_all_entries_however_often_and_late_it_is_asked(
    audit: ConsentAudit, other: AuditChain
) -> None:
    assert audit.standing() == fold([])
    for number in range(4):
        grant(other, f"g{number}")
        other.append("cycle", {"cycle_id": f"c{number}", "grant": f"g{number}"})
        assert audit.standing() == fold(other.entries())
        assert audit.standing(besides=f"c{number}") == fold(other.entries(), besides=f"c{number}")
        audit.append("cycle_finished", {"cycle_id": f"c{number}", "launched": number % 2 == 0})
        other.append("revoke", {"grant": "g1", "reason": "enough"})
    assert audit.standing() == fold(other.entries())


def test_a_torn_end_is_left_out_and_what_follows_it_is_seen(audit: ConsentAudit, other: AuditChain, path: Path) -> None:
    grant(other, "g")
    assert len(audit.standing().grants) == 1
    with path.open("ab") as file:
        file.write(b'{"seq":')
    assert len(audit.standing().grants) == 1
    grant(other, "h")
    assert [item.id for item in audit.standing().grants] == ["g", "h"]


def test_a_byte_that_was_changed_in_what_was_checked_before_is_noticed(
    audit: ConsentAudit, other: AuditChain, path: Path
) -> None:
    grant(other, "g")
    grant(other, "h")
    assert audit.standing().live(NOON) is not None
    before = path.stat()
    path.write_bytes(path.read_bytes().replace(b"nightly", b"knightl", 1))
    assert (path.stat().st_size, path.stat().st_ino) == (before.st_size, before.st_ino)
    for _ in range(2):
        with pytest.raises(StateError, match="broken at line 1: its content is not what its hash says"):
            audit.standing()


def test_a_chain_that_was_cut_is_noticed(audit: ConsentAudit, other: AuditChain, path: Path) -> None:
    grant(other, "g")
    other.append("revoke", {"grant": "g", "reason": "enough"})
    assert audit.standing().live(NOON) is None
    path.write_bytes(path.read_bytes().splitlines(keepends=True)[0])
    with pytest.raises(StateError, match="it ends after 1 entries, and there were 2"):
        audit.standing()


def test_a_chain_that_begins_anew_counts_nothing_of_the_old_one(
    audit: ConsentAudit, other: AuditChain, path: Path
) -> None:
    grant(other, "old")
    assert [item.id for item in audit.standing().grants] == ["old"]
    path.rename(path.with_name("moved"))
    other.head_path.rename(other.head_path.with_name("moved.head"))
    assert audit.standing() == fold([])
    grant(other, "new")
    assert [item.id for item in audit.standing().grants] == ["new"]


def test_an_entry_that_is_forged_behind_what_was_checked_is_noticed(
    audit: ConsentAudit, other: AuditChain, path: Path
) -> None:
    grant(other, "g")
    audit.standing()
    forged = json.loads(path.read_bytes()) | {"seq": 2, "grant": "forged"}
    with path.open("ab") as file:
        file.write(json.dumps(forged, separators=(",", ":")).encode() + b"\n")
    with pytest.raises(StateError, match="broken at line 2"):
        audit.standing()
