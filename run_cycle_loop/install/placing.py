"""Files put in place without harm to what an operator wrote there: compared first, then written all or not at all."""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from run_cycle_loop.kit.files import replace_file
from run_cycle_loop.model.errors import ConfigError


class Verdict(StrEnum):
    """What is to be done about one file."""

    CREATE = "create"
    UNCHANGED = "unchanged"
    REPLACE = "replace"
    KEEP = "keep"  #: the operator's own, and different; it stays as it is


@dataclass(frozen=True, kw_only=True, slots=True)
class Placement:
    """A file that is to be there."""

    path: Path
    text: str
    mode: int = 0o644
    operators: bool = False  #: written once; from then on it is the operator's


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """A placement beside what is there now."""

    placement: Placement
    verdict: Verdict
    diff: str = ""


def compare(placement: Placement) -> Comparison:
    """Look, without touching anything.

    Raises:
        ConfigError: what is there cannot be read; a FIFO is not even opened.
    """
    try:
        if placement.path.exists() and not placement.path.is_file():
            raise ConfigError(f"{placement.path} is no regular file: move it away")
        present = placement.path.read_text()
    except FileNotFoundError:
        return Comparison(placement=placement, verdict=Verdict.CREATE)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read {placement.path}, which is to be written: {error}; move it away") from error
    if present == placement.text:
        return Comparison(placement=placement, verdict=Verdict.UNCHANGED)
    verdict = Verdict.KEEP if placement.operators else Verdict.REPLACE
    return Comparison(placement=placement, verdict=verdict, diff=diff_of(present, placement.text, str(placement.path)))


def diff_of(present: str, wanted: str, name: str) -> str:
    """A unified diff from what is there to what would be there."""
    lines = difflib.unified_diff(present.splitlines(), wanted.splitlines(), name, f"{name} (new)", lineterm="")
    return "\n".join(lines)


def place(comparisons: Sequence[Comparison], *, force: bool) -> None:
    """Write what is to be created or replaced; nothing at all where something would be replaced without ``force``.

    Raises:
        ConfigError: a differing file is in the way, or one cannot be written.
    """
    in_the_way = [str(item.placement.path) for item in comparisons if item.verdict is Verdict.REPLACE]
    if in_the_way and not force:
        raise ConfigError(f"differs from what would be written: {', '.join(in_the_way)}; nothing was changed; see the "
                          "difference above, and pass --force to replace it")  # fmt: skip
    for item in comparisons:
        if item.verdict in {Verdict.CREATE, Verdict.REPLACE}:
            _write(item.placement)


def _write(placement: Placement) -> None:
    try:
        placement.path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(placement.path, placement.text.encode(), mode=placement.mode, durable=True)
    except OSError as error:
        raise ConfigError(
            f"cannot write {placement.path} ({error.strerror}): run as root, or name another folder"
        ) from error
