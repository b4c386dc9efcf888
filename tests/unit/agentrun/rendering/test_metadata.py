"""The metadata map: aliases, mappings, the source, the keys that are made, and the contract over it."""

from typing import Any

import pytest

from run_cycle_loop.agentrun.profiles import Profile
from run_cycle_loop.agentrun.rendering.metadata import ALIASES, contract_of, event_of

BOTH = list(Profile)


def _map(implementation: dict[str, Any], parameters: dict[str, str], profile: Profile = Profile.CURRENT) -> Any:
    return event_of(implementation, parameters, profile).metadata


@pytest.mark.parametrize(("alias", "key"), ALIASES)
@pytest.mark.parametrize("profile", BOTH)
def test_an_alias_fills_the_key_that_has_no_value(alias: str, key: str, profile: Profile) -> None:
    assert _map({}, {alias: " v "}, profile)[key] == "v"
    assert _map({}, {alias: "v", key: "own"}, profile)[key] == "own"
    assert _map({}, {alias: "v", key: "  "}, profile)[key] == "v"


@pytest.mark.parametrize(
    ("parameters", "mappings", "expected"),
    [
        ({"repo": "a/b", "issueRepository": "c/d"}, [], {"repository": "a/b"}),
        ({"team": "x"}, [{"from": "team", "to": "owner"}], {"owner": "x"}),
        ({"repo": "a/b"}, [{"from": "repository", "to": "where"}], {"where": "a/b"}),
        ({"t": "x"}, [{"from": "t", "to": "u"}, {"from": "u", "to": "v"}], {"u": "x", "v": "x"}),
        ({"t": "x", "u": "own"}, [{"from": "t", "to": "u"}], {"u": "own"}),
        ({"t": "x"}, [{"from": " t ", "to": " u "}], {"u": "x"}),
    ],
)
def test_mappings_come_after_aliases_and_fill_what_is_empty(
    parameters: dict[str, str], mappings: list[dict[str, str]], expected: dict[str, str]
) -> None:
    found = _map({"contract": {"mappings": mappings}}, parameters)
    assert {key: found[key] for key in expected} == expected


@pytest.mark.parametrize(
    ("source", "parameters", "expected"),
    [
        (
            {"provider": "github", "externalId": "own/repo#12", "url": "https://x.test/12"},
            {},
            {
                "repository": "own/repo",
                "issueNumber": "12",
                "issueUrl": "https://x.test/12",
                "url": "https://x.test/12",
            },
        ),
        (
            {"provider": "github", "externalId": "own/repo#12"},
            {"repo": "a/b"},
            {"repository": "a/b", "issueNumber": "12"},
        ),
        ({"provider": "linear", "externalId": "own/repo#12", "url": "u"}, {}, {"issueUrl": "u", "url": "u"}),
        ({"provider": "github", "externalId": "own/repo"}, {}, {}),
        ({"provider": "github", "externalId": "#12"}, {}, {}),
        ({"provider": "manual", "url": "u"}, {"url": "own"}, {"issueUrl": "own", "url": "own"}),
    ],
)
def test_the_source_fills_what_parameters_leave_open(
    source: dict[str, str], parameters: dict[str, str], expected: dict[str, str]
) -> None:
    found = dict(_map({"source": source}, parameters))
    found.pop("repo", None)
    assert found == expected


def test_blank_parameters_are_none_in_the_map_and_hide_their_alias_from_texts_alone() -> None:
    implementation = {"text": "[{{ repository }}][{{ metadata.repository }}][${repository}]"}
    event = event_of(implementation, {"repository": " ", "repo": "a/b"}, Profile.CURRENT)
    assert event.metadata["repository"] == "a/b"
    assert event.prompt == "[ ][a/b][ ]"


def test_texts_see_parameters_over_the_map_and_under_three_names() -> None:
    implementation = {"text": "{{ x }}|{{ metadata.x }}|{{ parameters.x }}|{{ inputs.x }}|{{ agentRun.name }}"}
    assert event_of(implementation, {"x": " v "}, Profile.CURRENT).prompt == " v |v| v | v |"


def test_made_keys_are_no_part_of_what_texts_can_name() -> None:
    event = event_of({"text": "{{ issueTitle }}{{ prompt }}.", "summary": "short"}, {}, Profile.CURRENT)
    assert event.prompt == "."
    assert event.metadata == {"issueTitle": "short", "issueBody": ".", "prompt": "."}


@pytest.mark.parametrize(
    ("profile", "body"), [(Profile.CURRENT, "x ${repository}"), (Profile.GUIDE, "x ${repository}")]
)
def test_the_guides_leave_an_issues_body_and_current_controllers_fill_it_in(profile: Profile, body: str) -> None:
    parameters = {"issueBody": body, "repository": "a/b"}
    event = event_of({"text": "{{issueBody}} / ${issueBody}"}, parameters, profile)
    if profile is Profile.CURRENT:
        assert event.payload["issueBody"] == "x a/b"
        assert event.prompt == "x a/b / x ${repository}"
    else:
        assert event.payload["issueBody"] == body
        assert event.prompt == "{{issueBody}} / ${issueBody}"


@pytest.mark.parametrize(
    ("profile", "prompt", "in_map"),
    [(Profile.GUIDE, "do that", "do that"), (Profile.CURRENT, "the text", "the text")],
)
def test_the_prompt_parameter_counts_for_the_guides_alone(profile: Profile, prompt: str, in_map: str) -> None:
    event = event_of({"text": "the text", "summary": "s"}, {"prompt": " do that "}, profile)
    assert event.prompt == prompt
    assert event.metadata["prompt"] == in_map


def test_the_payload_repeats_what_is_known_in_the_controllers_order() -> None:
    parameters = {"stage": "s", "headRef": "h", "baseRef": "b", "repo": "a/b", "issue": "7", "title": "t", "url": "u"}
    event = event_of({"text": "T"}, parameters, Profile.GUIDE)
    keys = "prompt repository issueNumber issueTitle issueBody issueUrl base head stage metadata".split()
    assert list(event.payload) == keys
    assert event.payload["metadata"] == {"map": event.metadata}
    assert event_of({}, {}, Profile.GUIDE).payload == {}


@pytest.mark.parametrize("profile", BOTH)
@pytest.mark.parametrize(
    ("contract", "parameters", "reason", "missing"),
    [
        ({}, {}, None, ()),
        ({"requiredKeys": ["repository"]}, {"repo": "a/b"}, None, ()),
        ({"requiredKeys": ["repository", "owner", "owner"]}, {}, "MissingRequiredMetadata", ("repository", "owner")),
        ({"requiredKeys": ["prompt", "issueBody"]}, {}, None, ()),
        ({"requiredKeys": ["owner"], "mappings": [{"from": "team", "to": "owner"}]}, {"team": "x"}, None, ()),
        ({"requiredKeys": ["stage"]}, {"stage": "  "}, "MissingRequiredMetadata", ("stage",)),
        ({"requiredKeys": [" "]}, {}, "InvalidContract", ()),
        ({"requiredKeys": [7]}, {}, "InvalidContract", ()),
        ({"mappings": [{"from": "a"}]}, {}, "InvalidContract", ()),
        ({"mappings": ["a"]}, {}, "InvalidContract", ()),
        ({"mappings": [{"from": "a", "to": " "}]}, {}, "InvalidContract", ()),
    ],
)
def test_a_contract_says_what_is_missing(
    contract: dict[str, Any], parameters: dict[str, str], reason: str | None, missing: tuple[str, ...], profile: Profile
) -> None:
    found = contract_of({"text": "T", "contract": contract}, parameters, profile)
    assert found.missing == missing
    assert (found.refusal.reason if found.refusal else None) == reason
    if found.refusal is not None:
        assert found.refusal.condition == "InvalidSpec"
        assert all(key in found.refusal.message for key in missing)
