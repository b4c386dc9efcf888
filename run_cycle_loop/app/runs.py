"""The AgentRuns of one place, this machine or a cluster, behind the same calls."""

from collections.abc import Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Protocol

from run_cycle_loop.app.cycle import CycleStops, ignored_signals
from run_cycle_loop.config.settings import Settings
from run_cycle_loop.controls.signals import SignalInbox
from run_cycle_loop.kit.printable import printable

if TYPE_CHECKING:
    from run_cycle_loop.agentrun.cluster.cancel import Cancellation
    from run_cycle_loop.agentrun.looking.output import Choice, Piece
    from run_cycle_loop.agentrun.looking.progress import Progress
    from run_cycle_loop.agentrun.looking.rows import RunRow
    from run_cycle_loop.agentrun.looking.verify import Verification
    from run_cycle_loop.app.cluster_runs import ClusterRuns


class Runs(Protocol):
    """What can be done with runs that exist."""

    @property
    def where(self) -> str:
        """For people: ``on this machine``."""
        ...

    @property
    def namespace(self) -> str:
        """Where runs are looked for."""
        ...

    def look(self, name: str) -> "Progress":
        """How far a run is."""
        ...

    def watch(self, name: str, *, timeout: float | None, nudge: bool) -> "Iterator[Progress]":
        """How far it is, whenever that has changed; the last one has a result."""
        ...

    def rows(self, *, everywhere: bool) -> "tuple[RunRow, ...]":
        """All runs, the newest first."""
        ...

    def logs(self, name: str, choice: "Choice", *, follow: bool, every: bool, tail: int | None) -> "Iterator[Piece]":
        """What the attempts print."""
        ...

    def verify(self, name: str, *, ask_pods: bool) -> "Verification":
        """Whether each attempt had the system prompt that was meant."""
        ...

    def cancel(self, name: str, *, message: str, delete: bool, drop_finalizer: bool) -> "Cancellation":
        """End a run so that it stays ended."""
        ...


def stops_of(stack: ExitStack) -> CycleStops:
    """From now on signals only end what waits, by its own word."""
    ignored = ignored_signals()
    return CycleStops(stack.enter_context(SignalInbox()), ignored)


def runs_of(settings: Settings, stack: ExitStack) -> Runs:
    """The runs of the place that the settings name.

    Raises:
        ConfigError: there is no way to it.
    """
    if settings.where == "cluster":
        return cluster_runs(settings, stack)
    from run_cycle_loop.app.local_runs import LocalRuns  # noqa: PLC0415 - brings the engine with it

    place = LocalRuns.of(settings, stops_of(stack))
    stack.callback(place.store.close)  # or else what was stored stays in the file beside it, which a copy may miss
    return place


_LOOKING, _SENDING = 10.0, 60.0  #: seconds that one call is tried for: somebody waits, or something must not be lost


def cluster_runs(settings: Settings, stack: ExitStack, *, sending: bool = False) -> "ClusterRuns":
    """The runs of the cluster; ``sending`` is more patient than looking.

    Raises:
        ConfigError: there is no way to it.
    """
    from run_cycle_loop.app.cluster_runs import ClusterRuns  # noqa: PLC0415 - 0.3 s

    budget = _SENDING if sending else _LOOKING
    return ClusterRuns.of(settings, stack, stops_of(stack), noticed=_Noticed().take, budget=budget)


class _Noticed:
    """What is overcome while a cluster is watched: said once for as long as it is the same."""

    def __init__(self) -> None:
        self._told = ""

    def take(self, error: object) -> None:
        """Say it where it is new."""
        import click  # noqa: PLC0415 - only for a fault

        if (said := str(error)) != self._told:
            self._told = said
            click.echo(f"run-cycle-loop: {printable(said)}; trying again", err=True)
