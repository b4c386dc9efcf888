"""The kinds of objects that the product asks a cluster for."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of objects, and where the API serves it."""

    group: str  #: empty: the core group
    version: str
    kind: str
    plural: str
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        """As it stands in an object's ``apiVersion``."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def resource(self) -> str:
        """As RBAC rules and kubectl name it: the plural with its group."""
        return f"{self.plural}.{self.group}" if self.group else self.plural


_AGENTS = "agents.proompteng.ai"

AGENT_RUN = Kind(_AGENTS, "v1alpha1", "AgentRun", "agentruns")
AGENT = Kind(_AGENTS, "v1alpha1", "Agent", "agents")
AGENT_PROVIDER = Kind(_AGENTS, "v1alpha1", "AgentProvider", "agentproviders")
IMPLEMENTATION_SPEC = Kind(_AGENTS, "v1alpha1", "ImplementationSpec", "implementationspecs")
VERSION_CONTROL_PROVIDER = Kind(_AGENTS, "v1alpha1", "VersionControlProvider", "versioncontrolproviders")
MEMORY = Kind(_AGENTS, "v1alpha1", "Memory", "memories")
JOB = Kind("batch", "v1", "Job", "jobs")
POD = Kind("", "v1", "Pod", "pods")
CONFIG_MAP = Kind("", "v1", "ConfigMap", "configmaps")
SECRET = Kind("", "v1", "Secret", "secrets")
PERSISTENT_VOLUME_CLAIM = Kind("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims")
NAMESPACE = Kind("", "v1", "Namespace", "namespaces", namespaced=False)
DEPLOYMENT = Kind("apps", "v1", "Deployment", "deployments")
CUSTOM_RESOURCE_DEFINITION = Kind(
    "apiextensions.k8s.io", "v1", "CustomResourceDefinition", "customresourcedefinitions", namespaced=False
)

#: By the word in an object's ``kind``.
BY_NAME: Mapping[str, Kind] = {
    kind.kind: kind
    for kind in (
        AGENT_RUN,
        AGENT,
        AGENT_PROVIDER,
        IMPLEMENTATION_SPEC,
        VERSION_CONTROL_PROVIDER,
        MEMORY,
        JOB,
        POD,
        CONFIG_MAP,
        SECRET,
        PERSISTENT_VOLUME_CLAIM,
        NAMESPACE,
        DEPLOYMENT,
        CUSTOM_RESOURCE_DEFINITION,
    )
}
