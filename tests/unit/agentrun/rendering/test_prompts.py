"""Which text becomes the prompt, which ones are shadowed, and where the system prompt comes from."""

import base64
import hashlib
from typing import Any

import pytest

from run_cycle_loop.agentrun.model import AgentRun, read_run
from run_cycle_loop.agentrun.profiles import Profile
from run_cycle_loop.agentrun.rendering.prompts import (
    AS_WRITTEN,
    NOTHING,
    REFUSED,
    UserPrompt,
    implementation_of,
    is_codex,
    system_prompt,
    user_prompt,
)
from run_cycle_loop.agentrun.resources import Object, Resources
from tests.unit.agentrun.guide_runs import (
    FILLED,
    SYSTEM_HASH,
    SYSTEM_TEXT,
    TASK,
    agent,
    around,
    body_of,
    implementation,
    loop_run,
    made,
    provider,
)

GUIDE, CURRENT = Profile.GUIDE, Profile.CURRENT
BOTH = list(Profile)
RUN_REF = {"implementationSpecRef": {"name": "of-run"}}
STEP_REF = {"implementationSpecRef": {"name": "of-step"}}


def _inline(text: str, **more: str) -> dict[str, Any]:
    return {"implementation": {"inline": {"text": text, **more}}}


def _run(spec: dict[str, Any], step: dict[str, Any] | None = None) -> AgentRun:
    steps = [{"name": "implement", **(step or {})}]
    base = {"agentRef": {"name": "codex-agent"}, "runtime": {"type": "workflow"}, "workflow": {"steps": steps}}
    return read_run(body_of("demo", base | spec))


def _told(
    spec: dict[str, Any], step: dict[str, Any] | None = None, profile: Profile = GUIDE, *objects: Object
) -> UserPrompt:
    run = _run(spec, step)
    named = (implementation("of-run", text="run ref"), implementation("of-step", text="step ref"))
    return user_prompt(run, run.steps[0], around(*named, *objects), profile)


@pytest.mark.parametrize(
    ("spec", "step", "guide", "current"),
    [
        (RUN_REF, {}, "run ref", "run ref"),
        (_inline("run inline"), {}, "run inline", "run inline"),
        (RUN_REF | _inline("run inline"), {}, "run ref", "run inline"),
        (RUN_REF, STEP_REF, "step ref", "step ref"),
        (RUN_REF, _inline("step inline"), "run ref", "step inline"),
        (_inline("run inline"), STEP_REF, "step ref", "step ref"),
        (_inline("run inline"), _inline("step inline"), "step inline", "step inline"),
        (RUN_REF, STEP_REF | _inline("step inline"), "step ref", "step inline"),
        (RUN_REF | _inline("run inline"), STEP_REF | _inline("step inline"), "step ref", "step inline"),
        (_inline("", summary="short"), {}, "short", "short"),
    ],
)
def test_the_implementation_that_counts(spec: dict[str, Any], step: dict[str, Any], guide: str, current: str) -> None:
    assert _told(spec, step, GUIDE).text == guide
    assert _told(spec, step, CURRENT).text == current


@pytest.mark.parametrize(
    ("spec", "step", "prompt", "source"),
    [
        (RUN_REF | {"parameters": {"prompt": " narrow "}}, {}, "narrow", "parameters.prompt"),
        (RUN_REF, {"parameters": {"prompt": "step's"}}, "step's", "parameters.prompt"),
        (
            RUN_REF | {"parameters": {"prompt": "run's"}},
            {"parameters": {"prompt": "step's"}},
            "step's",
            "parameters.prompt",
        ),
        (RUN_REF | {"parameters": {"prompt": "  "}}, {}, "run ref", "text"),
        (RUN_REF | {"parameters": {"prompt": "run's"}}, {"parameters": {"prompt": " "}}, "run ref", "text"),
        (RUN_REF | {"parameters": {"Prompt": "other letters"}}, {}, "run ref", "text"),
        (_inline("inline") | {"parameters": {"prompt": "narrow"}}, {}, "narrow", "parameters.prompt"),
    ],
)
def test_by_the_guides_the_prompt_parameter_wins(
    spec: dict[str, Any], step: dict[str, Any], prompt: str, source: str
) -> None:
    told = _told(spec, step, GUIDE)
    assert (told.text, told.source, told.run_text) == (prompt, source, prompt)


def test_by_the_guides_every_text_that_lost_says_to_whom() -> None:
    spec = RUN_REF | _inline("run inline") | {"parameters": {"prompt": "narrow"}}
    told = _told(spec, STEP_REF, GUIDE)
    winner = "AgentRun/demo spec.parameters.prompt"
    assert [(one.place, one.text, one.wins) for one in told.candidates] == [
        (winner, "narrow", True),
        ("ImplementationSpec/of-step spec.text", "step ref", False),
        ("ImplementationSpec/of-run spec.text", "run ref", False),
        ("AgentRun/demo spec.implementation.inline.text", "run inline", False),
    ]
    assert told.winner is not None
    assert told.winner.place == winner
    assert [one.why for one in told.candidates[1:]] == [
        f"shadowed by {winner}",
        "ImplementationSpec/of-step spec takes its place",
        "ImplementationSpec/of-step spec takes its place",
    ]


def test_by_the_guides_no_placeholder_is_filled_in() -> None:
    run = loop_run()
    told = user_prompt(run, run.steps[0], around(), GUIDE)
    assert told.text == TASK
    assert told.replacements == ()


def test_current_controllers_fill_in_both_kinds_and_say_which() -> None:
    run = loop_run()
    told = user_prompt(run, run.steps[0], around(), CURRENT)
    assert told.text == told.run_text == FILLED
    assert [(one.token, one.value) for one in told.replacements] == [
        ("{{ stage }}", "implement"),
        ("{{ nothing }}", None),
        ("${artifactPath}", "/workspace/.agentrun/torghut-v5-02"),
        ("${HOME}", None),
    ]


@pytest.mark.parametrize("key", ["prompt", "Prompt", " PROMPT "])
def test_current_controllers_refuse_the_prompt_parameter(key: str) -> None:
    told = _told(RUN_REF | {"parameters": {key: "narrow"}}, {}, CURRENT)
    assert told.text == "run ref"
    assert told.candidates[0].text == "narrow"
    assert told.candidates[0].why == REFUSED


@pytest.mark.parametrize(
    ("inline", "parameters", "text", "run_text", "note"),
    [
        ({"text": "{{ gone }}", "summary": "short ${x}"}, {"x": "1"}, "short 1", "short 1", ""),
        ({"text": "{{ gone }}"}, {}, "{{ gone }}", None, AS_WRITTEN),
        ({"text": "{{ gone }} ", "summary": "short"}, {}, "{{ gone }}", " ", AS_WRITTEN),
        ({"text": "", "summary": "{{ gone }}"}, {}, "{{ gone }}", None, AS_WRITTEN),
        ({"text": ""}, {"issueBody": "from the issue"}, "from the issue", None, AS_WRITTEN),
        ({"text": " padded \n"}, {}, "padded", " padded \n", ""),
    ],
)
def test_what_current_controllers_send_where_a_text_comes_out_empty(
    inline: dict[str, str], parameters: dict[str, str], text: str, run_text: str | None, note: str
) -> None:
    told = _told({"implementation": {"inline": inline}, "parameters": parameters}, {}, CURRENT)
    assert (told.text, told.run_text, told.note) == (text, run_text, note)


def test_current_controllers_send_the_whole_run_where_nothing_else_is_there() -> None:
    run = _run(_inline(""))
    assert user_prompt(run, run.steps[0], around(), CURRENT).text is None
    told = user_prompt(run, run.steps[0], around(), CURRENT, payload={"provider": "codex", "memory": None})
    assert told.text == '{\n  "provider": "codex",\n  "memory": null\n}'
    assert told.source == ""
    assert NOTHING in told.note


def test_a_providers_own_prompt_overrides_every_implementation_of_current_controllers() -> None:
    own = provider(adapter={"codex": {"prompt": "Own: {{ parameters.x }} {{ prompt }} ${x}"}})
    told = _told(RUN_REF | {"parameters": {"x": "1"}}, {}, CURRENT, own)
    assert told.text == "Own: 1 run ref ${x}"
    assert told.run_text == "run ref"
    assert told.source == "provider"
    assert [(one.source, one.wins) for one in told.candidates] == [("provider", True), ("text", False)]
    assert told.candidates[1].why == "shadowed by AgentProvider/codex spec.adapter.codex.prompt"
    assert _told(RUN_REF, {}, GUIDE, own).text == "run ref"


@pytest.mark.parametrize(
    "settings",
    [{"adapter": {"codex": {"prompt": "{{ gone }}"}}}, {"adapter": {"type": "exec", "codex": {"prompt": "unused"}}}],
)
def test_a_providers_prompt_that_is_blank_or_unused_overrides_nothing(settings: dict[str, Any]) -> None:
    assert _told(RUN_REF, {}, CURRENT, provider(**settings)).text == "run ref"


def test_an_exec_provider_is_given_what_run_json_says_and_nothing_else() -> None:
    told = _told(_inline("{{ gone }}"), {}, CURRENT, provider(binary="/bin/sh"))
    assert (told.text, told.source, told.note) == (None, "", NOTHING)
    told = _told(_inline(" padded "), {}, CURRENT, provider(binary="/bin/sh"))
    assert told.text == " padded "


def test_braces_that_a_value_brought_are_said_to_be_filled_in_again_in_the_pod() -> None:
    told = _told(_inline("${x}") | {"parameters": {"x": "{{ env.GH_TOKEN }}"}}, {}, CURRENT)
    assert told.text == "{{ env.GH_TOKEN }}"
    assert "in the pod" in told.note


@pytest.mark.parametrize("profile", BOTH)
def test_what_is_not_among_the_objects_is_not_known(profile: Profile) -> None:
    run = _run({"implementationSpecRef": {"name": "elsewhere"}})
    told = user_prompt(run, run.steps[0], around(complete=False), profile)
    assert told.text is None
    assert told.source == "text"
    assert told.note == "ImplementationSpec/elsewhere is not among the objects given: what it says is not known here"
    assert [(one.text, one.wins) for one in told.candidates] == [(None, True)]


def test_by_the_guides_the_prompt_parameter_is_known_whatever_else_is_not() -> None:
    run = _run({"implementationSpecRef": {"name": "elsewhere"}, "parameters": {"prompt": "narrow"}})
    told = user_prompt(run, run.steps[0], Resources(), GUIDE)
    assert (told.text, told.note) == ("narrow", "")


def test_a_provider_that_is_not_here_may_have_a_prompt_of_its_own() -> None:
    run = _run(_inline("do it"))
    told = user_prompt(run, run.steps[0], Resources(), CURRENT)
    assert told.text == "do it"
    assert told.note == "Agent/codex-agent is not here: it may have a prompt of its own"
    told = user_prompt(run, run.steps[0], Resources.of([agent("codex-agent")]), CURRENT)
    assert told.note == "AgentProvider/codex is not here: it may have a prompt of its own"


@pytest.mark.parametrize("profile", BOTH)
def test_a_run_without_anything_to_do_has_no_prompt(profile: Profile) -> None:
    run = _run({})
    assert implementation_of(run, run.steps[0], around(), profile) is None
    told = user_prompt(run, run.steps[0], around(), profile)
    assert (told.text, told.winner, told.run_text) == (None, None, None)
    assert NOTHING in told.note


@pytest.mark.parametrize("profile", BOTH)
def test_a_run_without_steps_has_the_runs_own_implementation(profile: Profile) -> None:
    run = _run(RUN_REF | {"runtime": {"type": "job"}}, STEP_REF)
    resources = around(implementation("of-run", text="run ref"))
    assert user_prompt(run, None, resources, profile).text == "run ref"


@pytest.mark.parametrize(
    ("spec", "codex"),
    [
        ({}, True),
        ({"binary": "/opt/agent-runner"}, True),
        ({"binary": "agent-runner"}, False),
        ({"binary": "/bin/sh"}, False),
        ({"binary": "/bin/sh", "adapter": {"type": "codex-app-server"}}, True),
        ({"binary": "/opt/agent-runner", "adapter": {"type": "exec"}}, False),
        ({"binary": "/bin/sh", "adapter": {"type": "other"}}, False),
    ],
)
def test_which_providers_speak_to_codex_themselves(spec: dict[str, Any], codex: bool) -> None:
    assert is_codex(spec) is codex


# The system prompt.

REFERENCE = {"kind": "ConfigMap", "name": "words", "key": "file"}
SECRET_REFERENCE = {"kind": "Secret", "name": "hidden", "key": "file"}
WORDS = made("ConfigMap", "words", data={"file": "from a map\n", "blank": " \n"}, binaryData={"binary": "eA=="})
HIDDEN = made("Secret", "hidden", data={"file": base64.b64encode(b"from a secret\n").decode()})


def _system(defaults: dict[str, Any], run: dict[str, Any] | None = None, **options: Any) -> Any:
    complete, profile = options.pop("complete", True), options.pop("profile", CURRENT)
    objects = options.pop("objects", (WORDS, HIDDEN))
    found = agent("codex-agent", defaults=defaults, security=options.pop("security", {}))
    return system_prompt(_run({**_inline("x"), **(run or {})}), around(found, *objects, complete=complete), profile)


@pytest.mark.parametrize("profile", BOTH)
def test_the_system_prompt_of_the_guides_agent(profile: Profile) -> None:
    found = system_prompt(loop_run(), around(), profile)
    assert (found.source, found.kind, found.name, found.key) == (
        "Agent/codex-spark-agent spec.defaults.systemPromptRef",
        "ConfigMap",
        "codex-agent-system-prompt",
        "system-prompt.md",
    )
    assert (found.text, found.hash, found.refusal) == (SYSTEM_TEXT, SYSTEM_HASH, None)
    assert found.is_mounted


@pytest.mark.parametrize(
    ("defaults", "run", "text"),
    [
        ({"systemPrompt": "inline\n"}, {}, "inline\n"),
        ({"systemPromptRef": REFERENCE}, {}, "from a map\n"),
        ({"systemPromptRef": REFERENCE, "systemPrompt": "inline"}, {}, "from a map\n"),
        ({"systemPromptRef": REFERENCE | {"kind": " config-map "}}, {}, "from a map\n"),
        ({"systemPromptRef": REFERENCE | {"kind": "CONFIGMAP"}}, {}, "from a map\n"),
        ({"systemPromptRef": SECRET_REFERENCE}, {"secrets": ["hidden"]}, "from a secret\n"),
    ],
)
@pytest.mark.parametrize("profile", BOTH)
def test_the_default_is_a_reference_else_a_text(
    defaults: dict[str, Any], run: dict[str, Any], text: str, profile: Profile
) -> None:
    found = _system(defaults, run, profile=profile)
    assert found.refusal is None
    assert (found.text, found.hash) == (text, hashlib.sha256(text.encode()).hexdigest())


@pytest.mark.parametrize(
    ("defaults", "run", "reason"),
    [
        ({"systemPrompt": "x"}, {"systemPrompt": ""}, "SystemPromptOverrideNotAllowed"),
        ({"systemPrompt": "x"}, {"systemPromptRef": REFERENCE}, "SystemPromptOverrideNotAllowed"),
        ({}, {}, "MissingSystemPromptConfiguration"),
        ({"systemPrompt": " \n"}, {}, "MissingSystemPromptConfiguration"),
        ({"systemPrompt": 7}, {}, "InvalidSystemPrompt"),
        ({"systemPrompt": "x" * 16385}, {}, "SystemPromptTooLong"),
        ({"systemPrompt": "\U0001f600" * 8193}, {}, "SystemPromptTooLong"),
        ({"systemPromptRef": "words"}, {}, "InvalidSystemPromptRef"),
        ({"systemPromptRef": REFERENCE | {"kind": "Pod"}}, {}, "InvalidSystemPromptRef"),
        ({"systemPromptRef": {"kind": "ConfigMap", "name": "words"}}, {}, "InvalidSystemPromptRef"),
        ({"systemPromptRef": SECRET_REFERENCE}, {}, "SecretNotAllowed"),
        ({"systemPromptRef": REFERENCE | {"name": "gone"}}, {}, "MissingSystemPromptRef"),
        ({"systemPromptRef": REFERENCE | {"key": "gone"}}, {}, "MissingSystemPromptRef"),
        ({"systemPromptRef": REFERENCE | {"key": "blank"}}, {}, "MissingSystemPromptRef"),
        ({"systemPromptRef": REFERENCE | {"key": "binary"}}, {}, "MissingSystemPromptRef"),
    ],
)
def test_refusals_of_current_controllers(defaults: dict[str, Any], run: dict[str, Any], reason: str) -> None:
    found = _system(defaults, run)
    assert found.refusal.reason == reason
    assert found.refusal.condition == "InvalidSpec"
    assert (found.text, found.hash) == (None, None)


def test_the_limit_counts_utf_16_units() -> None:
    assert _system({"systemPrompt": "\U0001f600" * 8192}).refusal is None


def test_a_secret_must_be_allowed_by_the_agent_as_well() -> None:
    options: dict[str, Any] = {"security": {"allowedSecrets": ["other"]}}
    found = _system({"systemPromptRef": SECRET_REFERENCE}, {"secrets": ["hidden"]}, **options)
    assert found.refusal.reason == "SecretNotAllowed"
    options = {"security": {"allowedSecrets": ["hidden"]}}
    assert _system({"systemPromptRef": SECRET_REFERENCE}, {"secrets": ["hidden"]}, **options).refusal is None


@pytest.mark.parametrize(
    ("run", "text"),
    [
        ({"systemPrompt": "of the run"}, "of the run"),
        ({"systemPromptRef": REFERENCE}, "from a map\n"),
        ({"systemPrompt": " "}, "of the agent"),
        ({}, "of the agent"),
    ],
)
def test_by_the_guides_a_run_may_bring_its_own(run: dict[str, Any], text: str) -> None:
    assert _system({"systemPrompt": "of the agent"}, run, profile=GUIDE).text == text


def test_by_the_guides_none_at_all_is_fine() -> None:
    found = _system({}, profile=GUIDE)
    assert (found.source, found.kind, found.text, found.hash, found.refusal, found.note) == (
        "",
        "",
        None,
        None,
        None,
        "",
    )


def test_string_data_of_a_bundle_stands_before_data() -> None:
    secret = made("Secret", "hidden", data={"file": "eA=="}, stringData={"file": "plain\n"})
    found = _system({"systemPromptRef": SECRET_REFERENCE}, {"secrets": ["hidden"]}, objects=(secret,))
    assert found.text == "plain\n"


@pytest.mark.parametrize(
    ("data", "text"), [(base64.b64encode(b"\xffx").decode(), "\ufffdx"), ("not base64!", None), ("", None)]
)
def test_odd_bytes_of_a_secret_are_read_as_the_controller_reads_them(data: str, text: str | None) -> None:
    secret = made("Secret", "hidden", data={"file": data})
    found = _system({"systemPromptRef": SECRET_REFERENCE}, {"secrets": ["hidden"]}, objects=(secret,))
    assert found.text == text
    assert (found.refusal is None) == (text is not None)


def test_an_object_that_may_be_elsewhere_is_no_refusal() -> None:
    found = _system({"systemPromptRef": REFERENCE}, objects=(), complete=False)
    assert (found.text, found.hash, found.refusal) == (None, None, None)
    assert found.note == "ConfigMap/words is not among the objects given: its text is not known here"
    assert found.is_mounted


@pytest.mark.parametrize("profile", BOTH)
def test_an_agent_that_is_not_here_has_defaults_that_are_not_known(profile: Profile) -> None:
    found = system_prompt(loop_run(), Resources(), profile)
    assert found.refusal is None
    assert "Agent/codex-spark-agent is not among the objects given" in found.note
