"""The screens of AgentRuns: what a person sees first, and that nothing is wider than the terminal."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from run_cycle_loop.agentrun.checks.findings import Finding, Severity
from run_cycle_loop.agentrun.checks.findings import Source as FindingSource
from run_cycle_loop.agentrun.cluster.flags import Flag, FlagReport, Origin
from run_cycle_loop.agentrun.flags import ControllerFlags
from run_cycle_loop.agentrun.looking.attempts import Attempt, AttemptState, PodRow
from run_cycle_loop.agentrun.looking.faults import Fault, FaultKind
from run_cycle_loop.agentrun.looking.progress import Hint, Overdue, Progress, StepProgress, Waiting
from run_cycle_loop.agentrun.looking.rows import RunRow
from run_cycle_loop.agentrun.looking.verify import AttemptVerdict, Fact, Source, Verdict, Verification
from run_cycle_loop.agentrun.profiles import Profile
from run_cycle_loop.report import findings as findings_view
from run_cycle_loop.report import runs
from run_cycle_loop.report.text import Style, columns

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
PLAIN, RICH = Style(), Style(colour=True, unicode=True)

STEP = StepProgress(
    name="implement",
    phase="Running",
    attempt=2,
    attempts=3,
    message="",
    iteration=3,
    completed=2,
    maximum=5,
    stop_reason="",
    stop_detail="",
    pruned=0,
    next_retry_at="",
    control=None,
)
ATTEMPT = Attempt(
    job="demo-step-1-iter-3-attempt-2",
    step="implement",
    step_index=1,
    iteration=3,
    attempt=2,
    state=AttemptState.FAILED,
    started_at="2026-03-01T11:00:00Z",
    seconds=61.0,
    reason="BackoffLimitExceeded",
    message="Job has failed",
    pod=PodRow(name="demo-x", phase="Failed", exit_code=137),
)
SEEN = Progress(
    name="demo",
    namespace="agents",
    uid="u",
    at="2026-03-01T12:00:00Z",
    phase="Running",
    workflow_phase="Running",
    reason="",
    message="",
    blocked="",
    runtime="workflow",
    agent="coder",
    age=3600.0,
    started_at="2026-03-01T11:00:00Z",
    finished_at="",
    seconds=3600.0,
    step="implement",
    steps=(STEP,),
    attempts=(ATTEMPT,),
    overdue=(),
    hints=(),
    result=None,
    is_being_deleted=False,
)


def screen(seen: Progress, width: int = 100, style: Style = PLAIN) -> str:
    return "\n".join(runs.screen(seen, where="on the cluster", width=width, style=style, now=NOW))


def test_a_screen_says_phase_loop_and_attempts() -> None:
    text = screen(SEEN)
    assert text.splitlines()[0] == "* Running  demo  in agents, on the cluster, 1h"
    assert "iteration 3/5, 2 completed, attempt 2 of 3" in text
    assert "##########.............. 2/5" in text
    assert "137  demo-step-1-iter-3-attempt-2" in text
    assert "BackoffLimitExceeded: Job has failed" in text


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"blocked": "QueueLimit", "message": "full"}, "blocked       QueueLimit: full"),
        ({"reason": "WorkflowStepTimedOut", "message": "late"}, "WorkflowStepTimedOut: late"),
        ({"phase": ""}, "* untouched"),
        ({"hints": (Hint(reason="PromptDrift", message="changed"),)}, "PromptDrift: changed"),
        (
            {"overdue": (Overdue(what=Waiting.RETRY, seconds=9.0, message="the next attempt is overdue by 9 s"),)},
            "overdue       the next attempt is overdue by 9 s",
        ),
        (
            {"steps": (replace(STEP, stop_reason="LoopConditionFalse", stop_detail="false"),)},
            "LoopConditionFalse: false",
        ),
        ({"steps": (replace(STEP, phase="Retrying", next_retry_at="2026-03-01T12:01:00Z"),)}, "next attempt"),
        ({"steps": (replace(STEP, pruned=4),)}, "4 earlier iterations are no longer listed"),
    ],
)
def test_what_a_person_must_see_is_there(changes: dict[str, object], words: str) -> None:
    assert words in screen(replace(SEEN, **changes))  # type: ignore[arg-type]


def test_why_a_pod_waits_is_told_with_the_cure() -> None:
    waiting = replace(
        ATTEMPT,
        state=AttemptState.ACTIVE,
        pod=PodRow(name="p", phase="Pending", waiting="ImagePullBackOff", message="no such image"),
    )
    assert "waits: ImagePullBackOff (no such image)" in screen(replace(SEEN, attempts=(waiting,)))
    fault = Fault(kind=FaultKind.IMAGE, reason="ErrImagePull", message="not found", cure="check the image")
    assert "ErrImagePull: not found; check the image" in screen(
        replace(SEEN, attempts=(replace(waiting, fault=fault),))
    )


@pytest.mark.parametrize("width", [40, 60, 80, 120])
@pytest.mark.parametrize("style", [PLAIN, Style(unicode=True)])
def test_nothing_is_wider_than_the_terminal_but_a_bar_and_a_row(width: int, style: Style) -> None:
    long = replace(
        SEEN,
        name="n" * 63,
        reason="R" * 40,
        message="words " * 60,
        attempts=(replace(ATTEMPT, job="j" * 63),),
        hints=(Hint(reason="H", message="\x1b[31mred\n" * 30),),
    )
    text = screen(long, width, style)
    assert "\x1b" not in text
    assert max(map(columns, text.splitlines())) <= max(width, 64)


def test_one_line_tells_a_change() -> None:
    assert runs.one_line(SEEN) == "Running, step implement Running, iteration 3/5, attempt 2 of 3"
    ended = replace(SEEN, phase="Failed", reason="X", message="why\x1b[1m", steps=(replace(STEP, stop_reason="S"),))
    assert runs.one_line(ended).endswith("S, X: why")


def test_colours_are_only_where_they_are_wanted() -> None:
    assert "\x1b[" in screen(SEEN, style=RICH)
    assert "\x1b[" not in screen(SEEN)


def row(name: str) -> RunRow:
    return RunRow(
        name=name,
        namespace="agents",
        phase="Succeeded",
        step="implement",
        iteration="3/3",
        stop_reason="LoopMaxIterationsReached",
        reason="",
        message="",
        agent="coder",
        runtime="workflow",
        age=60.0,
        seconds=30.0,
        overdue=(),
        result=None,
        is_being_deleted=False,
    )


def test_a_name_is_never_cut_in_a_list() -> None:
    lines = list(runs.table([row("n" * 63), row("short")], width=80, style=PLAIN))
    assert lines[1].startswith("n" * 63 + "  Succeeded")
    assert lines[2].startswith("short")
    assert list(runs.table([row("a")], width=80, style=PLAIN, everywhere=True))[1].startswith("agents/a")


def test_flags_show_what_is_set_and_what_cannot_be_seen() -> None:
    flags = (
        Flag(name="loops_enabled", variable="LOOPS", value=True, origin=Origin.SET),
        Flag(name="max_iterations", variable="MAX", value=20, origin=Origin.DEFAULT),
        Flag(name="queue_cluster", variable="QUEUE", value=9, origin=Origin.DEFAULT),
        Flag(name="images_allowed", variable="IMAGES", value=("a", "b"), origin=Origin.REFERENCE, note="ConfigMap x"),
    )
    report = FlagReport(
        deployment="d", namespace="agents", profile=Profile.GUIDE, flags=ControllerFlags(), rows=flags, note="who knows"
    )
    text = "\n".join(runs.flags(report, width=80, style=PLAIN, every=False))
    assert "who knows" in text
    assert "LOOPS   true         set" in text
    assert "a,b          reference  ConfigMap x" in text
    assert "QUEUE" not in text
    assert "QUEUE" in "\n".join(runs.flags(report, width=80, style=PLAIN, every=True))


@pytest.mark.parametrize(
    ("holds", "value", "words"),
    [
        (True, "abc", "ok hash  abc"),
        (False, "abc", "NO hash  abc  wanted def"),
        (None, "", "?  hash  (not seen)"),
        (True, "", "(absent)"),
    ],
)
def test_each_fact_of_a_verification_is_shown(holds: bool | None, value: str, words: str) -> None:
    fact = Fact(name="hash", value=value, wanted="def", holds=holds)
    one = AttemptVerdict(
        job="j",
        step="s",
        iteration=2,
        attempt=1,
        verdict=Verdict.DRIFT,
        why="it differs",
        facts=(fact,),
        image_id="",
        notes=("a note",),
    )
    found = Verification(
        run="demo",
        namespace="agents",
        verdict=Verdict.DRIFT,
        why="one differs",
        status_hash="h",
        source=Source(place="p", kind="ConfigMap", name="c", key="k", hash="x"),
        attempts=(one,),
        notes=(),
    )
    text = "\n".join(runs.verification(found, width=90, style=PLAIN))
    assert text.startswith("DRIFT  system prompt of demo in agents")
    assert words in text
    assert "iteration 2, attempt 1: j" in text
    assert "a note" in text


FINDING = Finding(
    severity=Severity.ERROR,
    source=FindingSource.CONTROLLER,
    reason="WorkflowStepDuplicate",
    where="AgentRun/demo",
    path="spec.workflow.steps[1].name",
    message="'a' is there twice",
    cure="rename one",
    file="run.yaml",
    line=7,
)


def test_a_finding_says_where_what_and_how_to_mend_it() -> None:
    lines = list(findings_view.lines([FINDING, replace(FINDING, file="b.yaml", line=0)], width=80, style=PLAIN))
    assert lines == [
        "run.yaml",
        "  error 7: WorkflowStepDuplicate  AgentRun/demo spec.workflow.steps[1].name",
        "    'a' is there twice",
        "    -> rename one",
        "b.yaml",
        "  error WorkflowStepDuplicate  AgentRun/demo spec.workflow.steps[1].name",
        "    'a' is there twice",
        "    -> rename one",
    ]
    assert FINDING.place == "run.yaml:7"


def test_a_path_of_a_finding_is_never_cut() -> None:
    found = list(findings_view.lines([replace(FINDING, file="")], width=40, style=PLAIN))
    assert found[:2] == ["  error 7: WorkflowStepDuplicate", "    AgentRun/demo spec.workflow.steps[1].name"]


@pytest.mark.parametrize(
    ("height", "shown"),
    [
        (9, ["0", "1", "2", "3", "4", "5"]),
        (6, ["0", "1", "2", "3", "4", "5"]),
        (5, ["0", "1", "  (2 lines more)", "4", "5"]),
        (2, ["0", "  (5 lines more)"]),
    ],
)
def test_what_is_drawn_over_itself_fits_the_screen(height: int, shown: list[str]) -> None:
    assert runs.within(list("012345"), height) == shown


def test_the_last_line_counts() -> None:
    warning = replace(FINDING, severity=Severity.WARNING)
    assert findings_view.summary([FINDING, FINDING, warning], checked="2 objects") == "2 objects: 2 errors, 1 warning"
    assert findings_view.summary([], checked="1 object") == "1 object: nothing to complain about"


def test_findings_for_scripts_hold_what_is_known() -> None:
    (found,) = findings_view.as_dicts([replace(FINDING, line=0, file="")])
    assert found["severity"] == "error"
    assert "line" not in found
