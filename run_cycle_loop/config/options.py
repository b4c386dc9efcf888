"""The click options made from the declarations, and the help that shows them by groups.

An option takes its text as it stands and says nothing where it was not given: what a value must be is decided in
one place, ``config.sources.resolve``.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import click

from run_cycle_loop.config.declaration import Group, Option
from run_cycle_loop.config.settings import FILE_NAME, OPTIONS

_EPILOG = (
    "Every option can also be set by its variable, RUN_CYCLE_ and its name (RUN_CYCLE_SLEEP=5m), and by its key in "
    f"{FILE_NAME} (sleep = '5m'). A flag wins over a variable, a variable over the file. A DURATION is 300, 90s, 5m "
    "or 1h30m; a SIZE is 1048576, 512KiB or 64MiB."
)


class SettingOption(click.Option):
    """A click option that knows the setting behind it."""

    def __init__(self, param_decls: Sequence[str], *, setting: Option) -> None:
        self.setting = setting
        super().__init__(
            param_decls,
            type=None if setting.kind.switch else str,
            multiple=setting.kind.many,
            default=None,
            help=setting.help,
        )

    def get_help_record(self, ctx: click.Context) -> tuple[str, str]:  # noqa: ARG002 - click's signature
        """The flag as it is written, and what it means with its default."""
        left = (
            f"--[no-]{self.setting.key}"
            if self.setting.kind.switch
            else f"{self.setting.flag} {self.setting.kind.metavar}"
        )
        default = "off" if self.setting.default_text == "false" else self.setting.default_text
        return left, f"{self.setting.help} [{default}]"


class SettingsCommand(click.Command):
    """A command whose help shows its options by the groups of the settings."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write one section for each group; the command's own options come first."""
        sections: dict[str, list[tuple[str, str]]] = {title: [] for title in ("Options", *Group)}
        for param in self.get_params(ctx):
            title = param.setting.group if isinstance(param, SettingOption) else "Options"
            record = param.get_help_record(ctx)
            if record and record[1]:
                sections[title].append(record)
        for title, records in sections.items():
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the command's own last words, then what holds for all the settings."""
        super().format_epilog(ctx, formatter)
        formatter.write_paragraph()
        formatter.write_text(_EPILOG)


def options(*names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Give a command the flags of settings; it gets those that were given as ``flags``, fit for ``resolve``.

    Args:
        names: which settings; all of them where none is named.
    """
    settings = [option for option in OPTIONS.values() if option.on_command_line and (not names or option.name in names)]

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(command)
        def with_flags(*args: Any, **params: Any) -> Any:
            raw = {option.name: params.pop(option.name) for option in settings}
            return command(
                *args, flags={name: value for name, value in raw.items() if value not in (None, ())}, **params
            )

        decorated: Callable[..., Any] = with_flags
        for option in reversed(settings):  # click lists the last one applied first
            flag = f"{option.flag}/--no-{option.key}" if option.kind.switch else option.flag
            decorated = click.option(flag, option.name, cls=SettingOption, setting=option)(decorated)
        return decorated

    return decorate
