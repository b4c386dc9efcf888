"""What systemd itself says about a unit file: whether it is right, and how exposed the service is."""

import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from run_cycle_loop.model.errors import ConfigError

_EXPOSURE = re.compile(r"exposure level for .*?: (\d+(?:\.\d+)?)")


def is_available() -> bool:
    """Whether systemd-analyze is installed."""
    return shutil.which("systemd-analyze") is not None


def complaints(units: Sequence[Path]) -> list[str]:
    """What ``systemd-analyze verify`` has to say about unit files; empty where all is well.

    Raises:
        ConfigError: it could not be asked.
    """
    done = _analyze("verify", "--man=no", *map(str, units))
    lines = (done.stdout + done.stderr).splitlines()
    # Units of the machine that ours pull in are judged too, but are not ours to mend.
    ours = [line for line in lines if any(unit.name in line or unit.stem in line for unit in units)]
    return ours or ([f"systemd-analyze verify failed with {done.returncode}"] if done.returncode else [])


def exposure(unit: Path) -> float:
    """The score of ``systemd-analyze security``: 0.0 nothing is exposed, 10.0 everything.

    Raises:
        ConfigError: it could not be asked, or gave no score.
    """
    done = _analyze("security", "--offline=true", "--no-pager", str(unit))
    return parse_exposure(done.stdout, unit)


def parse_exposure(report: str, unit: Path) -> float:
    """The overall score out of the report.

    Raises:
        ConfigError: there is none.
    """
    match = _EXPOSURE.search(report)
    if match is None:
        raise ConfigError(f"systemd-analyze security gave no score for {unit}: it needs systemd 250 or later")
    return float(match[1])


def _analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(["systemd-analyze", *arguments], capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ConfigError(f"cannot ask systemd-analyze: {error}; install systemd, or leave --verify out") from error
