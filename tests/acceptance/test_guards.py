"""Write caps against cycles that mean harm: what is found, what is put back, and what is parked."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.agents import GUARDED, SWIFT, hostile, make_tree, scripted
from tests.acceptance.place import Place, is_running, python, shell, wait_until
from tests.trees import clear, seen

FOUR = "for i in 1 2 3 4; do echo $i > tree/new-$i; done"
SECRET = "the operator's own\n"


@pytest.fixture
def tree(place: Place) -> Path:
    """The workdir, and beside it a victim."""
    root = place.path / "tree"
    make_tree(root)
    place.write("victim/page", SECRET)
    (place.path / "victim" / "page").chmod(0o640)
    return root


def finding(record: dict[str, Any]) -> dict[str, Any]:
    """What the write cap has to say of a cycle."""
    (found,) = [item for item in record["guards"] if item["guard"] == "write_cap"]
    return dict(found)


def parked(place: Place, record: dict[str, Any]) -> Path:
    """The folder in which a cycle's work is parked."""
    folder: Path = place.path / record["quarantine"]
    assert folder == place.path / "state" / "quarantine" / record["cycle_id"]
    return folder / "tree"


# One cycle, one attack: how many files it comes to at the least, and what is parked of it


ATTACKS: dict[str, tuple[str, int, dict[str, str]]] = {
    "too many files": (FOUR, 4, {"new-1": "1\n", "new-4": "4\n"}),
    "all in one folder": ("mkdir tree/n; cd tree/n; touch a b c; echo d > d", 4, {"n/d": "d\n"}),
    "changed in place": ("for i in 0 1 2 3; do echo changed > tree/file-$i; done", 4, {"file-3": "changed\n"}),
    "changed behind its times": (
        "cd tree; for i in 0 1 2 3; do cp -p file-$i ../t; echo FILE $i > file-$i; touch -r ../t file-$i; done",
        4,
        {"file-0": "FILE 0\n"},
    ),
    "modes": ("chmod 777 tree/file-*", 6, {}),
    "everything deleted": ("rm -rf tree/*", 10, {}),
    "the folder deleted": ("rm -rf tree", 10, {}),
    "the folder emptied and barred": ("rm -rf tree/*; chmod 0 tree", 10, {}),
    "the folder moved away": ("mv tree elsewhere", 10, {}),
    "the folder replaced by a link": ("mv tree elsewhere; ln -s victim tree", 10, {}),
    "the folder replaced by a file": ("rm -rf tree; echo ha > tree", 10, {}),
    "the folder replaced by a FIFO": ("rm -rf tree; mkfifo tree", 10, {}),
    "a link to somebody else's": (f"ln -s ../victim tree/v; ln -s ../victim/page tree/p; {FOUR}", 6, {"new-2": "2\n"}),
    "a folder replaced by a link": (f"mv tree/docs d; ln -s ../victim tree/docs; {FOUR}", 7, {"new-2": "2\n"}),
    "a file replaced by a folder": ("cd tree; for i in 0 1 2 3; do rm file-$i; mkdir file-$i; done", 4, {}),
    "no plain files": ("for i in 1 2 3 4; do mkfifo tree/pipe-$i; done", 4, {}),
    "odd names": ("cd tree; touch -- '-rf' 'a\nb' \"$(printf '\\377')\" ' '", 4, {"-rf": ""}),
    "barred": (f"mkdir tree/bar; touch tree/bar/x; {FOUR}; chmod 0 tree/bar tree/docs tree/new-1", 5, {"new-2": "2\n"}),
}  # fmt: skip


@pytest.mark.parametrize(("attack", "least", "kept"), ATTACKS.values(), ids=ATTACKS)
def test_enforced_it_fails_is_put_back_and_nothing_of_it_is_lost(
    place: Place, tree: Path, attack: str, least: int, kept: dict[str, str]
) -> None:
    before, victim = seen(tree), seen(place.path / "victim")
    assert place.run(*GUARDED, "--", *shell(attack)).returncode == 1
    (record,) = place.records
    assert seen(tree) == before
    assert seen(place.path / "victim") == victim
    assert (record["status"], record["return_code"]) == ("failed", 0)
    assert record["files_changed"] >= least
    assert (finding(record)["mode"], finding(record)["ok"]) == ("enforce", False)
    assert finding(record)["detail"].endswith("the tree is as it was")
    assert record["reason"].startswith("write_cap: ")
    there = parked(place, record)
    assert {name: (there / name).read_text() for name in kept} == kept


@pytest.mark.parametrize("attack", ["too many files", "everything deleted", "the folder replaced by a link"])
@pytest.mark.parametrize("mode", ["off", "warn"])
def test_not_enforced_it_is_told_at_most_and_left_as_it_is(place: Place, tree: Path, mode: str, attack: str) -> None:
    script, least, _ = ATTACKS[attack]
    before = seen(tree)
    assert place.run("--write-guard", mode, "--workdir", "tree", "--", *shell(script)).returncode == 0
    (record,) = place.records
    assert (record["status"], record["quarantine"]) == ("success", None)
    assert tree.is_symlink() or seen(tree) != before
    if mode == "off":
        assert (record["files_changed"], record["guards"]) == (None, [])
    else:
        assert record["files_changed"] >= least
        assert (finding(record)["mode"], finding(record)["ok"]) == ("warn", False)
    assert not place.has("state/quarantine")


@pytest.mark.parametrize(
    ("script", "options", "code"),
    [
        ("touch tree/a tree/b tree/c", (), 0),
        ("touch tree/a tree/b tree/c; rm tree/file-0", (), 1),
        ("mkdir -p tree/a/b/c/d/e", (), 0),  # a folder is no file
        ("touch tree/a", ("--cap-writes", "0"), 1),
        ("true", ("--cap-writes", "0"), 0),
        ("head -c 8192 /dev/zero > tree/a", ("--cap-bytes", "8KiB"), 0),
        ("head -c 8193 /dev/zero > tree/a", ("--cap-bytes", "8KiB"), 1),
        ("for i in $(seq 51); do touch tree/$i; done", ("--cap-writes", "50"), 1),
    ],
)
def test_up_to_the_cap_all_is_well_and_one_more_is_too_much(
    place: Place, tree: Path, script: str, options: tuple[str, ...], code: int
) -> None:
    before = seen(tree)
    assert place.run(*GUARDED, *options, "--", *shell(script)).returncode == code
    assert (seen(tree) == before) is (code == 1 or script == "true")


def test_no_cycle_after_it_finds_anything_of_it(place: Place, tree: Path) -> None:
    before = seen(tree)
    script = f"ls -A tree > seen-$RUN_CYCLE_NUMBER; {FOUR}; rm -rf tree/docs"
    assert place.run(*GUARDED, *SWIFT, "--iterations", "3", "--", *shell(script)).returncode == 1
    assert place.outcomes == ["failed"] * 3
    assert len({(place.path / f"seen-{number}").read_text() for number in (1, 2, 3)}) == 1
    assert seen(tree) == before
    assert len({parked(place, record) for record in place.records}) == 3
    assert all((parked(place, record) / "new-4").exists() for record in place.records)


def test_a_workdir_that_was_not_there_is_not_there_afterwards(place: Place) -> None:
    script = f"mkdir -p tree; {FOUR}"
    assert place.run("--write-guard", "enforce", "--sandbox-dir", "tree", "--", *shell(script)).returncode == 1
    assert not place.has("tree")
    assert (parked(place, place.records[0]) / "new-4").read_text() == "4\n"


def test_in_a_workdir_that_holds_the_loops_own_folders_these_are_left_alone(place: Place) -> None:
    make_tree(place.path / "docs")
    assert place.run("--write-guard", "warn", "--workdir", ".", "--", "true").returncode == 0  # and the logs are there
    found = place.run("--write-guard", "enforce", "--workdir", ".", "--", *shell("rm -r docs; touch more"))
    assert (found.returncode, place.outcomes) == (1, ["success", "failed"])
    assert finding(place.records[1])["detail"].endswith("the tree is as it was")
    assert (place.path / "docs" / "docs" / "page").read_text() == "page\n"
    assert not place.has("more")
    assert place.latest["seq"] == 2


@pytest.mark.usefixtures("tree")
def test_what_is_parked_is_described(place: Place) -> None:
    place.run(*GUARDED, "--", *shell(f"{FOUR}; rm tree/file-0; echo more >> tree/docs/page"))
    (record,) = place.records
    told = json.loads((parked(place, record).parent / "manifest.json").read_text())
    assert (told["cycle_id"], told["files"], told["bytes"]) == (
        record["cycle_id"],
        record["files_changed"],
        record["bytes_changed"],
    )
    assert sorted(told["created"]) == [f"new-{number}" for number in (1, 2, 3, 4)]
    assert (sorted(told["changed"]), sorted(told["deleted"])) == (["docs/page"], ["file-0"])
    assert parked(place, record).parent.stat().st_mode & 0o77 == 0


# While the cycle runs


ENDLESS: dict[str, tuple[str, tuple[str, ...]]] = {
    "many files": (f"{FOUR}; sleep 600", ()),
    "one by one": ("i=0; while :; do i=$((i+1)); echo > tree/n-$i; sleep 0.05; done", ()),
    "one giant sparse file": ("truncate -s 1T tree/giant; sleep 600", ()),
    "a file that grows": ("while :; do head -c 8K /dev/zero >> tree/n; sleep 0.01; done", ("--cap-bytes", "64KiB")),
    "a preallocated file": ("touch tree/hidden; fallocate -n -l 8M tree/hidden; sleep 600", ("--cap-bytes", "1MiB")),
    "deaf to TERM": (f"trap '' TERM; {FOUR}; while :; do sleep 0.05; done", ("--grace", "200ms")),
    "taken back at the end": (f"trap 'rm tree/new-*; exit 0' TERM; {FOUR}; while :; do sleep 0.05; done", ()),
    "everything deleted": ("rm -rf tree/*; sleep 600", ()),
    "by a child in a session of its own": (f"setsid sh -c '{FOUR}; exec sleep 600' & wait", ()),
}  # fmt: skip


@pytest.mark.parametrize(("script", "options"), ENDLESS.values(), ids=ENDLESS)
def test_a_cycle_over_its_cap_is_ended_while_it_runs(
    place: Place, tree: Path, script: str, options: tuple[str, ...]
) -> None:
    before = seen(tree)
    assert place.run(*GUARDED, *options, "--", *shell(script)).returncode == 1
    (record,) = place.records
    assert (record["status"], record["duration_seconds"] < 10) == ("failed", True)
    assert record["reason"].startswith("write_cap: ")
    assert seen(tree) == before
    assert parked(place, record).exists() or "rm " in script


def test_a_giant_file_is_parked_whole_and_takes_no_more_room_than_it_had(place: Place, tree: Path) -> None:
    place.run(*GUARDED, "--", *shell("truncate -s 1T tree/giant; echo end >> tree/giant; sleep 600"))
    (record,) = place.records
    giant = parked(place, record) / "giant"
    assert record["bytes_changed"] >= 1 << 40
    assert (giant.stat().st_size, giant.stat().st_blocks * 512 < 1 << 20) == ((1 << 40) + 4, True)
    assert not (tree / "giant").exists()


@pytest.mark.usefixtures("tree")
def test_a_cycle_that_is_only_warned_of_is_not_ended(place: Place) -> None:
    script = f"{FOUR}; i=0; while [ $i -lt 30 ]; do i=$((i+1)); sleep 0.05; done; touch through"
    assert place.run("--write-guard", "warn", "--workdir", "tree", "--", *shell(script)).returncode == 0
    assert place.has("through")


@pytest.mark.parametrize("how", ["setsid", "(setsid", "env -i setsid"], ids=["session", "double fork", "no variables"])
def test_no_survivor_writes_on_behind_the_verdict(place: Place, tree: Path, how: str) -> None:
    before = seen(tree)
    writer = "echo $$ > pid; i=0; while :; do i=$((i+1)); echo > tree/s-$((i % 50)); done"
    end = " &);" if how.startswith("(") else " &"
    script = f"{how} /bin/sh -c '{writer}' > /dev/null 2>&1{end} until [ -s pid ]; do sleep 0.01; done; {FOUR}"
    assert place.run(*GUARDED, "--", *shell(script)).returncode == 1
    (record,) = place.records
    assert not is_running(int(place.wait_for("pid")))
    assert record["leftovers"] >= 1
    assert finding(record)["detail"].endswith("the tree is as it was")
    assert seen(tree) == before


# A checkout as the workdir


@pytest.fixture
def checkout(place: Place, tree: Path) -> Path:
    """The tree under git, with one commit."""
    who = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false")
    for words in (("init", "-q", "-b", "main"), ("add", "-A"), ("commit", "-q", "-m", "first")):
        subprocess.run(["git", *who, *words], cwd=tree, check=True, env=place.env)
    return tree


def test_a_checkout_whose_git_folder_is_rewritten_is_whole_again(place: Place, checkout: Path) -> None:
    before = seen(checkout)
    script = f"""
{FOUR}; cd tree/.git; rm -rf objects logs; echo 'ref: refs/heads/other' > HEAD; mkdir -p hooks
printf '#!/bin/sh\\ntouch hooked\\n' > hooks/post-checkout; chmod +x hooks/post-checkout
printf '[core]\\n\\tfsmonitor = touch hooked\\n' >> config; rm index; ln -s /etc/passwd index
"""
    assert place.run(*GUARDED, "--", *shell(script)).returncode == 1
    assert seen(checkout) == before
    for words in (["fsck", "--strict"], ["diff", "--quiet", "HEAD"]):
        subprocess.run(["git", *words], cwd=checkout, check=True, env=place.env, capture_output=True)
    assert not list(place.path.rglob("hooked"))
    assert "fsmonitor" in (parked(place, place.records[0]) / ".git" / "config").read_text()


def test_a_commit_is_one_act_and_what_it_weighs_counts(place: Place, checkout: Path) -> None:
    who = "git -c user.name=a -c user.email=a@b -c commit.gpgsign=false"
    script = f"cd tree; date > new; {who} add -A; {who} commit -qm more"
    assert place.run(*GUARDED, "--", *shell(script)).returncode == 0
    assert place.records[0]["files_changed"] == 2  # the new file, and the commit
    before = seen(checkout)
    heavy = "mkdir -p tree/.git/lfs; truncate -s 1G tree/.git/lfs/object; sleep 600"
    assert place.run(*GUARDED, "--", *shell(heavy)).returncode == 1
    assert seen(checkout) == before


# The supervisor killed in mid cycle


def killed(place: Place, script: str, *options: str) -> None:
    """A loop that is killed with -9 once its cycle says that it has come so far."""
    loop = place.start(*GUARDED, "--cap-writes", "9", *options, "--", *shell(script))
    place.wait_for("begun")
    loop.send(signal.SIGKILL)
    loop.wait()


MESS = f"for i in 1 2 3; do rm tree/file-$i; ln -s ../victim tree/v-$i; done; {FOUR}"


def test_after_a_kill_the_next_start_puts_the_tree_back_and_says_what_was_lost(place: Place, tree: Path) -> None:
    before, victim = seen(tree), seen(place.path / "victim")
    killed(place, f"trap '' TERM; {MESS}; sleep 600 & echo $! > begun; wait", "--write-guard", "enforce")
    assert place.run(*GUARDED, "--", "true").returncode == 0
    lost, after = place.records
    assert (lost["status"], after["status"], after["files_changed"]) == ("lost", "success", 0)
    assert lost["files_changed"] >= 10
    assert finding(lost)["detail"].endswith("the tree is as it was")
    assert (parked(place, lost) / "new-4").read_text() == "4\n"
    assert (seen(tree), seen(place.path / "victim")) == (before, victim)
    assert not is_running(int(place.wait_for("begun")))


def test_after_a_kill_within_the_caps_nothing_is_undone(place: Place, tree: Path) -> None:
    killed(place, "touch tree/a; echo > begun; sleep 600")
    assert place.run(*GUARDED, "--", "true").returncode == 0
    assert place.outcomes == ["lost", "success"]
    assert (tree / "a").exists()
    assert (place.records[0]["files_changed"], place.records[0]["quarantine"]) == (1, None)


def test_a_start_that_is_killed_as_well_costs_nothing_either(place: Place, tree: Path) -> None:
    before = seen(tree)
    killed(place, f"{MESS}; echo > begun; sleep 600")
    for _ in range(3):  # wherever it has come to by then
        loop = place.start(*GUARDED, "--sleep", "1h", "--", "true")
        wait_until(lambda: place.has("state/quarantine") or len(place.records) > 1, "the next start to begin")
        loop.send(signal.SIGKILL)
        loop.wait()
    assert place.run(*GUARDED, "--", "true").returncode == 0
    assert seen(tree) == before
    assert place.outcomes[0] == "lost"
    assert (place.path / place.records[0]["quarantine"] / "tree" / "new-4").read_text() == "4\n"


# What an agent that is not isolated does to the loop's own folders


PLANTED = {
    "a link": "rm -rf state/quarantine; ln -s ../victim state/quarantine",
    "a file": "rm -rf state/quarantine; echo > state/quarantine",
    "a FIFO": "rm -rf state/quarantine; mkfifo state/quarantine",
    "a link of the cycle's name": "mkdir -p state/quarantine; ln -s ../../victim state/quarantine/$RUN_CYCLE_ID",
    "a link of the tree's name": "d=state/quarantine/$RUN_CYCLE_ID; mkdir -p $d; ln -s ../../../victim $d/tree",
}


@pytest.mark.parametrize("plant", PLANTED.values(), ids=PLANTED)
def test_nothing_planted_leads_what_is_parked_elsewhere(place: Place, tree: Path, plant: str) -> None:
    before, victim = seen(tree), seen(place.path / "victim")
    assert place.run(*GUARDED, "--", *shell(f"{plant}; {FOUR}")).returncode == 1
    (record,) = place.records
    assert (seen(tree), seen(place.path / "victim")) == (before, victim)
    assert (parked(place, record) / "new-4").read_text() == "4\n"
    assert not (place.path / record["quarantine"]).resolve().is_relative_to(place.path / "victim")


@pytest.mark.usefixtures("tree")
@pytest.mark.parametrize("harm", ["rm -rf state/baseline", "rm -rf state", "rm -f state/baseline/contents/*"])
def test_a_tree_that_cannot_be_put_back_is_never_said_to_be(place: Place, harm: str) -> None:
    found = place.run(*GUARDED, "--", *shell(f"{harm}; for i in 0 1 2 3; do echo changed > tree/file-$i; done"))
    assert found.returncode == 1
    assert "Traceback" not in found.stderr
    (record,) = place.records
    assert "the tree is not as it was" in finding(record)["detail"]
    assert "put that right by hand" in record["reason"]
    assert (parked(place, record) / "file-0").read_text() == "changed\n"


# Agents: the caps that they have by themselves


def test_an_agent_has_caps_without_being_asked_to(place: Place) -> None:
    make_tree(place.path / "sandbox")
    before = seen(place.path / "sandbox")
    steps = [{"write": f"new-{number}", "text": "x"} for number in range(4)]
    assert place.run(*scripted(place, *steps, {"final": "Done."})).returncode == 1
    (record,) = place.records
    assert (record["status"], record["agent_class"], record["files_changed"]) == ("failed", "ok", 4)
    assert seen(place.path / "sandbox") == before


def test_a_coding_agent_may_write_200_files_and_is_told_so(place: Place) -> None:
    (place.path / "sandbox").mkdir()
    script = 'cp "$1" $P/prompt; for i in $(seq $((199 + RUN_CYCLE_NUMBER))); do echo $RUN_CYCLE_NUMBER > n$i; done'
    options = hostile(place, script)
    line = f"sh {place.path}/agent.sh {{prompt_file}}"
    found = place.run(*options, "--agent-command", line, *SWIFT, "--iterations", "2", "--no-progress", "0")
    assert (found.returncode, place.outcomes) == (1, ["success", "failed"])
    assert [record["files_changed"] for record in place.records] == [200, 201]
    assert "change at most 200 files" in place.wait_for("prompt")
    assert not (place.path / "sandbox" / "n201").exists()
    assert (place.path / "sandbox" / "n200").read_text() == "1\n"


# The sandbox emptied between cycles


def test_the_sandbox_is_emptied_however_deep_and_barred_and_nothing_beside_it(place: Place, tree: Path) -> None:
    (place.path / "sandbox").mkdir()
    before, victim = seen(tree), seen(place.path / "victim")
    deep = """
import os, sys
os.chdir("sandbox")
print(sorted(os.listdir(".")), file=open("../listed-" + os.environ["RUN_CYCLE_NUMBER"], "w"))
os.symlink("../victim", "v"); os.symlink("../victim/page", "p"); os.mkfifo("f"); os.link("../tree/file-0", "hard")
os.mkdir("bar"); open("bar/x", "w"); os.chmod("bar", 0)
for _ in range(40):  # longer than any path may be
    os.mkdir("d" * 200); os.chdir("d" * 200)
"""
    assert place.run("--sandbox-reset", "--iterations", "2", "--", *python(deep)).returncode == 0
    assert [place.wait_for(f"listed-{number}") for number in (1, 2)] == ["[]\n"] * 2
    assert seen(tree) == before
    assert seen(place.path / "victim") == victim
    clear(place.path / "sandbox")


@pytest.mark.usefixtures("tree")
@pytest.mark.parametrize("kind", ["link", "file", "FIFO"])
def test_a_sandbox_that_is_no_folder_is_not_emptied(place: Place, kind: str) -> None:
    victim, sandbox = seen(place.path / "victim"), place.path / "sandbox"
    if kind == "link":
        sandbox.symlink_to("victim")
    elif kind == "file":
        sandbox.write_text(SECRET)
    else:
        os.mkfifo(sandbox)
    assert place.run("--sandbox-reset", "--", "touch", "ran").returncode == 1
    assert place.outcomes == ["error"]
    assert "sandbox" in place.records[0]["reason"]
    assert not place.has("ran")
    assert (seen(place.path / "victim"), sandbox.exists()) == (victim, True)


@pytest.mark.usefixtures("tree")
def test_a_sandbox_swapped_for_a_link_by_one_cycle_is_no_way_out_for_the_next(place: Place) -> None:
    (place.path / "sandbox").mkdir()
    victim = seen(place.path / "victim")
    swap = "rm -rf sandbox; ln -s victim sandbox; touch ran-$RUN_CYCLE_NUMBER"
    assert place.run("--sandbox-reset", "--iterations", "2", *SWIFT, "--", *shell(swap)).returncode == 1
    assert (place.outcomes, place.has("ran-2")) == (["success", "error"], False)
    assert seen(place.path / "victim") == victim


def mounted(place: Place, mount: str, *args: str) -> int:
    """The exit code of the command in a mount namespace of its own."""
    command = str(Path(sys.executable).with_name("run-cycle-loop"))
    argv = ["unshare", "-m", "sh", "-c", f'set -e; {mount}; exec "$@"', "sh", command, "run", *args]
    done = subprocess.run(argv, cwd=place.path, env=place.env, check=False, capture_output=True, timeout=60)
    assert b"Traceback" not in done.stderr
    return done.returncode


MOUNTS = {
    "on a folder in it": "mkdir -p sandbox/a/m; mount --bind victim sandbox/a/m",
    "on a file in it": "touch sandbox/m; mount --bind victim/page sandbox/m",
    "on itself": "mount --bind victim sandbox",
}


@pytest.mark.usefixtures("tree")
@pytest.mark.root
@pytest.mark.parametrize("mount", MOUNTS.values(), ids=MOUNTS)
def test_no_mount_is_emptied(place: Place, mount: str) -> None:
    (place.path / "sandbox").mkdir()
    victim = seen(place.path / "victim")
    assert mounted(place, mount, "--sandbox-reset", "--", "touch", "ran") == 1
    assert (place.outcomes, place.has("ran")) == (["error"], False)
    assert "mount point" in place.records[0]["reason"]
    assert seen(place.path / "victim") == victim


@pytest.mark.root
def test_a_mount_that_a_cycle_makes_in_its_workdir_is_told_and_not_entered(place: Place, tree: Path) -> None:
    victim = seen(place.path / "victim")
    script = f"mkdir tree/m; mount --bind victim tree/m; {FOUR}"
    assert mounted(place, "true", *GUARDED, "--", *shell(script)) == 1
    assert "mount point" in place.records[0]["reason"]
    assert seen(place.path / "victim") == victim
    assert not (tree / "new-1").exists()
