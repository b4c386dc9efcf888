"""How long to leave a server alone that failed: exponential, capped, and a little by chance."""

from collections.abc import Callable

_FIRST, _LONGEST = 0.5, 15.0  #: seconds


def pause(attempt: int, chance: Callable[[], float]) -> float:
    """Seconds after so many failures in a row.

    Args:
        attempt: 1 for the first failure.
        chance: gives a number from 0 to 1; half of the pause is left to it.
    """
    # Imported at the first failure: who meets none does not pay for it.
    import tenacity  # noqa: PLC0415

    state = tenacity.RetryCallState(tenacity.Retrying(), fn=None, args=(), kwargs={})
    state.attempt_number = attempt
    return tenacity.wait_exponential(multiplier=_FIRST, max=_LONGEST)(state) * (0.5 + 0.5 * chance())
