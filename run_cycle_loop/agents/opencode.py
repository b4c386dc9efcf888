"""opencode (npm ``opencode-ai``), driven by ``opencode run --format json``.

What must not be trusted: exit codes (1 after an error from which it recovered, 0 where it was refused a tool and ended
there); a busy stream (an answer that is cut off, or a page of HTML, makes it ask again for ever); silence, for it obeys
whatever wait a server names, and no setting turns its tries off: only its log tells of them. No event closes the
stream, and a ``stop`` may be that of a summary, after which it goes on. Seen with 1.18.33.
"""

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from run_cycle_loop.agents.adapter import AgentResult, Capabilities, Ended, Invocation, Login, Request
from run_cycle_loop.agents.answers import asking_for, conclude
from run_cycle_loop.agents.endings import failed, without_final_event
from run_cycle_loop.agents.failures import judge_failure, one_line
from run_cycle_loop.agents.json_lines import JsonLines, count_at, object_at, price_at, text_at, value_at
from run_cycle_loop.agents.opencode_log import denied_permission, stream_error
from run_cycle_loop.kit import files
from run_cycle_loop.model.enums import AgentClass, Role
from run_cycle_loop.model.errors import ConfigError
from run_cycle_loop.model.sessions import Usage
from run_cycle_loop.policies.limits import is_limit

_SIGN_IN = "run `opencode auth login`, or set the key of its model provider"
_CONTENT = "OPENCODE_CONFIG_CONTENT"  #: settings that come last, over all files
_LOGINS = 1 << 20  #: bytes
_SETTINGS: Mapping[str, Any] = {"autoupdate": False, "share": "disabled"}
_SWITCHES = {f"OPENCODE_DISABLE_{name}": "1" for name in ("AUTOUPDATE", "LSP_DOWNLOAD", "TERMINAL_TITLE")}
#: What is denied is not even offered to the model; what would be asked is refused, and ends the run.
_READING = {"*": "deny", **dict.fromkeys(("read", "glob", "grep", "list"), "allow")}
_KEYS = (
    *("OPENCODE_API_KEY", "ANTHROPIC_API_KEY", "OPENAI_API_KEY", "GEMINI_API_KEY", "GOOGLE_GENERATIVE_AI_API_KEY"),
    *("OPENROUTER_API_KEY", "GROQ_API_KEY", "XAI_API_KEY", "DEEPSEEK_API_KEY", "MISTRAL_API_KEY"),
)
_BARREN = 20  #: steps in a row that brought nothing
_TRIES = 3  #: requests in a row that failed


class Opencode:
    """The adapter."""

    name = "opencode"
    command: str | None = "opencode"
    capabilities = Capabilities(usage="tokens and usd", resume=True, read_only=True)

    def invoke(self, request: Request, env: Mapping[str, str]) -> Invocation:
        """See :class:`~run_cycle_loop.agents.adapter.Adapter`."""
        schema = request.output_schema
        text = request.prompt if schema is None else asking_for(request.prompt, schema)
        prompt = request.scratch / "opencode-prompt"
        files.replace_file(prompt, text.encode("utf-8", "replace"))
        argv = ["opencode", "run", "--format", "json", "--print-logs", "--log-level", "ERROR"]
        if request.model is not None:
            argv += ["--model", request.model]
        if request.session_id is not None:
            argv += ["--session", request.session_id]
        settings = {**_operators(env), **_SETTINGS}
        if request.role is Role.READ_ONLY:
            settings["permission"] = _READING
        else:
            argv.append("--auto")  # allows what would be asked, and nothing that the operator denies
        return Invocation(
            argv=(*argv, *request.extra_args),
            env={**_SWITCHES, _CONTENT: json.dumps(settings)},
            stdin=prompt,
            writes=tuple(_folders(env)),
        )

    def reader(self, request: Request) -> "OpencodeReader":
        """See :class:`~run_cycle_loop.agents.adapter.Adapter`."""
        return OpencodeReader(request)

    def login(self, env: Mapping[str, str], home: Path) -> Login:
        """See :class:`~run_cycle_loop.agents.adapter.Adapter`."""
        config, data, *_ = _folders({"HOME": str(home), **env})
        if key := next((name for name in _KEYS if env.get(name)), None):
            return Login(state="yes", detail=f"{key} is set")
        logins: Any = None
        with suppress(OSError, ValueError, RecursionError):
            logins = json.loads(files.read_bounded((data / "auth.json").resolve(), _LOGINS))
        if isinstance(logins, dict) and logins:
            return Login(state="yes", detail=f"{data / 'auth.json'} holds a login")
        own = (config / "opencode.json", config / "opencode.jsonc")
        if place := next((path for path in own if path.is_file()), None):
            return Login(state="unknown", detail=f"{place} may name a provider and its key")
        return Login(state="no", detail=f"{data / 'auth.json'} holds no login and no key is set; {_SIGN_IN}")


def _folders(env: Mapping[str, str]) -> list[Path]:
    """Its own folders: of settings, of logins and sessions, of state, and the one that can be thrown away."""
    home = Path(env.get("HOME") or Path.home())
    places = {"CONFIG": ".config", "DATA": ".local/share", "STATE": ".local/state", "CACHE": ".cache"}
    named = ((env.get(f"XDG_{name}_HOME"), home / place) for name, place in places.items())
    return [(Path(given) if given else usual) / "opencode" for given, usual in named]


def _operators(env: Mapping[str, str]) -> Mapping[str, Any]:
    given = env.get(_CONTENT)
    if not given:
        return {}
    try:
        settings = json.loads(given)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{_CONTENT} cannot be read as JSON: {error}; mend it, or unset it") from error
    if not isinstance(settings, dict):
        raise ConfigError(f"{_CONTENT} must be a JSON object and begins with {given[:20]!r}; mend it, or unset it")
    return settings


class OpencodeReader:
    """Reads one run of ``opencode run --format json``, and its log beside it."""

    def __init__(self, request: Request) -> None:
        self.last_error = ""  #: of its log: why the request was tried again; empty once there is progress
        self._request = request
        self._lines = JsonLines(self._take)
        self._log = JsonLines(lambda _event: None, self._take_log)
        self._session_id: str | None = None
        self._texts: list[str] = []  #: of the last step
        self._acted = False  #: whether the last step used a tool
        self._reason: str | None = None  #: of the last step, as long as nothing came after it
        self._error: Mapping[str, Any] = {}  #: an error that no good end followed
        self._overflows = 0  #: in a row, without a tool call: it can summarize, and overflow again, for ever
        self._barren = 0
        self._tries = 0
        self._denied = ""
        self._sum = Usage()
        self._cost = 0.0
        self._steps = 0
        self._calls = 0
        self._failures = 0

    def feed(self, stream: str, chunk: bytes | memoryview) -> None:
        """See :class:`~run_cycle_loop.agents.adapter.Reader`."""
        (self._lines if stream == "stdout" else self._log).feed(chunk)

    @property
    def is_final(self) -> bool:
        """See :class:`~run_cycle_loop.agents.adapter.Reader`.

        It takes that back where it goes on after all: after a summary, or after a wait that was short.
        """
        return self._reason == "stop" or self._is_stuck

    @property
    def _is_stuck(self) -> bool:
        """Whether it would go on for ever, or sleep, where there is nothing to wait for."""
        waits = self._tries > 0 and is_limit(self.last_error)
        return waits or max(self._tries, self._overflows) >= _TRIES or self._barren >= _BARREN

    def _take(self, event: Mapping[str, Any]) -> None:
        self._session_id = text_at(event, "sessionID") or self._session_id
        self._reason = None
        part = object_at(event, "part")
        match event.get("type"):
            case "step_start":
                self._texts, self._acted = [], False
            case "text" if part.get("synthetic") is not True:
                self._texts.append(text_at(part, "text"))
            case "tool_use":
                self._take_tool(part)
            case "step_finish":
                self._take_step(part)
            case "error":
                self._error = object_at(event, "error") or {"name": "of an unknown kind"}
                self._overflows += self._error.get("name") == "ContextOverflowError"

    def _take_tool(self, part: Mapping[str, Any]) -> None:
        self._calls += 1
        self._acted = True
        self._overflows = 0
        self._progress()
        exit_code = value_at(part, "state", "metadata", "exit")
        is_bad = isinstance(exit_code, int) and exit_code != 0
        self._failures += is_bad or text_at(part, "state", "status") == "error" or part.get("tool") == "invalid"

    def _take_step(self, part: Mapping[str, Any]) -> None:
        self._reason = text_at(part, "reason")
        self._steps += 1
        told = object_at(part, "tokens")
        cached, reasoning = count_at(told, "cache", "read"), count_at(told, "reasoning")
        step = Usage(
            input_tokens=count_at(told, "input") + cached + count_at(told, "cache", "write"),
            cached_input_tokens=cached,
            output_tokens=count_at(told, "output") + reasoning,
            reasoning_tokens=reasoning,
        )
        self._sum = Usage(
            input_tokens=self._sum.input_tokens + step.input_tokens,
            cached_input_tokens=self._sum.cached_input_tokens + step.cached_input_tokens,
            output_tokens=self._sum.output_tokens + step.output_tokens,
            reasoning_tokens=self._sum.reasoning_tokens + step.reasoning_tokens,
        )
        self._cost += price_at(part, "cost") or 0.0
        # Half an answer is text too, and is asked for again and again: what counts are tokens, a tool, or a good end.
        if step.tokens or self._acted or self._reason == "stop":
            self._progress()
        else:
            self._barren += 1
        # Where it overflows again and again, the good ends are those of its summaries.
        if self._reason == "stop" and self._overflows < _TRIES:
            self._error = {}

    def _progress(self) -> None:
        self._barren = self._tries = 0
        self.last_error = ""

    def _take_log(self, line: bytes) -> None:
        self._denied = denied_permission(line) or self._denied
        if error := stream_error(line):
            self.last_error = error
            self._tries += 1

    @property
    def usage(self) -> Usage | None:
        """See :class:`~run_cycle_loop.agents.adapter.Reader`."""
        if not self._sum.tokens:
            return None
        return replace(
            self._sum,
            cost_usd=self._cost or None,
            calls=self._steps,
            complete=self._reason is not None and not self._is_stuck,
            source="step_finish of each step, at opencode's own prices",
        )

    def result(self, ended: Ended) -> AgentResult:
        """See :class:`~run_cycle_loop.agents.adapter.Reader`."""
        self._lines.close()
        self._log.close()
        text = "\n".join(filter(None, self._texts))
        return replace(
            self._judged(ended, text),
            text=text,
            usage=self.usage,
            session_id=self._session_id,
            model=self._request.model,
            tool_calls=self._calls,
            tool_failures=self._failures,
        )

    def _judged(self, ended: Ended, text: str) -> AgentResult:
        if ended.stopped is not None and not self.is_final:
            return self._stopped(ended)
        if self._error or self.last_error:
            return self._failed(ended)
        if self._barren:
            reason = f"opencode ended after {self._barren} answers in a row that were empty or cut off"
            return AgentResult(ended=AgentClass.TOOL_ERROR, reason=reason)
        if self._reason != "stop":
            return self._unfinished(ended)
        if not text.strip() and not self._calls:
            return AgentResult(ended=AgentClass.TOOL_ERROR, reason="opencode ended without an answer")
        ending, reason, payload = conclude(self._request, text, acted=self._calls > 0)
        return AgentResult(ended=ending, reason=reason, payload=payload)

    def _stopped(self, ended: Ended) -> AgentResult:
        cut_off = without_final_event(ended, Opencode.name, began=True, sign_in=_SIGN_IN)
        if not self.last_error:
            return cut_off
        return replace(cut_off, reason=one_line(f"{cut_off.reason}; before that: {self.last_error}"))

    def _unfinished(self, ended: Ended) -> AgentResult:
        if self._denied and self._reason == "tool-calls":
            return AgentResult(
                ended=AgentClass.PERMISSION_DENIED,
                reason=one_line(f"opencode ended because nobody was there to allow {self._denied}"),
                advice="allow it in opencode's own settings, or take away the rule that asks for it",
                permanent=True,
            )
        if self._reason:
            reason = f"opencode ended with a step that stopped for {self._reason!r:.40}"
            return AgentResult(ended=AgentClass.TOOL_ERROR, reason=reason)
        return without_final_event(ended, Opencode.name, began=self._session_id is not None, sign_in=_SIGN_IN)

    def _failed(self, ended: Ended) -> AgentResult:
        """By its event, which tells more; else by its log, where it was ended before it gave up."""
        name, data = text_at(self._error, "name"), object_at(self._error, "data")
        message = text_at(data, "message") or (f"opencode met an error {name}" if name else self.last_error)
        failure = judge_failure(
            f"{message}\n{text_at(data, 'responseBody')}",
            status=count_at(data, "statusCode") or (401 if name == "ProviderAuthError" else None),
            retry_after=_seconds(object_at(data, "responseHeaders")),
            now=ended.at,
            sign_in=_SIGN_IN,
        )
        return failed(failure, message)


def _seconds(headers: Mapping[str, Any]) -> float | None:
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        with suppress(ValueError):
            return float(text_at(headers, name)) * unit
    return None
