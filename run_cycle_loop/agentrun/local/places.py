"""Where runs of this machine keep what: all of it below the state directory, by names that cannot lead out of it."""

from dataclasses import dataclass
from pathlib import Path

from run_cycle_loop.agentrun import names
from run_cycle_loop.agentrun.model import AgentRun
from run_cycle_loop.model.errors import ConfigError

STATUS = "status.json"
SECRETS = "secrets.json"  #: values of the bundle's Secrets, while the run is not over
LOCK = "engine.lock"


@dataclass(frozen=True, kw_only=True, slots=True)
class Places:
    """The state directory as the engine sees it."""

    state: Path  #: absolute

    def run(self, namespace: str, name: str) -> Path:
        """The folder of a run."""
        return self.state / "agentruns" / namespace / name

    def attempt(self, namespace: str, run: str, job: str) -> Path:
        """The folder of one attempt."""
        return self.run(namespace, run) / "attempts" / job

    def claim(self, namespace: str, name: str) -> Path:
        """What a volume claim stands for: it outlives every run."""
        return self.state / "volumes" / namespace / name


def check_names(run: AgentRun) -> None:
    """Nothing where every name is one that a folder can have.

    Raises:
        ConfigError: one is not.
    """
    workloads = [run.workload, *(step.workload for step in run.steps)]
    claims = [one.claim_name for workload in workloads if workload for one in workload.volumes if one.claim_name]
    wanted = {"metadata.name": [run.name], "metadata.namespace": [run.namespace], "claimName": claims}
    for field, given in wanted.items():
        for name in given:
            if not names.is_object_name(name) or len(name) > names.NAME_LIMIT:
                raise ConfigError(
                    f"{field} {name[:80]!r} is no name of at most {names.NAME_LIMIT} lower-case letters, digits and "
                    "dashes; give it such a one"
                )
