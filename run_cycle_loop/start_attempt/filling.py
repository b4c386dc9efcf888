"""Templates as the runner fills them in, but for the environment: what names it stays as it stands."""

import re
from collections.abc import Mapping
from typing import Any

from run_cycle_loop.agentrun.rendering.templates import fill_braces

#: No brace inside: each character is looked at once, however many marks are opened and never closed.
_ENVIRONMENT = re.compile(r"(\{\{\s*env\s*(?:\.[^{}]*)?\}\})")


def fill(text: str, context: Mapping[str, Any]) -> str:
    """The text with each ``{{ path }}`` filled in, ``{{env...}}`` left alone: a value could ask for a secret by it."""
    parts = _ENVIRONMENT.split(text)
    return "".join(part if place % 2 else fill_braces(part, context).text for place, part in enumerate(parts))


def names_environment(text: str) -> bool:
    """Whether something in it stays because it names the environment."""
    return _ENVIRONMENT.search(text) is not None
