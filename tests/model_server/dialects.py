"""How four families of model servers say the same: streams of events, whole answers, and errors."""

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from tests.model_server.script import Tokens, Turn

PIECES = 12  #: a text is streamed in at most so many
_SPOKEN = {
    400: "Bad request.",
    401: "Incorrect key.",
    403: "Forbidden.",
    404: "No such model.",
    429: "Too many requests.",
    500: "Internal error.",
    503: "Not available.",
    529: "Overloaded.",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Call:
    """One call of a tool, in the words of the program that offered it."""

    name: str
    arguments: Mapping[str, Any]
    freeform: str | None = None  #: for tools that take one text


class Dialect(Protocol):
    """One family's way to say it."""

    def tools(self, body: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
        """The tools that a request offers: their names and the schemas of their arguments."""
        ...

    def events(self, turn: Turn, call: Call | None, model: str, serial: int) -> Iterator[str]:
        """The stream, event by event, ready to be sent."""
        ...

    def answer(self, turn: Turn, call: Call | None, model: str, serial: int) -> Mapping[str, Any]:
        """The same at once, where no stream was asked for."""
        ...

    def error(self, turn: Turn, now: float) -> tuple[Mapping[str, str], Mapping[str, Any]]:
        """Headers and body of a refusal."""
        ...

    def limit(self) -> str:
        """The event that tells of a limit inside a stream that began well."""
        ...


def choose_call(turn: Turn, tools: Mapping[str, Mapping[str, Any]]) -> Call | None:
    """The call that does what the turn wants, with the tools that there are."""
    if turn.write is not None:
        name, content = turn.write
        if "apply_patch" in tools:
            lines = "".join(f"+{line}\n" for line in content.splitlines())
            patch = f"*** Begin Patch\n*** Add File: {name}\n{lines}*** End Patch\n"
            return Call(name="apply_patch", arguments={"input": patch}, freeform=patch)
        for tool, schema in tools.items():
            if tool.lower() in {"write", "write_file"}:
                return Call(name=tool, arguments=_written(schema, name, content))
        return _shell_call(f"printf %s {shlex.quote(content)} > {shlex.quote(name)}", tools)
    if turn.command is not None:
        return _shell_call(turn.command, tools)
    if "StructuredOutput" in tools and turn.text.startswith("{"):
        return Call(name="StructuredOutput", arguments=json.loads(turn.text))
    return None


def _written(schema: Mapping[str, Any], name: str, content: str) -> dict[str, Any]:
    known = schema.get("properties") or {}
    path = next(key for key in ("file_path", "filePath", "path") if key in known)
    return {path: name, "content": content}


def _shell_call(line: str, tools: Mapping[str, Mapping[str, Any]]) -> Call:
    for tool in ("exec_command", "shell_command", "shell", "bash", "Bash", "run_shell_command"):
        known = (tools.get(tool) or {}).get("properties") or {}
        for key in ("cmd", "command"):
            if key in known:
                value: Any = ["bash", "-c", line] if known[key].get("type") == "array" else line
                extra = {"description": "a step"} if "description" in known else {}
                return Call(name=tool, arguments={key: value, **extra})
    raise LookupError(f"no tool that runs a command among {sorted(tools)}")


def pieces(text: str) -> list[str]:
    """The text in parts."""
    size = max(8, -(-len(text) // PIECES))
    return [text[at : at + size] for at in range(0, len(text), size)]


def data(value: object, event: str = "") -> str:
    """One server-sent event."""
    named = f"event: {event}\n" if event else ""
    return f"{named}data: {json.dumps(value)}\n\n"


def _message(turn: Turn) -> str:
    if turn.kind == "plan":
        return "The usage limit has been reached."
    if turn.kind == "quota":
        return "You exceeded your current quota, please check your plan and billing details."
    return _SPOKEN.get(turn.status, "Refused.")


def _headers(turn: Turn) -> dict[str, str]:
    return {} if turn.retry_after is None else {"retry-after": str(turn.retry_after)}


class _OpenAI:
    """What the two dialects of this family share: their errors."""

    def error(self, turn: Turn, now: float) -> tuple[Mapping[str, str], Mapping[str, Any]]:
        wait = turn.retry_after or 0
        codes = {401: "invalid_api_key", 404: "model_not_found", 429: "rate_limit_exceeded"}
        code: str | None = codes.get(turn.status)
        more: dict[str, Any] = {}
        if turn.kind == "plan":
            code = "usage_limit_reached"
            more = {"plan_type": "plus", "resets_at": int(now + wait), "resets_in_seconds": wait}
        if turn.kind == "quota":
            code = "insufficient_quota"
        kind = code if turn.kind else "server_error" if turn.status >= 500 else "invalid_request_error"
        return _headers(turn), {"error": {"message": _message(turn), "type": kind, "param": None, "code": code, **more}}


class Responses(_OpenAI):
    """OpenAI's Responses."""

    def tools(self, body: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
        return {tool.get("name", tool.get("type")): tool.get("parameters") or {} for tool in body.get("tools") or ()}

    def events(self, turn: Turn, call: Call | None, model: str, serial: int) -> Iterator[str]:
        yield self._event("response.created", response={"id": f"resp_{serial}"})
        item = self._item(turn, call, serial)
        if call is None:
            begun = {**item, "status": "in_progress", "content": []}
            yield self._event("response.output_item.added", output_index=0, item=begun)
            for piece in pieces(turn.text):
                yield self._event("response.output_text.delta", item_id=item["id"], delta=piece)
        yield self._event("response.output_item.done", output_index=0, item=item)
        yield self._event("response.completed", response=self.answer(turn, call, model, serial))

    def answer(self, turn: Turn, call: Call | None, model: str, serial: int) -> Mapping[str, Any]:
        return {
            "id": f"resp_{serial}",
            "object": "response",
            "status": "completed",
            "model": model,
            "output": [self._item(turn, call, serial)],
            "usage": self._usage(turn.tokens),
        }

    def limit(self) -> str:
        error = {"code": "rate_limit_exceeded", "message": "Rate limit reached. Please try again in 3600s."}
        return self._event("response.failed", response={"id": "resp_x", "status": "failed", "error": error})

    def _event(self, kind: str, **more: object) -> str:
        return data({"type": kind, **more}, kind)

    def _item(self, turn: Turn, call: Call | None, serial: int) -> dict[str, Any]:
        if call is None:
            content = [{"type": "output_text", "text": turn.text, "annotations": []}]
            return {"type": "message", "id": f"msg_{serial}", "role": "assistant", "content": content}
        named = {"id": f"fc_{serial}", "call_id": f"call_{serial}", "name": call.name}
        if call.freeform is not None:
            return {"type": "custom_tool_call", **named, "input": call.freeform}
        return {"type": "function_call", **named, "arguments": json.dumps(call.arguments)}

    def _usage(self, tokens: Tokens) -> dict[str, Any]:
        return {
            "input_tokens": tokens.input,
            "input_tokens_details": {"cached_tokens": tokens.cached},
            "output_tokens": tokens.output,
            "output_tokens_details": {"reasoning_tokens": tokens.reasoning},
            "total_tokens": tokens.input + tokens.output,
        }


class Completions(_OpenAI):
    """OpenAI's chat completions."""

    def tools(self, body: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
        functions = [tool["function"] for tool in body.get("tools") or () if "function" in tool]
        return {function["name"]: function.get("parameters") or {} for function in functions}

    def events(self, turn: Turn, call: Call | None, model: str, serial: int) -> Iterator[str]:
        yield self._chunk(serial, model, {"role": "assistant", "content": ""})
        if call is None:
            for piece in pieces(turn.text):
                yield self._chunk(serial, model, {"content": piece})
        else:
            yield self._chunk(serial, model, {"tool_calls": [{"index": 0, **self._called(call, serial)}]})
        yield self._chunk(serial, model, {}, "stop" if call is None else "tool_calls")
        shell = {"id": f"chat_{serial}", "object": "chat.completion.chunk", "created": 0, "model": model}
        yield data({**shell, "choices": [], "usage": self._usage(turn.tokens)})
        yield "data: [DONE]\n\n"

    def answer(self, turn: Turn, call: Call | None, model: str, serial: int) -> Mapping[str, Any]:
        said = {"content": turn.text} if call is None else {"content": None, "tool_calls": [self._called(call, serial)]}
        reason = "stop" if call is None else "tool_calls"
        choice = {"index": 0, "message": {"role": "assistant", **said}, "finish_reason": reason}
        shell = {"id": f"chat_{serial}", "object": "chat.completion", "created": 0, "model": model}
        return {**shell, "choices": [choice], "usage": self._usage(turn.tokens)}

    def limit(self) -> str:
        return data({"error": {"message": "Rate limit reached.", "type": "tokens", "code": "rate_limit_exceeded"}})

    def _chunk(self, serial: int, model: str, delta: Mapping[str, Any], reason: str | None = None) -> str:
        shell = {"id": f"chat_{serial}", "object": "chat.completion.chunk", "created": 0, "model": model}
        return data({**shell, "choices": [{"index": 0, "delta": delta, "finish_reason": reason}]})

    def _called(self, call: Call, serial: int) -> dict[str, Any]:
        function = {"name": call.name, "arguments": json.dumps(call.arguments)}
        return {"id": f"call_{serial}", "type": "function", "function": function}

    def _usage(self, tokens: Tokens) -> dict[str, Any]:
        return {
            "prompt_tokens": tokens.input,
            "completion_tokens": tokens.output,
            "total_tokens": tokens.input + tokens.output,
            "prompt_tokens_details": {"cached_tokens": tokens.cached},
            "completion_tokens_details": {"reasoning_tokens": tokens.reasoning},
        }


class Messages:
    """Anthropic's messages."""

    _KINDS = {  # noqa: RUF012 - read only
        400: "invalid_request_error",
        401: "authentication_error",
        403: "permission_error",
        404: "not_found_error",
        429: "rate_limit_error",
        529: "overloaded_error",
    }

    def tools(self, body: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
        return {tool["name"]: tool.get("input_schema") or {} for tool in body.get("tools") or ()}

    def events(self, turn: Turn, call: Call | None, model: str, serial: int) -> Iterator[str]:
        whole = self.answer(turn, call, model, serial)
        begun = {**whole, "content": [], "stop_reason": None, "usage": {**whole["usage"], "output_tokens": 1}}
        yield self._event("message_start", message=begun)
        if call is None:
            yield self._event("content_block_start", index=0, content_block={"type": "text", "text": ""})
            for piece in pieces(turn.text):
                yield self._event("content_block_delta", index=0, delta={"type": "text_delta", "text": piece})
        else:
            block = {**whole["content"][0], "input": {}}
            yield self._event("content_block_start", index=0, content_block=block)
            delta = {"type": "input_json_delta", "partial_json": json.dumps(call.arguments)}
            yield self._event("content_block_delta", index=0, delta=delta)
        yield self._event("content_block_stop", index=0)
        ended = {"stop_reason": whole["stop_reason"], "stop_sequence": None}
        yield self._event("message_delta", delta=ended, usage=whole["usage"])
        yield self._event("message_stop")

    def answer(self, turn: Turn, call: Call | None, model: str, serial: int) -> Mapping[str, Any]:
        content: Sequence[Mapping[str, Any]] = [{"type": "text", "text": turn.text}]
        if call is not None:
            content = [{"type": "tool_use", "id": f"toolu_{serial}", "name": call.name, "input": call.arguments}]
        return {
            "id": f"msg_{serial}",
            "type": "message",
            "role": "assistant",
            "model": model,
            "content": content,
            "stop_reason": "end_turn" if call is None else "tool_use",
            "stop_sequence": None,
            "usage": {
                "input_tokens": turn.tokens.input - turn.tokens.cached,
                "cache_creation_input_tokens": 0,
                "cache_read_input_tokens": turn.tokens.cached,
                "output_tokens": turn.tokens.output,
            },
        }

    def error(self, turn: Turn, now: float) -> tuple[Mapping[str, str], Mapping[str, Any]]:
        headers, said = _headers(turn), _message(turn)
        if turn.kind == "plan":
            reset = str(int(now + (turn.retry_after or 0)))
            unified = "anthropic-ratelimit-unified"
            headers |= {f"{unified}-status": "rejected", f"{unified}-reset": reset}
            headers |= {f"{unified}-representative-claim": "five_hour", f"{unified}-5h-reset": reset}
            said = "This request would exceed your account's rate limit. Please try again later."
        if turn.kind == "quota":
            said = "Your credit balance is too low to access the Anthropic API."
        kind = self._KINDS.get(turn.status, "api_error")
        return headers, {"type": "error", "error": {"type": kind, "message": said}, "request_id": "req_x"}

    def limit(self) -> str:
        return self._event("error", error={"type": "rate_limit_error", "message": "Rate limit reached."})

    def _event(self, kind: str, **more: object) -> str:
        return data({"type": kind, **more}, kind)


class Google:
    """Google's generative language."""

    _WORDS = {400: "INVALID_ARGUMENT", 401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED", 404: "NOT_FOUND"}  # noqa: RUF012 - read only
    _WORDS |= {429: "RESOURCE_EXHAUSTED", 500: "INTERNAL", 503: "UNAVAILABLE"}

    def tools(self, body: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
        found: dict[str, Mapping[str, Any]] = {}
        for tool in body.get("tools") or ():
            for item in tool.get("functionDeclarations") or ():
                found[item["name"]] = item.get("parametersJsonSchema") or item.get("parameters") or {}
        return found

    def events(self, turn: Turn, call: Call | None, model: str, serial: int) -> Iterator[str]:
        for piece in pieces(turn.text) if call is None else ():
            content = {"role": "model", "parts": [{"text": piece}]}
            yield data({"candidates": [{"content": content, "index": 0}], "modelVersion": model})
        whole = self.answer(turn, call, model, serial)
        if call is None:
            ended = {"content": {"role": "model", "parts": [{"text": ""}]}, "finishReason": "STOP", "index": 0}
            whole = {**whole, "candidates": [ended]}
        yield data(whole)

    def answer(self, turn: Turn, call: Call | None, model: str, serial: int) -> Mapping[str, Any]:
        part: Mapping[str, Any] = {"text": turn.text}
        if call is not None:
            part = {"functionCall": {"id": f"call_{serial}", "name": call.name, "args": call.arguments}}
        content = {"role": "model", "parts": [part]}
        return {
            "candidates": [{"content": content, "finishReason": "STOP", "index": 0}],
            "usageMetadata": {
                "promptTokenCount": turn.tokens.input,
                "cachedContentTokenCount": turn.tokens.cached,
                "candidatesTokenCount": turn.tokens.output - turn.tokens.reasoning,
                "thoughtsTokenCount": turn.tokens.reasoning,
                "totalTokenCount": turn.tokens.input + turn.tokens.output,
            },
            "modelVersion": model,
        }

    def error(self, turn: Turn, now: float) -> tuple[Mapping[str, str], Mapping[str, Any]]:
        del now
        known = "type.googleapis.com/google.rpc"
        details: list[Mapping[str, Any]] = []
        if turn.kind:
            violation = {"quotaMetric": "requests", "quotaId": "GenerateRequestsPerDayPerProjectPerModel"}
            details += [{"@type": f"{known}.QuotaFailure", "violations": [violation]}]
        if turn.retry_after is not None:
            details += [{"@type": f"{known}.RetryInfo", "retryDelay": f"{turn.retry_after}s"}]
        status = self._WORDS.get(turn.status, "UNKNOWN")
        error = {"code": turn.status, "message": _message(turn), "status": status, "details": details}
        return _headers(turn), {"error": error}

    def limit(self) -> str:
        return data({"error": {"code": 429, "message": "Rate limit reached.", "status": "RESOURCE_EXHAUSTED"}})
