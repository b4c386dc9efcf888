"""The settings for commands that must work even beside a broken settings file: the kill switch above all."""

import os
from pathlib import Path
from typing import Any

import click

from run_cycle_loop.config.settings import Settings
from run_cycle_loop.config.sources import resolve
from run_cycle_loop.model.errors import ConfigError


def settings_for_looking(flags: dict[str, Any]) -> Settings:
    """What flags, variables and the file come to; a file that cannot be used is said and left out.

    Raises:
        ConfigError: a flag or a variable cannot be used.
    """
    try:
        return resolve(flags, os.environ, Path.cwd(), cycle_files=False).settings
    except ConfigError as error:
        without_file = resolve(flags | {"config": "none"}, os.environ, Path.cwd(), cycle_files=False).settings
        click.echo(f"warning: {error}; going on without that file", err=True)
        return without_file
