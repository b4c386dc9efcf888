"""Whether the name and the key of a run are free, and nothing of an earlier run of that name is left."""

from collections.abc import Iterator, Sequence

from run_cycle_loop.agentrun import names
from run_cycle_loop.agentrun.checks.findings import Finding, Severity, Source
from run_cycle_loop.agentrun.looking.marks import bears, free_name, was_changed
from run_cycle_loop.agentrun.looking.objects import Object, is_being_deleted, labels_of, name_of, owners_of, text
from run_cycle_loop.agentrun.looking.outcomes import Result, result_of
from run_cycle_loop.agentrun.model import AgentRun, read_run


def proposed_name(name: str, others: Sequence[Object], leftovers: Sequence[Object]) -> str:
    """A free name like this one; names of which something is left do not count as free."""
    taken = {name, *(name_of(one) for one in others)}
    taken |= {text(labels_of(one), names.LABEL_RUN) for one in leftovers}
    return free_name(name, taken)


def is_submitted(run: AgentRun, key: str, others: Sequence[Object]) -> bool:
    """Whether the run of that name is this very submission."""
    found = _named(run, others)
    return found is not None and bears(found, key) and not was_changed(found, run.body)


def naming_findings(
    run: AgentRun, key: str, others: Sequence[Object], leftovers: Sequence[Object]
) -> Iterator[Finding]:
    """What stands in the way of this name and this key.

    Args:
        run: The run as it was written.
        key: Its idempotency key.
        others: The runs of the namespace.
        leftovers: The Jobs and ConfigMaps of the namespace that carry a run's label.
    """
    proposed = proposed_name(run.name, others, leftovers)
    found = _named(run, others)
    if found is not None and is_submitted(run, key, others):
        result = result_of(found)
        over = f"and is over: {result}" if result else "and is on its way"
        yield _finding(
            run, Severity.NOTE, "AlreadySubmitted", "it was submitted before by this key, " + over, "watch it"
        )
        return
    if found is not None:
        yield _taken(run, found, proposed)
    yield from _leftovers(run, found, leftovers, proposed)
    yield from _siblings(run, key, others)


def _named(run: AgentRun, others: Sequence[Object]) -> Object | None:
    return next((one for one in others if name_of(one) == run.name), None)


def _taken(run: AgentRun, found: Object, proposed: str) -> Finding:
    result = result_of(found)
    if is_being_deleted(found):
        message, cure = "a run of this name is being deleted", f"name it {proposed}, or wait and see that its Jobs go"
    elif result is None:
        message, cure = "a run of this name is on its way", f"watch or cancel it, or name this one {proposed}"
    elif result is Result.TEMPLATE:
        message, cure = "a template has this name", f"name it {proposed}"
    else:
        message = f"a run of this name is over ({result}): it stays so, whatever is applied to it"
        cure = f"name it {proposed}"
    return _finding(run, Severity.ERROR, "NameTaken", message, cure)


def _leftovers(run: AgentRun, found: Object | None, leftovers: Sequence[Object], proposed: str) -> Iterator[Finding]:
    """A finished Job of an earlier run is taken for the new one's first iteration."""
    if found is not None:
        return
    left = [one for one in leftovers if labels_of(one).get(names.LABEL_RUN) == run.name]
    if not left:
        return
    shown = ", ".join(f"{text(one, 'kind') or 'object'}/{name_of(one)}" for one in left[:3])
    more = f" and {len(left) - 3} more" if len(left) > 3 else ""
    owner = "" if any(owners_of(one) for one in left) else "; nothing owns them, so they stay"
    message = f"of an earlier run of this name there are left: {shown}{more}{owner}"
    yield _finding(run, Severity.ERROR, "StaleObjects", message, f"name it {proposed}, or delete them first")


def _siblings(run: AgentRun, key: str, others: Sequence[Object]) -> Iterator[Finding]:
    """The controller's own check needs its database; this one does not."""
    for one in others:
        other = read_run(one)
        if other.name == run.name or other.idempotency_key != key or other.agent != run.agent:
            continue
        result = result_of(one)
        reason = "IdempotencyKeyInUse" if result is None else "IdempotencyKeyCompleted"
        message = f"the key {key!r} is that of AgentRun {other.name}, which is {result or 'on its way'}"
        path = "spec.idempotencyKey"
        yield _finding(run, Severity.ERROR, reason, message, f"watch {other.name}, or take another key", path)


def _finding(
    run: AgentRun, severity: Severity, reason: str, message: str, cure: str, path: str = "metadata.name"
) -> Finding:
    return Finding(
        severity=severity,
        source=Source.CONTROLLER,
        reason=reason,
        where=f"AgentRun/{run.name}",
        path=path,
        message=message,
        cure=cure,
    )
