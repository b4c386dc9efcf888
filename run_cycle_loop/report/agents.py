"""The agents as they are on this machine, as a table for people."""

from collections.abc import Iterable, Iterator

from run_cycle_loop.agents.discovery import Found
from run_cycle_loop.report.text import Style, columns, pad

_HEAD = ("agent", "version", "login", "can do", "path")
_NOT_INSTALLED = "not installed"
_COLOURS = {"yes": "green", "no": "red"}


def table(found: Iterable[Found], *, default: str, width: int, style: Style) -> Iterator[str]:
    """A header, a line for each agent, and below them what was not as it should be.

    Args:
        found: the agents.
        default: the one that a loop takes where none is named; it is marked.
        width: columns of the terminal; the path gets what is left of them, the rest is cut off.
        style: what the terminal shows.
    """
    agents = list(found)
    rows = [_cells(agent, default) for agent in agents]
    widths = [max(columns(row[at]) for row in (_HEAD, *rows)) for at in range(len(_HEAD) - 1)]
    yield style.paint(style.fit(_line(_HEAD, widths), width).rstrip(), bold=True)
    for agent, row in zip(agents, rows, strict=True):
        line = style.fit(_line(row, widths), width).rstrip()
        yield _painted(line, row[2], widths, style) if agent.usable else style.paint(line, dim=True)
    yield ""
    yield style.fit(f"* {default} is what the cycle script takes where --agent names none.", width)
    for agent in agents:
        if agent.usable and agent.login is not None and agent.login.state == "no":
            yield from style.wrap(f"{agent.name}: {agent.login.detail}", width)
        if agent.trouble:
            yield from style.wrap(f"{agent.name}: {agent.trouble}", width)


def _cells(agent: Found, default: str) -> tuple[str, ...]:
    name = f"{agent.name}{'*' if agent.name == default else ''}"
    return name, _version(agent), _login(agent), _abilities(agent), agent.path or ""


def _version(agent: Found) -> str:
    if agent.kind != "program":
        return agent.kind
    return (agent.version or "unknown") if agent.usable else _NOT_INSTALLED


def _login(agent: Found) -> str:
    return agent.login.state if agent.usable and agent.login is not None else ""


def _abilities(agent: Found) -> str:
    can = agent.capabilities
    if can is None:
        return ""
    told = "" if can.usage == "none" else f"tells {can.usage}"
    words = (told, "schema" if can.schema else "", "resume" if can.resume else "", "read-only" if can.read_only else "")
    return ", ".join(filter(None, words))


def _line(cells: Iterable[str], widths: list[int]) -> str:
    *first, last = cells
    return "  ".join((*map(pad, first, widths), last))


def _painted(line: str, state: str, widths: list[int], style: Style) -> str:
    """The line with its login in a colour, where that part was not cut off."""
    at = widths[0] + widths[1] + 4
    if state not in _COLOURS or line[at : at + len(state)] != state:
        return line
    return line[:at] + style.paint(state, _COLOURS[state]) + line[at + len(state) :]
