"""The controller's flags as its Deployment has them: what is set, what is a default, and what cannot be seen."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from enum import StrEnum
from typing import Any

from run_cycle_loop.agentrun.flags import UNKNOWN, ControllerFlags, read_flags
from run_cycle_loop.agentrun.looking.objects import Object, container, entries, mapping, text
from run_cycle_loop.agentrun.profiles import Profile
from run_cycle_loop.clients.kubernetes import kinds
from run_cycle_loop.clients.kubernetes.api import Cluster
from run_cycle_loop.clients.kubernetes.errors import Forbidden

DEPLOYMENT = "agents-controllers"
_ANY = 2**31 - 1  #: as many iterations as the schema allows


class Origin(StrEnum):
    """Where a flag's value comes from."""

    SET = "set"  #: by a variable of the Deployment
    DEFAULT = "default"  #: the variable is absent, or says nothing that can be read
    REFERENCE = "reference"  #: the variable's value stands in another object, which was not looked at
    UNKNOWN = "unknown"  #: the Deployment was not seen, or takes more variables from where nobody looked


@dataclass(frozen=True, kw_only=True, slots=True)
class Flag:
    """One flag."""

    name: str  #: of the field in ControllerFlags
    variable: str
    value: Any  #: that holds; of UNKNOWN and REFERENCE the default, which need not be what holds
    origin: Origin
    note: str = ""

    def as_json(self) -> dict[str, Any]:
        """As plain JSON."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class FlagReport:
    """All of them."""

    deployment: str
    namespace: str
    profile: Profile
    flags: ControllerFlags
    rows: tuple[Flag, ...]
    note: str = ""  #: why they are not known; empty where they are
    sources: tuple[str, ...] = ()  #: objects whose every key is a variable too, and which were not looked at

    @property
    def assumed(self) -> ControllerFlags:
        """The flags to check a manifest against: what stands elsewhere is taken to allow it."""
        elsewhere = {one.name for one in self.rows if one.origin is Origin.REFERENCE}
        lenient: dict[str, Any] = {"loops_enabled": True, "max_iterations": _ANY, "runner_image": "(elsewhere)"}
        given = {name: value for name, value in lenient.items() if name in elsewhere}
        return replace(self.flags, known=self.flags.known and not self.sources, **given)

    def row(self, name: str) -> Flag:
        """The row of one flag."""
        return next(one for one in self.rows if one.name == name)

    def as_json(self) -> dict[str, Any]:
        """As plain JSON."""
        return {
            "deployment": self.deployment,
            "namespace": self.namespace,
            "profile": str(self.profile),
            "known": self.flags.known,
            "note": self.note,
            "sources": list(self.sources),
            "flags": [one.as_json() for one in self.rows],
        }


def controller_flags(
    cluster: Cluster, profile: Profile, *, namespace: str = "agents", deployment: str = DEPLOYMENT
) -> FlagReport:
    """What the controller's Deployment says. Where it may not be read nothing is known, which is not the same as off.

    Raises:
        KubernetesError: The cluster does not answer.
    """
    found, note = deployed(cluster, namespace=namespace, deployment=deployment)
    if found is None:
        rows = _rows(UNKNOWN, profile, {}, {}, otherwise=Origin.UNKNOWN)
        return FlagReport(
            deployment=deployment, namespace=namespace, profile=profile, flags=UNKNOWN, rows=rows, note=note
        )
    plain, elsewhere = variables(found)
    flags = read_flags(plain, profile)
    whole = sources(found)
    rows = _rows(flags, profile, plain, elsewhere, otherwise=Origin.UNKNOWN if whole else Origin.DEFAULT)
    return FlagReport(
        deployment=deployment, namespace=namespace, profile=profile, flags=flags, rows=rows, sources=whole
    )


def deployed(cluster: Cluster, *, namespace: str = "agents", deployment: str = DEPLOYMENT) -> tuple[Object | None, str]:
    """The controller's Deployment, or why it is not known."""
    try:
        found = cluster.get(kinds.DEPLOYMENT, deployment, namespace)
    except Forbidden as error:
        return None, str(error)
    if found is None:
        return None, f"there is no Deployment {deployment} in namespace {namespace}: name the one of the controller"
    return found, ""


def variables(deployment: Object) -> tuple[Mapping[str, str], Mapping[str, str]]:
    """The first container's variables: those with a value, and for the others where their value stands."""
    plain, elsewhere = dict[str, str](), dict[str, str]()
    for one in entries(container(deployment), "env"):
        reference = mapping(one, "valueFrom")
        if reference:
            elsewhere[text(one, "name")] = _place(reference)
        else:
            plain[text(one, "name")] = text(one, "value")
    return plain, elsewhere


def sources(deployment: Object) -> tuple[str, ...]:
    """The objects whose every key becomes a variable."""
    found = []
    for one in entries(container(deployment), "envFrom"):
        for key, kind in (("configMapRef", "ConfigMap"), ("secretRef", "Secret")):
            if name := text(one, key, "name"):
                found.append(f"{kind} {name}")
    return tuple(found)


def _place(reference: Mapping[str, Any]) -> str:
    for key, kind in (("configMapKeyRef", "ConfigMap"), ("secretKeyRef", "Secret")):
        if one := mapping(reference, key):
            return f"{kind} {text(one, 'name')}[{text(one, 'key')}]"
    return f"field {text(reference, 'fieldRef', 'fieldPath')}" if "fieldRef" in reference else "another object"


def _rows(
    flags: ControllerFlags,
    profile: Profile,
    plain: Mapping[str, str],
    elsewhere: Mapping[str, str],
    *,
    otherwise: Origin,
) -> tuple[Flag, ...]:
    names = ControllerFlags.variables(profile)
    rows = []
    for one in fields(ControllerFlags):
        if one.name not in names:
            continue
        variable, value = names[one.name], getattr(flags, one.name)
        if one.name == "runner_image" and flags.runner_image_variable:
            variable = flags.runner_image_variable
        if variable in elsewhere:
            row = Flag(
                name=one.name, variable=variable, value=value, origin=Origin.REFERENCE, note=f"in {elsewhere[variable]}"
            )
        elif variable in plain:
            default = getattr(UNKNOWN, one.name)
            unread = "" if value != default or not plain[variable] else f"written as {plain[variable]!r}"
            row = Flag(name=one.name, variable=variable, value=value, origin=Origin.SET, note=unread)
        else:
            row = Flag(name=one.name, variable=variable, value=value, origin=otherwise)
        rows.append(row)
    return tuple(rows)
