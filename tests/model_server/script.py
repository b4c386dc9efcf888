"""What the model is to do, turn by turn: a text, a tool call, or one of the ways in which a far end fails."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Self

#: Ways to fail with an answer of 200, or with none.
FAULTS = frozenset(("hang", "stall", "cut", "reset", "html", "empty", "broken", "limit", "trickle"))


@dataclass(frozen=True, kw_only=True, slots=True)
class Tokens:
    """What a turn says that it consumed; the input includes what came from a cache, the output the reasoning."""

    input: int = 1000
    cached: int = 100
    output: int = 200
    reasoning: int = 50


@dataclass(frozen=True, kw_only=True, slots=True)
class Turn:
    """One answer of the model.

    Of a fault and a text, the fault wins; ``cut``, ``reset`` and ``stall`` come in the middle of the text, which
    ``trickle`` sends slowly.
    """

    text: str = "Done. All of it is well."
    write: tuple[str, str] | None = None  #: have a tool write a file: its name, its content
    command: str | None = None  #: have a tool run this
    tokens: Tokens = field(default_factory=Tokens)
    status: int = 200
    kind: str = ""  #: of a status: ``plan`` (a limit of the subscription), ``quota`` (paid up, and used up)
    retry_after: int | None = None  #: seconds
    fault: str = ""  #: one of FAULTS
    pause: float = 0.2  #: seconds between the pieces of a trickle

    @property
    def is_good(self) -> bool:
        """Whether the model does its work."""
        return self.status == 200 and self.fault in {"", "trickle"}

    @property
    def calls_tool(self) -> bool:
        return self.write is not None or self.command is not None

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Self:
        """Read a turn of a script file.

        Raises:
            ValueError: a word in it means nothing here.
        """
        if unknown := set(value) - {item.name for item in fields(cls)}:
            raise ValueError(f"a turn knows no {sorted(unknown)}")
        if value.get("fault", "") not in {"", *FAULTS}:
            raise ValueError(f"a turn knows no fault {value['fault']!r}, only {sorted(FAULTS)}")
        read = dict(value)
        if "tokens" in read:
            read["tokens"] = Tokens(**read["tokens"])
        if "write" in read:
            read["write"] = tuple(read["write"])
        return cls(**read)


@dataclass(frozen=True, kw_only=True, slots=True)
class Script:
    """The turns of one session. Past its end the last one is repeated, or where it called a tool, a text is said."""

    turns: tuple[Turn, ...]

    @classmethod
    def of(cls, *turns: Turn) -> Self:
        return cls(turns=turns)

    @classmethod
    def from_file(cls, path: Path) -> Self:
        """Read a JSON list of turns."""
        turns: Iterable[Mapping[str, Any]] = json.loads(path.read_text())
        return cls(turns=tuple(Turn.from_dict(turn) for turn in turns))

    def turn(self, number: int) -> Turn:
        """The turn with this number, from 0."""
        if number < len(self.turns):
            return self.turns[number]
        last = self.turns[-1] if self.turns else Turn()
        return Turn(tokens=last.tokens) if last.is_good and last.calls_tool else last
