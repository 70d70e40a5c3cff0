"""``flask chsk …``: serve, look at the settings, send an event from the command line.

``flask`` imports this module for each of its commands, as it imports all that is registered under
``flask.commands``, so the module imports little.
"""

from __future__ import annotations

import os
from dataclasses import fields
from typing import Any

import click
from flask import current_app
from flask.cli import AppGroup, ScriptInfo, pass_script_info
from flask.helpers import get_debug_flag

from . import packers
from .errors import ChskError, UnpackError
from .printable import masked, printable
from .publisher import Publisher

commands = AppGroup("chsk", help="Channel sockets.")

FILE = click.Path(exists=True, dir_okay=False, resolve_path=True)


@commands.command("serve", with_appcontext=False)
@click.option("--host", "-h", default="127.0.0.1", help="The address to listen on.")
@click.option("--port", "-p", default=5000, help="The port to listen on.")
@click.option("--cert", "certfile", type=FILE, help="A certificate: serve HTTPS.")
@click.option("--key", "keyfile", type=FILE, help="Its key, unless the certificate's file has it.")
@click.option(
    "--reload/--no-reload",
    "use_reloader",
    default=None,
    help="Start again when a file changes. On with --debug.",
)
@click.option(
    "--debugger/--no-debugger",
    "use_debugger",
    default=None,
    help="Show errors in the browser. On with --debug.",
)
@click.option("--access-log/--no-access-log", default=True, help="Print a line for each request.")
@click.option(
    "--graceful-timeout",
    default=30.0,
    help="Seconds that requests have to end after SIGTERM or Ctrl-C.",
)
@pass_script_info
def serve(
    info: ScriptInfo, /, use_reloader: bool | None, use_debugger: bool | None, **options: Any
) -> None:
    """Serve the application with gevent's WSGI server, in one process.

    At SIGTERM and Ctrl-C clients are told to come back (1012), and requests have time to end.
    """
    from .serving import Options, is_patched, patched_again, serve

    if not is_patched():
        # Before anything is imported: other extensions' commands are, by now.
        command = patched_again()
        os.execv(command[0], command)
    debug = get_debug_flag()
    wanted = Options(
        use_reloader=debug if use_reloader is None else use_reloader,
        use_debugger=debug if use_debugger is None else use_debugger,
        **options,
    )
    try:
        serve(info.load_app, wanted)
    except ChskError as error:
        raise click.ClickException(str(error)) from error


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
