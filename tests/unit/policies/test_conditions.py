from typing import Any

import pytest

from run_cycle_loop.model.enums import Outcome
from run_cycle_loop.model.errors import ConfigError
from run_cycle_loop.policies.conditions import Condition, ConditionError


def holds(
    expression: str, *, index: int = 1, limit: int = 0, outcome: Outcome = Outcome.SUCCESS, control: Any = None
) -> bool:
    return Condition(expression).holds(index=index, limit=limit, outcome=outcome, control=control)


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("true", True),
        ("false", False),
        ("iteration.index == 3", True),
        ("iteration.index < iteration.maxIterations", True),
        ("iteration.last.phase == 'Succeeded'", True),
        ("iteration.last.outcome == 'success'", True),
        ("iteration.last.control.continue == true", True),
        ("iteration.last.control.outputs.left > 2", False),
        ("!has(iteration.last.control.nothing)", True),
    ],
)
def test_an_expression_sees_the_iteration(expression: str, expected: bool) -> None:
    control = {"continue": True, "outputs": {"left": 2}}
    assert holds(expression, index=3, limit=5, control=control) is expected


@pytest.mark.parametrize("outcome", Outcome)
def test_the_phase_failed_stands_for_every_failure(outcome: Outcome) -> None:
    assert holds("iteration.last.phase == 'Failed'", outcome=outcome) is outcome.is_failure


def test_without_a_payload_the_control_is_an_empty_object() -> None:
    assert holds("size(iteration.last.control) == 0")


@pytest.mark.parametrize("expression", ["iteration.last.control.missing", "1 / 0 == 1"])
def test_an_error_of_the_expression_is_named_with_it(expression: str) -> None:
    with pytest.raises(ConditionError, match="failed") as caught:
        holds(expression)
    assert expression in str(caught.value)


@pytest.mark.parametrize("expression", ["1", "'true'", "iteration.index", "[]", "null"])
def test_what_is_neither_true_nor_false_is_an_error(expression: str) -> None:
    with pytest.raises(ConditionError, match="neither true nor false"):
        holds(expression)


@pytest.mark.parametrize("expression", ["1 +", "iteration.", "&&", "a b", ")", "nothing == 1", "now()"])
def test_what_does_not_parse_is_a_configuration_error_on_one_line(expression: str) -> None:
    with pytest.raises(ConfigError, match="no CEL expression") as caught:
        Condition(expression)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("strange", [1 << 63, -(10**4000), "\ud800", {"\ud800": ["\udfff"]}])
def test_what_cel_cannot_hold_does_not_end_a_loop_that_does_not_ask_for_it(strange: Any) -> None:
    assert holds("iteration.index == 1", control={"a": strange})


def test_a_number_that_cel_cannot_hold_is_larger_than_all_that_it_can() -> None:
    assert holds("iteration.last.control.a > 1e300", control={"a": 10**4000})
    assert holds("iteration.last.control.a < -1e300", control={"a": -(10**4000)})
