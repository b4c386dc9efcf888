"""``run``: the loop itself, and its dry run."""

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from run_cycle_loop.config.options import SettingsCommand, options
from run_cycle_loop.config.settings import Settings
from run_cycle_loop.config.sources import Resolved, require_cycle, resolve, unknown_variables
from run_cycle_loop.controls import signals


class RunCommand(SettingsCommand):
    """Everything behind the first ``--`` is the cycle's command, as it stands."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Split before click looks: it would take the command's own options for ours."""
        if "--" in args:
            cut = args.index("--")
            ctx.meta[__name__] = tuple(args[cut + 1 :])
            args = args[:cut]
            if not ctx.meta[__name__]:
                raise click.UsageError("there is no command behind --; name one", ctx)
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            if error.message.startswith("Got unexpected extra argument"):
                raise click.UsageError(
                    "put -- before the cycle's command: run-cycle-loop run -- COMMAND", ctx
                ) from None
            raise

    def format_usage(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The usage line names what may follow."""
        formatter.write_usage(ctx.command_path, "[OPTIONS] [-- COMMAND [ARG...]]")


@click.command(cls=RunCommand)
@options()
@click.pass_context
def run(ctx: click.Context, flags: dict[str, Any]) -> int:
    """Run cycles: one by default, --iterations N, or --continuous until stopped.

    Without a COMMAND each cycle calls the cycle script with mode and goal.
    """
    command: tuple[str, ...] = ctx.meta.get(__name__, ())

    def reread() -> Settings:
        resolved = resolve(flags, os.environ, Path.cwd(), command)
        require_cycle(resolved.settings)
        return resolved.settings

    resolved = resolve(flags, os.environ, Path.cwd(), command)
    require_cycle(resolved.settings)
    _warn_of_unknown_variables()
    if resolved.settings.dry_run:
        return _dry_run(resolved)
    signals.hold()
    from run_cycle_loop.app.loop import run_loop  # noqa: PLC0415 - a usage error need not load the whole house

    return run_loop(resolved.settings, os.environ, reread).exit_code


def _warn_of_unknown_variables() -> None:
    for name, meant in unknown_variables(os.environ):
        hint = f"; did you mean {meant}?" if meant else ""
        with suppress(OSError):  # a warning that nobody reads is no reason not to run
            click.echo(f"run-cycle-loop: warning: variable {name} sets nothing{hint}", err=True)


def _dry_run(resolved: Resolved) -> int:
    from run_cycle_loop.app.preview import preview  # noqa: PLC0415
    from run_cycle_loop.cli.checks import show_report, with_guards  # noqa: PLC0415

    found = preview(resolved.settings, os.environ)
    report = with_guards(found.report, resolved.settings)
    show_report(report)
    click.echo("would run:")
    click.echo("  " + " ".join(_quoted(part) for part in found.argv))
    click.echo("with, beside the caller's environment:")
    for name, value in found.environment.items():
        click.echo(f"  {name}={_quoted(value)}")
    click.echo("dry run: nothing was written, nothing was launched but the check script.")
    return 0 if report.ok else 1


def _quoted(text: str) -> str:
    import shlex  # noqa: PLC0415

    from run_cycle_loop.kit.printable import printable  # noqa: PLC0415

    return shlex.quote(printable(text))
