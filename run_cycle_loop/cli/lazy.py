"""A group of commands that imports only the one that is called: ``--help`` and a slip of the pen need none of them."""

import importlib
from collections.abc import Mapping
from typing import Any

import click


class LazyGroup(click.Group):
    """Knows its commands by name.

    Args:
        commands_by_name: for each name the module below ``run_cycle_loop.cli`` with the attribute, and what the help
            says; a command without words is not listed.
    """

    def __init__(self, *args: Any, commands_by_name: Mapping[str, tuple[str, str]], **more: Any) -> None:
        super().__init__(*args, **more)
        self._known = commands_by_name

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """The names that the help lists."""
        return [name for name, (_, text) in self._known.items() if text]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        """The command, imported now."""
        if cmd_name not in self._known:
            return None
        module, _, attribute = self._known[cmd_name][0].rpartition(".")
        command: click.Command = getattr(importlib.import_module(f"run_cycle_loop.cli.{module}"), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """The list of commands, without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in self._known.items() if text])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that is called, or a usage error that says what was probably meant."""
        if args and not args[0].startswith("-") and args[0] not in self._known:
            raise click.UsageError(f"there is no command {args[0]!r}{self._suggestion(ctx, args[0])}", ctx)
        return super().resolve_command(ctx, args)

    def _suggestion(self, ctx: click.Context, word: str) -> str:
        from difflib import get_close_matches  # noqa: PLC0415 - only for a slip of the pen

        names = self.list_commands(ctx)
        close = get_close_matches(word, names, n=1)
        return f"; did you mean {close[0]!r}?" if close else f"; it is one of {', '.join(names)}"
