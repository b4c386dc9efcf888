"""How the views look: colours where they are wanted, columns by what a terminal shows, times as people say them."""

import unicodedata
from dataclasses import dataclass
from datetime import MAXYEAR, MINYEAR, datetime

from run_cycle_loop.kit.durations import format_duration
from run_cycle_loop.kit.printable import printable
from run_cycle_loop.model.enums import Outcome

#: What a style must be able to write to be called capable of Unicode.
_BEYOND_ASCII = "▇▅…●"


@dataclass(frozen=True, kw_only=True, slots=True)
class Style:
    """What the output can show."""

    colour: bool = False
    unicode: bool = False

    @classmethod
    def for_encoding(cls, encoding: str | None, *, colour: bool) -> "Style":
        """The style for a stream with this encoding."""
        try:
            _BEYOND_ASCII.encode(encoding or "ascii")
        except (UnicodeEncodeError, LookupError):
            return cls(colour=colour)
        return cls(colour=colour, unicode=True)

    def paint(self, text: str, colour: str | None = None, *, bold: bool = False, dim: bool = False) -> str:
        """The text in a colour of click's, where colours are on."""
        if not self.colour:
            return text
        import click  # noqa: PLC0415 - only a colourful terminal pays for it

        return click.style(text, fg=colour, bold=bold or None, dim=dim or None)

    def wrap(self, text: object, width: int, *, most: int = 4) -> list[str]:
        """Foreign text on several lines of at most ``width`` columns; what needs more than ``most`` lines is cut."""
        import textwrap  # noqa: PLC0415 - only for what does not fit

        line = printable(str(text))
        if columns(line) <= width:
            return [self.fit(line, width)]
        found = textwrap.wrap(line, max(width, 20), break_on_hyphens=False) or [""]
        shown = found[: most - 1] + ([" ".join(found[most - 1 :])] if len(found) >= most else [])
        return [self.fit(part, width) for part in shown]

    @property
    def ellipsis(self) -> str:
        """What stands for something cut off."""
        return "…" if self.unicode else "..."

    def fit(self, text: object, width: int) -> str:
        """Foreign text on one line: printable, in at most ``width`` columns."""
        line = printable(str(text))
        if not self.unicode:
            line = line.encode("ascii", "backslashreplace").decode("ascii")
        return line if columns(line) <= width else _cut(line, width - columns(self.ellipsis)) + self.ellipsis[:width]


def columns(text: str) -> int:
    """How many columns of a terminal the text takes."""
    return len(text) if text.isascii() else sum(map(_columns_of, text))


def _columns_of(character: str) -> int:
    if unicodedata.combining(character) or unicodedata.category(character) in {"Cf", "Me", "Mn"}:
        return 0
    return 2 if unicodedata.east_asian_width(character) in {"W", "F"} else 1


def _cut(text: str, width: int) -> str:
    taken = 0
    for at, character in enumerate(text):
        taken += _columns_of(character)
        if taken > width:
            return text[:at]
    return text


def pad(text: str, width: int) -> str:
    """The text followed by blanks up to ``width`` columns."""
    return text + " " * (width - columns(text))


def colour_of(outcome: Outcome) -> str:
    """Green went well, yellow asks for a look, red failed."""
    if outcome is Outcome.SUCCESS:
        return "green"
    return "red" if outcome.is_failure else "yellow"


def moment(text: object) -> datetime | None:
    """The time that a record says, or None where it says none that can be read."""
    try:
        found = datetime.fromisoformat(str(text))
    except ValueError:
        return None
    # The first and the last year cannot be told in every zone.
    return found if found.tzinfo and MINYEAR < found.year < MAXYEAR else None


def clock_time(at: datetime, now: datetime) -> str:
    """A time in the zone of ``now``, with its date where that is another day."""
    local = at.astimezone(now.tzinfo)
    return f"{local:%H:%M:%S}" if local.date() == now.date() else f"{local:%Y-%m-%d %H:%M:%S}"


def span(seconds: float) -> str:
    """A length of time; what a stepping clock made negative is none."""
    return format_duration(max(seconds, 0.0))
