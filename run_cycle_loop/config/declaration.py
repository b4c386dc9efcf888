"""What the declaration of a setting says, and how a field of a dataclass carries it."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, TypeVar

from run_cycle_loop.config.kinds import Kind, T

PREFIX = "RUN_CYCLE_"
D = TypeVar("D")


class Group(StrEnum):
    """The headings of ``run --help`` and of the documentation page, in their order."""

    CYCLE = "Cycle"
    AGENT = "Agent"
    GOALS = "Goals"
    RUNS = "AgentRuns and clusters"
    LOOP = "Loop"
    FAILURES = "Failures"
    GUARDS = "Guards"
    BUDGETS = "Budgets"
    CONTROLS = "Controls"
    PREREQUISITES = "Prerequisites"
    ARTIFACTS = "Artifacts"
    STATE = "State and logs"
    METRICS = "Metrics"
    GENERAL = "General"


@dataclass(frozen=True, kw_only=True, slots=True)
class Option:
    """One setting as every source of values names it."""

    name: str  #: of the field in Settings; for ``continuous``, which has none, of itself
    kind: Kind[Any]
    default_text: str
    group: Group
    help: str
    restart: bool = False  #: a reload cannot change it
    private: bool = False  #: its value is not repeated in an error
    on_command_line: bool = True  #: has a flag and a variable
    in_file: bool = True
    cycle_file: bool = False  #: names a file that only a cycle needs, and that must be there when it is given

    @property
    def key(self) -> str:
        """The key in the file: ``stop-file``, ``while``."""
        return self.name.rstrip("_").replace("_", "-")

    @property
    def flag(self) -> str:
        """The flag: ``--stop-file``."""
        return f"--{self.key}"

    @property
    def variable(self) -> str:
        """The environment variable: ``RUN_CYCLE_STOP_FILE``."""
        return f"{PREFIX}{self.name.rstrip('_').upper()}"


def setting(group: Group, kind: Kind[T], text: str, *, default: D, **more: Any) -> T | D:
    """A field that carries its declaration; ``more`` are further fields of Option."""
    shown = {"default_text": kind.show(default)} if "default_text" not in more else {}  # type: ignore[arg-type]
    declared: T | D = field(default=default, metadata={"group": group, "kind": kind, "help": text} | shown | more)
    return declared


def following(group: Group, kind: Kind[T], text: str, *, default_text: str, **more: Any) -> T:
    """The same for a field whose default follows from other settings."""
    declared: T = field(metadata={"group": group, "kind": kind, "help": text, "default_text": default_text} | more)
    return declared


def closest(word: str, words: Iterable[str]) -> str | None:
    """The known word that was probably meant."""
    from difflib import get_close_matches  # noqa: PLC0415 - an import that only a slip of the pen is worth

    return next(iter(get_close_matches(word, list(words), n=1)), None)
