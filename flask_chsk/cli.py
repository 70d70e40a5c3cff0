"""``flask chsk …``: a look at the settings from the command line."""

from __future__ import annotations

from dataclasses import fields

import click
from flask import current_app
from flask.cli import AppGroup

commands = AppGroup("chsk", help="Channel sockets.")


@commands.command("config")
def show_config() -> None:
    """Print every setting of this application."""
    config = current_app.extensions["chsk"].config
    for field in fields(config):
        click.echo(f"CHSK_{field.name.upper()} = {getattr(config, field.name)!r}")
