"""What the agent of a step is told: the user prompt, with every text that could have been it."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from run_cycle_loop.agentrun.model import AgentRun, Step
from run_cycle_loop.agentrun.profiles import Profile
from run_cycle_loop.agentrun.rendering.metadata import event_of
from run_cycle_loop.agentrun.rendering.system_prompts import MOUNT_FOLDER, MOUNT_PATH, SystemPrompt, system_prompt
from run_cycle_loop.agentrun.rendering.templates import Rendered, Replacement, fill_braces, json_text
from run_cycle_loop.agentrun.resources import Resources

__all__ = [
    "MOUNT_FOLDER",
    "MOUNT_PATH",
    "Candidate",
    "Implementation",
    "SystemPrompt",
    "UserPrompt",
    "codex_context",
    "implementation_of",
    "is_codex",
    "provider_of",
    "system_prompt",
    "user_prompt",
]

REFUSED = "refused: newer controllers take no prompt from parameters, and fail the run"
NOTHING = "nothing says what the agent shall do"
AS_WRITTEN = "what is filled in comes out empty: it is sent as written"

_WRITTEN = ("text", "summary")


@dataclass(frozen=True, kw_only=True, slots=True)
class Implementation:
    """What a step is to carry out, and where that is written."""

    place: str  #: ``ImplementationSpec/demo``, or the inline's path in the run
    spec: Mapping[str, Any] | None  #: None where the object is not here
    ref: str = ""  #: the ImplementationSpec's name; empty for inline


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """A text that could have become the prompt."""

    source: str  #: ``parameters.prompt``, ``provider``, ``text``, ``summary``, ``issueBody``
    place: str  #: object and path
    text: str | None  #: as written; None where the object is not here
    wins: bool
    why: str  #: why it wins, or what shadows it


@dataclass(frozen=True, kw_only=True, slots=True)
class UserPrompt:
    """The prompt of one step."""

    text: str | None  #: what the agent gets; None where nothing says anything, or the object is not here
    source: str  #: of the candidate that wins; empty where none does
    candidates: tuple[Candidate, ...]  #: in the order in which they are asked
    replacements: tuple[Replacement, ...] = ()  #: in the text that wins; none where texts stay as written
    run_text: str | None = None  #: ``run.json``'s prompt, which a provider's own prompt does not change
    note: str = ""  #: what a reader must know: the object is not here, or the text comes out empty

    @property
    def winner(self) -> Candidate | None:
        """The candidate that became the prompt."""
        return next((one for one in self.candidates if one.wins), None)


def implementation_of(
    run: AgentRun, step: Step | None, resources: Resources, profile: Profile
) -> Implementation | None:
    """What the step carries out, None where nothing says it; ``step`` is None for runtimes without steps.

    The guides ask references first, the step's and then the run's, and inlines after them. Newer controllers ask all
    that the step has, its inline first, and then all that the run has.
    """
    return next(_implementations(run, step, resources, profile), None)


def user_prompt(
    run: AgentRun,
    step: Step | None,
    resources: Resources,
    profile: Profile,
    *,
    payload: Mapping[str, Any] | None = None,
) -> UserPrompt:
    """The prompt of a step, with all that could have become it.

    Args:
        run: the run.
        step: None for runtimes without steps.
        resources: what is known of the objects it refers to.
        profile: whose order of precedence.
        payload: the step's ``run.json`` where it is at hand; placeholders of a provider's own prompt can name all of
            it, and it is what the agent is sent where nothing else says anything.
    """
    asked = _Asked(run, step, resources, profile)
    if profile.traits.prompt_parameter:
        return asked.by_guide()
    found = asked.current(payload)
    name, provider = provider_of(run, resources)
    if provider or found.text is None:
        return found
    unknown = (
        f"{f'AgentProvider/{name}' if name else f'Agent/{run.agent}'} is not here: it may have a prompt of its own"
    )
    return replace(found, note="; ".join(filter(None, (found.note, unknown))))


def provider_of(run: AgentRun, resources: Resources) -> tuple[str, Mapping[str, Any]]:
    """Name and ``spec`` of the AgentProvider of the run's agent; empty where they are not here."""
    reference = resources.spec("Agent", run.agent).get("providerRef")
    name = _text(_map(reference).get("name"))
    return name, resources.spec("AgentProvider", name)


def is_codex(provider: Mapping[str, Any]) -> bool:
    """Whether a provider's runner speaks to the Codex app server itself, rather than starting any program."""
    kind = _map(provider.get("adapter")).get("type")
    if kind in ("codex-app-server", "exec"):
        return bool(kind == "codex-app-server")
    binary = _text(provider.get("binary"))
    return not binary or binary.endswith("/agent-runner")


def codex_context(run_payload: Mapping[str, Any], parameters: Mapping[str, str]) -> dict[str, Any]:
    """What placeholders in a provider's Codex settings can name: all of ``run.json``, at the top and under ``run``."""
    return {**run_payload, "run": run_payload, "parameters": parameters, "inputs": parameters}


@dataclass(frozen=True, kw_only=True, slots=True)
class _Text:
    """A text that may become the prompt."""

    source: str
    place: str
    written: str | None  #: None where its object is not here
    filled: Rendered | None = None  #: what becomes of it; None where it stays as written
    barred: str = ""  #: why it cannot win, whatever it says

    @property
    def said(self) -> str:
        return (self.written or "") if self.filled is None else self.filled.text


class _Asked:
    """The question what a step is told, and the texts that may answer it."""

    def __init__(self, run: AgentRun, step: Step | None, resources: Resources, profile: Profile) -> None:
        self._run, self._step, self._resources = run, step, resources
        self._every = tuple(_implementations(run, step, resources, profile))
        self._chosen = self._every[0] if self._every else None
        spec = self._chosen.spec if self._chosen and self._chosen.spec is not None else {}
        self._event = event_of(spec, run.parameters_of(step) if step else run.parameters, profile)

    def by_guide(self) -> UserPrompt:
        """``parameters.prompt``, then what the implementation says; nothing is filled in."""
        texts = (*self._parameters(lambda key: key == "prompt"), *self._said(filled=False))
        won = next((one for one in texts if not one.barred and (one.written is None or self._counts(one))), None)
        if won is None:
            return UserPrompt(text=None, source="", candidates=_ranked(texts, None), note=NOTHING)
        if won.written is None:
            return UserPrompt(text=None, source=won.source, candidates=_ranked(texts, won), note=_not_here(won))
        text = self._event.prompt or None
        return UserPrompt(text=text, source=won.source, candidates=_ranked(texts, won), run_text=text)

    def current(self, payload: Mapping[str, Any] | None) -> UserPrompt:
        """A provider's own prompt, then what the implementation says, filled in; ``parameters.prompt`` is refused."""
        name, provider = provider_of(self._run, self._resources)
        refused = tuple(
            replace(one, barred=REFUSED) for one in self._parameters(lambda key: key.strip().lower() == "prompt")
        )
        own = self._own(name, provider, payload)
        texts = (*refused, *own, *self._said(filled=True), *self._more())
        if own and own[0].said.strip():
            return self._told(texts, own[0], own[0].said.strip())
        unknown = self._chosen is not None and self._chosen.spec is None
        if unknown:
            won = next(one for one in texts if one.source == "text" and not one.barred)
            return UserPrompt(text=None, source=won.source, candidates=_ranked(texts, won), note=_not_here(won))
        if not is_codex(provider):
            won_by = next((one for one in texts if not one.barred and one.said and one.source in _WRITTEN), None)
            return self._told(texts, won_by, won_by.said if won_by else None)
        return self._by_codex(texts, payload)

    def _by_codex(self, texts: tuple[_Text, ...], payload: Mapping[str, Any] | None) -> UserPrompt:
        """What the Codex adapter picks: run.json's prompt, then the bare texts, the issue's, and all that there is."""
        allowed = [one for one in texts if not one.barred and one.source != "provider"]
        first = next((one for one in allowed if one.said and one.source in _WRITTEN), None)
        if first is not None and first.said.strip():
            return self._told(texts, first, first.said.strip())
        for one in allowed:
            text = (one.written or "").strip()
            if text:
                return replace(self._told(texts, replace(one, filled=None), text), note=AS_WRITTEN)
        whole = None if payload is None else json_text(payload, indent=2)
        return UserPrompt(
            text=whole,
            source="",
            candidates=_ranked(texts, None),
            run_text=self._event.prompt or None,
            note=f"{NOTHING}: the whole of run.json is sent to it",
        )

    def _told(self, texts: tuple[_Text, ...], won: _Text | None, text: str | None) -> UserPrompt:
        return UserPrompt(
            text=text,
            source=won.source if won else "",
            candidates=_ranked(texts, won),
            replacements=won.filled.replacements if won and won.filled else (),
            run_text=self._event.prompt or None,
            note=_second_pass(text) if text else NOTHING,
        )

    def _counts(self, one: _Text) -> bool:
        """Blank parameters do not count, blank texts do."""
        return bool(one.said.strip() if one.source == "parameters.prompt" else one.said)

    def _parameters(self, is_prompt: Callable[[str], bool]) -> tuple[_Text, ...]:
        holders: list[tuple[Step | None, Mapping[str, str]]] = [(None, self._run.parameters)]
        if self._step is not None:
            holders.insert(0, (self._step, self._step.parameters))
        found: list[_Text] = []
        for step, parameters in holders:
            for key in filter(is_prompt, parameters):
                place = f"{_path(self._run, step)}.parameters.{key}"
                barred = f"the step's own takes its place: {found[0].place}" if found and step is None else ""
                found.append(_Text(source="parameters.prompt", place=place, written=parameters[key], barred=barred))
        return tuple(found)

    def _said(self, *, filled: bool) -> tuple[_Text, ...]:
        """Every implementation's text in the order in which they are asked, then the summary of the one that counts."""
        texts = [
            _Text(
                source="text",
                place=f"{one.place}.text",
                written=None if one.spec is None else _text(one.spec.get("text")),
                filled=self._event.text if filled and number == 0 and one.spec is not None else None,
                barred=f"{self._every[0].place} takes its place" if number else "",
            )
            for number, one in enumerate(self._every)
        ]
        summary = _text(self._chosen.spec.get("summary")) if self._chosen and self._chosen.spec else ""
        if summary and self._chosen:
            rendered = self._event.summary if filled else None
            place = f"{self._chosen.place}.summary"
            texts.append(_Text(source="summary", place=place, written=summary, filled=rendered))
        return tuple(texts)

    def _more(self) -> tuple[_Text, ...]:
        """A parameter that is asked last."""
        body = self._event.payload.get("issueBody")
        if not body or "issueBody" not in self._event.metadata or (self._event.text.text or "").strip():
            return ()
        return (_Text(source="issueBody", place="run.json issueBody", written=str(body)),)

    def _own(self, name: str, provider: Mapping[str, Any], payload: Mapping[str, Any] | None) -> tuple[_Text, ...]:
        """A provider's own prompt, which overrides every implementation."""
        own = _text(_map(_map(provider.get("adapter")).get("codex")).get("prompt"))
        if not own or not is_codex(provider):
            return ()
        parameters = self._run.parameters_of(self._step) if self._step else self._run.parameters
        known = payload if payload is not None else self._event.payload
        filled = fill_braces(own, codex_context(known, parameters))
        place = f"AgentProvider/{name} spec.adapter.codex.prompt"
        return (_Text(source="provider", place=place, written=own, filled=filled),)


def _implementations(
    run: AgentRun, step: Step | None, resources: Resources, profile: Profile
) -> Iterator[Implementation]:
    """All that the run and the step name, the one that counts first."""
    holders = [(_path(run, None), run.implementation, run.implementation_ref)]
    if step is not None:
        holders.insert(0, (_path(run, step), step.implementation, step.implementation_ref))
    inlines = [
        Implementation(place=f"{path}.implementation.inline", spec=inline)
        for path, inline, _ in holders
        if inline is not None
    ]
    by_ref = [_referred(ref, resources) for _, _, ref in holders if ref]
    if profile is Profile.GUIDE:
        yield from (*by_ref, *inlines)
        return
    for path, inline, ref in holders:
        yield from (one for one in inlines if inline is not None and one.place.startswith(f"{path}.implementation"))
        if ref:
            yield _referred(ref, resources)


def _referred(name: str, resources: Resources) -> Implementation:
    found = resources.get("ImplementationSpec", name)
    spec = _map(found.get("spec")) if found is not None else None
    return Implementation(place=f"ImplementationSpec/{name} spec", spec=spec, ref=name)


def _ranked(texts: tuple[_Text, ...], won: _Text | None) -> tuple[Candidate, ...]:
    """The candidates with the reason of each: barred, empty, or shadowed by the one that wins."""
    found: list[Candidate] = []
    is_past = False
    for one in texts:
        wins = won is not None and one.place == won.place
        if wins:
            why = "overrides every implementation" if one.source == "provider" else "the first that says something"
        elif one.barred:
            why = one.barred
        elif one.written is not None and not one.written.strip():
            why = "it is blank"
        elif is_past and won is not None:
            why = f"shadowed by {won.place}"
        else:
            why = "it comes out empty"
        is_past = is_past or wins
        found.append(Candidate(source=one.source, place=one.place, text=one.written, wins=wins, why=why))
    return tuple(found)


def _path(run: AgentRun, step: Step | None) -> str:
    where = "spec" if step is None else f"spec.workflow.steps[{step.index - 1}]"
    return f"AgentRun/{run.name} {where}"


def _not_here(one: _Text) -> str:
    return f"{one.place.split()[0]} is not among the objects given: what it says is not known here"


def _second_pass(text: str) -> str:
    if "{{" not in text:
        return ""
    return "it still holds {{ }}: the runner fills that in again in the pod, with the pod's environment in reach"


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _map(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
