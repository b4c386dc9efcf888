"""Everything in one call: the guides' own manifests pass, each cause stands once, and no manifest raises."""

import copy
import json
import random
from collections.abc import Iterator
from typing import Any

import pytest

from run_cycle_loop.agentrun.checks.findings import Severity, Source
from run_cycle_loop.agentrun.checks.rules import first_refusal
from run_cycle_loop.agentrun.checks.validation import has_errors, validate
from run_cycle_loop.agentrun.flags import LOCAL, UNKNOWN
from run_cycle_loop.agentrun.manifests.documents import Bundle, Document, read_bundle
from run_cycle_loop.agentrun.model import read_run
from run_cycle_loop.agentrun.profiles import Profile
from run_cycle_loop.agentrun.resources import Resources
from run_cycle_loop.model.errors import ConfigError
from tests.unit.agentrun.bundles import ALL, CONDITION, FLAGS, GOOD, LOOP, STEP, briefly, bundle, put
from tests.unit.agentrun.guide_runs import around, loop_body, single_body

CLAIM = """\
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: torghut-loop-workspace, namespace: agents}
spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 20Gi}}}
"""
NOTES = [
    "note AgentNotInBundle spec.agentRef.name",
    "note ImplementationNotInBundle spec.implementationSpecRef.name",
    "note SecretNotInBundle spec.secrets",
]
LOOP_NOTES = [
    *NOTES,
    "note LoopsMayBeDisabled spec.workflow.steps",
    f"note TimedOutJobRunsOn {STEP}.timeoutSeconds",
    "note VcsProviderNotInBundle spec.vcsRef.name",
]


def conditional_body() -> dict[str, Any]:
    body = loop_body()
    put(body, f"{LOOP}.maxIterations", 8)
    expression = "iteration.index < iteration.maxIterations && iteration.last.control.continue == true"
    source = {
        "type": "file",
        "path": "/workspace/.agentrun/loop-control.json",
        "onMissing": "stop",
        "onInvalid": "fail",
    }
    put(body, CONDITION, {"type": "cel", "expression": expression, "source": source})
    return body


def given(*bodies: dict[str, Any]) -> Bundle:
    return bundle("---\n".join([CLAIM, *(f"{json.dumps(one)}\n" for one in bodies)]))


@pytest.mark.parametrize("profile", ALL)
@pytest.mark.parametrize(
    ("body", "found"),
    [
        (loop_body(), LOOP_NOTES),
        (
            conditional_body(),
            [
                *LOOP_NOTES,
                f"note ConditionUnguarded {CONDITION}.expression",
                f"warning LoopControlHasNoWriter {CONDITION}.source",
            ],
        ),
        (single_body(), NOTES),
    ],
)
def test_the_guides_manifests_have_no_error(body: dict[str, Any], found: list[str], profile: Profile) -> None:
    findings = validate(given(body), profile=profile)

    assert sorted(briefly(findings)) == sorted(found)
    assert not has_errors(findings)


@pytest.mark.parametrize("profile", ALL)
def test_a_good_bundle_has_no_finding_at_all(profile: Profile) -> None:
    assert validate(bundle(GOOD), profile=profile, flags=FLAGS) == ()


def test_findings_stand_in_the_order_of_files_and_lines_with_their_places() -> None:
    text = GOOD.replace("maxIterations: 5", "maxIterations: 50").replace("text: Do the work.", "txt: Do the work.")
    text = text.replace("head: codex/run", "head: main")

    findings = validate(bundle(text), profile=Profile.GUIDE, flags=FLAGS)

    lines = text.split("\n")
    assert [(one.reason, lines[one.line - 1].strip()[:14]) for one in findings] == [
        ("FieldValueRequired", "spec:"),
        ("UnknownField", "txt: Do the wo"),
        ("WorkflowLoopMaxIterationsExceeded", "maxIterations:"),
        ("HeadIsBase", "parameters: {r"),
    ]
    assert all(one.place == f"-:{one.line}" for one in findings)


def test_who_comes_first_hides_the_others_on_the_same_field() -> None:
    text = GOOD.replace("maxIterations: 5", "maxIterations: 0").replace("runtime: {type: workflow}", "runtime: {}")

    findings = validate(bundle(text), profile=Profile.CURRENT, flags=FLAGS)

    assert briefly(findings) == [
        "error FieldValueRequired spec.runtime.type",
        f"error FieldValueInvalid {LOOP}.maxIterations",
    ]
    assert {one.source for one in findings} == {Source.API_SERVER}


def test_a_text_that_two_runs_carry_out_is_told_once() -> None:
    head, _, run = GOOD.rpartition("---\n")
    second = (
        run.replace("name: run\n", "name: second\n")
        .replace("codex/run", "codex/b")
        .replace("claimName: claim", "claimName: b")
    )
    text = f"{head}---\n{run}---\n{second}".replace("Do the work.", "Do {{ what }}.")

    found = [
        one for one in validate(bundle(text), profile=Profile.CURRENT, flags=FLAGS) if one.severity is Severity.ERROR
    ]

    assert [(one.reason, one.where) for one in found] == [("TemplateUnresolved", "ImplementationSpec/task")]


def test_what_is_applied_with_the_run_stands_beside_what_the_cluster_has() -> None:
    cluster = Resources(objects=around().objects, complete=True)
    missing = validate(
        given(loop_body(secrets=["github-token"])), profile=Profile.GUIDE, flags=LOCAL, resources=cluster
    )

    literal = "warning TemplateLiteral ImplementationSpec/torghut-v5-uncertainty-gates-priority spec.text"
    assert briefly(missing) == [f"note TimedOutJobRunsOn {STEP}.timeoutSeconds", literal]


def test_an_object_without_a_kind_is_an_error() -> None:
    assert briefly(validate(bundle("a: 1\n"), profile=Profile.GUIDE)) == ["error FieldValueRequired object kind"]


def paths_in(value: Any, path: str = "") -> Iterator[tuple[Any, Any]]:
    """Every place of a value: its holder, and its key there."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in list(pairs):
        yield value, key
        yield from paths_in(item, f"{path}.{key}")


ODD: tuple[Any, ...] = (
    None, True, 0, -1, 1 << 70, 1.5, "", " ", "x", "\ud83d", "{{ env.A }}", "${a.b}", "a" * 3000, [], {}, [None], [[]],
    {"name": "task"}, {"name": None}, {"": ""}, {"inline": {}}, "workflow", "job", "pvc", "/", "..", "iteration", "1 +",
    "has(", {"prompt": "x"}, {"type": 5}, [{"name": "a"}], {"requests": {"cpu": "x"}}, "😀" * 50, "true", "%s {0}",
)  # fmt: skip


def mutated(chance: random.Random, body: dict[str, Any]) -> dict[str, Any]:
    body = copy.deepcopy(body)
    for _ in range(chance.randint(1, 6)):
        holder, key = chance.choice(list(paths_in(body)))
        deed = chance.randrange(4)
        if deed == 0 and isinstance(holder, dict):
            del holder[key]
        elif deed == 1 and isinstance(holder, dict):
            holder[f"{key}x"] = copy.deepcopy(chance.choice(ODD))
        elif deed == 2 and isinstance(holder, list):
            holder.append(copy.deepcopy(holder[key]))
        else:
            holder[key] = copy.deepcopy(chance.choice(ODD))
        if not body:
            break
    return body


@pytest.mark.parametrize("seed", range(8))
def test_no_manifest_makes_it_raise(seed: int) -> None:
    chance = random.Random(seed)
    bodies = [dict(one.body) for one in bundle(GOOD).documents] + [conditional_body(), single_body()]
    for _ in range(40):
        documents = []
        for body in bodies:
            changed = mutated(chance, body) if chance.random() < 0.5 else body
            metadata = changed.get("metadata")
            name = metadata.get("name") if isinstance(metadata, dict) else ""
            kind = changed.get("kind")
            documents.append(
                Document(
                    body=changed,
                    kind=kind if isinstance(kind, str) else "",
                    name=name if isinstance(name, str) else "",
                    file="-",
                )
            )
        given = Bundle(documents=tuple(documents))
        profile, flags = chance.choice(ALL), chance.choice((FLAGS, UNKNOWN, LOCAL))
        resources = chance.choice((None, Resources(complete=True)))
        findings = validate(given, profile=profile, flags=flags, resources=resources)
        assert all(one.reason and one.message and one.cure and one.where for one in findings)
        assert len(set(findings)) == len(findings)
        for run in given.runs:
            refusal = first_refusal(read_run(run.body), given.resources("agents"), profile, flags)
            assert refusal is None or refusal.message


@pytest.mark.parametrize("seed", range(4))
def test_no_bytes_make_it_raise_anything_but_a_sentence(seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(60):
        data = bytearray(GOOD.encode())
        for _ in range(chance.randint(1, 8)):
            place = chance.randrange(len(data))
            data[place : place + chance.randrange(3)] = chance.choice(
                (
                    b"",
                    b"\0",
                    b"\xff",
                    b"\t",
                    b"\n",
                    b"---\n",
                    b"{",
                    b"[",
                    b"*a",
                    b"&a ",
                    b"<<: ",
                    b"!x ",
                    b"'",
                    b'"',
                    b"- ",
                    b"%",
                )
            )
        came = outcome(bytes(data))
        if isinstance(came, str):
            assert came.startswith("-")
            assert "\n" not in came
        else:
            validate(came, profile=Profile.CURRENT)


def outcome(data: bytes) -> Bundle | str:
    """What was read, or the sentence that says why not."""
    try:
        return read_bundle(["-"], stdin=lambda: data)
    except ConfigError as error:
        return str(error)
