"""A run is sent to a cluster, once: planned with a dry run of everything, then applied in the order of dependence.

A run that is refused leaves nothing behind; whatever becomes of the connection, there is one run of a key at most.
"""

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from run_cycle_loop.agentrun.cluster.planning import (
    ORDER,
    Action,
    FieldChange,
    Plan,
    Planned,
    dependencies_of,
    plan,
)
from run_cycle_loop.agentrun.cluster.waits import Wait
from run_cycle_loop.agentrun.looking.marks import bears, free_name, was_changed
from run_cycle_loop.agentrun.looking.objects import Object, name_of, uid_of
from run_cycle_loop.agentrun.looking.outcomes import result_of
from run_cycle_loop.clients.kubernetes import kinds
from run_cycle_loop.clients.kubernetes.api import Cluster
from run_cycle_loop.clients.kubernetes.errors import (
    AlreadyExists,
    KubernetesError,
    Stopped,
    TooManyRequests,
)

__all__ = [
    "EXIT_CODES",
    "ORDER",
    "Action",
    "FieldChange",
    "Made",
    "Plan",
    "Planned",
    "Submission",
    "SubmitResult",
    "dependencies_of",
    "plan",
    "submit",
]

_LOOKS = 3  #: times a create is tried whose answer was lost
_PAUSE = 1.0  #: seconds between them


class SubmitResult(StrEnum):
    """How a submission ended."""

    CREATED = "created"
    ADOPTED = "adopted"  #: it is there already, by this key
    REFUSED = "refused"  #: the name is another run's
    STOPPED = "stopped"  #: a stop came before the run was made
    UNCERTAIN = "uncertain"  #: nobody answers whether it was made


EXIT_CODES = {
    SubmitResult.CREATED: 0,
    SubmitResult.ADOPTED: 0,
    SubmitResult.REFUSED: 2,
    SubmitResult.UNCERTAIN: 7,
    SubmitResult.STOPPED: 130,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Made:
    """An object that this submission has made or changed."""

    kind: str
    name: str
    namespace: str
    action: Action
    uid: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Submission:
    """What became of it."""

    result: SubmitResult
    name: str
    namespace: str
    key: str
    uid: str = ""
    message: str = ""
    proposed_name: str = ""  #: a free one, where the name is taken
    made: tuple[Made, ...] = ()  #: that is there now, by this submission, beside the run

    def as_json(self) -> dict[str, Any]:
        """As plain JSON."""
        return {**asdict(self), "exit_code": EXIT_CODES[self.result]}


def submit(cluster: Cluster, planned: Plan, *, wait: Wait) -> Submission:
    """Do what was planned.

    Raises:
        KubernetesError: The server refuses; what had been made before is taken back, or named in the sentence.
    """
    return _Sending(cluster, planned, wait).done()


class _Sending:
    """One submission on its way."""

    def __init__(self, cluster: Cluster, planned: Plan, wait: Wait) -> None:
        self._cluster, self._plan, self._wait = cluster, planned, wait
        self._made: list[Made] = []

    def done(self) -> Submission:
        """First whether it is there already: then nothing at all is touched."""
        if self._plan.existing is not None:
            return self._taken(self._plan.existing)
        try:
            for one in self._plan.dependencies:
                if self._wait(0):
                    return self._stopped()
                self._apply(one)
            if self._wait(0):
                return self._stopped()
        except Stopped:
            return self._stopped()
        except KubernetesError as error:
            raise error.adding(self._taken_back()) from error
        return self._create()

    def _apply(self, one: Planned) -> None:
        if one.action is Action.KEEP:
            return
        made = self._cluster.apply(kinds.BY_NAME[one.kind], one.body)
        self._made.append(
            Made(kind=one.kind, name=one.name, namespace=one.namespace, action=one.action, uid=uid_of(made))
        )

    def _create(self) -> Submission:
        """The run itself. An answer that was lost is looked for, and only what is surely not there is made again."""
        for _ in range(_LOOKS):
            try:
                return self._said(SubmitResult.CREATED, self._cluster.create(kinds.AGENT_RUN, self._plan.run))
            except AlreadyExists:
                found = self._found()
                if found is not None:
                    return self._taken(found)
            except Stopped:
                return self._uncertain("a stop came while the answer was waited for")
            except KubernetesError as error:
                if not error.may_have_happened and not isinstance(error, TooManyRequests):
                    raise error.adding(self._taken_back()) from error
                looked = self._looked_for(error)
                if looked is not None:
                    return looked
        return self._uncertain("the server does not answer")

    def _looked_for(self, error: KubernetesError) -> Submission | None:
        """The end of it where the run is there, or where nobody says; None where it is not there."""
        if self._wait(max(_PAUSE, error.retry_after or 0.0)):
            return self._uncertain(f"a stop came, and before it: {error}")
        try:
            found = self._found()
        except (KubernetesError, Stopped) as silence:
            return self._uncertain(str(silence))
        return None if found is None else self._taken(found, is_new=True)

    def _found(self) -> Object | None:
        return self._cluster.get(kinds.AGENT_RUN, self._plan.name, self._plan.namespace)

    def _taken(self, found: Object, *, is_new: bool = False) -> Submission:
        """A run of that name is there: ours or not."""
        name = self._plan.name
        if not bears(found, self._plan.key):
            return self._refused(f"AgentRun {name} is there already, and not by this submission")
        if was_changed(found, self._plan.source):
            return self._refused(f"AgentRun {name} was submitted by this key from another manifest")
        if is_new:
            return self._said(SubmitResult.CREATED, found)
        over = result_of(found)
        if over is not None and not self._plan.is_own_key:
            return self._refused(f"AgentRun {name} was submitted before and is {over}: a run that is over stays so")
        return self._said(SubmitResult.ADOPTED, found)

    def _refused(self, message: str) -> Submission:
        left = self._taken_back()
        taken = _names(self._cluster, self._plan.namespace)
        proposed = free_name(self._plan.name, {*taken, self._plan.name})
        return self._ended(
            SubmitResult.REFUSED, message=f"{message}; {left}; a free name is {proposed}", proposed_name=proposed
        )

    def _stopped(self) -> Submission:
        return self._ended(SubmitResult.STOPPED, message=f"stopped before the run was made; {self._taken_back()}")

    def _uncertain(self, why: str) -> Submission:
        told = (
            f"whether AgentRun {self._plan.name} was made is not known ({why}): submit again, the key makes one of both"
        )
        return self._ended(SubmitResult.UNCERTAIN, message=told)

    def _said(self, result: SubmitResult, found: Object) -> Submission:
        return self._ended(result, uid=uid_of(found), message=f"AgentRun {self._plan.name} is {result}")

    def _ended(self, result: SubmitResult, **more: str) -> Submission:
        plan = self._plan
        return Submission(
            result=result, name=plan.name, namespace=plan.namespace, key=plan.key, made=tuple(self._made), **more
        )

    def _taken_back(self) -> str:
        """Delete what this submission has made; what it has changed stays, and so does what cannot be deleted."""
        left = []
        for one in reversed(self._made):
            if one.action is Action.CREATE and self._deleted(one):
                self._made.remove(one)
            else:
                left.append(f"{one.kind}/{one.name} ({'changed' if one.action is Action.CHANGE else 'made'})")
        return f"left behind: {', '.join(left)}" if left else "nothing is left behind"

    def _deleted(self, one: Made) -> bool:
        try:
            self._cluster.delete(kinds.BY_NAME[one.kind], one.name, one.namespace, uid=one.uid)
        except (KubernetesError, Stopped):
            return False
        return True


def _names(cluster: Cluster, namespace: str) -> set[str]:
    try:
        return {name_of(one) for one in cluster.list(kinds.AGENT_RUN, namespace).items}
    except KubernetesError:
        return set()  # a proposal only
