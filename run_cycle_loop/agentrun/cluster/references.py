"""Everything that a run leads to, object by object, wherever each may be found."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from run_cycle_loop.agentrun.flags import ControllerFlags
from run_cycle_loop.agentrun.looking.objects import Object, entries, mapping, text
from run_cycle_loop.agentrun.model import AgentRun, Volume
from run_cycle_loop.clients.kubernetes import kinds
from run_cycle_loop.clients.kubernetes.kinds import Kind

#: Finds an object by kind and name; None where there is none, or where it may not be read.
Find = Callable[[Kind, str], Object | None]


@dataclass(frozen=True, slots=True)
class Reference:
    """One object that is named somewhere."""

    kind: Kind
    name: str
    where: str  #: the object that names it, ``AgentRun/demo``
    path: str  #: inside of that
    is_optional: bool = False
    key: str = ""  #: that has to be in it


def references(run: AgentRun, find: Find, flags: ControllerFlags) -> Iterator[Reference]:
    """What a run needs, each object once: first what it names itself, then what those name."""
    seen: set[tuple[str, str]] = set()
    for one in _all(run, find, flags):
        key = (one.kind.kind, one.name)
        if one.name and key not in seen:
            seen.add(key)
            yield one


def _all(run: AgentRun, find: Find, flags: ControllerFlags) -> Iterator[Reference]:
    me = f"AgentRun/{run.name}"
    yield Reference(kinds.AGENT, run.agent, me, "spec.agentRef.name")
    agent = mapping(_found(find, kinds.AGENT, run.agent), "spec")
    its = f"Agent/{run.agent}"
    provider = text(agent, "providerRef", "name")
    yield Reference(kinds.AGENT_PROVIDER, provider, its, "spec.providerRef.name")
    yield from _of_provider(provider, _found(find, kinds.AGENT_PROVIDER, provider))
    yield from _implementations(run, me)
    yield from _version_control(run, find, me, its, agent)
    yield from _memories(run, find, me, its, agent)
    yield from _system_prompt(run, agent, me, its)
    for number, secret in enumerate(run.secrets):
        yield Reference(kinds.SECRET, secret, me, f"spec.secrets[{number}]")
    if flags.auth_secret_name:
        yield Reference(kinds.SECRET, flags.auth_secret_name, "the controller", "its auth secret")
    yield from _volumes(run, me)


def _found(find: Find, kind: Kind, name: str) -> Object | None:
    return find(kind, name) if name else None


def _of_provider(name: str, provider: Object | None) -> Iterator[Reference]:
    spec, where = mapping(provider, "spec"), f"AgentProvider/{name}"
    places = (("spec.secretEnv", spec), ("spec.adapter.secretEnv", mapping(spec, "adapter")))
    for path, holder in places:
        for number, one in enumerate(entries(holder, "secretEnv")):
            is_optional = one.get("optional") is True
            place = f"{path}[{number}].secretName"
            yield Reference(kinds.SECRET, text(one, "secretName"), where, place, is_optional, text(one, "key"))


def implementations(run: AgentRun) -> tuple[str, ...]:
    """The ImplementationSpecs that a run and its steps name."""
    return tuple(one.name for one in _implementations(run, "") if one.name)


def _implementations(run: AgentRun, me: str) -> Iterator[Reference]:
    if run.implementation is None:
        yield Reference(kinds.IMPLEMENTATION_SPEC, run.implementation_ref, me, "spec.implementationSpecRef.name")
    for number, step in enumerate(run.steps):
        if step.implementation is None:
            path = f"spec.workflow.steps[{number}].implementationSpecRef.name"
            yield Reference(kinds.IMPLEMENTATION_SPEC, step.implementation_ref, me, path)


def _version_control(run: AgentRun, find: Find, me: str, its: str, agent: Mapping[str, Any]) -> Iterator[Reference]:
    """The first that is named, by the run, by what it carries out, or by its Agent."""
    named = [Reference(kinds.VERSION_CONTROL_PROVIDER, run.vcs_ref, me, "spec.vcsRef.name")]
    for one in implementations(run):
        spec = mapping(find(kinds.IMPLEMENTATION_SPEC, one), "spec")
        path = "spec.vcsRef.name"
        named.append(
            Reference(kinds.VERSION_CONTROL_PROVIDER, text(spec, "vcsRef", "name"), f"ImplementationSpec/{one}", path)
        )
    named.append(Reference(kinds.VERSION_CONTROL_PROVIDER, text(agent, "vcsRef", "name"), its, "spec.vcsRef.name"))
    for reference in named:
        yield reference
        spec = mapping(_found(find, kinds.VERSION_CONTROL_PROVIDER, reference.name), "spec")
        yield from _login(f"VersionControlProvider/{reference.name}", mapping(spec, "auth"))


def _login(where: str, auth: Mapping[str, Any]) -> Iterator[Reference]:
    method = text(auth, "method")
    for way, key in (("token", "secretRef"), ("app", "privateKeySecretRef"), ("ssh", "privateKeySecretRef")):
        if method in ("", way):
            yield Reference(kinds.SECRET, text(auth, way, key, "name"), where, f"spec.auth.{way}.{key}.name")
    hosts = text(auth, "ssh", "knownHostsConfigMapRef", "name")
    yield Reference(kinds.CONFIG_MAP, hosts, where, "spec.auth.ssh.knownHostsConfigMapRef.name")


def _memories(run: AgentRun, find: Find, me: str, its: str, agent: Mapping[str, Any]) -> Iterator[Reference]:
    for where, name in ((me, run.memory_ref), (its, text(agent, "memoryRef", "name"))):
        yield Reference(kinds.MEMORY, name, where, "spec.memoryRef.name")
        secret = text(_found(find, kinds.MEMORY, name), "spec", "connection", "secretRef", "name")
        yield Reference(kinds.SECRET, secret, f"Memory/{name}", "spec.connection.secretRef.name")


def _system_prompt(run: AgentRun, agent: Mapping[str, Any], me: str, its: str) -> Iterator[Reference]:
    for where, path, holder in ((me, "spec", run.spec), (its, "spec.defaults", mapping(agent, "defaults"))):
        reference = mapping(holder, "systemPromptRef")
        kind = kinds.SECRET if text(reference, "kind").strip().lower() == "secret" else kinds.CONFIG_MAP
        yield Reference(kind, text(reference, "name"), where, f"{path}.systemPromptRef.name")


def claims(run: AgentRun) -> Iterator[tuple[str, Volume, str]]:
    """The volumes of the pods that this run will have: claim, volume and path."""
    places = (
        [("spec.workload", run.workload)] if any(one.workload is None for one in run.steps) or not run.steps else []
    )
    places += [(f"spec.workflow.steps[{number}].workload", one.workload) for number, one in enumerate(run.steps)]
    for path, workload in places:
        for number, volume in enumerate(workload.volumes if workload else ()):
            yield volume.claim_name, volume, f"{path}.volumes[{number}]"


def _volumes(run: AgentRun, me: str) -> Iterator[Reference]:
    for claim, volume, path in claims(run):
        if volume.type == "pvc":
            yield Reference(kinds.PERSISTENT_VOLUME_CLAIM, claim, me, f"{path}.claimName")
        elif volume.type == "secret":
            yield Reference(kinds.SECRET, volume.secret_name, me, f"{path}.secretName")
