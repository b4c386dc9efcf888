"""What may stand where a regular file of ours belongs."""

import os
from pathlib import Path

OBSTACLES = ("link", "fifo", "folder")


def plant(kind: str, path: Path, victim: Path) -> None:
    """Put an obstacle at ``path``; a link leads to ``victim``, which no write may reach."""
    if kind == "link":
        path.symlink_to(victim)
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        path.mkdir()
