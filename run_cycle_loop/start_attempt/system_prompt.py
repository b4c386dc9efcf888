"""The system prompt as a runner takes it: from the provider, the mounted file or run.json; and its hash is checked."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

from run_cycle_loop.kit import files
from run_cycle_loop.model.errors import ConfigError
from run_cycle_loop.start_attempt.spec import Spec

_LARGEST = 1 << 20  #: bytes; a cluster takes no more into a ConfigMap


def load(spec: Spec, environ: Mapping[str, str]) -> str | None:
    """The system prompt; None where there is none and none is required.

    Raises:
        ConfigError: it is required and absent or empty, cannot be read, or is not the one that was expected.
    """
    text, source = _found(spec, environ)
    expected = environ.get("CODEX_SYSTEM_PROMPT_EXPECTED_HASH") or str(
        spec.settings.get("systemPromptExpectedHash") or ""
    )
    if not text:
        if expected or environ.get("CODEX_SYSTEM_PROMPT_REQUIRED") == "true":
            raise ConfigError(f"the system prompt is required and {source} has none; look at the Agent's defaults")
        return None
    data = text.encode("utf-8", "surrogateescape")
    actual = hashlib.sha256(data).hexdigest()
    if expected and actual != expected:
        raise ConfigError(
            f"system prompt hash mismatch in {source}: expected {expected}, actual {actual}, {len(data)} bytes; "
            "see who changed it, or who brings another one"
        )
    return text


def _found(spec: Spec, environ: Mapping[str, str]) -> tuple[str, str]:
    """The text and where it is from: the first of three places that says anything."""
    own = spec.settings.get("baseInstructions")
    if isinstance(own, str) and own:
        return own, "the provider's adapter.codex.baseInstructions"
    path = environ.get("CODEX_SYSTEM_PROMPT_PATH") or spec.settings.get("systemPromptPath")
    if isinstance(path, str) and path:
        return _read(Path(spec.here(path))), f"the file {path}"
    inline = spec.run.get("systemPrompt")
    return (inline if isinstance(inline, str) else ""), "run.json"


def _read(path: Path) -> str:
    try:
        return files.read_bounded(path, _LARGEST).decode("utf-8", "surrogateescape")
    except FileNotFoundError:
        return ""
    except (OSError, ValueError) as error:
        raise ConfigError(f"the system prompt {path} cannot be read: {error}; look at its mount") from error
