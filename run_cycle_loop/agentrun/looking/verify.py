"""Whether the system prompt of a run is the one that was meant, for every attempt: a verdict from what was seen, pure.

What is looked at, and how it is fetched, is in ``evidence``.
"""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from run_cycle_loop.agentrun.looking.objects import Object, mapping, text
from run_cycle_loop.agentrun.rendering.system_prompts import MOUNT_FOLDER, MOUNT_PATH

PATH = "CODEX_SYSTEM_PROMPT_PATH"
EXPECTED_HASH = "CODEX_SYSTEM_PROMPT_EXPECTED_HASH"
REQUIRED = "CODEX_SYSTEM_PROMPT_REQUIRED"
VARIABLES = (PATH, EXPECTED_HASH, REQUIRED)
CHECKING_ADAPTER = "codex-app-server"  #: the only one whose runner compares the hash


class Verdict(StrEnum):
    """What came out, from the best to the worst."""

    PASS = "PASS"  # noqa: S105 - a verdict
    UNKNOWN = "UNKNOWN"  #: what would tell is gone, or may not be read
    STALE_SOURCE = "STALE SOURCE"  #: the run agrees with itself, and the source was changed since
    DRIFT = "DRIFT"  #: hashes that should be one differ within the run
    NOT_ENFORCED = "NOT ENFORCED"  #: nothing checks, or nothing has to

    @property
    def exit_code(self) -> int:
        """What a command leaves with."""
        return EXIT_CODES[self]


EXIT_CODES = {
    Verdict.PASS: 0,
    Verdict.DRIFT: 20,
    Verdict.STALE_SOURCE: 21,
    Verdict.NOT_ENFORCED: 22,
    Verdict.UNKNOWN: 23,
}
_WORST_FIRST = (Verdict.NOT_ENFORCED, Verdict.DRIFT, Verdict.STALE_SOURCE, Verdict.UNKNOWN)


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """What the Agent names now."""

    place: str  #: the field that names it
    kind: str  #: ``ConfigMap``, ``Secret``, ``inline``, or empty
    name: str = ""
    key: str = ""
    hash: str = ""  #: SHA-256 of the exact bytes; empty where it is not known
    note: str = ""  #: why it is not


@dataclass(frozen=True, kw_only=True, slots=True)
class Mount:
    """What stands at the prompt's folder."""

    path: str
    is_read_only: bool
    kind: str  #: ``ConfigMap`` or ``Secret``
    name: str
    key: str  #: of the object
    file: str  #: what it is called in the folder


@dataclass(frozen=True, kw_only=True, slots=True)
class AttemptEvidence:
    """What was seen of one attempt. Empty text and None are what could not be seen; ``notes`` say why."""

    job: str
    step: str = ""
    iteration: int | None = None
    attempt: int = 1
    has_job: bool = True
    has_succeeded: bool = False
    variables: tuple[tuple[str, str], ...] | None = None  #: of the prompt, as the Job has them
    pod: str = ""
    pod_variables: tuple[tuple[str, str], ...] | None = None  #: as the pod was let in
    image_id: str = ""
    mount: Mount | None = None
    file_hash: str = ""  #: of the file in the running container
    config_map: str = ""  #: the attempt's own
    adapter: str = ""  #: ``codex-app-server`` or ``exec``
    runner_path: str = ""  #: ``systemPromptPath`` in agent-runner.json
    runner_hash: str = ""  #: ``systemPromptExpectedHash`` in it
    inline_hash: str = ""  #: of ``systemPrompt`` in run.json
    instructions_hash: str = ""  #: of ``baseInstructions``, which the runner would take instead
    runner_status: str = ""  #: in the termination message
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Evidence:
    """What was seen of a run."""

    run: str
    namespace: str
    status_hash: str
    source: Source
    provider_adapter: str  #: of the provider as it is now; empty where it is not known
    attempts: tuple[AttemptEvidence, ...]
    missing: tuple[str, ...] = ()  #: iterations of which nothing at all is left
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Fact:
    """One thing that was compared."""

    name: str
    value: str  #: empty where it was not seen
    wanted: str
    holds: bool | None  #: None where it could not be told


@dataclass(frozen=True, kw_only=True, slots=True)
class AttemptVerdict:
    """What came out for one attempt."""

    job: str
    step: str
    iteration: int | None
    attempt: int
    verdict: Verdict
    why: str
    facts: tuple[Fact, ...]
    image_id: str
    notes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Verification:
    """What came out for a run."""

    run: str
    namespace: str
    verdict: Verdict
    why: str
    status_hash: str
    source: Source
    attempts: tuple[AttemptVerdict, ...]
    notes: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """As plain JSON."""
        return {**asdict(self), "exit_code": self.verdict.exit_code}


def judge(evidence: Evidence) -> Verification:
    """The verdict for each attempt, and the worst of them for the run."""
    verdicts = tuple(_attempt(evidence, one) for one in evidence.attempts)
    verdict, why = _whole(evidence, verdicts)
    return Verification(
        run=evidence.run,
        namespace=evidence.namespace,
        verdict=verdict,
        why=why,
        status_hash=evidence.status_hash,
        source=evidence.source,
        attempts=verdicts,
        notes=evidence.notes,
    )


def _whole(evidence: Evidence, verdicts: Iterable[AttemptVerdict]) -> tuple[Verdict, str]:
    verdicts = tuple(verdicts)
    for verdict in _WORST_FIRST:
        first = next((one for one in verdicts if one.verdict is verdict), None)
        if first is not None:
            many = sum(one.verdict is verdict for one in verdicts)
            return verdict, f"{many} of {len(verdicts)} attempts, {first.job} first: {first.why}"
    if not verdicts:
        return Verdict.UNKNOWN, "no attempt of it is left to look at, or none has begun"
    if evidence.missing:
        return Verdict.UNKNOWN, f"nothing is left of {', '.join(evidence.missing)}; all others pass"
    return Verdict.PASS, f"all {len(verdicts)} attempts carry the prompt {evidence.status_hash[:12]}"


def _attempt(evidence: Evidence, one: AttemptEvidence) -> AttemptVerdict:
    facts = tuple(_facts(evidence, one))
    verdict, why = _judged(evidence, one, {fact.name: fact for fact in facts})
    return AttemptVerdict(
        job=one.job,
        step=one.step,
        iteration=one.iteration,
        attempt=one.attempt,
        verdict=verdict,
        why=why,
        facts=facts,
        image_id=one.image_id,
        notes=one.notes,
    )


def _expected(one: AttemptEvidence) -> str:
    """The hash that this attempt goes by: what the pod was really given, else the Job, else what the runner is told."""
    for seen in (one.pod_variables, one.variables):
        if seen is not None:
            return dict(seen).get(EXPECTED_HASH, "")
    return one.runner_hash


def _is_mounted(evidence: Evidence, one: AttemptEvidence) -> bool:
    """Whether the prompt reaches this attempt as a file; what the Agent names now counts where nothing else tells."""
    if one.mount is not None or one.runner_path or any(PATH in dict(seen or ()) for seen in _seen(one)):
        return True
    if one.inline_hash:
        return False
    return evidence.source.kind in ("ConfigMap", "Secret")


def _seen(one: AttemptEvidence) -> tuple[tuple[tuple[str, str], ...] | None, ...]:
    return one.variables, one.pod_variables


def _facts(evidence: Evidence, one: AttemptEvidence) -> Iterator[Fact]:
    expected, mounted = _expected(one), _is_mounted(evidence, one)
    adapter = one.adapter or evidence.provider_adapter
    yield _fact("adapter", adapter, CHECKING_ADAPTER)
    for holder, seen in (("Job", one.variables), ("Pod", one.pod_variables)):
        if seen is None:
            continue
        variables = dict(seen)
        yield _certain(f"{holder} {PATH}", variables.get(PATH, ""), MOUNT_PATH if mounted else "")
        yield _certain(f"{holder} {REQUIRED}", variables.get(REQUIRED, ""), "true")
        yield _certain(f"{holder} {EXPECTED_HASH}", variables.get(EXPECTED_HASH, ""), expected or "a hash")
    if mounted and one.has_job and one.variables is not None:
        yield from _mount_facts(one.mount)
    yield _fact("agent-runner.json systemPromptExpectedHash", one.runner_hash, expected)
    if mounted:
        yield _fact("agent-runner.json systemPromptPath", one.runner_path, MOUNT_PATH)
        yield _fact("file hash", one.file_hash, expected)
    else:
        yield _fact("run.json systemPrompt hash", one.inline_hash, expected)
    if one.instructions_hash:
        yield _fact("provider baseInstructions hash", one.instructions_hash, expected)
    yield _attested(one, adapter)
    yield _fact("status.systemPromptHash", evidence.status_hash, expected)
    yield _fact("source hash", evidence.source.hash, expected)


def _mount_facts(mount: Mount | None) -> Iterator[Fact]:
    yield _certain("mount", mount.path if mount else "", MOUNT_FOLDER)
    if mount is not None:
        yield _certain("mount readOnly", str(mount.is_read_only).lower(), "true")
        yield _certain("mounted file", mount.file, MOUNT_PATH.rpartition("/")[2])


def _attested(one: AttemptEvidence, adapter: str) -> Fact:
    """A checking runner that ended well has found the hash right; its Job's success says the same, more weakly."""
    if adapter != CHECKING_ADAPTER:
        return Fact(name="attested", value="", wanted="by the runner", holds=None)
    if one.runner_status:
        well = one.runner_status == "succeeded"
        told = f"runner: {one.runner_status}"
        return Fact(name="attested", value=told, wanted="by the runner", holds=True if well else None)
    told = "Job succeeded" if one.has_succeeded else ""
    return Fact(name="attested", value=told, wanted="by the runner", holds=True if told else None)


def _fact(name: str, value: str, wanted: str) -> Fact:
    """What cannot be told where either side was not seen."""
    return Fact(name=name, value=value, wanted=wanted, holds=value == wanted if value and wanted else None)


def _certain(name: str, value: str, wanted: str) -> Fact:
    """What was seen as it is, absence included."""
    return Fact(name=name, value=value, wanted=wanted, holds=bool(value) if wanted == "a hash" else value == wanted)


_ENFORCING = (f"Job {PATH}", f"Job {REQUIRED}", f"Pod {PATH}", f"Pod {REQUIRED}", "mount", "mounted file")
_AGREEING = (
    f"Job {EXPECTED_HASH}",
    "agent-runner.json systemPromptPath",
    "agent-runner.json systemPromptExpectedHash",
    "file hash",
    "run.json systemPrompt hash",
    "provider baseInstructions hash",
    "status.systemPromptHash",
)


def _judged(evidence: Evidence, one: AttemptEvidence, facts: dict[str, Fact]) -> tuple[Verdict, str]:
    expected = _expected(one)
    if facts["adapter"].holds is False:
        return Verdict.NOT_ENFORCED, f"the adapter is {facts['adapter'].value}, which compares no hash"
    for name in _ENFORCING:
        if name in facts and facts[name].holds is False:
            return Verdict.NOT_ENFORCED, _told(facts[name])
    if not expected and any(seen is not None for seen in _seen(one)):
        return Verdict.NOT_ENFORCED, f"{EXPECTED_HASH} is missing"
    for name in _AGREEING:
        if name in facts and facts[name].holds is False:
            return Verdict.DRIFT, _told(facts[name])
    return _last(evidence, one, facts)


def _last(evidence: Evidence, one: AttemptEvidence, facts: dict[str, Fact]) -> tuple[Verdict, str]:
    """Nothing contradicts: is there enough that agrees."""
    if facts["source hash"].holds is False:
        return Verdict.STALE_SOURCE, f"{_named(evidence.source)} was changed since: {_told(facts['source hash'])}"
    if not one.has_job:
        left = f"; its ConfigMap {one.config_map} agrees" if one.config_map and one.runner_hash else ""
        return Verdict.UNKNOWN, f"its Job is gone{left}"
    if one.variables is None:
        return Verdict.UNKNOWN, "its Job could not be read"
    for name in ("status.systemPromptHash", "source hash", "adapter", "agent-runner.json systemPromptExpectedHash"):
        if facts[name].holds is None:
            return Verdict.UNKNOWN, f"{name} is not known" + (
                f": {evidence.source.note}" if name == "source hash" else ""
            )
    return _content(evidence, one, facts)


def _content(evidence: Evidence, one: AttemptEvidence, facts: dict[str, Fact]) -> tuple[Verdict, str]:
    """Whether somebody has seen the text itself."""
    name = "file hash" if _is_mounted(evidence, one) else "run.json systemPrompt hash"
    if facts[name].holds:
        return Verdict.PASS, f"the {name} is what was expected"
    if facts["attested"].holds:
        return Verdict.PASS, f"attested ({facts['attested'].value}): the file itself is gone with its pod"
    return Verdict.UNKNOWN, f"nobody has seen the text itself: the {name} is not known, and no runner attests it"


def _told(fact: Fact) -> str:
    return f"{fact.name} is {_short(fact.value) or 'missing'}, not {_short(fact.wanted) or 'absent'}"


def _short(text: str) -> str:
    """Hashes are compared in full and shown by their beginning."""
    return text[:12] if len(text) == 64 and "/" not in text else text


def _named(source: Source) -> str:
    return f"{source.kind} {source.name}[{source.key}]" if source.name else source.place or "the source"


def adapter_of(provider: Object) -> str:
    """Which adapter a provider's attempts have; empty where the provider is not known."""
    spec = mapping(provider, "spec")
    said = text(spec, "adapter", "type")
    if said or not spec:
        return said
    return "codex-app-server" if text(spec, "binary").endswith("/agent-runner") else "exec"
