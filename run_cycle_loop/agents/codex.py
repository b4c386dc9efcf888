"""codex (npm ``@openai/codex``), driven by ``codex exec --json``.

What must not be trusted: an ``error`` item is no failure and neither is a lone ``error`` event (it says that codex
tries again); only ``turn.failed`` is. A failure is told in prose alone. The file of the last message is made empty at
the start and stays empty where there is no result. Its sums are of the whole thread, and only a good turn prints them.
A command that its own sandbox refused may be told nowhere.
"""

import json
import tomllib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from run_cycle_loop.agents.adapter import AgentResult, Capabilities, Ended, Invocation, Login, Request
from run_cycle_loop.agents.answers import conclude
from run_cycle_loop.agents.codex_threads import Thread, Totals
from run_cycle_loop.agents.endings import failed, without_final_event
from run_cycle_loop.agents.failures import judge_failure, one_line
from run_cycle_loop.agents.json_lines import JsonLines, object_at, text_at
from run_cycle_loop.kit import files
from run_cycle_loop.model.enums import AgentClass, Role
from run_cycle_loop.model.errors import ConfigError
from run_cycle_loop.model.sessions import Usage

_SIGN_IN = "run `codex login`, or set the key that its model provider names"
_LONGEST_PROMPT = 1 << 20  #: characters; codex refuses more
_SETTINGS = 1 << 20  #: bytes of a settings file
_ANSWER = 16 << 20  #: bytes of a last message
_LAST_MESSAGE = "codex-last-message"
_SESSION = "codex-session.json"
_NO_TOOLS = frozenset({"agent_message", "reasoning", "error", "todo_list"})
#: Without a network the telemetry holds the exit for 5 s, plug-ins are looked up, and a refused connection is tried for
#: ever. All three are safe to switch off whichever provider is in use. A feature that another version does not know is
#: passed over as a setting; as ``--disable`` it would be an error.
_QUIET = (
    *("-c", "analytics.enabled=false", "-c", "features.plugins=false"),
    *("-c", "features.unbounded_connection_retries=false"),
)


class Codex:
    """The adapter."""

    name = "codex"
    command: str | None = "codex"
    capabilities = Capabilities(usage="tokens", schema=True, resume=True, read_only=True)

    def invoke(self, request: Request, env: Mapping[str, str]) -> Invocation:
        """See :class:`~run_cycle_loop.agents.adapter.Adapter`."""
        if len(request.prompt) > _LONGEST_PROMPT:
            raise ConfigError(
                f"the prompt has {len(request.prompt)} characters and codex takes {_LONGEST_PROMPT}; shorten it"
            )
        home = _home(env)
        before = Thread(home, request.session_id).totals(insist=True) if request.session_id else None
        settings = _settings(home)
        model = request.model or text_at(settings, "model")
        handed_on = {"home": str(home), "model": model, "before": before.as_dict() if before else {}}
        prompt = _put(request.scratch / "codex-prompt", request.prompt)
        last = request.scratch / _LAST_MESSAGE
        files.unlink_quietly(last)  # of an earlier session
        _put(request.scratch / _SESSION, json.dumps(handed_on))
        argv = ["codex", "exec", "--json", "--skip-git-repo-check", "-C", str(request.workdir)]
        argv += ["--sandbox", _sandbox(request), "-o", str(last), *_QUIET]
        argv += _no_retries(settings, request.extra_args)
        if request.model is not None:
            argv += ["--model", request.model]
        if request.output_schema is not None:
            schema = json.dumps(request.output_schema)
            argv += ["--output-schema", str(_put(request.scratch / "codex-schema.json", schema))]
        argv += request.extra_args
        argv += ["resume", request.session_id] if request.session_id else []
        return Invocation(argv=(*argv, "-"), stdin=prompt, writes=(home,))

    def reader(self, request: Request) -> "CodexReader":
        """See :class:`~run_cycle_loop.agents.adapter.Adapter`."""
        return CodexReader(request)

    def login(self, env: Mapping[str, str], home: Path) -> Login:
        """See :class:`~run_cycle_loop.agents.adapter.Adapter`."""
        place = _home({"HOME": str(home), **env})
        try:
            settings = _settings(place)
        except ConfigError as error:
            return Login(state="unknown", detail=str(error))
        provider = settings.get("model_provider")
        own = object_at(settings, "model_providers", provider) if isinstance(provider, str) else {}
        if own and own.get("requires_openai_auth") is not True:
            return _login_of_provider(text_at(own, "env_key"), env)
        if env.get("CODEX_API_KEY"):
            return Login(state="yes", detail="CODEX_API_KEY is set")
        if settings.get("cli_auth_credentials_store") in {"keyring", "auto"}:
            return Login(state="unknown", detail="its login is kept in a key ring; ask with `codex login status`")
        if (place / "auth.json").is_file():
            return Login(state="yes", detail=f"{place / 'auth.json'} exists")
        return Login(state="no", detail=f"neither {place / 'auth.json'} nor CODEX_API_KEY exists; {_SIGN_IN}")


def _login_of_provider(key: str, env: Mapping[str, str]) -> Login:
    if not key:
        return Login(state="unknown", detail="its model provider names no key")
    if env.get(key):
        return Login(state="yes", detail=f"{key} is set, which its model provider asks for")
    return Login(state="no", detail=f"its model provider asks for {key}, which is not set; set it")


def _home(env: Mapping[str, str]) -> Path:
    named = env.get("CODEX_HOME")
    return Path(named) if named else Path(env.get("HOME") or Path.home()) / ".codex"


def _settings(home: Path) -> dict[str, Any]:
    path = home / "config.toml"
    try:
        # The operator may keep it elsewhere behind a link.
        return tomllib.loads(files.read_bounded(path.resolve(), _SETTINGS).decode())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read as codex's settings: {error}; mend it") from error


def _no_retries(settings: Mapping[str, Any], extra: tuple[str, ...]) -> list[str]:
    """Switches for a provider of the operator's own: codex lets nobody set them for those that it brings along."""
    provider = settings.get("model_provider")
    for argument in extra:
        key, _, value = argument.partition("=")
        provider = value.strip().strip("\"'") if key.strip() == "model_provider" else provider
    if not isinstance(provider, str) or not object_at(settings, "model_providers", provider):
        return []
    table = f"model_providers.{json.dumps(provider) if '.' in provider else provider}"
    return [part for key in ("request_max_retries", "stream_max_retries") for part in ("-c", f"{table}.{key}=0")]


def _sandbox(request: Request) -> str:
    """Its own, but for within ours: there it could not set one up, and none of its commands would run."""
    if request.isolated:
        return "danger-full-access"
    return "read-only" if request.role is Role.READ_ONLY else "workspace-write"


def _put(path: Path, text: str) -> Path:
    files.replace_file(path, text.encode("utf-8", "replace"))
    return path


class CodexReader:
    """Reads one run of ``codex exec --json``."""

    def __init__(self, request: Request) -> None:
        self.is_final = False
        self._request = request
        self._lines = JsonLines(self._take)
        self._thread: Thread | None = None
        self._thread_id: str | None = None
        self._home: Path | None = None
        self._model = request.model
        self._before = Totals()
        self._told: Totals | None = None
        self._began = False
        self._error: str | None = None
        self._trouble = ""  #: why it tries again, while it does
        self._text = ""
        self._open: set[str] = set()
        self._calls = 0
        self._failures = 0
        self._prepare()

    def _prepare(self) -> None:
        """What ``invoke`` left for the reader; without it, only what codex prints is known."""
        try:
            told = json.loads(files.read_bounded(self._request.scratch / _SESSION, _SETTINGS))
        except (OSError, ValueError):
            return
        self._home = Path(text_at(told, "home"))
        self._model = text_at(told, "model") or None
        self._before = Totals.of(object_at(told, "before"))

    def feed(self, stream: str, chunk: bytes | memoryview) -> None:
        """See :class:`~run_cycle_loop.agents.adapter.Reader`."""
        if stream == "stdout":
            self._lines.feed(chunk)

    def _take(self, event: Mapping[str, Any]) -> None:
        match event.get("type"):
            case "thread.started":
                self._thread_id = text_at(event, "thread_id") or None
                if self._home is not None and self._thread_id:
                    self._thread = Thread(self._home, self._thread_id)
            case "turn.started":
                self._began = True
            case "error":
                self._trouble = text_at(event, "message")
            case "item.started" | "item.completed" as what:
                self._take_item(object_at(event, "item"), done=what == "item.completed")
            case "turn.completed":
                self._told = Totals.of(object_at(event, "usage"))
                self._error = None
                self.is_final = True
            case "turn.failed":
                self._error = text_at(event, "error", "message") or "the turn failed, and codex says no reason"
                self.is_final = True

    def _take_item(self, item: Mapping[str, Any], *, done: bool) -> None:
        kind = text_at(item, "type")
        self._trouble = self._trouble if kind == "error" else ""
        if kind == "agent_message" and done:
            self._text = text_at(item, "text")
        if not kind or kind in _NO_TOOLS:
            return
        name = text_at(item, "id")
        if name not in self._open:
            self._calls += 1
        if not done:
            self._open.add(name)
            return
        self._open.discard(name)
        self._failures += text_at(item, "status") in {"failed", "declined"}

    @property
    def usage(self) -> Usage | None:
        """See :class:`~run_cycle_loop.agents.adapter.Reader`."""
        if self._told is not None:
            return self._told.usage_since(self._before, complete=True, source="turn.completed")
        totals = self._thread.totals() if self._thread is not None else None
        if totals is None or totals == self._before:
            return None
        return totals.usage_since(self._before, complete=False, source="token_count events of the thread's file")

    def result(self, ended: Ended) -> AgentResult:
        """See :class:`~run_cycle_loop.agents.adapter.Reader`."""
        self._lines.close()
        if self._thread is not None:
            self._thread.totals(insist=True)
        return replace(
            self._judged(ended),
            usage=self.usage,
            session_id=self._thread_id,
            model=self._model,
            tool_calls=self._calls,
            tool_failures=self._failures,
        )

    def _judged(self, ended: Ended) -> AgentResult:
        if not self.is_final:
            result = without_final_event(ended, Codex.name, began=self._began, sign_in=_SIGN_IN)
            return (
                replace(result, reason=f"{result.reason}; it said: {one_line(self._trouble)}")
                if self._trouble
                else result
            )
        if self._error is not None:
            failure = judge_failure(self._error, status=None, retry_after=None, now=ended.at, sign_in=_SIGN_IN)
            return replace(failed(failure, self._error), text=self._text)
        text = self._last_message()
        if not text.strip():
            return AgentResult(ended=AgentClass.TOOL_ERROR, reason="codex ended its turn without an answer")
        ending, reason, payload = conclude(self._request, text, acted=self._calls > 0)
        return AgentResult(ended=ending, reason=reason, text=text, payload=payload)

    def _last_message(self) -> str:
        """From the file, for an earlier message of the same turn is no result; where it is gone, the last one seen."""
        try:
            return files.read_bounded(self._request.scratch / _LAST_MESSAGE, _ANSWER).decode("utf-8", "replace")
        except (OSError, ValueError):
            return self._text
