"""The two kinds of placeholder in a text, ``{{ path }}`` and ``${path}``, filled in as the controller does it."""

import json
import math
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from run_cycle_loop.model.errors import ConfigError

LONGEST = 4_000_000  #: characters that a text may come out with; a ConfigMap holds one million bytes

_BRACES, _DOLLAR = ("{{", "}}"), ("${", "}")

Span = tuple[int, int]  #: where something stands in a text: its first character, and the one behind its last


@dataclass(frozen=True, kw_only=True, slots=True)
class Replacement:
    """What became of one placeholder."""

    token: str  #: as written, ``{{ stage }}`` or ``${stage}``
    path: str  #: what it names; empty for ``{{ }}`` with nothing but blanks, which names everything
    value: str | None  #: what stands there now; None where nothing has that name
    position: int  #: of the token in the text that its pass was given, from 0: ``${...}`` comes after all ``{{ }}``
    in_value: bool = False  #: whether the token was no part of the text, but came with a value put in by the first pass

    @property
    def is_braces(self) -> bool:
        """Whether it is of the first kind, which vanishes where nothing has its name; the second stays as written."""
        return self.token.startswith("{{")


@dataclass(frozen=True, kw_only=True, slots=True)
class Rendered:
    """A text with its placeholders filled in."""

    text: str
    replacements: tuple[Replacement, ...] = ()


def fill_braces(text: str, context: Mapping[str, Any]) -> Rendered:
    """The first pass: each ``{{ path }}`` becomes its value, and nothing at all where there is none.

    One oddity of the controller is left out: there the name ``constructor`` comes out as ``undefined``.
    """
    return _fill(text, _BRACES, lambda path: _written(_at(context, path)))[0]


def fill_dollar(text: str, context: Mapping[str, Any]) -> Rendered:
    """The second pass: each ``${path}`` becomes its value, and stays where there is none, as in shell scripts.

    A path is walked first; then it counts as one key, so that a parameter named ``a.b`` can be had.
    """
    return _fill(text, _DOLLAR, lambda path: _written(_at_or_key(context, path)), stays=True)[0]


def render(text: str, context: Mapping[str, Any]) -> Rendered:
    """Both passes, as texts and summaries of implementations get them.

    What the first puts in is seen by the second, and not the other way round.

    Raises:
        ConfigError: what comes out has more characters than ``LONGEST``.
    """
    first, inserted = _fill(text, _BRACES, lambda path: _written(_at(context, path)))
    second, _ = _fill(
        first.text, _DOLLAR, lambda path: _written(_at_or_key(context, path)), stays=True, inserted=inserted
    )
    return Rendered(text=second.text, replacements=(*first.replacements, *second.replacements))


def placeholders(text: str) -> tuple[str, ...]:
    """The placeholders of both kinds as they stand in a text, for who wants to say that they stay."""
    braces = tuple(_tokens(text, _BRACES))
    others = (span for span in _tokens(text, _DOLLAR) if not _overlaps(braces, *span))
    return tuple(text[first:last] for first, last in sorted((*braces, *others)))


def json_text(value: Any, *, indent: int | None = None) -> str:
    """JSON as the controller writes it: every character as it is, whole numbers without a point, no needless blanks."""
    separators = (",", ":") if indent is None else None
    return json.dumps(_plain(value), ensure_ascii=False, separators=separators, indent=indent)


def _fill(
    text: str,
    marks: tuple[str, str],
    find: Callable[[str], str | None],
    *,
    stays: bool = False,
    inserted: tuple[Span, ...] = (),
) -> tuple[Rendered, tuple[Span, ...]]:
    """The text with its tokens replaced, and where in it the values stand now.

    ``stays`` says what becomes of a token without a value; ``inserted`` where the text has values of an earlier pass.
    """
    parts: list[str] = []
    made: list[Replacement] = []
    spans: list[Span] = []
    done = length = 0
    for first, last in _tokens(text, marks):
        token = text[first:last]
        path = token[len(marks[0]) : -len(marks[1])].strip()
        value = find(path)
        put = value if value is not None else token if stays else ""
        length += first - done
        parts += (text[done:first], put)
        if put:
            spans.append((length, length + len(put)))
        length += len(put)
        done = last
        if length > LONGEST:
            raise ConfigError(
                f"a text of {len(text)} characters comes out with more than {LONGEST} at {token:.40}: "
                "use fewer placeholders"
            )
        inside = _overlaps(inserted, first, last)
        made.append(Replacement(token=token, path=path, value=value, position=first, in_value=inside))
    return Rendered(text="".join((*parts, text[done:])), replacements=tuple(made)), tuple(spans)


def _tokens(text: str, marks: tuple[str, str]) -> Iterator[Span]:
    """Where tokens stand: an opening mark, at least one character, and no brace before the closing mark.

    Each character is looked at once, however many marks are opened and never closed.
    """
    opening, closing = marks
    brace = -1
    first = text.find(opening)
    while first >= 0:
        start = first + len(opening)
        if brace < start:
            brace = text.find("}", start)
        if brace < 0:
            return
        if brace > start and text.startswith(closing, brace):
            yield first, brace + len(closing)
            first = text.find(opening, brace + len(closing))
        else:
            first = text.find(opening, first + 1)


def _overlaps(spans: tuple[Span, ...], first: int, last: int) -> bool:
    """Whether a piece of text touches one of the spans, which are in order and apart from each other."""
    at = bisect_right(spans, (last, -1))  # those that begin before its end; of them the last one ends last
    return at > 0 and spans[at - 1][1] > first


def _written(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else json_text(value)


def _at(context: Mapping[str, Any], path: str) -> Any:
    """What a dotted path leads to, through objects alone: no list and no text is entered."""
    value: Any = context
    for part in filter(None, (one.strip() for one in path.split("."))):
        if not isinstance(value, Mapping):
            return None
        value = value.get(part)
    return value


def _at_or_key(context: Mapping[str, Any], path: str) -> Any:
    if not path:
        return None
    value = _at(context, path)
    return context.get(path) if value is None else value


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return (int(value) if value.is_integer() else value) if math.isfinite(value) else None
    return value if value is None or isinstance(value, str | int) else str(value)
