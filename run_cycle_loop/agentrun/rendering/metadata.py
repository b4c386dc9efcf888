"""What an implementation's contract sees: parameters under their common names, and what its source adds to them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from run_cycle_loop.agentrun.lifecycle.observed import Refusal
from run_cycle_loop.agentrun.profiles import Profile
from run_cycle_loop.agentrun.rendering.templates import Rendered, render

#: Other names of a key, in the order in which they are asked; the first that has a value fills a key that has none.
ALIASES = (
    ("repo", "repository"),
    ("issueRepository", "repository"),
    ("issue", "issueNumber"),
    ("issueId", "issueNumber"),
    ("issue_id", "issueNumber"),
    ("issue_number", "issueNumber"),
    ("title", "issueTitle"),
    ("body", "issueBody"),
    ("url", "issueUrl"),
    ("baseBranch", "base"),
    ("base_ref", "base"),
    ("baseRef", "base"),
    ("headBranch", "head"),
    ("head_ref", "head"),
    ("headRef", "head"),
    ("codexStage", "stage"),
)

#: The keys of ``run.json`` that repeat what the map holds, in their order there.
_REPEATED = ("repository", "issueNumber", "issueTitle", "issueBody", "issueUrl", "base", "head", "stage")


@dataclass(frozen=True, kw_only=True, slots=True)
class Contract:
    """Whether an implementation is given what it requires."""

    required: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    refusal: Refusal | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """What an implementation and the parameters make together."""

    metadata: Mapping[str, str]  #: the map, made keys included
    text: Rendered  #: the implementation's text, filled in where the profile does that
    summary: Rendered
    payload: Mapping[str, Any] = field(default_factory=dict)  #: the part of ``run.json`` that comes from here

    @property
    def prompt(self) -> str:
        """The prompt of ``run.json``; empty for none."""
        return str(self.payload.get("prompt", ""))


def event_of(implementation: Mapping[str, Any], parameters: Mapping[str, str], profile: Profile) -> Event:
    """The metadata map, the rendered texts and the payload of one step.

    Args:
        implementation: the ``spec`` of an ImplementationSpec, or an inline.
        parameters: of the run, with the step's laid over them.
        profile: says whether texts are filled in, and whether ``parameters.prompt`` counts.
    """
    traits = profile.traits
    metadata = _named(implementation, parameters, with_prompt=traits.prompt_parameter)
    context = template_context(metadata, parameters)
    summary, text = _text(implementation.get("summary")), _text(implementation.get("text"))
    if not traits.renders_text:
        prompt = metadata.get("prompt") or text or summary
        shown = {"issueTitle": metadata.get("issueTitle") or summary, "issueBody": metadata.get("issueBody") or text}
        return _event(metadata, Rendered(text=text), Rendered(text=summary), prompt, shown)
    filled, short = render(text, context), render(summary, context)
    # The issue's two are filled in once more even where they come from texts that are filled in already.
    shown = {
        "issueTitle": render(metadata.get("issueTitle") or short.text, context).text,
        "issueBody": render(metadata.get("issueBody") or filled.text, context).text,
    }
    return _event(metadata, filled, short, filled.text or short.text, shown)


def template_context(metadata: Mapping[str, str], parameters: Mapping[str, str]) -> dict[str, Any]:
    """What placeholders in texts can name. No step, no run and no iteration is among it."""
    return {**metadata, **parameters, "metadata": metadata, "parameters": parameters, "inputs": parameters}


def contract_of(implementation: Mapping[str, Any], parameters: Mapping[str, str], profile: Profile) -> Contract:
    """What the implementation requires, what of it is missing, and the refusal that this makes."""
    contract = _map(implementation.get("contract"))
    keys, mappings = contract.get("requiredKeys"), contract.get("mappings")
    required = tuple(dict.fromkeys(one.strip() for one in _list(keys) if isinstance(one, str) and one.strip()))
    if any(not _stripped(one) for one in _list(keys)):
        return Contract(required=required, refusal=_invalid("requiredKeys has a blank entry"))
    if any(not all(pair) for pair in _pairs(mappings)):
        return Contract(required=required, refusal=_invalid("mappings has an entry without from or to"))
    metadata = event_of(implementation, parameters, profile).metadata
    missing = tuple(key for key in required if not metadata.get(key))
    if not missing:
        return Contract(required=required)
    message = f"missing required metadata keys: {', '.join(missing)}"
    refusal = Refusal(reason="MissingRequiredMetadata", message=message, condition="InvalidSpec")
    return Contract(required=required, missing=missing, refusal=refusal)


def _invalid(what: str) -> Refusal:
    return Refusal(reason="InvalidContract", message=f"spec.contract.{what}", condition="InvalidSpec")


def _event(metadata: dict[str, str], text: Rendered, summary: Rendered, prompt: str, issue: Mapping[str, str]) -> Event:
    """The event with its made keys: they count for the contract, and are no part of any template's context."""
    metadata = dict(metadata)
    _fill(metadata, (*issue.items(), ("prompt", prompt)))
    known = {**metadata, **issue}
    payload: dict[str, Any] = {"prompt": prompt} if prompt else {}
    payload |= {key: known[key] for key in _REPEATED if known.get(key)}
    if metadata:
        payload["metadata"] = {"map": metadata}
    return Event(metadata=metadata, text=text, summary=summary, payload=payload)


def _named(implementation: Mapping[str, Any], parameters: Mapping[str, str], *, with_prompt: bool) -> dict[str, str]:
    """The map as templates see it: trimmed parameters, aliases, the contract's mappings, then the source's facts."""
    found = {key: value.strip() for key, value in parameters.items() if value.strip()}
    if not with_prompt:
        found = {key: value for key, value in found.items() if key.strip().lower() != "prompt"}
    mappings = (pair for pair in _pairs(_map(implementation.get("contract")).get("mappings")) if all(pair))
    for name, key in (*ALIASES, *mappings):
        if found.get(name) and not found.get(key):
            found[key] = found[name]
    source = _map(implementation.get("source"))
    if _text(source.get("provider")) == "github":
        _fill(found, _of_github(_text(source.get("externalId"))))
    url = found.get("issueUrl") or _text(source.get("url"))
    _fill(found, (("issueUrl", url), ("url", url)))
    return found


def _of_github(external: str) -> Iterable[tuple[str, str]]:
    """Repository and number of ``owner/repo#12``."""
    repository, _, rest = external.strip().partition("#")
    number = rest.partition("#")[0]
    if not repository or not number:
        return ()
    return ("repository", repository.strip()), ("issueNumber", number.strip())


def _fill(metadata: dict[str, str], values: Iterable[tuple[str, str]]) -> None:
    for key, value in values:
        if value and not metadata.get(key):
            metadata[key] = value


def _pairs(mappings: Any) -> list[tuple[str, str]]:
    return [(_stripped(_map(one).get("from")), _stripped(_map(one).get("to"))) for one in _list(mappings)]


def _stripped(value: Any) -> str:
    return _text(value).strip()


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _map(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
