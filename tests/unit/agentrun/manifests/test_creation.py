"""Manifests from values: valid as they are written, in the guides' order, and each impossible wish refused."""

from dataclasses import replace
from typing import Any

import pytest
import yaml

from run_cycle_loop.agentrun.checks.rules import first_refusal
from run_cycle_loop.agentrun.checks.schema import schema_findings
from run_cycle_loop.agentrun.flags import LOCAL
from run_cycle_loop.agentrun.manifests.creation import (
    GUIDE_CONDITION,
    VolumeWish,
    Wish,
    create_claim,
    create_run,
    manifest,
    unique_name,
)
from run_cycle_loop.agentrun.manifests.yaml_blocks import to_yaml
from run_cycle_loop.agentrun.model import read_run
from run_cycle_loop.agentrun.names import is_label_value
from run_cycle_loop.agentrun.profiles import Profile
from run_cycle_loop.agentrun.rendering.jobs import launch_refusals
from run_cycle_loop.model.errors import ConfigError
from tests.unit.agentrun.guide_runs import around, loop_body

SINGLE = Wish(agent="codex-spark-agent", name="demo", text="Do it.")
FIXED = replace(
    SINGLE,
    maximum=5,
    claim="demo-workspace",
    claim_size="20Gi",
    timeout=5400,
    retries=1,
    retry_backoff=30,
    repository="proompteng/lab",
    vcs="github",
    secrets=("github-token",),
    ttl=0,
    idempotency_key="nightly 7",
)
CONDITIONAL = replace(FIXED, condition=GUIDE_CONDITION, maximum=8)
JOB = replace(SINGLE, runtime="job", image="runner:2", cpu="", memory="")
EVERYTHING = replace(
    CONDITIONAL,
    text="",
    implementation="torghut-v5-uncertainty-gates-priority",
    steps=("plan", "implement"),
    loop_step="plan",
    mount_path="/data/",
    volumes=(
        VolumeWish(name="workspace", type="emptyDir", mount_path="/workspace"),
        VolumeWish(name="keys", type="secret", mount_path="/keys", source="keys", read_only=True),
        VolumeWish(name="cache", type="pvc", mount_path="/cache", source="cache"),
    ),
    parameters={"artifactPath": "/data/notes", "base": "trunk", "number": "012", "yes": "no"},
    vcs_required=False,
    vcs_mode="read-only",
    on_missing="fail",
    on_invalid="stop",
)
WISHES = {"single": SINGLE, "fixed": FIXED, "conditional": CONDITIONAL, "job": JOB, "everything": EVERYTHING}
BOTH = list(Profile)


@pytest.mark.parametrize("profile", BOTH)
@pytest.mark.parametrize("wish", WISHES.values(), ids=WISHES)
def test_nothing_refuses_what_is_made(wish: Wish, profile: Profile) -> None:
    body = create_run(wish)
    run, resources = read_run(body), around()
    assert schema_findings(body, profile) == ()
    assert first_refusal(run, resources, profile, LOCAL) is None
    assert launch_refusals(run, resources, profile, LOCAL) == {}


@pytest.mark.parametrize("wish", WISHES.values(), ids=WISHES)
def test_the_text_says_what_the_values_say(wish: Wish) -> None:
    text = manifest(wish)
    documents = list(yaml.safe_load_all(text))
    assert documents == [one for one in (create_claim(wish), create_run(wish)) if one is not None]
    assert "{" not in text.replace("{}", "")
    assert max(map(len, text.splitlines())) <= 120


def test_the_launch_guides_loop_comes_out_as_it_stands_there() -> None:
    guide = loop_body()
    parameters = guide["spec"]["parameters"]
    wish = Wish(
        agent="codex-spark-agent",
        name="torghut-priority-loop5",
        implementation="torghut-v5-uncertainty-gates-priority",
        maximum=5,
        claim="torghut-loop-workspace",
        timeout=5400,
        retries=1,
        retry_backoff=30,
        repository="proompteng/lab",
        head=parameters["head"],
        parameters={"artifactPath": parameters["artifactPath"]},
        vcs="github",
        secrets=("github-token", "codex-auth"),
        ttl=172800,
    )
    assert create_run(wish) == guide
    assert list(create_run(wish)["spec"]) == list(guide["spec"])


def test_a_conditional_loop_with_its_comments() -> None:
    assert (
        manifest(CONDITIONAL)
        == """\
apiVersion: v1
kind: PersistentVolumeClaim
metadata:
  name: demo-workspace
  namespace: agents
spec:
  accessModes:
    - ReadWriteOnce
  resources:
    requests:
      storage: 20Gi
---
apiVersion: agents.proompteng.ai/v1alpha1
kind: AgentRun
metadata:
  name: demo
  namespace: agents
spec:
  agentRef:
    name: codex-spark-agent
  implementation:
    inline:
      # What the agent is told to do.
      # Let it say where notes are kept, and to read them first: no iteration is told its number.
      text: "Do it."
  runtime:
    type: workflow
  workflow:
    steps:
      - name: implement
        # Further attempts, anew for each iteration.
        retries: 1
        retryBackoffSeconds: 30
        # Of each attempt, counted from the making of its Job.
        timeoutSeconds: 5400
        parameters:
          stage: implement
        loop:
          # No more than the controller's limit, 20 by default; one Job each.
          maxIterations: 8
          # Asked after each iteration but the last one. Numbers are doubles: write + 1.0, not + 1.
          # On a cluster the payload is read from the Job's annotation agents.proompteng.ai/loop-control,
          # which the agent's pod has to set before it ends; on this machine, from the file.
          condition:
            type: cel
            expression: "iteration.index < iteration.maxIterations && iteration.last.control.continue == true"
            source:
              type: file
              path: /workspace/.agentrun/loop-control.json
              onMissing: stop
              onInvalid: fail
          # What an iteration leaves on this volume the next one finds; the rest of the pod is new.
          state:
            required: true
            volumeNames:
              - workspace
  vcsRef:
    name: github
  # With required, a repository that cannot be written to fails the run.
  vcsPolicy:
    required: true
    mode: read-write
  secrets:
    - github-token
  # How long the finished run is kept; its Jobs go sooner.
  ttlSecondsAfterFinished: 0
  # A second run of this agent with the same key is refused as a duplicate.
  idempotencyKey: "nightly 7"
  # Recorded in run.json; not exported as variables into the pod.
  parameters:
    repository: proompteng/lab
    base: main
    # A branch that no other run works on at the same time.
    head: codex/demo
  workload:
    resources:
      requests:
        cpu: 500m
        memory: 1024Mi
    # A step with a workload of its own would get none of these.
    volumes:
      - name: workspace
        type: pvc
        claimName: demo-workspace
        mountPath: /workspace
"""
    )


def test_a_control_file_lies_on_the_claim_wherever_that_is_mounted() -> None:
    loop = create_run(EVERYTHING)["spec"]["workflow"]["steps"][0]["loop"]
    assert loop["condition"]["source"]["path"] == "/data/.agentrun/loop-control.json"
    assert loop["state"]["volumeNames"] == ["state"]
    assert "loop" not in create_run(EVERYTHING)["spec"]["workflow"]["steps"][1]


def test_the_last_step_is_repeated_where_none_is_named() -> None:
    steps = create_run(replace(FIXED, steps=("plan", "implement")))["spec"]["workflow"]["steps"]
    assert ["loop" in one for one in steps] == [False, True]


@pytest.mark.parametrize(
    ("prefix", "suffix", "name"),
    [
        ("nightly", "ab12", "nightly-ab12"),
        ("Night ly!", "ab12", "night-ly-ab12"),
        ("", "ab12", "run-ab12"),
        ("___", "x", "run-x"),
        ("a" * 100, "12345678", "a" * 54 + "-12345678"),
        ("a" * 53 + "-b", "12345678", "a" * 53 + "-12345678"),
    ],
)
def test_unique_names(prefix: str, suffix: str, name: str) -> None:
    found = unique_name(prefix, suffix)
    assert found == name
    assert is_label_value(found)
    create_run(replace(SINGLE, name=found))


@pytest.mark.parametrize("suffix", ["", "A", "a-b", "x" * 33])
def test_a_suffix_that_cannot_stand_in_a_name(suffix: str) -> None:
    with pytest.raises(ConfigError, match="cannot end a name"):
        unique_name("run", suffix)


@pytest.mark.parametrize(("length", "said"), [(38, False), (39, True)])
def test_a_name_that_makes_hashed_jobs_is_said_to_be_long(length: int, said: bool) -> None:
    wish = replace(SINGLE, name="a" * length, maximum=10)
    assert ("Rather long" in manifest(wish)) is said


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"name": ""}, "--name '' is no object's name"),
        ({"name": "Upper"}, "--name 'Upper' is no object's name"),
        ({"name": "a" * 64}, "has 64 characters"),
        ({"agent": "a b"}, "--agent 'a b'"),
        ({"namespace": "-"}, "--namespace '-'"),
        ({"text": ""}, "give either --implementation NAME or --text"),
        ({"implementation": "x"}, "give either --implementation NAME or --text"),
        ({"text": "", "implementation": "X"}, "--implementation 'X'"),
        ({"text": "x" * 131073}, "has 131073 characters"),
        ({"runtime": "temporal"}, "choose workflow or job"),
        ({"runtime": "job", "maximum": 2}, "ignores loops"),
        ({"runtime": "job", "retries": 2}, "neither retries nor a timeout"),
        ({"steps": ()}, "at least one step"),
        ({"steps": ("a", " ")}, "at least one step"),
        ({"steps": ("a", "a")}, "have a name twice"),
        ({"steps": ("a" * 62 + "-b",)}, "makes no label"),
        ({"loop_step": "x", "maximum": 2}, "none of implement"),
        ({"condition": "true"}, "give --max-iterations as well"),
        ({"condition": "true &&", "maximum": 2}, "does not parse"),
        ({"condition": "true", "maximum": 2, "control_path": "x.json"}, "no absolute path"),
        ({"condition": "true", "maximum": 2, "control_path": "/a/../x.json"}, "no absolute path"),
        ({"condition": "true", "maximum": 2, "control_path": "/tmp/x", "claim": "c"}, "not on the claim's volume"),
        ({"condition": "true", "maximum": 2, "on_missing": "go"}, "--on-missing 'go'"),
        ({"condition": "true", "maximum": 2, "on_invalid": "go"}, "--on-invalid 'go'"),
        ({"maximum": -1}, "--max-iterations -1 is out of range"),
        ({"timeout": 1 << 31}, "--timeout 2147483648 is out of range"),
        ({"ttl": -1}, "--ttl -1 is out of range"),
        ({"parameters": {"Prompt": "x"}}, "use --text"),
        ({"parameters": {"x": "ü" * 1025}}, "more than 2048 bytes"),
        ({"parameters": {str(one): "" for one in range(101)}}, "101 parameters"),
        ({"repository": "lab"}, "write OWNER/NAME"),
        ({"repository": "a/b/c"}, "write OWNER/NAME"),
        ({"repository": "a/b", "head": "x..y"}, "the head branch 'x..y'"),
        ({"repository": "a/b", "base": "/x"}, "the base branch '/x'"),
        ({"repository": "a/b", "head": "x.lock"}, "the head branch 'x.lock'"),
        ({"parameters": {"head": "a b"}}, "the head branch 'a b'"),
        ({"vcs": "github"}, "give --repository OWNER/NAME"),
        ({"vcs": "Git"}, "--vcs 'Git'"),
        ({"vcs_mode": "write"}, "--vcs-mode 'write'"),
        ({"secrets": ("a_b",)}, "--secret 'a_b'"),
        ({"claim": "A"}, "--claim 'A'"),
        ({"claim_size": "20Gi"}, "give --claim as well"),
        ({"claim": "c", "claim_size": "much"}, "'much' is no size"),
        ({"claim": "c", "mount_path": "/"}, "nothing can be mounted at '/'"),
        ({"claim": "c", "mount_path": "/workspace/.codex"}, "nothing can be mounted"),
        ({"cpu": "half"}, "--cpu 'half' is no quantity"),
        ({"volumes": (VolumeWish(name="a.b", type="emptyDir", mount_path="/a"),)}, "no volume's name"),
        ({"volumes": (VolumeWish(name="a", type="hostPath", mount_path="/a"),)}, "unknown type 'hostPath'"),
        ({"volumes": (VolumeWish(name="a", type="pvc", mount_path="/a"),)}, "the volume a's claim ''"),
        ({"volumes": (VolumeWish(name="a", type="secret", mount_path="/a", source="_"),)}, "the volume a's secret '_'"),
        (
            {"volumes": (VolumeWish(name="a", type="emptyDir", mount_path="/workspace"),), "claim": "c"},
            "the same mount",
        ),
        (
            {
                "volumes": (
                    VolumeWish(name="a", type="emptyDir", mount_path="/a"),
                    VolumeWish(name="a", type="emptyDir", mount_path="/b"),
                )
            },
            "the same name",
        ),
    ],
)
def test_an_impossible_wish_is_refused_with_the_next_step(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        manifest(replace(SINGLE, **changes))
    assert words in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "plain",
        "two\nlines",
        "two\nlines\n",
        "two\nlines\n\n\n",
        "a\n\n  b: c # d\n",
        " indented\nfirst",
        "\nblank first",
        "trailing \nblank",
        "tab\tx\ny",
        "- a\n- b",
        "yes",
        "No",
        "null",
        "~",
        "012",
        "1e3",
        "0x10",
        "2026-01-01",
        "500m",
        "a: b",
        "#x",
        "'",
        '"\\',
        "",
        " ",
        "\x00\x1b\x7f\x85",
        "\u2028x\ny",
        "é ü 漢 \U0001f600\nnext",
        "\ufeffbom",
        "---",
        "a\r\nb",
        "{{ x }}",
        "${x}",
        "*a",
        "&a",
        "!a",
        "%a",
        "@a",
        "`a",
        "|",
        ">",
    ],
)
def test_every_text_comes_back_from_its_yaml(text: str) -> None:
    value = {"key": text, "list": [text, {"in": text, "more": [text]}], text or "blank": 1}
    assert yaml.safe_load(to_yaml(value)) == value


def test_other_values_come_back_as_well() -> None:
    value: dict[str, Any] = {"a": None, "b": True, "c": 1, "d": 1.5, "e": [], "f": {}, "g": [[1], {}], "h": [{"i": []}]}
    assert yaml.safe_load(to_yaml(value)) == value


def test_comments_stand_above_their_lines() -> None:
    value = {"a": [{"b": 1, "c": 2}], "d": "x"}
    text = to_yaml(value, {"a[0].b": "first", "a[0].c": "second\nin two", "d": "third"})
    assert text == "a:\n  # first\n  - b: 1\n    # second\n    # in two\n    c: 2\n# third\nd: x\n"
