"""Check scripts that hang, multiply, babble or cannot be started, and archives that go stale."""

import signal
from pathlib import Path

import pytest

from tests.faults.lab import Lab

BEGUN = 'echo "$RUN_CYCLE_ID" >> "$S/begun"'


@pytest.mark.parametrize(
    ("text", "detail"),
    [
        ("sleep 1000", "ran past"),
        ('trap "" TERM; while :; do sleep 0.05; done', "ran past"),
        ("kill -STOP $$", "ran past"),
        ("(setsid sleep 1000 &); exit 77", "exit code 77"),
        ("head -c 100000000 /dev/zero; exit 5", "exit code 5"),
        ("kill -9 $$", "signal 9"),
        ("echo the reason >&2; exit 1", "the reason"),
        (r"printf '\033[2J\377\000' >&2; exit 1", "exit code 1"),
        ("chmod -x $0; rm $0; exit 2", "exit code 2"),
    ],
)
def test_a_check_that_misbehaves_is_bounded_and_told(lab: Lab, text: str, detail: str) -> None:
    check = lab.script(text, "check")
    options = (
        "--prereq-script",
        str(check),
        "--prereq-timeout",
        "0.5" if detail == "ran past" else "30",
        "--grace",
        "0.2",
    )
    assert lab.run(*options, cycle=(lab.script(BEGUN),)).code == 1
    (record,) = lab.history()
    assert (record["status"], record["prerequisites_ok"], record["return_code"]) == ("prereq_failed", False, None)
    assert detail in record["reason"]
    assert not (lab.scratch / "begun").exists()
    assert lab.processes() == []


@pytest.mark.parametrize("text", ["echo noise >&2", "(setsid sleep 1000 &) ; exit 0", "sleep 1000 & exit 0", "cat"])
def test_a_check_that_ends_with_0_holds_whatever_else_it_does(lab: Lab, text: str) -> None:
    assert lab.run("--prereq-script", str(lab.script(text, "check"))).code == 0
    assert lab.outcomes() == ["success"]


def test_a_check_without_a_program_is_a_failed_check(lab: Lab) -> None:
    for name, content in (("plain", "no shebang"), ("bad", "#!/no/such/thing\n")):
        path = lab.scratch / name
        path.write_text(content)
        path.chmod(0o755)
        assert lab.run("--prereq-script", str(path)).code == 1
    assert lab.outcomes() == ["prereq_failed"] * 2


def test_a_check_that_vanishes_between_two_cycles_is_a_failed_check(lab: Lab) -> None:
    check = lab.script("exit 0", "check")
    loop = lab.run("--iterations", "2", "--prereq-script", str(check), cycle=(lab.script("rm $S/check"),))
    assert loop.code == 1
    assert lab.outcomes() == ["success", "prereq_failed"]


def test_a_flapping_check_counts_only_failures_in_a_row(lab: Lab) -> None:
    check = lab.script("[ $((RUN_CYCLE_NUMBER % 3)) -eq 0 ]", "check")
    loop = lab.run("--iterations", "7", "--max-failures", "3", "--prereq-script", str(check))
    assert loop.code == 1
    assert [record["consecutive_failures"] for record in lab.history()] == [1, 2, 0, 1, 2, 0, 1]


def test_every_failed_check_is_told_and_not_only_the_first(lab: Lab) -> None:
    options = ("--require-command", "no-such-a,no-such-b", "--require-module", "no_such_module")
    assert lab.run(*options).code == 1
    assert len(lab.history()[0]["failed_checks"]) == 3


def test_stale_archives_alert_once_and_again_only_after_a_fresh_one(lab: Lab) -> None:
    text = (
        f'{BEGUN}; [ "$RUN_CYCLE_NUMBER" != 6 ] || '
        'echo "{\\"timestamp\\": \\"$(date -u +%FT%T.%NZ | cut -c1-26)Z\\"}" > $S/archive-6.jsonl'
    )
    options = ("--archive-glob", f"{lab.scratch}/archive-*.jsonl", "--stale-after", "3")
    loop = lab.run("--iterations", "10", *options, cycle=(lab.script(text),))
    assert loop.code == 0
    assert lab.outcomes() == ["degraded"] * 5 + ["success"] + ["degraded"] * 4
    assert loop.stderr.count("artifact.stale") == 2


@pytest.mark.parametrize(
    "planted",
    [
        "cp $S/old.jsonl $S/archive-new.jsonl",
        "touch $S/archive-0.jsonl",
        "echo broken > $S/archive-new.jsonl",
        "head -c 1000 /dev/urandom > $S/archive-new.jsonl.gz",
        "ln -s old.jsonl $S/archive-new.jsonl",
        "mkfifo $S/archive-new.jsonl",
        "mkdir $S/archive-new.jsonl",
        ": > $S/archive-new.jsonl",
        "head -c 300000000 /dev/zero | gzip -1 > $S/archive-new.jsonl.gz",
    ],
)
def test_what_only_looks_like_an_archive_is_not_fresh(lab: Lab, planted: str) -> None:
    for name in ("old.jsonl", "archive-0.jsonl"):
        (lab.scratch / name).write_text('{"timestamp": "2020-01-01T00:00:00Z"}\n')
    options = ("--archive-glob", f"{lab.scratch}/archive-*", "--timeout", "20")
    assert lab.run(*options, cycle=(lab.script(f"{BEGUN}; {planted}"),)).code == 0
    assert lab.outcomes() == ["degraded"]


def test_a_goal_file_that_vanishes_is_a_failed_check_until_it_is_back(lab: Lab) -> None:
    goal = lab.scratch / "goal"
    goal.write_text("first")
    script = lab.script('[ "$RUN_CYCLE_NUMBER" != 1 ] || rm $S/goal')
    assert lab.run("--iterations", "2", "--goal-file", str(goal), cycle=(script,)).code == 1
    assert lab.outcomes() == ["success", "prereq_failed"]
    goal.write_text("second")
    assert lab.run("--goal-file", str(goal)).code == 0
    assert lab.history()[-1]["goal"] == "second"


def test_a_log_of_a_check_that_was_stopped_is_whole(lab: Lab) -> None:
    check = lab.script("echo checking; echo > $S/up; sleep 60", "check")
    loop = lab.start("--prereq-script", str(check))
    lab.await_file("up")
    loop.send(signal.SIGTERM)
    loop.send(signal.SIGQUIT)
    assert loop.ended(10) == 0
    assert "checking\n" in Path(lab.root, lab.history()[0]["log_path"]).read_text()
