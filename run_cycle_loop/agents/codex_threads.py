"""What codex keeps of its threads: the tokens spent so far, which its own output tells only of a turn that went well.

A thread is a file of JSON lines below ``CODEX_HOME/sessions``, and each finished call to the model adds a
``token_count`` event to it. Its sums, like those of ``turn.completed``, are of the whole thread: those of an earlier
session that is gone on with are taken off.
"""

import glob
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from run_cycle_loop.agents.json_lines import JsonLines, count_at, object_at, value_at
from run_cycle_loop.kit import files
from run_cycle_loop.model.sessions import Usage

_BLOCK = 1 << 20
_READ_AT_ONCE = 256 << 20  #: bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class Totals:
    """The sums of a thread, as codex counts them."""

    input_tokens: int = 0  #: those read from a cache included
    cached_input_tokens: int = 0
    output_tokens: int = 0  #: those spent on reasoning included
    reasoning_output_tokens: int = 0

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> Self:
        """Read codex's own object."""
        return cls(**{name: count_at(told, name) for name in cls.__slots__})

    def as_dict(self) -> dict[str, int]:
        """The JSON object that :meth:`of` reads."""
        return {name: getattr(self, name) for name in self.__slots__}

    def usage_since(self, before: "Totals", *, complete: bool, source: str) -> Usage:
        """What was consumed after ``before``."""
        return Usage(
            input_tokens=max(0, self.input_tokens - before.input_tokens),
            cached_input_tokens=max(0, self.cached_input_tokens - before.cached_input_tokens),
            output_tokens=max(0, self.output_tokens - before.output_tokens),
            reasoning_tokens=max(0, self.reasoning_output_tokens - before.reasoning_output_tokens),
            complete=complete,
            source=source,
        )


class Thread:
    """One thread's file, read on from where it was left; where there is none, nothing is known."""

    def __init__(self, home: Path, thread_id: str) -> None:
        self._pattern = f"{glob.escape(str(home))}/sessions/*/*/*/rollout-*{glob.escape(thread_id)}.jsonl"
        self._path: str | None = None
        self._asked = 0
        self._offset = 0
        self._totals: Totals | None = None
        self._lines = JsonLines(self._take)

    def totals(self, *, insist: bool = False) -> Totals | None:
        """The sums so far; None where the file tells nothing. Cheap enough to be asked for often."""
        with suppress(OSError):  # another version may keep its threads elsewhere: then its output alone tells
            self._read_on(insist=insist)
        return self._totals

    def _read_on(self, *, insist: bool) -> None:
        self._asked += 1
        # Years of threads take a while to look through: less and less often for one that does not appear.
        if self._path is None and (insist or self._asked.bit_count() == 1):
            self._path = max(glob.glob(self._pattern), default=None)  # noqa: PTH207 - the newest by its name
        if self._path is None:
            return
        descriptor = files.open_regular(self._path, os.O_RDONLY)
        try:
            end = self._offset + _READ_AT_ONCE
            while self._offset < end and (block := os.pread(descriptor, _BLOCK, self._offset)):
                self._offset += len(block)
                self._lines.feed(block)
        finally:
            os.close(descriptor)

    def _take(self, event: Mapping[str, Any]) -> None:
        if event.get("type") != "event_msg" or value_at(event, "payload", "type") != "token_count":
            return
        told = object_at(event, "payload", "info", "total_token_usage")
        if told:
            self._totals = Totals.of(told)
