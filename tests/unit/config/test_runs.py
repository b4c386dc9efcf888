"""What each runner needs, and what is not meant for it."""

from pathlib import Path
from typing import Any

import pytest

from run_cycle_loop.config.settings import Settings
from run_cycle_loop.config.sources import require_cycle
from run_cycle_loop.model.errors import ConfigError

HERE = Path(__file__)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"runner": "agentrun"}, "--manifest FILE"),
        ({"runner": "agentrun", "manifest": HERE, "command": ("true",)}, "takes no command"),
        ({"runner": "agentrun", "manifest": HERE / "no"}, "does not exist"),
        ({"runner": "agentrun", "manifest": HERE, "profile": "auto"}, "guide or current"),
        ({"runner": "job"}, "--image IMAGE"),
        ({"manifest": HERE, "command": ("true",)}, "--runner agentrun"),
        ({"image": "i", "command": ("true",)}, "--runner job"),
        ({"job_template": HERE, "command": ("true",)}, "--runner job"),
    ],
)
def test_what_is_refused(values: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=r"\w") as caught:
        require_cycle(Settings.of(**values))
    assert words in str(caught.value)


@pytest.mark.parametrize(
    "values",
    [
        {"runner": "agentrun", "manifest": HERE},
        {"runner": "agentrun", "manifest": HERE.parent, "where": "cluster", "profile": "auto"},
        {"runner": "job", "image": "i"},
        {"runner": "job", "job_template": HERE, "command": ("true",)},
        {"command": ("true",)},
    ],
)
def test_what_is_complete(values: dict[str, Any]) -> None:
    require_cycle(Settings.of(**values))


@pytest.mark.parametrize(("runner", "guard"), [("script", "enforce"), ("agentrun", "off"), ("job", "off")])
def test_the_write_guard_is_for_work_in_the_workdir(runner: str, guard: str) -> None:
    assert Settings.of(runner=runner).write_guard == guard
