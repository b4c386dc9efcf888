"""claude (npm ``@anthropic-ai/claude-code``), driven by ``claude -p --output-format stream-json``.

What must not be trusted: ``subtype``, which says ``success`` beside ``is_error: true``; exit 0, which it gives after an
interrupt too (with a result of its own, while TERM and KILL leave none). A refused tool does not make a session fail.
An error is told as a message of the model ``<synthetic>``, with a code, and once more in the result. Seen with 2.1.332.
"""

import json
import math
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from run_cycle_loop.agents.adapter import AgentResult, Capabilities, Ended, Invocation, Login, Request
from run_cycle_loop.agents.answers import conclude
from run_cycle_loop.agents.claude_usage import Tally
from run_cycle_loop.agents.endings import failed, without_final_event
from run_cycle_loop.agents.failures import judge_failure
from run_cycle_loop.agents.json_lines import JsonLines, count_at, object_at, objects_at, text_at, value_at
from run_cycle_loop.kit import files
from run_cycle_loop.model.enums import AgentClass, Role
from run_cycle_loop.model.sessions import Usage

_SIGN_IN = "run `claude` and give it `/login`, or set ANTHROPIC_API_KEY"
_FOLDER = "CLAUDE_CONFIG_DIR"
_SETTINGS = 4 << 20  #: bytes of a file of its own
#: Without retries it ends at once whatever the server says (ten of them take minutes, a refused key included). What
#: the operator has set stands.
_DEFAULTS = {"CLAUDE_CODE_MAX_RETRIES": "0", "DISABLE_AUTOUPDATER": "1"}
_KEYS = ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "CLAUDE_CODE_OAUTH_TOKEN")
_CLOUDS = ("CLAUDE_CODE_USE_BEDROCK", "CLAUDE_CODE_USE_VERTEX", "CLAUDE_CODE_USE_FOUNDRY")
#: Plan mode lets a far-off classifier decide about commands; tools that are not there cannot be talked into anything.
#: The workdir's own settings may hold hooks, which are commands.
_READING = (
    *("--permission-mode", "dontAsk", "--tools", "Read,Glob,Grep"),
    *("--strict-mcp-config", "--setting-sources", "user"),
)
_WRITING = ("--permission-mode", "bypassPermissions")
_ANSWERING = "StructuredOutput"  #: the tool by which it hands in an answer of a schema
#: What it calls an error, in the words of HTTP: where a server answers 400 for used-up credit, this is the truer one.
_STATUS = {"authentication_failed": 401, "billing_error": 402, "model_not_found": 404, "rate_limit": 429}
_OWN_LIMITS = {"error_max_budget_usd", "error_max_turns"}


class Claude:
    """The adapter."""

    name = "claude"
    command: str | None = "claude"
    capabilities = Capabilities(usage="tokens and usd", schema=True, resume=True, read_only=True)

    def invoke(self, request: Request, env: Mapping[str, str]) -> Invocation:
        """See :class:`~run_cycle_loop.agents.adapter.Adapter`."""
        prompt = request.scratch / "claude-prompt"
        files.replace_file(prompt, request.prompt.encode("utf-8", "replace"))
        argv = ["claude", "-p", "--output-format", "stream-json", "--verbose"]
        argv += _READING if request.role is Role.READ_ONLY else _WRITING
        if request.model is not None:
            argv += ["--model", request.model]
        if request.output_schema is not None:
            argv += ["--json-schema", json.dumps(request.output_schema)]
        if request.max_usd is not None:
            argv += ["--max-budget-usd", f"{request.max_usd:.6f}"]
        if request.session_id is not None:
            argv += ["--resume", request.session_id]
        return Invocation(
            argv=(*argv, *request.extra_args), env=_variables(request, env), stdin=prompt, writes=_writes(env)
        )

    def reader(self, request: Request) -> "ClaudeReader":
        """See :class:`~run_cycle_loop.agents.adapter.Adapter`."""
        return ClaudeReader(request)

    def login(self, env: Mapping[str, str], home: Path) -> Login:
        """See :class:`~run_cycle_loop.agents.adapter.Adapter`."""
        place = _home({"HOME": str(home), **env})
        settings = _json(place / "settings.json")
        variables = {**object_at(settings, "env"), **env}
        if cloud := next((name for name in _CLOUDS if variables.get(name)), None):
            return Login(state="unknown", detail=f"{cloud} is set: it logs in with that cloud's own means")
        if key := next((name for name in _KEYS if variables.get(name)), None):
            return Login(state="yes", detail=f"{key} is set")
        credentials = place / ".credentials.json"
        if credentials.is_file():
            return Login(state="yes", detail=f"{credentials} exists")
        if settings.get("apiKeyHelper"):
            return Login(state="unknown", detail=f"{place / 'settings.json'} names a helper for its key")
        if _json(_own_file(env, home)).get("primaryApiKey"):
            return Login(state="yes", detail=f"{_own_file(env, home)} holds a key")
        return Login(state="no", detail=f"neither {credentials} nor {_KEYS[0]} exists; {_SIGN_IN}")


def _variables(request: Request, env: Mapping[str, str]) -> dict[str, str]:
    ours = {name: value for name, value in _DEFAULTS.items() if name not in env}
    if request.role is Role.WRITE and (request.isolated or os.geteuid() == 0):
        ours["IS_SANDBOX"] = "1"  # without it, it refuses to ask no questions as root
    return ours


def _home(env: Mapping[str, str]) -> Path:
    named = env.get(_FOLDER)
    return Path(named) if named else Path(env.get("HOME") or Path.home()) / ".claude"


def _own_file(env: Mapping[str, str], home: Path) -> Path:
    """Where it keeps its state: within its folder only where that was named."""
    return (Path(env[_FOLDER]) if env.get(_FOLDER) else home) / ".claude.json"


def _writes(env: Mapping[str, str]) -> tuple[Path, ...]:
    own = _own_file(env, Path(env.get("HOME") or Path.home()))
    return (_home(env), own) if own.is_file() else (_home(env),)


def _json(path: Path) -> Mapping[str, Any]:
    """An object of its own making; whatever else is there is as good as nothing."""
    try:
        value = json.loads(files.read_bounded(path.resolve(), _SETTINGS))
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


class ClaudeReader:
    """Reads one run of ``claude -p --output-format stream-json``."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._lines = JsonLines(self._take)
        self._session_id: str | None = None
        self._model = request.model
        self._began = False
        self._result: Mapping[str, Any] = {}  #: the last of its results
        self._tally = Tally()
        self._error: Mapping[str, Any] = {}  #: the message that it wrote in the model's stead
        self._resets_at: float | None = None
        self._calls = 0
        self._failures = 0
        self._denials = 0

    def feed(self, stream: str, chunk: bytes | memoryview) -> None:
        """See :class:`~run_cycle_loop.agents.adapter.Reader`."""
        if stream == "stdout":
            self._lines.feed(chunk)

    @property
    def is_final(self) -> bool:
        """See :class:`~run_cycle_loop.agents.adapter.Reader`.

        Not so with turns still in its queue, nor with the result that it writes when it is interrupted.
        """
        return bool(self._result) and not self._was_interrupted and not count_at(self._result, "queued_turn_count")

    @property
    def _was_interrupted(self) -> bool:
        return text_at(self._result, "terminal_reason").startswith("aborted")

    def _take(self, event: Mapping[str, Any]) -> None:
        match event.get("type"):
            case "system":
                self._take_system(event)
            case "assistant":
                self._take_message(event)
            case "user":
                results = [part for part in objects_at(event, "message", "content") if "tool_use_id" in part]
                self._failures += sum(part.get("is_error") is True for part in results)
            case "rate_limit_event":
                self._take_limit(object_at(event, "rate_limit_info"))
            case "result":
                self._take_result(event)

    def _take_system(self, event: Mapping[str, Any]) -> None:
        match event.get("subtype"):
            case "init":
                self._began = True
                self._session_id = text_at(event, "session_id") or self._session_id
                self._model = text_at(event, "model") or self._model
            case "permission_denied":
                self._denials += 1

    def _take_message(self, event: Mapping[str, Any]) -> None:
        message = object_at(event, "message")
        if event.get("is_api_error_message") is True or message.get("model") == "<synthetic>":
            self._error = event
            return
        self._error = {}
        uses = [part for part in objects_at(message, "content") if part.get("type") == "tool_use"]
        self._calls += sum(part.get("name") != _ANSWERING for part in uses)
        self._tally.take_message(text_at(message, "id"), object_at(message, "usage"))

    def _take_limit(self, told: Mapping[str, Any]) -> None:
        resets_at = told.get("resetsAt")
        if told.get("status") != "rejected":
            self._resets_at = None
        elif isinstance(resets_at, int | float) and math.isfinite(resets_at):
            self._resets_at = float(resets_at)

    def _take_result(self, event: Mapping[str, Any]) -> None:
        self._result = event
        self._session_id = text_at(event, "session_id") or self._session_id
        self._tally.take_result(event)

    @property
    def usage(self) -> Usage | None:
        """See :class:`~run_cycle_loop.agents.adapter.Reader`."""
        return self._tally.usage

    def result(self, ended: Ended) -> AgentResult:
        """See :class:`~run_cycle_loop.agents.adapter.Reader`."""
        self._lines.close()
        return replace(
            self._judged(ended),
            usage=self.usage,
            session_id=self._session_id,
            model=self._model,
            tool_calls=self._calls,
            tool_failures=self._failures,
        )

    def _judged(self, ended: Ended) -> AgentResult:
        if self._was_interrupted and ended.stopped is None:
            return AgentResult(ended=AgentClass.INTERRUPTED, reason="claude was interrupted from outside")
        if not self.is_final:
            return self._cut_off(ended)
        text = text_at(self._result, "result")
        # Without the flag nothing says that it went well.
        if self._result.get("is_error") is not False:
            return replace(self._failed(ended, text), text="" if self._error else text)
        if self._was_only_denied():
            return replace(self._denied(), text=text)
        answer = value_at(self._result, "structured_output")
        if isinstance(answer, Mapping):
            text = json.dumps(answer, ensure_ascii=False)
        if not text.strip() and not self._calls:
            return AgentResult(ended=AgentClass.TOOL_ERROR, reason="claude ended without an answer")
        ending, reason, payload = conclude(self._request, text, acted=self._calls > 0)
        return AgentResult(ended=ending, reason=reason, text=text, payload=payload)

    def _cut_off(self, ended: Ended) -> AgentResult:
        if ended.stopped is None and (self._error or self._resets_at is not None):
            return self._failed(ended, "")
        return without_final_event(ended, Claude.name, began=self._began, sign_in=_SIGN_IN)

    def _failed(self, ended: Ended, text: str) -> AgentResult:
        errors = value_at(self._result, "errors")
        told = "; ".join(error for error in errors if isinstance(error, str)) if isinstance(errors, list) else ""
        message = text or _text_of(self._error) or told or "claude says no reason"
        subtype = text_at(self._result, "subtype")
        if subtype in _OWN_LIMITS:
            return AgentResult(ended=AgentClass.BUDGET, reason=message)
        if self._resets_at is not None:
            wait = max(0.0, self._resets_at - ended.at.timestamp())
            failure = judge_failure(message, status=429, retry_after=wait, now=ended.at, sign_in=_SIGN_IN)
            return failed(failure, message)
        told_status = count_at(self._result, "api_error_status") or count_at(self._error, "api_error_status")
        status = _STATUS.get(text_at(self._error, "error"), told_status or None)
        failure = judge_failure(message, status=status, retry_after=None, now=ended.at, sign_in=_SIGN_IN)
        if failure.ended is AgentClass.TOOL_ERROR and status is None and self._was_denied():
            return self._denied()
        return failed(failure, message)

    def _was_denied(self) -> bool:
        return bool(self._denials or objects_at(self._result, "permission_denials"))

    def _was_only_denied(self) -> bool:
        """Whether it wanted something that nobody allowed, and did nothing else; a reader is not meant to do more."""
        return self._request.role is Role.WRITE and self._was_denied() and self._calls <= self._failures

    def _denied(self) -> AgentResult:
        wanted = {text_at(denial, "tool_name") for denial in objects_at(self._result, "permission_denials")} - {""}
        return AgentResult(
            ended=AgentClass.PERMISSION_DENIED,
            reason=f"claude was not allowed to use {', '.join(sorted(wanted)[:5]) or 'a tool'}",
            advice="allow it in claude's own settings, or take away the rule that denies it",
            permanent=True,
        )


def _text_of(event: Mapping[str, Any]) -> str:
    return "\n".join(text_at(part, "text") for part in objects_at(event, "message", "content"))
