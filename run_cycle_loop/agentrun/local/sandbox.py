"""Whether bubblewrap can make the container's paths true on this machine."""

import os
import tempfile
from collections.abc import Mapping

from run_cycle_loop.agentrun.local import mounts as places
from run_cycle_loop.agentrun.local.mounts import Mount
from run_cycle_loop.kit.printable import printable
from run_cycle_loop.kit.processes import LaunchError, Limits, locate, supervise

_PROBE = Limits(timeout=5.0, grace=0.5)
_SHOWN = 200  #: characters of its complaint


def find_bubblewrap(environ: Mapping[str, str]) -> tuple[str | None, str]:
    """The program, tried with a mount, five seconds at most; or None and why it cannot be used."""
    told = bytearray()

    def listen(stream: str, chunk: memoryview) -> None:
        if stream == "stderr" and len(told) < _SHOWN:
            told.extend(chunk[:_SHOWN])

    try:
        program = locate(("bwrap",), environ)
        with tempfile.TemporaryDirectory(prefix="run-cycle-bwrap-") as folder:
            mounts = [Mount(path=places.WORKSPACE, folder=folder)]
            root = places.bwrap_root(root_entries(), mounts, read_only=True)
            system = ("--dev-bind", "/dev", "/dev", "--bind", "/proc", "/proc")
            line = (program, *root, *system, *places.bwrap_mounts(mounts), "--", "/bin/sh", "-c", ":")
            ended = supervise(line, environ, limits=_PROBE, output=listen)
    except LaunchError:
        return None, "bubblewrap (bwrap) is not installed"
    except OSError as error:
        return None, f"bubblewrap could not be tried: {error.strerror or error}"
    if ended.exit_code == 0:
        return program, ""
    reason = printable(told.decode(errors="replace").strip().partition("\n")[0])[:_SHOWN]
    return None, f"bubblewrap does not work here ({reason or 'it was ended after five seconds'})"


def root_entries() -> list[tuple[str, str | None]]:
    """The names in ``/``, each with where it leads if it is a link."""
    with os.scandir("/") as found:
        return [(one.name, os.readlink(one.path) if one.is_symlink() else None) for one in found]  # noqa: PTH115
