"""What an attempt is to do: ``agent-runner.json``, found as the cluster's runner finds it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from run_cycle_loop.agentrun.local import mounts as places
from run_cycle_loop.agentrun.local.mounts import Mount
from run_cycle_loop.kit import files
from run_cycle_loop.model.errors import ConfigError

EXEC, CODEX = "exec", "codex-app-server"
STATUS_PATH = "/workspace/.agent/status.json"
LOG_PATH = "/workspace/.agent/runner.log"

_LARGEST = 8 << 20  #: bytes of each of the two files


@dataclass(frozen=True, kw_only=True, slots=True)
class Spec:
    """The attempt as its files describe it. Paths are this machine's."""

    adapter: str  #: :data:`EXEC` or :data:`CODEX`
    settings: Mapping[str, Any]  #: the adapter's own section
    provider: str = ""
    run: Mapping[str, Any] = field(default_factory=dict)  #: ``run.json``
    body: Mapping[str, Any] = field(default_factory=dict)  #: ``agent-runner.json``
    status_path: Path
    log_path: Path
    mounts: tuple[Mount, ...] = ()

    def here(self, path: str) -> str:
        """Where a path of the container is on this machine; itself where no mount has it."""
        return places.translate(path, self.mounts) or path

    @property
    def context(self) -> dict[str, Any]:
        """What templates may name; not the environment, or else a parameter's value could ask for a secret."""
        names = ("inputs", "payloads", "observability", "artifacts", "goal")
        return {name: self.body[name] for name in names if name in self.body} | {"run": self.run}


def read_spec(argv: Sequence[str], environ: Mapping[str, str]) -> Spec:
    """The spec: the first argument's file, else AGENT_RUNNER_SPEC_PATH's, else the text of AGENT_RUNNER_SPEC.

    Raises:
        ConfigError: there is none, or it cannot be understood.
    """
    mounts = read_mounts(environ)
    body = _body(argv, environ, mounts)
    adapter = _map(body.get("adapter"))
    kind = adapter.get("type")
    if kind not in (EXEC, CODEX):
        raise ConfigError(f"adapter.type {kind!r:.40} is not known here; it is one of {EXEC}, {CODEX}")
    artifacts, payloads = _map(body.get("artifacts")), _map(body.get("payloads"))
    event = _text(payloads.get("eventFilePath")) or environ.get("AGENT_RUN_SPEC", "")
    return Spec(
        adapter=kind,
        settings=_map(adapter.get("exec" if kind == EXEC else "codex")),
        provider=_text(body.get("provider")),
        run=_object(_here(event, mounts), "run.json") if event else {},
        body=body,
        status_path=Path(_here(_text(artifacts.get("statusPath")) or STATUS_PATH, mounts)),
        log_path=Path(_here(_text(artifacts.get("logPath")) or LOG_PATH, mounts)),
        mounts=mounts,
    )


def read_mounts(environ: Mapping[str, str]) -> tuple[Mount, ...]:
    """What the engine says of the container's paths.

    Raises:
        ConfigError: it cannot be understood.
    """
    try:
        return places.read_mounts(environ.get(places.VARIABLE, ""))
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{places.VARIABLE} cannot be understood: {error}; leave it to the engine") from error


def _body(argv: Sequence[str], environ: Mapping[str, str], mounts: Sequence[Mount]) -> Mapping[str, Any]:
    path = argv[0] if argv else _here(environ.get("AGENT_RUNNER_SPEC_PATH", ""), mounts)
    if path:
        return _object(path, "the runner's spec")
    text = environ.get("AGENT_RUNNER_SPEC", "")
    if not text:
        raise ConfigError("there is no spec; name its file as the argument, or in AGENT_RUNNER_SPEC_PATH")
    return _parsed(text, "AGENT_RUNNER_SPEC")


def _object(path: str, what: str) -> Mapping[str, Any]:
    try:
        # It may be kept behind a link, as mounted ConfigMaps are.
        return _parsed(files.read_bounded(Path(path).resolve(), _LARGEST).decode(), f"{what} {path}")
    except (OSError, ValueError) as error:
        raise ConfigError(f"{what} {path} cannot be read: {error}; name a file that holds it") from error


def _parsed(text: str, what: str) -> Mapping[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{what} is no JSON: {error}; write it anew") from error
    if not isinstance(value, dict):
        raise ConfigError(f"{what} holds no JSON object but {type(value).__name__}; write it anew")
    return value


def _here(path: str, mounts: Sequence[Mount]) -> str:
    return (places.translate(path, mounts) or path) if path else ""


def _map(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _text(value: Any) -> str:
    return value.strip() if isinstance(value, str) else ""
