"""The consent audit together with what it comes to, which is brought up to date with what was added since: a chain of
many nights is not worked out anew, twice for each cycle.
"""

from run_cycle_loop.policies.consent import Consent, Tally
from run_cycle_loop.stores.audit import AuditChain, Checked


class ConsentAudit(AuditChain):
    """Implements ``policies.consent.Audit``."""

    _known: tuple[Checked, Tally] | None = None  #: what this process has checked already, and what that comes to

    def standing(self, *, besides: str | None = None) -> Consent:
        """What all entries come to. Those that were checked before are compared byte by byte, the others one by one.

        Raises:
            StateError: an entry is broken, or the newest were cut off.
        """
        known, self._known = self._known, None
        if known is None or not self.begins_with(known[0]):
            known = Checked(), Tally()
        checked, tally = known
        fresh = self.entries_after(checked)
        while True:
            try:
                tally.take(next(fresh))
            except StopIteration as end:
                self._known = end.value, tally
                return tally.consent(besides=besides)
