"""Where CEL's edges are: what the condition of a loop may say, and what its faults sound like."""

from typing import Any

import pytest

from run_cycle_loop.policies.expressions import Expression, ExpressionError, SyntaxFault

CONTROL = {"n": 3, "list": [1, 2], "text": "é😀", "nil": None, "map": {"a.b": 1}, "true": True, "big": 10**30}


def evaluate(text: str, *, doubles: bool = True, index: int = 2, control: Any = None) -> bool:
    last = {"phase": "Succeeded", "control": CONTROL if control is None else control}
    return Expression(text, doubles=doubles).holds({"index": index, "maxIterations": 8, "last": last})


@pytest.mark.parametrize(
    "text",
    [
        "iteration.index < iteration.maxIterations && iteration.last.control['true'] == true",
        "iteration.last.control.n == 3",
        "iteration.last.control.n in [1, 2, 3]",
        "iteration.last.control.list[iteration.index - 2.0] == 1",
        "iteration.index + 1.0 == 3.0",
        "int(iteration.index) + 1 == 3",
        "1 == 1.0 && 1u < 1.5",
        "true || nothing()",
        "nothing() || true",
        "true || iteration.last.control.no.such.field",
        "!(false && iteration.last.control.missing)",
        "has(iteration.last.control.n) && !has(iteration.last.control.missing)",
        "'n' in iteration.last.control",
        "iteration.last.control['map']['a.b'] == 1",
        "size(iteration.last.control.text) == 2",
        "iteration.last.control.list.exists(x, x > 1)",
        "iteration.last.control.list.map(x, x * 2.0) == [2.0, 4.0]",
        "iteration.last.control.text.matches('^é')",
        "iteration.last.control.nil == null",
        "iteration.last.control.big > 1e29",
        "timestamp('2026-01-01T00:00:00Z') < timestamp('2027-01-01T00:00:00Z')",
        "iteration.last.control != {}",
        "true // with a reason",
    ],
)
def test_what_is_true(text: str) -> None:
    assert evaluate(text) is True


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("iteration.index + 1 > 1", "overload"),
        ("iteration.index % 2 == 0", "overload"),
        ("iteration.last.control.missing == true", 'there is no field "missing"; guard it with has()'),
        ("iteration.last.control.missing || false", "guard it with has()"),
        ("iteration.last.control.n < 'a'", "overload"),
        ("step.name == 'a'", "step"),
        ("control.n == 3", "control"),
        ("'a'.lowerAscii() == 'a'", "lowerAscii"),
        ("math.greatest(1, 2) == 2", "math"),
        ("1 / 0 == 1", "divide"),
        ("'a'.matches('(?=a)')", "regular expression"),
        ("iteration.last.control", "neither true nor false"),
        ("1", "neither true nor false"),
        ("'true'", "neither true nor false"),
        ("iteration.last.control.n", "neither true nor false"),
        ("null", "neither true nor false"),
    ],
)
def test_what_is_an_error(text: str, words: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        evaluate(text)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "1 <", "a b", "iteration.last.control.?n", "`a`", "(" * 4000, "true\0", "'"])
def test_what_does_not_parse(text: str) -> None:
    with pytest.raises(SyntaxFault) as caught:
        Expression(text, doubles=True)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_whole_numbers_stay_whole_where_doubles_are_not_asked_for() -> None:
    assert evaluate("iteration.index + 1 == 3 && iteration.index % 2 == 0", doubles=False)


def test_an_expression_that_would_run_for_ever_is_given_up() -> None:
    ten = "[1,2,3,4,5,6,7,8,9,10]"
    nested = "true"
    for name in "abcdefg":
        nested = f"{ten}.all({name}, {nested})"
    with pytest.raises(ExpressionError, match="budget"):
        evaluate(nested)
