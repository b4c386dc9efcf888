"""The names that a controller derives from a run's: Jobs, ConfigMaps, labels."""

import hashlib
import re

API_VERSION = "agents.proompteng.ai/v1alpha1"
GROUP = "agents.proompteng.ai"
NAME_LIMIT = 63  #: characters of a label value, and so of a run's name

LABEL_RUN = f"{GROUP}/agent-run"
LABEL_AGENT = f"{GROUP}/agent"
LABEL_PROVIDER = f"{GROUP}/provider"
LABEL_IMPLEMENTATION = f"{GROUP}/implementation"
LABEL_STEP = f"{GROUP}/step"
LABEL_STEP_INDEX = f"{GROUP}/step-index"
LABEL_ITERATION = f"{GROUP}/step-iteration"
ANNOTATION_CONTROL = f"{GROUP}/loop-control"
ANNOTATION_TEMPLATE = f"{GROUP}/template"
ANNOTATION_RETAIN = f"{GROUP}/retain"
FINALIZER = f"{GROUP}/runtime-cleanup"

_HASH_KEEPS = 54  #: characters of a long name that stay, before a dash and eight digits


def attempt_suffix(step: int, iteration: int | None, attempt: int) -> str:
    """What tells one attempt from another; all three count from 1, ``iteration`` is None outside of loops."""
    turn = "" if iteration is None else f"iter-{iteration}-"
    return f"step-{step}-{turn}attempt-{attempt}"


def job_name(run: str, step: int, iteration: int | None, attempt: int) -> str:
    """The Job of one attempt of a workflow's step."""
    return object_name(f"{run}-{attempt_suffix(step, iteration, attempt)}")


def config_map_name(run: str, what: str, step: int, iteration: int | None, attempt: int) -> str:
    """A generated ConfigMap of one attempt; ``what`` is ``spec`` or ``inputs``."""
    return object_name(f"{run}-{what}-{attempt_suffix(step, iteration, attempt)}")


def object_name(text: str) -> str:
    """A legal object name of 63 characters at most; longer ones keep 54 and end in eight digits of their SHA-1."""
    name = re.sub(r"[^a-z0-9-]+", "-", text.lower()).strip("-")
    if len(name) <= NAME_LIMIT:
        return name
    digits = hashlib.sha1(name.encode(), usedforsecurity=False).hexdigest()[:8]
    return f"{name[:_HASH_KEEPS]}-{digits}"


def label_value(text: str) -> str:
    """A label value as the controller makes it, which cuts at 63 last: the result may end in an illegal character."""
    value = re.sub(r"[^a-z0-9_.-]+", "-", text.lower())
    value = re.sub(r"^[^a-z0-9]+|[^a-z0-9]+$", "", value)
    return (value or "unknown")[:NAME_LIMIT]


def is_label_value(text: str) -> bool:
    """Whether the API server accepts it as a label's value."""
    return re.fullmatch(r"(?:[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?", text) is not None


def is_object_name(text: str) -> bool:
    """Whether it is an object name, by RFC 1123's rule for subdomains."""
    part = r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?"
    return len(text) <= 253 and re.fullmatch(rf"{part}(?:\.{part})*", text) is not None
