"""CEL expressions, by Google's own implementation: compiled once, evaluated over JSON values.

Names and functions are resolved only when they are reached, as newer CEL runtimes do: ``true || nothing()`` is true.
"""

import math
from collections.abc import Mapping
from typing import Any

from run_cycle_loop.model.errors import ConfigError

_BEYOND_CEL = 1 << 63  #: its integers have 64 bits
_LONGEST_FAULT = 300  #: characters of the library's words


class ExpressionError(Exception):
    """The expression gave an error, or no boolean, for these values."""


class SyntaxFault(Exception):  # noqa: N818 - a word of its own: what is wrong is the text, whatever the values
    """The expression does not parse; the message is the parser's, on one line."""


class Expression:
    """A compiled expression over one variable, ``iteration``.

    Args:
        text: the expression.
        doubles: whether every number is bound as a double, as JSON has them. Then ``iteration.index + 1`` is an error,
            since 1 is an int, and ``iteration.index + 1.0`` is not.
        is_checked: whether names and functions that do not exist are a fault at once; controllers see them late.

    Raises:
        SyntaxFault: it does not parse, or does not pass the check.
        ConfigError: CEL is not installed.
    """

    def __init__(self, text: str, *, doubles: bool, is_checked: bool = False) -> None:
        self.text = text
        self._doubles = doubles
        try:
            # An extra: only who uses conditions needs it.
            from cel_expr_python import cel  # noqa: PLC0415
        except ImportError:
            raise ConfigError(
                f"{text!r} needs the extra 'cel', which is not installed; in the checkout, pip install '.[cel]'"
            ) from None
        environment = cel.NewEnv(variables={"iteration": cel.Type.DYN})
        try:
            self._program = environment.compile(text, disable_check=not is_checked)
        except Exception as error:  # the library knows but one kind
            raise SyntaxFault(_parser_words(str(error))) from error

    def holds(self, iteration: Mapping[str, Any]) -> bool:
        """Whether it is true for this iteration.

        Raises:
            ExpressionError: it gave an error, or something that is neither true nor false.
        """
        try:
            result = self._program.eval(data={"iteration": _for_cel(iteration, doubles=self._doubles)})
            kind, value = str(result.type()), result.value()
        except Exception as error:
            raise ExpressionError(_fault(str(error))) from error
        if kind == "ERROR":
            raise ExpressionError(_fault(str(value)))
        if kind != "BOOL":
            raise ExpressionError(f"it gave {value!r:.80} ({kind.lower()}), neither true nor false")
        return bool(value)


def _for_cel(value: Any, *, doubles: bool) -> Any:
    """The same JSON value in terms of CEL, which knows neither longer integers nor halves of surrogate pairs."""
    match value:
        case Mapping():
            return {_for_cel(key, doubles=doubles): _for_cel(item, doubles=doubles) for key, item in value.items()}
        case list() | tuple():
            return [_for_cel(item, doubles=doubles) for item in value]
        case str():
            return value.encode("utf-8", "replace").decode("utf-8")
        case int() if not isinstance(value, bool) and (doubles or abs(value) >= _BEYOND_CEL):
            return _as_double(value)
        case _:
            return value


def _as_double(value: int) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def _parser_words(text: str) -> str:
    """The first complaint with its place: ``1:4: Syntax error: ...``; the rest repeats the expression."""
    first = text.partition("\n")[0]
    _, found, place = first.partition("<input>:")
    return _short((place if found else first).removesuffix(" (in container '')"))


def _fault(text: str) -> str:
    """The library's word for it in one line, without its code; its word for a missing field gets the cure with it."""
    words = _short(text.split("[", 1)[0] if text.endswith("]") else text)
    code, found, rest = words.partition(": ")
    words = rest if found and code.isupper() else words
    missing = "Key not found in map : "
    if words.startswith(missing):
        return f"there is no field {words.removeprefix(missing)}; guard it with has()"
    return words


def _short(text: str) -> str:
    words = " ".join(text.split())
    return words if len(words) <= _LONGEST_FAULT else f"{words[:_LONGEST_FAULT]}..."
