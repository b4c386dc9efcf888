"""How long to wait after failures: exponential, capped, and a little by chance, lest many loops march in step."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Backoff:
    """1 m, 5 m, 25 m, 30 m, 30 m, ... by default. All times in seconds."""

    initial: float = 60.0
    factor: float = 5.0
    longest: float = 1800.0
    jitter: float = 0.1  #: a share of the delay, up or down

    def delay(self, streak: int, chance: Callable[[], float]) -> float:
        """The wait after ``streak`` failures in a row.

        Args:
            streak: 1 for the first failure.
            chance: gives a number from 0 to 1.
        """
        # Imported at the first failure: a run without one does not pay for it.
        import tenacity  # noqa: PLC0415

        attempt = tenacity.RetryCallState(tenacity.Retrying(), fn=None, args=(), kwargs={})
        attempt.attempt_number = streak
        calculate = tenacity.wait_exponential(multiplier=self.initial, exp_base=self.factor, max=self.longest)
        swing = 1 + self.jitter * (2 * chance() - 1)
        return min(self.longest, calculate(attempt) * swing)
