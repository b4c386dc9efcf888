from pathlib import Path

import pytest

from run_cycle_loop.install.verify import parse_exposure
from run_cycle_loop.model.errors import ConfigError

UNIT = Path("/etc/systemd/system/run-cycle-loop@.service")


def test_the_score_is_the_overall_one() -> None:
    report = "✗ PrivateNetwork=  0.5\n\n→ Overall exposure level for run-cycle-loop@i.service: 1.4 OK 🙂\n"
    assert parse_exposure(report, UNIT) == 1.4


def test_a_report_without_a_score_is_one_sentence() -> None:
    with pytest.raises(ConfigError, match=r"no score for .*systemd 250"):
        parse_exposure("Unknown option --offline", UNIT)
