#!/usr/bin/env python3
"""Checks what a cycle of this checkout needs before it starts: one line per check, exit 0 or 1.

Standard library only, so that it can say what is missing.
"""

import argparse
import importlib.util
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OLDEST_PYTHON = (3, 11)
#: What the cycle imports; add what your own cycle needs, or name it with --require.
REQUIRED_MODULES = ("zlib", "fcntl", "run_cycle_loop.agents.planner")
OPTIONAL_MODULES: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Check:
    """One verdict."""

    name: str
    ok: bool
    detail: str
    required: bool = True

    @property
    def word(self) -> str:
        """How it shows at the beginning of its line."""
        if self.ok:
            return "ok"
        return "FAILED" if self.required else "missing"


def main() -> int:
    """0 where every required check holds."""
    options = parse()
    # The package of this checkout is the one that the cycle uses; this folder holds a script of the same name.
    sys.path.insert(0, str(ROOT))
    checks = list(all_checks(options))
    if options.json:
        print(json.dumps([asdict(check) for check in checks]))
    else:
        for check in checks:
            print(f"{check.word:<8}{check.name}: {check.detail}")
    return 0 if all(check.ok or not check.required for check in checks) else 1


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="check_run_cycle_prereqs.py", description=__doc__, allow_abbrev=False)
    parser.add_argument("--require", action="append", default=[], metavar="MODULE", help="one more module it needs")
    parser.add_argument("--optional", action="append", default=[], metavar="MODULE", help="one that is only reported")
    parser.add_argument("--json", action="store_true", help="one JSON array instead of lines")
    return parser.parse_args()


def all_checks(options: argparse.Namespace) -> Iterator[Check]:
    """Every check, whatever the others say."""
    yield python_check()
    for module in (*REQUIRED_MODULES, *options.require):
        yield module_check(module, required=True)
    for module in (*OPTIONAL_MODULES, *options.optional):
        yield module_check(module, required=False)
    yield script_check(ROOT / "scripts" / "run_cycle.sh")
    yield folder_check("state", Path(os.environ.get("RUN_CYCLE_STATE_DIR") or ROOT / "state"))
    yield folder_check("sandbox", Path(os.environ.get("RUN_CYCLE_SANDBOX_DIR") or ROOT / "sandbox"))


def python_check() -> Check:
    """The interpreter's age."""
    version = ".".join(map(str, sys.version_info[:3]))
    ok = sys.version_info >= OLDEST_PYTHON
    wanted = ".".join(map(str, OLDEST_PYTHON))
    return Check(name="python", ok=ok, detail=f"{version} at {sys.executable}" + ("" if ok else f"; needs {wanted}"))


def module_check(module: str, *, required: bool) -> Check:
    """Whether a module can be found; it is not run."""
    try:
        found = importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        found = False
    detail = "found" if found else f"not found by {sys.executable}; install it there"
    return Check(name=f"module {module}", ok=found, detail=detail, required=required)


def script_check(path: Path) -> Check:
    """Whether the cycle can be started."""
    ok = path.is_file() and os.access(path, os.X_OK)
    return Check(name="cycle script", ok=ok, detail=str(path) if ok else f"{path} is not executable; chmod +x it")


def folder_check(name: str, path: Path) -> Check:
    """Whether a folder can be written, or made; nothing is written to find out."""
    nearest = next(folder for folder in (path, *path.absolute().parents) if os.path.lexists(folder))
    if not nearest.is_dir():
        return Check(name=name, ok=False, detail=f"{nearest} is no folder; move it away")
    if not os.access(nearest, os.W_OK | os.X_OK):
        return Check(name=name, ok=False, detail=f"{nearest} is not writable for this user; change its owner or mode")
    return Check(name=name, ok=True, detail=str(path) if nearest == path else f"{path} can be made")


if __name__ == "__main__":
    sys.exit(main())
