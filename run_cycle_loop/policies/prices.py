"""What tokens cost, for agents that do not tell: the operator's prices, in USD per million tokens."""

from dataclasses import dataclass, fields
from math import isfinite

from run_cycle_loop.model.sessions import Usage

_MILLION = 1_000_000
_MOST = 100_000.0
_EXAMPLE = "write USD per million tokens, such as input=1.25,output=10,cached=0.125"


@dataclass(frozen=True, kw_only=True, slots=True)
class Prices:
    """USD per million tokens."""

    input: float
    output: float
    cached: float | None = None  #: of input read from a cache; None: the same as other input

    def cost(self, usage: Usage) -> float:
        """What a usage comes to, in USD."""
        cached = min(usage.cached_input_tokens, usage.input_tokens)
        fresh = usage.input_tokens - cached
        cached_price = self.input if self.cached is None else self.cached
        return (fresh * self.input + cached * cached_price + usage.output_tokens * self.output) / _MILLION


def parse_prices(text: str) -> Prices:
    """Read ``input=1.25,output=10,cached=0.125``.

    Raises:
        ValueError: the reason and the next step, without the value.
    """
    found: dict[str, float] = {}
    for item in text.split(","):
        name, parted, amount = (part.strip() for part in item.partition("="))
        if name not in {field.name for field in fields(Prices)} or not parted:
            raise ValueError(f"is no list of prices; {_EXAMPLE}")
        if name in found:
            raise ValueError(f"gives {name} twice; {_EXAMPLE}")
        found[name] = _price(amount)
    if missing := {"input", "output"} - found.keys():
        raise ValueError(f"gives no price for {' and '.join(sorted(missing))}; {_EXAMPLE}")
    return Prices(**found)


def show_prices(prices: Prices) -> str:
    """The same, as it is written."""
    values = {field.name: getattr(prices, field.name) for field in fields(Prices)}
    return ",".join(f"{name}={value:g}" for name, value in values.items() if value is not None)


def _price(text: str) -> float:
    try:
        price = float(text)
    except ValueError:
        raise ValueError(f"has a price that is no number; {_EXAMPLE}") from None
    if not isfinite(price) or not 0 <= price <= _MOST:
        raise ValueError(f"has a price that is not from 0 to {_MOST:g}; {_EXAMPLE}")
    return price
