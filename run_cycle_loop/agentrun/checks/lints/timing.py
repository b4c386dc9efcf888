"""Runtimes that ignore steps, retries that never come, attempts that outlive their timeout, and TTLs."""

from collections.abc import Iterator

from run_cycle_loop.agentrun.checks.findings import Finding
from run_cycle_loop.agentrun.checks.subject import Subject, items, mapping, step_path, step_words

_SHORT_JOB_TTL = 120  #: seconds: a controller that is busy needs longer to see that a Job is over


def timing_lints(subject: Subject) -> Iterator[Finding]:
    """Of the runtime, the steps and what is kept afterwards."""
    yield from _ignored(subject)
    yield from _negative(subject)
    for step in subject.run.steps:
        if step.retries and not step.timeout:
            message = f"{step_words(step)} has {step.retries} retries and no timeout: an attempt that hangs stays"
            cure = "add timeoutSeconds, longer than the longest good attempt"
            yield subject.warning("RetriesWithoutTimeout", step_path(step, "retries"), message, cure)
        elif step.retries and step.timeout:
            message = (
                f"on a cluster, the Job of an attempt that timed out after {step.timeout} s runs on beside its retry"
            )
            cure = "delete that Job when its retry begins, or make the work safe to be done twice at once"
            yield subject.note("TimedOutJobRunsOn", step_path(step, "timeoutSeconds"), message, cure)
    yield from _kept(subject)


def _ignored(subject: Subject) -> Iterator[Finding]:
    run = subject.run
    if not run.steps or run.runtime in ("workflow", ""):
        return
    loops = [step.name or str(step.index) for step in subject.loops()]
    cure = "set spec.runtime.type: workflow, or remove spec.workflow"
    if loops:
        message = f"the runtime is {run.runtime}, which ignores the loop of {', '.join(loops)}: the work is done once"
        yield subject.error("LoopIgnored", "spec.runtime.type", message, cure)
    else:
        message = f"the runtime is {run.runtime}, which ignores the {len(run.steps)} steps of the workflow"
        yield subject.error("StepsIgnored", "spec.runtime.type", message, cure)


def _negative(subject: Subject) -> Iterator[Finding]:
    written = items(mapping(subject.run.spec.get("workflow")).get("steps"))
    for step, body in zip(subject.run.steps, written, strict=True):
        for field in ("retries", "retryBackoffSeconds"):
            value = mapping(body).get(field)
            if isinstance(value, int | float) and value < 0:
                path = step_path(step, field)
                yield subject.warning(
                    "NegativeIsZero", path, f"{field} is {value}, which counts as 0", "write 0 or more"
                )


def _kept(subject: Subject) -> Iterator[Finding]:
    config, path = subject.run.runtime_config, "spec.runtime.config.ttlSecondsAfterFinished"
    ttl = config.get("ttlSecondsAfterFinished")
    if ttl is not None and subject.run.ttl is None:
        message = f"a TTL of {ttl} s in spec.runtime.config is that of the Jobs, and not that of the run"
        cure = "move it to spec.ttlSecondsAfterFinished, unless the Jobs are meant"
        yield subject.warning("TtlInRuntimeConfig", path, message, cure)
    elif isinstance(ttl, int) and 0 < ttl < _SHORT_JOB_TTL:
        message = (
            f"Jobs are removed {ttl} s after their end, perhaps before the controller has seen it (WorkflowJobMissing)"
        )
        yield subject.warning("JobTtlShort", path, message, f"write {_SHORT_JOB_TTL} or more")
    if subject.run.ttl == 0:
        message = "ttlSecondsAfterFinished is 0, which keeps the run for ever on most controllers"
        cure = "write the seconds that it shall be kept, 1 or more"
        yield subject.warning("TtlZeroKeeps", "spec.ttlSecondsAfterFinished", message, cure)
