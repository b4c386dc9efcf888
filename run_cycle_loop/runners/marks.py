"""How what a cycle starts elsewhere is told apart: its name, and the labels that say whose it is."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass

from run_cycle_loop.model.errors import ConfigError

LABEL_LOOP = "run-cycle-loop/loop"
LABEL_CYCLE = "run-cycle-loop/cycle"

_LONGEST = 39  #: characters; up to here no controller has to shorten the names that it derives
_OF_CYCLE = 12  #: characters of the cycle's id that a name ends in: enough for no two to be alike, ever
_CYCLE_ID = re.compile(r"[0-9a-f]{8,63}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Marks:
    """Whose something is."""

    loop: str  #: of one state directory on one machine
    cycle: str  #: the cycle's id, which is also the key that nothing is started twice under

    @property
    def labels(self) -> Mapping[str, str]:
        """As they stand on objects."""
        return {LABEL_LOOP: self.loop, LABEL_CYCLE: self.cycle}

    def name(self, base: str) -> str:
        """A name for what this cycle starts, from that of what it is made of; always the same one."""
        word = re.sub(r"[^a-z0-9]+", "-", base.lower()).strip("-") or "cycle"
        return f"{word[: _LONGEST - _OF_CYCLE - 1].rstrip('-')}-{self.cycle[:_OF_CYCLE]}"


def marks(*, host: str, state_dir: str, cycle_id: str) -> Marks:
    """The marks of one cycle.

    Args:
        host: the machine's name.
        state_dir: the loop's state directory; absolute.
        cycle_id: as the loop made it.

    Raises:
        ConfigError: there is no cycle's id, or none that a label can hold.
    """
    if _CYCLE_ID.fullmatch(cycle_id) is None:
        raise ConfigError(
            f"RUN_CYCLE_ID is {cycle_id!r:.80}, no id that a loop gives; `run-cycle-loop run` starts this command"
        )
    digest = hashlib.sha256(f"{host}\0{state_dir}".encode()).hexdigest()
    return Marks(loop=digest[:16], cycle=cycle_id)


#: For a look at what a cycle would be.
NOBODY = Marks(loop="0" * 16, cycle="0" * 32)
