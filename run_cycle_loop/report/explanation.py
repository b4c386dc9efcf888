"""What becomes of an AgentRun, in lines for a terminal: blocks with a title, in each a key and its value."""

from collections.abc import Iterator

from run_cycle_loop.agentrun.explaining.explained import (
    Explanation,
    StepExplanation,
    excerpt,
    other_of,
    reaches,
    sha,
    short,
)
from run_cycle_loop.agentrun.model import AgentRun, Volume
from run_cycle_loop.agentrun.rendering.system_prompts import SystemPrompt
from run_cycle_loop.agentrun.rendering.vcs import VersionControl
from run_cycle_loop.kit.durations import format_duration
from run_cycle_loop.kit.printable import printable

_LABEL = 14  #: columns of what stands before a value


def lines(found: Explanation, width: int) -> list[str]:
    """All of it, on lines of at most ``width`` columns."""
    written: list[str] = []
    for title, rows in _blocks(found):
        written += [*([""] if written else []), _fitted(title, width)]
        for key, value in rows:
            written += _row(key, value, width)
    return written


def _kept(ttl: int | None) -> str:
    if ttl is None:
        return "as long as the controller keeps runs"
    return f"{format_duration(ttl)} after the end" if ttl else "for ever, or as long as the controller allows"


def _blocks(found: Explanation) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    run = found.run
    account, account_source = found.service_account
    adapter = f" ({found.adapter})" if found.adapter else ""
    yield (
        f"AgentRun/{run.name} in {run.namespace}, profile {found.profile}",
        [
            ("agent", f"{run.agent or 'none'}; provider {found.provider or 'not known here'}{adapter}"),
            ("runtime", _runtime(run)),
            ("account", f"{account}, by {account_source}" if account_source else f"{account}: nothing names one"),
            ("secrets", ", ".join(run.secrets) or "none"),
            ("run kept", _kept(run.ttl)),
            ("Jobs kept", "for ever" if found.job_ttl is None else f"{format_duration(found.job_ttl)} after the end"),
        ],
    )
    yield "System prompt", [*_system_rows(found.system_prompt, found.adapter), *_provider_rows(found)]
    for step in found.steps:
        yield (f"Step {step.index}: {step.name}" if step.index else "The one attempt"), list(_step_rows(step))
    rows = [row for one in found.differences for row in (("", one.what), ("here", one.here), ("there", one.there))]
    yield f"What profile {other_of(found.profile)} would do otherwise", rows or [("", "nothing that shows here")]


def _runtime(run: AgentRun) -> str:
    ignored = "; its workflow steps are ignored" if run.steps and run.runtime != "workflow" else ""
    return f"{run.runtime or 'none'}{ignored}"


def _system_rows(system: SystemPrompt, adapter: str) -> Iterator[tuple[str, str]]:
    yield "source", system.source or "none"
    if system.is_mounted:
        yield "object", f"{system.kind}/{system.name}, key {system.key}"
    if system.hash is not None:
        yield "sha256", system.hash
        yield "reaches", reaches(system)
    if system.hash is not None and adapter == "exec":
        yield "beware", "an exec provider's runner is told the hash, and nothing checks it"
    if system.refusal is not None:
        yield "refused", f"{system.refusal.reason}: {system.refusal.message}"
    if system.note:
        yield "note", system.note


def _provider_rows(found: Explanation) -> Iterator[tuple[str, str]]:
    """A provider's own instructions stand before every system prompt, and never have its hash."""
    if not found.steps or found.adapter != "codex-app-server" or found.system_prompt.hash is None:
        return
    if found.steps[0].paid.agent_runner["adapter"]["codex"].get("baseInstructions"):
        yield "beware", "the provider's baseInstructions take its place, and do not have its hash: the runner fails"


def _step_rows(step: StepExplanation) -> Iterator[tuple[str, str]]:
    if step.refusal is not None:
        yield "refused", f"{step.refusal.reason}: {step.refusal.message}"
    yield from _prompt_rows(step)
    yield "image", f"{step.image}, by {step.image_source}" if step.image else "nothing names one here"
    for one in step.volumes:
        access = ", read-only" if one.read_only else ""
        yield "volume", f"{one.name} at {one.mount_path}: {_holder(one)}{access}"
    yield from _vcs_rows(step.paid.version_control)
    yield from _plan_rows(step)
    for number, (key, value) in enumerate(step.labels.items()):
        yield ("" if number else "labels"), f"{key}={value}"


def _prompt_rows(step: StepExplanation) -> Iterator[tuple[str, str]]:
    prompt = step.paid.prompt
    if prompt.winner is not None:
        yield "prompt", prompt.winner.place
        yield "", prompt.winner.why
    else:
        yield "prompt", "none"
    if prompt.text is not None:
        yield "", f"'{excerpt(prompt.text)}'"
        yield "sha256", sha(prompt.text) or ""
    for one in prompt.candidates:
        if not one.wins:
            said = "not here" if one.text is None else f"'{excerpt(one.text)}' sha256 {short(sha(one.text))}"
            yield "not", f"{one.place}: {one.why}"
            yield "", said
    for put in prompt.replacements:
        if put.value is not None:
            yield "placeholder", f"{put.token} becomes '{excerpt(put.value)}'"
        else:
            yield "placeholder", f"{put.token} {'is removed' if put.is_braces else 'stays'}: nothing has that name"
    for token in step.literal:
        yield "placeholder", f"{token} stays as written: this profile fills nothing in"
    if prompt.note:
        yield "note", prompt.note


def _vcs_rows(found: VersionControl) -> Iterator[tuple[str, str]]:
    if found.refusal is not None:
        yield "vcs", f"refused, {found.refusal.reason}: {found.refusal.message}"
    elif found.is_given:
        yield "vcs", f"{found.repository} by {found.provider}, {found.mode}"
    elif found.skipped is not None:
        yield "vcs", f"skipped, {found.skipped.reason}: {found.skipped.message}"
    elif found.provider:
        yield "vcs", found.note
    else:
        yield "vcs", "none"
    if found.head or found.base:
        source = f", by {found.head_source}" if found.head_source else ""
        yield "branch", f"{found.head or 'none'} from {found.base or 'whatever is the default there'}{source}"
    if found.is_given and found.note:
        yield "note", found.note


def _plan_rows(step: StepExplanation) -> Iterator[tuple[str, str]]:
    plan = step.plan
    if not plan.jobs:
        yield "Jobs", "none: this runtime makes no Job of its own"
        return
    if plan.kind == "conditional loop":
        yield "loop", f"at most {plan.iterations} iterations, another one while"
        yield "", plan.expression or "(no expression)"
        where = next((one for one in step.volumes if one.is_persistent and _is_under(plan.path, one.mount_path)), None)
        kept = f"on volume {where.name}" if where else "on no persistent volume"
        yield "control file", f"{plan.path}, {kept}"
        yield "", f"missing: {plan.on_missing}; invalid: {plan.on_invalid}"
    elif plan.kind == "fixed loop":
        yield "loop", f"{plan.iterations} iterations, no condition"
    if plan.state_volumes:
        required = ", required" if plan.state_required else ""
        yield "state", f"{', '.join(plan.state_volumes)}{required}"
    again = f", {format_duration(plan.backoff)} apart at least" if plan.attempts > 1 and plan.backoff else ""
    limit = f"{format_duration(plan.timeout)} each" if plan.timeout else "no timeout"
    yield "attempts", f"{plan.attempts} for each iteration{again}; {limit}"
    longest = "no limit, for want of a timeout" if plan.longest is None else f"{format_duration(plan.longest)}"
    yield "worst case", f"{plan.jobs} {'Job' if plan.jobs == 1 else 'Jobs'}, {longest}"
    for number, name in enumerate(plan.first_jobs):
        yield ("" if number else "Jobs"), name
    if plan.jobs > len(plan.first_jobs):
        yield "", f"and so on: {plan.pattern}"
    if plan.hashed:
        yield "", "longer than 63 characters: such names keep 54 and end in 8 digits of a hash"


def _holder(one: Volume) -> str:
    if one.type == "pvc":
        return f"claim {one.claim_name or '(none)'}, persists"
    if one.type == "secret":
        return f"secret {one.secret_name or '(none)'}"
    return f"{one.type}, gone after each attempt"


def _is_under(path: str, folder: str) -> bool:
    return path.startswith(f"{folder.rstrip('/')}/")


def _row(key: str, value: str, width: int) -> list[str]:
    """A key and its value, on as many lines as it takes; what is one long word is broken."""
    import textwrap  # noqa: PLC0415 - only for output

    room = max(width - _LABEL - 2, 20)
    parts = textwrap.wrap(printable(value), room, break_on_hyphens=False) or [""]
    return [f"  {head:<{_LABEL}}{part}".rstrip() for head, part in zip((key, *[""] * len(parts)), parts, strict=False)]


def _fitted(title: str, width: int) -> str:
    line = printable(title)
    return line if len(line) <= width else f"{line[: width - 3]}..."
