"""The objects of a run, from a bundle and from a cluster; what may not be read is known to be unknown."""

from collections.abc import Mapping
from dataclasses import dataclass

from run_cycle_loop.agentrun.cluster.references import Reference, references
from run_cycle_loop.agentrun.flags import ControllerFlags
from run_cycle_loop.agentrun.looking.objects import Object, mapping, name_of
from run_cycle_loop.agentrun.model import AgentRun
from run_cycle_loop.agentrun.resources import Resources
from run_cycle_loop.clients.kubernetes import kinds
from run_cycle_loop.clients.kubernetes.api import Cluster
from run_cycle_loop.clients.kubernetes.errors import Forbidden, KindNotServed
from run_cycle_loop.clients.kubernetes.kinds import Kind


@dataclass(frozen=True, slots=True)
class Unread:
    """An object that may be there or not."""

    reference: Reference
    why: str  #: the server's words


@dataclass(frozen=True, kw_only=True, slots=True)
class Gathered:
    """What was found of a run's objects."""

    resources: Resources  #: complete, unless something may not be read
    missing: tuple[Reference, ...]  #: neither in the bundle nor on the cluster
    unread: tuple[Unread, ...]
    keyed: tuple[Reference, ...]  #: that are there, and need a certain key in them
    in_bundle: frozenset[tuple[str, str]]  #: by kind and name


def gather(cluster: Cluster, run: AgentRun, bundle: Resources, flags: ControllerFlags) -> Gathered:
    """Look up everything that a run leads to; what the bundle brings stands before what the cluster has.

    Raises:
        KubernetesError: The cluster does not answer.
    """
    return _Gathering(cluster, run, bundle, flags).done()


class _Gathering:
    """The objects of one run, each asked for once."""

    def __init__(self, cluster: Cluster, run: AgentRun, bundle: Resources, flags: ControllerFlags) -> None:
        self._cluster, self._run, self._bundle, self._flags = cluster, run, bundle, flags
        self._found: dict[tuple[str, str], Object | None] = {}
        self._refused: dict[tuple[str, str], str] = {}
        self._unlisted = False

    def done(self) -> Gathered:
        named = tuple(references(self._run, self._find, self._flags))
        for one in named:
            self._find(one.kind, one.name)
        self._add_default_memories()
        unread = tuple(Unread(one, self._refused[_key(one)]) for one in named if _key(one) in self._refused)
        missing = tuple(one for one in named if self._found.get(_key(one)) is None and _key(one) not in self._refused)
        objects: Mapping[tuple[str, str], Object] = {
            **{key: one for key, one in self._found.items() if one is not None},
            **self._bundle.objects,
        }
        return Gathered(
            resources=Resources(objects=objects, complete=not (unread or self._unlisted)),
            missing=missing,
            unread=unread,
            keyed=tuple(one for one in named if one.key and self._found.get(_key(one)) is not None),
            in_bundle=frozenset(self._bundle.objects),
        )

    def _find(self, kind: Kind, name: str) -> Object | None:
        key = (kind.kind, name)
        if (own := self._bundle.get(*key)) is not None:
            self._found[key] = own
            return own
        if key not in self._found:
            self._found[key] = self._asked(kind, name)
        return self._found[key]

    def _asked(self, kind: Kind, name: str) -> Object | None:
        try:
            return self._cluster.get(kind, name, self._run.namespace)
        except Forbidden as error:
            self._refused[kind.kind, name] = str(error)
        except KindNotServed as error:
            self._refused[kind.kind, name] = str(error)
        return None

    def _add_default_memories(self) -> None:
        """A Memory marked as the default counts for every run that names none."""
        if self._run.memory_ref:
            return
        try:
            memories = self._cluster.list(kinds.MEMORY, self._run.namespace).items
        except (Forbidden, KindNotServed):
            self._unlisted = True
            return
        for one in memories:
            if mapping(one, "spec").get("default") is True:
                self._found.setdefault(("Memory", name_of(one)), one)


def _key(reference: Reference) -> tuple[str, str]:
    return reference.kind.kind, reference.name
