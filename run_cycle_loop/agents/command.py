"""Any other command line, by a template of the operator's: it gets a prompt and leaves a result in a file.

The result file holds plain text, or a JSON object whose ``class``, ``reason``, ``advice``, ``retry_at``, ``permanent``,
``text`` and ``usage`` then decide. Without a class the exit code decides: nothing else of a strange program is known.
"""

import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from run_cycle_loop.agents.adapter import AgentResult, Capabilities, Ended, Invocation, Login, Request
from run_cycle_loop.agents.answers import asking_for, conclude
from run_cycle_loop.agents.failures import how_ended, one_line, why_stopped
from run_cycle_loop.agents.json_lines import object_at, text_at
from run_cycle_loop.kit import files
from run_cycle_loop.model.enums import AgentClass
from run_cycle_loop.model.errors import ConfigError
from run_cycle_loop.model.sessions import AgentReport, Usage

_RESULT = 4 << 20  #: bytes of a result file
_TAIL = 64 << 10  #: bytes of standard output that stand for an answer where no result file is asked for
_RESULT_NAME = "command-result"
_PLACEHOLDER = re.compile(r"\{\{(\w+)\}\}|\{(\w+)\}")
_ENVELOPE = frozenset({"text", "class", "reason", "advice", "retry_at", "permanent", "usage", "model", "session_id"})


class Command:
    """The adapter."""

    name = "command"
    command: str | None = None  #: the template names it
    capabilities = Capabilities(usage="none")

    def invoke(self, request: Request, env: Mapping[str, str]) -> Invocation:  # noqa: ARG002 - the port's signature
        """See :class:`~run_cycle_loop.agents.adapter.Adapter`."""
        prompt, result = request.scratch / "command-prompt", request.scratch / _RESULT_NAME
        values = {"prompt_file": str(prompt), "workdir": str(request.workdir), "result_file": str(result)}
        values |= {"model": request.model} if request.model else {}
        words = _split(request.template)
        argv = [_filled(word, values) for word in words]
        schema = request.output_schema
        text = request.prompt if schema is None else asking_for(request.prompt, schema)
        files.replace_file(prompt, text.encode("utf-8", "replace"))
        files.unlink_quietly(result)
        by_file = any("prompt_file" in _names(word) for word in words)
        return Invocation(argv=(*argv, *request.extra_args), stdin=None if by_file else prompt)

    def reader(self, request: Request) -> "CommandReader":
        """See :class:`~run_cycle_loop.agents.adapter.Adapter`."""
        return CommandReader(request)

    def login(self, env: Mapping[str, str], home: Path) -> Login:  # noqa: ARG002 - the port's signature
        """See :class:`~run_cycle_loop.agents.adapter.Adapter`."""
        return Login(state="unknown", detail="a command of your own: only it knows")


def check_template(template: str, *, model: str | None) -> None:
    """See, before anything starts, that a command line can be filled in.

    Raises:
        ConfigError: its quotes do not close, or it asks for what there is not.
    """
    values = dict.fromkeys(("prompt_file", "workdir", "result_file"), "") | ({"model": model} if model else {})
    for word in _split(template):
        _filled(word, values)


def _split(template: str) -> list[str]:
    try:
        words = shlex.split(template)
    except ValueError as error:
        raise ConfigError(f"the agent's command {template!r} cannot be split: {error}; close its quotes") from error
    if not words:
        raise ConfigError("the agent `command` has no command line; give one, such as 'mytool --prompt {prompt_file}'")
    return words


def _names(word: str) -> set[str]:
    return {match[2] for match in _PLACEHOLDER.finditer(word) if match[2]}


def _filled(word: str, values: Mapping[str, str]) -> str:
    """The word with its placeholders filled; ``{{name}}`` stands for ``{name}`` itself."""
    for name in _names(word) - values.keys():
        if name == "model":
            raise ConfigError(f"the agent's command asks for {{model}} in {word!r} and no model is set; set one")
        known = "{prompt_file}, {workdir}, {result_file}, {model}"
        raise ConfigError(f"{{{name}}} in {word!r} is no placeholder; it is one of {known}, or write {{{{{name}}}}}")
    return _PLACEHOLDER.sub(lambda match: f"{{{match[1]}}}" if match[1] else values[match[2]], word)


class CommandReader:
    """Keeps the end of what a command prints, and reads its result file."""

    is_final = False  #: only its exit ends it
    usage: Usage | None = None  #: told at the end, where at all

    def __init__(self, request: Request) -> None:
        self._request = request
        self._by_file = any("result_file" in _names(word) for word in _split(request.template))
        self._tail = b""

    def feed(self, stream: str, chunk: bytes | memoryview) -> None:
        """See :class:`~run_cycle_loop.agents.adapter.Reader`."""
        if stream == "stdout" and not self._by_file:
            self._tail = (self._tail + bytes(chunk[-_TAIL:]))[-_TAIL:]

    def result(self, ended: Ended) -> AgentResult:
        """See :class:`~run_cycle_loop.agents.adapter.Reader`."""
        text, fault = self._answer()
        envelope = None if fault else self._envelope(text)
        if envelope is not None:
            text = text_at(envelope, "text")
        result = self._judged(ended, text, envelope or {}, fault)
        self.usage = _usage(envelope or {})
        return replace(
            result,
            text=text,
            usage=self.usage,
            session_id=text_at(envelope, "session_id") or None,
            model=text_at(envelope, "model") or self._request.model,
        )

    def _answer(self) -> tuple[str, str]:
        """The answer, and why there is none where one was to be in the file."""
        if not self._by_file:
            return self._tail.decode("utf-8", "replace"), ""
        path = self._request.scratch / _RESULT_NAME
        try:
            return files.read_bounded(path, _RESULT).decode("utf-8", "replace"), ""
        except FileNotFoundError:
            return "", "it left no result file"
        except (OSError, ValueError) as error:
            return "", f"its result file cannot be read: {error}"

    def _envelope(self, text: str) -> Mapping[str, Any] | None:
        """The object that decides, as against one that is the answer that was asked for."""
        try:
            found = json.loads(text)
        except (ValueError, RecursionError):
            return None
        if not isinstance(found, dict) or not found.keys() <= _ENVELOPE or not {"text", "class"} & found.keys():
            return None
        asked = (self._request.output_schema or {}).get("required")
        return None if asked and set(asked) <= found.keys() else found

    def _judged(self, ended: Ended, text: str, envelope: Mapping[str, Any], fault: str) -> AgentResult:
        if ended.stopped is not None:
            return AgentResult(ended=ended.stopped, reason=why_stopped(ended.stopped))
        try:
            report = AgentReport.from_control(envelope)
            _aware(envelope)
        except ValueError as error:
            reason = one_line(f"its result file cannot be understood: {error}")
            return AgentResult(ended=AgentClass.TOOL_ERROR, reason=reason)
        if report is not None and report.ended is not AgentClass.OK:
            return AgentResult(
                ended=report.ended,
                reason=one_line(report.reason) or "its result file says so",
                advice=one_line(report.advice),
                retry_at=report.retry_at,
                permanent=report.permanent,
            )
        if report is None and ended.exit_code != 0:
            return AgentResult(ended=AgentClass.TOOL_ERROR, reason=f"the command ended with {how_ended(ended)}")
        if fault:
            return AgentResult(ended=AgentClass.TOOL_ERROR, reason=f"the command ended with exit code 0, but {fault}")
        ending, reason, payload = conclude(self._request, text, acted=True)  # nobody can tell that it did nothing
        said = one_line(text_at(envelope, "reason"))
        return AgentResult(ended=ending, reason=said or reason, payload=payload)


def _aware(envelope: Mapping[str, Any]) -> None:
    at = text_at(envelope, "retry_at")
    if at and datetime.fromisoformat(at).tzinfo is None:
        raise ValueError(f"retry_at is {at!r}, without a zone")


def _usage(envelope: Mapping[str, Any]) -> Usage | None:
    told = object_at(envelope, "usage")
    try:
        return replace(Usage.from_dict(told), source="the command's result file") if told else None
    except ValueError:
        return None
