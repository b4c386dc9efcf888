"""How leniently a controller reads its variables, and what stands where there are none."""

from typing import Any

import pytest

from run_cycle_loop.agentrun.flags import LOCAL, UNKNOWN, ControllerFlags, read_flags
from run_cycle_loop.agentrun.profiles import Profile

CONTROLLER = "AGENTS_CONTROLLER_"
RUNNER = "AGENTS_AGENT_RUNNER_"


@pytest.mark.parametrize(
    ("variable", "text", "field", "value"),
    [
        *(
            (f"{CONTROLLER}WORKFLOW_LOOPS_ENABLED", text, "loops_enabled", enabled)
            for text, enabled in [
                ("1", True),
                ("true", True),
                (" Yes ", True),
                ("y", True),
                ("on", False),
                ("", False),
                ("false", False),
                ("maybe", False),
            ]
        ),
        *(
            (f"{CONTROLLER}WORKFLOW_LOOP_MAX_ITERATIONS", text, "max_iterations", limit)
            for text, limit in [
                ("7", 7),
                ("10x", 10),
                ("5.9", 5),
                (" 8 ", 8),
                ("0", 20),
                ("-3", 20),
                ("abc", 20),
                ("", 20),
                ("9" * 5000, 999999999999999),
            ]
        ),
        (f"{CONTROLLER}WORKFLOW_LOOP_STATUS_HISTORY_LIMIT", "3", "history_limit", 3),
        (f"{CONTROLLER}WORKFLOW_LOOP_STATUS_HISTORY_LIMIT", "x", "history_limit", 50),
        (f"{CONTROLLER}NAMESPACES", '["a", "b"]', "namespaces", ("a", "b")),
        (f"{CONTROLLER}NAMESPACES", "a, b,,", "namespaces", ("a", "b")),
        (f"{CONTROLLER}CONCURRENCY_NAMESPACE", "14", "concurrency_namespace", 14),
        (f"{CONTROLLER}REPO_CONCURRENCY_OVERRIDES", '{"a/b": 2}', "repository_concurrency_overrides", {"a/b": 2}),
        (f"{CONTROLLER}REPO_CONCURRENCY_OVERRIDES", "[1]", "repository_concurrency_overrides", {}),
        (f"{CONTROLLER}LABELS_REQUIRED", '["team"', "labels_required", ('["team"',)),
        (f"{CONTROLLER}IMAGES_DENIED", "bad/*", "images_denied", ("bad/*",)),
        (f"{CONTROLLER}BLOCKED_SECRETS", "a,b", "blocked_secrets", ("a", "b")),
        (f"{CONTROLLER}VCS_PROVIDERS_ENABLED", "off", "vcs_enabled", False),
        (f"{CONTROLLER}VCS_PROVIDERS_ENABLED", "what", "vcs_enabled", True),
        (f"{CONTROLLER}AUTH_SECRET_NAME", "codex-auth", "auth_secret_name", "codex-auth"),
        (f"{CONTROLLER}AUTH_SECRET_KEY", " ", "auth_secret_key", "auth.json"),
        ("AGENTS_AGENTRUN_IMMUTABILITY_ENFORCED", "false", "immutability_enforced", False),
        (f"{RUNNER}JOB_TTL_SECONDS", "0", "job_ttl", 30),
        (f"{RUNNER}JOB_TTL_SECONDS", "86400", "job_ttl", 86400),
        (f"{RUNNER}JOB_TTL_SECONDS", "99999999", "job_ttl", 604800),
        (f"{RUNNER}TOLERATIONS", '[{"key": "a"}]', "runner_tolerations", ({"key": "a"},)),
        (f"{RUNNER}TOLERATIONS", "a,b", "runner_tolerations", ()),
        (f"{RUNNER}NODE_SELECTOR", '{"disk": "fast"}', "runner_node_selector", {"disk": "fast"}),
        (f"{RUNNER}NODE_SELECTOR", "[" * 100_000, "runner_node_selector", {}),
    ],
)
def test_a_variable_is_read_as_the_controller_reads_it(variable: str, text: str, field: str, value: Any) -> None:
    assert getattr(read_flags({variable: text}, Profile.CURRENT), field) == value


def test_what_is_not_set_has_its_default_and_is_known() -> None:
    flags = read_flags({}, Profile.GUIDE)

    assert flags == ControllerFlags(known=True)
    assert (flags.loops_enabled, flags.max_iterations, flags.job_ttl) == (False, 20, 600)


@pytest.mark.parametrize(
    ("profile", "env", "image", "variable"),
    [
        (
            Profile.GUIDE,
            {"JANGAR_AGENT_RUNNER_IMAGE": "a", "JANGAR_AGENT_IMAGE": "b"},
            "a",
            "JANGAR_AGENT_RUNNER_IMAGE",
        ),
        (Profile.GUIDE, {"JANGAR_AGENT_RUNNER_IMAGE": " ", "JANGAR_AGENT_IMAGE": "b"}, "b", "JANGAR_AGENT_IMAGE"),
        (Profile.GUIDE, {"AGENTS_AGENT_RUNNER_IMAGE": "a"}, "", ""),
        (Profile.CURRENT, {"AGENTS_AGENT_RUNNER_IMAGE": "a"}, "a", "AGENTS_AGENT_RUNNER_IMAGE"),
        (Profile.CURRENT, {"AGENTS_AGENT_IMAGE": "b"}, "", ""),
    ],
)
def test_the_runner_image_is_the_first_that_the_profile_knows(
    profile: Profile, env: dict[str, str], image: str, variable: str
) -> None:
    flags = read_flags(env, profile)

    assert (flags.runner_image, flags.runner_image_variable) == (image, variable)


def test_the_guides_flags_have_the_guides_names() -> None:
    guide, current = (ControllerFlags.variables(profile) for profile in Profile)

    assert guide["loops_enabled"] == "JANGAR_AGENTS_CONTROLLER_WORKFLOW_LOOPS_ENABLED"
    assert guide["max_iterations"] == "JANGAR_AGENTS_CONTROLLER_WORKFLOW_LOOP_MAX_ITERATIONS"
    assert guide["job_ttl"] == "JANGAR_AGENT_RUNNER_JOB_TTL_SECONDS"
    assert current["loops_enabled"] == "AGENTS_CONTROLLER_WORKFLOW_LOOPS_ENABLED"
    assert guide.keys() == current.keys()
    assert read_flags({guide["loops_enabled"]: "true"}, Profile.GUIDE).loops_enabled
    assert not read_flags({current["loops_enabled"]: "true"}, Profile.GUIDE).loops_enabled


def test_this_machine_loops_and_nobody_knows_about_a_cluster() -> None:
    assert (LOCAL.known, LOCAL.loops_enabled, LOCAL.max_iterations, bool(LOCAL.runner_image)) == (True, True, 20, True)
    assert not UNKNOWN.known
