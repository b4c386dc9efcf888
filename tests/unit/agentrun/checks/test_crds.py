import json
from collections.abc import Iterator
from typing import Any

import pytest

from run_cycle_loop.agentrun.checks.crds import PROFILES, crds
from run_cycle_loop.agentrun.profiles import Profile

KINDS = {
    "Agent": "agents",
    "AgentRun": "agentruns",
    "AgentProvider": "agentproviders",
    "ImplementationSpec": "implementationspecs",
    "VersionControlProvider": "versioncontrolproviders",
    "Memory": "memories",
}


def schema(profile: str, kind: str) -> Any:
    (found,) = [one for one in crds(profile) if one["spec"]["names"]["kind"] == kind]
    return found["spec"]["versions"][0]["schema"]["openAPIV3Schema"]


def rules(value: Any, path: str = "") -> Iterator[tuple[str, str, str]]:
    """Where each rule stands, itself, and its message."""
    if isinstance(value, dict):
        for rule in value.get("x-kubernetes-validations", ()):
            assert set(rule) == {"rule", "message"}
            yield path, rule["rule"], rule["message"]
        for key, inner in value.items():
            yield from rules(inner, f"{path}/{key}")
    elif isinstance(value, list):
        for inner in value:
            yield from rules(inner, path)


def without_rules(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_rules(inner) for key, inner in value.items() if key != "x-kubernetes-validations"}
    return [without_rules(inner) for inner in value] if isinstance(value, list) else value


@pytest.mark.parametrize("profile", PROFILES)
def test_every_kind_is_namespaced_with_a_status_of_its_own(profile: str) -> None:
    found = {one["spec"]["names"]["kind"]: one for one in crds(profile)}
    assert {kind: one["spec"]["names"]["plural"] for kind, one in found.items()} == KINDS
    for one in found.values():
        assert one["metadata"]["name"] == f"{one['spec']['names']['plural']}.agents.proompteng.ai"
        assert (one["spec"]["group"], one["spec"]["scope"]) == ("agents.proompteng.ai", "Namespaced")
        (version,) = one["spec"]["versions"]
        assert (version["name"], version["subresources"]) == ("v1alpha1", {"status": {}})


def test_the_guide_lacks_three_rules_and_nothing_else() -> None:
    spec = "/properties/spec"
    step = f"{spec}/properties/workflow/properties/steps/items/properties/parameters"
    guide, current = (set(rules(schema(profile, "AgentRun"))) for profile in PROFILES)
    assert guide < current
    assert sorted(path for path, _, _ in guide) == [spec, spec]
    assert sorted(path for path, _, _ in current - guide) == [spec, spec, step]
    assert all("not allowed" in message for _, _, message in current - guide)
    of_agents = [set(rules(schema(profile, "Agent"))) for profile in PROFILES]
    assert of_agents[0] == of_agents[1]
    assert [path for path, _, _ in of_agents[0]] == [f"{spec}/properties/defaults"]
    assert without_rules(list(crds("guide"))) == without_rules(list(crds("current")))


def test_an_emptied_list_of_rules_goes_with_its_rules() -> None:
    parameters = schema("guide", "AgentRun")["properties"]["spec"]["properties"]["workflow"]["properties"]["steps"]
    assert "x-kubernetes-validations" not in parameters["items"]["properties"]["parameters"]


def test_no_mark_of_a_profile_is_left() -> None:
    assert "onlyIn" not in json.dumps([crds(profile) for profile in PROFILES])


def test_an_inline_implementation_has_the_fields_of_an_implementation_spec() -> None:
    run = schema("current", "AgentRun")["properties"]["spec"]["properties"]
    step = run["workflow"]["properties"]["steps"]["items"]["properties"]
    whole = schema("current", "ImplementationSpec")["properties"]["spec"]
    assert run["implementation"]["properties"]["inline"] == whole
    assert step["implementation"] == run["implementation"]


def test_each_call_gives_objects_of_its_own() -> None:
    crds("current")[0]["spec"]["group"] = "spoiled"
    assert crds("current")[0]["spec"]["group"] == "agents.proompteng.ai"


def test_a_profile_is_named_by_its_word_or_its_member() -> None:
    assert crds(Profile.GUIDE) == crds("guide")
    with pytest.raises(ValueError, match="the profile 'seed' is unknown: choose one of guide, current"):
        crds("seed")
