"""What must hold among the settings of AgentRuns and Jobs, before a loop of them starts."""

import os

from run_cycle_loop.config.kinds import quoted
from run_cycle_loop.config.settings import Settings
from run_cycle_loop.model.errors import ConfigError


def check_runner(settings: Settings) -> None:
    """See that the runner has what it runs, and nothing that belongs to another one.

    Raises:
        ConfigError: one sentence with the value and the next step.
    """
    match settings.runner:
        case "agentrun":
            _check_agentrun(settings)
        case "job":
            _check_job(settings)
        case _:
            _check_script(settings)


def _check_agentrun(settings: Settings) -> None:
    if settings.command:
        raise ConfigError("--runner agentrun takes no command; what it runs stands in the manifest")
    if settings.manifest is None:
        raise ConfigError("--runner agentrun needs a manifest; add --manifest FILE")
    if not os.path.lexists(settings.manifest):
        raise ConfigError(f"the manifest {quoted(str(settings.manifest))} does not exist; name a file or a folder")
    if settings.profile == "auto" and settings.where == "local":
        raise ConfigError("--profile auto asks the cluster; with --where local name guide or current")


def _check_job(settings: Settings) -> None:
    if settings.image is None and settings.job_template is None:
        raise ConfigError("--runner job needs to know what to run; add --image IMAGE, or --job-template FILE")


def _check_script(settings: Settings) -> None:
    for name, runner in (("manifest", "agentrun"), ("image", "job"), ("job_template", "job")):
        value = getattr(settings, name)
        if value is not None:
            flag = f"--{name.replace('_', '-')}"
            raise ConfigError(f"{flag} {quoted(str(value))} is for --runner {runner}; add that, or leave it out")
