import hashlib
import json
import multiprocessing
import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from run_cycle_loop.model.errors import StateError
from run_cycle_loop.stores.audit import FIRST, AuditChain
from tests.obstacles import OBSTACLES, plant

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "consent_audit.jsonl"


@pytest.fixture
def warnings() -> list[str]:
    return []


@pytest.fixture
def chain(path: Path, warnings: list[str]) -> AuditChain:
    return AuditChain(path, lambda: NOON, warnings.append)


@pytest.fixture
def five(chain: AuditChain) -> AuditChain:
    for number in range(1, 6):
        chain.append("cycle", {"cycle_id": f"c{number}", "text": "grün \ud800"})
    return chain


def seqs(chain: AuditChain) -> list[int]:
    return [entry["seq"] for entry in chain.entries()]


def sealed(body: dict[str, Any]) -> bytes:
    """A line whose hash fits its content, as anybody can make one."""
    canonical = json.dumps(body, sort_keys=True, separators=(",", ":"))
    return json.dumps(body | {"hash": hashlib.sha256(canonical.encode()).hexdigest()}, separators=(",", ":")).encode()


def test_an_entry_names_the_hash_of_the_one_before(chain: AuditChain, path: Path) -> None:
    first = chain.append("grant", {"grant": "g"})
    second = chain.append("revoke", {"grant": "g"})
    assert list(first) == ["seq", "timestamp", "event", "grant", "previous", "hash"]
    assert (first["previous"], second["previous"]) == (FIRST, first["hash"])
    assert path.read_bytes().splitlines() == [
        sealed({key: value for key, value in entry.items() if key != "hash"}) for entry in (first, second)
    ]
    assert list(chain.entries()) == [first, second]


def test_both_files_are_private(five: AuditChain, path: Path) -> None:
    assert [file.stat().st_mode & 0o777 for file in (path, five.head_path)] == [0o600, 0o600]


def test_a_chain_that_was_never_begun_has_no_entries(chain: AuditChain, path: Path) -> None:
    assert seqs(chain) == []
    assert not path.parent.exists()


def _change(line: bytes, old: bytes, new: bytes) -> bytes:
    assert old in line
    return line.replace(old, new)


def _forged(lines: list[bytes]) -> bytes:
    last = json.loads(lines[-1])
    return sealed({"seq": 6, "timestamp": last["timestamp"], "event": "grant", "previous": last["previous"]})


TAMPERING: dict[str, tuple[Callable[[list[bytes]], list[bytes]], int]] = {
    "a changed byte": (lambda all_: [*all_[:2], _change(all_[2], b"c3", b"c9"), *all_[3:]], 3),
    "a changed byte in the first": (lambda all_: [_change(all_[0], b"cycle", b"grant"), *all_[1:]], 1),
    "a changed byte in the last": (lambda all_: [*all_[:4], _change(all_[4], b"c5", b"c9")], 5),
    "a changed hash": (lambda all_: [*all_[:2], all_[2][:-3] + b'0"}', *all_[3:]], 3),
    "a blank within a line": (lambda all_: [*all_[:2], _change(all_[2], b'{"seq"', b'{ "seq"'), *all_[3:]], 3),
    "a key twice": (lambda all_: [*all_[:2], _change(all_[2], b'{"seq":3', b'{"seq":9,"seq":3'), *all_[3:]], 3),
    "a line removed from the middle": (lambda all_: [*all_[:2], *all_[3:]], 3),
    "the first line removed": (lambda all_: all_[1:], 1),
    "swapped lines": (lambda all_: [all_[0], all_[2], all_[1], *all_[3:]], 2),
    "one line cut off": (lambda all_: all_[:4], 5),
    "three lines cut off": (lambda all_: all_[:2], 3),
    "everything cut off": (lambda _all: [], 1),
    "a forged line behind": (lambda all_: [*all_, _forged(all_)], 6),
    "two lines behind that the head does not know": (
        lambda all_: [*all_, *_continued(all_, 2)],
        6,
    ),
    "a line twice": (lambda all_: [*all_, all_[4]], 6),
    "a line twice in the middle": (lambda all_: [*all_[:3], all_[2], *all_[3:]], 4),
    "a blank line": (lambda all_: [*all_[:2], b"", *all_[2:]], 3),
    "nonsense": (lambda all_: [*all_[:2], b"\xff\x00", *all_[3:]], 3),
    "deep nesting": (lambda all_: [*all_[:2], b"[" * 50_000, *all_[3:]], 3),
    "a line without end": (lambda all_: [*all_[:2], b"x" * 200_000, *all_[3:]], 3),
    "a whole new chain": (lambda _all: _continued([], 5), 5),
}


def _continued(lines: list[bytes], more: int) -> list[bytes]:
    """Further lines, chained rightly."""
    previous, number = (json.loads(lines[-1])["hash"], len(lines)) if lines else (FIRST, 0)
    made = []
    for seq in range(number + 1, number + more + 1):
        made.append(sealed({"seq": seq, "timestamp": "x", "event": "cycle", "previous": previous}))
        previous = json.loads(made[-1])["hash"]
    return made


@pytest.mark.parametrize("how", TAMPERING)
def test_tampering_is_noticed_at_its_line(five: AuditChain, path: Path, how: str) -> None:
    tamper, line = TAMPERING[how]
    path.write_bytes(b"".join(item + b"\n" for item in tamper(path.read_bytes().splitlines())))
    with pytest.raises(StateError, match=f"is broken at line {line}: "):
        seqs(five)


@pytest.mark.parametrize(
    "how",
    [
        "a changed byte in the last",
        "one line cut off",
        "everything cut off",
        "a forged line behind",
        "a line twice",
        "two lines behind that the head does not know",
        "a whole new chain",
    ],
)
def test_nothing_is_appended_to_a_broken_end(five: AuditChain, path: Path, how: str) -> None:
    path.write_bytes(b"".join(item + b"\n" for item in TAMPERING[how][0](path.read_bytes().splitlines())))
    before = path.read_bytes()
    with pytest.raises(StateError, match="is broken at line"):
        five.append("cycle", {})
    assert path.read_bytes() == before


def test_a_removed_file_beside_its_head_is_a_cut(five: AuditChain, path: Path) -> None:
    path.unlink()
    with pytest.raises(StateError, match="line 1: it ends after 0 entries, and there were 5"):
        seqs(five)
    with pytest.raises(StateError, match="line 1"):
        five.append("cycle", {})


def test_a_newline_cut_off_the_last_line_is_a_cut_and_changes_nothing(five: AuditChain, path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])
    before = path.read_bytes()
    for look in (lambda: seqs(five), lambda: five.append("cycle", {})):
        with pytest.raises(StateError, match="line 5: it ends after 4 entries"):
            look()
    assert path.read_bytes() == before


def test_a_removed_head_is_noticed_from_the_second_entry_on(five: AuditChain) -> None:
    five.head_path.unlink()
    with pytest.raises(StateError, match="knows only 0 entries"):
        seqs(five)


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"seq":"5","hash":"x"}', b"x" * 5000, b"\xff"])
def test_a_damaged_head_is_no_head(five: AuditChain, content: bytes) -> None:
    five.head_path.write_bytes(content)
    with pytest.raises(StateError, match="is damaged"):
        seqs(five)
    with pytest.raises(StateError, match="is damaged"):
        five.append("cycle", {})


def test_a_head_one_entry_behind_is_what_a_crash_leaves(five: AuditChain, path: Path) -> None:
    head = five.head_path.read_bytes()
    five.append("cycle", {})
    five.head_path.write_bytes(head)
    assert seqs(five) == [1, 2, 3, 4, 5, 6]
    five.append("cycle", {})
    five.append("cycle", {})
    assert seqs(AuditChain(path, lambda: NOON)) == [1, 2, 3, 4, 5, 6, 7, 8]


@pytest.mark.parametrize("torn", [b'{"seq":6', b"\0" * 4096, b"x" * 200_000])
def test_a_torn_last_line_is_moved_aside_and_said(
    five: AuditChain, path: Path, warnings: list[str], torn: bytes
) -> None:
    size = path.stat().st_size
    with path.open("ab") as file:
        file.write(torn)
    assert seqs(five) == [1, 2, 3, 4, 5]
    five.append("cycle", {})
    copy = path.with_name(f"consent_audit.jsonl.torn-{size}")
    assert (seqs(five), copy.read_bytes()) == ([1, 2, 3, 4, 5, 6], torn)
    assert warnings == [f"{len(torn)} torn bytes of {path} were moved to {copy}"]


@pytest.mark.parametrize("kind", OBSTACLES)
@pytest.mark.parametrize("name", ["consent_audit.jsonl", "consent_audit.head"])
def test_what_is_no_regular_file_is_neither_written_nor_read(
    five: AuditChain, path: Path, kind: str, name: str
) -> None:
    victim = path.with_name("victim")
    victim.write_bytes(b"theirs")
    path.with_name(name).unlink()
    plant(kind, path.with_name(name), victim)
    with pytest.raises(StateError, match="cannot be"):
        five.append("cycle", {})
    with pytest.raises(StateError, match="cannot be"):
        seqs(five)
    assert victim.read_bytes() == b"theirs"


def test_a_file_that_others_can_write_is_not_believed(five: AuditChain, path: Path) -> None:
    path.chmod(0o620)
    with pytest.raises(StateError, match="others can write it"):
        seqs(five)
    with pytest.raises(StateError, match="others can write it"):
        five.append("cycle", {})


def test_an_entry_has_its_longest(chain: AuditChain, path: Path) -> None:
    with pytest.raises(StateError, match="too long"):
        chain.append("cycle", {"text": "x" * 100_000})
    assert path.read_bytes() == b""
    chain.append("cycle", {})
    assert seqs(chain) == [1]


def test_a_fact_cannot_pass_itself_off_as_the_hash(chain: AuditChain) -> None:
    with pytest.raises(ValueError, match="hash"):
        chain.append("cycle", {"hash": "x"})


def test_to_append_costs_the_same_however_long_the_chain_is(five: AuditChain, path: Path) -> None:
    lines = path.read_bytes()
    # A hole where a million entries would be: whoever reads it whole is still reading.
    with path.open("wb") as file:
        file.truncate(4 << 30)
        file.seek(0, os.SEEK_END)
        file.write(b"\n" + lines)
    assert five.append("cycle", {})["seq"] == 6


def _append_many(path: Path, count: int) -> None:
    chain = AuditChain(path, lambda: NOON)
    for _ in range(count):
        chain.append("cycle", {"pid": os.getpid()})


def test_two_processes_can_append_at_once(path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    writers = [spawn.Process(target=_append_many, args=(path, 40)) for _ in range(2)]
    for writer in writers:
        writer.start()
    chain, seen = AuditChain(path, lambda: NOON), 0
    while any(writer.is_alive() for writer in writers):
        now = len(seqs(chain))
        assert now >= seen
        seen = now
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0]
    assert seqs(chain) == list(range(1, 81))
    assert len({entry["pid"] for entry in chain.entries()}) == 2
