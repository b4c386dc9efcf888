"""The guard that lets no cycle start that the budgets have no room for, and charges each one what it cost."""

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import islice
from typing import TypeVar

from run_cycle_loop.model.decisions import Continue, Decision, Halt
from run_cycle_loop.model.enums import GuardMode, StopReason
from run_cycle_loop.model.findings import GuardFinding
from run_cycle_loop.model.ports import Ledger, Settled
from run_cycle_loop.model.records import CycleRecord, CycleSpec, timestamp
from run_cycle_loop.model.spending import Account, EntryKind, LedgerEntry, Limit, Spending, Unit
from run_cycle_loop.policies import budgets
from run_cycle_loop.policies.budgets import Charge, Refusal

_N = TypeVar("_N", int, float)

_LOOK_AGAIN = 60.0  #: seconds
_KEPT_CHARGES = 10
_COUNTED_ANEW = 2000  #: records that are looked through where the ledger is gone


@dataclass(frozen=True, kw_only=True, slots=True)
class BudgetRules:
    """What the operator wants of the budgets."""

    limits: tuple[Limit, ...] = ()
    mode: GuardMode = GuardMode.ENFORCE
    waits: bool = False  #: for the next day, where that helps; else the loop ends
    estimate: Spending = field(default_factory=lambda: Spending(usd=2.0, tokens=500_000))


class BudgetGuard:
    """Implements the port ``Guard``."""

    def __init__(
        self,
        ledger: Ledger,
        rules: BudgetRules,
        *,
        run: str,
        agent: str | None,
        is_real: Callable[[str | None], bool],
        recorded: Callable[[], Iterable[CycleRecord]],
    ) -> None:
        """Read the ledger.

        Args:
            ledger: where everything is kept.
            rules: what the operator wants.
            run: names this run of the supervisor, and no other one.
            agent: what the next cycles start; None: a command of the operator's.
            is_real: whether such an agent costs something.
            recorded: the history, newest first: what there is to go by where the ledger is gone.

        Raises:
            StateError: the ledger cannot be read.
        """
        self._ledger = ledger
        self._rules = rules
        self._run = run
        self._agent = agent
        self._is_real = is_real
        found = ledger.load()
        self._measured: dict[Unit, tuple[float, ...]] = dict(found.measured)
        self._damaged = found.damaged  #: lines of the ledger that count as cycles, until a line is added after them
        self._account = found.account or _counted_anew(islice(recorded(), _COUNTED_ANEW))
        self._charges: tuple[Charge, ...] = ()  #: of this run, oldest first
        self._refused: Refusal | None = None  #: what would have kept the current cycle back, if that were enforced

    def admit(self, now: datetime) -> Decision | None:
        """Whether another cycle fits; where none does, the loop waits for the next day or ends."""
        if self._rules.mode is not GuardMode.ENFORCE:
            return None
        if limit := budgets.unheeded(self._rules.limits, self._charges):
            why = (
                f"no cycle keeps to the budget {budgets.show_limit(limit)}: the last ones all went far beyond it; "
                "raise it, or give them less to do"
            )
            return Halt(reason=StopReason.BUDGET_SPENT, why=why)
        refused = self._refusal(now, self._agent)
        if refused is None:
            return None
        if refused.until is None or not self._rules.waits:
            return Halt(reason=StopReason.BUDGET_SPENT, why=refused.why)
        left = (refused.until - now).total_seconds()
        delay = min(max(left, 0.0), _LOOK_AGAIN)
        return Continue(delay=delay, why=refused.why, until=refused.until, instead=StopReason.BUDGET_SPENT)

    def begin(self, spec: CycleSpec) -> CycleSpec:
        """Reserve what the cycle may cost; returns it with what is left for it.

        Raises:
            StateError: that cannot be noted.
        """
        day = budgets.day_of(spec.started_at)
        account = self._account_on(day)
        self._refused = self._refusal(spec.started_at, spec.agent)
        expected = self._estimate(spec.agent)
        if spec.timeout is not None and not expected.seconds:
            expected = replace(expected, seconds=spec.timeout)
        entry = LedgerEntry(
            event=EntryKind.RESERVE,
            cycle_id=spec.cycle_id,
            run=self._run,
            day=account.day,
            at=timestamp(spec.started_at),
            amount=expected,
            estimated=(Unit.USD, Unit.TOKENS, Unit.SECONDS),
        )
        self._append(entry, account)
        return self._allowed(spec, account)

    def _allowed(self, spec: CycleSpec, account: Account) -> CycleSpec:
        """The spec with what is left of the budgets; a guard that only warns cuts nothing short."""
        if self._rules.mode is not GuardMode.ENFORCE:
            return spec
        usd, tokens, seconds = (
            budgets.allowance(self._rules.limits, account, unit) for unit in (Unit.USD, Unit.TOKENS, Unit.SECONDS)
        )
        return replace(
            spec,
            allowed_usd=_least(spec.allowed_usd, usd),
            allowed_tokens=_least(spec.allowed_tokens, None if tokens is None else int(tokens)),
            allowed_seconds=_least(spec.allowed_seconds, seconds),
        )

    def settle(self, spec: CycleSpec, record: CycleRecord, *, launched: bool) -> Settled:
        """Charge what the cycle cost in place of what was reserved; nothing where it was not launched.

        Raises:
            StateError: that cannot be noted.
        """
        is_real = self._is_real(spec.agent)
        made = budgets.charge(record, self._estimate(spec.agent), is_real=is_real) if launched else None
        reserved = self._account.open.get(spec.cycle_id)
        entry = LedgerEntry(
            event=EntryKind.CHARGE,
            cycle_id=spec.cycle_id,
            run=self._run,
            day=reserved.day if reserved else self._account_on(budgets.day_of(spec.started_at)).day,
            at=record.finished_at,
            amount=made.amount if made else Spending(),
            estimated=made.estimated if made else (),
            measured=made.measured if made else (),
        )
        self._append(entry, self._account)
        if made is None:
            return Settled()
        self._remember(made)
        return Settled(findings=tuple(self._findings(made)), changes={"charged": made.as_dict()})

    def _findings(self, made: Charge) -> Iterable[GuardFinding]:
        sentences = budgets.overspent(self._rules.limits, self._account, made)
        if self._refused and self._rules.mode is GuardMode.WARN:
            sentences.insert(0, self._refused.why)
        if self._rules.mode is not GuardMode.OFF:
            for sentence in sentences:
                yield GuardFinding(guard="budget", mode=self._rules.mode, ok=False, detail=sentence)

    # --- the account -----------------------------------------------------------------------------------------------

    def _append(self, entry: LedgerEntry, account: Account) -> None:
        after = account.after(entry)
        self._ledger.append(entry, after)
        # Not before it is durable: an attempt that failed is made again, from here.
        self._account, self._damaged = after, 0

    def _account_on(self, day: str) -> Account:
        """The account of that day and this run; what cannot be read in the ledger counts with what it may have been."""
        account = self._account.on(day).of_run(self._run)
        if not self._damaged:
            return account
        return account.adding(self._estimate(self._agent).times(self._damaged))

    def _estimate(self, agent: str | None) -> Spending:
        return budgets.estimate(self._measured, self._rules.limits, self._rules.estimate, is_real=self._is_real(agent))

    def _refusal(self, now: datetime, agent: str | None) -> Refusal | None:
        limits = self._rules.limits
        need = budgets.needed(self._estimate(agent), limits)
        return budgets.refusal(limits, self._account_on(budgets.day_of(now)), need, now)

    def _remember(self, made: Charge) -> None:
        self._charges = (*self._charges, made)[-_KEPT_CHARGES:]
        for unit in made.measured:
            self._measured[unit] = (made.amount.of(unit), *self._measured.get(unit, ()))[: budgets.SAMPLES]


def _least(first: _N | None, second: _N | None) -> _N | None:
    return min((value for value in (first, second) if value is not None), default=None)


def _counted_anew(newest_first: Iterable[CycleRecord]) -> Account:
    """The account by the history alone: the day of the newest record, as far as its records tell."""
    account = Account()
    for record in newest_first:
        try:
            day = budgets.day_of(datetime.fromisoformat(record.started_at or record.timestamp))
        except ValueError:
            continue
        if account.day and day != account.day:
            break
        account = account.on(day)
        with suppress(ValueError):
            account = replace(account, today=account.today.plus(_charged(record.charged)))
    return account


def _charged(charged: Mapping[str, object] | None) -> Spending:
    return Spending.from_dict(charged or {})
