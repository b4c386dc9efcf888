"""A pulse that also looks at the tree a cycle works in, and ends the cycle where it writes too much."""

from run_cycle_loop.kit.processes import Demand, Pulse
from run_cycle_loop.model.ports import WorkTree


class WatchedPulse:
    """Implements ``kit.processes.Pulse`` over another one, whose demands come first."""

    def __init__(self, pulse: Pulse, tree: WorkTree) -> None:
        self._pulse = pulse
        self._tree = tree
        self.found: str | None = None  #: what the look found, in one sentence, from then on

    def fileno(self) -> int:
        """That of the pulse below."""
        return self._pulse.fileno()

    def beat(self) -> Demand:
        """What is wanted of the running cycle."""
        demand = self._pulse.beat()
        if self.found is None:
            self.found = self._tree.look()
        return max(demand, Demand.TERMINATE) if self.found else demand
