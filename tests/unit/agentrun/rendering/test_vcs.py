"""Repository, branches and login of a step: what it is given, what is skipped, and what fails the run."""

from dataclasses import replace
from typing import Any

import pytest

from run_cycle_loop.agentrun.model import read_run
from run_cycle_loop.agentrun.profiles import Profile
from run_cycle_loop.agentrun.rendering.vcs import VersionControl, version_control
from run_cycle_loop.agentrun.rendering.vcs_access import MINTED
from run_cycle_loop.agentrun.resources import Object
from tests.unit.agentrun.guide_runs import (
    CANARY,
    FLAGS,
    SECRET,
    agent,
    around,
    implementation,
    loop_body,
    made,
    vcs_provider,
)

BOTH = list(Profile)
REPOSITORY = {"repository": "proompteng/lab"}


def _given(
    *objects: Object, parameters: dict[str, str] | None = None, profile: Profile = Profile.CURRENT, **changes: Any
) -> VersionControl:
    options: dict[str, Any] = {key: changes.pop(key) for key in ("complete",) if key in changes}
    flags = replace(FLAGS, **changes.pop("flags", {}))
    body = loop_body(**changes)
    if parameters is not None:
        body["spec"]["parameters"] = parameters
    run = read_run(body)
    return version_control(run, run.steps[0], around(*objects, **options), profile, flags)


@pytest.mark.parametrize("profile", BOTH)
def test_the_launch_guides_loop_is_given_its_repository(profile: Profile) -> None:
    found = _given(profile=profile)
    assert (found.provider, found.kind, found.repository, found.mode) == (
        "github",
        "github",
        "proompteng/lab",
        "read-write",
    )
    assert (found.base, found.head) == ("main", "codex/torghut-v5-uncertainty-gates-loop5-20260301")
    assert (found.refusal, found.skipped, found.warning, found.note) == (None, None, None, "")
    assert found.secrets == ("github-token",)


@pytest.mark.parametrize(
    ("changes", "reason", "if_optional"),
    [
        ({"vcsRef": {}}, "MissingVcsProvider", ""),
        ({"vcsRef": {"name": "gone"}}, "MissingVcsProvider", "MissingVcsProvider"),
        ({"parameters": {}}, "MissingRepository", "MissingRepository"),
        ({"of": {"capabilities": {"write": False}}}, "VcsCapabilityDenied", "read-only"),
        ({"of": {"auth": {"method": "app"}, "provider": "gitlab"}}, "UnsupportedVcsAuth", "UnsupportedVcsAuth"),
        (
            {"of": {"auth": {"method": "token", "token": {"type": "api", "secretRef": {"name": "github-token"}}}}},
            "UnsupportedVcsAuth",
            "UnsupportedVcsAuth",
        ),
        ({"of": {"auth": {"method": "token"}}}, "MissingVcsAuth", "MissingVcsAuth"),
        ({"of": {"auth": {"method": "app", "app": {"appId": 1}}}}, "MissingVcsAuth", "MissingVcsAuth"),
        ({"of": {"auth": {"method": "ssh"}}}, "MissingVcsAuth", "MissingVcsAuth"),
        ({"flags": {"blocked_secrets": ("github-token",)}}, "SecretBlocked", "SecretBlocked"),
        ({"agent": {"security": {"allowedSecrets": ["other"]}}}, "SecretNotAllowed", "SecretNotAllowed"),
        (
            {"of": {"auth": {"token": {"secretRef": {"name": "github-token", "key": "gone"}}}}},
            "VcsAuthUnavailable",
            "VcsAuthUnavailable",
        ),
        ({"of": {"auth": {"token": {"secretRef": {"name": "gone"}}}}}, "VcsAuthUnavailable", "VcsAuthUnavailable"),
        ({"of": {"auth": {"method": "none"}}}, "VcsAuthUnavailable", "read-only"),
    ],
)
def test_what_fails_a_run_that_requires_it_is_skipped_or_lessened_where_it_does_not(
    changes: dict[str, Any], reason: str, if_optional: str
) -> None:
    changes = dict(changes)
    objects = []
    if "of" in changes:
        objects.append(vcs_provider(**changes.pop("of")))
    if "agent" in changes:
        objects.append(agent(**changes.pop("agent")))
    found = _given(*objects, **changes)
    assert found.refusal is not None
    assert found.refusal.reason == reason
    assert not found.is_given
    found = _given(*objects, vcsPolicy={"mode": "read-write"}, **changes)
    assert found.refusal is None
    if if_optional == "read-only":
        assert (found.mode, found.is_given) == ("read-only", True)
    else:
        assert (found.skipped.reason if found.skipped else "", found.is_given) == (if_optional, False)


@pytest.mark.parametrize(
    ("policy", "denied"),
    [
        ({"deny": ["proompteng/*"]}, True),
        ({"deny": ["Proompteng/*"]}, False),
        ({"allow": ["other/*"]}, True),
        ({"allow": ["*"]}, False),
        ({"allow": ["proompteng/l*b"]}, False),
        ({"allow": ["proompteng/la?"]}, True),
        ({"allow": ["[p]roompteng/lab"]}, True),
        ({"allow": []}, False),
    ],
)
def test_a_denied_repository_fails_the_run_even_where_it_is_not_required(policy: dict[str, Any], denied: bool) -> None:
    found = _given(vcs_provider(repositoryPolicy=policy), vcsPolicy={})
    assert (found.refusal.reason if found.refusal else "") == ("VcsPolicyDenied" if denied else "")
    found = _given(vcs_provider(repositoryPolicy=policy), vcsPolicy={"mode": "none"})
    assert found.refusal is None
    assert found.skipped is not None
    assert found.skipped.reason == ("VcsPolicyDenied" if denied else "VcsDisabled")


def test_a_controller_without_version_control_says_so() -> None:
    found = _given(flags={"vcs_enabled": False})
    assert found.refusal is None
    assert found.skipped is not None
    assert (found.skipped.reason, found.skipped.condition) == ("VcsProvidersDisabled", "VcsSkipped")


@pytest.mark.parametrize(
    ("of_run", "of_implementation", "of_agent", "named"),
    [
        ({"name": "github"}, {"name": "two"}, {"name": "three"}, "github"),
        ({}, {"name": "github"}, {"name": "three"}, "github"),
        ({}, {}, {"name": "github"}, "github"),
        ({}, {}, {}, ""),
    ],
)
def test_run_then_implementation_then_agent_name_the_provider(
    of_run: dict[str, str], of_implementation: dict[str, str], of_agent: dict[str, str], named: str
) -> None:
    objects = implementation(vcsRef=of_implementation), agent(vcsRef=of_agent)
    found = _given(*objects, vcsRef=of_run, vcsPolicy={})
    assert found.provider == named
    assert found.skipped is None


@pytest.mark.parametrize(
    ("parameters", "defaults", "mode", "base", "head"),
    [
        ({"base": "b", "head": "h"}, {"baseBranch": "x", "branchTemplate": "y"}, "read-write", "b", "h"),
        ({"baseRef": "b", "head_ref": "h"}, {}, "read-write", "b", "h"),
        ({}, {"baseBranch": "trunk"}, "read-write", "trunk", "codex/torghut-priority-loop5"),
        ({}, {}, "read-write", "", "codex/torghut-priority-loop5"),
        ({}, {}, "read-only", "", ""),
        (
            {"x": "1"},
            {"branchTemplate": "w/{{ x }}/{{ agentRun.name }}"},
            "read-only",
            "",
            "w/1/torghut-priority-loop5",
        ),
        ({}, {"branchTemplate": " w/{{ stage }}/{{ parameters.stage }} "}, "read-write", "", "w/implement/implement"),
        ({}, {"branchTemplate": "w/{{ gone }}"}, "read-write", "", "codex/torghut-priority-loop5"),
        ({}, {"branchTemplate": "w/${stage}"}, "read-write", "", "w/${stage}"),
    ],
)
def test_branches(parameters: dict[str, str], defaults: dict[str, str], mode: str, base: str, head: str) -> None:
    found = _given(vcs_provider(defaults=defaults), parameters=REPOSITORY | parameters, vcsPolicy={"mode": mode})
    assert (found.base, found.head) == (base, head)


def test_the_variables_of_a_token_login_in_their_order_without_its_value() -> None:
    of = {
        "cloneBaseUrl": "https://clone.test",
        "defaults": {"commitAuthorName": "Bot", "pullRequest": {"draft": True, "titleTemplate": "T"}},
    }
    found = _given(vcs_provider(**of), flags={"vcs_pr_rate_limits": {"x": 1}})
    reference = {"secretKeyRef": {"name": "github-token", "key": "token"}}
    assert [(one["name"], one.get("value", one.get("valueFrom"))) for one in found.access.env] == [
        ("VCS_TOKEN", reference),
        ("GITHUB_TOKEN", reference),
        ("GH_TOKEN", reference),
        ("VCS_PROVIDER", "github"),
        ("VCS_PROVIDER_NAME", "github"),
        ("VCS_API_BASE_URL", "https://api.github.com"),
        ("VCS_CLONE_BASE_URL", "https://clone.test"),
        ("VCS_REPOSITORY", "proompteng/lab"),
        ("VCS_BASE_BRANCH", "main"),
        ("VCS_HEAD_BRANCH", "codex/torghut-v5-uncertainty-gates-loop5-20260301"),
        ("VCS_USERNAME", "x-access-token"),
        ("GIT_ASKPASS_USERNAME", "x-access-token"),
        ("VCS_COMMIT_AUTHOR_NAME", "Bot"),
        ("GIT_AUTHOR_NAME", "Bot"),
        ("GIT_COMMITTER_NAME", "Bot"),
        ("VCS_PR_TITLE_TEMPLATE", "T"),
        ("VCS_PR_RATE_LIMITS", '{"x":1}'),
        ("VCS_PR_DRAFT", "true"),
        ("VCS_WRITE_ENABLED", "true"),
        ("VCS_PULL_REQUESTS_ENABLED", "true"),
        ("VCS_MODE", "read-write"),
    ]
    assert CANARY not in str(found)


@pytest.mark.parametrize(
    ("kind", "user", "tokens"),
    [
        ("gitlab", "oauth2", ["VCS_TOKEN"]),
        ("bitbucket", "x-token-auth", ["VCS_TOKEN"]),
        ("gitea", "git", ["VCS_TOKEN"]),
        ("generic", "git", ["VCS_TOKEN"]),
    ],
)
def test_other_kinds_have_one_token_and_a_user_of_their_own(kind: str, user: str, tokens: list[str]) -> None:
    found = _given(vcs_provider(provider=kind))
    env = {one["name"]: one.get("value") for one in found.access.env}
    assert env["VCS_USERNAME"] == user
    assert [name for name in env if name.endswith("_TOKEN")] == tokens
    assert "VCS_API_BASE_URL" not in env


def test_an_apps_token_is_fetched_by_the_controller_and_known_to_nobody_here() -> None:
    app = {"appId": 7, "installationId": "8", "privateKeySecretRef": {"name": "github-token", "key": "token"}}
    found = _given(vcs_provider(auth={"app": app}))
    assert [one["value"] for one in found.access.env[:3]] == [MINTED] * 3
    assert CANARY not in str(found)


def test_an_ssh_login_mounts_its_key_and_the_known_hosts() -> None:
    ssh = {"privateKeySecretRef": {"name": "github-token", "key": "token"}, "knownHostsConfigMapRef": {"name": "hosts"}}
    found = _given(vcs_provider(auth={"method": "ssh", "ssh": ssh}))
    assert [one["mountPath"] for one in found.access.mounts] == [
        "/var/run/secrets/agents/vcs/ssh",
        "/var/run/secrets/agents/vcs/known-hosts",
    ]
    assert found.access.volumes[0]["secret"] == {
        "secretName": "github-token",
        "items": [{"key": "token", "path": "token"}],
    }
    assert found.access.volumes[1]["configMap"]["name"] == "hosts"
    assert found.access.env[0] == {"name": "VCS_SSH_KEY_PATH", "value": "/var/run/secrets/agents/vcs/ssh/token"}
    assert "VCS_USERNAME" not in {one["name"] for one in found.access.env}


@pytest.mark.parametrize(("flags", "warns"), [({}, True), ({"vcs_deprecated_tokens": {"github": []}}, False)])
def test_a_personal_token_works_and_is_said_to_be_deprecated(flags: dict[str, Any], warns: bool) -> None:
    token = {"type": "personal-access-token", "secretRef": {"name": "github-token"}}
    found = _given(vcs_provider(auth={"token": token}), flags=flags)
    assert found.is_given
    assert (found.warning.reason if found.warning else "") == ("DeprecatedAuth" if warns else "")


def test_what_may_be_elsewhere_refuses_nothing() -> None:
    found = _given(made("Secret", "other"), vcsRef={"name": "elsewhere"}, complete=False)
    assert (found.refusal, found.skipped, found.is_given) == (None, None, False)
    assert (found.provider, found.head) == ("elsewhere", "codex/torghut-v5-uncertainty-gates-loop5-20260301")
    assert found.note.startswith("VersionControlProvider/elsewhere is not among")
    token = {"token": {"secretRef": {"name": "elsewhere"}}}
    found = _given(vcs_provider(auth=token), complete=False)
    assert found.is_given
    assert found.note == "Secret/elsewhere is not among the objects given: it is taken to be there"


def test_the_secret_of_the_tests_holds_what_must_not_leak() -> None:
    import base64  # noqa: PLC0415 - for this line alone

    assert base64.b64decode(SECRET["data"]["token"]).decode() == CANARY
