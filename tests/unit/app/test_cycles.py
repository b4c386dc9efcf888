from pathlib import Path

import pytest

from run_cycle_loop.app.cycles import end_of, loop_id
from run_cycle_loop.clients.kubernetes.errors import (
    AlreadyExists,
    Forbidden,
    Invalid,
    KindNotServed,
    NotFound,
    Stopped,
    TooManyRequests,
    Unauthorized,
    Unreachable,
)
from run_cycle_loop.model.errors import AlreadyRunning, ConfigError, RunCycleLoopError, RunnerError, StateError


@pytest.mark.parametrize(
    ("error", "word", "permanent"),
    [
        (ConfigError("c"), "tool_error", True),
        (Invalid("i"), "tool_error", True),
        (KindNotServed("k"), "tool_error", True),
        (NotFound("no namespace"), "tool_error", True),
        (Forbidden("denied by a webhook"), "tool_error", True),
        (Forbidden("exceeded quota: pods"), "tool_error", False),
        (Unauthorized("u"), "auth", False),
        (Unreachable("u"), "tool_error", False),
        (TooManyRequests("t"), "tool_error", False),
        (AlreadyExists("a"), "tool_error", False),
        (RunnerError("r"), "tool_error", False),
        (StateError("s"), "tool_error", False),
        (AlreadyRunning("a"), "tool_error", False),
        (Stopped("s"), "interrupted", False),
    ],
)
def test_what_only_a_person_can_mend_ends_the_loop(error: RunCycleLoopError, word: str, permanent: bool) -> None:
    end = end_of(error)
    assert (end.control["class"], end.control["permanent"]) == (word, permanent)
    assert end.exit_code != 0


def test_a_loop_keeps_its_name_with_its_state(tmp_path: Path) -> None:
    first = loop_id(tmp_path / "state")
    assert first == loop_id(tmp_path / "state")
    assert first != loop_id(tmp_path / "other")
