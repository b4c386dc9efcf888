"""What claude tells of its consumption, added up: by message while it works, by model once a result is there.

A message repeats its usage with each of its parts, and that was written before the answer was: its output is 1. A
result tells all of it, subagents and side requests included; but its ``total_cost_usd`` and ``modelUsage`` begin with
what an earlier session cost where that one is gone on with, and its ``usage`` lacks a call that was cut short.
``model_usage_since_last_result`` is of this session alone. Seen with 2.1.332.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from run_cycle_loop.agents.json_lines import count_at, object_at, price_at
from run_cycle_loop.model.sessions import Usage

_REMEMBERED = 64  #: messages whose usage may still be repeated: claude's own, and those of its subagents beside them


class Tally:
    """The usage of one session; memory does not grow with the number of messages."""

    def __init__(self) -> None:
        self._told: Usage | None = None
        self._counted = Usage()
        self._calls = 0
        self._remembered: dict[str, Usage] = {}

    def take_message(self, name: str, told: Mapping[str, Any]) -> None:
        """Count a message by its id; one that is told again counts once."""
        usage = _of_message(told)
        known = self._remembered.pop(name, None)
        if known is None:
            self._calls += 1
            self._counted = _sum(self._counted, usage)
        elif usage.tokens > known.tokens:
            self._counted = _sum(self._counted, usage, less=known)
        else:
            usage = known
        self._remembered[name] = usage
        if len(self._remembered) > _REMEMBERED:
            del self._remembered[next(iter(self._remembered))]

    def take_result(self, event: Mapping[str, Any]) -> None:
        """Count a result; each tells what was consumed since the one before it."""
        usage = _of_result(event)
        self._told = usage if self._told is None else _sum(self._told, usage)

    @property
    def usage(self) -> Usage | None:
        """All that was told so far."""
        calls = self._calls or None
        if self._told is not None:
            return replace(self._told, calls=calls)
        if not calls:
            return None
        source = "usage of its messages, which tell no output before they are done"
        return replace(self._counted, calls=calls, complete=False, source=source)


def _of_message(told: Mapping[str, Any]) -> Usage:
    """Input comes in three parts that exclude each other."""
    cached = count_at(told, "cache_read_input_tokens")
    return Usage(
        input_tokens=count_at(told, "input_tokens") + count_at(told, "cache_creation_input_tokens") + cached,
        cached_input_tokens=cached,
        output_tokens=count_at(told, "output_tokens"),
        reasoning_tokens=count_at(told, "output_tokens_details", "thinking_tokens"),
    )


def _of_result(event: Mapping[str, Any]) -> Usage:
    models = object_at(event, "model_usage_since_last_result")
    if not models:
        usage = _of_message(object_at(event, "usage"))
        return replace(usage, cost_usd=price_at(event, "total_cost_usd"), source="usage of its result")
    total = Usage(source="model_usage_since_last_result")
    for name in models:
        total = _sum(total, _of_model(object_at(models, name)))
    return total


def _of_model(told: Mapping[str, Any]) -> Usage:
    cached = count_at(told, "cacheReadInputTokens")
    return Usage(
        input_tokens=count_at(told, "inputTokens") + count_at(told, "cacheCreationInputTokens") + cached,
        cached_input_tokens=cached,
        output_tokens=count_at(told, "outputTokens"),
        reasoning_tokens=count_at(told, "thinkingTokens"),
        cost_usd=price_at(told, "costUSD"),
    )


def _sum(first: Usage, second: Usage, *, less: Usage | None = None) -> Usage:
    """Two together, without a part that was counted before."""
    twice = less or Usage()
    costs = [usage.cost_usd for usage in (first, second) if usage.cost_usd is not None]
    return Usage(
        input_tokens=first.input_tokens + second.input_tokens - twice.input_tokens,
        cached_input_tokens=first.cached_input_tokens + second.cached_input_tokens - twice.cached_input_tokens,
        output_tokens=first.output_tokens + second.output_tokens - twice.output_tokens,
        reasoning_tokens=first.reasoning_tokens + second.reasoning_tokens - twice.reasoning_tokens,
        cost_usd=sum(costs) if costs else None,
        source=first.source,
    )
