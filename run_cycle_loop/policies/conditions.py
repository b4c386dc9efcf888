"""Whether another iteration is wanted: a CEL expression over the iteration contract.

The contract is the same for every loop:

- ``iteration.index``: completed iterations, 1-based;
- ``iteration.maxIterations``: the limit, 0 for none;
- ``iteration.last.phase``: ``Succeeded`` or ``Failed``;
- ``iteration.last.outcome``: this product's word for it;
- ``iteration.last.control``: the JSON object that the iteration left, or an empty one.
"""

import math
from collections.abc import Mapping
from typing import Any

from run_cycle_loop.model.enums import Outcome
from run_cycle_loop.model.errors import ConfigError

_BEYOND_CEL = 1 << 63  #: its integers have 64 bits


class ConditionError(Exception):
    """The expression gave an error, or no boolean, for this iteration."""


class Condition:
    """A compiled expression.

    Raises:
        ConfigError: it does not parse, or CEL is not installed.
    """

    def __init__(self, expression: str) -> None:
        self.expression = expression
        try:
            # An extra: only who uses conditions needs it.
            import cel  # noqa: PLC0415
        except ImportError:
            raise ConfigError(
                "--while needs the extra 'cel', which is not installed; in the checkout, pip install '.[cel]'"
            ) from None
        try:
            self._program = cel.compile(expression)
        except Exception as error:
            detail = " ".join(str(error).split())
            raise ConfigError(f"--while {expression!r} is no CEL expression: {detail}; mend it") from error

    def holds(self, *, index: int, limit: int, outcome: Outcome, control: Mapping[str, Any] | None) -> bool:
        """Whether another iteration is wanted.

        Raises:
            ConditionError: the expression gave an error or something that is neither true nor false.
        """
        last = {
            "phase": "Failed" if outcome.is_failure else "Succeeded",
            "outcome": str(outcome),
            "control": _for_cel(control or {}),
        }
        context = {"iteration": {"index": index, "maxIterations": limit, "last": last}}
        try:
            value = self._program.execute(context)
        except Exception as error:
            raise ConditionError(f"--while {self.expression!r} failed: {_fault(error)}") from error
        if not isinstance(value, bool):
            raise ConditionError(f"--while {self.expression!r} gave {value!r}, neither true nor false")
        return value


def _for_cel(value: Any) -> Any:
    """The same JSON value in terms of CEL, which knows neither longer integers nor halves of surrogate pairs."""
    match value:
        case Mapping():
            return {_for_cel(key): _for_cel(item) for key, item in value.items()}
        case list() | tuple():
            return [_for_cel(item) for item in value]
        case str():
            return value.encode("utf-8", "replace").decode("utf-8")
        case int() if abs(value) >= _BEYOND_CEL:
            return math.inf if value > 0 else -math.inf
        case _:
            return value


def _fault(error: Exception) -> str:
    """The library's word for it in one line; its word for a missing field is the bare name."""
    words = " ".join(str(error).split())
    return f"there is no field {words}; guard it with has()" if isinstance(error, KeyError) else words
