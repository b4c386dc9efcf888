"""gemini (npm ``@google/gemini-cli``), driven by ``gemini --output-format stream-json``.

What must not be trusted: the exit code, which is an HTTP status modulo 256 (145 is 401, 173 is 429) and 0 after a
signal and after some errors; ``status: success``, which it gives after it has stopped a loop of its own making; stack
traces on standard error, of which it prints one for each try of a run that then goes well. It starts without any of
the tools that write where it may not use them, and then ends well. Where no model is named, it asks one which to take,
and tries that five times whatever its settings say: a minute and more before it tells of a limit. Seen with 0.61.0.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from run_cycle_loop.agents.adapter import AgentResult, Capabilities, Ended, Invocation, Login, Request
from run_cycle_loop.agents.answers import asking_for, conclude
from run_cycle_loop.agents.endings import failed, without_final_event
from run_cycle_loop.agents.failures import Failure, how_ended, judge_failure
from run_cycle_loop.agents.json_lines import JsonLines, count_at, object_at, text_at
from run_cycle_loop.kit import files
from run_cycle_loop.model.enums import AgentClass, Role
from run_cycle_loop.model.errors import ConfigError
from run_cycle_loop.model.sessions import Usage

_SIGN_IN = "run `gemini` and log in, or set GEMINI_API_KEY"
_FOLDER = "GEMINI_CLI_HOME"  #: in the place of HOME; its own folder is ``.gemini`` in it
_SETTINGS = 1 << 20  #: bytes of a settings file
_LONGEST = 16 << 20  #: characters of an answer that are kept
#: One process, which obeys signals; and no question whether the workdir is to be trusted, which nobody could answer.
_VARIABLES = {"GEMINI_CLI_NO_RELAUNCH": "true", "GEMINI_CLI_TRUST_WORKSPACE": "true"}
#: Its own tries last minutes, and it says nothing meanwhile.
_QUIET: Mapping[str, Mapping[str, Any]] = {
    "general": {"maxAttempts": 1, "enableAutoUpdate": False},
    "privacy": {"usageStatisticsEnabled": False},
}
_KEYS = ("GEMINI_API_KEY", "GOOGLE_API_KEY")
_LOGINS = ("oauth_creds.json", "gemini-credentials.json")
_COMMENTS = re.compile(r'("(?:[^"\\]|\\.)*+")|//[^\n]*+|/\*.*?\*/', re.DOTALL)
_LOOP = "loop detected"
#: Exit codes of its own, which it gives before it has asked a model.
_EXITS = {
    41: Failure(ended=AgentClass.AUTH, permanent=True, advice=_SIGN_IN),
    55: Failure(
        ended=AgentClass.PERMISSION_DENIED,
        permanent=True,
        advice="trust the workdir in gemini's own settings, or take away the rule that forbids it",
    ),
}
_TURN_LIMIT = 53


class Gemini:
    """The adapter."""

    name = "gemini"
    command: str | None = "gemini"
    capabilities = Capabilities(usage="tokens", resume=True, read_only=True)

    def invoke(self, request: Request, env: Mapping[str, str]) -> Invocation:
        """See :class:`~run_cycle_loop.agents.adapter.Adapter`."""
        schema = request.output_schema
        text = request.prompt if schema is None else asking_for(request.prompt, schema)
        prompt = request.scratch / "gemini-prompt"
        files.replace_file(prompt, text.encode("utf-8", "replace"))
        mode = "plan" if request.role is Role.READ_ONLY else "yolo"
        argv = ["gemini", "--output-format", "stream-json", "--approval-mode", mode]
        if request.model is not None:
            argv += ["--model", request.model]
        if request.session_id is not None:
            argv += ["--resume", request.session_id]
        home = _home(env)
        ours = _without_retries(home, request.scratch / "gemini-home")
        return Invocation(
            argv=(*argv, *request.extra_args),
            env={**_VARIABLES, _FOLDER: str(ours)},
            stdin=prompt,
            writes=(home / ".gemini",),
        )

    def reader(self, request: Request) -> "GeminiReader":
        """See :class:`~run_cycle_loop.agents.adapter.Adapter`."""
        return GeminiReader(request)

    def login(self, env: Mapping[str, str], home: Path) -> Login:
        """See :class:`~run_cycle_loop.agents.adapter.Adapter`."""
        place = _home({"HOME": str(home), **env}) / ".gemini"
        if key := next((name for name in _KEYS if env.get(name)), None):
            return Login(state="yes", detail=f"{key} is set")
        if login := next((path for name in _LOGINS if (path := place / name).is_file()), None):
            return Login(state="yes", detail=f"{login} exists")
        if env.get("GOOGLE_GENAI_USE_VERTEXAI") or env.get("GOOGLE_GENAI_USE_GCA"):
            return Login(state="unknown", detail="it logs in with the means of the Google cloud")
        if (place / ".env").is_file():
            return Login(state="unknown", detail=f"{place / '.env'} may hold a key")
        return Login(state="no", detail=f"neither {place / _LOGINS[0]} nor {_KEYS[0]} exists; {_SIGN_IN}")


def _home(env: Mapping[str, str]) -> Path:
    return Path(env.get(_FOLDER) or env.get("HOME") or Path.home())


def _without_retries(home: Path, folder: Path) -> Path:
    """A home like the operator's, with gemini's own retries off.

    Only root could do that by a file of the system's (gemini refuses one with a parent that others can write to).
    Everything but the settings is a link, so that a refreshed login and the sessions reach the operator's folder.
    """
    own = home / ".gemini"
    settings = _settings(own / "settings.json")
    merged = {**settings, **{name: {**object_at(settings, name), **values} for name, values in _QUIET.items()}}
    files.make_folder(own / "tmp")
    files.make_folder(folder / ".gemini")
    links = {folder / ".gemini" / entry.name: entry for entry in own.absolute().iterdir() if entry.suffix != ".lock"}
    links |= {folder / name: home.absolute() / name for name in (".env", ".agents") if (home / name).exists()}
    for link, target in links.items():
        if target.name != "settings.json" and not link.is_symlink():
            link.symlink_to(target)
    files.replace_file(folder / ".gemini" / "settings.json", json.dumps(merged).encode())
    return folder


def _settings(path: Path) -> Mapping[str, Any]:
    try:
        text = files.read_bounded(path.resolve(), _SETTINGS).decode()
        value = json.loads(_COMMENTS.sub(lambda found: found[1] or " ", text))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path} cannot be read as gemini's settings: {error}; mend it") from error
    if not isinstance(value, dict):
        raise ConfigError(f"{path} holds no object, as gemini's settings do; mend it")
    return value


class GeminiReader:
    """Reads one run of ``gemini --output-format stream-json``."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._lines = JsonLines(self._take)
        self._session_id: str | None = None
        self._model = request.model
        self._began = False
        self._result: Mapping[str, Any] = {}
        self._error = ""  #: the last error event
        self._looped = False
        self._answer: list[str] = []  #: since the last tool call
        self._length = 0
        self._calls = 0
        self._failures = 0

    def feed(self, stream: str, chunk: bytes | memoryview) -> None:
        """See :class:`~run_cycle_loop.agents.adapter.Reader`."""
        if stream == "stdout":
            self._lines.feed(chunk)

    @property
    def is_final(self) -> bool:
        """See :class:`~run_cycle_loop.agents.adapter.Reader`."""
        return bool(self._result)

    def _take(self, event: Mapping[str, Any]) -> None:
        match event.get("type"):
            case "init":
                self._began = True
                self._session_id = text_at(event, "session_id") or None
                self._model = text_at(event, "model") or self._model
            case "message" if event.get("role") == "assistant":
                self._take_text(text_at(event, "content"))
            case "tool_use":
                self._calls += 1
                self._answer, self._length = [], 0
            case "tool_result":
                self._failures += event.get("status") == "error"
            case "error":
                self._error = text_at(event, "message") or self._error
                self._looped = self._looped or self._error.lower().startswith(_LOOP)
            case "result":
                self._result = event

    def _take_text(self, text: str) -> None:
        self._length += len(text)
        if self._length <= _LONGEST:
            self._answer.append(text)

    @property
    def usage(self) -> Usage | None:
        """See :class:`~run_cycle_loop.agents.adapter.Reader`."""
        if not self._result:
            return None
        told = object_at(self._result, "stats")
        # Thoughts are told apart only in the sum of all.
        taken_in = count_at(told, "input_tokens")
        given_out = max(count_at(told, "output_tokens"), count_at(told, "total_tokens") - taken_in)
        return Usage(
            input_tokens=taken_in,
            cached_input_tokens=count_at(told, "cached"),
            output_tokens=given_out,
            reasoning_tokens=given_out - count_at(told, "output_tokens"),
            source="stats of its result",
        )

    def result(self, ended: Ended) -> AgentResult:
        """See :class:`~run_cycle_loop.agents.adapter.Reader`."""
        self._lines.close()
        return replace(
            self._judged(ended),
            text="".join(self._answer),
            usage=self.usage,
            session_id=self._session_id,
            model=self._model,
            tool_calls=self._calls,
            tool_failures=self._failures,
        )

    def _judged(self, ended: Ended) -> AgentResult:
        if not self._result:
            return self._without_result(ended)
        if self._result.get("status") != "success":
            return self._failed(ended)
        if self._looped:
            return AgentResult(
                ended=AgentClass.TOOL_ERROR, reason="gemini stopped itself: it repeated itself in a loop"
            )
        text = "".join(self._answer)
        if not text.strip() and not self._calls:
            return AgentResult(ended=AgentClass.TOOL_ERROR, reason="gemini ended without an answer")
        ending, reason, payload = conclude(self._request, text, acted=self._calls > 0)
        return AgentResult(ended=ending, reason=reason, payload=payload)

    def _failed(self, ended: Ended) -> AgentResult:
        message = text_at(self._result, "error", "message") or self._error or "gemini says no reason for its error"
        if ended.exit_code == _TURN_LIMIT:
            return AgentResult(ended=AgentClass.BUDGET, reason="gemini reached the turns that its settings allow")
        failure = judge_failure(message, status=_status(ended), retry_after=None, now=ended.at, sign_in=_SIGN_IN)
        return failed(failure, message)

    def _without_result(self, ended: Ended) -> AgentResult:
        known = _EXITS.get(ended.exit_code) if ended.exit_code is not None and ended.stopped is None else None
        if known is not None:
            return failed(known, f"gemini did not begin: {how_ended(ended)}")
        if ended.stopped is None and self._error:
            return self._failed(ended)
        return without_final_event(ended, Gemini.name, began=self._began, sign_in=_SIGN_IN)


def _status(ended: Ended) -> int | None:
    """The HTTP status that an exit code of gemini's stands for; None where it stands for none."""
    if ended.exit_code is None or not 400 <= ended.exit_code + 256 < 512:
        return None
    return ended.exit_code + 256
