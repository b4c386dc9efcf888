"""``agentrun create``: a manifest from flags."""

import secrets
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from run_cycle_loop.agentrun.checks.findings import Severity
from run_cycle_loop.agentrun.manifests.creation import GUIDE_CONDITION, VolumeWish, Wish, manifest, unique_name
from run_cycle_loop.agentrun.model import DEFAULT_NAMESPACE
from run_cycle_loop.agentrun.profiles import Profile
from run_cycle_loop.kit.durations import parse_duration
from run_cycle_loop.model.errors import ConfigError


class _Seconds(click.ParamType):  # type: ignore[type-arg]  # generic only for the type checker
    """A duration as everywhere, in whole seconds."""

    name = "DURATION"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The seconds."""
        if isinstance(value, int):
            return value
        try:
            seconds = parse_duration(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)
        if seconds != int(seconds):
            self.fail(f"{value!r} is no whole number of seconds", param, ctx)
        return int(seconds)


_SECONDS = _Seconds()
_COUNT = click.IntRange(min=0)


_HELP = """Write a manifest that is valid as it stands: a single run, a fixed loop or a conditional loop.

\b
a single run         --agent coder --implementation fix-it
five iterations      ... --loop 5 --claim work --claim-size 20Gi
until it says done   ... --loop 8 --while-continue --claim work
"""


@click.command(help=_HELP)
@click.option("--name", metavar="NAME", help="The run's name; left out: --prefix with a random ending.")
@click.option("--prefix", metavar="TEXT", default="", help="Begins a name that nobody else has. [the agent's name]")
@click.option("-n", "--namespace", metavar="NAME", default=DEFAULT_NAMESPACE, show_default=True, help="Its namespace.")
@click.option("--agent", metavar="NAME", required=True, help="The Agent.")
@click.option("--implementation", metavar="NAME", default="", help="The ImplementationSpec that says what to do.")
@click.option(
    "--text", metavar="TEXT", default="", help="What to do, written into the run itself; - for standard input."
)
@click.option("--step", "steps", metavar="NAME", multiple=True, help="A step; repeatable. [implement]")
@click.option("--loop", "maximum", metavar="N", type=_COUNT, default=0, help="Repeat the last step, N times at most.")
@click.option("--loop-step", metavar="NAME", default="", help="Repeat this step instead.")
@click.option("--while", "condition", metavar="EXPR", default="", help="Another iteration only while this CEL is true.")
@click.option("--while-continue", is_flag=True, help=f"The guide's own: {GUIDE_CONDITION}")
@click.option(
    "--control-file", "control_path", metavar="PATH", default="", help="Where an iteration says so. [below the claim]"
)
@click.option(
    "--on-missing", type=click.Choice(["stop", "fail"]), default="stop", show_default=True, help="No such file."
)
@click.option(
    "--on-invalid", type=click.Choice(["stop", "fail"]), default="fail", show_default=True, help="No object in it."
)
@click.option("--claim", metavar="NAME", default="", help="The claim that iterations share.")
@click.option("--claim-size", metavar="SIZE", default="", help="Make the claim as well, of this size (20Gi).")
@click.option("--mount", metavar="PATH", default="/workspace", show_default=True, help="Where the claim is.")
@click.option(
    "--volume",
    "volumes",
    metavar="SPEC",
    multiple=True,
    help="name:emptyDir:/path or name:pvc|secret:/path:OF; repeatable.",
)
@click.option(
    "--secret", "secret_names", metavar="NAME", multiple=True, help="A Secret that the run may use; repeatable."
)
@click.option("--param", "parameters", metavar="KEY=VALUE", multiple=True, help="A parameter; repeatable.")
@click.option("--repository", metavar="OWNER/NAME", default="", help="The repository.")
@click.option("--base", metavar="BRANCH", default="main", show_default=True, help="Its base branch.")
@click.option("--head", metavar="BRANCH", default="", help="The branch to write. [codex/NAME]")
@click.option("--vcs", metavar="NAME", default="", help="The VersionControlProvider.")
@click.option(
    "--vcs-mode",
    type=click.Choice(["read-write", "read-only", "none"]),
    default="read-write",
    show_default=True,
    help="What it may do there.",
)
@click.option("--timeout", metavar="DURATION", type=_SECONDS, default=0, help="Of each attempt; 0: none.")
@click.option("--retries", metavar="N", type=_COUNT, default=0, help="Further attempts of each iteration.")
@click.option("--retry-backoff", metavar="DURATION", type=_SECONDS, default=0, help="Between them.")
@click.option("--ttl", metavar="DURATION", type=_SECONDS, help="How long the finished run is kept.")
@click.option("--idempotency-key", metavar="KEY", default="", help="Nothing with the same key runs twice.")
@click.option("--image", metavar="IMAGE", default="", help="Pin a runner image; better left to the controller.")
@click.option("--cpu", metavar="AMOUNT", default="500m", show_default=True, help="Requested.")
@click.option("--memory", metavar="AMOUNT", default="1024Mi", show_default=True, help="Requested.")
@click.option(
    "-o", "--output", metavar="FILE", type=click.Path(path_type=Path), help="Write it there; it must not exist."
)
def create(output: Path | None, **given: Any) -> int:
    """Write a manifest from flags."""
    text = manifest(_wish(**given))
    if _is_refused(text):
        return 2
    if output is None:
        click.echo(text, nl=False)
        return 0
    try:
        with output.open("x", encoding="utf-8") as stream:
            stream.write(text)
    except FileExistsError:
        raise ConfigError(f"{output} exists; name another file") from None
    except OSError as error:
        raise ConfigError(f"{output} cannot be written ({error.strerror}); name another file") from error
    click.echo(f"{output} is written; `run-cycle-loop agentrun explain -f {output}` says what it would do")
    return 0


def _is_refused(text: str) -> bool:
    """Say beside the manifest what bites in it; one that would be refused is not written."""
    from run_cycle_loop.agentrun.checks.validation import validate  # noqa: PLC0415 - a usage error needs no schemas
    from run_cycle_loop.agentrun.manifests.documents import read_bundle  # noqa: PLC0415

    found = validate(read_bundle(["-"], stdin=text.encode), profile=Profile.GUIDE)
    for one in found:
        if one.severity is not Severity.NOTE:
            click.echo(f"{one.severity}: {one.reason}: {one.path}: {one.message}; {one.cure}", err=True)
    return any(one.severity is Severity.ERROR for one in found)


def _wish(  # noqa: PLR0913 - what a manifest says
    *,
    name: str | None,
    prefix: str,
    agent: str,
    text: str,
    condition: str,
    while_continue: bool,
    mount: str,
    volumes: Sequence[str],
    steps: Sequence[str],
    secret_names: Sequence[str],
    parameters: Sequence[str],
    **same: Any,
) -> Wish:
    """The flags as the wish for a manifest; those that are called alike are handed on as they are."""
    if condition and while_continue:
        raise click.UsageError("--while and --while-continue contradict each other; give one of the two")
    return Wish(
        name=name or unique_name(prefix or agent, secrets.token_hex(4)),
        agent=agent,
        text=sys.stdin.read() if text == "-" else text,
        condition=GUIDE_CONDITION if while_continue else condition,
        mount_path=mount,
        volumes=tuple(map(_volume, volumes)),
        steps=tuple(steps) or ("implement",),
        secrets=tuple(secret_names),
        parameters=dict(map(_parameter, parameters)),
        **same,
    )


def _parameter(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise click.BadParameter(f"{text!r} is no KEY=VALUE", param_hint="--param")
    return key, value


def _volume(text: str) -> VolumeWish:
    name, kind, path, source, *more = [*text.split(":"), "", ""][:5] if text.count(":") <= 3 else ["", "", "", "", "x"]
    if not name or kind not in ("emptyDir", "pvc", "secret") or not path or any(more):
        raise click.BadParameter(
            f"{text!r} is no volume; write name:emptyDir:/path, name:pvc:/path:CLAIM or name:secret:/path:SECRET",
            param_hint="--volume",
        )
    return VolumeWish(name=name, type=kind, mount_path=path, source=source)
