"""What of all that is installed here: asked of each program itself, one after the other, within bounds."""

import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from run_cycle_loop.agents import registry
from run_cycle_loop.agents.adapter import Capabilities, Login
from run_cycle_loop.kit.processes import EndedBy, LaunchError, Limits, supervise

_PATIENCE = Limits(timeout=10.0, grace=1.0)
_KEPT = 256 << 10  #: bytes of output
_VERSION = re.compile(r"\b\d+\.\d+(?:\.\d+)?[\w.+-]*")

#: What we put on the command line, and the help that must name it; only where that help comes quickly.
_FLAGS: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "claude": (("--help",), ("--output-format", "--permission-mode")),
    "codex": (("exec", "--help"), ("--json", "--sandbox", "--output-schema", "--output-last-message")),
    "pi": (("--help",), ("--mode", "--session", "--tools", "--offline")),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """One agent, as it is here."""

    name: str
    kind: str  #: ``program built-in template``
    path: str | None = None  #: None: not installed, or nothing to install
    version: str | None = None
    login: Login | None = None  #: None: nobody to log in
    capabilities: Capabilities | None = None
    trouble: str = ""  #: one sentence, where something was not as it should be

    @property
    def usable(self) -> bool:
        """Whether a cycle could start it."""
        return self.kind != "program" or self.path is not None

    def as_dict(self) -> dict[str, Any]:
        """A JSON object."""
        return {**asdict(self), "usable": self.usable}


def survey(env: Mapping[str, str], home: Path) -> Iterator[Found]:
    """Every agent in the registry's order; each program takes up to 20 seconds, and mostly one or two.

    The caller has adopted its orphans (``kit.process_tree``), so that nothing is left of them.

    Args:
        env: the environment that the agents would be started with.
        home: the operator's home.
    """
    for name, entry in registry.ADAPTERS.items():
        if entry.program is None:
            kind = "built-in" if name != "command" else "template"
            yield Found(name=name, kind=kind, capabilities=_capabilities(name))
        else:
            yield _program(name, entry.program, env, home)


def _capabilities(name: str) -> Capabilities:
    if registry.ADAPTERS[name].place is None:
        return Capabilities(usage="none", read_only=False, is_real=False)
    return registry.find(name).capabilities


def _program(name: str, program: str, env: Mapping[str, str], home: Path) -> Found:
    adapter = registry.find(name)
    login = adapter.login(env, home)
    path = shutil.which(program, path=env.get("PATH"))
    if path is None:
        return Found(name=name, kind="program", login=login, capabilities=adapter.capabilities)
    text, trouble = ask([path, "--version"], env)
    version = _VERSION.search(text)
    if version is None:
        trouble = trouble or "it did not say its version"
    elif name in _FLAGS:
        trouble = _missing(path, *_FLAGS[name], env)
    return Found(
        name=name,
        kind="program",
        path=path,
        version=version[0] if version else None,
        login=login,
        capabilities=adapter.capabilities,
        trouble=trouble,
    )


def _missing(path: str, question: Sequence[str], flags: Sequence[str], env: Mapping[str, str]) -> str:
    text, trouble = ask([path, *question], env)
    lacking = [flag for flag in flags if not re.search(rf"(?<![\w-]){flag}(?![\w-])", text)]
    if trouble or not lacking:
        return trouble
    return f"its help does not name {', '.join(lacking)}, which is needed; install another version"


def ask(argv: Sequence[str], env: Mapping[str, str]) -> tuple[str, str]:
    """What a program prints, at most 256 KiB within 10 seconds, and a sentence where that went wrong."""
    kept = {"stdout": bytearray(), "stderr": bytearray()}

    def keep(stream: str, chunk: memoryview) -> None:
        kept[stream].extend(chunk[: max(0, _KEPT // 2 - len(kept[stream]))])

    try:
        end = supervise(argv, env, limits=_PATIENCE, output=keep)
    except LaunchError as error:
        return "", str(error)
    text = (kept["stdout"] + kept["stderr"]).decode("utf-8", "replace")  # pi answers on standard error
    if end.ended_by is not EndedBy.ITSELF:
        return text, f"it did not answer {' '.join(argv[1:])} within {_PATIENCE.timeout:.0f} s"
    if end.exit_code != 0:
        return text, f"it answered {' '.join(argv[1:])} with exit code {end.exit_code}"
    return text, ""
