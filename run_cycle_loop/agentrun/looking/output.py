"""What attempts print, piece by piece, and which attempts are meant."""

from dataclasses import dataclass

from run_cycle_loop.agentrun.looking.attempts import Attempt


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """Which attempts are meant; what is not said means any."""

    step: str = ""  #: its name
    iteration: int | None = None
    attempt: int | None = None

    def fits(self, row: Attempt) -> bool:
        """Whether an attempt is meant."""
        return (
            self.step in ("", row.step)
            and self.iteration in (None, row.iteration)
            and self.attempt in (None, row.attempt)
        )

    @property
    def is_one(self) -> bool:
        """Whether no second one can be meant, of a run with one step."""
        return self.attempt is not None

    def __str__(self) -> str:
        parts = [f"step {self.step}"] if self.step else []
        parts += [f"iteration {self.iteration}"] if self.iteration is not None else []
        parts += [f"attempt {self.attempt}"] if self.attempt is not None else []
        return ", ".join(parts) or "any attempt"


@dataclass(frozen=True, kw_only=True, slots=True)
class Piece:
    """A piece of output, or a word of ours about it."""

    attempt: Attempt | None
    data: bytes = b""  #: whole lines, except where one is very long
    note: str = ""
