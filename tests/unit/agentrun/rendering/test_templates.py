"""Both kinds of placeholder: what they become, what stays, and what is said of each."""

import pytest

from run_cycle_loop.agentrun.rendering.templates import (
    Replacement,
    fill_braces,
    fill_dollar,
    json_text,
    placeholders,
    render,
)
from run_cycle_loop.model.errors import ConfigError

CONTEXT = {
    "stage": "implement",
    "number": 3,
    "ratio": 0.5,
    "whole": 4.0,
    "yes": True,
    "nothing": None,
    "blank": "",
    "list": [1, {"a": "ü"}],
    "map": {"inner": {"deep": "found"}, "text": "plain"},
    "a.b": "dotted",
    "braces": "{{ stage }}",
    "dollar": "${stage}",
    "metadata": {"stage": "implement"},
}


@pytest.mark.parametrize(
    ("text", "filled"),
    [
        ("{{ stage }}", "implement"),
        ("{{stage}}", "implement"),
        ("{{  stage\n}}", "implement"),
        ("{{ metadata.stage }}", "implement"),
        ("{{ map . inner . deep }}", "found"),
        ("{{ map.inner }}", '{"deep":"found"}'),
        ("{{ list }}", '[1,{"a":"ü"}]'),
        ("{{ number }} {{ ratio }} {{ whole }} {{ yes }}", "3 0.5 4 true"),
        ("{{ nothing }}|{{ unknown }}|{{ blank }}", "||"),
        ("{{ list.0 }}|{{ map.text.length }}", "|"),
        ("{{ a.b }}", ""),
        ("${{ github.sha }}", "$"),
        ("{{}}", "{{}}"),
        ("{{ stage }", "{{ stage }"),
        ("{{ {{ stage }} }}", " }}"),
        ("{{ braces }}", "{{ stage }}"),
        ("${stage} $stage", "${stage} $stage"),
    ],
)
def test_the_first_pass_puts_in_values_and_removes_what_has_none(text: str, filled: str) -> None:
    assert fill_braces(text, CONTEXT).text == filled


def test_braces_around_blanks_put_in_everything() -> None:
    context = {"a": "1", "parameters": {"a": "1"}}
    assert fill_braces("all: {{  }}", context).text == 'all: {"a":"1","parameters":{"a":"1"}}'


@pytest.mark.parametrize(
    ("text", "filled"),
    [
        ("${stage}", "implement"),
        ("${ stage }", "implement"),
        ("${map.inner.deep}", "found"),
        ("${map.inner}", '{"deep":"found"}'),
        ("${a.b}", "dotted"),
        ("${HOME}/${SCRIPT_ROOT}", "${HOME}/${SCRIPT_ROOT}"),
        ("${nothing}", "${nothing}"),
        ("${}", "${}"),
        ("${ }", "${ }"),
        ("$stage", "$stage"),
        ("${blank}|", "|"),
        ("${dollar}", "${stage}"),
        ("{{ stage }}", "{{ stage }}"),
    ],
)
def test_the_second_pass_leaves_what_it_does_not_know(text: str, filled: str) -> None:
    assert fill_dollar(text, CONTEXT).text == filled


@pytest.mark.parametrize(
    ("text", "filled"),
    [
        ("{{ dollar }}", "implement"),
        ("${braces}", "{{ stage }}"),
        ("{{ braces }}", "{{ stage }}"),
        ("${{{ stage }}}", "$}"),
    ],
)
def test_what_the_first_pass_puts_in_is_seen_by_the_second_alone(text: str, filled: str) -> None:
    assert render(text, CONTEXT).text == filled


def test_each_placeholder_is_told_with_its_place_and_its_value() -> None:
    found = render("a {{ dollar }} b {{ gone }} ${stage} ${HOME}", CONTEXT)
    assert found.text == "a implement b  implement ${HOME}"
    assert found.replacements == (
        Replacement(token="{{ dollar }}", path="dollar", value="${stage}", position=2),
        Replacement(token="{{ gone }}", path="gone", value=None, position=17),
        Replacement(token="${stage}", path="stage", value="implement", position=2, in_value=True),
        Replacement(token="${stage}", path="stage", value="implement", position=14),
        Replacement(token="${HOME}", path="HOME", value=None, position=23),
    )
    assert [one.is_braces for one in found.replacements] == [True, True, False, False, False]


def test_a_text_without_placeholders_is_the_same() -> None:
    assert render("", CONTEXT).text == ""
    assert render("plain { } $ {x}", CONTEXT).replacements == ()


def test_placeholders_are_listed_in_their_order() -> None:
    assert placeholders("a ${x} {{ y }} ${z} {{}}") == ("${x}", "{{ y }}", "${z}")
    assert placeholders("${{ github.sha }}") == ("{{ github.sha }}",)


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ({"a": [1.0, 2.5, float("inf"), None, True]}, '{"a":[1,2.5,null,null,true]}'),
        ("é\n", '"é\\n"'),
        ((), "[]"),
    ],
)
def test_json_is_written_as_controllers_write_it(value: object, written: str) -> None:
    assert json_text(value) == written


@pytest.mark.parametrize(
    "text", ["{{" * 60_000, "${" * 60_000, "{{" * 60_000 + "}", "{{ x }" * 20_000, "{{ dollar }}" * 10_000 + "${stage}"]
)
def test_hostile_texts_take_no_longer_than_others(text: str) -> None:
    """Looked at once for each opening mark, these would take minutes."""
    assert len(render(text, CONTEXT).text) <= len(text)


def test_a_text_that_grows_without_measure_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"a text of 5000 characters comes out with more than 4000000 at \{\{ \}\}"):
        render("{{ }}" * 1000, {"a": "x" * 10_000})


@pytest.mark.parametrize(
    ("text", "inside"),
    [("{{ open }}{{ name }}} x", True), ("{{ open }}stage} x", True), ("{{ name }}${stage}{{ name }}", False)],
)
def test_a_token_that_values_are_part_of_is_said_to_be_in_one(text: str, inside: bool) -> None:
    found = [
        one for one in render(text, {"open": "${", "name": "stage", "stage": "done"}).replacements if not one.is_braces
    ]
    assert [(one.token, one.value, one.in_value) for one in found] == [("${stage}", "done", inside)]
