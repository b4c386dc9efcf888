"""What a reload may change while the loop runs, and what waits for a restart."""

from dataclasses import replace

from run_cycle_loop.config.settings import OPTIONS, Settings, planner_archives

#: Fields of Settings that keep their value through a reload: what is open, held or counted while the loop runs.
RESTART_ONLY: frozenset[str] = frozenset(option.name for option in OPTIONS.values() if option.restart)


def reloaded(old: Settings, new: Settings) -> tuple[Settings, list[str]]:
    """The new settings with what needs a restart kept as it was, and the keys of what would have changed there."""
    kept = [name for name in OPTIONS if name in RESTART_ONLY and getattr(old, name) != getattr(new, name)]
    values = {name: getattr(old, name) for name in kept}
    if new.archive_glob == planner_archives(new.state_dir):
        values["archive_glob"] = planner_archives(old.state_dir)
    return replace(new, **values), [OPTIONS[name].key for name in kept]
