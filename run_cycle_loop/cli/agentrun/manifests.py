"""``agentrun validate``, ``explain`` and ``render``: what a manifest says, before anything runs."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from run_cycle_loop.agentrun.checks.findings import Severity
from run_cycle_loop.agentrun.flags import UNKNOWN
from run_cycle_loop.agentrun.manifests.documents import Bundle
from run_cycle_loop.agentrun.model import AgentRun, Step, read_run
from run_cycle_loop.agentrun.names import object_name
from run_cycle_loop.agentrun.profiles import Profile
from run_cycle_loop.agentrun.rendering.payloads import payloads
from run_cycle_loop.cli.agentrun.given import bundle_of, files, json_output, one_run, runs_of, screen, show
from run_cycle_loop.cli.lenient import settings_for_looking
from run_cycle_loop.config.options import SettingsCommand, options
from run_cycle_loop.report import findings as view

_SETTINGS = ("profile", "namespace", "kubeconfig", "kube_context", "config")


def _profile(flags: dict[str, Any]) -> Profile:
    from run_cycle_loop.app.clusters import profile_of  # noqa: PLC0415 - ``auto`` alone needs a cluster

    return profile_of(settings_for_looking(flags))


@click.command(cls=SettingsCommand)
@files
@click.option("--strict", is_flag=True, help="Leave with 2 on warnings as well.")
@click.option("--quiet", is_flag=True, help="Leave out the notes.")
@json_output
@options(*_SETTINGS)
def validate(flags: dict[str, Any], *, sources: Sequence[str], strict: bool, quiet: bool, as_json: bool) -> int:
    """Check manifests without a cluster: what the API server and the controller would refuse, and what bites later.

    A bundle may hold the Agent, AgentProvider, ImplementationSpec, ConfigMaps, Secrets and claims beside the run. What
    is not in it cannot be checked, and is noted. The exit code is 2 where there is an error.
    """
    from run_cycle_loop.agentrun.checks.validation import validate as check  # noqa: PLC0415 - brings the schemas with it

    profile, bundle = _profile(flags), bundle_of(sources)
    found = check(bundle, profile=profile, flags=UNKNOWN)
    bad = {Severity.ERROR, Severity.WARNING} if strict else {Severity.ERROR}
    code = 2 if any(one.severity in bad for one in found) else 0
    if as_json:
        click.echo(json.dumps({"profile": profile, "ok": code == 0, "findings": view.as_dicts(found)}, indent=2))
        return code
    width, style = screen()
    shown = [one for one in found if not (quiet and one.severity is Severity.NOTE)]
    show([*view.lines(shown, width=width, style=style)], style)
    count = len(bundle.documents)
    checked = f"{count} {'object' if count == 1 else 'objects'}, profile {profile}"
    click.echo(view.summary(found, checked=checked))
    return code


@click.command(cls=SettingsCommand)
@files
@click.option("--run", "name", metavar="NAME", help="Only this one of several AgentRuns.")
@json_output
@options(*_SETTINGS)
def explain(flags: dict[str, Any], *, sources: Sequence[str], name: str | None, as_json: bool) -> int:
    """Say what a run would do.

    Which prompt wins and which are shadowed, how placeholders come out, where the system prompt is from and its hash,
    image, volumes, labels, the plan of each loop, the names of the Jobs, and what the other profile would do otherwise.
    """
    from run_cycle_loop.agentrun.explaining.explanation import explain as explained  # noqa: PLC0415 - as above
    from run_cycle_loop.report.explanation import lines  # noqa: PLC0415

    profile, bundle = _profile(flags), bundle_of(sources)
    found = [
        explained(read_run(one.body), bundle.resources(one.namespace), profile, UNKNOWN)
        for one in runs_of(bundle, name)
    ]
    if as_json:
        click.echo(json.dumps([one.as_json() for one in found], indent=2))
        return 0
    width, style = screen()
    for number, one in enumerate(found):
        show([*([""] if number else []), *lines(one, width)], style)
    return 0


@click.command(cls=SettingsCommand)
@files
@click.option("--run", "name", metavar="NAME", help="Which one of several AgentRuns.")
@click.option("--step", metavar="NAME", help="Only this step.")
@click.option("--diff", is_flag=True, help="Show what differs between the profiles instead; exit code 1 if anything.")
@click.option("--objects", is_flag=True, help="Print the Job and the ConfigMaps of the first attempt, as YAML.")
@click.option("--into", metavar="DIR", type=click.Path(path_type=Path), help="Write the files into this folder.")
@options(*_SETTINGS)
def render(
    flags: dict[str, Any],
    *,
    sources: Sequence[str],
    name: str | None,
    step: str | None,
    diff: bool,
    objects: bool,
    into: Path | None,
) -> int:
    """Print run.json and agent-runner.json as the controller would write them for each step."""
    bundle = bundle_of(sources)
    _, run = one_run(bundle, name)
    steps = _steps(run, step)
    if diff:
        return _show_difference(run, steps, bundle)
    profile = _profile(flags)
    if objects:
        return _show_objects(run, steps, bundle, profile)
    rendered = _payloads(run, steps, bundle, profile)
    if into is not None:
        for path in _written(rendered, into):
            click.echo(path)
        return 0
    found: Mapping[str, Any] = rendered if len(rendered) > 1 else next(iter(rendered.values()))
    click.echo(json.dumps(found, indent=2))
    return 0


def _steps(run: AgentRun, wanted: str | None) -> tuple[Step | None, ...]:
    if wanted is not None:
        found = tuple(one for one in run.steps if one.name == wanted)
        if not found:
            names = ", ".join(one.name for one in run.steps) or "none"
            raise click.BadParameter(f"there is no step {wanted!r}; the steps are: {names}", param_hint="--step")
        return found
    return run.steps if run.runtime == "workflow" and run.steps else (None,)


def _payloads(
    run: AgentRun, steps: Sequence[Step | None], bundle: Bundle, profile: Profile
) -> dict[str, dict[str, dict[str, Any]]]:
    resources = bundle.resources(run.namespace)
    found = {}
    for step in steps:
        made = payloads(run, step, resources, profile, UNKNOWN)
        found[step.name if step else run.name] = {"run.json": made.run, "agent-runner.json": made.agent_runner}
    return found


def _written(rendered: Mapping[str, Mapping[str, Any]], into: Path) -> Iterator[Path]:
    from run_cycle_loop.kit import files as kit  # noqa: PLC0415 - only who writes
    from run_cycle_loop.model.errors import ConfigError  # noqa: PLC0415

    for step, payload in rendered.items():
        folder = into / object_name(step) if len(rendered) > 1 else into
        for name, value in payload.items():
            path = folder / name
            try:
                kit.make_folder(folder)
                path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
            except OSError as error:
                raise ConfigError(f"{path} cannot be written ({error.strerror}); name another folder") from error
            yield path


def _show_difference(run: AgentRun, steps: Sequence[Step | None], bundle: Bundle) -> int:
    from difflib import unified_diff  # noqa: PLC0415 - only who asks

    before, after = (
        json.dumps(_payloads(run, steps, bundle, profile), indent=2).splitlines()
        for profile in (Profile.GUIDE, Profile.CURRENT)
    )
    lines = [*unified_diff(before, after, str(Profile.GUIDE), str(Profile.CURRENT), lineterm="", n=2)]
    _, style = screen()
    colours = {"+": "green", "-": "red", "@": "cyan"}
    show([style.paint(line, colours.get(line[:1])) for line in lines], style)
    return 1 if lines else 0


def _show_objects(run: AgentRun, steps: Sequence[Step | None], bundle: Bundle, profile: Profile) -> int:
    from run_cycle_loop.agentrun.manifests.yaml_blocks import to_yaml  # noqa: PLC0415
    from run_cycle_loop.agentrun.rendering.jobs import attempt_objects  # noqa: PLC0415

    resources = bundle.resources(run.namespace)
    texts = []
    for step in steps:
        iteration = step.iteration(1) if step else None
        made = attempt_objects(
            run, step, iteration=iteration, attempt=1, resources=resources, profile=profile, flags=UNKNOWN
        )
        texts += [to_yaml(one) for one in (*made.config_maps, made.job)]
    click.echo("---\n".join(texts), nl=False)
    return 0
