"""Whether the loop's own condition, ``--while``, wants another cycle.

The iteration contract is the same for every loop:

- ``iteration.index``: completed iterations, 1-based;
- ``iteration.maxIterations``: the limit, 0 for none;
- ``iteration.last.phase``: ``Succeeded`` or ``Failed``;
- ``iteration.last.outcome``: this product's word for it;
- ``iteration.last.control``: the JSON object that the iteration left, or an empty one.
"""

from collections.abc import Mapping
from typing import Any

from run_cycle_loop.model.enums import Outcome
from run_cycle_loop.model.errors import ConfigError
from run_cycle_loop.policies.expressions import Expression, ExpressionError, SyntaxFault


class ConditionError(Exception):
    """The expression gave an error, or no boolean, for this iteration."""


class Condition:
    """A compiled expression.

    Raises:
        ConfigError: it does not parse, names what there is not, or CEL is not installed.
    """

    def __init__(self, expression: str) -> None:
        self.expression = expression
        try:
            self._compiled = Expression(expression, doubles=False, is_checked=True)
        except SyntaxFault as fault:
            raise ConfigError(f"--while {expression!r} is no CEL expression that can work: {fault}; mend it") from fault

    def holds(self, *, index: int, limit: int, outcome: Outcome, control: Mapping[str, Any] | None) -> bool:
        """Whether another iteration is wanted.

        Raises:
            ConditionError: the expression gave an error or something that is neither true nor false.
        """
        last = {
            "phase": "Failed" if outcome.is_failure else "Succeeded",
            "outcome": str(outcome),
            "control": control or {},
        }
        try:
            return self._compiled.holds({"index": index, "maxIterations": limit, "last": last})
        except ExpressionError as error:
            raise ConditionError(f"--while {self.expression!r} failed: {error}") from error
