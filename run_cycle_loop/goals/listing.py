"""The goals of a file: one on each line, or YAML with weights."""

from collections.abc import Callable, Iterator, Sequence
from math import isfinite
from typing import Any

from run_cycle_loop.model.errors import ConfigError
from run_cycle_loop.policies.goals import Listed

_MOST = 10_000
_HEAVIEST = 1_000_000.0

Check = Callable[[str], str]  #: gives the goal back, or raises ValueError with the reason and the next step


def read_plain(text: str, check: Check) -> tuple[Listed, ...]:
    """One goal a line; blank lines and those that begin with ``#`` are passed over.

    Raises:
        ValueError: a line cannot be a goal; the sentence begins with its number.
    """
    numbered = ((number, line.strip()) for number, line in enumerate(text.split("\n"), 1))
    wanted = ((f"line {number}", line) for number, line in numbered if line and not line.startswith("#"))
    return _several([Listed(text=_checked(where, line, check)) for where, line in wanted])


def read_yaml(text: str, check: Check) -> tuple[Listed, ...]:
    """A list of goals, or ``goals:`` with such a list; an item is a text, or ``goal:`` with ``weight:``.

    Raises:
        ConfigError: YAML cannot be read here.
        ValueError: an item cannot be a goal; the sentence begins with its number.
    """
    document = _loaded(text)
    items = document.get("goals") if isinstance(document, dict) else document
    if not isinstance(items, list):
        raise ValueError("holds no list of goals; write one goal an item: `- goal: ...`")  # noqa: TRY004 - the file's
    return _several(list(_listed(items, check)))


def _loaded(text: str) -> Any:
    try:
        import yaml  # noqa: PLC0415 - an extra: only who writes goals in YAML needs it
    except ImportError:
        raise ConfigError(
            "goals in YAML need the extra 'yaml', which is not installed; in the checkout, pip install '.[yaml]', "
            "or write one goal a line in a file with another ending"
        ) from None
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        detail = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"is no YAML: {detail:.300}; mend it") from None


def _listed(items: list[Any], check: Check) -> Iterator[Listed]:
    for number, item in enumerate(items, 1):
        where = f"item {number}"
        if isinstance(item, str):
            yield Listed(text=_checked(where, item.strip(), check))
            continue
        if not isinstance(item, dict) or not isinstance(item.get("goal"), str):
            raise ValueError(f"{where} is neither a text nor has a text for `goal`; write `- goal: ...`")  # noqa: TRY004 - the same
        if unknown := item.keys() - {"goal", "weight"}:
            raise ValueError(f"{where} has the unknown key {min(map(str, unknown))!r}; an item has goal and weight")
        yield Listed(text=_checked(where, item["goal"].strip(), check), weight=_weight(where, item.get("weight", 1)))


def _weight(where: str, value: object) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool):
        weight = float(value) if abs(value) <= _HEAVIEST else float("inf")
        if isfinite(weight) and weight > 0:
            return weight
    raise ValueError(f"{where} has the weight {value!r:.40}; write a number above 0, at most {_HEAVIEST:g}")


def _checked(where: str, text: str, check: Check) -> str:
    try:
        return check(text)
    except ValueError as error:
        raise ValueError(f"{where} {error}") from None


def _several(goals: Sequence[Listed]) -> tuple[Listed, ...]:
    if not goals:
        raise ValueError("holds no goal; write one a line")
    if len(goals) > _MOST:
        raise ValueError(f"holds {len(goals)} goals; at most {_MOST} are taken")
    return tuple(goals)
