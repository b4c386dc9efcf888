"""This process's own file descriptors: none missing below three, none handed on above."""

import contextlib
import fcntl
import os
import sys


def settle() -> None:
    """Open what is missing of 0, 1 and 2, and mark everything above close-on-exec.

    A caller may have started us with its standard streams closed (then our first file would become "stdout") or with
    descriptors of its own left open (which no child of ours shall inherit).
    """
    for number in range(3):
        try:
            fcntl.fcntl(number, fcntl.F_GETFD)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number: this one
            os.set_inheritable(number, True)  # noqa: FBT003 - the signature is the standard library's
    # Python gives None for a stream that was closed at start.
    sys.stdout = sys.stdout or os.fdopen(1, "w")
    sys.stderr = sys.stderr or os.fdopen(2, "w")
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208
        if int(name) > 2:
            with contextlib.suppress(OSError):  # the one that listed the folder is closed by now
                os.set_inheritable(int(name), False)  # noqa: FBT003
