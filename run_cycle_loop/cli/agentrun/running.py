"""``agentrun run``: a manifest on this machine."""

import json
import secrets
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from run_cycle_loop.agentrun.checks.findings import Finding, Severity
from run_cycle_loop.agentrun.flags import LOCAL
from run_cycle_loop.agentrun.model import read_run
from run_cycle_loop.agentrun.profiles import Profile
from run_cycle_loop.cli.agentrun.given import bundle_of, one_run, renamed, screen, show
from run_cycle_loop.cli.lenient import settings_for_looking
from run_cycle_loop.config.options import SettingsCommand, options
from run_cycle_loop.kit.printable import printable
from run_cycle_loop.report import findings as findings_view
from run_cycle_loop.report import runs as view

if TYPE_CHECKING:
    from run_cycle_loop.agentrun.local.machine import Transition
    from run_cycle_loop.agentrun.manifests.documents import Bundle
    from run_cycle_loop.app.local_runs import LocalRuns

_SETTINGS = (
    *("profile", "strict_cluster", "namespace", "agent", "model", "isolate", "grace", "consent_guard"),
    *("agent_command", "agent_script", "agent_args", "state_dir", "config"),
)


@click.command(cls=SettingsCommand)
@click.option(
    "-f", "--file", "sources", metavar="PATH", multiple=True, help="A manifest, a folder of them, or -; repeatable."
)
@click.option("--run", "which", metavar="NAME", help="Which one of several AgentRuns.")
@click.option("--name", metavar="NAME", help="Run it under another name.")
@click.option("--unique", is_flag=True, help="Run it under its name with a random ending.")
@click.option("--resume", "resumed", metavar="NAME", help="Go on with a run whose engine is gone; instead of -f.")
@click.option(
    "--secret-dir",
    "secret_dirs",
    metavar="NAME=DIR",
    multiple=True,
    help="Take a Secret from a folder, a file for each key; repeatable.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object for each thing that happens.")
@options(*_SETTINGS)
def run(
    flags: dict[str, Any],
    *,
    sources: Sequence[str],
    which: str | None,
    name: str | None,
    unique: bool,
    resumed: str | None,
    secret_dirs: Sequence[str],
    as_json: bool,
) -> int:
    """Run a manifest on this machine: its steps, retries, loops and conditions, with processes instead of Jobs.

    Claims are folders that stay, below STATE_DIR/volumes. A run whose engine died goes on when it is given again. A
    coding agent needs a live grant: see `run-cycle-loop consent`. The exit code says what became of the run: 0
    succeeded, 1 failed, 2 refused, 3 cancelled.
    """
    from run_cycle_loop.app.attempt_agents import agent_warning  # noqa: PLC0415 - a usage error needs no engine
    from run_cycle_loop.app.local_runs import LocalRuns  # noqa: PLC0415
    from run_cycle_loop.app.runs import stops_of  # noqa: PLC0415

    if bool(sources) is bool(resumed):
        raise click.UsageError("give the manifest with -f, or the run to go on with by --resume")
    if name and unique:
        raise click.UsageError("--name and --unique contradict each other; give one of the two")
    settings = settings_for_looking(flags)
    if settings.profile == "auto":
        raise click.UsageError("--profile auto asks a cluster; here name guide or current")
    folders = dict(map(_secret_folder, secret_dirs))
    telling = _Telling(as_json=as_json)
    with ExitStack() as stack:
        if resumed:
            place = LocalRuns.of(settings, stops_of(stack))
            stack.callback(place.store.close)
            place.resume(resumed, secret_folders=folders, report=telling.tell)
            return _ending(place, resumed, telling)
        bundle = bundle_of(sources)
        document, _ = one_run(bundle, which)
        bundle, document = renamed(bundle, document, name, secrets.token_hex(4) if unique else "")
        if (code := _refused(bundle, Profile(settings.profile), as_json=as_json)) is not None:
            return code
        if warning := agent_warning(read_run(document.body), bundle, settings):
            click.echo(f"warning: {warning}", err=True)
        place = LocalRuns.of(settings, stops_of(stack), is_to_write=True)
        stack.callback(place.store.close)
        asked = read_run(document.body)
        resources = bundle.resources(asked.namespace)
        place.run(asked, resources, secret_folders=folders, report=telling.tell)
        return _ending(place.in_namespace_of(asked.namespace), asked.name, telling)


def _refused(bundle: "Bundle", profile: Profile, *, as_json: bool) -> int | None:
    """Errors are caught before anything starts."""
    from run_cycle_loop.agentrun.checks.validation import validate_for_here  # noqa: PLC0415 - brings the schemas with it

    found = validate_for_here(bundle, profile=profile, flags=LOCAL)
    errors: list[Finding] = [one for one in found if one.severity is Severity.ERROR]
    if not errors:
        return None
    if as_json:
        click.echo(json.dumps({"kind": "run.refused", "findings": findings_view.as_dicts(errors)}))
        return 2
    width, style = screen()
    show([*findings_view.lines(errors, width=width, style=style)], style)
    click.echo("nothing was started; mend this and run it again")
    return 2


def _secret_folder(text: str) -> tuple[str, Path]:
    name, equals, folder = text.partition("=")
    if not equals or not name or not folder:
        raise click.BadParameter(f"{text!r} is no NAME=DIR", param_hint="--secret-dir")
    return name, Path(folder)


def _ending(place: "LocalRuns", name: str, telling: "_Telling") -> int:
    seen = place.look(name)
    if not telling.as_json:
        width, style = screen()
        click.echo()
        show([*view.screen(seen, where=place.where, width=width, style=style, now=datetime.now().astimezone())], style)
    return seen.result.exit_code if seen.result else 1


class _Telling:
    """What happens to a run, a line for each."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json
        self._told = ""

    def tell(self, happened: "Transition") -> None:
        if self.as_json:
            event = {"at": happened.at.isoformat(), "kind": happened.kind, **happened.facts}
            click.echo(json.dumps(event, default=str))
        elif (line := _line(happened)) != self._told:
            self._told = line
            click.echo(f"{happened.at.astimezone():%H:%M:%S}  {line}")
        sys.stdout.flush()


def _line(happened: "Transition") -> str:
    facts = happened.facts
    match happened.kind:
        case "attempt.started":
            words = f"attempt {facts.get('attempt')} started, pid {facts.get('pid')}"
        case "attempt.finished":
            why = ": ".join(str(facts[key]) for key in ("reason", "message") if facts.get(key))
            words = f"attempt {facts.get('attempt')} ended with {facts.get('exit_code')}{f', {why}' if why else ''}"
        case "warning":
            words = f"note: {facts.get('message')}"
        case "run.changed" | "run.finished":
            words = _state(facts)
        case _:
            words = happened.kind.replace(".", " ")
    return printable(words)


def _state(facts: Mapping[str, Any]) -> str:
    parts = [f"run {facts.get('phase')}"]
    if facts.get("step"):
        parts.append(f"step {facts['step']} {facts.get('step_phase')}")
    if facts.get("maximum"):
        parts.append(f"iteration {facts.get('iteration')}/{facts['maximum']}")
    parts += [str(facts[key]) for key in ("stop_reason", "reason") if facts.get(key)]
    return ", ".join(parts)
