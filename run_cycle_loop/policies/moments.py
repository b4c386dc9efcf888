"""A moment as people and servers write it: a length of time from now, a clock time, a date, an epoch, a header.

It is read only behind a word that announces it (``resets``, ``try again``, ``retry after``). Where a text leaves two
readings open, the later one holds: who comes back too early is sent away again.

The names of time zones are looked up in the machine's own table of them (``zoneinfo``).
"""

import functools
import re
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from itertools import islice
from zoneinfo import ZoneInfo

_LONGEST = 1 << 15  #: characters that are looked at, half of them from the end
_REACH = 48  #: characters without a digit that may stand between the announcing word and the moment
_WINDOW = 140
_ANCHORS = 100  #: announcing words that are looked at; a message has few
_JUST_PAST = timedelta(minutes=2)  #: a clock time that was so lately means now, not tomorrow
_LATELY = timedelta(days=1)  #: the same for a date without a year: no limit lasts for one
_BELIEVED = timedelta(days=400)  #: what lies further off is no moment that somebody meant

_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_START = r"(?:(?<![A-Za-z])|(?<=[a-z])(?=[A-Z]))"  # a word, also in snake_case, kebab-case and camelCase
_ANCHOR = re.compile(
    rf"(?<=reached)\||(?<!onnection ){_START}"
    r"(?i:resets?(?![a-rt-z])|resetting|resets?(?=at|in|time|after|delay)|try(?:ing)? again|retry|retrying|come back|"
    r"wait(?![a-z_])|until(?![a-z])|resume(?![a-z])|available(?: again)?(?= (?:at|in|on|from|after)\b|:))"
)
_REPEATS = re.compile(r"(?i)\b(?:every|each|per)\b")  # how often, not when
_SECONDS_AFTER = re.compile(
    r"(?i)(?:re(?:try|sets?)|reset)[-_ ]?(?:after|in)[-_ ]?(?P<unit>ms|milliseconds?|s|secs?|seconds?)?[\"'\s:=]{0,6}"
    r"(?P<at>[0-9]{1,9}(?:\.[0-9]+)?)(?![0-9:/-]|\.[0-9]|[^\S\n]*[A-Za-z])"
)

_LENGTHS = {"w": 604800.0, "d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_UNIT = r"(?:ms|millis(?:econds?)?|s(?:ec(?:ond)?s?)?|m(?:in(?:ute)?s?)?|h(?:(?:ou)?rs?)?|d(?:ays?)?|w(?:eeks?)?)"
_NUMBER = r"(?:[0-9]+(?:\.[0-9]+)?|\b(?:an?|one)(?=\s))"
_PART = rf"{_NUMBER}\s*{_UNIT}(?![A-Za-z])"
_PARTS = re.compile(rf"(?i)({_NUMBER})\s*({_UNIT})(?![A-Za-z])")

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_MONTH = rf"(?P<month>{'|'.join(_MONTHS)})[a-z]*\.?"
_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_DAY = r"(?<![A-Za-z])(?:mon|tues?|wed(?:nes)?|thu(?:rs?)?|fri|sat(?:ur)?|sun)(?:day)?\b"
_CLOCK = (
    r"(?:(?P<hour>[0-9]{1,2})(?:[:.](?P<minute>[0-9]{2})(?::(?P<second>[0-9]{2}))?)?\s*(?P<half>[ap])\.?\s?m\b\.?"
    r"|(?P<hour24>[0-9]{1,2}):(?P<minute24>[0-9]{2})(?::(?P<second24>[0-9]{2})(?:[.,](?P<part>[0-9]{1,9}))?)?"
    r"|(?P<word>noon|midnight)\b)"
)
_ABBREVIATIONS = {
    **dict.fromkeys(("utc", "gmt", "z"), timedelta(0)),
    **{name: timedelta(hours=hours) for name, hours in (("wet", 0), ("west", 1), ("cet", 1), ("cest", 2))},
    **{name: timedelta(hours=hours) for name, hours in (("eet", 2), ("eest", 3), ("jst", 9), ("kst", 9))},
    **{name: timedelta(hours=hours) for name, hours in (("est", -5), ("edt", -4), ("mst", -7), ("mdt", -6))},
    **{name: timedelta(hours=hours) for name, hours in (("cdt", -5), ("pst", -8), ("pdt", -7))},
}
_REGIONS = {
    **dict.fromkeys(("pt", "pacific"), "America/Los_Angeles"),
    **dict.fromkeys(("mt", "mountain"), "America/Denver"),
    **dict.fromkeys(("ct", "central"), "America/Chicago"),
    **dict.fromkeys(("et", "eastern"), "America/New_York"),
}
_OFFSET = re.compile(r"(?i)(?:utc|gmt)?\s*([+-])([0-9]{1,2}):?([0-9]{2})?")
_ZONE = (
    r"(?:,?\s*(?P<zone>[+-][0-9]{2}:?[0-9]{2}\b|z\b|\([^()\n]{1,40}\)|(?:utc|gmt)(?:\s?[+-][0-9]{1,2}(?::?[0-9]{2})?)?\b"
    r"|[a-z_]+/[a-z0-9_+-]+(?:/[a-z_]+)?|(?:pacific|mountain|central|eastern)(?:\s(?:standard|daylight))?(?:\stime)?\b"
    rf"|(?:{'|'.join(_ABBREVIATIONS)}|[pmce]t)\b|(?-i:[A-Z]{{2,4}}T)\b))?"
)
_AT = rf"(?:,?\s*(?:t(?=[0-9])|at\s+|@\s*)?{_CLOCK})?{_ZONE}"


def moment_in(text: str, now: datetime, zone: tzinfo) -> datetime | None:
    """The first moment that the text announces, in UTC; None where it announces none that can be believed.

    Args:
        text: of any length; only its beginning and its end are read.
        now: an aware time; where a length of time counts from, and a date without a year.
        zone: where a clock time without a zone is read.
    """
    now = now.astimezone(UTC)
    for matches in _announced(text):
        for read, match in matches:
            try:
                readings = [moment.astimezone(UTC) for moment in read(match, now, zone)]
            except (ValueError, OverflowError):
                continue  # the 31st of February
            believed = [moment for moment in readings if abs(moment - now) <= _BELIEVED]
            if believed:
                return max(believed)
    return None


def announces(text: str) -> bool:
    """Whether the text announces anything that has the form of a moment."""
    return any(True for _ in _announced(text))


def ends_of(text: str) -> str:
    """A message of a usual length as it is; of a longer one its beginning and its end."""
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST // 2]}\n{text[-_LONGEST // 2 :]}"


_Read = Callable[[re.Match[str], datetime, tzinfo], Iterator[datetime]]


def _announced(text: str) -> Iterator[list[tuple[_Read, re.Match[str]]]]:
    """For each announcing word what follows it, the nearest form first."""
    text = _ESCAPES.sub("", ends_of(text))
    for anchor in islice(_ANCHOR.finditer(text), _ANCHORS):
        window = text[anchor.start() : anchor.end() + _WINDOW]
        past = anchor.end() - anchor.start()
        matches = [
            (read, match) for form, read, whole in _forms() if (match := form.match(window, 0 if whole else past))
        ]
        matches = [(read, match) for read, match in matches if not _REPEATS.search(window[: match.start("at")])]
        if matches:
            # Sorting is stable: of the forms that begin at one place, the one that says more comes first in the list.
            yield sorted(matches, key=lambda pair: pair[1].start("at"))


# --- each form's reading -------------------------------------------------------------------------------------------


def _lasting(match: re.Match[str], now: datetime, _zone: tzinfo) -> Iterator[datetime]:
    """``2 days 3 hours``, ``1m12.5s``, ``an hour``."""
    yield now + timedelta(seconds=sum(_length(number, unit) for number, unit in _PARTS.findall(match["at"])))


def _length(number: str, unit: str) -> float:
    unit = unit.lower()
    name = "ms" if unit.startswith(("ms", "milli")) else unit[0]
    return (float(number) if number[0].isdigit() else 1.0) * _LENGTHS[name]


def _counting(match: re.Match[str], now: datetime, _zone: tzinfo) -> Iterator[datetime]:
    """``in 02:13:00``."""
    yield now + timedelta(hours=int(match["hours"]), minutes=int(match["minutes"]), seconds=int(match["seconds"] or 0))


def _seconds(match: re.Match[str], now: datetime, _zone: tzinfo) -> Iterator[datetime]:
    """``retry-after: 3600``, ``"resets_in_seconds": 13872``, ``retryAfterMs=500``."""
    scale = 0.001 if (match["unit"] or "").lower().startswith("m") else 1.0
    yield now + timedelta(seconds=float(match["at"]) * scale)


def _epoch(match: re.Match[str], _now: datetime, _zone: tzinfo) -> Iterator[datetime]:
    """Seconds, or thirteen digits of milliseconds, since 1970."""
    number = float(match["at"])
    yield datetime.fromtimestamp(number / 1000 if number >= 1e12 else number, UTC)


def _iso(match: re.Match[str], now: datetime, zone: tzinfo) -> Iterator[datetime]:
    """``2026-06-29T03:00:00Z``, ``2026-06-29 03:00``."""
    day = date(int(match["year"]), int(match["mon"]), int(match["day"]))
    return _on(day, match, now, zone)


def _dated(match: re.Match[str], now: datetime, zone: tzinfo) -> Iterator[datetime]:
    """``Jun 29, 3am``, ``Wed, 21 Oct 2026 07:28:00 GMT``."""
    month = _MONTHS.index(match["month"].lower()) + 1
    if match["year"]:
        year = int(match["year"])
        return _on(date(year + 2000 if year < 100 else year, month, int(match["day"])), match, now, zone)
    return _next_date(month, int(match["day"]), match, now, zone)


def _next_date(month: int, day: int, match: re.Match[str], now: datetime, zone: tzinfo) -> Iterator[datetime]:
    for place in _zones(match["zone"], zone):
        this = now.astimezone(place).year
        for year in range(this - 1, this + 9):  # a leap day comes every fourth year, or every eighth
            try:
                moments = list(_on(date(year, month, day), match, now, place, places=(place,)))
            except ValueError:
                continue
            if moments[0] > now - _LATELY:
                yield moments[0]
                break


def _slashed(match: re.Match[str], now: datetime, zone: tzinfo) -> Iterator[datetime]:
    """``6/13/2026, 11:52 AM``; which of the two is the month is not said."""
    first, second, year = int(match["one"]), int(match["two"]), int(match["year"])
    for month, day in {(first, second), (second, first)}:
        if month <= 12:
            yield from _on(date(year, month, day), match, now, zone)


def _asctime(match: re.Match[str], now: datetime, _zone: tzinfo) -> Iterator[datetime]:
    """``Wed Oct 21 07:28:00 2026``, which HTTP means in UTC."""
    day = date(int(match["year"]), _MONTHS.index(match["month"].lower()) + 1, int(match["day"]))
    return _on(day, match, now, UTC)


def _on_weekday(match: re.Match[str], now: datetime, zone: tzinfo) -> Iterator[datetime]:
    """``Monday at 9am``, ``tomorrow 3am``, ``today at 17:00``."""
    word = match["weekday"].lower()
    for place in _zones(match["zone"], zone):
        today = now.astimezone(place).date()
        if word in {"today", "tomorrow"}:
            yield from _on(today + timedelta(days=word == "tomorrow"), match, now, place, places=(place,))
            continue
        ahead = (_DAYS.index(word[:3]) - today.weekday()) % 7
        moment = next(_on(today + timedelta(days=ahead), match, now, place, places=(place,)))
        yield moment if moment >= now else _resolve(today + timedelta(days=ahead + 7), _clock(match) or time(), place)


def _at_clock(match: re.Match[str], now: datetime, zone: tzinfo) -> Iterator[datetime]:
    """``1pm (Asia/Seoul)``, ``1:41 AM``, ``17:00``, ``midnight PT``: today, or tomorrow where it has passed."""
    clock = _clock(match) or time()
    for place in _zones(match["zone"], zone):
        today = now.astimezone(place).date()
        moment = _resolve(today, clock, place)
        if moment < now - _JUST_PAST:
            yield _resolve(today + timedelta(days=1), clock, place)
        else:
            yield max(moment, now)


def _on(
    day: date, match: re.Match[str], now: datetime, zone: tzinfo, places: tuple[tzinfo, ...] | None = None
) -> Iterator[datetime]:
    """That day at the time that stands beside it; without one, the day's beginning, or its end where it has begun."""
    clock = _clock(match)
    for place in places or _zones(match["zone"], zone):
        moment = _resolve(day, clock or time(), place)
        if clock is None and moment <= now < (end := _resolve(day + timedelta(days=1), time(), place)):
            moment = end
        yield moment


def _clock(match: re.Match[str]) -> time | None:
    if word := match["word"]:
        return time(12 if word.lower() == "noon" else 0)
    if match["hour"]:
        hour = int(match["hour"])
        if hour <= 12:  # 12am is midnight, 12pm is noon
            hour = hour % 12 + 12 * (match["half"].lower() == "p")
        return time(hour, int(match["minute"] or 0), int(match["second"] or 0))
    if match["hour24"]:
        part = int((match["part"] or "").ljust(6, "0")[:6])
        return time(int(match["hour24"]), int(match["minute24"]), int(match["second24"] or 0), part)
    return None


def _resolve(day: date, clock: time, place: tzinfo) -> datetime:
    """That time there; of a time that a clock change skips or repeats, the later reading."""
    local = datetime.combine(day, clock, place)
    return max(local.replace(fold=fold).astimezone(UTC) for fold in (0, 1))


def _zones(name: str | None, zone: tzinfo) -> tuple[tzinfo, ...]:
    """Where a time is to be read: one place, or two where the zone that it names is not known."""
    word = (name or "").strip("() \t")
    if not word or word.lower() in {"local", "local time", "your time"}:
        return (zone,)
    found = _known_zone(word)
    if found is not None:
        return (found,)
    # A remark in parentheses, such as "(in 3 hours)", names no zone; a single word might.
    return (zone,) if any(character.isspace() for character in word) else (zone, UTC)


def _known_zone(word: str) -> tzinfo | None:
    lower = word.lower()
    if lower in _ABBREVIATIONS:
        return timezone(_ABBREVIATIONS[lower])
    if offset := _OFFSET.fullmatch(word):
        away = timedelta(hours=int(offset[2]), minutes=int(offset[3] or 0))
        return timezone(-away if offset[1] == "-" else away) if away < timedelta(days=1) else None
    name = _REGIONS.get(lower.split()[0], word) if lower.split()[-1] in {*_REGIONS, "time"} else word
    for spelling in (name, "/".join("_".join(map(str.capitalize, part.split("_"))) for part in name.split("/"))):
        try:
            return ZoneInfo(spelling)
        except (LookupError, ValueError, OSError):  # no such name, no name at all, or a folder of names
            continue
    return None


def _form(pattern: str) -> re.Pattern[str]:
    return re.compile(rf"(?is)[^0-9]{{0,{_REACH}}}?(?P<at>{pattern})")


_ORDINAL = r"(?:st|nd|rd|th)?"


@functools.cache
def _forms() -> tuple[tuple[re.Pattern[str], _Read, bool], ...]:
    """Form, its reading, and whether it includes the announcing word; of two that begin at one place the first holds.

    Made at the first limit: a run without one does not pay for it.
    """
    return (
        (_form(rf"(?P<year>[0-9]{{4}})-(?P<mon>[0-9]{{2}})-(?P<day>[0-9]{{2}})(?![0-9]){_AT}"), _iso, False),
        (
            _form(
                rf"(?:{_DAY},?\s+)?{_MONTH}\s+(?P<day>[0-9]{{1,2}})\s+{_CLOCK}\s+(?P<year>20[0-9]{{2}})(?P<zone>(?!))?\b"
            ),
            _asctime,
            False,
        ),
        (
            _form(
                rf"(?:{_DAY},?\s+)?(?<![0-9a-z]){_MONTH}\s+(?P<day>[0-9]{{1,2}}){_ORDINAL}(?![0-9:a-z])"
                rf"(?:,?\s+(?P<year>20[0-9]{{2}})(?![0-9:]))?{_AT}"
            ),
            _dated,
            False,
        ),
        (
            _form(
                rf"(?:{_DAY},?\s+)?(?P<day>[0-9]{{1,2}}){_ORDINAL}[\s-]+(?:of\s+)?{_MONTH}"
                rf"(?:,?[\s-]+(?P<year>20[0-9]{{2}}|[0-9]{{2}}(?=\s+[0-9]{{2}}:))(?![0-9:]))?{_AT}"
            ),
            _dated,
            False,
        ),
        (_form(rf"(?P<one>[0-9]{{1,2}})/(?P<two>[0-9]{{1,2}})/(?P<year>20[0-9]{{2}}){_AT}"), _slashed, False),
        (_form(rf"{_PART}(?:(?:\s*,)?(?:\s+and)?\s*{_PART}){{0,5}}"), _lasting, False),
        (
            re.compile(
                rf"(?is)[^0-9]{{0,{_REACH}}}?\bin\s+(?P<at>(?P<hours>[0-9]{{1,3}}):(?P<minutes>[0-9]{{2}})"
                r"(?::(?P<seconds>[0-9]{2}))?)(?!\s*[ap]\.?m)"
            ),
            _counting,
            False,
        ),
        (_form(r"(?:[0-9]{10}(?:\.[0-9]+)?|[0-9]{13})(?![0-9])"), _epoch, False),
        (_form(rf"(?P<weekday>{_DAY}|today\b|tomorrow\b){_AT}"), _on_weekday, False),
        (_form(rf"{_CLOCK}{_ZONE}"), _at_clock, False),
        (_SECONDS_AFTER, _seconds, True),
    )
