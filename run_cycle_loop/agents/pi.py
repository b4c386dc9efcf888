"""pi (npm ``@mariozechner/pi-coding-agent``), driven by ``pi -p --mode json``.

What must not be trusted: exit 0, which it gives whatever the server did; ``stop`` as the reason of a message that holds
neither text nor a tool call; ``agent_end``, which repeats the messages and their usage, and after which a compaction
or another try may follow. Each update repeats the message so far, so that 2 MB of answer are 22 MB of output.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from run_cycle_loop.agents.adapter import AgentResult, Capabilities, Ended, Invocation, Login, Request
from run_cycle_loop.agents.answers import asking_for, conclude
from run_cycle_loop.agents.endings import failed, without_final_event
from run_cycle_loop.agents.failures import judge_failure
from run_cycle_loop.agents.json_lines import JsonLines, count_at, object_at, objects_at, price_at, text_at
from run_cycle_loop.kit import files
from run_cycle_loop.model.enums import AgentClass, Role
from run_cycle_loop.model.errors import ConfigError
from run_cycle_loop.model.sessions import Usage

_SIGN_IN = "run `pi` and give it `/login`, or set the key of its model provider"
_SETTINGS = 1 << 20  #: bytes of a settings file
_FOLDER = "PI_CODING_AGENT_DIR"
_READING_TOOLS = "read,grep,find,ls"
_KEYS = (
    *("ANTHROPIC_API_KEY", "ANTHROPIC_OAUTH_TOKEN", "OPENAI_API_KEY", "AZURE_OPENAI_API_KEY", "DEEPSEEK_API_KEY"),
    *("GEMINI_API_KEY", "GROQ_API_KEY", "CEREBRAS_API_KEY", "XAI_API_KEY", "FIREWORKS_API_KEY", "OPENROUTER_API_KEY"),
    *("AI_GATEWAY_API_KEY", "ZAI_API_KEY", "MISTRAL_API_KEY", "MINIMAX_API_KEY", "MOONSHOT_API_KEY"),
    *("OPENCODE_API_KEY", "KIMI_API_KEY", "CLOUDFLARE_API_KEY", "XIAOMI_API_KEY", "AWS_BEARER_TOKEN_BEDROCK"),
)


class Pi:
    """The adapter."""

    name = "pi"
    command: str | None = "pi"
    capabilities = Capabilities(usage="tokens and usd", resume=True, read_only=True)

    def invoke(self, request: Request, env: Mapping[str, str]) -> Invocation:
        """See :class:`~run_cycle_loop.agents.adapter.Adapter`."""
        home = _home(env)
        schema = request.output_schema
        text = request.prompt if schema is None else asking_for(request.prompt, schema)
        prompt = request.scratch / "pi-prompt"
        files.replace_file(prompt, text.encode("utf-8", "replace"))
        argv = ["pi", "-p", "--mode", "json", "--offline"]
        if request.role is Role.READ_ONLY:
            argv += ["--tools", _READING_TOOLS]
        if request.model is not None:
            argv += ["--model", request.model]
        if request.session_id is not None:
            argv += ["--session", request.session_id]
        folder = _without_retries(home, request.scratch / "pi-agent")
        return Invocation(argv=(*argv, *request.extra_args), env={_FOLDER: str(folder)}, stdin=prompt, writes=(home,))

    def reader(self, request: Request) -> "PiReader":
        """See :class:`~run_cycle_loop.agents.adapter.Adapter`."""
        return PiReader(request)

    def login(self, env: Mapping[str, str], home: Path) -> Login:
        """See :class:`~run_cycle_loop.agents.adapter.Adapter`."""
        place = _home({"HOME": str(home), **env})
        if key := next((name for name in _KEYS if env.get(name)), None):
            return Login(state="yes", detail=f"{key} is set")
        try:
            logins, models = _json(place / "auth.json"), _json(place / "models.json")
        except ConfigError as error:
            return Login(state="unknown", detail=str(error))
        if logins:
            return Login(state="yes", detail=f"{place / 'auth.json'} holds a login")
        if object_at(models, "providers"):
            return Login(state="unknown", detail=f"{place / 'models.json'} names providers of its own")
        return Login(state="no", detail=f"{place / 'auth.json'} holds no login and no key is set; {_SIGN_IN}")


def _home(env: Mapping[str, str]) -> Path:
    named = env.get(_FOLDER)
    home = Path(env.get("HOME") or Path.home())
    if not named:
        return home / ".pi" / "agent"
    return home / named[2:] if named.startswith("~/") else Path(named)


def _json(path: Path) -> dict[str, Any]:
    try:
        # The operator may keep it elsewhere behind a link.
        found = json.loads(files.read_bounded(path.resolve(), _SETTINGS))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path} cannot be read as one of pi's settings: {error}; mend it") from error
    return found if isinstance(found, dict) else {}


def _without_retries(home: Path, folder: Path) -> Path:
    """A folder like the operator's, with pi's own retries off: they sleep as long as a server says, and say nothing.

    Everything in it but the settings is a link, so that a refreshed login and the sessions reach the operator's folder.
    """
    settings = _json(home / "settings.json")
    retry = object_at(settings, "retry")
    retry = {**retry, "enabled": False, "provider": {**object_at(retry, "provider"), "maxRetries": 0}}
    files.make_folder(home / "sessions")
    files.make_folder(folder)
    for name in {entry.name for entry in home.iterdir()} | {"auth.json"}:
        link = folder / name
        # Locks are of the moment, and threads of an old version would be moved by pi together with their links.
        if name != "settings.json" and not name.endswith((".lock", ".jsonl", ".tmp")) and not link.is_symlink():
            link.symlink_to(home.absolute() / name)
    files.replace_file(folder / "settings.json", json.dumps({**settings, "retry": retry}).encode())
    return folder


class PiReader:
    """Reads one run of ``pi -p --mode json``."""

    def __init__(self, request: Request) -> None:
        self.is_final = False
        self._request = request
        self._lines = JsonLines(self._take)
        self._session_id: str | None = None
        self._last: Mapping[str, Any] = {}  #: the last message of the assistant
        self._messages = 0  #: of the assistant: one for each request to a model
        self._sum = Usage()
        self._cost = 0.0
        self._began = False
        self._calls = 0
        self._failures = 0

    def feed(self, stream: str, chunk: bytes | memoryview) -> None:
        """See :class:`~run_cycle_loop.agents.adapter.Reader`."""
        if stream == "stdout":
            self._lines.feed(chunk)

    def _take(self, event: Mapping[str, Any]) -> None:
        match event.get("type"):
            case "session":
                self._session_id = text_at(event, "id") or None
            case "agent_start" | "compaction_start" | "auto_retry_start":
                self._began = True
                self.is_final = False
            case "agent_end":
                self.is_final = True
            case "compaction_end":
                self.is_final = event.get("willRetry") is not True
            case "message_end" if text_at(event, "message", "role") == "assistant":
                self._take_message(object_at(event, "message"))
            case "tool_execution_start":
                self._calls += 1
            case "tool_execution_end":
                self._failures += event.get("isError") is True

    def _take_message(self, message: Mapping[str, Any]) -> None:
        self._last = message
        self._messages += 1
        told = object_at(message, "usage")
        cached = count_at(told, "cacheRead")
        self._sum = replace(
            self._sum,
            input_tokens=self._sum.input_tokens + count_at(told, "input") + cached + count_at(told, "cacheWrite"),
            cached_input_tokens=self._sum.cached_input_tokens + cached,
            output_tokens=self._sum.output_tokens + count_at(told, "output"),
        )
        self._cost += price_at(told, "cost", "total") or 0.0

    @property
    def usage(self) -> Usage | None:
        """See :class:`~run_cycle_loop.agents.adapter.Reader`."""
        if not self._sum.tokens:
            return None
        return replace(
            self._sum,
            cost_usd=self._cost or None,
            calls=self._messages,
            complete=self.is_final and not self._is_cut_off(),
            source="message_end of each message, at pi's own prices",
        )

    def result(self, ended: Ended) -> AgentResult:
        """See :class:`~run_cycle_loop.agents.adapter.Reader`."""
        self._lines.close()
        return replace(
            self._judged(ended),
            usage=self.usage,
            session_id=self._session_id,
            model=text_at(self._last, "model") or self._request.model,
            tool_calls=self._calls,
            tool_failures=self._failures,
        )

    def _judged(self, ended: Ended) -> AgentResult:
        if not self.is_final:
            return without_final_event(ended, Pi.name, began=self._began, sign_in=_SIGN_IN)
        text = "".join(
            text_at(part, "text") for part in objects_at(self._last, "content") if part.get("type") == "text"
        )
        stop = text_at(self._last, "stopReason")
        if stop == "stop" and text.strip():
            if self._is_cut_off():
                return AgentResult(
                    ended=AgentClass.TOOL_ERROR, reason="pi's answer broke off: its message has no usage", text=text
                )
            ending, reason, payload = conclude(self._request, text, acted=self._calls > 0)
            return AgentResult(ended=ending, reason=reason, text=text, payload=payload)
        if stop == "error":
            told = text_at(self._last, "errorMessage") or "pi says no reason for its error"
            failure = judge_failure(told, status=None, retry_after=None, now=ended.at, sign_in=_SIGN_IN)
            return replace(failed(failure, told), text=text)
        reason = _UNFINISHED.get(stop, f"pi ended with a message that stopped for {stop!r:.40}")
        return AgentResult(ended=AgentClass.TOOL_ERROR, reason=reason, text=text)

    def _is_cut_off(self) -> bool:
        """Whether the last message came without its usage, which ends a stream, though others came with theirs."""
        return self._sum.tokens > 0 and not any(count_at(self._last, "usage", name) for name in ("input", "output"))


_UNFINISHED = {
    "": "pi ended without an answer",
    "stop": "pi ended with an empty answer",
    "length": "pi's answer was cut off at the longest that its model may give",
    "toolUse": "pi ended before it had used the tools that it wanted",
    "aborted": "pi's last message was aborted",
}
