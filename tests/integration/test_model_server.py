"""The scripted model server itself: what the agents' tests lean on."""

import http.client
import json
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.model_server.script import Script, Turn
from tests.model_server.server import ModelServer

ROOT = Path(__file__).resolve().parents[2]
_FUNCTION = {"type": "object", "properties": {"path": {}, "content": {}}}
#: Of each dialect: where it is asked, and how a tool is offered.
DIALECTS: dict[str, tuple[str, Any]] = {
    "responses": ("/v1/responses", {"type": "function", "name": "write", "parameters": _FUNCTION}),
    "completions": (
        "/v1/chat/completions",
        {"type": "function", "function": {"name": "write", "parameters": _FUNCTION}},
    ),
    "messages": ("/v1/messages?beta=true", {"name": "write", "input_schema": _FUNCTION}),
    "google": (
        "/v1beta/models/m:streamGenerateContent?alt=sse",
        {"functionDeclarations": [{"name": "write", "parametersJsonSchema": _FUNCTION}]},
    ),
}


def ask(server: ModelServer, dialect: str, *, works: bool = True, stream: bool = True) -> tuple[int, str, str]:
    """The status, the retry-after and the body of an answer."""
    path, tool = DIALECTS[dialect]
    body = {"model": "m", "stream": stream, "tools": [tool] if works else []}
    with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)) as connection:
        connection.request("POST", path, json.dumps(body), {"authorization": "Bearer canary"})
        answer = connection.getresponse()
        return answer.status, answer.headers.get("retry-after", ""), answer.read().decode()


@pytest.mark.parametrize("dialect", DIALECTS)
def test_turns_are_taken_in_order_by_requests_that_bring_tools(dialect: str) -> None:
    with ModelServer(Turn(write=("a.txt", "hello")), Turn(text="Written"), Turn(status=429, retry_after=7)) as server:
        aside = ask(server, dialect, works=False)[2]
        first, second = ask(server, dialect)[2], ask(server, dialect)[2]
        assert "A title" in aside
        assert "a.txt" in first
        assert "hello" in first
        assert "Written" in second
        assert "a.txt" not in second
        assert [ask(server, dialect)[:2] for _ in range(2)] == [(429, "7")] * 2
        assert [asked.turn for asked in server.asked] == [None, 0, 1, 2, 3]
        assert "canary" not in str([asked.as_dict() for asked in server.asked])


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("fault", ["cut", "empty"])
def test_what_ends_early_is_the_beginning_of_the_answer(dialect: str, fault: str) -> None:
    turn = Turn(text="one two three four five six seven eight nine")
    with ModelServer(replace(turn, fault=fault), turn) as server:
        status, _, body = ask(server, dialect)
        whole = ask(server, dialect)[2].replace("_2", "_1")
    assert status == 200
    assert whole.startswith(body)
    assert len(body) < len(whole)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_broken_connection_is_no_end(dialect: str, *, stream: bool) -> None:
    with ModelServer(Turn(fault="reset")) as server, pytest.raises((ConnectionError, http.client.IncompleteRead)):
        ask(server, dialect, stream=stream)


def test_who_is_left_hanging_is_let_go_at_the_end() -> None:
    with ModelServer(Turn(fault="hang")) as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
        connection.request("POST", "/v1/messages", json.dumps({"tools": [{"name": "write"}]}))
        while not server.turns:
            pass
    with closing(connection), pytest.raises(http.client.RemoteDisconnected):
        connection.getresponse()


def test_a_script_may_stand_in_a_file_and_be_served_by_hand(tmp_path: Path) -> None:
    script = tmp_path / "turns.json"
    script.write_text('[{"write": ["a.txt", "hello"], "tokens": {"input": 5}}, {"fault": "hang"}]')
    assert [turn.fault for turn in Script.from_file(script).turns] == ["", "hang"]
    argv = [sys.executable, "-m", "tests.model_server", "--script", str(script), "--requests", str(tmp_path / "asked")]
    with subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        host = process.stdout.readline().strip().removeprefix("http://")
        with closing(http.client.HTTPConnection(host, timeout=10)) as connection:
            connection.request("GET", "/v1/models")
            listed = json.load(connection.getresponse())
        process.terminate()
        assert process.wait(10) == 0
    assert listed["data"] == []
    assert json.loads((tmp_path / "asked").read_text())["path"] == "/v1/models"


@pytest.mark.parametrize("turn", [{"fault": "explode"}, {"say": "hello"}])
def test_a_word_that_a_script_does_not_know_is_refused(tmp_path: Path, turn: dict[str, str]) -> None:
    script = tmp_path / "turns.json"
    script.write_text(json.dumps([turn]))
    with pytest.raises(ValueError, match="a turn knows no"):
        Script.from_file(script)
