"""The kinds an AgentRun lives among, as CustomResourceDefinitions of the project's own writing, one file a kind.

They carry the schema and the rules that an API server applies at admission, so that a manifest can be checked offline
against the same words. Profile ``current`` has every rule; profile ``guide`` lacks the three that later controllers
brought: run-level system prompts and ``parameters.prompt``, of the run and of its steps, are allowed there.
"""

from importlib.resources import files
from typing import Any

from run_cycle_loop.agentrun.profiles import Profile

PROFILES = tuple(str(profile) for profile in Profile)
_PLURALS = (
    "agents",
    "agentruns",
    "agentproviders",
    "implementationspecs",
    "versioncontrolproviders",
    "memories",
)
_MARK = "onlyIn"  #: on a rule: the only profile that has it


def crds(profile: str) -> tuple[dict[str, Any], ...]:
    """The definitions as an API server takes them, fresh objects at each call.

    Raises:
        ValueError: the profile is not one of ``PROFILES``.
    """
    if profile not in PROFILES:
        raise ValueError(f"the profile {profile!r} is unknown: choose one of {', '.join(PROFILES)}")
    return tuple(_of_profile(_read(plural), profile) for plural in _PLURALS)


def _read(plural: str) -> Any:
    import yaml  # noqa: PLC0415 - an extra, and 20 ms that only those pay who look at manifests

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return yaml.load(files(__name__).joinpath(f"{plural}.yaml").read_bytes(), Loader=loader)  # noqa: S506 - a safe one


def _of_profile(value: Any, profile: str) -> Any:
    """A copy without marks, and without what is marked for another profile; a list that this empties goes too."""
    if isinstance(value, list):
        return [_of_profile(item, profile) for item in value if _belongs(item, profile)]
    if isinstance(value, dict):
        copied = {key: _of_profile(item, profile) for key, item in value.items() if key != _MARK}
        return {key: item for key, item in copied.items() if item != [] or value[key] == []}
    return value


def _belongs(item: Any, profile: str) -> bool:
    return not isinstance(item, dict) or item.get(_MARK, profile) == profile
