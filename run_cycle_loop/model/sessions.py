"""What a cycle tells of the agent that it ran: what it consumed, and how its session ended."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Self

from run_cycle_loop.model import reading
from run_cycle_loop.model.enums import AgentClass
from run_cycle_loop.model.flat import flat


@dataclass(frozen=True, kw_only=True, slots=True)
class Usage:
    """What an agent's session consumed, in the same terms whichever agent it was."""

    input_tokens: int = 0  #: all of them, those read from a cache included
    cached_input_tokens: int = 0
    output_tokens: int = 0  #: all of them, those spent on reasoning included
    reasoning_tokens: int = 0
    cost_usd: float | None = None  #: None: no price is known. An agent's zero beside tokens means the same
    calls: int | None = None  #: requests to a model, where the agent tells
    complete: bool = True  #: False: of a session that was cut off, so at least so much
    source: str = ""  #: how it was read: what of the agent's output was added up

    @property
    def tokens(self) -> int:
        """All tokens, in and out."""
        return self.input_tokens + self.output_tokens

    def as_dict(self) -> dict[str, Any]:
        """The JSON object of a control payload and a record."""
        return flat(self)

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Self:
        """Read a usage that somebody else wrote.

        Raises:
            ValueError: something in it is no count or no price: none of it can be believed.
        """
        counts = ("input_tokens", "cached_input_tokens", "output_tokens", "reasoning_tokens")
        calls = value.get("calls")
        return cls(
            **{name: reading.count(value.get(name)) for name in counts},
            cost_usd=reading.seconds_or_none(value.get("cost_usd")),
            calls=None if calls is None else reading.count(calls),
            complete=bool(reading.truth(value.get("complete"), default=True)),
            source=reading.text(value.get("source")),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class AgentReport:
    """What a cycle says of the agent that it ran: the part of the control payload that decides."""

    agent: str
    ended: AgentClass
    reason: str = ""  #: one sentence
    advice: str = ""  #: what a person is to do, where only a person can help
    retry_at: datetime | None = None  #: when the far end can be asked again, by its own word
    permanent: bool = False  #: it will fail again in the same way until a person has changed something

    @classmethod
    def from_control(cls, control: Mapping[str, Any] | None) -> Self | None:
        """Read it out of a control payload; None where the payload says nothing of an agent's end.

        Raises:
            ValueError: it says something that cannot be understood.
        """
        ended = (control or {}).get("class")
        if control is None or ended is None:
            return None
        at = reading.text_or_none(control.get("retry_at"))
        return cls(
            agent=reading.text(control.get("agent")),
            ended=_class(reading.text(ended)),
            reason=reading.text(control.get("reason")),
            advice=reading.text(control.get("advice")),
            retry_at=None if at is None else _moment(at),
            permanent=bool(reading.truth(control.get("permanent"), default=False)),
        )


def _moment(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except OverflowError as error:
        raise ValueError(f"{text!r:.80} lies beyond all time that can be counted") from error


def _class(word: str) -> AgentClass:
    try:
        return AgentClass(word)
    except ValueError:
        raise ValueError(f"class {word!r:.80} is none of {', '.join(AgentClass)}") from None
