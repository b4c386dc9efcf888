"""The kinds of value a setting can have: how each is read from text or from TOML, bounded, and shown again.

Every ``parse`` raises ValueError with the reason and the next step, without the value: the caller puts it in front.
"""

import re
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import isfinite
from pathlib import Path
from typing import Any, Generic, TypeVar

from run_cycle_loop.kit.durations import format_duration, parse_duration, parse_number, parse_size
from run_cycle_loop.kit.printable import printable

T = TypeVar("T")

MOST = 1_000_000_000
LARGEST = 1024**6
#: Linux refuses a single argument or ``NAME=value`` of 128 KiB and more; the goal travels as both.
LONGEST_TEXT = 128 * 1024 - len("RUN_CYCLE_GOAL=") - 1
OFF_WORDS = frozenset({"", "off", "none"})
_SHOWN = 80
_TRUTH = {
    **dict.fromkeys(("1", "true", "yes", "on"), True),
    **dict.fromkeys(("0", "false", "no", "off"), False),
}
_TOML_WORDS: dict[type, str] = {
    str: "a string",
    bool: "a boolean",
    int: "an integer",
    float: "a float",
    list: "an array",
    dict: "a table",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Kind(Generic[T]):
    """How one kind of value is read and shown."""

    noun: str  #: with an example, for "write a whole number such as 3"
    metavar: str
    parse: Callable[[str], T]
    show: Callable[[T], str]
    toml: tuple[type, ...] = (str,)  #: the TOML types that may stand for it
    longest: int = 100  #: characters; a longer text is no value of this kind, and is not parsed at all
    many: bool = False
    switch: bool = False

    def from_text(self, raw: str | Sequence[str]) -> Any:
        """The value that a flag or a variable gives: text, or texts where the flag is repeated; commas part a list.

        Raises:
            ValueError: the reason and the next step.
        """
        if not self.many:
            return self._bounded(raw if isinstance(raw, str) else raw[-1])
        words = [raw] if isinstance(raw, str) else raw
        items = (item.strip() for word in words for item in word.split(","))
        return self.from_items([item for item in items if item])

    def from_items(self, items: Sequence[str]) -> tuple[Any, ...]:
        """The value that a list gives, each item as it stands.

        Raises:
            ValueError: the reason and the next step.
        """
        return tuple(self._bounded(item) for item in items)

    def from_toml(self, value: object) -> Any:
        """The value that a TOML document gives.

        Raises:
            ValueError: the reason and the next step.
        """
        if type(value) not in self.toml:
            raise ValueError(f"is {_TOML_WORDS.get(type(value), 'a date or time')}; write {self.noun}")
        if not isinstance(value, list):
            return self.from_text(self._digits(value) if isinstance(value, int) else str(value))
        if not all(isinstance(item, str) for item in value):
            raise ValueError(f"has items that are no strings; write {self.noun}")
        return self.from_items(value)

    def _digits(self, value: int) -> str:
        try:
            return str(value).lower()  # TOML writes true, not True
        except ValueError:  # 0xfff... beyond what Python writes out in decimal
            raise ValueError(f"is far too large; write {self.noun}") from None

    def _bounded(self, text: str) -> T:
        if len(text) > self.longest:
            raise ValueError(f"is {len(text)} characters long; write {self.noun}")
        return self.parse(text)


def quoted(value: object) -> str:
    """A value for an error message: its repr, cut at 80 characters."""
    try:
        text = repr(value[: _SHOWN * 2] if isinstance(value, str) else value)
    except ValueError:  # an integer beyond what Python writes out in decimal
        text = "the value"
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."


def line(*, metavar: str = "TEXT", longest: int = 4096) -> Kind[str]:
    """One line of text that is not blank."""

    def parse(text: str) -> str:
        return _one_line_only(_utf8(text))

    return Kind(noun="one line of text", metavar=metavar, parse=parse, show=printable, longest=longest)


def prose(*, metavar: str = "TEXT") -> Kind[str]:
    """Text of any number of lines that is not blank, short enough to be an argument of a process."""
    return Kind(
        noun=f"a text of at most {LONGEST_TEXT} bytes",
        metavar=metavar,
        parse=checked_prose,
        show=printable,
        longest=LONGEST_TEXT,
    )


def checked_prose(text: str) -> str:
    """The text itself, where a process can be given it.

    Raises:
        ValueError: blank, with a NUL byte, not valid UTF-8, or too long for an argument of a process.
    """
    size = len(_utf8(text).encode())
    if not text.strip():
        raise ValueError("is blank; say what the cycle is to do")
    if "\0" in text:
        raise ValueError("has a NUL byte, which no process can be given; take it out")
    if size > LONGEST_TEXT:
        raise ValueError(f"is {size} bytes long; a process can be given at most {LONGEST_TEXT}")
    return text


def path(*, metavar: str = "PATH", named: bool = False) -> Kind[Path]:
    """A path as it was written; a relative one counts from the working directory; ``named``: not ``/`` or ``.``."""

    def parse(text: str) -> Path:
        if _one_line_only(_utf8(text)).startswith("~"):
            raise ValueError("starts with ~, which only a shell expands; write the home directory out, or ./~")
        if any(len(part.encode()) > 255 for part in Path(text).parts):  # NAME_MAX of every Linux file system
            raise ValueError("has a name of more than 255 bytes in it; write shorter names")
        if len(text.encode()) > 4095:  # PATH_MAX, without its NUL
            raise ValueError("is longer than 4095 bytes; write a shorter path")
        if named and Path(text).name in {"", ".."}:
            raise ValueError("is a folder; name a file in it")
        return Path(text)

    return Kind(noun="a path", metavar=metavar, parse=parse, show=lambda value: printable(str(value)), longest=4095)


def duration(*, above_zero: bool = False) -> Kind[float]:
    """Seconds, written as a number or as 90s, 5m, 1h30m, 2d; at most ten years."""

    def parse(text: str) -> float:
        seconds = _without_value(parse_duration, text)
        if above_zero and not seconds:
            raise ValueError("must be above 0; write seconds, or 90s, 5m, 1h30m, 2d")
        return seconds

    return Kind(
        noun="a duration such as 300 or '5m'",
        metavar="DURATION",
        parse=parse,
        show=_duration_text,
        toml=(int, float, str),
    )


def size(*, least: int = 0) -> Kind[int]:
    """Bytes, written as a number or as 512KiB, 64MiB, 1GiB; at most 1 EiB."""

    def parse(text: str) -> int:
        amount = _without_value(parse_size, text)
        if not least <= amount <= LARGEST:
            raise ValueError(f"is no size from {_size_text(least)} to 1EiB; write bytes, or 512KiB, 64MiB, 1GiB")
        return amount

    return Kind(noun="a size such as '64MiB'", metavar="SIZE", parse=parse, show=_size_text, toml=(int, str))


def count(*, least: int = 0, most: int = MOST, metavar: str = "N") -> Kind[int]:
    """A whole number between two bounds, both included."""

    def parse(text: str) -> int:
        if not re.fullmatch(r"\s*\+?[0-9]+\s*", text) or not least <= int(text) <= most:
            raise ValueError(f"is out of bounds; write a whole number from {least} to {most}")
        return int(text)

    return Kind(noun=f"a whole number from {least} to {most}", metavar=metavar, parse=parse, show=str, toml=(int,))


def number(*, least: float, most: float) -> Kind[float]:
    """A finite number between two bounds, both included."""
    bounds = f"a number from {least:g} to {most:g}"

    def parse(text: str) -> float:
        try:
            value = parse_number(text)
        except ValueError:
            raise ValueError(f"is no number; write {bounds}") from None
        if not isfinite(value) or not least <= value <= most:
            raise ValueError(f"is out of bounds; write {bounds}")
        return value

    return Kind(noun=bounds, metavar="X", parse=parse, show="{:g}".format, toml=(int, float))


def switch() -> Kind[bool]:
    """On or off."""

    def parse(text: str) -> bool:
        try:
            return _TRUTH[text.strip().lower()]
        except KeyError:
            raise ValueError("is neither on nor off; write true or false") from None

    return Kind(
        noun="true or false",
        metavar="",
        parse=parse,
        show=lambda value: str(value).lower(),
        toml=(bool,),
        switch=True,
    )


def choice(*words: str, metavar: str) -> Kind[str]:
    """One of a few words."""

    def parse(text: str) -> str:
        word = text.strip().lower()
        if word not in words:
            raise ValueError(f"is none of {', '.join(words)}; write one of these")
        return word

    return Kind(noun=f"one of {', '.join(words)}", metavar=metavar, parse=parse, show=str)


def module_name() -> Kind[str]:
    """The dotted name of a Python module."""

    def parse(text: str) -> str:
        if not all(part.isidentifier() for part in text.split(".")):
            raise ValueError("is no Python module; write a name such as numpy or google.protobuf")
        return text

    return Kind(noun="a module name", metavar="MODULE", parse=parse, show=printable)


def variable_pattern() -> Kind[str]:
    """A name of environment variables, where ``*``, ``?`` and ``[...]`` stand for characters."""

    def parse(text: str) -> str:
        if "=" in _one_line_only(_utf8(text)):
            raise ValueError("has a =; write the variable's name or pattern alone, such as LC_*")
        return text

    return Kind(noun="a variable name or pattern", metavar="PATTERN", parse=parse, show=printable)


def argument() -> Kind[str]:
    """One argument of a command, as it stands; only what no process can be given is refused."""

    def parse(text: str) -> str:
        if "\0" in text:
            raise ValueError("has a NUL byte, which no process can be given; take it out")
        return text

    return Kind(noun="an argument", metavar="ARG", parse=parse, show=str, longest=LONGEST_TEXT)


def optional(kind: Kind[T]) -> Kind[T | None]:
    """The same kind, or nothing: ``off``, ``none``, empty, and 0 where it is a number."""

    def parse(text: str) -> T | None:
        return None if text.strip().lower() in OFF_WORDS else kind.parse(text) or None

    return Kind(
        noun=f"{kind.noun}, or 'off'",
        metavar=kind.metavar,
        parse=parse,
        show=lambda value: "off" if value is None else kind.show(value),
        toml=tuple(dict.fromkeys((*kind.toml, str))),
        longest=kind.longest,
    )


def listing(kind: Kind[T]) -> Kind[tuple[T, ...]]:
    """Any number of them: a repeated flag, or parted by commas; an array or such a string in TOML."""
    return _several(kind, noun=f"a list of strings, each {kind.noun}", joined=", ".join, toml=(list, str))


def command_line() -> Kind[tuple[str, ...]]:
    """A program and its arguments; never split from one string, so that no shell grammar is needed."""
    noun = "a list of strings such as ['make', 'cycle']"
    return _several(argument(), noun=noun, joined=lambda words: printable(shlex.join(words)), toml=(list,))


def _several(kind: Kind[Any], *, noun: str, joined: Callable[[list[str]], str], toml: tuple[type, ...]) -> Kind[Any]:
    """A Kind whose ``parse`` and ``longest`` are those of one item."""
    return replace(
        kind,
        noun=noun,
        show=lambda items: "all" if items is None else joined([kind.show(item) for item in items]) or "none",
        toml=toml,
        many=True,
    )


def _one_line_only(text: str) -> str:
    if not text.strip():
        raise ValueError("is blank; write a value, or leave the setting out")
    if printable(text) != text:
        raise ValueError("has a control character; write plain text on one line")
    return text


def _utf8(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("is not valid UTF-8; write plain text") from None
    return text


def _without_value(parse: Callable[[str], T], text: str) -> T:
    """Parse, and leave the value out of the error: the caller names it, shortened."""
    try:
        return parse(text)
    except ValueError as error:
        raise ValueError(str(error).removeprefix(f"{text!r} ")) from None


def _duration_text(seconds: float) -> str:
    short = format_duration(seconds) if seconds >= 10 else f"{seconds:g}s"
    return short if parse_duration(short) == seconds else f"{seconds!r}s"


def _size_text(amount: int) -> str:
    for unit, factor in (("GiB", 1024**3), ("MiB", 1024**2), ("KiB", 1024)):
        if amount and not amount % factor:
            return f"{amount // factor}{unit}"
    return str(amount)
