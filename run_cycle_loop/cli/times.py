"""Times as an operator writes them: a duration from now, or an ISO 8601 time."""

from datetime import datetime, timedelta

import click

from run_cycle_loop.kit.durations import parse_duration


def moment(text: str, now: datetime, *, option: str, ahead: bool) -> datetime:
    """The time that ``24h`` or ``2026-01-31T08:00`` means; without a zone it is local.

    Args:
        text: what was written.
        now: aware; what a duration counts from.
        option: the flag it was written for.
        ahead: whether a duration leads to the future; else it leads back, also as ``24h ago``.

    Raises:
        click.BadParameter: it is neither.
    """
    try:
        span = timedelta(seconds=parse_duration(text if ahead else text.removesuffix("ago")))
        return now + span if ahead else now - span
    except (ValueError, OverflowError):
        pass
    try:
        return datetime.fromisoformat(text).astimezone()
    except (ValueError, OverflowError):
        raise click.BadParameter(
            f"{text!r} is neither a duration like 24h nor a time like 2026-01-31T08:00", param_hint=option
        ) from None
