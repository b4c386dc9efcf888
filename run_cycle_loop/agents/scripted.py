"""The scripted agent: replays the steps of a file as a process of its own, and writes in its workdir alone.

No model decides anything, so that it needs nobody's consent: it is there to try a loop, its guards and its budgets out.
"""

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from run_cycle_loop.agents.adapter import AgentResult, Capabilities, Ended, Invocation, Login, Request
from run_cycle_loop.agents.answers import conclude
from run_cycle_loop.agents.failures import how_ended, one_line, why_stopped
from run_cycle_loop.agents.json_lines import JsonLines, count_at, object_at, price_at, text_at, value_at
from run_cycle_loop.agents.scripted_steps import parse_script, replay
from run_cycle_loop.kit import files
from run_cycle_loop.model.enums import AgentClass, Role
from run_cycle_loop.model.errors import ConfigError
from run_cycle_loop.model.sessions import Usage

_LARGEST = 16 << 20  #: bytes of a script
_LONGEST_WAIT = timedelta(days=31).total_seconds()
_PACKAGE = Path(__file__).resolve().parents[2]


class Scripted:
    """The adapter."""

    name = "scripted"
    command: str | None = None
    capabilities = Capabilities(usage="tokens and usd", schema=True, read_only=True, is_real=False)

    def invoke(self, request: Request, env: Mapping[str, str]) -> Invocation:
        """See :class:`~run_cycle_loop.agents.adapter.Adapter`."""
        steps = chosen(Path(request.template), env.get("RUN_CYCLE_NUMBER", "")) if request.template else None
        if steps is None:
            raise ConfigError("the scripted agent has nothing to replay: name a file of steps with --agent-script")
        copy = request.scratch / "steps.jsonl"
        files.replace_file(copy, b"".join(json.dumps(step).encode() + b"\n" for step in steps))
        # What is imported is this package, installed or not, and nothing that lies in the workdir (-P).
        path = os.pathsep.join(filter(None, (str(_PACKAGE), env.get("PYTHONPATH"))))
        argv = (sys.executable, "-P", "-m", __name__, str(copy), request.role)
        ours = (Path(__file__).parents[1], Path(sys.prefix), Path(sys.base_prefix))
        return Invocation(argv=argv, env={"PYTHONPATH": path}, reads=ours)

    def reader(self, request: Request) -> "ScriptedReader":
        """See :class:`~run_cycle_loop.agents.adapter.Adapter`."""
        return ScriptedReader(request)

    def login(self, _env: Mapping[str, str], _home: Path) -> Login:
        """It needs none."""
        return Login(state="yes", detail="it needs no login")


def chosen(path: Path, number: str) -> list[Mapping[str, Any]]:
    """The steps for the cycle of this number: a file with several blocks is gone through again and again.

    Raises:
        ConfigError: the file cannot be read as steps.
    """
    try:
        # The operator may keep it behind a link.
        blocks = parse_script(files.read_bounded(path.resolve(), _LARGEST).decode())
    except OSError as error:
        raise ConfigError(f"the script {path} cannot be read: {error.strerror or error}; name another") from error
    except ValueError as error:
        raise ConfigError(f"the script {path} cannot be used: {error}; mend it") from error
    turn = int(number) if number.isascii() and number.isdigit() else 1
    return blocks[(turn - 1) % len(blocks)]


class ScriptedReader:
    """Reads the events of one replay."""

    def __init__(self, request: Request) -> None:
        self.usage: Usage | None = None
        self.is_final = False
        self._request = request
        self._lines = JsonLines(self._take)
        self._text = ""
        self._told: Mapping[str, Any] = {}
        self._calls = 0
        self._failures = 0

    def feed(self, stream: str, chunk: bytes | memoryview) -> None:
        """See :class:`~run_cycle_loop.agents.adapter.Reader`."""
        if stream == "stdout":
            self._lines.feed(chunk)

    def _take(self, event: Mapping[str, Any]) -> None:
        match event.get("event"):
            case "tool":
                self._calls += 1
                self._failures += value_at(event, "ok") is not True
            case "usage":
                self.usage = _sum(self.usage, object_at(event, "told", "usage"))
            case "final":
                self._text, self.is_final = text_at(event, "text"), True
            case "class":
                self._told, self.is_final = object_at(event, "told"), True

    def result(self, ended: Ended) -> AgentResult:
        """See :class:`~run_cycle_loop.agents.adapter.Reader`."""
        self._lines.close()
        return replace(
            self._judged(ended),
            text=self._text,
            usage=self.usage,
            model="scripted",
            tool_calls=self._calls,
            tool_failures=self._failures,
        )

    def _judged(self, ended: Ended) -> AgentResult:
        if ended.stopped is not None:
            return AgentResult(ended=ended.stopped, reason=why_stopped(ended.stopped))
        if self._told:
            return _as_told(self._told, ended.at)
        if ended.exit_code != 0:
            return AgentResult(ended=AgentClass.TOOL_ERROR, reason=one_line(how_ended(ended)))
        ending, reason, payload = conclude(self._request, self._text, acted=self._calls > 0)
        return AgentResult(ended=ending, reason=reason, payload=payload)


def _sum(before: Usage | None, told: Mapping[str, Any]) -> Usage:
    before = before or Usage(source="the script's usage steps, added up")
    cost = price_at(told, "cost_usd")
    return replace(
        before,
        input_tokens=before.input_tokens + count_at(told, "input_tokens"),
        cached_input_tokens=before.cached_input_tokens + count_at(told, "cached_input_tokens"),
        output_tokens=before.output_tokens + count_at(told, "output_tokens"),
        reasoning_tokens=before.reasoning_tokens + count_at(told, "reasoning_tokens"),
        cost_usd=before.cost_usd if cost is None else (before.cost_usd or 0.0) + cost,
        calls=(before.calls or 0) + 1,
    )


def _as_told(told: Mapping[str, Any], at: datetime) -> AgentResult:
    word = text_at(told, "class")
    try:
        ended = AgentClass(word)
    except ValueError:
        return AgentResult(ended=AgentClass.TOOL_ERROR, reason=f"the script names a class that is none: {word:.80}")
    return AgentResult(
        ended=ended,
        reason=one_line(text_at(told, "reason")) or f"the script says {ended}",
        advice=one_line(text_at(told, "advice")),
        retry_at=_retry_at(told, at),
        permanent=value_at(told, "permanent") is True,
    )


def _retry_at(told: Mapping[str, Any], at: datetime) -> datetime | None:
    seconds = price_at(told, "retry_after")
    if seconds is not None:
        return at + timedelta(seconds=min(seconds, _LONGEST_WAIT))
    try:
        moment = datetime.fromisoformat(text_at(told, "retry_at"))
        return moment.astimezone(UTC) if moment.tzinfo else None
    except (ValueError, OverflowError):
        return None


def _tell(event: Mapping[str, Any]) -> None:
    sys.stdout.write(json.dumps(event) + "\n")
    sys.stdout.flush()


def main() -> int:
    """Replay the file that the command line names, in the working directory, in the role that it names."""
    _, path, role = sys.argv
    with open(path, encoding="utf-8") as file:  # noqa: PTH123 - one of ours, in the scratch folder
        steps = [json.loads(line) for line in file]
    root = os.open(".", os.O_RDONLY | os.O_DIRECTORY)
    return replay(steps, _tell, root=root, reads_only=role == Role.READ_ONLY)


if __name__ == "__main__":
    sys.exit(main())
