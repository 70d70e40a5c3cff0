"""``flask chsk …``: look at the settings, send an event from the command line."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import click
from flask import current_app
from flask.cli import AppGroup

from . import packers
from .errors import ChskError, UnpackError
from .printable import masked, printable
from .publisher import Publisher

commands = AppGroup("chsk", help="Channel sockets.")


@commands.command("config")
def show_config() -> None:
    """Print every setting of this application, but no password."""
    config = current_app.extensions["chsk"].config
    for field in fields(config):
        value = getattr(config, field.name)
        if field.name == "broker_url":
            value = masked(value)
        click.echo(f"CHSK_{field.name.upper()} = {value!r}")


@commands.command("send")
@click.argument("uid")
@click.argument("event")
def send(uid: str, event: str) -> None:
    """Push EVENT, EDN or JSON, to every client of UID: flask chsk send ann '[:order/shipped 7]'.

    Needs CHSK_BROKER_URL redis://…, by which the running workers hear of it.
    """
    config = current_app.extensions["chsk"].config
    try:
        with Publisher(config.broker_url, max_bytes=config.max_outbox_bytes // 2) as publisher:
            offset = publisher.send(uid, _read(event))
    except ChskError as error:
        raise click.ClickException(printable(str(error))) from error
    if offset is None:
        raise click.ClickException(f"{printable(uid)} is not connected: nothing was sent")
    click.echo(offset)


def _read(text: str) -> Any:
    try:
        return packers.make("json", max_values=None).unpack(text)
    except UnpackError:
        pass
    try:
        return packers.make("edn", max_values=None).unpack(text)
    except UnpackError as error:
        raise click.BadParameter(f"not EDN: {printable(str(error))}", param_hint="EVENT") from error
