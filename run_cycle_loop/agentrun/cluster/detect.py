"""Which generation of the controller a cluster runs, by what it leaves to be seen."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from run_cycle_loop.agentrun import names
from run_cycle_loop.agentrun.cluster.flags import DEPLOYMENT, deployed, variables
from run_cycle_loop.agentrun.looking.objects import Object, container, entries, labels_of, mapping, name_of, text
from run_cycle_loop.agentrun.profiles import Profile
from run_cycle_loop.clients.kubernetes import kinds
from run_cycle_loop.clients.kubernetes.api import Cluster
from run_cycle_loop.clients.kubernetes.errors import Forbidden

CRD = kinds.AGENT_RUN.resource
_RULES = {2: Profile.GUIDE, 4: Profile.CURRENT}  #: of the spec in the definition of AgentRun
_TERMINATION = "/workspace/.agent/status.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class Clue:
    """One thing that tells, or could not be seen."""

    source: str
    says: Profile | None
    detail: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Detection:
    """What was found out."""

    profile: Profile  #: the one that counts; the guides' where nothing tells
    is_certain: bool  #: False where nothing tells, or two clues disagree
    clues: tuple[Clue, ...]

    @property
    def note(self) -> str:
        """Why it is not certain; empty where it is."""
        said = [one for one in self.clues if one.says is not None]
        if not said:
            told = "; ".join(one.detail for one in self.clues)
            return f"nothing tells which controller this cluster has ({told}): taken as {self.profile}, see --profile"
        if self.is_certain:
            return ""
        return f"taken as {self.profile}: " + ", but ".join(f"{one.source} says {one.says}" for one in said)

    def as_json(self) -> dict[str, Any]:
        """As plain JSON."""
        return {**asdict(self), "note": self.note}


def detect(
    cluster: Cluster, namespace: str, *, controller_namespace: str = "agents", deployment: str = DEPLOYMENT
) -> Detection:
    """The profile: first by the controller's own variables, then by the Jobs it made, then by the definition.

    Raises:
        KubernetesError: The cluster does not answer.
    """
    clues = (
        _by_variables(cluster, controller_namespace, deployment),
        _by_jobs(cluster, namespace),
        _by_definition(cluster),
    )
    said = [one.says for one in clues if one.says is not None]
    return Detection(profile=said[0] if said else Profile.GUIDE, is_certain=len(set(said)) == 1, clues=clues)


def _by_variables(cluster: Cluster, namespace: str, deployment: str) -> Clue:
    source = f"Deployment {deployment}"
    found, note = deployed(cluster, namespace=namespace, deployment=deployment)
    if found is None:
        return Clue(source=source, says=None, detail=note)
    plain, elsewhere = variables(found)
    every = [*plain, *elsewhere]
    by_prefix = {
        one: [name for name in every if name.startswith(one.traits.env_prefix)]
        for one in (Profile.GUIDE, Profile.CURRENT)
    }
    told = [one for one, found in by_prefix.items() if found]
    if len(told) != 1:
        why = "has variables of both generations" if told else "has no variable that tells"
        return Clue(source=source, says=None, detail=f"{source} {why}")
    return Clue(source=source, says=told[0], detail=f"it has {by_prefix[told[0]][0]}")


def _by_jobs(cluster: Cluster, namespace: str) -> Clue:
    try:
        jobs = cluster.list(kinds.JOB, namespace).items
    except Forbidden as error:
        return Clue(source="Jobs", says=None, detail=str(error))
    mine = [job for job in jobs if names.LABEL_RUN in labels_of(job)]
    if not mine:
        return Clue(source="Jobs", says=None, detail=f"no run has a Job in namespace {namespace}")
    newest = max(mine, key=lambda job: text(job, "metadata", "creationTimestamp"))
    writes = text(container(newest), "terminationMessagePath") == _TERMINATION
    profile = Profile.CURRENT if writes else Profile.GUIDE
    detail = f"Job {name_of(newest)} has {'' if writes else 'no '}terminationMessagePath {_TERMINATION}"
    return Clue(source="Jobs", says=profile, detail=detail)


def _by_definition(cluster: Cluster) -> Clue:
    source = f"CustomResourceDefinition {CRD}"
    try:
        found = cluster.get(kinds.CUSTOM_RESOURCE_DEFINITION, CRD)
    except Forbidden as error:
        return Clue(source=source, says=None, detail=str(error))
    if found is None:
        return Clue(source=source, says=None, detail=f"{source} is not installed")
    count = len(spec_rules(found))
    return Clue(source=source, says=_RULES.get(count), detail=f"its spec has {count} validation rules")


def spec_rules(definition: Object) -> tuple[Object, ...]:
    """The validation rules that stand at the spec of the version that is asked for."""
    return entries(mapping(schema_of(definition), "properties", "spec"), "x-kubernetes-validations")


def schema_of(definition: Object) -> Object:
    """The schema of the version that is asked for; empty where it is not served."""
    for version in _served(entries(definition, "spec", "versions")):
        return mapping(version, "schema", "openAPIV3Schema")
    return {}


def _served(versions: Iterable[Object]) -> Iterable[Object]:
    return (one for one in versions if one.get("name") == kinds.AGENT_RUN.version and one.get("served") is True)
